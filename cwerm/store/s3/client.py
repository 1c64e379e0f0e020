"""boto3 clients: settings of the job, credentials of the surroundings, patience with outages."""

from __future__ import annotations

import functools
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cwerm.job.surroundings import S3
from cwerm.store.s3.outage import BUSY, code_of, outage
from cwerm.store.s3.settings import check_certificates, check_surroundings, endpoint_name, unusable
from cwerm.terminal import console

PATIENCE_SECONDS = 75.0  # from an outage's beginning to the end of the last try
FIRST_SECONDS = 12.0  # likewise where the server has not answered this process yet
LONGEST_WAIT = 4.0
PAUSE_SECONDS = 1.0
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
SHORTEST_READ = 1.0
LOGIN_SECONDS = 4.0  # for the answer of who gives credentials, twice
TELL_SECONDS = 30.0  # between two lines about one outage
QUIET_SECONDS = 1.5  # a shorter one is not told
CONNECTIONS = 32
HURRY_SECONDS = 10.0  # after an interrupt
LAST_SECONDS = 2.0  # for the answer to a request in this time


def s3_client(settings: S3) -> Any:
    """The client for these settings and the AWS variables as they are now; made once a process.

    Until the server has answered it is given seconds, so that a wrong address is known at once; from
    then on, and in the workers of a run, an outage is waited out.

    Raises:
        UserError: what the settings, variables or files of AWS say can't be used.
    """
    surroundings = frozenset(
        item
        for item in os.environ.items()
        if item[0].startswith("AWS_") or "proxy" in item[0].lower()
    )
    return _client(settings, hash(surroundings))


@functools.lru_cache(maxsize=8)
def _client(settings: S3, _surroundings: int) -> Any:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    check_surroundings(settings)
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": 1, "mode": "standard"},  # `_Patience` alone repeats
        max_pool_connections=CONNECTIONS,
        s3={"addressing_style": settings.addressing_style},
    )
    try:
        # a session of its own: the shared one keeps the credentials that it saw first
        session = boto3.session.Session(profile_name=settings.profile)
        # for those that give credentials, which would be asked for minutes
        session._session.set_default_client_config(
            Config(
                connect_timeout=LOGIN_SECONDS / 2,
                read_timeout=LOGIN_SECONDS,
                retries={"total_max_attempts": 2},
            )
        )
        client: Any = session.client(
            "s3", endpoint_url=settings.endpoint, region_name=settings.region, config=config
        )
    except (BotoCoreError, ValueError) as error:
        raise unusable(settings, error) from None
    check_certificates(client, session, settings)
    patience = _Patience(endpoint_name(client))
    events = client.meta.events
    events.register("before-parameter-build.s3", patience.name)
    events.register("before-call.s3", patience.begin)
    events.register("needs-retry.s3", patience.repeat)
    if settings.requester_pays:
        events.register("before-parameter-build.s3", _pay)
    return client


def _pay(params: dict[str, Any], model: Any, **_: Any) -> None:
    if "RequestPayer" in model.input_shape.members:
        params.setdefault("RequestPayer", "requester")


class _Patience:
    """How long one client's requests are repeated, and what is told meanwhile."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.answered = False
        self.told = -TELL_SECONDS
        self.lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """From an outage's beginning to the end of the last try."""
        patient = self.answered or in_worker()
        return PATIENCE_SECONDS if patient else min(FIRST_SECONDS, PATIENCE_SECONDS)

    def name(self, params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        """Keep the address of what is asked for."""
        key = params.get("Key") or params.get("Prefix") or ""
        context["cwerm_uri"] = f"s3://{params.get('Bucket', '')}/{key}"

    def begin(self, params: dict[str, Any], **_: Any) -> None:
        """Set the time for the first answer."""
        left = self.seconds if _task.until is None else _task.until - time.monotonic()
        self._allow(params["context"], left)

    def _allow(self, context: dict[str, Any], left: float) -> None:
        longest = LAST_SECONDS if _interrupt.is_recent() else READ_SECONDS
        context["read_timeout"] = min(longest, max(left, SHORTEST_READ))

    def repeat(
        self,
        attempts: int,
        operation: Any,
        request_dict: dict[str, Any],
        response: Any,
        caught_exception: Any,
        **_: Any,
    ) -> float | None:
        """Wait, and 0 to try again; None where the answer stands, or no time is left.

        botocore asks after each try. Its own retries end after a number of tries, of all threads
        together, which an outage uses up in seconds.
        """
        reason = outage(operation.name, response, caught_exception, self.answered or in_worker())
        if response is not None and (response[0].status_code < 500 or code_of(response) in BUSY):
            self.answered = True
        if reason is None:
            return None
        context, now = request_dict["context"], time.monotonic()
        if "cwerm_until" not in context:
            context["cwerm_began"] = began = now - _silence(caught_exception, context)
            context["cwerm_until"] = _task.until or began + self.seconds
        left = context["cwerm_until"] - now
        if left <= SHORTEST_READ:
            return None
        wait = random.uniform(0.5, 1.0) * min(LONGEST_WAIT, 0.125 * 2 ** min(attempts, 8))
        wait = min(wait, left - SHORTEST_READ)  # so that a last try comes at the end
        if not self._sleep(context, reason, wait, left):
            return None
        self._allow(context, left - wait)
        return 0

    def _sleep(self, context: dict[str, Any], reason: str, wait: float, left: float) -> bool:
        """Wait, telling what for; False once the process was interrupted."""
        now = time.monotonic()
        with self.lock:
            tell = now - context["cwerm_began"] > QUIET_SECONDS and now - self.told >= TELL_SECONDS
            if tell:
                self.told = now
        if tell:
            until = time.strftime("%H:%M:%S", time.localtime(time.time() + left))
            text = f"{context['cwerm_uri']}: no answer from {self.endpoint} ({reason}); trying until {until}"
            console.note(text)
        return not _interrupt.comes_within(wait)


def _silence(error: Any, context: dict[str, Any]) -> float:
    """Seconds that a failed try took to fail."""
    name = type(error).__name__
    if name == "ReadTimeoutError":
        return float(context.get("read_timeout", READ_SECONDS))
    return CONNECT_SECONDS if name == "ConnectTimeoutError" else 0.0


def in_worker() -> bool:
    """Whether this process works for a run whose driver has reached the server before."""
    ray: Any = sys.modules.get("ray")
    if ray is None:
        return False
    try:
        return bool(ray.is_initialized()) and (
            ray.get_runtime_context().worker.mode == ray.WORKER_MODE
        )
    except AttributeError:  # Ray is being imported
        return False


def hurry() -> None:
    """Have nothing wait for S3 in the next seconds: the process was interrupted and wants to end."""
    _interrupt.set()


class _Interrupt:
    """When the process was interrupted last."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._at = 0.0

    def set(self) -> None:
        self._at = time.monotonic()
        self._event.set()

    def is_recent(self) -> bool:
        if self._event.is_set() and time.monotonic() > self._at + HURRY_SECONDS:
            self._event.clear()  # what was started since, as in a notebook, has its patience
        return self._event.is_set()

    def comes_within(self, seconds: float) -> bool:
        """Wait that long for an interrupt."""
        return self.is_recent() or self._event.wait(seconds)


_interrupt = _Interrupt()


class _Task(threading.local):
    until: float | None = None  # on the monotonic clock


_task = _Task()


@contextmanager
def one_patience() -> Iterator[Callable[[Exception], bool]]:
    """Let what this thread asks for meanwhile share one patience, from the first failure on.

    The value is called with each failure that boto3 does not repeat by itself: it waits a moment, and
    is False where no time is left.
    """

    def wait(error: Exception) -> bool:
        now, longest = time.monotonic(), min(READ_SECONDS, PATIENCE_SECONDS)
        if _task.until is None:
            _task.until = now - _silence(error, {"read_timeout": longest}) + PATIENCE_SECONDS
        return now + PAUSE_SECONDS < _task.until and not _interrupt.comes_within(PAUSE_SECONDS)

    try:
        yield wait
    finally:
        _task.until = None
