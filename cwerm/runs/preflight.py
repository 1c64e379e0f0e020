"""Checks before the work: what can't succeed is refused while nothing is computed or written yet."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from cwerm.algorithms import selection
from cwerm.errors import UserError, blame, did_you_mean
from cwerm.job.tree import Job
from cwerm.store.artifacts import Artifact, ArtifactStore
from cwerm.terminal import console


def check(job: Job, store: ArtifactStore) -> None:
    """Check names, sources, weights, storage and cluster; the cheap ones first.

    Raises:
        UserError: the first thing that is wrong.
    """
    from cwerm.runtime.session import session
    from cwerm.stages import extract, ingest, reweight, train
    from cwerm.stages.classifiers import check_classifier
    from cwerm.stages.extract.backbone_weights import weights_identity
    from cwerm.stages.ingest.sources import open_sources

    session.quiet_ray()
    coreset = job.method != "erm"
    if coreset:
        with blame("coreset.method"):
            selection.load_method(job.coreset_method)
        reweight.check(job)
    if job.resources.workers != "auto":
        train.check_batch_size(job, job.resources.workers)
    open_sources(job, store)
    if coreset:
        weights_identity(job, store)  # reads their file
    store.storage.check_writable()
    session.check_address(job)
    check_classifier(job, "train")
    if coreset and job.reweight.input == "images":
        check_classifier(job, "reweight")
    ingest.key(job, store)  # reads all that local sources hold
    if coreset and not store.committed(extract.NAME, extract.key(job, store)):
        _check_backbone(job)


def check_images(job: Job, store: ArtifactStore, images: Artifact) -> None:
    """Check, before the long extraction, what depends on the number of images and their size.

    Raises:
        UserError: classes too small for the meta set, a coreset too small or large, a batch that does
            not fit the memory.
    """
    from cwerm.algorithms import coreset
    from cwerm.runtime.session import session
    from cwerm.stages import broadcast, common, extract, reweight, select, train

    labels = common.labels_of(store, images)
    held_out = select.held_out(job, store, images)
    if job.method == "erm":
        return
    candidates = np.delete(labels, held_out)
    with blame("coreset.ratio", images.info["class_names"]):
        size = select.coreset_size(job, len(labels), len(candidates))
        coreset.select(candidates, size, "random", job.coreset.scope)
    if not job.trains_on_coreset:
        broadcast.check_neighbors(job, size)
    if not store.committed(extract.NAME, extract.key(job, store)):
        session.ensure_ray(job)  # ingest may have found all it needs in the store
        reweight.check_batch(job, images)
        train.check_batch(job, images)


def _check_backbone(job: Job) -> None:
    """Load the backbone, so that a wrong file does not show after hours of reading images."""
    import timm

    from cwerm.algorithms.networks.features import load_backbone
    from cwerm.algorithms.networks.timm_backbones import check_backbone_name
    from cwerm.algorithms.networks.timm_models import source_of
    from cwerm.stages.extract.backbone_weights import weights_file

    features = job.features
    if source_of(features.backbone):
        with blame("features.backbone"):
            check_backbone_name(features.backbone)
    else:
        names = [*timm.list_models(), *timm.list_models(pretrained=True)]
        if features.backbone not in names:
            hint = did_you_mean(features.backbone, names) or "; see timm.list_models()"
            raise UserError(f"features.backbone: unknown model '{features.backbone}'{hint}")
        with blame("features.image_size"):
            load_backbone(features.backbone, "random", features.image_size)
    with tempfile.TemporaryDirectory() as folder, blame("features.weights"):
        weights = weights_file(features, Path(folder), job.s3)
        backbone = load_backbone(features.backbone, weights, features.image_size)
        _check_finite(backbone.module, weights)
    for remark in backbone.remarks:
        console.note(f"features: {remark}")


def _check_finite(module: Any, weights: str) -> None:
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(
                f"features.weights: '{weights}' has NaN or infinite values in {name}; "
                "export the weights again"
            )
