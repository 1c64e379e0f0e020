"""Objects of a user's own, named by their path: ``my_module:MyMethod``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

__all__ = ["imported"]


def imported(path: str) -> Any:
    """What the path names; its module is looked for in the current folder, too, as workers do.

    Raises:
        ValueError: there is no such module or object, or its import fails.
    """
    module, _, name = path.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"'{path}' can't be imported: {reason}") from error
