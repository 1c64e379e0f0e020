"""Columns of images: encoded bytes, or pixels as arrays in one of several layouts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_PIXELS = (pa.uint8(), pa.uint16())
_ONE_SHAPE = {"arrow.fixed_shape_tensor", "ray.data.arrow_tensor", "ray.data.arrow_tensor_v2"}
_SHAPES = {"arrow.variable_shape_tensor", "ray.data.arrow_variable_shaped_tensor"}


@dataclass(frozen=True)
class Layout:
    """How a column holds images.

    Attributes:
        kind: ``bytes``, ``struct`` (``{bytes, path}``), ``lists`` (nested), ``tensor`` (flat, of one
            shape) or ``shapes`` (flat, each with its shape).
        shape: of all arrays of a ``tensor``.
        order: where the axes of each stored array belong, () as they are.
    """

    kind: str
    shape: tuple[int, ...] = ()
    order: tuple[int, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One image, or none: then ``path`` or ``problem`` says more."""

    image: bytes | np.ndarray = b""
    path: str | None = None
    is_missing: bool = False


def layout_of(kind: pa.DataType, extension: str = "", detail: bytes = b"") -> Layout | None:
    """How a column of this Parquet type holds images, None where it holds none.

    ``extension`` and ``detail`` are name and description of the Arrow type it was written from.
    """
    if extension in _ONE_SHAPE or extension in _SHAPES:
        return _tensor_layout(kind, extension, detail)
    if _is_bytes(kind):
        return Layout("bytes")
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return Layout("struct") if index >= 0 and _is_bytes(kind.field(index).type) else None
    depth = 0
    while _is_list(kind):
        depth, kind = depth + 1, kind.value_type
    return Layout("lists") if depth in (2, 3) and kind in _PIXELS else None


def _tensor_layout(kind: pa.DataType, extension: str, detail: bytes) -> Layout | None:
    try:
        told = json.loads(detail) if detail else {}
    except ValueError:
        return None
    order = told.get("permutation") if isinstance(told, dict) else None
    axes = tuple(order) if isinstance(order, list) and all(type(o) is int for o in order) else ()
    if sorted(axes) != list(range(len(axes))) or any(axes[axes[i]] != i for i in axes):
        return None  # pyarrow itself takes an order that is not its own inverse now so, now the other way
    if extension in _SHAPES:
        if not pa.types.is_struct(kind) or {"data", "shape"} - {field.name for field in kind}:
            return None
        data = kind.field("data").type
        is_right = _is_list(data) and data.value_type in _PIXELS
        return Layout("shapes", order=axes) if is_right else None
    shape = told.get("shape") if isinstance(told, dict) else told
    if not _is_shape(shape) or not _is_list(kind) or kind.value_type not in _PIXELS:
        return None
    return Layout("tensor", tuple(shape or ()), axes)


def _is_shape(shape: Any) -> bool:
    """Whether it is that of an image: two or three positive integers."""
    return (
        isinstance(shape, list)
        and len(shape) in (2, 3)
        and all(isinstance(size, int) and size > 0 for size in shape)
    )


def _is_bytes(kind: pa.DataType) -> bool:
    return (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def cells(column: pa.Array, layout: Layout) -> Iterator[Cell]:
    """Each image of a piece of the column, one at a time."""
    for scalar in column:
        if not scalar.is_valid:
            yield Cell(is_missing=True)
        elif layout.kind == "bytes":
            yield Cell(scalar.as_py())
        elif layout.kind == "struct":
            value = scalar.as_py()
            path = value.get("path") or None
            path = path if isinstance(path, str) else None
            data = value["bytes"]
            yield Cell(data or b"", path, is_missing=data is None)
        elif layout.kind == "lists":
            yield Cell(_nested(scalar))
        elif layout.kind == "tensor":
            yield Cell(_shaped(scalar.values, list(layout.shape), layout.order))
        elif scalar["data"].is_valid:
            yield Cell(_shaped(scalar["data"].values, scalar["shape"].as_py(), layout.order))
        else:
            yield Cell(is_missing=True)


def _shaped(values: pa.Array, shape: Any, order: tuple[int, ...]) -> np.ndarray:
    """The values in their shape; flat, which `decode` rejects, where they don't fit it."""
    flat = values.to_numpy(zero_copy_only=False)
    if not _is_shape(shape) or math.prod(shape) != len(flat):
        return flat
    array = flat.reshape(shape)
    return array.transpose(order) if len(order) == len(shape) else array


def _nested(scalar: pa.ListScalar) -> np.ndarray:
    """A nested list as an array; a ragged one stays flat, which `decode` rejects."""
    values, shape = scalar.values, [len(scalar.values)]
    while _is_list(values.type):
        lengths = pc.unique(pc.list_value_length(values)).to_pylist()
        if len(lengths) != 1 or lengths[0] is None:
            shape = [-1]
        elif shape != [-1]:
            shape.append(lengths[0])
        values = values.flatten()
    return values.to_numpy(zero_copy_only=False).reshape(shape)
