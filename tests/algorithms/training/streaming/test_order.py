"""The order of an epoch that is read part by part."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwerm.algorithms.training import erm
from cwerm.algorithms.training.streaming.order import STREAMS, share_unmixed, stream_batches

SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(lambda s: sum(s) >= 20)


@settings(deadline=None, max_examples=60)
@given(SIZES, st.integers(8, 50), st.integers(1, 40), st.integers(1, 8), st.integers(0, 3))
def test_ranks_share_the_batches_of_one(
    sizes: list[int], batch_size: int, window: int, world_size: int, epoch: int
) -> None:
    total = sum(sizes)
    asked = np.array(sizes), total, batch_size, window, 5, epoch
    alone = stream_batches(*asked)
    assert [len(batch) for batch in alone] == erm.batch_sizes(total, batch_size)
    assert sorted(np.concatenate(alone).tolist()) == [*range(total)]
    if min(map(len, alone)) < world_size:
        with pytest.raises(ValueError, match="cannot be split"):
            stream_batches(*asked, world_size, 0)
        return
    ranks = [stream_batches(*asked, world_size, rank) for rank in range(world_size)]
    for step, batch in enumerate(alone):
        parts = [rank[step] for rank in ranks]
        np.testing.assert_array_equal(np.concatenate(parts), batch)
        assert [len(part) for part in parts] == erm.batch_parts(len(batch), world_size)


@settings(deadline=None, max_examples=40)
@given(SIZES, st.integers(20, 400))
def test_more_or_fewer_turns_than_samples(sizes: list[int], turns: int) -> None:
    batches = stream_batches(np.array(sizes), turns, 16, 8, 0, 0)
    counts = np.bincount(np.concatenate(batches), minlength=sum(sizes))
    assert counts.sum() == turns
    assert counts.max() - counts.min() <= 1


def test_epochs_and_seeds_differ() -> None:
    orders = {
        tuple(np.concatenate(stream_batches(np.full(20, 10), 200, 20, 32, seed, epoch)))
        for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1)]
    }
    assert len(orders) == 4


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_no_part_is_read_twice_where_ranks_divide_the_streams(world_size: int) -> None:
    sizes = np.full(64, 32)  # eight whole parts a stream
    part_of = np.repeat(np.arange(64), 32)
    ranks = [stream_batches(sizes, 2048, 64, 32, 0, 1, world_size, r) for r in range(world_size)]
    read = [set(part_of[np.concatenate(rank)]) for rank in ranks]
    assert sum(map(len, read)) == 64
    assert set().union(*read) == set(range(64))


def test_seven_ranks_read_few_parts_twice() -> None:
    part_of = np.repeat(np.arange(100), 32)
    ranks = [stream_batches(np.full(100, 32), 3200, 64, 32, 0, 1, 7, r) for r in range(7)]
    assert sum(len(set(part_of[np.concatenate(rank)])) for rank in ranks) <= 2 * 100


def test_batches_mix_their_parts_and_hold_few_at_a_time() -> None:
    rows, parts, batch = 128, 200, 256
    part_of = np.repeat(np.arange(parts), rows)
    batches = [
        part_of[b] for b in stream_batches(np.full(parts, rows), rows * parts, batch, 32, 0, 0)
    ]
    # at the end of an epoch as few parts are left as a stream mixes
    assert max(np.bincount(b).max() / len(b) for b in batches) <= 0.35
    assert np.median([len(np.unique(b)) for b in batches]) >= 32
    first = {int(p): step for step, b in reversed([*enumerate(batches)]) for p in b}
    left = np.zeros(len(batches))
    seen = np.zeros(parts)
    for step, b in enumerate(batches):
        np.add.at(seen, b, 1)
        left[step] = sum(rows - seen[p] for p in range(parts) if first[p] <= step)
    assert left.max() <= 32 * rows  # samples that lie read and are not used yet


@pytest.mark.parametrize(("parts", "rows"), [(160, 64), (157, 64), (1000, 10)])
def test_batches_of_what_lies_sorted_by_class_are_nearly_as_balanced_as_by_chance(
    parts: int, rows: int
) -> None:
    """Ten classes, of which each part holds one; of 128 drawn by chance, a class has 12.8 samples +- 3.4.

    Of parts in an order drawn by chance it would have 12.8 +- 5.3 and more.
    """
    kind = np.arange(parts * rows) * 10 // (parts * rows)
    found = []
    for epoch in range(6):
        batches = stream_batches(np.full(parts, rows), len(kind), 128, 32, 0, epoch)
        counts = np.array([np.bincount(kind[b], minlength=10) for b in batches])
        off = counts - counts.sum(axis=1, keepdims=True) / 10
        found.append(np.sqrt(np.mean(off**2)))
    assert np.mean(found) < 4.9


@given(
    st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=6), min_size=1, max_size=20),
    st.integers(1, 3),
)
def test_what_a_mix_lacks_is_the_mean_over_all_mixes(
    parts: list[list[int]], of_stream: int
) -> None:
    labels = np.concatenate([np.array(part) for part in parts])
    expected, window = [], STREAMS * of_stream
    stretches = np.array_split(np.arange(len(parts)), min(window, len(parts)))
    for chosen in itertools.product(*([parts[i] for i in some] for some in stretches)):
        present = {label for part in chosen for label in part}
        expected.append(np.mean([label not in present for label in labels.tolist()]))
    found = share_unmixed(labels, np.array([len(part) for part in parts]), window)
    assert found == pytest.approx(np.mean(expected), abs=1e-12)
