"""The page of suspects: one file that works offline, with a picture of each, on which a person decides."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import groupby
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from PIL import Image

from cwerm.data.corrections import COLUMNS, DECISIONS, Correction
from cwerm.data.images import decode
from cwerm.stages import common
from cwerm.stages.pixels import to_square
from cwerm.stages.plan import Plan
from cwerm.suspects.duplicates import Duplicate
from cwerm.suspects.suspects import Suspect

SIDE, QUALITY = 96, 70  # of a thumbnail: pixels, and WebP's
AT_ONCE = 1000  # images read at a time
PAIRS = 30  # of classes, the most frequent
REJECTS = 1000
GROUPS = 100  # of near-duplicates that are shown


@dataclass(frozen=True)
class Contents:
    """What the page shows."""

    title: str
    told: Sequence[str]
    """What was found of all labels, in lines."""
    suspects: Sequence[Suspect]
    pictures: Mapping[int, bytes]
    """WebP by id: of each suspect, and of what is shown beside it."""
    class_names: Sequence[str]
    decided: Sequence[Correction] = ()
    """What was decided before, and is saved again with what is decided here."""
    rejects: Sequence[Mapping[str, str]] = ()
    """``path`` and ``reason`` of the first files that could not be used."""
    num_rejects: int = 0
    duplicates: Sequence[Duplicate] = ()
    """Groups of images that are nearly the same, as far as they are shown."""
    num_images: int = 0


def suspects_page(steps: Plan, suspects: Sequence[Suspect], duplicates: Sequence[Duplicate]) -> str:
    """The page of what a plan found."""
    images, corrections = steps.made["ingest"], steps.outside.corrections
    shown = [duplicate for duplicate in duplicates if duplicate.group <= GROUPS]
    ids = {s.id for s in suspects} | {s.nearest_id for s in suspects} - {-1}
    ids |= {duplicate.id for duplicate in shown}
    return render(
        Contents(
            title=f"Labels of {steps.outside.addresses['source']}",
            told=steps.made["broadcast"].info.get("found", []),
            suspects=suspects,
            pictures=_thumbnails(steps, sorted(ids)),
            class_names=images.info["class_names"],
            decided=[*corrections.rows.values()] if corrections else [],
            rejects=steps.store.read(images, "rejects").slice(0, REJECTS).to_pylist(),
            num_rejects=images.info["num_rejects"],
            duplicates=shown,
            num_images=images.rows("images"),
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
    rooms = Environment(loader=PackageLoader("cwerm.suspects", ""), autoescape=True)
    return rooms.get_template("page.html.jinja").render(
        contents=contents,
        pairs=pairs.most_common(PAIRS),
        groups=[[*rows] for _, rows in groupby(contents.duplicates, lambda d: d.group)],
        side=SIDE,
        data=_script(data),
    )


def _thumbnails(steps: Plan, ids: list[int]) -> dict[int, bytes]:
    """WebP by id."""
    made = {}
    for start in range(0, len(ids), AT_ONCE):
        some = np.array(ids[start : start + AT_ONCE])
        taken = common.take_rows(steps.store, steps.made["ingest"], "images", "image", some)
        for number, image in zip(some.tolist(), taken, strict=True):
            buffer = io.BytesIO()
            square = Image.fromarray(to_square(decode(image), SIDE))
            square.save(buffer, format="WEBP", quality=QUALITY)
            made[number] = buffer.getvalue()
    return made


def _script(value: Any) -> str:
    """JSON that can't end the element it stands in."""
    return json.dumps(value).replace("<", "\\u003c")
