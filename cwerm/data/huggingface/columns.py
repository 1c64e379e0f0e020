"""Which columns of a data set are image and label, where they are not called as the job says."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa

from cwerm.data.parquet.footers import Columns
from cwerm.data.parquet.images import layout_of
from cwerm.data.parquet.labels import class_names
from cwerm.errors import UserError, shown

DEFAULT = Columns()


def choose(
    schema: pa.Schema,
    extensions: Mapping[str, tuple[str, bytes]],
    asked: Columns,
    where: str,
) -> Columns:
    """The columns as the job names them, or where it names none the only ones that they can be.

    Raises:
        UserError: there is none, or more than one; naming the key that chooses.
    """
    image = asked.image
    if image not in schema.names:
        images = [f.name for f in schema if layout_of(f.type, *extensions.get(f.name, ("", b"")))]
        image = _only("image", images, image == DEFAULT.image, schema.names, where)
    label = asked.label
    if label not in schema.names:
        labels = [name for name in schema.names if class_names(schema.metadata, name)]
        if not labels:
            labels = [f.name for f in schema if _may_be_label(f.type) and f.name != image]
        label = _only("label", labels, label == DEFAULT.label, schema.names, where)
    return Columns(image, label)


def _only(key: str, found: list[str], is_free: bool, names: list[str], where: str) -> str:
    if is_free and len(found) == 1:
        return found[0]
    what = "images" if key == "image" else "labels"
    if is_free and found:
        listed = shown(", ".join(found))
        raise UserError(
            f"data.{key}_column: '{shown(where)}' has several columns of {what} ({listed}); set "
            f"data.{key}_column to one of them"
        )
    listed = shown(", ".join(names))
    wanted = "column of images" if is_free and key == "image" else f"column for the {key}"
    raise UserError(
        f"data.{key}_column: '{shown(where)}' has no {wanted}; its columns are {listed}"
    )


_may_be_label: Callable[[pa.DataType], bool] = lambda kind: (  # noqa: E731
    pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)
)
