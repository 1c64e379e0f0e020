"""Whether a folder is a saved data set, and which files it is made of; names in it stay in the folder."""

from __future__ import annotations

import functools
from typing import Any

from cwerm.data.files.listing import FoundFile, Listing
from cwerm.data.files.reading import patiently
from cwerm.errors import UserError, shown
from cwerm.store.storage import open_storage, parse_mapping

SPLITS = "dataset_dict.json"  # of a `DatasetDict`: the names of its folders, one a split
STATE = "state.json"  # of a `Dataset`: the names of its shards
SHARDS = ".arrow"

Shards = dict[str, str]
"""By path of each shard, the name of the folder that it lies in: "" where that is the whole set."""


def saved_shards(listing: Listing, uri: str) -> Shards | None:
    """The shards of what ``save_to_disk`` wrote, a `Dataset` or a `DatasetDict`; None for anything else.

    Folders that were saved one by one below the listing's are splits of one data set, too.

    Raises:
        UserError: it is one, and a file that it names is missing, or would lie elsewhere.
    """
    if listing.uri != uri.rstrip("/"):
        return None
    files = {file.path: file for file in listing.files}
    arrows = [path for path in files if path.endswith(SHARDS)]
    if SPLITS in files:
        where = f"{listing.uri}/{SPLITS}"
        folders = _names(_json(listing, SPLITS).get("splits"), where)
    elif STATE in files and arrows:
        folders = [""]
    else:
        below = [path.removesuffix(f"/{STATE}") for path in files if path.endswith(f"/{STATE}")]
        folders = [folder for folder in below if any(a.startswith(f"{folder}/") for a in arrows)]
        if not folders or any("/" in folder for folder in folders):
            return None
    found = {}
    for folder in folders:
        for path in _of_folder(listing, folder, files):
            found[path] = folder
    return found


def _of_folder(listing: Listing, folder: str, files: dict[str, FoundFile]) -> list[str]:
    inner = f"{folder}/" if folder else ""
    state = f"{inner}{STATE}"
    where = f"{listing.uri}/{shown(state)}"
    if state not in files:
        raise UserError(f"data.source: '{where}' is missing; save the data set again")
    told = _json(listing, state)
    if told.get("_indices_data_files"):
        raise UserError(
            f"data.source: '{where}' is of an old version of datasets, with a table of rows apart; load it "
            "and save it again"
        )
    listed = told.get("_data_files")
    entries = listed if isinstance(listed, list) else [None]
    names = [entry.get("filename") if isinstance(entry, dict) else None for entry in entries]
    paths = [f"{inner}{name}" for name in _names(names, where)]
    for path in paths:
        if path not in files:
            raise UserError(
                f"data.source: '{where}' names '{shown(path)}', and there is no such file; fetch it, or save "
                "the data set again"
            )
    return paths


def _json(listing: Listing, path: str) -> dict[str, Any]:
    where = f"{listing.uri}/{shown(path)}"
    storage = open_storage(listing.uri, listing.s3)
    try:
        return parse_mapping(patiently(functools.partial(storage.read_bytes, path), where))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"data.source: '{where}' can't be read; save the data set again") from None


def _names(values: Any, where: str) -> list[str]:
    """Names of files in one folder.

    Raises:
        UserError: one is no such name, but leads elsewhere.
    """
    names: list[Any] = values if isinstance(values, list) else [None]
    for name in names:
        if not isinstance(name, str):
            raise UserError(f"data.source: '{where}' names no files; save the data set again")
        if not name or "/" in name or "\\" in name or "\0" in name or name.startswith("."):
            raise UserError(
                f"data.source: '{where}' names '{shown(name)}', which is no file in its folder; save the "
                "data set again"
            )
    return names
