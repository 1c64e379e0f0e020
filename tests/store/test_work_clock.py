"""The clock that leaves out what is waited."""

from __future__ import annotations

import pickle

import pytest

from cwerm.store.claims import work_clock
from cwerm.store.claims.work_clock import WorkClock


class Time:
    now = 100.0


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(work_clock.time, "monotonic", lambda: made.now)
    return made


def test_it_stands_still_while_it_waits(time: Time) -> None:
    clock = WorkClock()
    time.now += 3
    clock.wait()
    time.now += 10
    clock.wait()
    assert clock.seconds == 3
    clock.work()
    clock.work()
    time.now += 2
    assert clock.seconds == 5


def test_work_may_be_told_late_and_is_never_more_than_there_was(time: Time) -> None:
    clock = WorkClock()
    clock.wait()
    time.now += 10
    clock.work(4)
    assert clock.seconds == 4
    clock.wait()
    time.now += 1
    clock.work(60)
    assert clock.seconds == 5


def test_the_current_clock_is_that_of_the_artifact(time: Time) -> None:
    clock = WorkClock()
    time.now += 1
    with work_clock.running(clock):
        assert work_clock.current() is clock
        assert pickle.loads(pickle.dumps(clock)).seconds == 1, "it goes along with its writer"
    assert work_clock.current() is not clock
