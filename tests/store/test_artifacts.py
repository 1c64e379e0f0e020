"""The artifact store: all or nothing, one winner, resumed parts, damage named, keys."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from object_store import s3_prefix, storage_uri  # noqa: F401
from small_artifacts import flip, make, meta_table

from cwerm.store.artifacts import Artifact, ArtifactStore, artifact_key
from cwerm.store.storage import open_storage
from cwerm.store.writing import Writer

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def store(storage_uri: str) -> ArtifactStore:  # noqa: F811
    return ArtifactStore(open_storage(storage_uri))


def test_what_is_committed_is_found(store: ArtifactStore) -> None:
    made = make(store)
    found = store.find("select", "key")
    assert found == made
    assert found.rows("meta") == 6
    assert found.info == {"extra": [1, 2]}
    assert store.read(found, "meta").equals(meta_table(0, 6))
    assert store.read_part(found, "meta", 1, ["id"]).column("id").to_pylist() == [3, 4, 5]
    assert store.read_file(found, "notes.txt") == b"words"


def test_the_manifest_tells_how_the_artifact_was_made(store: ArtifactStore) -> None:
    made = make(store)
    manifest = json.loads(store.storage.read_bytes(f"{made.folder}/manifest.json"))
    assert manifest["parameters"] == {"seed": 0}
    assert manifest["versions"]["numpy"] == np.__version__
    for part, entry in zip(made.tables["meta"], manifest["tables"]["meta"], strict=True):
        data = store.storage.read_bytes(f"{made.folder}/{part.path}")
        assert entry["bytes"] == len(data)
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert entry["rows"] == pq.read_table(io.BytesIO(data)).num_rows


def test_nothing_is_found_before_the_commit(store: ArtifactStore) -> None:
    writer = Writer(store, "select", "key", {})
    writer.write_part("meta", 0, meta_table(0))
    writer.write_file("notes.txt", b"words")
    assert store.find("select", "key") is None
    assert store.find("select", "other") is None


def _die_before_commit(uri: str) -> None:
    writer = Writer(ArtifactStore(open_storage(uri)), "select", "key", {})
    writer.write_part("meta", 0, meta_table(0), "c")
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_writer_killed_before_commit_leaves_only_its_parts(store: ArtifactStore) -> None:
    process = SPAWN.Process(target=_die_before_commit, args=(store.storage.root,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert store.find("select", "key") is None
    later = Writer(store, "select", "key", {})
    finished = later.finished_part("meta", 0, "c")
    assert finished
    assert finished.rows == 3
    assert later.finished_part("meta", 1, "c") is None
    made = later.commit({"meta": [finished, later.write_part("meta", 1, meta_table(3))]})
    assert store.read(made, "meta").equals(meta_table(0, 6))


def _commit_own(uri: str, barrier: Any, writer: int, rounds: int, results: Any) -> None:
    store = ArtifactStore(open_storage(uri))
    for round_ in range(rounds):
        attempt = Writer(store, "select", f"key-{round_}", {})
        attempt.write_file("author", str(writer).encode())
        barrier.wait()
        artifact = attempt.commit({})
        author = store.read_file(artifact, "author").decode()
        results.put((round_, writer, author, artifact.files["author"].path))


def test_concurrent_processes_end_with_one_artifact(store: ArtifactStore) -> None:
    writers, rounds = 4, 10
    barrier, results = SPAWN.Barrier(writers), SPAWN.Queue()
    arguments = (store.storage.root, barrier)
    processes = [
        SPAWN.Process(target=_commit_own, args=(*arguments, writer, rounds, results))
        for writer in range(writers)
    ]
    for process in processes:
        process.start()
    entries = [results.get(timeout=60) for _ in range(writers * rounds)]
    for process in processes:
        process.join()
    for round_ in range(rounds):
        outcomes = {(author, path) for r, _, author, path in entries if r == round_}
        assert len(outcomes) == 1, "all writers return the winner's artifact"


def test_concurrent_threads_end_with_one_artifact(local: ArtifactStore) -> None:
    for round_ in range(50):
        barrier = threading.Barrier(2)

        def write(author: int, round_: int = round_, barrier: Any = barrier) -> Artifact:
            writer = Writer(local, "select", f"key-{round_}", {})
            part = writer.write_part("meta", 0, meta_table(author))
            barrier.wait()
            return writer.commit({"meta": [part]})

        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(write, [0, 1])
        assert first.tables == second.tables
        found = local.find("select", f"key-{round_}")
        assert found
        assert found.tables == first.tables


def test_of_two_writers_of_a_part_the_first_counts(store: ArtifactStore) -> None:
    first, second = (Writer(store, "select", "key", {}) for _ in range(2))
    assert second.finished_part("meta", 0, "c") is None
    published = first.write_part("meta", 0, meta_table(0), "c")
    assert second.write_part("meta", 0, meta_table(0), "c") == published
    assert second.finished_part("meta", 0, "c") is None, "looked up once"
    assert Writer(store, "select", "key", {}).finished_part("meta", 0, "c") == published


def test_of_two_writers_of_other_rows_each_keeps_its_own(store: ArtifactStore) -> None:
    first, second = (Writer(store, "select", "key", {}) for _ in range(2))
    first.write_part("meta", 0, meta_table(0), "of these")
    own = second.write_part("meta", 0, meta_table(6), "of those")
    assert own.path.startswith(second.attempt)
    assert store.read(second.commit({"meta": [own]}), "meta").equals(meta_table(6))


def test_a_part_made_for_something_else_is_not_taken_over(local: ArtifactStore) -> None:
    first, second = (Writer(local, "select", "key", {}) for _ in range(2))
    made = first.write_part("meta", 0, meta_table(0), "of these")
    assert second.finished_part("meta", 0, "of these") == made
    assert second.write_part("meta", 0, meta_table(3), "of these") == made
    assert second.finished_part("meta", 0, "of those") is None
    assert second.write_part("meta", 0, meta_table(3), "of those") != made


def test_a_part_of_a_short_stage_is_not_published(local: ArtifactStore) -> None:
    Writer(local, "select", "key", {}).write_part("meta", 0, meta_table(0))
    assert not [*local.storage.walk("artifacts/select/key/parts")]


def test_a_published_part_that_is_gone_or_cut_short_is_made_again(local: ArtifactStore) -> None:
    for damage in (Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1]), flip):
        writer = Writer(local, "select", "key", {})
        published = writer.write_part("meta", 0, meta_table(0), "c")
        damage(Path(local.storage.root, "artifacts/select/key", published.path))
        later = Writer(local, "select", "key", {})
        assert later.finished_part("meta", 0, "c") is None
        again = later.write_part("meta", 0, meta_table(0), "c")
        assert later.finished_part("meta", 0, "c") == again


@pytest.mark.parametrize("marker", [b"", b"{", b"\xff\xfe", b"[]", b'{"path": "x"}', b"null"])
def test_a_garbage_marker_counts_as_no_part(local: ArtifactStore, marker: bytes) -> None:
    writer = Writer(local, "select", "key", {})
    writer.write_part("meta", 0, meta_table(0), "c")
    local.storage.write_bytes("artifacts/select/key/parts/meta-00000.json", marker)
    later = Writer(local, "select", "key", {})
    assert later.finished_part("meta", 0, "c") is None
    part = later.write_part("meta", 0, meta_table(0), "c")
    assert local.read(later.commit({"meta": [part]}), "meta").equals(meta_table(0))


def test_a_table_of_another_schema_is_refused(local: ArtifactStore) -> None:
    writer = Writer(local, "select", "key", {})
    with pytest.raises(AssertionError, match="table meta"):
        writer.write_part("meta", 0, pa.table({"id": [1]}))


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
PARAMETERS = st.dictionaries(st.text(min_size=1), PLAIN, max_size=4)


@given(PARAMETERS, st.lists(st.text(), max_size=3), st.data())
def test_the_key_changes_with_every_parameter_and_input(
    parameters: dict[str, Any], inputs: list[str], data: st.DataObject
) -> None:
    key = artifact_key("select", parameters, inputs)
    assert key == artifact_key("select", dict(reversed(parameters.items())), list(inputs))
    assert key != artifact_key("extract", parameters, inputs)
    assert key != artifact_key("select", parameters, [*inputs, "another"])
    assert key != artifact_key("select", {**parameters, "a new one": 1}, inputs)
    for name in parameters:
        other = data.draw(
            PLAIN.filter(lambda v, n=name: json.dumps(v) != json.dumps(parameters[n]))
        )
        assert key != artifact_key("select", {**parameters, name: other}, inputs)
    for position in range(len(inputs)):
        changed = [*inputs[:position], inputs[position] + "x", *inputs[position + 1 :]]
        assert key != artifact_key("select", parameters, changed)
