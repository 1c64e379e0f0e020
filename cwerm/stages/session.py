"""The Ray session of a run: started only when a stage has something to compute."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from cwerm.config import Job
from cwerm.errors import FULL, UserError, is_full
from cwerm.stages import cluster, private_session

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
CONNECT_SECONDS = 5.0
TOKEN_REMEDY = (
    "wants its token: set RAY_AUTH_MODE=token, and the token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
)


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
    """Whether a gRPC server listens there, which would be Ray's.

    Raises:
        UserError: it does not take this process's token; Ray itself would try for a minute.
    """
    import grpc  # type: ignore[import-untyped]  # comes with Ray
    from ray._private.authentication.http_token_authentication import (
        get_auth_headers_if_auth_enabled,
    )
    from ray.exceptions import AuthenticationError

    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    options = [("grpc.enable_http_proxy", 0)]  # Ray does not use a proxy either
    with grpc.insecure_channel(target, options) as channel:
        try:
            grpc.channel_ready_future(channel).result(CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            return False
        check_alive = channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")
        refusal = UserError(f"resources.address: the cluster at '{target}' {TOKEN_REMEDY}")
        try:
            token = [*get_auth_headers_if_auth_enabled({}).items()]
            check_alive(b"", timeout=CONNECT_SECONDS, metadata=token)
        except AuthenticationError:
            raise refusal from None
        except grpc.RpcError as error:  # of anything else ray.init has more to say
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                raise refusal from None
    return True


def _no_cluster(address: str, error: Exception) -> UserError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return UserError(
        f"resources.address: no Ray cluster at '{address}' ({reason}); "
        "start one, or leave the address out to use this machine"
    )


def _not_joined(address: str, error: Exception) -> UserError:
    """Why Ray did not let this process in."""
    from ray.exceptions import AuthenticationError

    text = " ".join(str(error).split())
    if isinstance(error, AuthenticationError) or "UNAUTHENTICATED" in text:
        return UserError(f"resources.address: the cluster at '{address}' {TOKEN_REMEDY}")
    if "Version mismatch" in text:
        return UserError(f"resources.address: {text}; {cluster.VERSION_REMEDY}")
    return _no_cluster(address, error)


def ensure_ray(job: Job, *, dashboard: bool = False) -> None:
    """Connect to the job's cluster, or start Ray on this machine, unless that is done already.

    Raises:
        UserError: the cluster does not answer, or can't run this job.
    """
    quiet_ray()
    import ray

    if ray.is_initialized():
        return
    address = job.resources.address or os.environ.get("RAY_ADDRESS")
    if address and address != "local":
        check_address(job)
        try:
            with private_session.kept_handlers(), private_session.no_stderr():
                ray.init(address=address, logging_level="ERROR", log_to_driver=False)
        except Exception as error:
            raise _not_joined(address, error) from error
        try:
            cluster.check(job)
        except BaseException:
            ray.shutdown()
            raise
        return
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
        if is_full(current):
            return UserError(FULL.format(getattr(current, "filename", None) or "a disk"))
        pending += [getattr(current, "cause", None), current.__cause__, current.__context__]
        pending += list((getattr(current, "worker_failures", None) or {}).values())
    # Ray Data keeps of what a function raised the text alone.
    told = re.findall(rf"^{UserError.__module__}\.UserError: (.+)$", str(error), re.MULTILINE)
    return UserError(told[-1]) if told else None
