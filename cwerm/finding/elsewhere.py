"""What `find` writes to a bucket, as on a cluster it does, and how it comes from there to a folder here."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cwerm.finding.find import JOB, find
from cwerm.job.tree import Job
from cwerm.runs.files import make_folder, write_file
from cwerm.store.storage import open_storage
from cwerm.suspects.show import FILES, LIST
from cwerm.terminal import console

NAMES = (JOB, *FILES)


def place_of(job: Job) -> str:
    """Where in the job's storage what a cluster found of it lies."""
    return f"{job.storage.rstrip('/')}/found/{job.name}"


def find_to(
    source: str | Sequence[str],
    to: str,
    overrides: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """As `find`, to a folder or below an ``s3://`` address; plain values of what was found.

    Raises:
        UserError: as `find`, or the bucket can't be written to.
    """
    if urlsplit(to).scheme != "s3":
        return find(source, Path(to), overrides, options).record()
    with tempfile.TemporaryDirectory() as folder:
        found = find(source, Path(folder), overrides, options, shown=to)
        storage = open_storage(to, found.s3)
        for name in NAMES:
            path = Path(folder, name)
            if path.exists():
                storage.write_bytes(name, path.read_bytes())
            else:  # of an earlier time
                storage.delete(name)
    files = {name: f"{to}/{path.name}" for name, path in found.files.items()}
    return {**found.record(), "files": files}


def fetch_found(job: Job, to: Path) -> dict[str, str]:
    """Copy what a cluster found of the job to a folder here; the files by name, and say where they are.

    Raises:
        UserError: the storage can't be reached, or the folder can't be written.
    """
    place = place_of(job)
    storage = open_storage(place, job.s3)
    files: dict[str, bytes] = {}
    for name in NAMES:
        try:
            files[name] = storage.read_bytes(name)
        except FileNotFoundError:
            continue
    if LIST not in files:
        console.note(f"what was found lies at {place}, which is not on this machine")
        return {}
    make_folder(to)
    for name in NAMES:
        if name in files:
            write_file(to / name, files[name])
        else:
            (to / name).unlink(missing_ok=True)
    console.out.print(f"{'suspects':<12} {to}", soft_wrap=True, markup=False)
    return {name: str(to / name) for name in files}
