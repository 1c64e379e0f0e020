"""One function on every rank of a process group: Ray Train as the stages use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cwerm.artifacts import ArtifactStore
from cwerm.config import Job
from cwerm.stages import capacity, checkpoints, session
from cwerm.storage import filesystem

MAX_FAILURES = 2
_make_callback: Callable[[], Any] | None = None


@contextmanager
def reports_to(make_callback: Callable[[], Any] | None) -> Iterator[None]:
    """Have a callback of Ray Train see every report of the ranks that start meanwhile."""
    global _make_callback
    _make_callback = make_callback
    try:
        yield
    finally:
        _make_callback = None


def checkpoints_folder(job: Job, name: str) -> str:
    """Where the checkpoints of the run ``name`` lie in the storage."""
    return f"runs/{job.name}/checkpoints/{name}"


def run_on_ranks(
    function: Callable[[dict[str, Any]], None],
    config: dict[str, Any],
    job: Job,
    store: ArtifactStore,
    *,
    name: str,
    keep_checkpoints: int | None = None,
    elastic: bool = False,
) -> Any:
    """Run ``function`` on the job's workers, a GPU each where there are any; Ray Train's result.

    It is called with ``config`` and the number of ``threads`` that a rank may use. After the loss of a
    worker all start again, from the last checkpoint of the run ``name`` if they look for it; ``elastic``
    ones, whose result does not depend on their number, with as few as the job allows.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    workers = capacity.num_workers(job)
    fewest, most = capacity.elastic_workers(job) if elastic else (workers, workers)
    resources = capacity.worker_resources(workers)
    folder = checkpoints_folder(job, name)
    checkpoints.forget_index(store.storage, folder)
    system, path = filesystem(store.storage.uri(folder.rpartition("/")[0]), job.s3)
    with session.interruptible():
        return TorchTrainer(
            function,
            train_loop_config={**config, "threads": max(1, int(resources["CPU"]))},
            scaling_config=ScalingConfig(
                num_workers=most if fewest == most else (fewest, most),
                use_gpu="GPU" in resources,
                resources_per_worker=resources,
            ),
            torch_config=TorchConfig(backend="nccl" if "GPU" in resources else "gloo"),
            run_config=RunConfig(
                name=name,
                storage_filesystem=system,
                storage_path=path,
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
                checkpoint_config=CheckpointConfig(num_to_keep=keep_checkpoints),
                callbacks=[_make_callback()] if _make_callback else None,
            ),
        ).fit()
