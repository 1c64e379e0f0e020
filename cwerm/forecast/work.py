"""How much a stage computes and stores: counted on networks without numbers, and measured constants."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cwerm.forecast.by_name import OutsideByName
from cwerm.job.tree import Job
from cwerm.stages.classifiers import classifier_size, create_classifier

TRAINING = 3  # a step computes a forward pass, and about twice that backwards
META_STEP = (
    12  # of the weight net: a virtual step, the clean batch, tangents and the step itself, 3 each
)
START_SECONDS = 10  # of a stage's workers, measured on 2 cores
MEASURED_SECONDS = 0.5
BYTES_A_PIXEL = 1  # of an encoded image: a photograph as JPEG takes .3, a small one as PNG 2
STATE_COPIES = 5  # of the parameters: the model, and two checkpoints with momentum


@dataclass(frozen=True)
class Work:
    """What a stage takes. None: not known before the images are read."""

    operations: float | None = 0.0
    """Multiplications and additions of its networks."""
    bytes: float | None = 0.0
    """What it leaves in the store."""


@dataclass(frozen=True)
class Counts:
    """Images of a job, as far as listing tells."""

    training: int
    validation: int
    test: int
    side: int | None

    @classmethod
    def of(cls, job: Job, outside: OutsideByName) -> Counts:
        """Rejects and a long tail cut out of the data aside."""
        data = job.data
        total = outside.num_images("source", "train")
        test = outside.num_images("test" if data.test else "source", "test")
        if data.limit is not None:
            total = min(total, data.limit)
        if not test and data.test_fraction:
            test = round(total * data.test_fraction)
            total -= test
        validation = outside.num_images("validation" if data.validation else "source", "val")
        if not validation and data.validation_fraction:
            validation = round(total * data.validation_fraction)
            total -= validation
        return cls(total, validation, test, outside.side())


def work_of(stage: str, job: Job, counts: Counts) -> Work:
    """What a stage of this job takes; stages without networks count as their start alone."""
    if stage in ("extract", "embed_test", "embed_val"):
        of_stage = {"embed_test": counts.test, "embed_val": counts.validation}
        images = of_stage.get(stage, counts.training)
        operations, width = backbone_pass(job.features.backbone, job.features.image_size)
        size = 2 if job.features.dtype == "float16" else 4
        return Work(operations * images, float(images * width * size))
    if stage == "train":
        return _training(job, counts)
    if stage == "reweight" and job.reweighting.reads == "images":
        return _meta_training(job, counts)
    if stage == "ingest" and counts.side is not None:
        images = counts.training + counts.validation + counts.test
        return Work(0.0, float(BYTES_A_PIXEL * images * counts.side**2))
    return Work(0.0, None if stage == "ingest" else 0.0)


def _training(job: Job, counts: Counts) -> Work:
    train = job.train
    side = train.image_size or counts.side
    if train.input == "features":
        return Work(0.0, 0.0)
    if side is None:
        return Work(None, None)
    operations, parameters = classifier_pass("train", train.model, side)
    share = (job.coreset_ratio or 1.0) if job.trains_on_coreset else 1.0
    rounds = -(-train.epochs // train.report_every)
    # validation images are looked at as it goes, or else the test images
    judged = rounds * (counts.validation or counts.test)
    trained = train.epochs * counts.training
    if train.max_steps is not None:
        trained = min(trained, train.max_steps * train.batch_size)
    images = TRAINING * trained * share + judged
    return Work(operations * images, 4.0 * parameters * STATE_COPIES)


def _meta_training(job: Job, counts: Counts) -> Work:
    method: Any = job.reweighting
    side = getattr(method, "image_size", None) or counts.side
    if side is None:
        return Work(None, 0.0)
    operations, _ = classifier_pass("reweight", method.model, side)
    share = 1.0 if job.method == "w-erm" else job.coreset_ratio or 1.0
    samples = max(1, round(counts.training * share))
    return Work(operations * META_STEP * method.num_epochs(samples) * samples, 0.0)


@lru_cache
def classifier_pass(section: str, name: str, side: int) -> tuple[float, int]:
    """Operations of a forward pass for one image, and parameters."""
    from cwerm.algorithms.networks.timm_models import without_memory

    fitting = classifier_size(section, name, side)
    model = without_memory(lambda: create_classifier(f"{section}.model", name, 10, fitting, 0))
    return _operations(model, fitting), sum(value.numel() for value in model.parameters())


@lru_cache
def backbone_pass(name: str, side: int | None) -> tuple[float, int]:
    """Operations of a forward pass for one image, and the width of its features."""
    import timm

    from cwerm.algorithms.networks.timm_models import without_memory

    own = timm.get_pretrained_cfg(name)
    size = side or (int(own.input_size[-1]) if own else 224)
    model: Any = without_memory(lambda: create_classifier("features.backbone", name, 0, size, 0))
    return _operations(model, size), int(model.num_features)


def _operations(model: Any, side: int) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.empty(1, 3, side, side, device=device))
    return float(counter.get_total_flops())


@lru_cache
def measured_rate() -> tuple[float, str]:
    """Operations a second of a 3x3 convolution here, and on what."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    convolution = torch.nn.Conv2d(64, 64, 3, padding=1, bias=False).to(device)
    images = torch.rand(16, 64, 32, 32, device=device)
    done, started = 0, time.perf_counter()
    with torch.no_grad():
        while time.perf_counter() - started < MEASURED_SECONDS:
            convolution(images)
            if device == "cuda":
                torch.cuda.synchronize()
            done += 1
    operations = 2.0 * 64 * 64 * 9 * 16 * 32 * 32
    where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} cores"
    return operations * done / (time.perf_counter() - started), where
