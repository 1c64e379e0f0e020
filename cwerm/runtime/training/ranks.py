"""One function on every rank of a process group: Ray Train as the stages use it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from cwerm.runtime import capacity, waiting
from cwerm.runtime.asked import Run
from cwerm.runtime.board import ANSWER_SECONDS, clock_waits
from cwerm.runtime.deaths import MOST_DEATHS, is_loss, too_many_deaths
from cwerm.runtime.session import cluster, session
from cwerm.runtime.training import checkpoints, rendezvous
from cwerm.runtime.worker_errors import causes, find_user_error
from cwerm.store.artifacts import ArtifactStore
from cwerm.store.storage import filesystem
from cwerm.terminal import console

NODE_SECONDS = 15.0  # after which a node that has gone is known to be
_listener: ContextVar[Callable[[], Any] | None] = ContextVar("listener", default=None)


@contextmanager
def reports_to(make_callback: Callable[[], Any] | None) -> Iterator[None]:
    """Have a callback of Ray Train see every report of the ranks that start meanwhile."""
    token = _listener.set(make_callback)
    try:
        yield
    finally:
        _listener.reset(token)


def checkpoints_folder(run: Run, name: str) -> str:
    """Where the checkpoints of the run ``name`` lie in the storage."""
    return f"runs/{run.name}/checkpoints/{name}"


def run_on_ranks(
    function: Callable[[dict[str, Any]], None],
    config: dict[str, Any],
    run: Run,
    store: ArtifactStore,
    *,
    stage: str,
    name: str,
    keep_checkpoints: int | None = None,
    elastic: bool = False,
) -> Any:
    """Run ``function`` on the run's workers, a GPU each where it has any; Ray Train's result.

    It is called with ``config``, the ``device`` and the number of ``threads`` that a rank may use. After
    the loss of a worker all start again, from the last checkpoint of the run ``name`` if they look for it;
    ``elastic`` ones, whose batches do not depend on their number, with as few as the job allows. Losses
    of nodes may repeat; what goes wrong three times on living nodes is an error.

    Raises:
        UserError: what a rank raised as such, ranks that die again and again, or too few nodes for
            ``resources.wait_minutes``.
    """
    import ray
    from ray.train import (
        CheckpointConfig,
        ControllerError,
        FailureConfig,
        RunConfig,
        ScalingConfig,
        WorkerGroupError,
    )

    size = capacity.size(run)
    fewest, most = capacity.elastic_workers(run) if elastic else (size.workers, size.workers)
    request = size.ranks()
    resources = {"CPU": request.cpus, **({"GPU": request.gpus} if request.gpus else {})}
    folder = checkpoints_folder(run, name)
    system, path = filesystem(store.storage.uri(folder.rpartition("/")[0]), run.s3)
    board, listener = config["board"], _listener.get()
    settings = {**config, "device": size.device, "threads": max(1, int(request.cpus))}
    attempts: list[set[str]] = []  # of each that failed, the nodes that lived as it began
    while True:
        waiting.for_room(run, stage, request, fewest)
        attempts.append({node.id for node in capacity.living_nodes()})
        checkpoints.forget_index(store.storage, folder)
        trainer = _trainer_class()(
            function,
            train_loop_config=settings,
            scaling_config=ScalingConfig(
                num_workers=most if fewest == most else (fewest, most),
                use_gpu=bool(request.gpus),
                resources_per_worker=resources,
                accelerator_type=request.accelerator,
            ),
            torch_config=rendezvous.torch_config("nccl" if size.device == "cuda" else "gloo"),
            run_config=RunConfig(
                name=name,
                storage_filesystem=system,
                storage_path=path,
                failure_config=FailureConfig(max_failures=0),  # what a failure is, is judged here
                checkpoint_config=CheckpointConfig(num_to_keep=keep_checkpoints),
                callbacks=[_handing_over(board), *([listener()] if listener else [])],
            ),
        )
        ray.get(board.keep.remote(None))
        give_up = functools.partial(_end_controller, board)
        try:
            with (
                waiting.watched(run, stage, request, fewest, give_up),
                clock_waits(board),
                session.interruptible(),
            ):
                return trainer.fit()
        except (WorkerGroupError, ControllerError) as error:
            if isinstance(error, ControllerError) and not _died(error):
                raise
            told = find_user_error(error, f"{stage}.batch_size", store.storage.root)
            if told:
                raise told from None
            if _crashes(attempts) >= MOST_DEATHS:
                raise _last_crash(stage, error) from None
            console.note(f"{stage} starts again from its last state: {_reason(error)}")
        finally:
            _free_reserved(board)


def _trainer_class() -> type[Any]:
    """Ray Train's trainer, less two processes: one deals out data sets of Ray Data, of which there are none
    here; the other frees what was reserved, as `_free_reserved` does.

    The latter stays in a trial of a sweep, which Ray Tune ends from outside with all that it could do.
    """
    import ray
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import (
        PlacementGroupCleanerCallback,
    )

    class Trainer(TorchTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            unused: tuple[type, ...] = (DatasetsCallback,)
            if ray.get_runtime_context().get_actor_id() is None:
                unused += (PlacementGroupCleanerCallback,)
            callbacks = super()._create_default_callbacks()
            return [callback for callback in callbacks if not isinstance(callback, unused)]

    return Trainer


def rank_device(config: dict[str, Any]) -> Any:
    """The torch device of this rank: what the run was sized to, and nothing else.

    Raises:
        UserError: it is not there.
    """
    import torch
    from ray.train.torch import get_device

    cluster.check_device(config["device"])
    return get_device() if config["device"] == "cuda" else torch.device("cpu")


def _crashes(attempts: list[set[str]]) -> int:
    """How many of the attempts failed although all nodes live that lived as they began.

    A connection breaks some seconds before its node is declared dead.
    """
    deadline = time.monotonic() + NODE_SECONDS
    while True:
        living = {node.id for node in capacity.living_nodes()}
        crashes = sum(nodes <= living for nodes in attempts)
        if crashes < MOST_DEATHS or len(living) == 1 or time.monotonic() > deadline:
            return crashes
        time.sleep(waiting.LOOK_SECONDS)


def _last_crash(stage: str, error: Any) -> BaseException:
    """What ended a rank: its own error, or one line where the process died without a word."""
    if _died(error):
        addresses = sorted({node.address for node in capacity.living_nodes() if node.cpus})
        return too_many_deaths(f"{stage}: one rank", " or ".join(addresses), f"{stage}.batch_size")
    return next(iter(getattr(error, "worker_failures", {}).values()), error)


def _reason(error: Any) -> str:
    if _died(error):
        return "a worker was lost"
    failure = next(iter(getattr(error, "worker_failures", {}).values()), error)
    return (str(failure).strip().splitlines() or [type(failure).__name__])[-1]


def _died(error: Any) -> bool:
    """Whether a rank's process is gone; the others then fail, too, for want of it."""
    return any(is_loss(cause) for cause in causes(error))


def _handing_over(board: Any) -> Any:
    """Has Ray Train's controller leave on the board its handle and what it has reserved.

    So `_end_controller` and `_free_reserved` find them.
    """
    from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback

    class HandOver(ControllerCallback, WorkerGroupCallback):
        def after_controller_start(self, train_run_context: Any) -> None:
            import ray

            del train_run_context
            board.keep.remote(ray.get_runtime_context().current_actor)

        def after_worker_group_start(self, worker_group: Any) -> None:
            handle = worker_group.get_worker_group_state().placement_group_handle
            board.reserve.remote(handle.placement_group)

    return HandOver()


def _free_reserved(board: Any) -> None:
    """Give back the CPUs of an attempt that failed.

    Ray Train keeps them where a rank dies just as it is told what to do; the next attempt would wait for
    them for ever.
    """
    import ray
    from ray.util import remove_placement_group

    try:
        groups = ray.get(board.release.remote(), timeout=ANSWER_SECONDS)
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
        return  # the session is ending, and what was reserved ends with it
    for group in groups:
        remove_placement_group(group)


def _end_controller(board: Any) -> None:
    import ray

    while (controller := ray.get(board.kept.remote())) is None:
        time.sleep(waiting.LOOK_SECONDS)  # it is only starting
    ray.kill(controller)
