"""What went wrong on a worker, as one line, whatever Ray wrapped around it."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cwerm.errors import FULL, UserError, is_full

WORKERS_KEY = "resources.workers"
_NO_MEMORY = "{}: memory ran out ({}); {}"
# What an exception says of itself where Ray keeps the text alone.
_TOLD = rf"^{UserError.__module__}\.{UserError.__name__}: (.+)$"
_TOLD_NO_MEMORY = r"^(?:[\w.]*OutOfMemoryError|MemoryError|[\w.]*_ArrayMemoryError)(?:: (.*))?$"
_TOLD_FULL = r"^OSError: \[Errno (?:28|122)\][^:\n]*(?:: '(.+)')?$"
_TOLD_NO_MODULE = r"^ModuleNotFoundError: No module named '([\w.]+)'$"
_NO_MODULE = (
    "a worker has no module '{}': install it on all hosts; one of your own is found where the command "
    "starts in its folder, which `cwerm submit --working-dir` takes along"
)
_NO_CPU_MEMORY = "DefaultCPUAllocator: "


@contextmanager
def user_errors(key: str = WORKERS_KEY) -> Iterator[None]:
    """Pass a worker's `UserError` on as itself, not wrapped in Ray's trace.

    So are a full disk, and memory that ran out, with the ``key`` of the job to lower.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) and not _wraps(error):
            raise
        cause = find_user_error(error, key)
        if cause is not None:
            raise cause from None
        raise


def lower(key: str) -> str:
    """What to do where memory is short."""
    return f"lower {key}" if key == WORKERS_KEY else f"lower {key}, or {WORKERS_KEY}"


def find_user_error(
    error: BaseException | Any, key: str = WORKERS_KEY, place: str = "a disk"
) -> UserError | None:
    """The `UserError` among the causes of an error of Ray, whatever is wrapped around it, if any.

    ``place`` is named where a disk is full and the error does not say which.
    """
    for current in causes(error):
        if _wraps(current):
            continue
        if isinstance(current, UserError):
            return UserError(str(current))
        if is_full(current):
            return UserError(FULL.format(getattr(current, "filename", None) or place))
        reason = _no_memory(current)
        if reason is not None:
            return UserError(_NO_MEMORY.format(key, reason, lower(key)))
    texts = [str(current) for current in causes(error)]
    for text in texts:
        if told := re.findall(_TOLD, text, re.MULTILINE):
            return UserError(told[-1])
    for text in texts:
        if told := re.findall(_TOLD_FULL, text, re.MULTILINE):
            return UserError(FULL.format(told[-1] or place))
        if told := re.findall(_TOLD_NO_MEMORY, text, re.MULTILINE):
            return UserError(_NO_MEMORY.format(key, _first_sentence(told[-1]), lower(key)))
        if told := re.findall(_TOLD_NO_MODULE, text, re.MULTILINE):
            return UserError(_NO_MODULE.format(told[-1]))
        if _NO_CPU_MEMORY in text:
            reason = text.partition(_NO_CPU_MEMORY)[2]
            return UserError(_NO_MEMORY.format(key, _first_sentence(reason), lower(key)))
    return None


def causes(error: Any) -> Iterator[BaseException]:
    """An error and all that is wrapped in it, the outermost first."""
    seen: set[int] = set()
    pending: deque[Any] = deque([error])
    while pending:
        current = pending.popleft()
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        pending += [getattr(current, name, None) for name in _WRAPPED_AS]
        pending += [current.__cause__, current.__context__]
        failures = getattr(current, "worker_failures", None)
        pending += [*failures.values()] if isinstance(failures, dict) else []
        pending += getattr(current, "exceptions", None) or ()


# by Ray's tasks and actors; by Ray Train: the controller, a rank's health, what a rank raised
_WRAPPED_AS = ("cause", "controller_failure", "health_check_failure", "_base_exc")


def _wraps(error: BaseException) -> bool:
    """Whether its text is a trace: Ray makes errors that are of the type of their cause, too."""
    return isinstance(getattr(error, "cause", None), BaseException)


def _no_memory(error: BaseException) -> str | None:
    """What PyTorch, NumPy or Python say where there is no memory left."""
    names = {kind.__name__ for kind in type(error).__mro__}
    text = str(error)
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        return _first_sentence(text)
    if isinstance(error, RuntimeError) and _NO_CPU_MEMORY in text:
        return _first_sentence(text.partition(_NO_CPU_MEMORY)[2])
    return None


def _first_sentence(text: str) -> str:
    """Of a reason that goes on about allocators."""
    sentences = re.split(r"\. (?=[A-Z])|\n", text.strip(), maxsplit=2)
    return ". ".join(sentences[:2]).strip(" .") or "no more was given"
