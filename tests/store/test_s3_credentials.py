"""Credentials stay in nothing that is written, pickled, printed or told."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from object_store import ACCESS_KEY, BUCKET, HOST, SECRET_KEY, s3_prefix  # noqa: F401

from cwerm.data.catalog import open_source
from cwerm.errors import UserError
from cwerm.job.surroundings import S3
from cwerm.job.tree import Job, parse_job
from cwerm.store.s3 import client as s3_client
from cwerm.store.storage import fetch, filesystem, open_storage

SPAWN = multiprocessing.get_context("spawn")
JOB = {"data": {"source": "sample"}}


def make_job(**s3: Any) -> Job:
    return parse_job({**JOB, "s3": s3})


PROGRAM = """
import sys
from cwerm.job.tree import load_job
from cwerm.upkeep.garbage import collect_garbage
from cwerm.pipeline import plan

job = load_job(sys.argv[1])
steps = plan(job)
store = steps.store
store.storage.check_writable()
steps.execute("ingest")
store.storage.write_bytes("runs/run/job.yaml", job.to_yaml().encode())
collect_garbage(job.storage, delete=False, older_than_hours=0)
print(repr(job), repr(store.storage), vars(store.storage), store.storage.client)
store.storage.write_bytes("x" * 2000, b"")
"""


def test_credentials_are_in_nothing_that_is_written_or_printed(
    s3_prefix: str,  # noqa: F811
    small_data: Path,
    tmp_path: Path,
) -> None:
    storage = open_storage(f"{s3_prefix}/store")
    source = open_storage(f"{s3_prefix}/data")
    source.upload(small_data / "train.parquet", "train.parquet")
    job = parse_job(
        {"data": {"source": source.root, "rows_per_part": 200}, "storage": storage.root}
    )
    (tmp_path / "job.yaml").write_text(job.to_yaml())
    logs = Path(tempfile.mkdtemp(prefix="ray-"))  # Ray's sockets need a short path
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "job.yaml")],
        capture_output=True,
        text=True,
        env={**os.environ, "RAY_TMPDIR": str(logs)},
        timeout=300,
    )
    assert "UserError" in done.stderr, "the last line of the program fails"
    assert "part markers" in done.stdout
    texts = [done.stdout.encode(), done.stderr.encode(), (tmp_path / "job.yaml").read_bytes()]
    texts += [storage.read_bytes(entry.path) for entry in storage.walk("")]
    ray_logs = [path for path in logs.rglob("*") if path.is_file()]
    assert len(ray_logs) > 10
    texts += [path.read_bytes() for path in ray_logs]
    shutil.rmtree(logs)
    for text in texts:
        _assert_unseen(text)


def _assert_unseen(text: bytes) -> None:
    for secret in (ACCESS_KEY, SECRET_KEY):
        assert secret.encode() not in text


def _planted_errors(prefix: str, tmp_path: Path) -> list[Any]:
    secret_host = f"http://{ACCESS_KEY}:{SECRET_KEY.replace('/', '')}@127.0.0.1:9"
    url = f"s3://{ACCESS_KEY}:{SECRET_KEY.replace('/', '')}@{BUCKET}/x"
    return [
        lambda: next(open_storage("s3://no-such-bucket/x").walk("a")),
        lambda: open_storage(prefix).write_bytes("x" * 2000, b""),
        lambda: open_storage(prefix, S3(endpoint="http://127.0.0.1:9")).check_writable(),
        lambda: open_storage(prefix, S3(profile="none")).read_bytes("a"),
        lambda: make_job(endpoint=secret_host),
        lambda: make_job(secret_key=SECRET_KEY),
        lambda: open_storage(url),
        lambda: filesystem(url),
        lambda: open_source(url),
        lambda: filesystem(f"{prefix}?access_key={ACCESS_KEY}"),
        lambda: fetch(f"{prefix}/none", tmp_path),
        lambda: open_source(f"{prefix}/none"),
    ]


@pytest.mark.parametrize("case", range(12))
def test_credentials_are_in_no_error(
    case: int,
    s3_prefix: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3_client, "PATIENCE_SECONDS", 0.5)
    with pytest.raises(UserError) as caught:
        _planted_errors(s3_prefix, tmp_path)[case]()
    _assert_unseen(repr(caught.value).encode())
    assert SECRET_KEY.replace("/", "") not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["http://user:{}@127.0.0.1:9", "{}", "ftp://{}@h"])
def test_credentials_in_the_endpoint_variable_are_not_told(
    wrong: str,
    s3_prefix: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", wrong.format("planted-password"))
    monkeypatch.setattr(s3_client, "PATIENCE_SECONDS", 0.5)
    with pytest.raises(UserError) as caught:
        open_storage(s3_prefix).read_bytes("a")
    assert "planted-password" not in str(caught.value)


def test_no_credentials_at_all(s3_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/none")
    with pytest.raises(UserError, match="no S3 credentials; set AWS_ACCESS_KEY_ID"):
        open_storage(s3_prefix).read_bytes("a")


def test_pickles_hold_no_credentials(s3_prefix: str) -> None:  # noqa: F811
    storage = open_storage(s3_prefix)
    storage.check_writable()
    for thing in (storage, filesystem(s3_prefix)):
        _assert_unseen(pickle.dumps(thing))
