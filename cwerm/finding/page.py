"""The page of suspects: one file that works offline, with a picture of each."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from PIL import Image

from cwerm.data.images import decode
from cwerm.finding.suspects import Suspect
from cwerm.stages import common
from cwerm.stages.pixels import to_square
from cwerm.stages.plan import Plan

SIDE, QUALITY = 96, 70  # of a thumbnail: pixels, and WebP's
AT_ONCE = 1000  # images read at a time
PAIRS = 30  # of classes, the most frequent
REJECTS = 1000


def suspects_page(steps: Plan, suspects: Sequence[Suspect]) -> str:
    """HTML; names and paths are text in it, whatever they hold."""
    images, told = steps.made["ingest"], steps.made["broadcast"].info.get("found", [])
    pairs = Counter((suspect.label, suspect.suggested) for suspect in suspects)
    rows = [
        [s.path, s.id, s.label, s.suggested, round(s.quality, 4), s.nearest_id, s.nearest_path]
        for s in suspects
    ]
    shown = {s.id for s in suspects} | {s.nearest_id for s in suspects} - {-1}
    rejects = steps.store.read(images, "rejects").slice(0, REJECTS).to_pylist()
    rooms = Environment(loader=PackageLoader("cwerm.finding", ""), autoescape=True)
    return rooms.get_template("page.html.jinja").render(
        title=f"Labels of {steps.job.data.source}",
        told=told,
        pairs=pairs.most_common(PAIRS),
        rejects=rejects,
        num_rejects=images.info["num_rejects"],
        side=SIDE,
        data=_script({"rows": rows, "pictures": _thumbnails(steps, sorted(shown))}),
    )


def _thumbnails(steps: Plan, ids: list[int]) -> dict[int, str]:
    """WebP in base64, by id."""
    made = {}
    for start in range(0, len(ids), AT_ONCE):
        some = np.array(ids[start : start + AT_ONCE])
        taken = common.take_rows(steps.store, steps.made["ingest"], "images", "image", some)
        for number, image in zip(some.tolist(), taken, strict=True):
            buffer = io.BytesIO()
            square = Image.fromarray(to_square(decode(image), SIDE))
            square.save(buffer, format="WEBP", quality=QUALITY)
            made[number] = base64.b64encode(buffer.getvalue()).decode()
    return made


def _script(value: Any) -> str:
    """JSON that can't end the element it stands in."""
    return json.dumps(value).replace("<", "\\u003c")
