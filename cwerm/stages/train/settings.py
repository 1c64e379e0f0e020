"""What train sees of a job."""

from __future__ import annotations

from typing import Any

from cwerm.job.tree import Job
from cwerm.stages.extract.settings import ExtractSettings
from cwerm.stages.outside import Outside
from cwerm.stages.select import HoldOut
from cwerm.stages.stage import Settings

HOW = {"keep_checkpoints", "checkpoint_minutes", "cache_bytes"}  # which no result depends on
LOSS_OPTIONS = {"focal": "focal_gamma", "gce": "gce_q", "small_loss": "wrong_share"}


class TrainSettings(Settings):
    """The classifier, its recipe, and what becomes of the weights."""

    input: str
    features: ExtractSettings | None = None
    """Of which it is a classifier; None for images."""
    model: str
    weights: str | None
    """What tells those that it starts from; None for random ones."""
    image_size: int | None
    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    crop_padding: int
    flip: bool
    loss: str
    focal_gamma: float | None = None
    gce_q: float | None = None
    wrong_share: float | None = None
    report_every: int
    memory_bytes: int | None = None
    """Of decoded images that are held; None for features, as of `window`."""
    window: int | None = None
    precision: str
    deterministic: bool
    targets: str
    control: str
    held_out: HoldOut
    seed: int

    @classmethod
    def of(cls, job: Job, outside: Outside) -> TrainSettings:
        """Those of this job."""
        section: dict[str, Any] = job.train.model_dump(exclude=HOW)
        for loss, key in LOSS_OPTIONS.items():
            if job.train.loss != loss:
                del section[key]
        if job.train.input == "features":
            del section["memory_bytes"], section["window"]
        weighted = job.method != "erm" and not job.trains_on_coreset
        changes = weighted and job.control in ("constant", "permuted")
        control = job.control if changes else "none"
        taken = job.train.loss == "cross_entropy" or job.train.targets != "auto"
        if not (weighted and job.believes and taken) or job.control != "none":
            section["targets"] = "given"
        features = ExtractSettings.of(job, outside) if job.train.input == "features" else None
        weights = None if job.train.weights == "random" else outside.train_weights
        section["weights"] = weights
        held_out = HoldOut.of(job)
        return cls(**section, features=features, control=control, held_out=held_out, seed=job.seed)
