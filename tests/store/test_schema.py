"""The Arrow schemas of the tables, against types written out here, and the check's refusals."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from cwerm.store import schema

TENSOR = pa.fixed_shape_tensor(pa.float16(), [3])


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        (
            "labels",
            "id:int64 label:int32 clean_label:int32 uncorrected:int32 known:bool removed:bool",
        ),
        ("given_test_labels", "id:int64 label:int32"),
        ("test_labels", "id:int64 label:int32 known:bool removed:bool"),
        ("rejects", "path:string reason:string"),
        ("coreset", "id:int64 label:int32 distance:float"),
        ("meta", "id:int64 label:int32"),
        ("coreset_weights", "id:int64 weight:float loss:float"),
        (
            "weights",
            "id:int64 label:int32 weight:float neighbor_id:int64 neighbor_distance:float "
            "neighbor_label:int32 quality:float suggested_label:int32 suggestion_probability:float "
            "duplicate_group:int64",
        ),
        ("images", "id:int64 image:binary path:string"),
        ("test_images", "id:int64 image:binary path:string"),
    ],
)
def test_columns_and_types(name: str, columns: str) -> None:
    found = schema.table_schema(name)
    assert " ".join(f"{field.name}:{field.type}" for field in found) == columns
    optional = ("clean_label", "distance", "quality", "suggested_label", "suggestion_probability")
    optional += ("duplicate_group",)
    assert [field.name for field in found if field.nullable] == [
        field.name for field in found if field.name in optional
    ]


@pytest.mark.parametrize("name", ["features", "trusted_features"])
def test_features_are_the_canonical_tensor(name: str) -> None:
    found = schema.table_schema(name, value_type=TENSOR)
    assert [field.name for field in found] == ["id", "feature"]
    assert found.field("feature").type.extension_name == "arrow.fixed_shape_tensor"


def _meta(ids: pa.Array, labels: pa.Array) -> pa.Table:
    return pa.table([ids, labels], schema=schema.table_schema("meta"))


def test_a_right_table_passes() -> None:
    schema.check("meta", _meta(pa.array([0, 1], pa.int64()), pa.array([3, 3], pa.int32())))
    values = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((2, 3), np.float16))
    ids = pa.array([0, 1], pa.int64())
    expected = schema.table_schema("features", value_type=values.type)
    schema.check("features", pa.table([ids, values], schema=expected))


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"id": pa.array([0], pa.int64())}),
        pa.table({"id": pa.array([0], pa.int64()), "label": pa.array([0], pa.int64())}),
        pa.table({"label": pa.array([0], pa.int32()), "id": pa.array([0], pa.int64())}),
        pa.table({"id": pa.array([0], pa.int64()), "label": pa.array([0], pa.int32())}),
        _meta(pa.array([None], pa.int64()), pa.array([0], pa.int32())),
    ],
    ids=["column missing", "wrong type", "wrong order", "nullable", "missing value"],
)
def test_a_wrong_table_is_refused(table: pa.Table) -> None:
    with pytest.raises(AssertionError, match="table meta"):
        schema.check("meta", table)
