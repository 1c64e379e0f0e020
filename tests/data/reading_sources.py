"""What the tests of all kinds of sources ask: every sample, and one line for a mistake."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from cwerm.data import Sample, Source, open_source
from cwerm.errors import UserError


def read_all(source: Source, split: str = "train", rows: int = 3) -> list[Sample]:
    """What a worker reads of a split, in chunks of so many rows."""
    worker = pickle.loads(pickle.dumps(source))
    return [sample for chunk in source.chunks(split, rows) for sample in worker.read(chunk)]


def fails(place: Path, *words: str, **how: Any) -> None:
    """Opening it is refused in one line that has the words."""
    with pytest.raises(UserError) as refused:
        open_source(str(place), **how)
    told = str(refused.value)
    assert told.startswith("data.")
    assert "\n" not in told
    for word in words:
        assert word in told
