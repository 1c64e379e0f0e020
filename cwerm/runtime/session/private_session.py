"""A Ray session on this machine that nobody but this user's own processes can reach.

It has a token of its own, listens on the loopback interface alone, and its files lie in a folder that
other users can't enter. What that takes in this process's environment is put back at once: a token or
address that the user has set for a cluster stays as it was.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from cwerm.errors import UserError
from cwerm.terminal import console

LOOPBACK = "127.0.0.1"
PREFIX = "cwerm-"
# The path of a socket holds 107 bytes, on macOS 103. To this folder, whose name ends with 8 random
# letters, Ray adds "/r/session_DATE_TIME_MICROSECONDS_PROCESS/sockets/plasma_store", up to 66 letters.
LONGEST_BASE = (103 if sys.platform == "darwin" else 107) - 1 - len(PREFIX) - 8 - 66
ORDERLY_SECONDS = 0.5
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


def start(*, dashboard: bool = False, **options: Any) -> None:
    """Start Ray on this machine and connect to it; ``options`` are those of ``ray.init``."""
    import ray
    from ray._private import worker

    folder = _folder()
    try:
        with ExitStack() as stack:
            stack.enter_context(_environment(_variables(dashboard)))
            stack.enter_context(_on_loopback())
            stack.enter_context(kept_handlers())
            stack.enter_context(no_stderr())
            read_token_anew()
            ray.init(
                address="local",
                include_dashboard=dashboard,
                logging_level="ERROR",
                log_to_driver=False,
                _node_ip_address=LOOPBACK,
                _temp_dir=str(folder / "r"),
                **options,
            )
    except BaseException:
        _forget(folder)
        raise
    # it is gone after `ray.shutdown`, whoever calls that
    forget = weakref.finalize(worker._global_node, _forget, folder)
    forget.atexit = False
    atexit.register(_end, weakref.ref(worker._global_node), forget)


def _end(reference: weakref.ref[Any], forget: Callable[[], object]) -> None:
    """At the end of the process end all processes of the session, and only then remove its files."""
    import ray

    node = reference()
    if node is None:
        return
    family = []
    for info in (info for infos in node.all_processes.values() for info in infos):
        with suppress(psutil.Error):
            process = psutil.Process(info.process.pid)
            family += [process, *process.children(recursive=True)]
    ray.shutdown()
    for process in psutil.wait_procs(family, timeout=ORDERLY_SECONDS)[1]:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(family, timeout=ORDERLY_SECONDS)
    forget()  # now: a reference in a circle would keep the node, and with it the files


def _folder() -> Path:
    """A new folder for Ray's files, which only this user may enter: Ray lets all users write below it.

    Raises:
        UserError: RAY_TMPDIR names no folder for it.
    """
    given = os.environ.get("RAY_TMPDIR")
    usual = "/tmp" if sys.platform == "darwin" else tempfile.gettempdir()  # as Ray has it
    base = given or next((b for b in (usual, "/tmp", "/var/tmp", "/dev/shm") if _fits(b)), usual)
    if not _fits(base):
        name = "RAY_TMPDIR" if given else "TMPDIR"
        raise UserError(
            f"{name}: '{base}' can't hold Ray's files: it must be a folder you may write to, of at most "
            f"{LONGEST_BASE} characters, as paths of sockets are short"
        )
    if base != usual and not given:
        console.note(
            f"TMPDIR is too long for the paths of Ray's sockets; Ray's files are in {base}"
        )
    return Path(tempfile.mkdtemp(prefix=PREFIX, dir=os.path.abspath(base)))


def _fits(base: str) -> bool:
    """Whether it is a folder for a session's, made if need be, with a path short enough."""
    if len(os.fsencode(os.path.abspath(base))) > LONGEST_BASE:
        return False
    try:
        os.makedirs(base, exist_ok=True)
    except OSError:
        return False
    return os.access(base, os.W_OK | os.X_OK)


def _forget(folder: Path) -> None:
    """Remove what only the session needed; its token is not to be used for another one."""
    read_token_anew()
    if "RAY_TMPDIR" not in os.environ:  # who sets that wants to look at what Ray leaves
        shutil.rmtree(folder, ignore_errors=True)


def read_token_anew() -> None:
    """Have Ray read mode and token of authentication from the environment again, as it is now."""
    import ray._raylet

    raylet: Any = ray._raylet
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def _variables(dashboard: bool) -> dict[str, str]:
    """What the processes of the session find in their environment."""
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    proxy = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    bypass = f"{proxy},{LOOPBACK}" if proxy else LOOPBACK
    variables = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_K8S_TOKEN_AUTH": "0",
        # nobody reads metrics here, and their servers ask for no token
        "RAY_enable_metrics_collection": "0",
        "DASHBOARD_METRIC_PORT": "-1",
        "AUTOSCALER_METRIC_PORT": "-1",
        # a process that waits for work keeps what it has imported: stages and runs after this one use it
        "RAY_idle_worker_killing_time_threshold_ms": str(10 * 60 * 1000),
        "no_proxy": bypass,
        "NO_PROXY": bypass,
    }
    if loopback:  # of the ranks of a training
        variables |= {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}
    if dashboard:
        # What clears up after a stopped trial asks the dashboard, and does not find it by itself where
        # another Ray runs on the machine.
        with socket.create_server((LOOPBACK, 0)) as free:
            port = str(free.getsockname()[1])
        variables |= {"RAY_GCS_SERVER_PORT": port, "RAY_ADDRESS": f"{LOOPBACK}:{port}"}
    return variables


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Have Ray take the loopback address that it is given, as it does where clusters are not supported.

    Elsewhere it replaces that address by one that other hosts reach, and then all its processes listen
    on every interface.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def kept_handlers() -> Iterator[None]:
    """Put back the handlers of signals that Ray replaces: its own end a process with an abort."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that is not Python's can't be put back
                signal.signal(number, handler)


@contextmanager
def no_stderr() -> Iterator[None]:
    """Ray's C++ part announces its log level there, before that level counts."""
    with suppress(AttributeError, OSError, ValueError):  # it may be closed, or none
        sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # closed, so that nothing can be said there
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
