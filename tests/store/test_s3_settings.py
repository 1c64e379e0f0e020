"""How a bucket is reached: the job's section ``s3``, the AWS variables."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import socket
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from object_store import ACCESS_KEY, BUCKET, HOST, SECRET_KEY, s3_prefix  # noqa: F401
from pyarrow import fs

from cwerm.data.catalog import open_source
from cwerm.errors import UserError
from cwerm.job.surroundings import S3
from cwerm.job.tree import Job, parse_job
from cwerm.store.storage import S3Storage, fetch, filesystem, open_storage

SPAWN = multiprocessing.get_context("spawn")
JOB = {"data": {"source": "sample"}}


def make_job(**s3: Any) -> Job:
    return parse_job({**JOB, "s3": s3})


@pytest.fixture
def endpoint(s3_prefix: str, monkeypatch: pytest.MonkeyPatch) -> str:  # noqa: F811
    """The server's address, which no variable tells."""
    address = os.environ["AWS_ENDPOINT_URL_S3"]
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    return address


@pytest.fixture
def profile(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A profile that holds the credentials, which no variable tells."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    file.write_text(
        f"[away]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    return "away"


def _urls(storage: S3Storage) -> list[str]:
    """The addresses of the requests from now on."""
    urls: list[str] = []
    storage.client.meta.events.register(
        "before-send.s3", lambda request, **_: urls.append(request.url)
    )
    return urls


def _write(storage: S3Storage) -> None:
    storage.write_bytes("from-worker", b"1")


def test_the_job_says_how_workers_reach_the_bucket(
    endpoint: str,
    profile: str,
    s3_prefix: str,  # noqa: F811
) -> None:
    job = make_job(endpoint=endpoint, region="us-east-1", profile=profile)
    storage = open_storage(s3_prefix, job.s3)
    storage.check_writable()
    worker = SPAWN.Process(target=_write, args=(storage,))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    assert storage.read_bytes("from-worker") == b"1"
    system, root = pickle.loads(pickle.dumps(filesystem(s3_prefix, job.s3)))
    assert system.open_input_file(f"{root}/from-worker").read() == b"1"


def test_sources_and_weights_use_the_same_settings(
    endpoint: str,
    s3_prefix: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    settings = S3(endpoint=endpoint, region="us-east-1")
    storage = open_storage(s3_prefix, settings)
    pq.write_table(pa.table({"image": [b"1", b"2"], "label": ["a", "b"]}), tmp_path / "t.parquet")
    storage.upload(tmp_path / "t.parquet", "parquet/t.parquet")
    storage.write_bytes("folder/a b/1.png", b"1")
    storage.write_bytes("folder/c/2.png", b"2")
    for name in ("parquet", "folder"):
        source = pickle.loads(pickle.dumps(open_source(f"{s3_prefix}/{name}", s3=settings)))
        (chunk,) = open_source(f"{s3_prefix}/{name}", s3=settings).chunks("train", 10)
        assert sorted(sample.image for sample in source.read(chunk)) == [b"1", b"2"]
    assert fetch(f"{s3_prefix}/folder/c/2.png", tmp_path, settings).read_bytes() == b"2"


@pytest.mark.parametrize("style", ["path", "virtual", "auto"])
def test_addressing_styles(
    style: Any,
    endpoint: str,
    s3_prefix: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    look_up, host = socket.getaddrinfo, f"{BUCKET}.{HOST}"

    def resolve(name: str, *arguments: Any, **keywords: Any) -> Any:  # what DNS does elsewhere
        here = name in (HOST, host)
        return look_up("127.0.0.1" if here else name, *arguments, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    named = endpoint.replace("127.0.0.1", HOST)
    settings = S3(endpoint=named, region="us-east-1", addressing_style=style)
    storage = S3Storage(s3_prefix, settings)
    urls = _urls(storage)
    assert storage.write_bytes("a b/ü", b"1", if_absent=True)
    assert not storage.write_bytes("a b/ü", b"1", if_absent=True)
    assert storage.read_bytes("a b/ü") == b"1"
    assert [entry.path for entry in storage.walk("a b")] == ["a b/ü"]
    start = named.replace(HOST, host) + "/" if style == "virtual" else f"{named}/{BUCKET}"
    assert urls
    assert all(url.startswith(start) for url in urls)


def test_keys_of_data_are_the_same_however_it_is_reached() -> None:
    from cwerm.pipeline import plan

    keys = {plan(job)["ingest"].key for job in (make_job(), make_job(region="eu-west-1"))}
    assert len(keys) == 1


def test_the_file_system_lists_folders_as_pyarrow_does(
    s3_prefix: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    storage = open_storage(s3_prefix)
    names = ["a/b/c.txt", "a/d.txt", "e.txt", "f/g/h/i.txt"]
    for name in names:
        storage.write_bytes(name, name.encode())
    ours, root = filesystem(s3_prefix)
    theirs, other_root = fs.FileSystem.from_uri(s3_prefix)
    assert root == other_root
    for base in (root, f"{root}/a", f"{root}/f"):
        for recursive in (True, False):
            selector = fs.FileSelector(base, recursive=recursive)
            found, expected = (
                {(i.path, i.type, i.size) for i in system.get_file_info(selector)}
                for system in (ours, theirs)
            )
            assert found == expected
    for path in ("", "/a", "/a/d.txt", "/none"):
        assert ours.get_file_info(root + path).type == theirs.get_file_info(root + path).type
    for system in (ours, theirs):
        with pytest.raises(FileNotFoundError):
            system.get_file_info(fs.FileSelector(f"{root}/none"))
        for open_ in (system.open_input_file, system.open_input_stream):
            with pytest.raises(FileNotFoundError):
                open_(f"{root}/none")
    # Ray Train proves by a file that nodes share the storage; of a bucket it need not be asked
    proof = f"{root}/run/.validate_storage_marker"
    with ours.open_output_stream(proof) as stream:
        stream.write(b"")
    assert ours.get_file_info(proof).type == fs.FileType.File
    assert not [*storage.walk("run")]
    local = str(tmp_path / "copy")
    fs.copy_files(root, local, source_filesystem=ours)
    fs.copy_files(local, f"{root}/copied", destination_filesystem=ours)
    assert {n: storage.read_bytes(f"copied/{n}") for n in names} == {n: n.encode() for n in names}
    stream = ours.open_output_stream(f"{root}/half")
    stream.write(b"half")
    del stream
    gc.collect()
    assert storage.size("half") is None
    ours.delete_dir(f"{root}/copied")
    ours.delete_file(f"{root}/e.txt")
    assert {entry.path for entry in storage.walk("")} == {*names} - {"e.txt"}


@pytest.mark.parametrize(
    ("key", "value"),
    [("endpoint", "localhost:9000"), ("endpoint", "s3://x"), ("addressing_style", "host")],
)
def test_wrong_settings_name_their_key(key: str, value: str) -> None:
    with pytest.raises(UserError, match=rf"^s3\.{key}: "):
        make_job(**{key: value})
