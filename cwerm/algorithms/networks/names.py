"""Names of networks that are known without loading any, and the error for one that is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_LISTED = 20

OWN_MODELS = ("preactresnet18", "resnet20", "resnet32", "small_cnn")
"""Those of `models`."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """One line with the nearest known names, and with all of them where they are few."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    listed = f"; known: {', '.join(names)}" if len(names) <= MAX_LISTED else ""
    return ValueError(f"unknown {kind} {name!r}{hint}{listed}")
