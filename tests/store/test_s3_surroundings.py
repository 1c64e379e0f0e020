"""What the surroundings say wrongly: profiles, logins, endpoints, proxies; each line names its source."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from object_store import BUCKET, s3_prefix  # noqa: F401
from s3_servers import Asked, Relay, Said, relay, silent_server

from cwerm.data.catalog import open_source
from cwerm.errors import UserError
from cwerm.job.surroundings import S3
from cwerm.job.tree import parse_job
from cwerm.store.s3 import client as s3_client
from cwerm.store.storage import S3Storage, fetch, filesystem, local_path, open_storage
from cwerm.submission.package import is_relative

CONFIG = """
[profile sso]
sso_session = corp
sso_account_id = 123456789012
sso_role_name = Dev
region = us-east-1
[sso-session corp]
sso_start_url = https://example.invalid/start
sso_region = us-east-1
sso_registration_scopes = sso:account:access
[profile old-sso]
sso_start_url = https://example.invalid/start
sso_region = us-east-1
sso_account_id = 123456789012
sso_role_name = Dev
[profile proc]
credential_process = /bin/false
[profile half]
aws_access_key_id = AKIA
[profile elsewhere]
endpoint_url = localhost:9000
[profile role]
role_arn = arn:aws:iam::123456789012:role/x
source_profile = none
[profile bundle]
ca_bundle = /none/ca.pem
endpoint_url = https://127.0.0.1:9
aws_access_key_id = A
aws_secret_access_key = B
"""


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of AWS of our own, and nothing in the variables."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text(CONFIG)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


def refused(settings: S3 | None = None) -> str:
    with pytest.raises(UserError) as caught:
        open_storage("s3://bucket/x", settings).read_bytes("a")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ("none", ["there is no profile 'none'", "~/.aws/config"]),
        ("sso", ["profile 'sso'", "aws sso login --profile sso"]),
        ("old-sso", ["profile 'old-sso'", "aws sso login --profile old-sso"]),
        ("proc", ["credential_process of profile 'proc'", "failed"]),
        ("half", ["half of the S3 credentials", "aws_secret_access_key"]),
        ("elsewhere", ["endpoint in profile 'elsewhere'", "http://"]),
        ("role", ["profile 'role'", "none"]),
        ("bundle", ["ca_bundle in profile 'bundle'", "/none/ca.pem"]),
    ],
)
def test_profiles_that_can_not_be_used(
    profile: str, words: list[str], profiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", profile)
    for settings, key in ((None, "AWS_PROFILE"), (S3(profile=profile), "s3.profile")):
        line = refused(settings)
        for word in words:
            assert word in line
        assert key in line or profile == "half"


def test_who_gives_credentials_is_not_waited_for(
    profiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with silent_server() as address, (profiles / "config").open("a") as config:
        config.write(
            f"[profile sts]\nrole_arn = arn:aws:iam::123456789012:role/x\nsource_profile = keys\n"
            f"region = us-east-1\nendpoint_url = {address}\n"
            "[profile keys]\naws_access_key_id = A\naws_secret_access_key = B\n"
        )
        config.flush()
        monkeypatch.setenv("AWS_PROFILE", "sts")
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", address)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.2:9")
        monkeypatch.setattr(s3_client, "LOGIN_SECONDS", 0.3)
        started = time.monotonic()
        line = refused()
        assert time.monotonic() - started < 10
    assert "profile 'sts' of AWS_PROFILE asks 127.0.0.1 for credentials" in line
    assert "silent" in line


def test_files_of_aws_that_are_none(profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (profiles / "config").write_text("no ini file\n")
    assert str(profiles / "config") in refused()
    monkeypatch.delenv("AWS_CONFIG_FILE")
    assert "no S3 credentials" in refused()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ENDPOINT_URL_S3", "localhost:9000"),
        ("AWS_ENDPOINT_URL_S3", "s3://x"),
        ("AWS_ENDPOINT_URL_S3", "http://"),
        ("AWS_ENDPOINT_URL_S3", "http://host:99999"),
        ("AWS_ENDPOINT_URL_S3", "http://[::1"),
        ("AWS_ENDPOINT_URL_S3", "http://two words"),
        ("AWS_ENDPOINT_URL", "127.0.0.1:8333"),
        ("AWS_REQUEST_CHECKSUM_CALCULATION", "never"),
        ("AWS_DEFAULT_REGION", "eu west"),
    ],
)
def test_variables_that_can_not_be_used(
    name: str, value: str, profiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv(name, value)
    line = refused()
    assert name in line or value in line
    assert "AWS" in line


# --- proxies ---------------------------------------------------------------------------------------


@pytest.fixture
def proxy(s3_prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:  # noqa: F811
    def answer(asked: Asked) -> Said | None:
        return None if asked.headers["host"].startswith("s3.away.test") else Said(502, "<html>")

    started = Relay(os.environ["AWS_ENDPOINT_URL_S3"], answer)
    monkeypatch.setenv("http_proxy", started.address.replace("//", "//me:planted-password@"))
    monkeypatch.setattr(s3_client, "FIRST_SECONDS", 0.3)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield started
    started.close()


def test_a_server_behind_a_proxy(proxy: Relay, s3_prefix: str) -> None:  # noqa: F811
    storage = S3Storage(s3_prefix, S3(endpoint="http://s3.away.test"))
    storage.check_writable()
    assert proxy.asked[0].path.startswith("http://s3.away.test/")


def test_a_server_here_is_not_looked_for_through_a_proxy_in_silence(
    proxy: Relay,
    s3_prefix: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UserError) as caught:
        open_storage(s3_prefix).check_writable()
    line = str(caught.value)
    assert f"the proxy {proxy.address} of http_proxy" in line
    assert "no_proxy=127.0.0.1" in line
    assert "planted-password" not in line
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    open_storage(s3_prefix).check_writable()
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(
        UserError, match=r"proxy can't be reached.*http://127.0.0.1:9 of http_proxy"
    ):
        open_storage(s3_prefix).check_writable()


# --- addresses -------------------------------------------------------------------------------------


def test_a_scheme_in_capitals(s3_prefix: str, tmp_path: Path) -> None:  # noqa: F811
    loud = s3_prefix.replace("s3://", "S3://")
    storage = open_storage(loud)
    storage.write_bytes("data/cat/1.png", b"1")
    storage.write_bytes("data/dog/2.png", b"2")
    assert storage.uri("a") == f"{s3_prefix}/a"
    system, root = filesystem(loud)
    assert root == s3_prefix.removeprefix("s3://")
    assert system.open_input_file(f"{root}/data/cat/1.png").read() == b"1"
    assert fetch(f"{loud}/data/dog/2.png", tmp_path).read_bytes() == b"2"
    source = open_source(f"{loud}/data")
    assert [s.image for chunk in source.chunks("train", 9) for s in source.read(chunk)] == [
        b"1",
        b"2",
    ]
    job = parse_job({"storage": loud, "data": {"source": loud}})
    assert (job.storage, job.data.source) == (s3_prefix, s3_prefix)
    assert open_storage(f"{s3_prefix}/data/").root == f"{s3_prefix}/data"


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3:///prefix", "names no bucket"),
        ("s3://", "names no bucket"),
        ("s3:bucket/x", "two slashes"),
        ("s3://bucket/a#b", "without '@', '?' and '#'"),
        ("s3://key@bucket/a", "credentials"),
    ],
)
def test_addresses_that_are_none(uri: str, words: str) -> None:
    for open_ in (open_storage, filesystem, open_source):
        with pytest.raises(UserError) as caught:
            open_(uri)  # type: ignore[operator]
        assert words in str(caught.value)
    for key in ("storage", "data"):
        tree: dict[str, Any] = {"data": {"source": "sample"}}
        tree[key] = uri if key == "storage" else {"source": uri}
        with pytest.raises(UserError, match=r"^storage: |^data\.source: ") as caught:
            parse_job(tree)
        assert words in str(caught.value)


def test_local_addresses(tmp_path: Path) -> None:
    place = tmp_path / "a b"
    place.mkdir()
    (place / "x").write_bytes(b"1")
    for uri in (
        f"file://{tmp_path}/a%20b",
        f"FILE://{tmp_path}/a%20b",
        f"file://localhost{tmp_path}/a%20b",
        f"file:{tmp_path}/a%20b",
    ):
        assert local_path(uri) == place
        assert open_storage(uri).read_bytes("x") == b"1"
        assert not is_relative(uri)
    assert local_path(f"{tmp_path}/a%20b") == tmp_path / "a%20b"
    assert is_relative("file://images")
    assert not is_relative(f"S3://{BUCKET}/x")


def test_odd_keys_are_each_read_once_in_their_class(s3_prefix: str) -> None:  # noqa: F811
    storage = open_storage(s3_prefix)
    classes = ["a+b", "c d", "50%25", "#1?", "é&ü", "x=y;z", "~t'", "[q]", "a:b"]
    names = ["im g+#%20?é.png", "50% off.png", "%41.png"]
    client = storage.client  # type: ignore[attr-defined]
    for number, kind in enumerate(classes):
        for name in names:
            storage.write_bytes(f"{kind}/{name}", bytes([number]))
        client.put_object(Bucket=BUCKET, Key=f"{s3_prefix.rpartition('/')[2]}/{kind}/")
    source = open_source(s3_prefix)
    samples = [s for chunk in source.chunks("train", 99) for s in source.read(chunk)]
    assert len(samples) == len({s.path for s in samples}) == len(classes) * len(names)
    assert all(classes[s.image[0]] == s.label for s in samples)  # type: ignore[index]


@pytest.mark.parametrize("key", ["a//b.png", "a/../b.png", "./b.png"])
def test_keys_that_are_no_paths(key: str, s3_prefix: str) -> None:  # noqa: F811
    prefix = s3_prefix.rpartition("/")[2]
    entry = (
        f"<Contents><Key>{prefix}/{key}</Key><Size>1</Size>"
        "<LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
    )

    def answer(asked: Asked) -> Said | None:
        if "list-type" in asked.path:
            return Said(200, f"<ListBucketResult>{entry}</ListBucketResult>")
        return Said(404, "NoSuchKey")

    with (
        relay(os.environ["AWS_ENDPOINT_URL_S3"], answer) as server,
        pytest.raises(UserError) as caught,
    ):
        open_source(s3_prefix, s3=S3(endpoint=server.address))
    assert str(caught.value).startswith(f"data.source: {s3_prefix}/{key}: ")
    assert "rename the object" in str(caught.value)
