"""Rows held in the storage, and draws a bucket at a time: the same as of all rows at once in memory."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from cwerm.algorithms.class_counts import draw_balanced
from cwerm.algorithms.noise.corrupt import long_tail
from cwerm.errors import UserError, blame
from cwerm.job.tree import Job
from cwerm.pipeline import plan
from cwerm.stages.ingest.assign import STREAMS, assign_rows
from cwerm.stages.ingest.rows import held, lots, tables
from cwerm.stages.ingest.rows.bits import Bits
from cwerm.stages.ingest.rows.tally import Tally
from cwerm.stages.ingest.settings import IngestSettings
from cwerm.store.artifacts import Artifact, ArtifactStore
from cwerm.store.writing import Writer
from stages.surveys import parts_of, survey_of_codes, writer_in
from stages.test_ingest_known import put

NAMES = ["ant", "bee", "cat", "dog"]
MakeJob = Callable[..., Job]


def tables_at_once(
    settings: IngestSettings, labels: np.ndarray, pixels: np.ndarray, given: set[str]
) -> np.ndarray:
    """The table of each training row, all of them in memory at once."""
    table_of = np.where(labels >= 0, "images", "").astype(object)
    if "test_images" not in given and settings.test_fraction:
        table_of[drawn_at_once(settings, "test", table_of, labels, pixels)] = "test_images"
    rows = np.flatnonzero(table_of == "images")
    kept = rows
    if settings.limit is not None and settings.limit < len(kept):
        with blame("data.limit", NAMES):
            kept = kept[draw_balanced(labels[kept], settings.limit, settings.split_seed)]
    if settings.imbalance is not None:
        with blame("data.imbalance", NAMES):
            kept = kept[long_tail(labels[kept], settings.imbalance, settings.split_seed)]
    table_of[np.setdiff1d(rows, kept)] = ""
    if "validation_images" not in given and settings.validation_fraction:
        drawn = drawn_at_once(settings, "validation", table_of, labels, pixels)
        table_of[drawn] = "validation_images"
    return table_of


def drawn_at_once(
    settings: IngestSettings, split: str, table_of: np.ndarray, labels: np.ndarray, pixels: Any
) -> np.ndarray:
    """Positions of a split drawn from the training rows."""
    stream, share = STREAMS[split], getattr(settings, f"{split}_fraction")
    odd = np.random.default_rng([settings.split_seed, stream]).integers(2**64, dtype=np.uint64) | 1
    of_rows = pixels[:, :8].copy().view(np.uint64)[:, 0] * odd
    train = np.flatnonzero(table_of == "images")
    order = train[np.lexsort((of_rows[train], labels[train]))]
    _, first, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    counts = np.maximum(1, np.rint(share * sizes).astype(np.int64))
    if (counts >= sizes).any():
        few = int(np.argmax(counts >= sizes))
        raise UserError(
            f"data.{split}_fraction: class '{NAMES[labels[order[first[few]]]]}' has {sizes[few]} readable "
            f"image(s), too few to draw a {split} split from; add images, or give data.{split}"
        )
    place = np.arange(len(order)) - np.repeat(first, sizes)
    chosen = place < np.repeat(counts, sizes)
    copies = chosen | np.isin(of_rows[order], of_rows[order[chosen]])
    is_left = np.add.reduceat(~copies, first) > 0
    return order[np.where(np.repeat(is_left, sizes), copies, chosen)]


def ids_at_once(table_of: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.flatnonzero(table_of == name) for name in sorted({*table_of.tolist()} - {""})}


def small_bounds(patch: pytest.MonkeyPatch, rows: int) -> None:
    patch.setattr(held, "HELD_ROWS", rows)
    patch.setattr(held, "BLOCK_ROWS", rows)
    patch.setattr(lots, "PIECE_ROWS", 1)
    patch.setattr(tables, "ROWS_A_PART", rows)


@examples(max_examples=100)
@given(
    sizes=st.lists(st.integers(2, 30), min_size=2, max_size=4),
    unreadable=st.integers(0, 5),
    different=st.integers(2, 120),
    fractions=st.tuples(*[st.sampled_from([0.0, 0.1, 0.3, 0.5])] * 2),
    limit=st.none() | st.integers(2, 60),
    imbalance=st.none() | st.sampled_from([1.5, 3.0]),
    others=st.sets(st.sampled_from(["test_images", "validation_images", "trusted_images"])),
    rows=st.integers(1, 40),
    bound=st.integers(5, 150),
    seed=st.integers(0, 2**31),
)
def test_every_row_goes_where_it_would_go_if_all_were_in_memory(
    sizes: list[int], unreadable: int, different: int, fractions: tuple[float, float],
    limit: int | None, imbalance: float | None, others: set[str], rows: int, bound: int, seed: int,
) -> None:  # fmt: skip
    draw = np.random.default_rng(seed)
    labels = np.repeat(np.arange(-1, len(sizes), dtype=np.int32), [unreadable, *sizes])
    labels = draw.permutation(labels)
    images = draw.integers(256, size=(different, 16), dtype=np.uint8)
    pixels = images[draw.integers(different, size=len(labels))]
    settings = IngestSettings(
        sources={}, image_column="", label_column="", rows_per_part=rows, split_seed=seed % 7,
        test_fraction=fractions[0], validation_fraction=fractions[1], limit=limit, imbalance=imbalance,
    )  # fmt: skip
    cuts = range(rows, len(labels), rows)
    chunks, seen = np.split(labels, cuts), np.split(pixels, cuts)
    names = ["images"] * len(chunks) + sorted(others)
    chunks += [np.arange(-1, 2, dtype=np.int32)] * len(others)
    seen += [images[:1].repeat(3, axis=0)] * len(others)
    expected, wrong = None, ""
    try:
        expected = tables_at_once(settings, labels, pixels, others)
    except UserError as error:
        wrong = str(error)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        small_bounds(patch, bound)
        writer = writer_in(folder)
        survey, code_of = survey_of_codes(names, chunks, seen, writer)
        if expected is None:
            with pytest.raises(UserError, match=f"^{re.escape(wrong)}$"):
                assign_rows(settings, NAMES, survey, code_of)
            return
        assignment = assign_rows(settings, NAMES[: len(sizes)], survey, code_of)
        parts = parts_of(assignment, len(sizes), writer)
        survey.rows.forget()
        assert not [path for path in Path(folder).rglob("*") if path.is_file()]
    rest = [np.array(["", name, name], object) for name in sorted(others)]
    table_of = np.concatenate([expected, *rest])
    found: dict[str, list[int]] = {}
    starts = np.cumsum([0, *map(len, chunks)])
    for part in parts:
        for name, ids in part.ids.items():
            mine, before = np.flatnonzero(ids >= 0), len(found.setdefault(name, []))
            assert ids[mine].tolist() == [*range(before, before + len(mine))]
            found[name] += (starts[part.index] + mine).tolist()
        np.testing.assert_array_equal(part.labels, chunks[part.index])
        np.testing.assert_array_equal(part.digests, seen[part.index][::-1])
    at_once = {name: places.tolist() for name, places in ids_at_once(table_of).items()}
    assert found == at_once


def ingest(job: Job) -> tuple[ArtifactStore, Artifact]:
    steps = plan(job)
    return steps.store, steps.execute("ingest").artifact


def in_use(job: Job) -> pa.Table:
    steps = plan(job)
    return steps.store.read(steps.execute("label").artifact, "labels")


@pytest.mark.usefixtures("ray_session")
def test_a_run_whose_rows_lie_in_the_storage(
    tmp_path: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a second one, which knows the images of the first."""
    for number in range(60):
        put(tmp_path / "photos" / ("cat", "dog", "owl")[number % 3] / f"{number}.png", number)
    for number in range(8):
        put(tmp_path / "trusted" / ("cat", "dog")[number % 2] / f"{number}.png", number)
    shutil.copy(tmp_path / "photos/cat/0.png", tmp_path / "photos/dog/copy.png")
    put(tmp_path / "photos/owl/deep.png", 7, deep=True)
    (tmp_path / "photos/dog/broken.png").write_bytes(b"no image")
    job = make_job(
        **{f"data__{name}": str(tmp_path / folder) for name, folder in
           (("source", "photos"), ("trusted", "trusted"))},
        data__rows_per_part=5, data__max_rejects=2, data__test_fraction=0.2,
        data__validation_fraction=0.2, data__limit=40, data__imbalance=2.0,
    )  # fmt: skip
    expected = []
    # few rows take no further request
    monkeypatch.delattr(Writer, "write_unpublished")
    for again in (False, True):
        if again:
            put(tmp_path / "photos/cat/new.png", 200)
        expected.append((*ingest(job), in_use(job)))
    (tmp_path / "photos/cat/new.png").unlink()
    monkeypatch.undo()
    small_bounds(monkeypatch, 8)
    job = job.model_copy(update={"storage": str(tmp_path / "other")})
    for again, (store, made, labels) in zip((False, True), expected, strict=True):
        if again:
            put(tmp_path / "photos/cat/new.png", 200)
        other, found = ingest(job)
        assert found.info == made.info
        assert [*found.tables] == [*made.tables]
        for table in made.tables:
            assert other.read(found, table).equals(store.read(made, table)), table
        for table in ("given_labels", "digests", "contents"):
            assert len(found.tables[table]) > 1 == len(made.tables[table])
            assert max(part.rows for part in found.tables[table]) <= 8 + 16
        assert in_use(job).equals(labels)
        assert not [*Path(other.storage.root, found.folder).rglob("unpublished/*")]


@given(st.lists(st.booleans(), min_size=1, max_size=70), st.data())
def test_bits(marked: list[bool], data: st.DataObject) -> None:
    expected = np.array(marked)
    bits = Bits(len(marked))
    bits.mark(np.flatnonzero(expected))
    start = data.draw(st.integers(0, len(marked)))
    stop = data.draw(st.integers(start, len(marked)))
    assert bits.between(start, stop).tolist() == marked[start:stop]
    assert bits.at(np.arange(len(marked))).tolist() == marked
    other = Bits(len(marked))
    other.mark(np.arange(start, stop))
    bits.add(other)
    expected[start:stop] = True
    assert bits.between(0, len(marked)).tolist() == expected.tolist()
    bits.unmark(np.arange(start, stop))
    expected[start:stop] = False
    assert bits.between(0, len(marked)).tolist() == expected.tolist()


@given(st.lists(st.lists(st.integers(0, 9)), min_size=1))
def test_tally(pieces: list[list[int]]) -> None:
    tally = Tally()
    for piece in pieces:
        tally.add(np.array(piece, np.int32))
    values = np.array([value for piece in pieces for value in piece])
    assert tally.total == len(values)
    assert tally.largest == max(values, default=-1)
    if len(values):
        assert tally.median() == np.median(values)
        assert tally.up_to(4).total == (values <= 4).sum()
