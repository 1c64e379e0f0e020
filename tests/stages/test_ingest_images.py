"""Images as people have them: odd ones pass, broken ones are listed."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cwerm.data.images import decode
from cwerm.errors import UserError
from cwerm.job.tree import Job
from cwerm.pipeline import plan
from stages.test_ingest import labels_in, run, write_folder

pytestmark = pytest.mark.usefixtures("ray_session")
MakeJob = Callable[..., Job]


def odd_images(folder: Path) -> dict[str, Any]:
    """One good image of each unusual kind by file name, and two bad ones."""
    folder.mkdir(parents=True)
    grey = Image.fromarray(np.arange(120, dtype=np.uint8).reshape(10, 12))
    rgb = Image.merge("RGB", [grey] * 3)
    sixteen = Image.fromarray((np.arange(120, dtype=np.uint16) * 500).reshape(10, 12))
    good = {
        "cmyk.jpg": rgb.convert("CMYK"),
        "grey.png": grey,
        "palette.gif": rgb.convert("P"),
        "rgba.png": rgb.convert("RGBA"),
        "sixteen.png": sixteen,
        "wide.bmp": rgb.resize((40, 9)),
    }
    for name, image in good.items():
        image.save(folder / name)
    buffer = io.BytesIO()
    rgb.resize((64, 64)).save(buffer, format="JPEG")
    (folder / "truncated.jpg").write_bytes(buffer.getvalue()[:-200])
    (folder / "empty.png").write_bytes(b"")
    return good


def test_unusual_images_pass_and_broken_ones_are_listed(tmp_path: Path, make_job: MakeJob) -> None:
    data = tmp_path / "data"
    good = odd_images(data / "train" / "odd")
    write_folder(data, {"plain": 8}, "train")
    write_folder(data, {"plain": 2, "odd": 2}, "test")
    store, made = run(make_job(data__source=str(data), data__max_rejects=2))
    rejects = store.read(made, "rejects").to_pylist()
    reasons = {Path(row["path"]).name: row["reason"] for row in rejects}
    assert reasons == {"empty.png": "empty file", "truncated.jpg": "truncated image"}
    rows = store.read(made, "images").to_pylist()
    labels = labels_in(store, made)
    names = [Path(row["path"]).name for row in rows if labels[row["id"]] == 0]
    assert sorted(names) == sorted(good)
    assert [row["id"] for row in rows] == list(range(len(good) + 8))

    with pytest.raises(UserError, match=r"data\.max_rejects: 2 of 20 images.*0.05 allowed"):
        run(make_job(data__max_rejects=0.05))
    with pytest.raises(UserError, match=r"data\.max_rejects: 2 of 20"):
        run(make_job(data__max_rejects=1))


@pytest.mark.slow
def test_all_stages_take_the_unusual_images(tmp_path: Path, make_job: MakeJob) -> None:
    data = tmp_path / "data"
    odd_images(data / "train" / "odd")
    write_folder(data, {"plain": 8}, "train")
    write_folder(data, {"plain": 2, "odd": 2}, "test")
    job = make_job(data__source=str(data), data__max_rejects=2, features__weights="random")
    store, made = run(job)
    features = store.read(plan(job).execute("extract").artifact, "features")
    assert features.column("id").to_pylist() == list(range(made.rows("images")))


def test_a_folder_as_people_have_it(tmp_path: Path, make_job: MakeJob) -> None:
    data = tmp_path / "data"
    write_folder(data, {"bone": 9, "lung": 9}, "Training")
    write_folder(data, {"bone": 2, "lung": 2}, "Testing")
    deep = np.random.default_rng(0).integers(0, 4096, (10, 12)).astype(np.uint16)
    Image.fromarray(deep).save(os.fsencode(data / "Training/lung") + b"/caf\xe9.png")
    (data / "Training/lung/gone.png").symlink_to("../.annex/none")
    (data / "Training/lung/Thumbs.db").write_bytes(b"x")
    store, made = run(make_job(data__source=str(data), data__max_rejects=1))
    assert made.info["understood"] == [
        "bone 9, lung 10",
        "train: Training/; test: Testing/",
        "left out: 1 x Thumbs.db",
        f"1 image(s) of 16 bits hold values up to {deep.max():,}: read as 12 bits, 0..4,095",
    ]
    (reject,) = store.read(made, "rejects").to_pylist()
    assert reject == {
        "path": "Training/lung/gone.png",
        "reason": "link to nothing (../.annex/none); fetch its content",
    }
    rows = {row["path"]: row for row in store.read(made, "images").to_pylist()}
    found = np.asarray(decode(rows[r"Training/lung/caf\xe9.png"]["image"]))
    assert np.abs(found - deep[:, :, None] * 255.0 / 4095).max() <= 0.51
