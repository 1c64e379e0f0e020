"""Tables, ids and labels of rows as ingest gives them, on arrays, against the drawing functions."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from cwerm.algorithms.noise.corrupt import corrupt_labels, long_tail
from cwerm.errors import UserError
from cwerm.job.tree import Job, parse_job
from cwerm.stages.ingest.assign import assign_rows
from cwerm.stages.ingest.settings import IngestSettings
from cwerm.stages.label import LabelSettings, made_wrong
from cwerm.stages.outside import Outside
from stages.surveys import parts_of, survey_of_codes

NAMES = ["ant", "bee", "cat", "dog"]
TEST = np.repeat(np.arange(4, dtype=np.int32), 3)


def settings(**changes: Any) -> Job:
    return parse_job({"data": {"source": "sample", **changes}})


def training_labels(sizes: list[int], unreadable: int = 0) -> np.ndarray:
    """Class codes in random order, -1 where a row is not readable."""
    codes = np.repeat(np.arange(-1, len(sizes)), [unreadable, *sizes])
    return np.random.default_rng(5).permutation(codes).astype(np.int32)


def images(first: int, count: int) -> np.ndarray:
    """Digests of the images of rows that follow each other, uint8 [count, 16]."""
    every = np.random.default_rng(9).integers(256, size=(first + count, 16), dtype=np.uint8)
    return every[first:]


def assign(
    job: Job, train: np.ndarray, rows: int = 17, with_test: bool = True
) -> dict[str, list[tuple[int, int, int | None]]]:
    """By table, in the order of ids: the row within the source, its label and its clean label."""
    chunks = np.split(train, range(rows, len(train), rows))
    tables = ["images"] * len(chunks) + ["test_images"] * with_test
    codes = [*chunks, TEST] if with_test else chunks
    names = NAMES[: train.max() + 1]
    found: dict[str, dict[int, tuple[int, int, int | None]]] = {}
    starts = np.cumsum([0, *map(len, codes)])
    outside = Outside(job)
    of_images, noise = IngestSettings.of(job, outside), LabelSettings.of(job, outside)
    seen = [images(start, len(part)) for start, part in zip(starts, codes, strict=False)]
    survey, code_of = survey_of_codes(tables, codes, seen)
    chunks_seen = parts_of(assign_rows(of_images, names, survey, code_of), len(names))
    indices = [chunk.index for chunk in chunks_seen]
    assert indices == sorted({*indices})
    for chunk in chunks_seen:
        index = chunk.index
        for table, ids in chunk.ids.items():
            for row in np.flatnonzero(ids >= 0):
                entry = (int(starts[index] + row), int(chunk.labels[row]), None)
                assert ids[row] not in found.setdefault(table, {})
                found[table][ids[row]] = entry
    for entries in found.values():
        assert list(entries) == list(range(len(entries))), "contiguous, in the order of the source"
    rows_of = {table: list(entries.values()) for table, entries in found.items()}
    if noise.noise:
        true = np.array(column(rows_of["images"], 1), dtype=np.int32)
        wrong = made_wrong(noise, names, true).tolist()
        entries = zip(column(rows_of["images"], 0), wrong, true.tolist(), strict=True)
        rows_of["images"] = [(int(row or 0), label, clean) for row, label, clean in entries]
    return rows_of


def column(entries: list[tuple[int, int, int | None]], place: int) -> list[int | None]:
    return [entry[place] for entry in entries]


@pytest.mark.parametrize("kind", ["uniform", "symmetric", "flip", "flip2"])
@pytest.mark.parametrize("with_test", [True, False])
def test_noise_is_that_of_the_clean_labels(kind: str, with_test: bool) -> None:
    train = training_labels([30, 25, 40, 20], unreadable=9)
    clean = assign(settings(split_seed=3), train, with_test=with_test)
    changes = {"noise": kind, "noise_rate": 0.5, "split_seed": 3}
    noisy = assign(settings(**changes), train, with_test=with_test)
    true = np.array(column(clean["images"], 1), dtype=np.int32)
    expected = corrupt_labels(true, kind, 0.5, 4, seed=3)
    assert column(noisy["images"], 1) == expected.tolist() != true.tolist()
    assert column(noisy["images"], 2) == true.tolist()
    assert column(clean["images"], 2) == [None] * len(true)
    for place in (0, 1):
        assert column(noisy["test_images"], place) == column(clean["test_images"], place)
    assert column(noisy["images"], 0) == column(clean["images"], 0)
    readable = np.concatenate([train, TEST])
    for row, label, _ in noisy["test_images"]:
        assert label == readable[row]


def test_the_counts_of_a_long_tail() -> None:
    train = training_labels([30, 27, 40, 28], unreadable=9)
    found = assign(settings(imbalance=8.0, split_seed=2), train)["images"]
    # 27, 27 / 2, 27 / 4, 27 / 8
    assert np.bincount(column(found, 1)).tolist() == [27, 13, 6, 3]
    readable = np.flatnonzero(train >= 0)
    assert column(found, 0) == readable[long_tail(train[readable], 8.0, seed=2)].tolist()
    assert column(found, 1) == train[column(found, 0)].tolist()
    assert column(found, 2) == [None] * len(found)


def test_the_tail_is_of_the_limit_and_the_noise_of_the_tail() -> None:
    train = training_labels([30, 27, 40, 28])
    limited = assign(settings(limit=64), train)["images"]
    tailed = assign(settings(limit=64, imbalance=8.0), train)["images"]
    noisy = assign(settings(limit=64, imbalance=8.0, noise="flip"), train)["images"]
    assert np.bincount(column(tailed, 1)).tolist() == [16, 8, 4, 2]
    assert set(tailed) < set(limited)
    labels = np.array(column(tailed, 1), dtype=np.int32)
    assert column(noisy, 1) == corrupt_labels(labels, "flip", 0.4, 4, seed=0).tolist()


@pytest.mark.parametrize("with_test", [True, False])
@pytest.mark.parametrize("rows", [1, 50, 1000])
def test_chunks_do_not_matter(rows: int, with_test: bool) -> None:
    train = training_labels([30, 27, 40, 28], unreadable=9)
    data = settings(limit=80, imbalance=3.0, noise="symmetric", split_seed=1)
    assert assign(data, train, rows, with_test) == assign(data, train, 17, with_test)


def test_the_split_seed_alone_decides() -> None:
    train = training_labels([30, 27, 40, 28])
    for changes in ({"noise": "uniform"}, {"imbalance": 3.0}):
        first, again, other = (
            assign(settings(**changes, split_seed=seed), train)["images"] for seed in (4, 4, 5)
        )
        assert first == again != other


@pytest.mark.parametrize(
    ("changes", "sizes", "message"),
    [
        ({"noise": "flip2"}, [9, 9], r"data\.noise: flip2 label noise needs at least 3 classes"),
        ({"imbalance": 50.0}, [30, 12, 20], r"data\.imbalance: .* of 12 .*; use at most 12"),
    ],
)
def test_what_can_not_be_drawn(changes: dict[str, Any], sizes: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        assign(settings(**changes), training_labels(sizes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "sizes", "message"),
    [
        (
            {},
            [9, 1, 9, 9],
            r"^data\.test_fraction: class 'bee' has 1 readable image\(s\), too few to",
        ),
        (
            {"limit": 20},
            [9, 9, 2, 9],
            r"^data\.limit: class 'cat' has 2 samples to draw 5 from; dra",
        ),
        (
            {"imbalance": 2.0},
            [9, 0, 9],
            r"^data\.imbalance: class 'bee' has no samples to make a lo",
        ),
    ],
)
def test_messages_name_the_class(changes: dict[str, Any], sizes: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        assign(settings(**changes), training_labels(sizes), with_test=bool(changes))


def test_a_class_that_noise_leaves_without_a_label() -> None:
    train = training_labels([1, 1, 1, 1])
    left = corrupt_labels(train, "uniform", 1.0, 4, seed=0)
    lost = min(set(range(4)) - set(left.tolist()))
    message = rf"^data\.noise_rate: at 1 no training image .* label '{NAMES[lost]}'; lower the .*$"
    with pytest.raises(UserError, match=message):
        assign(settings(noise="uniform", noise_rate=1.0), train)


@pytest.mark.parametrize("seed", range(5))
def test_a_corrected_label_moves_hardly_any_other_image(seed: int) -> None:
    """Of 2,000 images with a fifth drawn as test split, each class on its own."""
    train = training_labels([500] * 4)
    before = assign(settings(test_fraction=0.2), train, with_test=False)
    corrected = train.copy()
    wrong = np.random.default_rng(seed).integers(len(train))
    corrected[wrong] = (train[wrong] + 1) % 4
    after = assign(settings(test_fraction=0.2), corrected, with_test=False)
    tests = [set(column(found["test_images"], 0)) for found in (before, after)]
    assert len(tests[0]) == len(tests[1]) == 400
    assert len(tests[0] ^ tests[1]) <= 4


def test_the_drawn_test_split_is_a_fair_draw() -> None:
    """Over 200 seeds each image is drawn about as often, and two seeds share what chance gives."""
    train = training_labels([50, 50])
    counts, drawn = np.zeros(100), []
    for seed in range(200):
        found = assign(settings(test_fraction=0.2, split_seed=seed), train, with_test=False)
        rows = column(found["test_images"], 0)
        counts[rows] += 1
        drawn.append(set(rows))
    assert 16 < counts.min() < counts.max() < 70  # 40 on average, deviation 5.7
    shared = [len(a & b) for a, b in pairwise(drawn)]
    assert abs(np.mean(shared) - 4) < 0.6


@pytest.mark.parametrize("split", ["test", "validation"])
@examples(max_examples=40)
@given(
    st.lists(st.integers(2, 40), min_size=2, max_size=4),
    st.integers(3, 200),
    st.sampled_from([0.1, 0.25, 0.5]),
    st.integers(0, 2**31),
)
def test_a_drawn_split_has_a_share_of_each_class_and_all_copies_of_an_image(
    split: str, sizes: list[int], different: int, share: float, seed: int
) -> None:
    """Of so many different images, each under any label."""
    codes = training_labels(sizes)
    which = np.random.default_rng(seed).integers(different, size=len(codes))
    tables = ["images", "test_images"][: 1 + (split == "validation")]
    parts = [codes, TEST][: len(tables)]
    seen = [images(0, different)[which], images(different, len(TEST))][: len(tables)]
    job = settings(**{"test_fraction": 0.0, f"{split}_fraction": share}, split_seed=seed)
    survey, code_of = survey_of_codes(tables, parts, seen)
    assignment = assign_rows(IngestSettings.of(job, Outside(job)), NAMES, survey, code_of)
    found = parts_of(assignment, len(NAMES))[0].ids
    assert found.keys() == {"images", f"{split}_images"}
    drawn = found[f"{split}_images"] >= 0
    assert np.array_equal(drawn, found["images"] < 0)
    for code, size in enumerate(sizes):
        mine, others = which[codes == code], which[codes != code]
        is_alone = len({*mine}) == len(mine) and not np.isin(mine, others).any()
        count = max(1, round(share * size))
        assert count <= drawn[codes == code].sum() < size
        assert not is_alone or drawn[codes == code].sum() == count
    for image in which:
        # of a class that would have nothing left some copies stay
        emptied = [
            np.isin(which[codes == code], which[drawn]).all() for code in codes[which == image]
        ]
        assert len({*drawn[which == image]}) == 1 or any(emptied)


def test_validation_images_are_drawn_of_what_is_trained_on() -> None:
    train = training_labels([30, 27, 40, 28])
    data = {"limit": 80, "imbalance": 4.0, "split_seed": 3}
    plain = assign(settings(**data), train, with_test=False)
    found = assign(settings(**data, validation_fraction=0.2), train, with_test=False)
    assert found["test_images"] == plain["test_images"]
    parts = [column(found[table], 0) for table in ("images", "validation_images")]
    assert sorted(parts[0] + parts[1]) == column(plain["images"], 0)
    assert np.bincount(column(found["validation_images"], 1)).tolist() == [4, 2, 1, 1]
    with pytest.raises(UserError, match=r"^data\.validation_fraction: class 'dog' has 1 readable "):
        assign(settings(**{**data, "imbalance": 20.0}, validation_fraction=0.2), train)


def test_very_many_classes_take_no_pass_each() -> None:
    codes = np.tile(np.arange(60_000, dtype=np.int32), 3)
    names = [str(code) for code in range(60_000)]
    job = settings(test_fraction=0.4)
    survey, code_of = survey_of_codes(["images"], [codes], [images(0, len(codes))])
    started = time.process_time()
    assignment = assign_rows(IngestSettings.of(job, Outside(job)), names, survey, code_of)
    assert time.process_time() - started < 4
    (rows,) = parts_of(assignment, len(names))
    test = codes[rows.ids["test_images"] >= 0]
    assert np.array_equal(np.sort(test), np.arange(60_000)), "one of each class"
