"""What an earlier attempt left under the same key is taken over only where it holds the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from cwerm.errors import UserError
from cwerm.job.tree import Job
from cwerm.pipeline import plan
from cwerm.stages.ingest.assign import assign_rows
from cwerm.stages.ingest.classes import encode
from cwerm.stages.ingest.scan import Scanner
from cwerm.stages.ingest.sources import plan_chunks
from cwerm.stages.ingest.write import ChunkWriter
from cwerm.stages.stage import Context
from cwerm.store.artifacts import Artifact, ArtifactStore
from cwerm.store.writing import Writer
from stages.surveys import survey_of, work_of
from stages.test_ingest import write_folder

MakeJob = Callable[..., Job]


def ingest_under_one_key(job: Job) -> tuple[ArtifactStore, Artifact]:
    """As where the same files are read with another outcome: by another version of Pillow, say."""
    steps = plan(job)
    settings = steps["ingest"].settings
    writer = Writer(steps.store, "ingest", "k", {})
    context = Context.of(job, steps.outside, steps.store, writer)
    return steps.store, steps["ingest"].stage.run(settings, {}, context)


@pytest.mark.usefixtures("ray_session")
def test_two_attempts_are_not_mixed(tmp_path: Path, make_job: MakeJob) -> None:
    data = tmp_path / "data"
    write_folder(data, {"a": 30, "b": 30})
    job = make_job(data__source=str(data), data__rows_per_part=10, data__max_rejects=1)
    sound = (data / "a/005.png").read_bytes()
    (data / "a/005.png").write_bytes(b"")
    store, first = ingest_under_one_key(job)
    assert first.rows("images") + first.rows("test_images") == 59

    (data / "a/005.png").write_bytes(sound)  # killed before the commit, in the middle of its writes
    folder = Path(job.storage, first.folder)
    (folder / "manifest.json").unlink()
    (folder / "parts/images-00004.json").unlink()
    _, second = ingest_under_one_key(job)
    clean = make_job(storage=str(tmp_path / "other"))
    other, expected = ingest_under_one_key(clean)
    for table in expected.tables:
        assert store.read(second, table).equals(other.read(expected, table)), table
    images = store.read(second, "images")
    assert images.column("id").to_pylist() == [*range(54)]
    assert store.read(second, "given_labels").column("id").equals(images.column("id"))

    (folder / "manifest.json").unlink()  # a third one finds nothing to do
    _, third = ingest_under_one_key(job)
    for table, parts in second.tables.items():
        assert [part.sha256 for part in third.tables[table]] == [part.sha256 for part in parts]
        if table.endswith("images"):  # the others take no time, and are written anew
            assert third.tables[table] == parts


def scanned(job: Job) -> tuple[Any, Any]:
    """The writer of the second pass, and its work, after the first one."""
    steps = plan(job)
    sources, settings = steps.outside.sources, steps["ingest"].settings
    chunks = plan_chunks(steps.outside, settings.rows_per_part)
    scans = [Scanner(sources)(chunk) for chunk in chunks]
    writer = Writer(steps.store, "ingest", "k", {})
    survey = survey_of(chunks, scans, writer)
    names, code_of = encode(sources, survey.seen)
    assignment = assign_rows(settings, names, survey, code_of)
    write = ChunkWriter(sources, steps.store, writer, {}, None)
    return write, work_of(assignment, len(names))


@pytest.mark.parametrize("role", ["source", "test", "trusted"])
def test_a_file_replaced_between_the_passes(tmp_path: Path, make_job: MakeJob, role: str) -> None:
    for name in ("source", "test", "trusted"):
        write_folder(tmp_path / name, {"a": 4, "b": 4})
        make_job(**{f"data__{name}": str(tmp_path / name)})
    write, work = scanned(make_job())
    Image.new("RGB", (12, 10)).save(tmp_path / role / "b/002.png")
    with pytest.raises(UserError, match=rf"^data\.{role}: 'b/002.png' changed while it was read"):
        [*map(write, work)]


def test_rows_of_parquet_replaced_between_the_passes(
    tmp_path: Path, make_job: MakeJob, small_data: Path
) -> None:
    for split in ("train", "test"):
        table = pq.read_table(small_data / f"{split}.parquet")
        pq.write_table(table, tmp_path / f"{split}.parquet")
    write, work = scanned(make_job(data__source=str(tmp_path)))
    write(work[0])
    labels = pq.read_table(tmp_path / "test.parquet")
    pq.write_table(labels.take([1, 0, *range(2, len(labels))]), tmp_path / "test.parquet")
    with pytest.raises(UserError, match=r"^data\.source: 'test.* changed while"):
        [*map(write, work)]


def test_what_a_part_must_hold(tmp_path: Path, make_job: MakeJob) -> None:
    """Its digest follows all that makes it: ids, rows of the source and their content."""
    write_folder(tmp_path / "data", {"a": 12, "b": 12})
    settings = {"data__source": str(tmp_path / "data")}

    def digest(**changes: Any) -> str:
        _, work = scanned(make_job(**settings, **changes))
        (rows,) = work[0].parts
        return str(rows.contents("images"))

    first = digest()
    assert first == digest(data__rows_per_part=1000, data__max_rejects=3, seed=5)
    found = {first, digest(data__split_seed=1), digest(data__limit=8)}
    Image.new("RGB", (12, 10)).save(tmp_path / "data/a/003.png")
    assert len({*found, digest(data__limit=None, data__split_seed=0), digest()}) == 4
