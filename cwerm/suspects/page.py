"""The page of suspects: one file that works offline, with a picture of each, on which a person decides."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from itertools import groupby
from typing import Any

from cwerm.data.corrections import COLUMNS, DECISIONS, Correction
from cwerm.stages.plan import Plan
from cwerm.suspects.duplicates import TEST, TRAINING, Duplicate
from cwerm.suspects.noise_matrix import noise_matrix
from cwerm.suspects.suspects import Suspect
from cwerm.suspects.templates import page_template
from cwerm.suspects.thumbnails import SIDE, thumbnails
from cwerm.suspects.unusual import Unusual

REJECTS = 1000
GROUPS = 100  # of near-duplicates that are shown
SHOWN_HELD_OUT = 200  # test images, and trusted ones, that are shown


@dataclass(frozen=True)
class Contents:
    """What the page shows."""

    title: str
    told: Sequence[str]
    """What was found of all labels, in lines."""
    suspects: Sequence[Suspect]
    pictures: Mapping[Any, bytes]
    """WebP by id: of each suspect, and of what is shown beside it; or by `Duplicate.picture`."""
    class_names: Sequence[str]
    decided: Sequence[Correction] = ()
    """What was decided before, and is saved again with what is decided here."""
    rejects: Sequence[Mapping[str, str]] = ()
    """``path`` and ``reason`` of the first files that could not be used."""
    num_rejects: int = 0
    duplicates: Sequence[Duplicate] = ()
    """Groups of images that are nearly the same, as far as they are shown."""
    unusual: Sequence[Unusual] = ()
    held_out: Mapping[str, Sequence[Suspect]] = field(default_factory=dict)
    """Of the ``test`` and ``trusted`` images, where they were judged; pictures by kind and id."""
    num_images: int = 0


def suspects_page(
    steps: Plan,
    suspects: Sequence[Suspect],
    duplicates: Sequence[Duplicate],
    unusual: Sequence[Unusual],
    held_out: Mapping[str, Sequence[Suspect]],
) -> str:
    """The page of what a plan found."""
    images, corrections = steps.made["ingest"], steps.outside.corrections
    shown = [duplicate for duplicate in duplicates if duplicate.group <= GROUPS]
    ids = {s.id for s in suspects} | {s.nearest_id for s in suspects} - {-1}
    ids |= {duplicate.id for duplicate in shown if duplicate.split == TRAINING}
    ids |= {image.id for image in unusual}
    others = {kind: {s.id for s in found[:SHOWN_HELD_OUT]} for kind, found in held_out.items()}
    tests = {duplicate.id for duplicate in shown if duplicate.split == TEST}
    others[TEST] = others.get(TEST, set()) | tests
    pictures: dict[Any, bytes] = {**thumbnails(steps.store, images, sorted(ids))}
    for kind, wanted in others.items():
        made = thumbnails(steps.store, images, sorted(wanted), f"{kind}_images") if wanted else {}
        pictures |= {f"{kind}-{number}": picture for number, picture in made.items()}
    return render(
        Contents(
            title=f"Labels of {steps.outside.addresses['source']}",
            told=steps.made["broadcast"].info.get("found", []),
            suspects=suspects,
            pictures=pictures,
            class_names=images.info["class_names"],
            decided=[*corrections.rows.values()] if corrections else [],
            rejects=steps.store.read(images, "rejects").slice(0, REJECTS).to_pylist(),
            num_rejects=images.info["num_rejects"],
            duplicates=shown,
            num_images=images.rows("images"),
            unusual=unusual,
            held_out={kind: found for kind, found in held_out.items() if found},
        )
    )


def render(contents: Contents) -> str:
    """HTML; names and paths are text in it, whatever they hold."""
    suspects = contents.suspects
    pairs = Counter((suspect.label, suspect.suggested) for suspect in suspects)
    rows = [
        [s.path, s.id, s.label, s.suggested, round(s.quality, 4), s.nearest_id, s.nearest_path]
        for s in suspects
    ]
    data = {
        "rows": rows,
        "pictures": {i: base64.b64encode(p).decode() for i, p in contents.pictures.items()},
        "names": contents.class_names,
        "columns": COLUMNS,
        "decisions": DECISIONS,
        "decided": [astuple(row) for row in contents.decided],
    }
    return page_template("cwerm.suspects", "page.html.jinja").render(
        contents=contents,
        matrix=noise_matrix(contents.class_names, pairs),
        groups=[[*rows] for _, rows in groupby(contents.duplicates, lambda d: d.group)],
        side=SIDE,
        shown_held_out=SHOWN_HELD_OUT,
        data=_script(data),
    )


def _script(value: Any) -> str:
    """JSON that can't end the element it stands in."""
    return json.dumps(value).replace("<", "\\u003c")
