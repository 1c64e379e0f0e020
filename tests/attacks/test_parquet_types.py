"""A Parquet file with a type that unpickles is refused before anything is made of it."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attacks.payload import extension, pickled, put_part
from cwerm.data import open_source
from cwerm.errors import UserError
from cwerm.stages import common
from cwerm.store.artifacts import ArtifactStore
from cwerm.store.plain_types import open_parquet, read_parquet
from cwerm.store.storage import open_storage

OBJECT = "ray.data.arrow_pickled_object"
TENSOR = "ray.data.arrow_tensor_v2"


def parquet(field: pa.Field, values: list[Any], **more: pa.Array) -> bytes:
    """A file whose first column has an extension type of which this process needs to know nothing."""
    plain = pa.array(values, field.type)
    table = pa.table({field.name: plain, **more})
    fields = [field, *(pa.field(name, array.type) for name, array in more.items())]
    text = base64.b64encode(pa.schema(fields).serialize().to_pybytes())
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({b"ARROW:schema": text})
    return buffer.getvalue()


def objects(mark: Path, **more: pa.Array) -> bytes:
    field = pa.field("image", **extension(pa.large_binary(), OBJECT))
    return parquet(field, [pickled(mark)] * 4, **more)


def test_a_part_of_an_artifact_can_not_run_code(tmp_path: Path) -> None:
    import ray.data  # noqa: F401  registers its types

    mark, store = tmp_path / "mark", ArtifactStore(open_storage(str(tmp_path / "store")))
    ids = pa.array(range(4), pa.int64())
    images = put_part(store, "ingest", "key", "images", objects(mark, id=ids), 4)
    with pytest.raises(UserError, match=f"corrupt artifact .*images.*'image'.*{OBJECT}") as error:
        common.images_of(store.read_part(images, "images", 0))
    assert "\n" not in str(error.value)
    assert not mark.exists()


@pytest.mark.parametrize("column", ["image", "label", "other"])
def test_a_source_can_not_run_code(tmp_path: Path, column: str) -> None:
    import ray.data  # noqa: F401

    mark, folder = tmp_path / "mark", tmp_path / "data"
    folder.mkdir()
    data = objects(mark, x=pa.array([b"1"] * 4), y=pa.array([0, 1, 0, 1]))
    (folder / "train.parquet").write_bytes(data)
    columns = {"image": "x", "label": "y"} | ({column: "image"} if column != "other" else {})
    with pytest.raises(UserError, match=f"train.parquet.*'image'.*{OBJECT}") as error:
        open_source(str(folder), image_column=columns["image"], label_column=columns["label"])
    assert "\n" not in str(error.value)
    assert not mark.exists()


def test_ray_data_is_told_not_to_unpickle(monkeypatch: pytest.MonkeyPatch) -> None:
    from cwerm.runtime.session.session import quiet_ray

    names = ["PICKLE_OBJECT_SCALAR", "CLOUDPICKLE_TENSOR_METADATA"]
    for name in names:
        monkeypatch.setenv(f"RAY_DATA_AUTOLOAD_{name}", "1")
    quiet_ray()
    assert [os.environ[f"RAY_DATA_AUTOLOAD_{name}"] for name in names] == ["0", "0"]


@pytest.fixture
def unpickling() -> Any:
    """A type registered under Ray Data's name, which unpickles as that of some versions does."""
    made: list[bytes] = []

    class Unpickling(pa.ExtensionType):
        def __init__(self) -> None:
            super().__init__(pa.large_binary(), "ray.data.of_another_version")

        def __arrow_ext_serialize__(self) -> bytes:
            return b""

        @classmethod
        def __arrow_ext_deserialize__(cls, storage: pa.DataType, detail: bytes) -> Unpickling:
            made.append(detail)
            return Unpickling()

    pa.register_extension_type(Unpickling())
    yield made
    pa.unregister_extension_type("ray.data.of_another_version")


def _field(**change: Any) -> pa.Field:
    return pa.field(
        "c", **{**extension(pa.large_binary(), "ray.data.of_another_version"), **change}
    )


def _items(name: str = "item") -> pa.Field:
    return _field().with_name(name)


NESTED = {
    "plain": (_field(), [b"1"]),
    "list": (pa.field("c", pa.list_(_items())), [[b"1"]]),
    "struct": (pa.field("c", pa.struct([_items("a")])), [{"a": b"1"}]),
    "map": (pa.field("c", pa.map_(pa.string(), _items("value"))), [[("k", b"1")]]),
    "dictionary": (_field(type=pa.dictionary(pa.int32(), pa.large_binary())), [b"1"]),
    "list of structs": (pa.field("c", pa.list_(pa.struct([_items("a")]))), [[{"a": b"1"}]]),
}


@pytest.mark.parametrize("kind", NESTED)
def test_nothing_is_made_of_a_type_at_any_depth(unpickling: list[bytes], kind: str) -> None:
    data = parquet(*NESTED[kind])
    with pytest.raises(UserError, match="file: column 'c'"):
        read_parquet(data, "file")
    assert unpickling == []
    pq.read_table(io.BytesIO(data))
    assert unpickling, "plain pyarrow makes it"


def _twice(first: bytes, second: bytes) -> bytes:
    """The file ``first``, in whose footer the schema of ``second`` stands as well."""
    texts = [pq_metadata(data)[b"ARROW:schema"] for data in (first, second)]
    buffer = io.BytesIO()
    table = pa.table({"c": pa.array([b"1"], pa.large_binary())})
    with pq.ParquetWriter(buffer, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({b"ARROW:schemX": texts[0], b"ARROW:schema": texts[1]})
    return buffer.getvalue().replace(b"ARROW:schemX", b"ARROW:schema")


def pq_metadata(data: bytes) -> dict[bytes, bytes]:
    return dict(open_metadata(data))


def open_metadata(data: bytes) -> Any:
    return pq.read_metadata(io.BytesIO(data)).metadata


@pytest.mark.parametrize("harmless_first", [True, False])
def test_two_schemas_in_one_footer(unpickling: list[bytes], harmless_first: bool) -> None:
    evil, plain = parquet(_field(), [b"1"]), parquet(pa.field("c", pa.large_binary()), [b"1"])
    pair = (plain, evil) if harmless_first else (evil, plain)
    data = _twice(*pair)
    unpickling.clear()
    with pytest.raises(pa.ArrowInvalid, match="twice"):
        read_parquet(data, "file")
    assert unpickling == []


@pytest.mark.parametrize("stand_in", ["ARROW:schem.", "ARROW:extension:nam."])
def test_the_keys_that_the_check_puts_in_their_place(
    unpickling: list[bytes], stand_in: str
) -> None:
    """A file that holds them could show the check another schema than the reader."""
    field = _field()
    if "extension" in stand_in:
        field = field.with_metadata({**field.metadata, stand_in.encode(): b"arrow.json"})
    data = parquet(field, [b"1"])
    if "schem." in stand_in:
        plain = parquet(pa.field("c", pa.large_binary()), [b"1"])
        data = _twice(plain, data).replace(b"ARROW:schema", b"ARROW:schem.", 1)
    unpickling.clear()
    with pytest.raises(pa.ArrowInvalid, match="holds the key"):
        read_parquet(data, "file")
    assert unpickling == []


@pytest.mark.parametrize(
    "detail", [b"\x80\x04K\x01.", b"cos\nsystem\n(S'true'\ntR.", b"", b'"x"', b"[null]"]
)
@pytest.mark.parametrize(
    "name", [TENSOR, "ray.data.arrow_tensor", "ray.data.arrow_variable_shaped_tensor"]
)
def test_a_tensor_whose_shape_may_be_a_pickle(name: str, detail: bytes) -> None:
    storage = pa.large_list(pa.uint8())
    data = parquet(pa.field("c", **extension(storage, name, detail)), [[1, 2]])
    with pytest.raises(UserError, match=name):
        read_parquet(data, "file")


@pytest.mark.parametrize(
    "write",
    [
        lambda: pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((3, 2, 2), np.uint8)),
        lambda: pa.array(["a", "b", "a"]).dictionary_encode(),
        lambda: pa.array([b"1", b"2", None], pa.binary_view()),
        lambda: pa.array(["x"] * 3, pa.large_string()),
        lambda: pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}'] * 3)),
    ],
)
def test_what_is_plain_is_read_as_ever(write: Callable[[], pa.Array]) -> None:
    table = pa.table({"c": write(), "d": [1, 2, 3]}).replace_schema_metadata({"huggingface": "{}"})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=2)
    assert read_parquet(buffer.getvalue(), "file").equals(pq.read_table(buffer))
    assert read_parquet(buffer.getvalue(), "file", ["d"]).column_names == ["d"]


def test_a_wide_footer_is_read_whole() -> None:
    names = [f"column-{number:05d}" for number in range(3000)]
    table = pa.table({name: [1] for name in names})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    assert len(buffer.getvalue()) > 1 << 17
    assert open_parquet(buffer, "file").schema_arrow.names == names


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:6],
        lambda data: data[:-1],
        lambda data: data[:-8] + b"\xff\xff\xff\x7fPAR1",
        lambda data: data[:-8] + b"\x01\x00\x00\x00PAR1",
        lambda data: data[:-4] + b"PARE",
        lambda data: b"PAR1PAR1",
        lambda data: data.replace(b"ARROW:schema", b"ARROW:schem."),
    ],
)
def test_damaged_files_are_told_as_such(damage: Callable[[bytes], bytes]) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), buffer)
    with pytest.raises((pa.ArrowInvalid, OSError)):
        read_parquet(damage(buffer.getvalue()), "file")
