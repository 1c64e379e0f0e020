"""Reweight: learn weights on the coreset -> ``coreset_weights``, what was learned, and its history.

The method is sequential and the coreset small, so it runs in one actor, on one GPU where there is one.
Only ``w-erm``, whose coreset is all samples, runs the same steps on every worker under Ray Train.
"""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from cwerm.errors import UserError
from cwerm.job.tree import Job
from cwerm.runtime import batch_memory, capacity
from cwerm.runtime.board import progress_board
from cwerm.runtime.parallel import PartWorker, Pool
from cwerm.runtime.session import cluster, session
from cwerm.runtime.worker_errors import user_errors
from cwerm.stages import common, ingest, select
from cwerm.stages.classifiers import batch_bytes, told_size
from cwerm.stages.reweight import fit as reweight_fit
from cwerm.stages.reweight.fit import Learned
from cwerm.store import schema
from cwerm.store.artifacts import Artifact, ArtifactStore, Writer, artifact_key
from cwerm.terminal import console

NAME = "reweight"
MOST_CPUS = 8
POSTERIOR_VERSION = 2  # raised when the same samples would be judged otherwise
MEMORY_MARGIN = 4  # the graph of the meta-gradient holds several passes over the batch


def key(job: Job, store: ArtifactStore) -> str:
    """Depends on coreset and meta set, the reweight section and the seed."""
    return artifact_key(NAME, _parameters(job), [select.key(job, store)])


def run(job: Job, store: ArtifactStore) -> Artifact:
    """Learn the weights of the coreset (paper, section 4.2)."""
    images = common.require(ingest, job, store)
    coreset = store.read(common.require(select, job, store), "coreset")
    writer = Writer(store, NAME, key(job, store), _parameters(job))
    if job.reweight_method == "uniform":
        ones = np.ones(len(coreset), dtype=np.float32)
        learned = Learned(common.column(coreset, "id"), ones, np.zeros_like(ones), [])
    else:
        session.ensure_ray(job)
        check_batch(job, images)
        learned = _learn(job, store, writer, len(coreset))
    for name, data in learned.files.items():
        writer.write_file(name, data)
    writer.write_file("history.json", json.dumps(learned.history, indent=1).encode())
    table = pa.table(
        [
            pa.array(learned.ids, pa.int64()),
            pa.array(learned.weights, pa.float32()),
            pa.array(learned.losses, pa.float32()),
        ],
        schema=schema.table_schema("coreset_weights"),
    )
    part = writer.write_part("coreset_weights", 0, table)
    artifact = writer.commit({"coreset_weights": [part]}, learned.found)
    reweight_fit.forget_states(writer)
    return artifact


def check(job: Job) -> None:
    """Refuse what does not fit together.

    Raises:
        UserError: a broadcast that needs what this way of reweighting does not learn.
    """
    learned, needed = job.reweight_method, job.broadcast_method
    function = {"function": ("metaweightnet", "posterior"), "agreement": ("metaweightnet",)}
    if learned not in function.get(needed, (learned,)):
        raise UserError(
            f"broadcast.method: '{needed}' evaluates what reweighting learned on every sample, and "
            f"reweight.method '{learned}' learns no such function; use {function[needed][0]}, or "
            "broadcast.method nearest or vote"
        )
    uses_meta = learned in ("metaweightnet", "l2r") and not job.trains_on_coreset
    if uses_meta and not job.has_meta:
        raise UserError(
            f"reweight.method: '{learned}' learns from samples whose labels are right, and the job names "
            "none; give data.trusted, or coreset.meta=hold_out, which believes "
            f"{job.coreset.meta_per_class} samples a class"
        )
    if job.method == "w-erm" and learned not in ("metaweightnet", "l2r"):
        raise UserError(
            f"reweight.method: '{learned}' for method w-erm; use metaweightnet or l2r there"
        )
    if job.control == "untrained" and learned not in ("metaweightnet", "posterior"):
        raise UserError(
            f"control: 'untrained' needs something to train, which reweight.method '{learned}' has "
            "not; use metaweightnet or posterior"
        )


def check_batch(job: Job, images: Artifact) -> None:
    """Refuse a batch of images that is too large for the memory.

    Raises:
        UserError: naming the key to change.
    """
    if job.reweight.input == "images" and job.reweight_method in ("metaweightnet", "l2r"):
        size = told_size(job, "reweight", images)
        need = batch_bytes("reweight", job.reweight.model, len(images.info["class_names"]), size)
        batch = job.reweight.batch_size
        batch_memory.check_memory(job, "reweight.batch_size", MEMORY_MARGIN * need, batch)


def _learn(job: Job, store: ArtifactStore, writer: Writer, coreset_size: int) -> Learned:
    if reweight_fit.has_state(writer):
        console.note("goes on from the state that an earlier attempt saved")
    epochs = reweight_fit.num_epochs(job, coreset_size)
    if job.reweight_method == "posterior":
        epochs = 1
    with progress_board(epochs, "reweight") as board, user_errors("reweight.batch_size"):
        if job.method == "w-erm":
            from cwerm.stages.reweight.parallel import learn_in_parallel

            return learn_in_parallel(job, store, writer, board)
        return _learn_in_actor(job, store, writer, board)


def _learn_in_actor(job: Job, store: ArtifactStore, writer: Writer, board: Any) -> Learned:
    size = capacity.size(job)
    request = size.single(MOST_CPUS)
    pool = Pool(job, NAME, 1, request, key="reweight.batch_size", kind=_Reweighter)
    fit = functools.partial(_Fit, job, store, writer, board, size.device)
    try:
        ((_, learned),) = pool.map(fit, [None], NAME, bar=False)
        return learned
    finally:
        pool.close()


class _Reweighter(PartWorker):
    """The actor, under a name of its own."""


class _Fit:
    """What the actor does; it goes on from the state that one before it saved."""

    def __init__(
        self, job: Job, store: ArtifactStore, writer: Writer, board: Any, device: str
    ) -> None:
        cluster.check_device(device)
        self.job, self.store, self.writer = job, store, writer
        self.board, self.device = board, device

    def __call__(self, _: None) -> Learned:
        import ray
        import torch

        from cwerm.algorithms.gradients.step_options import StepOptions

        job, store = self.job, self.store
        cpus = max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))
        # steps of the head on features are too small to share: threads would only wait for each other
        threads = min(cpus, psutil.cpu_count(logical=False) or cpus)
        torch.set_num_threads(threads if job.reweight.input == "images" else 1)
        if job.reweight_method == "posterior":
            return reweight_fit.fit_posterior(job, store)
        options, post, note = StepOptions(), self.board.post.remote, self.board.note.remote
        return reweight_fit.fit_weights(
            job, store, self.writer, options, post, self.device, note=note
        )


def _parameters(job: Job) -> dict[str, Any]:
    method = job.reweight_method
    untrained = {"control": "untrained"} if job.control == "untrained" else {}
    common_part = {"method": method, "seed": job.seed, **untrained}
    if method == "posterior":
        return {"version": POSTERIOR_VERSION, **common_part}
    if method == "uniform":
        return common_part
    section = job.reweight.model_dump(exclude={"method", "preset"})
    agreement = {"neighbors": job.neighbors} if reweight_fit.agrees(job) else {}
    return {**section, **agreement, **common_part}
