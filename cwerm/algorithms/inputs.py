"""The one gate for what callers give: features, labels, ids and weights, as arrays that fit together.

Accepted are NumPy arrays of any byte order and stride, lists, pandas objects whatever their index, and
torch tensors on any device. What cannot be used is a ``ValueError`` of one line, the same everywhere.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Int64

__all__ = [
    "LARGEST",
    "Given",
    "as_array",
    "as_features",
    "as_ids",
    "as_weights",
    "blocks",
    "check_finite",
    "check_whole_number",
]

Given: TypeAlias = Any  # an array, a list, a pandas object or a tensor

LARGEST = 1e30  # squares and sums of larger values overflow; they are fill values as a rule
BLOCK_ELEMENTS = 1 << 20


def blocks(num_rows: int, num_columns: int) -> Iterator[slice]:
    """Slices of the rows, with about a million elements each."""
    step = max(1, BLOCK_ELEMENTS // max(1, num_columns))
    return (slice(start, start + step) for start in range(0, num_rows, step))


def as_array(values: Given, name: str) -> np.ndarray:
    """`values` as a plain array on the CPU; the bytes are shared where that is possible."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        tensor = values.detach()
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
            raise ValueError(f"{name} are no dense tensor: give a plain one, as of .to_dense()")
        tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        return tensor.cpu().resolve_conj().resolve_neg().numpy()
    if hasattr(values, "toarray") and not isinstance(values, np.ndarray):
        raise ValueError(f"{name} are sparse: give {name}.toarray()")
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        row = int(np.argwhere(np.ma.getmaskarray(values))[0][0])
        raise ValueError(f"row {row} of the {name} is masked; remove or repair it")
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{name} are no array ({reason}): give rows of one length") from None


def check_finite(features: Float[np.ndarray, "n d"], name: str = "features") -> None:
    """Raise ValueError naming the first row with NaN, infinity or a value beyond `LARGEST`."""
    limit = features.dtype.type(min(LARGEST, float(np.finfo(features.dtype).max)))
    for rows in blocks(*features.shape):
        block = features[rows]
        with np.errstate(invalid="ignore"):
            good = (block.max(axis=1) <= limit) & (block.min(axis=1) >= -limit)
        if good.all():
            continue
        first = int(np.argmin(good))
        bad = block[first]
        if not np.isfinite(bad).all():
            raise ValueError(
                f"row {rows.start + first} of the {name} has NaN or infinite values; "
                f"remove it or extract its features again"
            )
        value = bad[np.abs(bad).argmax()]
        raise ValueError(
            f"row {rows.start + first} of the {name} holds {value:.6g}; values beyond "
            f"{LARGEST:g} are fill values as a rule: repair or remove them, or scale the {name}"
        )


def as_features(values: Given, name: str = "features") -> Float[np.ndarray, "n d"]:
    """Finite numbers [n, d]: float16 and float32 as they are, others as float32 where that has them all.

    Else as float64.
    """
    array = as_array(values, name)
    if array.ndim != 2:
        raise ValueError(
            f"{name} have shape {list(array.shape)}: give one row of numbers for each sample, [n, d]"
        )
    if 0 in array.shape:
        kind = "there are no samples" if len(array) == 0 else "they have no columns"
        raise ValueError(f"{name} have shape {list(array.shape)}: {kind}")
    array = _floating(array, name)
    check_finite(array, name)
    if array.dtype == np.float64 and all(
        _fits_float32(array[part]) for part in blocks(*array.shape)
    ):
        array = array.astype(np.float32)
    return array


def _fits_float32(block: Float[np.ndarray, "b d"]) -> bool:
    return bool((block.astype(np.float32) == block).all())


def _floating(array: np.ndarray, name: str) -> np.ndarray:
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "O":
        try:
            return array.astype(np.float64)
        except (ValueError, TypeError):
            pass
    if kind not in "fiub":
        raise ValueError(f"{name} are {array.dtype}: give real numbers")
    if kind == "f":
        return np.asarray(array, f"f{min(size, 8)}")
    return array.astype(np.float32 if size <= 2 else np.float64)


def as_ids(values: Given, num_rows: int) -> Int64[np.ndarray, " m"]:
    """Distinct ids of a coreset, row numbers below `num_rows`, int64."""
    name = "coreset ids"
    ids = as_array(values, name)
    if ids.ndim != 1 or len(ids) == 0:
        raise ValueError(f"{name} have shape {list(ids.shape)}: give one or more row numbers, [m]")
    if ids.dtype.kind == "b":
        raise ValueError(f"{name} are a boolean mask: give row numbers, as numpy.flatnonzero(mask)")
    if ids.dtype.kind not in "iu":
        raise ValueError(f"{name} are {ids.dtype}: give row numbers, which are integers")
    if ids.min() < 0 or ids.max() >= num_rows:
        wrong = int(np.argmax((ids < 0) | (ids >= num_rows)))
        raise ValueError(
            f"{name} must be row numbers from 0 to {num_rows - 1}, got {ids[wrong]} in row {wrong}"
        )
    ids = ids.astype(np.int64)
    found, first = np.unique(ids, return_index=True)
    if len(found) < len(ids):
        again = int(np.setdiff1d(np.arange(len(ids)), first)[0])
        raise ValueError(f"{name} repeat {ids[again]} in row {again}: give each sample once")
    return ids


def as_weights(values: Given, size: int) -> Float[np.ndarray, " m"]:
    """`size` finite weights of a coreset, none negative; float32 or float64."""
    name = "coreset weights"
    weights = as_array(values, name)
    if weights.ndim != 1:
        hint = ", as weights[:, 0]" if weights.shape[1:] == (1,) else ""
        raise ValueError(f"{name} have shape {list(weights.shape)}: give one a sample, [m]{hint}")
    if len(weights) != size:
        raise ValueError(f"{size} coreset ids but {len(weights)} weights; give one weight an id")
    weights = _floating(weights, name)
    valid = (weights >= 0) & (weights < np.inf)  # NaN fails the comparison, too
    if not valid.all():
        row = int(np.argmin(valid))
        raise ValueError(
            f"row {row} of the {name} is {weights[row]}; weights must be finite and not negative"
        )
    return weights if weights.dtype == np.float64 else weights.astype(np.float32)


def check_whole_number(name: str, value: Any, least: int) -> None:
    """Raise ValueError unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
