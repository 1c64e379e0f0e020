"""A class at a time: from parts that are shuffled to buckets comes what all rows at once give."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from cwerm.stages import label
from cwerm.stages.labels_in_use import LabelReader, ids_at
from cwerm.stages.select import by_class
from stages.conftest import Chain, Fork

ROW_BYTES = 2 * 1280


@pytest.mark.parametrize(
    ("most", "method"),
    [
        (100 * ROW_BYTES, "moderate"),  # two classes or three a bucket
        (16 * ROW_BYTES, "moderate"),  # no class fits one: blocks of columns
        (100 * ROW_BYTES, "herding"),  # looks at the features, not at distances
    ],
)
def test_buckets_change_nothing(
    fork: Fork, chain: Chain, monkeypatch: pytest.MonkeyPatch, most: int, method: str
) -> None:
    whole = fork("select", coreset__method=method)
    expected = whole.store.read(whole.run("select"), "coreset")
    monkeypatch.setattr(by_class, "PIECE_BYTES", 0)
    monkeypatch.setattr(by_class, "BUCKET_BYTES", most)
    mine = fork("select", coreset__method=method)
    made = mine.run("select")
    assert mine.store.read(made, "coreset").equals(expected)
    folder = Path(mine.job.storage, made.folder)
    assert not [*folder.rglob("bucket-*")], "what was shuffled is removed"


def test_ids_at_places_of_classes() -> None:
    random = np.random.default_rng(0)
    labels, usable = random.integers(0, 5, 100), random.random(100) < 0.7
    members = [np.flatnonzero(usable & (labels == number)) for number in range(5)]
    places = [random.choice(len(own), 3, replace=False) for own in members]
    pieces = [
        (start, labels[start : start + 30], usable[start : start + 30]) for start in (0, 30, 60, 90)
    ]
    found = ids_at(pieces, np.array([*map(len, members)]), places)
    expected = [own[at] for own, at in zip(members, places, strict=True)]
    assert found.tolist() == sorted(np.concatenate(expected).tolist())


def test_ranges_of_labels_cross_parts(
    fork: Fork, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label, "ROWS_A_PART", 90)
    mine = fork("select")
    del mine.plan.made["label"]
    shutil.rmtree(Path(mine.job.storage, chain.made["label"].folder))
    made = mine.run("label")
    assert [part.rows for part in made.tables["labels"]] == [90, 90, 90, 90, 40]
    assert mine.store.read(made, "labels").equals(chain.table("label", "labels"))
    reader = LabelReader(mine.store, made)
    for start, stop in ((0, 400), (85, 95), (89, 300), (90, 180)):
        rows = reader.rows(start, stop)
        assert rows.start == start
        assert np.array_equal(rows.labels, chain.labels[start:stop])
    usable = reader.rows(170, 200).usable(np.array([3, 169, 170, 199, 200]))
    assert np.flatnonzero(~usable).tolist() == [0, 29]
