"""Reweight: learn weights on the coreset -> ``coreset_weights``, what was learned, and its history.

The method is sequential and the coreset small, so it runs in one actor, on one GPU where there is one.
Only ``w-erm``, whose coreset is all samples, runs the same steps on every worker under Ray Train.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import psutil

from cwerm.runtime import batch_memory, capacity
from cwerm.runtime.asked import Run
from cwerm.runtime.board import progress_board, seldom
from cwerm.runtime.parallel import Make, Pool, work_through
from cwerm.runtime.session import cluster, session
from cwerm.runtime.worker_errors import user_errors
from cwerm.stages import common
from cwerm.stages.classifiers import batch_bytes, told_size
from cwerm.stages.reweight.learning import Outcome, learn
from cwerm.stages.reweight.samples import Task
from cwerm.stages.reweight.settings import ReweightSettings, needs
from cwerm.stages.reweight.states import forget_states, has_state
from cwerm.stages.stage import Context, Inputs, Stage
from cwerm.store.artifacts import Artifact
from cwerm.terminal import console

MOST_CPUS = 8
MEMORY_MARGIN = 4  # the graph of the meta-gradient holds several passes over the batch


def _run(settings: ReweightSettings, inputs: Inputs, context: Context) -> Artifact:
    """Learn the weights of the coreset (paper, section 4.2)."""
    store, writer = context.store, context.writer
    task = Task(settings, dict(inputs), store, writer)
    if settings.method.reads == "labels":
        outcome = learn(task)  # takes no time
    else:
        session.ensure_ray(context)
        check_batch(settings, inputs["ingest"], context)
        outcome = _learn(task, context, inputs["select"].rows("coreset"))
    history = json.dumps(outcome.history, indent=1).encode()
    writer.write_files({**outcome.files, "history.json": history})
    table = common.table("coreset_weights", outcome.ids, outcome.weights, outcome.losses)
    part = writer.write_part("coreset_weights", 0, table)
    artifact = writer.commit({"coreset_weights": [part]}, outcome.info)
    forget_states(writer)
    return artifact


def check_batch(settings: ReweightSettings, images: Artifact, run: Run) -> None:
    """Refuse a batch of images that is too large for the memory.

    Raises:
        UserError: naming the key to change.
    """
    method: Any = settings.method
    if method.reads != "images":
        return
    size = told_size("reweight", method.model, method.image_size, images)
    need = batch_bytes("reweight", method.model, len(images.info["class_names"]), size)
    key = "reweight.batch_size"
    batch_memory.check_memory(run, key, MEMORY_MARGIN * need, method.batch_size)


def _learn(task: Task, context: Context, coreset_size: int) -> Outcome:
    if has_state(task.writer):
        console.note("goes on from the state that an earlier attempt saved")
    epochs = task.settings.method.num_epochs(coreset_size)
    with progress_board(epochs, "reweight") as board, user_errors("reweight.batch_size"):
        if task.settings.on_ranks:
            from cwerm.stages.reweight.parallel import learn_in_parallel

            return learn_in_parallel(task, context, board, epochs)
        return _learn_in_actor(task, context, board, epochs)


def _learn_in_actor(task: Task, context: Context, board: Any, epochs: int) -> Outcome:
    size = capacity.size(context)
    request = size.single(MOST_CPUS)
    pool = Pool(context, "reweight", 1, request, "reweight.batch_size", _Reweighter)
    fit = functools.partial(_Fit, task, board, epochs, size.device)
    ((_, outcome),) = pool.map(fit, [None], "reweight", bar=False)
    return outcome


class _Reweighter:
    """The actor."""

    def work(self, make: Make, parts: Sequence[Any], ahead: int) -> Iterator[Any]:
        yield from work_through(make, parts, ahead)


class _Fit:
    """What the actor does; it goes on from the state that one before it saved."""

    def __init__(self, task: Task, board: Any, epochs: int, device: str) -> None:
        cluster.check_device(device)
        self.task, self.board, self.epochs, self.device = task, board, epochs, device

    def __call__(self, _: None) -> Outcome:
        import ray
        import torch

        from cwerm.algorithms.gradients.step_options import StepOptions

        cpus = max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))
        # steps of the head on features are too small to share: threads would only wait for each other
        threads = min(cpus, psutil.cpu_count(logical=False) or cpus)
        torch.set_num_threads(threads if self.task.settings.method.reads == "images" else 1)
        post, note = seldom(self.board, self.epochs), self.board.note.remote
        return learn(self.task, StepOptions(), post, self.device, note)


reweight = Stage("reweight", 7, needs, ReweightSettings.of, _run)
