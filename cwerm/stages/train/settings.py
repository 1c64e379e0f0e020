"""What train sees of a job."""

from __future__ import annotations

from typing import Any

from cwerm.job.tree import Job
from cwerm.stages.outside import Outside
from cwerm.stages.select import HoldOut
from cwerm.stages.stage import Settings

LOSS_OPTIONS = {"focal": "focal_gamma", "gce": "gce_q", "small_loss": "wrong_share"}


class TrainSettings(Settings):
    """The classifier, its recipe, and what becomes of the weights."""

    model: str
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
    deterministic: bool
    targets: str
    control: str
    held_out: HoldOut
    seed: int

    @classmethod
    def of(cls, job: Job, outside: Outside) -> TrainSettings:
        """Those of this job."""
        del outside
        section: dict[str, Any] = job.train.model_dump(exclude={"keep_checkpoints"})
        for loss, key in LOSS_OPTIONS.items():
            if job.train.loss != loss:
                del section[key]
        weighted = job.method != "erm" and not job.trains_on_coreset
        changes = weighted and job.control in ("constant", "permuted")
        control = job.control if changes else "none"
        taken = job.train.loss == "cross_entropy" or job.train.targets != "auto"
        if not (weighted and job.believes and taken) or job.control != "none":
            section["targets"] = "given"
        return cls(**section, control=control, held_out=HoldOut.of(job), seed=job.seed)
