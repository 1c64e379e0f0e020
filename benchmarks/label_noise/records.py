"""Finished cells, one file each, so that the study goes on where it was interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["read_all", "read_record", "record_path", "write_record"]


def record_path(out: Path, mode: str, data: str, cell: str, given: str, seed: int) -> Path:
    """Where the figures of one cell and seed are kept."""
    words = cell.replace(",", "").replace(" ", "-")
    return out / mode / data / f"{words}.{given}" / f"{seed}.json"


def read_record(path: Path) -> dict[str, Any]:
    """The finished families of a cell: {family: {row: figures}}; empty if there are none yet."""
    made: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return made


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1))
    part.rename(path)


def read_all(
    out: Path, mode: str, data: str, cell: str, given: str, seeds: list[int] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """The figures of each row over the finished seeds, in the seeds' order."""
    folder = record_path(out, mode, data, cell, given, 0).parent
    found = sorted(int(path.stem) for path in folder.glob("*.json"))
    rows: dict[str, list[dict[str, Any]]] = {}
    for seed in found if seeds is None else [s for s in seeds if s in found]:
        for family in read_record(folder / f"{seed}.json").values():
            for row, figures in family["rows"].items():
                rows.setdefault(row, []).append(figures | {"seconds": family["seconds"]})
    return rows
