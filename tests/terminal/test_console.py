"""What a run says where there is no terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cwerm.terminal import console


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    buffer = io.StringIO()
    monkeypatch.setattr(console, "out", Console(file=buffer, width=100))
    return buffer


def test_long_work_tells_once_a_minute(
    printed: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    with console.progress(90, "train") as advance:
        for _ in range(45):
            now += 7.0
            advance(2, "loss 0.5")
    lines = [line.strip() for line in printed.getvalue().splitlines()]
    assert lines == [f"train: {done} of 90  loss 0.5" for done in (18, 36, 54, 72, 90)]


def test_short_work_tells_nothing(printed: io.StringIO) -> None:
    with console.progress(3, "select") as advance:
        for _ in range(3):
            advance(1)
    assert printed.getvalue() == ""
