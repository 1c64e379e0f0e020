"""The Ray session of a run: started only when a stage has something to compute."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cwerm.runtime.asked import Run
from cwerm.runtime.session import joining, private_session
from cwerm.runtime.session.joining import check_address as check_address

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_USAGE_DISABLED": "1",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a report waits about one such interval
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process that nobody here listens to
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # what users need to know comes as an exception
    "RAY_DATA_LOG_LEVEL": "CRITICAL",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed",  # its part is done again, or named
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of tasks that were given up with a lost node
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # its own waits for the trials that run
}


# Ray Data unpickles what it reads where these are on; nothing here needs that, whoever has set them.
_GUARDED = {
    "RAY_DATA_AUTOLOAD_PICKLE_OBJECT_SCALAR": "0",
    "RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA": "0",
}


def quiet_ray() -> None:
    """Set Ray's environment for a library: no telemetry, no chatter. Before Ray is imported."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    os.environ.update(_GUARDED)


def ensure_ray(run: Run, *, dashboard: bool = False) -> None:
    """Connect to the job's cluster, or start Ray on this machine, unless that is done already.

    Raises:
        UserError: the cluster does not answer, or can't run this job.
    """
    quiet_ray()
    import ray

    if ray.is_initialized():
        joining.check_joined(run)
        return
    if not joining.join(run):
        private_session.start(dashboard=dashboard, num_cpus=max(2, os.cpu_count() or 2))


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
