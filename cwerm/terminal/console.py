"""What a command says: one line a stage, a progress bar for each long one, and for machines its answer."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINE_SECONDS = 60.0
out = Console(highlight=False)

T = TypeVar("T")
_listener: Callable[[str], None] | None = None
_answers: dict[str, Any] | None = None


def speak(*, quiet: bool, as_json: bool) -> None:
    """Say nothing, or all of it on standard error, as standard output is for the `answer`."""
    global out, _answers
    _answers = {} if as_json else None
    out = Console(highlight=False, quiet=quiet, stderr=as_json)


def answer(values: Mapping[str, Any]) -> None:
    """Plain values that the command gave, for a machine; of several calls all count."""
    if _answers is not None:
        _answers.update(values)


def print_answer() -> None:
    """Write the answer as one line of JSON, where it is asked for."""
    if _answers is not None:
        sys.stdout.write(json.dumps(_answers, default=str) + "\n")
        sys.stdout.flush()


def stage_line(stage: str, text: str, seconds: float | None = None) -> None:
    """Print what a stage did, and how long it took."""
    time = f"{seconds:7.1f} s" if seconds is not None else " " * 9
    if _listener:
        _listener(Text.from_markup(f"{stage:<10}{time}  {text}").plain)
    out.print(f"[bold]{stage:<10}[/bold]{time}  {text}", soft_wrap=True)


def note(text: str) -> None:
    """Print a remark below the current stage."""
    if _listener:
        _listener(text)
    out.print(f"{'':19}  {text}", style="dim", soft_wrap=True, markup=False)


@contextmanager
def told_to(listener: Callable[[str], None]) -> Iterator[None]:
    """Give the lines of stages, and remarks, to a function instead of the terminal."""
    global _listener, out
    before = out
    _listener, out = listener, Console(quiet=True)
    try:
        yield
    finally:
        _listener, out = None, before


def track(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """Pass the items on, with a bar that disappears at the end."""
    with progress(total, label) as advance:
        for item in items:
            yield item
            advance(1)


@contextmanager
def progress(total: int, label: str) -> Iterator[Callable[..., None]]:
    """A progress bar; the value is called with the number of units done."""
    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    if not out.is_terminal:
        yield _Lines(total, label)
        return
    with Progress(*columns, console=out, transient=True) as bars:
        yield _Bar(bars, bars.add_task(label, total=total, remark=""))


class _Bar:
    def __init__(self, bars: Progress, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def __call__(self, units: float, remark: str = "") -> None:
        self._bars.update(self._task, advance=units, remark=remark)


class _Lines:
    """Where there is no terminal: a line for work that takes long, at most one a minute."""

    def __init__(self, total: int, label: str) -> None:
        self._total, self._label = total, label
        self._done, self._told = 0.0, time.monotonic()

    def __call__(self, units: float, remark: str = "") -> None:
        self._done += units
        if units and time.monotonic() - self._told >= LINE_SECONDS:
            self._told = time.monotonic()
            note(f"{self._label}: {self._done:g} of {self._total}{f'  {remark}' if remark else ''}")
