"""Joining a Ray cluster, and why it does not let this process in."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cwerm.errors import UserError
from cwerm.runtime.asked import Run
from cwerm.runtime.session import cluster, private_session
from cwerm.runtime.session.address import Address, answering, cluster_address
from cwerm.terminal import console

PATIENCE_SECONDS = 5.0  # then it is told what one waits for
_joined: set[str] = set()  # addresses under which this process has reached its cluster


def check_address(run: Run) -> None:
    """Refuse an address where no cluster answers: Ray itself would try for minutes.

    Raises:
        UserError: as `answering`.
    """
    address = cluster_address(run)
    if address is not None:
        answering(address)


def join(run: Run) -> bool:
    """Connect to the cluster that the job or RAY_ADDRESS names; False where they name none.

    Raises:
        UserError: the cluster does not answer, or can't run this job.
    """
    import ray

    address = cluster_address(run)
    if address is None:
        return False
    found = answering(address)
    try:
        with (
            _told(f"waits for the Ray cluster at {found}"),
            private_session.kept_handlers(),
            private_session.no_stderr(),
        ):
            ray.init(address=found, logging_level="ERROR", log_to_driver=False)
        _joined.add(address.value)
    except Exception as error:
        raise _not_joined(Address(address.setting, found), error) from error
    try:
        with _told(f"waits for the nodes of the Ray cluster at {found}"):
            cluster.check(run)
    except BaseException:
        ray.shutdown()
        raise
    return True


def check_joined(run: Run) -> None:
    """Refuse an address that is not that of the session which this process has.

    Raises:
        UserError: naming both.
    """
    import ray

    context = ray.get_runtime_context()
    address = cluster_address(run)
    if address is None or address.value in ("auto", *_joined):
        return
    if context.worker.mode == ray.WORKER_MODE:
        return  # it may reach the head by another name than the driver
    joined = context.gcs_address
    if _resolved(address.value) not in (None, _resolved(joined)):
        raise UserError(
            f"{address.setting}: '{address.value}', but Ray runs in this process already, at {joined}; "
            "call ray.shutdown() first, or leave the address out"
        )


def _resolved(address: str) -> tuple[str, str] | None:
    """The IP address and the port; None for what is no HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        return socket.gethostbyname(host), port
    except OSError:
        return None


@contextmanager
def _told(text: str) -> Iterator[None]:
    """Say what one waits for, where it takes long."""
    timer = threading.Timer(PATIENCE_SECONDS, console.note, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _not_joined(address: Address, error: Exception) -> UserError:
    """Why Ray did not let this process in."""
    from ray.exceptions import AuthenticationError

    text = " ".join(str(error).split())
    if isinstance(error, AuthenticationError) or "UNAUTHENTICATED" in text:
        return address.wants_token()
    if "Version mismatch" in text:
        return UserError(f"{address.setting}: {text}; {cluster.VERSION_REMEDY}")
    return address.missing(error)
