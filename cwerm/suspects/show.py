"""What a person is shown of the labels that look wrong, once all are weighed: files, and a few lines."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import numpy as np

from cwerm.stages import common
from cwerm.stages.plan import Plan
from cwerm.suspects.contact_sheet import contact_sheet
from cwerm.suspects.csv_files import as_csv
from cwerm.suspects.duplicates import TEST, Duplicate, find_duplicates
from cwerm.suspects.page import suspects_page
from cwerm.suspects.suspects import Suspect, find_held_out, find_suspects
from cwerm.suspects.unusual import Unusual, find_unusual
from cwerm.terminal import console

LIST, PAGE, SHEET, DUPLICATES, UNUSUAL = (
    "suspects.csv",
    "suspects.html",
    "suspects.png",
    "duplicates.csv",
    "unusual.csv",
)
HELD_OUT = {"test": "test_suspects.csv", "trusted": "trusted_suspects.csv"}
FILES = (LIST, PAGE, SHEET, DUPLICATES, UNUSUAL, *HELD_OUT.values())
ON_SHEET = 64


@dataclass(frozen=True)
class Shown:
    """What was found, the most probable mistake first."""

    suspects: list[Suspect]
    duplicates: list[Duplicate]
    files: dict[str, bytes]
    """By name; no sheet where there are no suspects, no list of test or trusted images that were not
    judged."""
    held_out: dict[str, list[Suspect]] = field(default_factory=dict)
    """Of the ``test`` and ``trusted`` images, where they were judged."""


def show(steps: Plan) -> Shown:
    """Make the files of a plan whose weights are made by what judges labels; say what is in them."""
    suspects, duplicates = find_suspects(steps), find_duplicates(steps)
    ids = np.array([suspect.id for suspect in suspects], np.int64)
    extra = common.extra_of(steps.store, steps.made["ingest"], ids)
    held_out = {
        kind: found for kind in HELD_OUT if (found := find_held_out(steps, kind)) is not None
    }
    unusual = find_unusual(steps)
    page = suspects_page(steps, suspects, duplicates, unusual, held_out)
    files = {
        LIST: as_csv(Suspect, suspects, extra).encode(),
        PAGE: page.encode(),
        DUPLICATES: as_csv(Duplicate, duplicates).encode(),
        UNUSUAL: as_csv(Unusual, unusual).encode(),
    }
    if suspects:
        files[SHEET] = _sheet(steps, suspects[:ON_SHEET])
    files |= {HELD_OUT[kind]: as_csv(Suspect, found).encode() for kind, found in held_out.items()}
    shown = Shown(suspects, duplicates, files, held_out)
    _tell(steps, shown)
    return shown


def _tell(steps: Plan, shown: Shown) -> None:
    labels = steps.execute("label").artifact
    used = int((~common.removed_of(steps.store, labels)).sum())
    count = len(shown.suspects)
    console.stage_line("suspects", f"{count:,} of {used:,} ({count / used:.1%})")
    clean = common.clean_labels_of(steps.store, labels)
    if clean is not None:
        wrong = clean != common.labels_of(steps.store, labels)
        hits = int(wrong[[suspect.id for suspect in shown.suspects]].sum()) if count else 0
        console.note(
            f"in truth {wrong.mean():.0%} were made wrong: precision {_share(hits, count)}, recall "
            f"{_share(hits, int(wrong.sum()))}"
        )
    for kind, found in shown.held_out.items():
        total = steps.made["ingest"].rows(f"{kind}_images")
        console.note(
            f"{kind} images: {len(found):,} of {total:,} labels look wrong ({HELD_OUT[kind]})"
        )
    if shown.duplicates:
        groups = {d.group for d in shown.duplicates}
        differ = {d.group for d in shown.duplicates if d.labels_differ}
        tests = {d.group for d in shown.duplicates if d.split == TEST}
        console.note(
            f"{len(shown.duplicates):,} images are nearly the same as another, in {len(groups):,} groups; "
            f"in {len(differ):,} of them labels differ"
            + (f", {len(tests):,} are in training and test" if tests else "")
        )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2f}".lstrip("0") if 0 < part < whole else f"{int(part > 0)}"


def _sheet(steps: Plan, suspects: list[Suspect]) -> bytes:
    ids = np.array([suspect.id for suspect in suspects])
    pictures = common.take_rows(steps.store, steps.made["ingest"], "images", "image", ids)
    captions = [(s.label, f"→ {s.suggested}?") for s in suspects]
    buffer = io.BytesIO()
    contact_sheet(pictures, captions, SHEET).save(buffer, format="PNG")
    return buffer.getvalue()
