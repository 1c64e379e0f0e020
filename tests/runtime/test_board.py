"""What a run shows of work done elsewhere, and which cluster it works on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import ray

from cwerm.errors import UserError
from cwerm.runtime import board
from cwerm.runtime.session import session
from cwerm.terminal import console

MakeJob = Callable[..., Any]


@pytest.mark.usefixtures("ray_session")
def test_one_slow_answer_does_not_end_the_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(console, "note", told.append)
    monkeypatch.setattr(board, "POLL_SECONDS", 0.05)
    real_get, slow = ray.get, [True]

    def get(reference: Any, timeout: float | None = None) -> Any:
        if slow and timeout:
            slow.clear()
            raise ray.exceptions.GetTimeoutError("a busy node")
        return real_get(reference, timeout=timeout)

    monkeypatch.setattr(ray, "get", get)
    with board.progress_board(10, "train") as shown:
        deadline = time.monotonic() + 20
        while slow and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not slow, "nobody asked"
        shown.note.remote("still here")
    assert told == ["still here"]


@pytest.mark.usefixtures("ray_session")
def test_an_address_that_is_not_that_of_the_session(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    joined = ray.get_runtime_context().gcs_address
    host, _, port = joined.rpartition(":")
    for address in (joined, f"localhost:{port}" if host.startswith("127.") else joined, "auto"):
        session.ensure_ray(make_job(resources__address=address))
    session.ensure_ray(make_job(resources__address=None))
    other = f"127.0.0.1:{int(port) % 60_000 + 1}"
    with pytest.raises(
        UserError, match=rf"^resources.address: '{other}', but Ray runs .* {joined}"
    ):
        session.ensure_ray(make_job(resources__address=other))
    monkeypatch.setenv("RAY_ADDRESS", other)
    with pytest.raises(UserError, match=r"^RAY_ADDRESS: "):
        session.ensure_ray(make_job(resources__address=None))


@pytest.mark.usefixtures("ray_session")
def test_many_small_steps_are_few_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one always comes, as the bar would end before its end."""
    monkeypatch.setattr(board, "POLL_SECONDS", 3600)

    class Counting(board._Board):
        posts = 0

        def post(self, done: float, remark: str = "") -> None:
            self.posts += 1
            super().post(done, remark)

        def seen(self) -> tuple[int, float]:
            return self.posts, self.done

    actor = ray.remote(Counting).options(num_cpus=0).remote()
    post = board.seldom(actor, 500)
    for done in range(1, 501):
        post(done)
    assert ray.get(actor.seen.remote()) == (2, 500)
    ray.kill(actor)
