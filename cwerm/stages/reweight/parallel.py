"""Meta-Weight-Net over all training samples for ``w-erm``: every rank takes its share of each batch.

A step averages the gradient of the virtual step, the meta gradient, the weight net's gradient and the
update over the ranks, so all ranks take the step that one process would take with the whole batch.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from cwerm.errors import UserError
from cwerm.runtime import capacity
from cwerm.runtime.board import seldom
from cwerm.runtime.training.ranks import rank_device, run_on_ranks
from cwerm.stages.reweight.learning import Outcome, learn
from cwerm.stages.reweight.samples import Task
from cwerm.stages.stage import Context
from cwerm.store.writing import Writer

ARRAYS = ("ids", "weights", "losses")
TOLD = "history and info"


def learn_in_parallel(task: Task, context: Context, board: Any, epochs: int) -> Outcome:
    """The result of rank 0, which is that of every rank."""
    workers, writer = capacity.num_workers(context), task.writer
    method: Any = task.settings.method  # one that shares its steps
    smallest = min(method.batch_size, method.meta_batch_size)
    if smallest < workers:
        raise UserError(
            f"reweight.batch_size: batches of {smallest} can't be shared by {workers} workers; use "
            f"at least {workers} for it and for reweight.meta_batch_size"
        )
    name = f"reweight-{writer.key}"
    config = {"task": task, "board": board, "epochs": epochs}
    run_on_ranks(_rank, config, context, task.store, stage="reweight", name=name)
    result = _result_path(writer)
    learned = _load(writer.storage.read_bytes(result))
    writer.storage.delete(result)
    return learned


def _rank(config: dict[str, Any]) -> None:
    import ray.train
    import torch

    from cwerm.algorithms.gradients.step_options import StepOptions

    torch.set_num_threads(config["threads"])
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    options = StepOptions(
        all_reduce_mean=_all_reduce_mean if world_size > 1 else None,
        world_size=world_size,
        rank=rank,
    )

    post = seldom(config["board"], config["epochs"])

    def on_epoch(done: int) -> None:
        if rank == 0:
            post(done)

    def note(text: str) -> None:
        if rank == 0:
            config["board"].note.remote(text)

    task = config["task"]
    learned = learn(task, options, on_epoch, rank_device(config), note)
    if rank == 0:
        writer = task.writer
        writer.storage.write_bytes(_result_path(writer), _dump(learned))
    ray.train.report({})  # all ranks wait here for each other


def _all_reduce_mean(values: Any) -> None:
    import torch.distributed as dist

    dist.all_reduce(values)
    values /= dist.get_world_size()


def _result_path(writer: Writer) -> str:
    return f"artifacts/{writer.stage}/{writer.key}/{writer.attempt}/result.safetensors"


def _dump(learned: Outcome) -> bytes:
    from safetensors.numpy import save

    arrays = {name: getattr(learned, name) for name in ARRAYS}
    # files as bytes among the arrays, under names that no array has
    files = {f"/{name}": np.frombuffer(data, np.uint8) for name, data in learned.files.items()}
    told = json.dumps({"history": learned.history, "info": learned.info}).encode()
    return save(arrays | files | {TOLD: np.frombuffer(told, np.uint8)})


def _load(data: bytes) -> Outcome:
    from safetensors.numpy import load

    found = load(data)
    files = {name[1:]: array.tobytes() for name, array in found.items() if name.startswith("/")}
    told = json.loads(found[TOLD].tobytes())
    return Outcome(**{name: found[name] for name in ARRAYS}, **told, files=files)
