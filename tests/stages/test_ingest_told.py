"""What ingest tells of the sources, and images of fewer bits than their files have."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cwerm.data import decode
from cwerm.data.source import Sample
from cwerm.errors import UserError
from cwerm.job.tree import Job, parse_job
from cwerm.stages.ingest.images import images_table
from cwerm.stages.ingest.rows.tally import Tally
from cwerm.stages.ingest.settings import IngestSettings
from cwerm.stages.ingest.sources import plan_chunks
from cwerm.stages.ingest.told import full_scale, understood
from cwerm.stages.outside import Outside


def fill(root: Path, layout: dict[str, int]) -> None:
    for folder, count in layout.items():
        (root / folder).mkdir(parents=True)
        for index in range(count):
            (root / folder / f"{index}.png").write_bytes(b"x")


def told(job: Job, counts: list[int], largest: list[int] | None = None) -> list[str]:
    outside = Outside(job)
    settings, sources = IngestSettings.of(job, outside), outside.sources
    names = sources["source"].class_names()
    assert names is not None
    chunks = plan_chunks(outside, settings.rows_per_part)
    return understood(settings, sources, chunks, names, np.array(counts), tally(largest or []))


def tally(values: list[int]) -> Tally:
    found = Tally()
    for value in values:
        found.add(np.array([value]))
    return found


def job_of(**data: object) -> Job:
    return parse_job({"data": data})


def test_classes_and_splits_are_told(tmp_path: Path) -> None:
    fill(tmp_path / "a", {"Training/cat": 3, "Training/dog": 2, "Testing/dog": 1, "valid/cat": 1})
    (tmp_path / "a/Training/cat/notes.txt").write_bytes(b"x")
    fill(tmp_path / "b", {"cat": 1, "dog": 1, "@eaDir": 1})
    assert told(job_of(source=f"{tmp_path}/a"), [3, 2]) == [
        "cat 3, dog 2",
        "train: Training/; validation: valid/; test: Testing/",
        "left out: 1 x .txt",
    ]
    assert told(job_of(source=f"{tmp_path}/b", test_fraction=0.2), [1, 1])[1:] == [
        "train: all class folders; test: drawn, 20 % of each class",
        "left out: 1 x folder @eaDir",
    ]
    both = job_of(source=f"{tmp_path}/a", test=f"{tmp_path}/b", trusted=f"{tmp_path}/b")
    assert told(both, [3, 2])[1:] == [
        "train: Training/; validation: valid/; test: all class folders of data.test; trusted: all class "
        "folders of data.trusted; not used: Testing/, 1 images",
        "left out: 1 x .txt",
        "data.test: left out: 1 x folder @eaDir",
        "data.trusted: left out: 1 x folder @eaDir",
    ]


def test_a_source_without_the_split_that_is_asked_for(tmp_path: Path) -> None:
    fill(tmp_path / "a", {"valid/cat": 1, "valid/dog": 2})
    fill(tmp_path / "b", {"cat": 1, "dog": 1})
    with pytest.raises(
        UserError, match=r"^data\.source: '.*' has no training images, only valid/; re"
    ):
        told(job_of(source=f"{tmp_path}/a"), [1, 2])
    job = job_of(source=f"{tmp_path}/b", test=f"{tmp_path}/a", trusted=f"{tmp_path}/a")
    assert told(job, [1, 1])[1] == (
        "train: all class folders; test: valid/ of data.test; trusted: valid/ of data.trusted"
    )


def test_many_classes_are_told_shortly(tmp_path: Path) -> None:
    fill(tmp_path, {f"c{index}": 1 for index in range(12)})
    job = job_of(source=str(tmp_path))
    assert told(job, [5] * 12)[0] == "12 classes of 5 images each (c0, c1, c2, ..., c11)"
    assert told(job, [2000, 3, *[5] * 10])[0] == "12 classes of 3 (c1) to 2,000 (c0) images"


@pytest.mark.parametrize(
    ("largest", "scale", "line"),
    [
        ([], 65535, None),
        ([200, 90], 255, "2 image(s) of 16 bits hold values up to 200: read as 8 bits, 0..255"),
        ([700], 1023, "1 image(s) of 16 bits hold values up to 700: read as 10 bits, 0..1,023"),
        (
            [4094, 9],
            4095,
            "2 image(s) of 16 bits hold values up to 4,094: read as 12 bits, 0..4,095",
        ),
        (
            [16383],
            16383,
            "1 image(s) of 16 bits hold values up to 16,383: read as 14 bits, 0..16,383",
        ),
        ([40000, 65535, 9], 65535, None),
        (
            [40000, 4000, 4090],
            65535,
            "2 of 3 images of 16 bits hold values up to 4,090 alone, others up to 40,000: all are read "
            "as 16 bits, and those are dark; scale them where they are of fewer bits",
        ),
    ],
)
def test_bits_are_those_in_use(
    tmp_path: Path, largest: list[int], scale: int, line: str | None
) -> None:
    assert full_scale(tally(largest)) == scale
    fill(tmp_path, {"a": 1, "b": 1})
    assert told(job_of(source=str(tmp_path)), [1, 1], largest)[2:] == ([line] if line else [])


def test_images_of_12_bits_are_stored_in_8() -> None:
    values = np.random.default_rng(0).integers(0, 4096, (3, 5, 6)).astype(np.uint16)
    ordinary = np.full((5, 6, 3), 77, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values[0]).save(buffer, format="PNG")
    images = [buffer.getvalue(), values[1], np.repeat(values[2][:, :, None], 3, axis=2), ordinary]
    samples = [Sample(image, 0, str(index)) for index, image in enumerate(images)]
    ids = np.arange(4)
    stored = images_table(samples, ids, 4095).column("image").to_pylist()
    for image, of_12_bits in zip(stored, values, strict=False):
        found = np.asarray(decode(image))
        assert np.abs(found - of_12_bits[:, :, None] * 255.0 / 4095).max() <= 0.51
        assert len(np.unique(found)) > 20, "as they are in 16 bits, 17 levels are left"
    assert np.array_equal(decode(stored[3]), ordinary)
    whole = images_table(samples[:1], ids[:1], 65535).column("image")
    assert whole.to_pylist() == images[:1], "bytes stay as they are"
