"""What train sees of a job."""

from __future__ import annotations

from typing import Any

from cwerm.job.training import Train
from cwerm.job.tree import Job
from cwerm.stages.extract.settings import ExtractSettings
from cwerm.stages.outside import Outside
from cwerm.stages.select import HoldOut
from cwerm.stages.stage import Settings

HOW = {"keep_checkpoints", "checkpoint_minutes", "cache_bytes"}  # which no result depends on
LOSS_OPTIONS = {"focal": "focal_gamma", "gce": "gce_q", "small_loss": "wrong_share"}

# what is not in the settings, and so in no key, unless a job asks for it
OPTIONS = (
    *(
        "optimizer",
        "warmup_epochs",
        "max_steps",
        "head_lr_factor",
        "accumulate",
        "clip_gradient_norm",
        "ema",
    ),
    *("crop", "augment", "mixup", "cutmix", "label_smoothing"),
)


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
    optimizer: str | None = None
    warmup_epochs: float | None = None
    max_steps: int | None = None
    momentum: float | None = None
    """Of SGD."""
    betas: list[float] | None = None
    """Of AdamW."""
    weight_decay: float
    head_lr_factor: float | None = None
    accumulate: int | None = None
    clip_gradient_norm: float | None = None
    ema: float | None = None
    crop: str | None = None
    augment: str | None = None
    mixup: float | None = None
    cutmix: float | None = None
    label_smoothing: float | None = None
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
        for name in [name for name in OPTIONS if section[name] == Train.model_fields[name].default]:
            del section[name]
        del section["betas" if job.train.optimizer == "sgd" else "momentum"]
        if job.train.crop == "resized":
            section["crop_padding"] = 0
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
