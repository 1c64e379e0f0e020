"""Data sets by name, from the hub or its local cache; the library `datasets` fetches and prepares them."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

from cwerm.data.files.listing import FoundFile, Listing
from cwerm.data.files.reading import patiently
from cwerm.data.huggingface.source import SavedSet
from cwerm.data.parquet.images import Cell
from cwerm.errors import UserError, shown
from cwerm.terminal import console

SCHEME = "hf:"
_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:/([^/@\s]+))?(?:@([\w./-]+))?")
_CONFIGS = re.compile(r"(?:available configs: \[|configurations in the cache: )([^\]\n]*)")
MOST_LETTERS = 300  # of what the library says


class Name(NamedTuple):
    """What names a data set of the hub."""

    repository: str
    config: str | None
    revision: str | None


def parse(address: str) -> Name:
    """The parts of ``hf:owner/name``, ``hf:owner/name/config`` and ``hf:owner/name@revision``.

    Raises:
        UserError: it is written otherwise.
    """
    text = address.removeprefix(SCHEME).removeprefix("//").removeprefix("datasets/")
    found = _NAME.fullmatch(text)
    if not found:
        raise UserError(
            f"data.source: '{shown(address)}' is no name of a data set; write hf:owner/name, where "
            "needed with a configuration (hf:owner/name/config) and a revision (@revision)"
        )
    return Name(*found.groups())


class HubSet(SavedSet):
    """The shards that the library prepared in its cache, with the files that they name there."""

    def __init__(
        self, listing: Listing, image: str, label: str, shards: dict[str, str], roots: Sequence[str]
    ) -> None:
        """``roots`` are the folders that hold what was fetched of this data set, and no more."""
        self._roots = [os.path.realpath(root) for root in roots]
        super().__init__(listing, image, label, shards)
        self._remarks.append(f"as datasets has prepared it in '{shown(self.uri)}'")

    def _picture(self, path: str, cell: Cell) -> tuple[Cell, str]:
        del path  # what a cell names is a whole path
        if cell.path is None:
            return cell, "no bytes in the column"
        real = os.path.realpath(cell.path) if "\0" not in cell.path else ""
        inside = any(os.path.commonpath([root, real]) == root for root in self._roots if real)
        if not inside or not os.path.isfile(real):
            return cell, "no bytes in the column, and the path there is no file of the data set"
        data = patiently(functools.partial(_read, real), shown(cell.path))
        return Cell(data, _inner(cell.path, self._roots)), ""


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _inner(path: str, roots: Sequence[str]) -> str:
    """The path in the data set's repository, without where it is kept here."""
    parent, name = os.path.split(path)
    parent = os.path.realpath(parent)
    for root in roots:
        if os.path.commonpath([root, parent]) == root:
            inner = os.path.relpath(os.path.join(parent, name), root)
            return re.sub(r"^snapshots/[^/]+/", "", inner)
    return path


def open_named(address: str, image: str, label: str) -> HubSet:
    """The data set of that name; it is downloaded where it is not in the cache.

    Raises:
        UserError: the library is not installed, there is no such data set, or it can't be had now.
    """
    name = parse(address)
    if find_spec("datasets") is None:
        raise UserError(
            f"data.source: '{address}' needs the package datasets; pip install 'cwerm[huggingface]', or give "
            "the folder that save_to_disk made"
        )
    if os.path.exists(name.repository):  # which the library would take instead
        raise UserError(
            f"data.source: '{name.repository}' is a folder here, too; give it as './{name.repository}', "
            "or run where there is none"
        )
    import datasets
    from huggingface_hub import constants

    told = _loaded(datasets, address, name)
    paths: dict[str, str] = {}
    for split, rows in told.items():
        paths |= {entry["filename"]: str(split) for entry in rows.cache_files}
    if not paths:
        raise UserError(f"data.source: '{address}' has no rows; check the name")
    folder = os.path.dirname(next(iter(paths)))
    shards = {os.path.relpath(path, folder): split for path, split in paths.items()}
    found = [(shard, os.stat(os.path.join(folder, shard))) for shard in sorted(shards)]
    files = tuple(FoundFile(shard, s.st_size, s.st_mtime_ns) for shard, s in found)
    repository = f"datasets--{name.repository.replace('/', '--')}"
    roots = [
        os.path.join(constants.HF_HUB_CACHE, repository),
        str(datasets.config.DOWNLOADED_DATASETS_PATH),
    ]
    return HubSet(Listing(folder, files, ()), image, label, shards, roots)


def _loaded(datasets: Any, address: str, name: Name) -> Any:
    """The data set's splits; programs that a data set may hold are never run."""
    from huggingface_hub.utils import logging as hub_logging

    bars = datasets.is_progress_bar_enabled()
    logs = [datasets.logging, hub_logging]
    levels = [log.get_verbosity() for log in logs]
    for log in logs:
        log.set_verbosity_error()  # what is in vain is told in the end
    if not console.out.is_terminal or console.out.quiet:
        datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(
            name.repository, name.config, revision=name.revision, keep_in_memory=False
        )
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())[:MOST_LETTERS] or type(error).__name__
        if isinstance(error, ConnectionError):
            offline = datasets.config.HF_HUB_OFFLINE
            reason = "HF_HUB_OFFLINE is set" if offline else "the hub does not answer"
            reason += ", and it is not in the cache"
        configs = _CONFIGS.search(str(error))
        if configs:
            raise UserError(
                f"data.source: '{address}' has several configurations ({configs[1]}); name one, as in "
                f"hf:{name.repository}/config"
            ) from None
        raise UserError(
            f"data.source: '{address}' can't be had ({reason}); check the name and the network"
        ) from None
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.set_verbosity(level)
        if bars:
            datasets.enable_progress_bars()
