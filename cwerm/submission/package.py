"""What goes to a cluster with a job: the job itself, and a working directory where one is given."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from cwerm.errors import UserError, did_you_mean
from cwerm.job.tree import Job, parse_job
from cwerm.submission.shipped_files import files_of, look, write
from cwerm.sweeps.file import Sweep
from cwerm.terminal import console
from cwerm.values.addresses import local

JOB_FILE, SWEEP_FILE = "cwerm-job.yaml", "cwerm-sweep.yaml"
LARGEST = 500 * 2**20  # Ray's own limit
__all__ = ["files_of", "is_relative", "pack", "shipped_job"]

DATA_KEYS = ("source", "root", "test", "validation", "trusted", "corrections", "confusions")


def shipped_job(job: Job, working_dir: Path | None) -> Job:
    """The job as the cluster runs it: paths below ``working_dir`` relative to it, no Ray address.

    Raises:
        UserError: a relative path outside ``working_dir``, or a relative storage.
    """
    if working_dir is not None and not working_dir.is_dir():
        raise UserError(f"--working-dir: '{working_dir}' is no folder")
    if is_relative(job.storage):
        raise UserError(
            f"storage: '{job.storage}' would lie on the disk of one host of the cluster; give an s3:// "
            "URI, or the absolute path of a file system that all hosts share, with --storage"
        )
    tree = job.model_dump()
    tree["resources"]["address"] = None  # there, Ray Jobs tells it
    for key in DATA_KEYS:
        value = tree["data"][key]
        if isinstance(value, list):
            tree["data"][key] = [_shipped_path(f"data.{key}", v, working_dir) for v in value]
        elif value is not None:
            tree["data"][key] = _shipped_path(f"data.{key}", value, working_dir)
    weights = job.features.weights
    if weights not in ("pretrained", "random") and not weights.startswith("package:"):
        tree["features"]["weights"] = _shipped_path("features.weights", weights, working_dir)
    return parse_job(tree)


def is_relative(uri: str) -> bool:
    """Whether a path or URI means a place below this machine's current folder."""
    return urlsplit(uri).scheme in ("", "file") and not local(uri).startswith(("/", "~"))


def _shipped_path(key: str, uri: str, working_dir: Path | None) -> str:
    from cwerm.data.catalog import KNOWN_NAMES

    named = key.startswith("data.") and key != "data.root"
    if not is_relative(uri) or (named and uri in KNOWN_NAMES):
        return uri
    path = Path(os.path.normpath(Path(local(uri)).absolute()))
    if working_dir is None or not path.is_relative_to(working_dir.absolute()):
        hint = did_you_mean(uri, KNOWN_NAMES) if named else ""
        raise UserError(
            f"{key}: '{uri}' is a path on this machine{hint}; use an s3:// URI or an absolute path that "
            "all hosts share, or ship a folder that holds it with --working-dir"
        )
    if not path.exists():
        raise UserError(f"{key}: '{uri}' does not exist; check the path")
    # `./mnist` is a folder, `mnist` a known data set
    return f"./{path.relative_to(working_dir.absolute())}"


def pack(
    job: Job,
    working_dir: Path | None,
    folder: Path,
    sweep: Sweep | None = None,
    tell: Callable[[str], None] = console.note,
) -> Path:
    """Write the job, a sweep of it, and the files of ``working_dir`` to an archive in ``folder``; its path.

    Args:
        job: the job as the cluster runs it.
        working_dir: the folder to ship, None for none.
        folder: where the archive is made.
        sweep: the sweep to run.
        tell: is given what is shipped and what is left out.

    Raises:
        UserError: the files are more than Ray takes, or one can't be read or named.
    """
    target = folder / "package.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as package:
        # A fixed date, as the same content should give the same archive
        package.writestr(zipfile.ZipInfo(JOB_FILE), job.to_yaml())
        if sweep is not None:
            package.writestr(zipfile.ZipInfo(SWEEP_FILE), sweep.to_yaml())
        if working_dir is not None:
            store = None if urlsplit(job.storage).scheme == "s3" else Path(local(job.storage))
            found = look(working_dir, store)
            if found.size > LARGEST:
                raise UserError(
                    f"--working-dir: '{working_dir}' holds {found.size / 2**20:.0f} MiB and Ray takes at "
                    f"most {LARGEST / 2**20:.0f}; put the data on s3:// or a file system that all hosts "
                    "share"
                )
            write(found, package, {JOB_FILE, SWEEP_FILE})
            _check_needed(job, {*found.files})
            tell(found.told())
    return target


def _check_needed(job: Job, shipped: set[str]) -> None:
    """Refuse a job whose data stay here, as what is hidden does."""
    uris = [(f"data.{key}", getattr(job.data, key)) for key in DATA_KEYS if key != "source"]
    uris += [("data.source", source) for source in job.data.sources]
    uris += [("features.weights", job.features.weights)]
    for key, uri in uris:
        if not uri or not uri.startswith("./") or uri == "./.":
            continue
        path = uri.removeprefix("./")
        if path not in shipped and not any(name.startswith(f"{path}/") for name in shipped):
            raise UserError(
                f"{key}: nothing of '{uri}' is shipped, as what is hidden, a cache, a store or a secret "
                "stays here; move it or rename it"
            )
