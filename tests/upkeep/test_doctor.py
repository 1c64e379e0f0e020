"""What `cwerm doctor` says of packages, disks and a bucket."""

from __future__ import annotations

import os
import time
from email.utils import formatdate
from pathlib import Path

import pytest
from object_store import s3_prefix  # noqa: F401
from s3_servers import Asked, Said, relay

from cwerm.terminal import console
from cwerm.upkeep import doctor


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is printed; a package is missing, so that nothing starts Ray."""
    lines: list[str] = []
    monkeypatch.setattr(doctor, "IMPORTED", ("boto3", "no_such_package"))
    monkeypatch.setattr(console.out, "print", lambda text, **_: lines.append(text))
    return lines


def test_a_package_that_is_missing(said: list[str], tmp_path: Path) -> None:
    (problem,) = doctor.examine(str(tmp_path / "store"), None)
    assert "no_such_package" in problem
    text = "\n".join(said)
    assert "no_such_package can't be imported (No module named" in text
    assert "boto3 1." in text
    assert "GiB free in " in text
    assert "/dev/shm" in text or not os.path.isdir("/dev/shm")
    assert f"storage {tmp_path}/store: can be written" in text


def test_a_bucket_and_its_clock(
    said: list[str],
    s3_prefix: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def slow_clock(asked: Asked) -> Said | None:
        if "max-keys=1" not in asked.path:
            return None
        body = "<ListBucketResult></ListBucketResult>"
        return Said(200, body, headers={"date": formatdate(time.time() - 600)})

    doctor.examine(s3_prefix, None)
    text = "\n".join(said)
    server = os.environ["AWS_ENDPOINT_URL_S3"]
    assert f"S3 at {server} of AWS_ENDPOINT_URL_S3, region us-east-1" in text
    assert "the credentials in AWS_ACCESS_KEY_ID" in text
    assert "s from the server's" in text
    assert "machine's clock" not in text
    with relay(server, slow_clock) as late:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", late.address)
        doctor.examine(s3_prefix, None)
    assert "this machine's clock is +10 minutes from that of the S3 server" in "\n".join(said)
