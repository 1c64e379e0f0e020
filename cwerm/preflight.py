"""Checks before a run: names that only the algorithms know, and a storage that can be written."""

from __future__ import annotations

from cwerm.algorithms import broadcast, selection
from cwerm.artifacts import ArtifactStore
from cwerm.config import Job
from cwerm.errors import UserError, blame, did_you_mean


def check(job: Job, store: ArtifactStore) -> None:
    """Refuse what can't succeed, before anything is computed or written.

    Raises:
        UserError: the first thing that is wrong.
    """
    from cwerm.stages import extract
    from cwerm.stages.classifiers import check_classifier_name

    check_classifier_name("train.model", job.train.model)
    if job.method == "cw-erm":
        with blame("coreset.method"):
            selection.load_method(job.coreset.method)
        with blame("broadcast.method"):
            broadcast.batch_method(job.broadcast.method)
        if job.reweight.input == "images":
            check_classifier_name("reweight.model", job.reweight.model)
        _check_backbone(job)
        extract.key(job, store)  # reads the source and the weights' file
    store.storage.check_writable()


def _check_backbone(job: Job) -> None:
    import timm

    names = timm.list_models()
    if job.features.backbone.partition(".")[0] not in names:
        raise UserError(
            f"features.backbone: unknown model '{job.features.backbone}'"
            f"{did_you_mean(job.features.backbone, names) or '; see timm.list_models()'}"
        )
