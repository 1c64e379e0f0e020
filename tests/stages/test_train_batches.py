"""Batches that are too small, for the workers or for GPUs, before a training."""

from __future__ import annotations

from typing import Any

import pytest

from cwerm.errors import UserError
from cwerm.runtime import batch_memory, capacity
from cwerm.stages.train.limits import check_batch
from cwerm.terminal import console
from stages.conftest import Fork


def test_a_batch_too_small_for_the_workers(fork: Fork) -> None:
    mine = fork("train", train__batch_size=3, resources__workers=2)
    with pytest.raises(
        UserError, match=r"train\.batch_size: 3 images over 2 workers; use at least 4"
    ):
        mine.run("train")


@pytest.mark.parametrize(("batch_size", "told"), [(126, True), (128, False)])
def test_a_batch_too_small_for_gpus_is_told(
    fork: Fork, monkeypatch: pytest.MonkeyPatch, batch_size: int, told: bool
) -> None:
    nodes = (capacity.Node("a", "10.0.0.1", 8.0, 2),)
    two_gpus = capacity.Size(2, nodes, 1, "cuda", 2)
    monkeypatch.setattr(capacity, "size", lambda run: two_gpus)
    monkeypatch.setattr(batch_memory, "check_memory", lambda *_: None)
    notes: list[str] = []
    monkeypatch.setattr(console, "note", notes.append)
    mine = fork("train", train__batch_size=batch_size)
    settings: Any = mine.plan["train"].settings
    check_batch(settings, mine.made["ingest"], mine.job)
    assert [note for note in notes if "63 images a GPU" in note] == notes[: int(told)]
    assert len(notes) == int(told)
