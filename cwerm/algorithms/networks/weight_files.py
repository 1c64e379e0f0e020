"""Files of network weights as people have them, read to tensors by name; no code in them runs."""

from __future__ import annotations

import argparse
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["WeightFile", "read_weights"]

# Where checkpoints keep the network, averaged weights first, as in timm.
CONTAINERS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "params_ema", "teacher"),
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module"),
    *("params", "weights", "backbone"),
)
NO_NETWORK = ("optim", "sched", "scaler", "rng", "arg", "config", "hyper")
OWN_METADATA = "cwerm"


@dataclass(frozen=True)
class WeightFile:
    """The tensors of a file by name, and where they lay in it.

    ``about`` is what cwerm wrote into a model of its own: its name and the images that it was trained on.
    """

    path: str
    tensors: dict[str, Tensor]
    place: str = ""
    about: dict[str, Any] = field(default_factory=dict)


def read_weights(path: str) -> WeightFile:
    """Read a file of safetensors, or of ``torch.save`` by torch's restricted reader, whatever its suffix.

    Raises:
        ValueError: there is no such file, or it holds something else; says what, and what would help.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(512)
    except FileNotFoundError:
        raise ValueError(
            f"weights file {path} does not exist; give a path, 'pretrained' or 'random'"
        ) from None
    except OSError as error:
        raise ValueError(f"weights file {path} can't be read ({error.strerror})") from None
    _refuse_other_kinds(path, start)
    try:
        if _is_safetensors(start):
            tensors, about = _read_safetensors(path)
            return WeightFile(path, tensors, "", about)
        loaded = _restricted_load(path)
    except ValueError:
        raise
    except Exception as error:  # whatever torch or safetensors raise on a broken file
        reason = (str(error).splitlines() or [type(error).__name__])[0].partition(". ")[0]
        raise ValueError(
            f"weights file {path} is no readable checkpoint ({reason}); export it again"
        ) from None
    tensors, place = _network(path, loaded)
    return WeightFile(path, tensors, place)


def _refuse_other_kinds(path: str, start: bytes) -> None:
    text = start.lstrip().lower()
    kind = ""
    if not start:
        kind = "is empty; download it again"
    elif text.startswith(b"version https://git-lfs"):
        kind = (
            "is a pointer of Git LFS and not the weights themselves; fetch them with `git lfs pull`"
        )
    elif text.startswith((b"<!doctype", b"<html", b"<?xml")):
        kind = (
            "is a web page and not the weights; download it again, logged in where that is needed"
        )
    elif start.startswith((b"\x93NUMPY", b"\x89HDF")):
        kind = "is of NumPy or HDF5; export it as safetensors or by torch.save"
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
        if "constants.pkl" in names:
            kind = "is a TorchScript archive; save the module's state_dict() instead"
        elif any(name.endswith(".npy") for name in names):
            kind = "is of NumPy; export it as safetensors or by torch.save"
        elif "data.pkl" not in names:
            kind = "is an archive of other files; unpack it and give the file of weights in it"
    if kind:
        raise ValueError(f"weights file {path} {kind}")


def _is_safetensors(start: bytes) -> bool:
    """A header's length in 8 bytes, then the header, which is JSON."""
    return len(start) > 9 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**30


def _read_safetensors(path: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        about = json.loads(metadata.get(OWN_METADATA, "{}"))
    except ValueError:
        about = {}
    return tensors, about if isinstance(about, dict) else {}


def _restricted_load(path: str) -> Any:
    """What ``torch.load`` reads without running code; settings and scores of NumPy's beside it are let in."""
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    scalar: Any = np.float64(0).__reduce__()[0]
    numpy_types = {type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"}
    # as an open file: of a path torch looks at the suffix
    with (
        safe_globals([argparse.Namespace, scalar, np.dtype, *numpy_types]),
        open(path, "rb") as file,
    ):
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception:
            file.seek(0)
            try:
                code = get_unsafe_globals_in_checkpoint(file)
            except Exception:
                code = []
            if not code:
                raise
            raise ValueError(
                f"weights file {path} can't be read without running code ({', '.join(code[:3])}); save the "
                "network's state_dict() alone"
            ) from None


def _network(path: str, value: Any, place: str = "") -> tuple[dict[str, Tensor], str]:
    """The network's tensors in what was read, and the keys that lead to them."""
    if not isinstance(value, Mapping):
        raise ValueError(
            f"weights file {path} holds a {type(value).__name__} and no tensors by name; save the "
            "network's state_dict()"
        )
    nested = {k: v for k, v in value.items() if isinstance(k, str) and _has_tensors(v)}
    named = [key for key in CONTAINERS if key in nested]
    if not named:
        tensors = dict(_plain(value))
        if any(tensor.ndim for tensor in tensors.values()):
            return tensors, place
        named = [key for key in nested if not key.lower().startswith(NO_NETWORK)]
        if len(named) > 1:
            raise ValueError(
                f"weights file {path} holds several sets of tensors ({', '.join(named[:5])}); save the one "
                "that you want alone"
            )
    if not named:
        raise ValueError(
            f"weights file {path} holds no tensors by name; save the network's state_dict()"
        )
    return _network(path, nested[named[0]], f"{place}.{named[0]}".lstrip("."))


def _has_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(
        isinstance(entry, Tensor) or _has_tensors(entry) for entry in value.values()
    )


def _plain(value: Mapping[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    """Tensors by name; counters that were saved as plain numbers count as tensors."""
    for name, entry in value.items():
        if isinstance(name, str) and isinstance(entry, Tensor | int | float):
            yield name, torch.as_tensor(entry)
