"""Changes of a job's tree, as tests write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cwerm.job.file import methods_first, set_key
from cwerm.job.tree import SECTIONS


def change(tree: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Apply ``section__key=value`` changes, as the command line would."""
    keys = {key.replace("__", "."): value for key, value in changes.items()}
    for key in methods_first(keys):
        if key in SECTIONS:
            tree[key] = keys[key]
        else:
            set_key(tree, key, keys[key], SECTIONS)
