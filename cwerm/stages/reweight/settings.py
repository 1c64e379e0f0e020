"""What reweight sees of a job."""

from __future__ import annotations

from typing import Literal

from cwerm.job.tree import Job
from cwerm.stages.outside import Outside
from cwerm.stages.stage import Settings


class Learning(Settings):
    """How `MetaWeightNet` or `LearningToReweight` learns."""

    input: Literal["features", "images"]
    model: str | None
    image_size: int | None
    epochs: int | None
    batch_size: int
    meta_batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    weight_lr: float
    meta_every: int
    augment: bool
    hidden: int
    average_last: int
    neighbors: int | None
    """Coreset samples whose labels the weight net sees the agreement with; None for the loss alone."""

    @classmethod
    def of(cls, job: Job) -> Learning:
        """Those of this job."""
        section = job.reweight.model_dump(exclude={"method", "preset"})
        if section["input"] == "features":
            section |= {"model": None, "image_size": None}
        agrees = job.reweight_method == "metaweightnet" and job.broadcast_method == "agreement"
        return cls(**section, neighbors=job.neighbors if agrees else None)

    def num_epochs(self, coreset_size: int) -> int:
        """Epochs as asked, or enough for the weight net, which moves once a step, to learn."""
        if self.epochs is not None:
            return self.epochs
        from cwerm.algorithms.reweighting.settings import usual_epochs

        return usual_epochs(coreset_size, self.batch_size)


class ReweightSettings(Settings):
    """How weights are learned on the coreset."""

    method: str
    seed: int
    untrained: bool
    """The control: nothing is learned."""
    on_ranks: bool
    """Every worker takes its share of each batch, as the coreset is all samples."""
    learning: Learning | None
    """None for `posterior` and `uniform`."""

    @classmethod
    def of(cls, job: Job, outside: Outside) -> ReweightSettings:
        """Those of this job."""
        del outside
        learns = job.reweight_method in ("metaweightnet", "l2r")
        return cls(
            method=job.reweight_method,
            seed=job.seed,
            untrained=job.control == "untrained",
            on_ranks=job.method == "w-erm",
            learning=Learning.of(job) if learns else None,
        )

    @property
    def on_images(self) -> bool:
        """Whether a classifier of images is trained, and not a head on features."""
        return self.learning is not None and self.learning.input == "images"


def needs(job: Job) -> tuple[str, ...]:
    """What is read: the coreset, and its features or images."""
    on_features = job.reweight_method == "posterior"
    if job.reweight_method in ("metaweightnet", "l2r"):
        learning = Learning.of(job)
        on_features = learning.input == "features" or learning.neighbors is not None
    return ("ingest", "select", "extract") if on_features else ("ingest", "select")
