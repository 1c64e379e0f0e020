"""`cwerm predict`: the class of each new image, streamed to a file in the order of the paths."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cwerm.data.files.listing import FoundFile, Listing, list_files
from cwerm.data.files.reading import patiently
from cwerm.data.names import IMAGES, is_side_file, kind_of_name, suffix
from cwerm.data.source import pieces
from cwerm.errors import UserError, renaming, shown
from cwerm.job.file import apply_override, set_key
from cwerm.job.tree import SECTIONS, Job, parse_job
from cwerm.predicting.classifier import Classifier, Trained
from cwerm.predicting.table import FewRows, check_target, written
from cwerm.runs.summary import address, load_summary
from cwerm.store.storage import open_storage
from cwerm.terminal import console

PATH = "PATH"  # as the command line calls what is predicted
PART = 512  # images that a worker reads and predicts before it answers
HERE = 1000  # images up to which no other process is started for them


@dataclass
class Predicted:
    """What became of the images."""

    num_images: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """Images by the class they were given."""
    num_abstained: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """Path and reason."""

    def record(self) -> dict[str, Any]:
        """Plain values of it."""
        return {**vars(self), "counts": dict(self.counts)}


def predict(
    run: str,
    source: str,
    to: Path,
    *,
    threshold: float = 0.0,
    overrides: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Predicted:
    """Write the class of each image at ``source`` to ``to``, .csv or .parquet, all of it or nothing.

    Where the most probable class has less than ``threshold``, none is named. An image that can't be read
    has a row with the reason. ``overrides`` and ``options`` are keys of a job: resources and s3, and
    features.weights where those of the run's backbone have moved.

    Raises:
        UserError: the run has no model, there are no images or none that can be read, or the file can't be
            written.
    """
    check_target(to)
    job = _job(run, source, overrides, options or {})
    moved = job.features.weights if "weights" in job.features.model_fields_set else None
    trained = Trained.of_run(run, moved)
    with renaming("data.source", PATH):
        listing = list_files(source, job.s3)
    files = _images(listing)
    names, found = trained.about.class_names, Predicted()
    with written(to, names) as write:
        for rows in _in_order(job, trained, listing, files):
            chosen = write(rows, threshold)
            found.num_images += len(rows.paths)
            found.counts.update(name for name in chosen if name is not None)
            found.unreadable += [(p, e) for p, e in zip(rows.paths, rows.errors, strict=True) if e]
        if len(found.unreadable) == found.num_images:
            path, reason = found.unreadable[0]
            more = f", nor {found.num_images - 1:,} more" if found.num_images > 1 else ""
            raise UserError(f"PATH: '{path}' can't be read ({reason}){more}; nothing is written")
    named = sum(found.counts.values())
    found.num_abstained = found.num_images - named - len(found.unreadable)
    _tell(found, to, threshold)
    return found


def _job(run: str, source: str, overrides: Sequence[str], options: Mapping[str, Any]) -> Job:
    """How the work is done."""
    root, _ = address(run, load_summary(run), "model")
    tree: dict[str, Any] = {"name": "predict", "data": {"source": source}, "storage": root}
    for override in overrides:
        if not override.startswith(("resources.", "s3.", "features.weights=")):
            raise UserError(
                f"{override}: `predict` takes keys of resources and s3, and features.weights, alone"
            )
        apply_override(tree, override, SECTIONS)
    for key, value in options.items():
        set_key(tree, key, value, SECTIONS)
    return parse_job(tree)


def _images(listing: Listing) -> list[FoundFile]:
    """The files that are images by their names, or all where none is, but for side files."""
    possible = [file for file in listing.files if not is_side_file(file.path)]
    found = [file for file in possible if suffix(file.path) in IMAGES] or possible
    if not found:
        raise UserError(f"PATH: no images below '{shown(listing.uri)}'; give an image or a folder")
    kept = {file.path for file in found}
    others = Counter(kind_of_name(f.path) for f in listing.files if f.path not in kept)
    if others:
        counts = ", ".join(f"{count:,} x {kind}" for kind, count in sorted(others.items()))
        console.note(f"left out: {counts}")
    return found


def _in_order(
    job: Job, trained: Trained, listing: Listing, files: list[FoundFile]
) -> Iterator[FewRows]:
    """What is said of the files, some at a time."""
    parts = [files[piece] for piece in pieces([file.size for file in files], PART)]
    make = functools.partial(_Predict, trained, listing.uri, job)
    if len(files) <= HERE and job.resources.address is None:
        with console.progress(len(parts), "predict") as advance:
            function = make()
            for part in parts:
                yield function(part)
                advance(1)
        return
    yield from _on_workers(job, make, parts)


def _on_workers(job: Job, make: Any, parts: list[list[FoundFile]]) -> Iterator[FewRows]:
    from cwerm.runtime import capacity
    from cwerm.runtime.board import watched_nodes
    from cwerm.runtime.capacity import sized_once
    from cwerm.runtime.parallel import worker_pool
    from cwerm.runtime.session import session

    with watched_nodes(), sized_once(job.name):
        session.ensure_ray(job)
        size = capacity.size(job)
        pool = worker_pool(job, "predict", len(parts), gpu=True)
        waiting: dict[int, FewRows] = {}
        following = 0
        make = functools.partial(make, size.device)
        for index, rows in pool.map(make, parts, "predict"):
            waiting[index] = rows
            while following in waiting:
                yield waiting.pop(following)
                following += 1


class _Predict:
    """What a worker does with some files."""

    def __init__(self, trained: Trained, uri: str, job: Job, device: str = "cpu") -> None:
        from cwerm.runtime.session import cluster

        cluster.check_device(device)
        self.classifier = Classifier(trained, job.s3, device)
        self.uri, self.s3 = uri, job.s3

    def __call__(self, files: list[FoundFile]) -> FewRows:
        storage = open_storage(self.uri, self.s3)
        squares, errors = [], []
        for file in files:
            where = f"{self.uri}/{shown(file.path)}"
            image = b""
            if not file.problem:
                with renaming("data.source", PATH):
                    image = patiently(functools.partial(storage.read_bytes, file.path), where)
            try:
                if file.problem:
                    raise ValueError(file.problem)
                squares.append(self.classifier.square(image))
                errors.append("")
            except ValueError as error:
                errors.append(str(error))
            except OSError as error:
                raise UserError(
                    f"{PATH}: '{where}' can't be decoded here ({error.strerror}); fix that, and run again"
                ) from error
        some = np.full((len(files), len(self.classifier.about.class_names)), np.nan, np.float32)
        some[[not error for error in errors]] = self.classifier.probabilities(squares)
        return FewRows([shown(file.path) for file in files], some, errors)


def _tell(found: Predicted, to: Path, threshold: float) -> None:
    for path, reason in found.unreadable[:1]:
        more = len(found.unreadable)
        console.note(f"{more:,} image(s) can't be read, such as '{path}' ({reason})")
    if found.num_abstained:
        console.note(
            f"{found.num_abstained:,} image(s) get no class: none has a probability of {threshold:g}"
        )
    shown_counts = ", ".join(f"{name} {count:,}" for name, count in found.counts.most_common(8))
    rest = len(found.counts) - 8
    console.note(shown_counts + (f" and {rest:,} more classes" if rest > 0 else ""))
    console.out.print(f"{found.num_images:,} predictions in {to}", soft_wrap=True, markup=False)
