"""A source that has grown: what an earlier run has read is not read again, and the result is the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cwerm.data.folders.image_folder import ImageFolder
from cwerm.errors import UserError
from cwerm.job.tree import Job
from cwerm.pipeline import plan
from cwerm.stages.ingest.known import CONTENTS
from cwerm.store.artifacts import Artifact, ArtifactStore
from cwerm.terminal import console

pytestmark = pytest.mark.usefixtures("ray_session")
MakeJob = Callable[..., Job]


def put(path: Path, seed: int, *, deep: bool = False) -> Path:
    draw = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (8 + seed % 3, 9) if deep else (8 + seed % 3, 9, 3)
    pixels = draw.integers(0, 1000 if deep else 256, shape)
    Image.fromarray(pixels.astype(np.uint16 if deep else np.uint8)).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Forty images of two classes, one of which is broken."""
    for number in range(39):
        put(tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number}.png", number)
    (tmp_path / "photos/dog/broken.png").write_bytes(b"no image")
    return tmp_path / "photos"


@contextmanager
def out_of_reach(
    photos: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[str]]:
    """Take files away once their content is known, until the source is compared at the end."""
    shelf, compare = photos.parent / "shelf", ImageFolder.check_unchanged
    shelf.mkdir()
    told: list[str] = []
    monkeypatch.setattr(console, "note", told.append)

    def hide() -> None:
        for number, path in enumerate(paths):
            path.rename(shelf / str(number))

    def bring_back(source: ImageFolder) -> None:
        for number, path in enumerate(paths):
            (shelf / str(number)).rename(path)
        compare(source)

    monkeypatch.setattr(ImageFolder, "check_unchanged", bring_back)
    hide()
    yield told


def ingest(job: Job) -> tuple[ArtifactStore, Artifact]:
    steps = plan(job)
    return steps.store, steps.execute("ingest").artifact


def images(made: Artifact) -> int:
    return made.rows("images") + made.rows("test_images")


def test_only_what_is_new_is_read(
    photos: Path, tmp_path: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown = {"data__source": str(photos), "data__rows_per_part": 7, "data__max_rejects": 2}
    grown["data__test_fraction"] = 0.2
    ingest(make_job(storage=str(tmp_path / "store"), **grown))
    known = [path for path in photos.rglob("*.png") if path.name != "broken.png"]
    left, moved, changed = known[3], known[7], known[11]
    left.unlink()
    moved = moved.rename(photos / ("cat" if moved.parent.name == "dog" else "dog") / moved.name)
    put(changed, 500)
    new = [put(photos / "dog" / f"new {number}.png", 100 + number) for number in range(5)]

    steps = plan(make_job(storage=str(tmp_path / "store"), **grown))
    assert steps["ingest"].key
    old = [path for path in photos.rglob("*.png") if path not in {*new, changed}]
    old.remove(photos / "dog/broken.png")
    with out_of_reach(photos, old, monkeypatch) as told:
        made = steps.execute("ingest").artifact
    assert f"{len(old)} of {len(old) + 7} images were read by an earlier run" in "\n".join(told)
    paths = set()
    for table in ("images", "test_images"):
        paths |= {*steps.store.read(made, table).column("path").to_pylist()}
    assert paths == {str(path.relative_to(photos)) for path in [*old, *new, changed]}

    monkeypatch.undo()
    other, from_nothing = ingest(make_job(storage=str(tmp_path / "other"), **grown))
    assert made.info == from_nothing.info
    assert [*made.tables] == [*from_nothing.tables]
    for table, parts in made.tables.items():
        assert [part.rows for part in parts] == [part.rows for part in from_nothing.tables[table]]
        if parts:
            assert steps.store.read(made, table).equals(other.read(from_nothing, table)), table


def test_images_of_more_bits_are_read_again(
    photos: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the store they may have another scale."""
    deep = put(photos / "cat/deep.png", 7, deep=True)
    ingest(make_job(data__source=str(photos), data__max_rejects=2))
    put(photos / "cat/new.png", 100)
    steps = plan(make_job(data__source=str(photos), data__max_rejects=2))
    assert steps["ingest"].key
    with (
        out_of_reach(photos, [deep], monkeypatch),
        pytest.raises(UserError, match=r"deep\.png' was there"),
    ):
        steps.execute("ingest")


def test_what_is_gone_or_damaged_is_read_from_the_source(photos: Path, make_job: MakeJob) -> None:
    store, first = ingest(make_job(data__source=str(photos), data__max_rejects=2))
    folder = Path(store.storage.root, first.folder)
    (file,) = first.tables[CONTENTS]
    (folder / file.path).write_bytes(bytes(file.bytes))  # of the same size
    put(photos / "cat/new.png", 100)
    _, second = ingest(make_job(data__source=str(photos), data__max_rejects=2))
    assert images(second) == 40
    for artifact in (first, second):
        shutil.rmtree(Path(store.storage.root, artifact.folder))
    (hint,) = Path(store.storage.root, "known-images").iterdir()
    hint.write_text('{"made": [{"ingest": "../../../etc"}, {"ingest": "0123abcd"}]}')
    put(photos / "cat/newer.png", 101)
    _, third = ingest(make_job(data__source=str(photos), data__max_rejects=2))
    assert images(third) == 41
