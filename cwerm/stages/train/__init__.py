"""Train: weighted empirical risk minimisation (paper, Eq. 2) by Ray Train and DDP.

Checkpoints, one an epoch, and TensorBoard events lie in the run folder. Ray Train finds them again by
name, and the name is the artifact's key: an interrupted run goes on, and a changed job starts anew.
"""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

from cwerm.errors import UserError
from cwerm.job.tree import Job
from cwerm.runtime import batch_memory, capacity, checkpoints, saved_state
from cwerm.runtime.board import progress_board
from cwerm.runtime.ranks import checkpoints_folder, run_on_ranks
from cwerm.runtime.worker_errors import user_errors
from cwerm.stages import broadcast, common, ingest, pixels, select
from cwerm.stages.classifiers import batch_bytes, classifier_size, savable, told_size
from cwerm.store.artifacts import Artifact, ArtifactStore, Writer, artifact_key
from cwerm.terminal import console

NAME = "train"
PERMUTATION_STREAM = 21  # apart from what else is drawn from the seed
MEMORY_MARGIN = 2.0  # gradients, optimizer state and the allocator's slack, over saved activations


def key(job: Job, store: ArtifactStore) -> str:
    """Depends on the samples and their weights, where there are any, the train section and the seed."""
    if job.method == "erm":
        inputs = [ingest.key(job, store), select.held_out_key(job)]
    elif job.trains_on_coreset:
        inputs = [select.key(job, store)]
    else:
        inputs = [broadcast.key(job, store)]
    return artifact_key(NAME, _parameters(job), inputs)


def run(job: Job, store: ArtifactStore) -> Artifact:
    """Train the classifier on the method's samples, evaluate it on the test images."""
    from cwerm.stages.train.loop import train_worker

    writer = Writer(store, NAME, key(job, store), _parameters(job))
    images = common.require(ingest, job, store)
    check_batch(job, images)
    inputs = loop_inputs(job, store, images)
    events = f"runs/{job.name}/events/{writer.key}"
    folder = checkpoints_folder(job, writer.key)
    with progress_board(job.train.epochs, "train") as board, user_errors("train.batch_size"):
        run_on_ranks(
            train_worker,
            {**inputs, "events": events, "board": board, "checkpoints": folder},
            job,
            store,
            stage=NAME,
            name=writer.key,
            keep_checkpoints=max(checkpoints.KEPT, job.train.keep_checkpoints),
            elastic=True,
        )
    return _commit(job, writer, images, folder)


def loop_inputs(job: Job, store: ArtifactStore, images: Artifact) -> dict[str, Any]:
    """What the loop of `train_loop` reads, on any number of workers."""
    samples, weights = training_set(job, store, images)
    asked = pixels.square_size(job.train.image_size, images)
    return {
        "job": job,
        "store": store,
        "images": images,
        "samples": samples,
        "weights": weights,
        "samples_per_epoch": images.rows("images") - len(select.held_out(job, store, images)),
        "size": classifier_size("train", job.train.model, asked),
    }


def training_set(job: Job, store: ArtifactStore, images: Artifact) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the samples that the method trains on, ascending, and their float32 weights.

    All but the meta set, or the coreset. The weights are those of the broadcast, of mean 1 over the
    data set, changed as ``control`` says; without reweighting they are 1.
    """
    if job.trains_on_coreset:
        coreset = store.read(common.require(select, job, store), "coreset", ["id"])
        ids = common.column(coreset, "id")
        return ids, np.ones(len(ids), dtype=np.float32)
    held_out = select.held_out(job, store, images)
    ids = np.setdiff1d(np.arange(images.rows("images")), held_out)
    if job.method == "erm" or job.control == "constant":
        return ids, np.ones(len(ids), dtype=np.float32)
    table = store.read(common.require(broadcast, job, store), "weights", ["id", "weight"])
    weights = np.empty(images.rows("images"), dtype=np.float32)
    weights[common.column(table, "id")] = common.column(table, "weight")
    if job.control == "permuted":
        return ids, np.random.default_rng([job.seed, PERMUTATION_STREAM]).permutation(weights[ids])
    return ids, weights[ids]


def check_batch(job: Job, images: Artifact) -> None:
    """Refuse a batch that is too small for the workers or too large for their memory.

    Raises:
        UserError: naming the key to change.
    """
    size_of_run, batch_size = capacity.size(job), job.train.batch_size
    workers = size_of_run.workers
    check_batch_size(job, workers)
    size = told_size(job, "train", images)
    need = batch_bytes("train", job.train.model, len(images.info["class_names"]), size)
    share = size_of_run.sharing_memory(workers) / workers
    need = int(MEMORY_MARGIN * need * share)
    batch_memory.check_memory(job, "train.batch_size", need, batch_size)


def check_batch_size(job: Job, workers: int) -> None:
    """Refuse a batch that leaves a worker fewer than two images, too few for BatchNorm.

    Raises:
        UserError: naming the smallest batch.
    """
    if job.train.batch_size < 2 * workers:
        raise UserError(
            f"train.batch_size: {job.train.batch_size} images over {workers} workers; "
            f"use at least {2 * workers}"
        )


def _commit(job: Job, writer: Writer, images: Artifact, folder: str) -> Artifact:
    """Publish the last checkpoint's model with its metrics."""
    from safetensors.torch import save

    found = checkpoints.find(writer.storage, folder, console.note)
    whole = [saved for saved in found if saved.epochs == job.train.epochs]
    _, state = next(saved_state.load(writer.storage, whole, console.note), (None, None))
    if state is None or len(state["history"]) != job.train.epochs:
        raise UserError(
            f"train: its last checkpoint in '{writer.storage.uri(folder)}' can't be read; run the same "
            "command again to go on from the one before"
        )
    last = state["history"][-1]
    description = {
        "model": job.train.model,
        "class_names": images.info["class_names"],
        **state["input"],
    }
    metadata = {"cwerm": json.dumps(description)}  # one key, as safetensors shuffles several
    writer.write_file("model.safetensors", save(savable(state["model"]), metadata=metadata))
    writer.write_file("history.json", json.dumps(state["history"], indent=1).encode())
    trained = sum(epoch["seconds"] for epoch in state["history"])
    return writer.commit({}, last, least_seconds=trained)


def load_model(store: ArtifactStore, artifact: Artifact) -> dict[str, np.ndarray]:
    """The trained model's tensors by name."""
    from safetensors.numpy import load

    return load(io.BytesIO(store.read_file(artifact, "model.safetensors")).getvalue())


LOSS_OPTIONS = {"focal": "focal_gamma", "gce": "gce_q", "small_loss": "wrong_share"}


def _parameters(job: Job) -> dict[str, Any]:
    section = job.train.model_dump(exclude={"keep_checkpoints"})
    for loss, key in LOSS_OPTIONS.items():
        if job.train.loss != loss:
            del section[key]
    weighted = job.method != "erm" and not job.trains_on_coreset
    control = {"control": job.control} if weighted else {}
    return {**section, **control, "seed": job.seed, "method": job.method}
