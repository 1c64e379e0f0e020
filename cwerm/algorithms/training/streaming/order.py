"""The order of an epoch whose samples are read part by part: mixed well, with few parts in memory.

The parts are shuffled and dealt to streams of equally many samples. Each stream mixes the samples of a few
parts at a time, and every batch takes its share of each stream. As samples that lie together are often
alike, such as those of a class, the parts that are mixed at a time come from everywhere: one from each
stretch of the source. All of it follows from the seed and the epoch, so that batches are the same on any
number of ranks, and any of them can be the first to be read.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from cwerm.algorithms.training import erm

__all__ = ["STREAMS", "parts_mixed", "share_unmixed", "stream_batches"]

STREAMS = 8  # of which ranks take whole ones, where their number divides it

Samples = Int[np.ndarray, " _"]
Piece = tuple[int, int]  # first sample of (a piece of) a part, and the one after its last


def stream_batches(
    part_sizes: Int[np.ndarray, " parts"],
    turns: int,
    batch_size: int,
    window: int,
    seed: int,
    epoch: int,
    world_size: int = 1,
    rank: int = 0,
) -> list[Samples]:
    """The samples of each batch that `rank` trains on in this epoch.

    Samples are numbered from 0 through all parts. An epoch has `turns` of them, each sample equally often,
    give or take one. `window` is the number of parts that are mixed at a time, over all streams. Ranks take
    parts of a batch that differ by at most one sample; where their number divides that of the streams a rank
    reads whole streams, and no part that another rank reads but for those at the streams' ends.
    """
    sizes = np.array(erm.batch_sizes(turns, batch_size))
    erm.check_parts(int(sizes.min()), world_size)
    bounds = np.concatenate([[0], np.cumsum(part_sizes)])
    # where the streams' shares of each batch end
    ends = sizes[:, None] * np.arange(STREAMS + 1) // STREAMS
    lengths = np.diff(ends, axis=1).sum(axis=0)
    first, last = sizes * rank // world_size, sizes * (rank + 1) // world_size
    from_stream = np.maximum(ends[:, :-1], first[:, None])
    to_stream = np.minimum(ends[:, 1:], last[:, None])
    mixed = parts_mixed(window)
    pieces = _cut(_shuffled_parts(bounds, turns, mixed, seed, epoch), lengths)
    orders = []
    for stream, own in enumerate(pieces):
        needed = (to_stream[:, stream] > from_stream[:, stream]).any()
        # every other one backwards, so that two streams read the part between them at the same time
        ordered = own[:: 1 - 2 * (stream % 2)]
        mix = _mixed(ordered, mixed // STREAMS, seed, epoch, stream)
        orders.append(np.concatenate([*mix]) if needed and own else np.empty(0, np.int64))
    starts = np.cumsum(np.diff(ends, axis=1), axis=0) - np.diff(ends, axis=1)
    batches = []
    for step in range(len(sizes)):
        taken = []
        for stream, order in enumerate(orders):
            start = starts[step, stream] - ends[step, stream]
            low, high = from_stream[step, stream], to_stream[step, stream]
            if high > low:
                taken.append(order[start + low : start + high])
        batches.append(np.concatenate(taken))
    return batches


def parts_mixed(window: int) -> int:
    """How many parts are mixed at a time: as many as the window says, but the same number in each stream."""
    return STREAMS * max(1, window // STREAMS)


def _shuffled_parts(
    bounds: Int[np.ndarray, " parts_and_end"], turns: int, mixed: int, seed: int, epoch: int
) -> list[Piece | Samples]:
    """All parts as often as the turns ask for, each time in an order of their own; then some samples more."""
    generator = erm.generator_of(seed, epoch, erm.ORDER)
    num_samples = int(bounds[-1])
    sequence: list[Piece | Samples] = []
    passes, left = divmod(turns, num_samples)
    for _ in range(passes):
        for part in _from_everywhere(generator, len(bounds) - 1, mixed):
            sequence.append((int(bounds[part]), int(bounds[part + 1])))
    if left:
        some = np.sort(generator.permutation(num_samples)[:left])
        by_part = np.split(some, np.searchsorted(some, bounds[1:-1]))
        sequence += [by_part[part] for part in _from_everywhere(generator, len(by_part), mixed)]
    return [piece for piece in sequence if _length(piece)]


def _from_everywhere(generator: np.random.Generator, parts: int, mixed: int) -> list[int]:
    """All parts, stream by stream; those that are mixed at a time are one of each stretch of the source."""
    stretches = [generator.permutation(some).tolist() for some in _stretches(parts, mixed)]
    stretches = [stretches[i] for i in generator.permutation(len(stretches)).tolist()]
    rounds = itertools.zip_longest(*stretches)
    in_turn = [part for some in rounds for part in some if part is not None]
    # every other stream runs backwards
    dealt = [in_turn[stream::STREAMS][:: 1 - 2 * (stream % 2)] for stream in range(STREAMS)]
    return [part for own in dealt for part in own]


def _stretches(parts: int, mixed: int) -> list[Int[np.ndarray, " _"]]:
    """The parts as they lie in the source, cut into as many stretches as are mixed at a time."""
    return np.array_split(np.arange(parts), min(mixed, parts))


def _length(piece: Piece | Samples) -> int:
    return piece[1] - piece[0] if isinstance(piece, tuple) else len(piece)


def _cut(
    sequence: list[Piece | Samples], lengths: Int[np.ndarray, " streams"]
) -> list[list[Samples]]:
    """The sequence in runs of so many samples; a part at an end is in two of them."""
    pieces = iter(np.arange(*p) if isinstance(p, tuple) else p for p in sequence)
    held: Samples = np.empty(0, np.int64)
    streams = []
    for length in lengths.tolist():
        own: list[Samples] = []
        while length:
            if not len(held):
                held = next(pieces)
            own.append(held[:length])
            held, length = held[len(own[-1]) :], length - len(own[-1])
        streams.append(own)
    return streams


def _mixed(
    pieces: list[Samples], window: int, seed: int, epoch: int, stream: int
) -> Iterator[Samples]:
    """The samples of a stream, drawn from `window` of its parts at a time; as some go, a part comes."""
    generator = erm.generator_of(seed, epoch, erm.ORDER, 1 + stream)
    held = np.concatenate(pieces[:window]) if pieces else np.empty(0, np.int64)
    for piece in pieces[window:]:
        held = generator.permutation(held)
        yield held[: len(piece)]
        held = np.concatenate([held[len(piece) :], piece])
    yield generator.permutation(held)


def share_unmixed(
    labels: Int[np.ndarray, " n"], sizes: Int[np.ndarray, " parts"], window: int
) -> float:
    """How much a mix of parts lacks: the share of samples whose class none of them holds.

    Near 0 where parts hold images of all classes; high where a class lies in fewer parts than a stretch has
    from which one is mixed in at a time.
    """
    of_parts = np.split(labels, np.cumsum(sizes)[:-1])
    lacking = np.ones(int(labels.max()) + 1)
    for stretch in _stretches(len(sizes), parts_mixed(window)):
        found = np.concatenate([np.unique(of_parts[part]) for part in stretch])
        lacking *= 1 - np.bincount(found, minlength=len(lacking)) / len(stretch)
    return float(lacking @ np.bincount(labels) / len(labels))
