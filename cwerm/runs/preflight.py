"""Checks before the work: what can't succeed is refused while nothing is computed or written yet."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from cwerm.algorithms import selection
from cwerm.data.corrections import DECISIONS
from cwerm.errors import UserError, blame, did_you_mean
from cwerm.job.tree import Job
from cwerm.stages.plan import Plan
from cwerm.terminal import console


def check(plan: Plan) -> None:
    """Check names, sources, weights, storage and cluster; the cheap ones first.

    Raises:
        UserError: the first thing that is wrong.
    """
    from cwerm.runtime.session import session
    from cwerm.stages.classifiers import check_classifier
    from cwerm.stages.train import limits
    from cwerm.stages.train.targets import check_targets

    job = plan.job
    session.quiet_ray()
    check_methods(job)
    check_targets(job)
    check_judged(job)
    _check_embedded(job)
    if job.resources.workers != "auto":
        asked = job.train
        limits.check_batch_size(asked.batch_size, job.resources.workers, asked.accumulate)
    outside = plan.outside
    _ = outside.sources  # opens them
    embedding = [name for name in ("extract", "embed_val", "embed_test") if name in plan.names]
    if embedding:
        _ = outside.backbone_weights  # reads their file
    plan.store.storage.check_writable()
    if plan.store.storage.far and job.train.cache_bytes:
        most = decimal(job.train.cache_bytes)
        console.note(
            f"parts of the bucket are kept on the nodes' disks, up to {most} each (train.cache_bytes)"
        )
    session.check_address(job)
    check_classifier(job, "train")
    if job.train.weights != "random":
        _ = outside.train_weights  # reads their file
    if "reweight" in plan.names and job.reweighting.reads == "images":
        check_classifier(job, "reweight")
    _ = outside.fingerprints  # reads all that local sources hold
    plan.look_up()
    if not all(map(plan.is_made, embedding)):
        _check_backbone(job)


def job_schema() -> dict[str, Any]:
    """The JSON schema of job files, with the names of the methods, each of which is a file."""
    tree = Job.model_json_schema()
    methods = ["auto", *selection.method_names()]
    tree["$defs"]["Coreset"]["properties"]["method"]["enum"] = methods
    for section in ("reweight", "broadcast"):
        # any: where no method is named, the keys alone do not say which
        branches = tree["properties"][section].pop("oneOf")
        tree["properties"][section]["anyOf"] = branches
        for branch in branches:
            method = tree["$defs"][branch["$ref"].rpartition("/")[2]]["properties"]["method"]
            if name := method.pop("const", None):
                method |= {"enum": [name, "auto"], "default": "auto"}
    return tree


def check_methods(job: Job) -> None:
    """Refuse methods that do not fit together.

    Raises:
        UserError: naming the key to change.
    """
    if job.control != "none" and (job.method == "erm" or job.trains_on_coreset):
        raise UserError(
            f"control: '{job.control}' changes weights, and method {job.method} has none; leave it out, "
            "or use method cw-erm or w-erm"
        )
    if job.method == "erm":
        return
    learned, needed, reweighting = job.reweight.method, job.broadcast.method, job.reweighting
    spreading = job.spreading
    judges = reweighting.takes_agreement if spreading.asks_agreement else reweighting.judges
    if spreading.asks_learned and not judges:
        raise UserError(
            f"broadcast.method: '{needed}' evaluates what reweighting learned on every sample, and "
            f"reweight.method '{learned}' learns no such function; use metaweightnet, or "
            "broadcast.method nearest or vote"
        )
    if reweighting.needs_clean and not job.trains_on_coreset and not job.has_meta:
        raise UserError(
            f"reweight.method: '{learned}' learns from samples whose labels are right, and the job names "
            "none; give data.trusted, or coreset.meta=hold_out, which believes "
            f"{job.coreset.meta_per_class} samples a class"
        )
    if job.method == "w-erm" and not reweighting.shares_steps:
        raise UserError(
            f"reweight.method: '{learned}' for method w-erm; use metaweightnet or l2r there"
        )
    if job.control == "untrained" and not reweighting.can_stay_untrained:
        raise UserError(
            f"control: 'untrained' needs something to train, which reweight.method '{learned}' has "
            "not; use metaweightnet or posterior"
        )


def check_judged(job: Job) -> None:
    """Refuse to judge test images where nothing judges labels.

    Raises:
        UserError: naming the key to change.
    """
    if job.data.judge_test and not job.judges_labels:
        raise UserError(
            "data.judge_test: test labels are judged by what judges the training labels, which method cw-erm "
            "with reweight.method posterior and broadcast.method function does; leave it out, or use those"
        )


def check_images(plan: Plan) -> None:
    """Check, before the long extraction, what depends on the number of images and their size.

    Raises:
        UserError: too many rejects, classes too small for the meta set, a coreset too small or large, a
            batch that does not fit the memory.
    """
    from cwerm.algorithms import class_counts
    from cwerm.runtime.session import session
    from cwerm.stages import reweight, train
    from cwerm.stages.select import class_sizes
    from cwerm.stages.train import limits

    check_rejected(plan)
    images, store = plan.made["ingest"], plan.store
    if "train" in plan.names:
        train.check_test(images)
    labels_in_use = plan.execute("label").artifact
    if counts := labels_in_use.info.get("corrections"):
        console.note(told_corrections(counts))
    if wrong := labels_in_use.info.get("wrong_validation_labels"):
        console.note(
            f"data.noise: {wrong:,} of {images.rows('validation_images'):,} validation labels are wrong, "
            "too, as those that are trained on; test labels are as given"
        )
    if "select" not in plan.names:
        return
    settings, names = plan["select"].settings, images.info["class_names"]
    left_out = settings.left_out(store, labels_in_use, names)
    sizes = class_sizes(store, labels_in_use, left_out, len(names))
    with blame("coreset.ratio", names):
        size = settings.coreset_size(labels_in_use.rows("labels"), int(sizes.sum()))
        if settings.scope == "global":
            class_counts.check_size(sizes, size)
        else:
            class_counts.class_shares(sizes, size)
    if "broadcast" in plan.names:
        plan["broadcast"].settings.check_neighbors(size)
    if "extract" in plan.names and not plan.is_made("extract"):
        session.ensure_ray(plan.job)  # ingest may have found all it needs in the store
        if "reweight" in plan.names:
            reweight.check_batch(plan["reweight"].settings, images, plan.job)
        if "train" in plan.names:
            limits.check_batch(plan["train"].settings, images, plan.job)


def told_corrections(counts: dict[str, int]) -> str:
    """What became of the labels by a person's decisions, in a line."""
    done = ", ".join(f"{counts[name]:,} {name}" for name in DECISIONS)
    for split in ("validation", "test"):
        held_out = counts.get(f"of_{split}", 0) + counts.get(f"removed_{split}", 0)
        done += f"; {held_out:,} of {split} images" if held_out else ""
    return f"corrections: {done}"


def check_rejected(plan: Plan) -> None:
    """Refuse images that were ingested for a job that allowed more rejects.

    Raises:
        UserError: naming the first of them.
    """
    from cwerm.stages.ingest.scan import check_rejects

    images = plan.made["ingest"]
    for first in plan.store.read(images, "rejects").slice(0, 1).to_pylist():
        found = images.info["num_rejects"], images.info["num_read"]
        check_rejects(plan.job.data.max_rejects, *found, (first["path"], first["reason"]))


def _check_embedded(job: Job) -> None:
    """Refuse embeddings of the user's own, which `find` takes alone."""
    for key in ("source", "probabilities"):
        if getattr(job.features, key):
            raise UserError(
                f"features.{key}: `cwerm find` takes it, and no training; leave it out, or call "
                "cwerm.find_label_errors from Python"
            )


def _check_backbone(job: Job) -> None:
    """Load the backbone, so that a wrong file does not show after hours of reading images."""
    import timm

    from cwerm.algorithms.networks.features import load_backbone
    from cwerm.algorithms.networks.timm_backbones import check_backbone_name
    from cwerm.algorithms.networks.timm_models import is_known, source_of
    from cwerm.stages.backbone_weights import weights_file

    features = job.features
    if source_of(features.backbone):
        with blame("features.backbone"):
            check_backbone_name(features.backbone)
    else:
        if not is_known(features.backbone):
            names = [*timm.list_models(), *timm.list_models(pretrained=True)]
            hint = did_you_mean(features.backbone, names) or "; see timm.list_models()"
            raise UserError(f"features.backbone: unknown model '{features.backbone}'{hint}")
        with blame("features.image_size"):
            load_backbone(features.backbone, "random", features.image_size)
    with tempfile.TemporaryDirectory() as folder, blame("features.weights"):
        weights = weights_file(features.weights, Path(folder), job.s3)
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
