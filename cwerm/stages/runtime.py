"""The Ray session of a run: started only when a stage has something to compute."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import psutil

from cwerm.config import Job
from cwerm.errors import UserError

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_USAGE_DISABLED": "1",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a report waits about one such interval
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # what users need to know comes as an exception
    "RAY_DATA_LOG_LEVEL": "CRITICAL",
}
AUTO_CPU_WORKERS = 8
CONNECT_SECONDS = 5.0


def quiet_ray() -> None:
    """Set Ray's environment for a library: no telemetry, no chatter. Before Ray is imported."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


def check_address(job: Job) -> None:
    """Refuse an address where no cluster listens: Ray itself would try for minutes.

    Raises:
        UserError: the address is no address, or does not answer within seconds.
    """
    address = job.resources.address or os.environ.get("RAY_ADDRESS")
    if address in (None, "", "auto", "local"):
        return
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise UserError(f"resources.address: '{address}' is no HOST:PORT, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as error:
        raise _no_cluster(address, error) from None
    if os.environ.get("RAY_USE_TLS", "0") in ("", "0") and not _speaks_grpc(host, port):
        raise _no_cluster(address, TimeoutError("something else listens there"))


def _speaks_grpc(host: str, port: int) -> bool:
    import grpc  # type: ignore[import-untyped]  # comes with Ray

    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    options = [("grpc.enable_http_proxy", 0)]  # Ray does not use a proxy either
    with grpc.insecure_channel(target, options) as channel:
        try:
            grpc.channel_ready_future(channel).result(CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            return False
    return True


def _no_cluster(address: str, error: Exception) -> UserError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return UserError(
        f"resources.address: no Ray cluster at '{address}' ({reason}); "
        "start one, or leave the address out to use this machine"
    )


def ensure_ray(job: Job) -> None:
    """Connect to the job's cluster, or start Ray on this machine, unless that is done already.

    Raises:
        UserError: the cluster does not answer.
    """
    quiet_ray()
    import ray

    if ray.is_initialized():
        return
    address = job.resources.address or os.environ.get("RAY_ADDRESS")
    if address and address != "local":
        check_address(job)
        try:
            with _no_stderr():
                ray.init(address=address, logging_level="ERROR", log_to_driver=False)
        except Exception as error:
            raise _no_cluster(address, error) from error
        return
    # A private session, reachable from this machine only, needs no token file in the user's home.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    with _no_stderr():
        ray.init(
            address="local",
            num_cpus=max(2, os.cpu_count() or 2),
            include_dashboard=False,
            logging_level="ERROR",
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
        )


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Ray's C++ part announces its log level there, before that level counts."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def num_gpus() -> int:
    """GPUs of the cluster."""
    import ray

    return int(ray.cluster_resources().get("GPU", 0))


def num_workers(job: Job) -> int:
    """Workers of each distributed stage: as asked, or the cluster's GPUs, or up to 8 of its CPUs."""
    import ray

    ensure_ray(job)
    gpus = num_gpus()
    if job.resources.workers == "auto":
        return gpus or min(AUTO_CPU_WORKERS, int(ray.cluster_resources()["CPU"]))
    if gpus and job.resources.workers > gpus:
        raise UserError(
            f"resources.workers: {job.resources.workers} workers take a GPU each and the cluster has "
            f"{gpus}; ask for at most {gpus}"
        )
    return job.resources.workers


def worker_resources(workers: int, *, share: float = 1.0) -> dict[str, float]:
    """What each of ``workers`` reserves: a GPU where there are any, and part of the CPUs.

    ``share`` is the part of the cluster's CPUs they may hold together; a pool that held them all
    would starve the tasks that feed it, and wait for ever.
    """
    import ray

    cpus = float(ray.cluster_resources().get("CPU", 1))
    resources = {"CPU": min(1.0, int(1000 * cpus * share / workers) / 1000)}
    return {**resources, "GPU": 1.0} if num_gpus() else resources


def check_memory(key: str, bytes_a_sample: int, batch_size: int, workers_a_node: int = 1) -> None:
    """Refuse a batch that can't fit the memory where the workers run.

    ``workers_a_node`` is the number of batches in one memory at once; see `workers_sharing_memory`.

    Raises:
        UserError: naming ``key``, the memory needed, the memory free and a batch that fits.
    """
    free = _free_memory()
    needed = bytes_a_sample * batch_size * workers_a_node
    if needed > free:
        fitting = int(0.5 * free / (bytes_a_sample * workers_a_node))
        raise UserError(
            f"{key}: a batch of {batch_size} needs about {needed / 2**30:.1f} GiB and "
            f"{free / 2**30:.1f} GiB are free; try {max(1, fitting)}"
        )


def workers_sharing_memory(workers: int) -> int:
    """How many of the workers use the same memory: one on a GPU of its own, all of a node on CPUs."""
    import ray

    return 1 if num_gpus() else -(-workers // len(ray.nodes()))


def _free_memory() -> int:
    """Bytes free for a batch: on a GPU worker where there are GPUs, else on a CPU worker."""
    import ray

    def on_gpu() -> int:
        import torch

        return torch.cuda.mem_get_info()[0]

    def on_cpu() -> int:
        return psutil.virtual_memory().available

    gpu = bool(num_gpus())
    probe = ray.remote(num_cpus=0.1, num_gpus=1 if gpu else 0)(on_gpu if gpu else on_cpu)
    with user_errors():
        return ray.get(probe.remote())


@contextmanager
def interruptible() -> Iterator[None]:
    """Make Ctrl-C a ``KeyboardInterrupt``: Ray Train's own handler ends the process with exit code 0."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, handler)


@contextmanager
def user_errors() -> Iterator[None]:
    """Pass a worker's `UserError` on as itself, not wrapped in Ray's trace."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        cause = find_user_error(error)
        if cause is not None:
            raise UserError(str(cause)) from None
        raise


def find_user_error(error: BaseException | Any) -> UserError | None:
    """The `UserError` among the causes of a Ray error, if there is one."""
    seen: set[int] = set()
    pending: list[Any] = [error]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, UserError):
            return UserError(str(getattr(current, "cause", current)))
        pending += [getattr(current, "cause", None), current.__cause__, current.__context__]
        pending += list((getattr(current, "worker_failures", None) or {}).values())
    # Ray Data keeps of what a function raised the text alone.
    told = re.findall(rf"^{UserError.__module__}\.UserError: (.+)$", str(error), re.MULTILINE)
    return UserError(told[-1]) if told else None
