"""What a server refuses or lacks is said at once, in one line that names the setting and the remedy."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import pytest
from object_store import BUCKET, s3_prefix  # noqa: F401
from s3_servers import Asked, Relay, Said, relay

from cwerm.data.catalog import open_source
from cwerm.errors import UserError
from cwerm.job.surroundings import S3
from cwerm.store.storage import S3Storage, filesystem, open_storage

Answer = Callable[[Asked], Said | None]


@pytest.fixture
def before(s3_prefix: str) -> Iterator[Callable[[Answer], tuple[Relay, S3Storage]]]:  # noqa: F811
    """Put a relay before the server, and give the storage behind it."""
    relays = []

    def start(answer: Answer) -> tuple[Relay, S3Storage]:
        relays.append(Relay(os.environ["AWS_ENDPOINT_URL_S3"], answer))
        return relays[-1], S3Storage(s3_prefix, S3(endpoint=relays[-1].address))

    yield start
    for started in relays:
        started.close()


def one_line(error: UserError, *words: str) -> None:
    assert "\n" not in str(error)
    for word in words:
        assert word in str(error)


READ = lambda storage: storage.read_bytes("a")  # noqa: E731
LIST = lambda storage: list(storage.walk("a"))  # noqa: E731
WRITE = lambda storage: storage.write_bytes("a", b"1")  # noqa: E731
PERMANENT = [
    (READ, Said(403, "AccessDenied"), ["s3:GetObject", "AWS_ACCESS_KEY_ID", "s3.requester_pays"]),
    (WRITE, Said(403, "AccessDenied"), ["s3:PutObject", "policy"]),
    (LIST, Said(403, "AccessDenied"), ["s3:ListBucket", "policy"]),
    (READ, Said(403, "InvalidAccessKeyId"), ["AWS_ACCESS_KEY_ID", "s3.endpoint"]),
    (READ, Said(403, "SignatureDoesNotMatch"), ["secret key", "AWS_ACCESS_KEY_ID"]),
    (READ, Said(400, "ExpiredToken"), ["run out", "renew"]),
    (READ, Said(404, "NoSuchBucket"), [f"no bucket '{BUCKET}'", "from s3.endpoint"]),
    (
        READ,
        Said(301, "PermanentRedirect", headers={"x-amz-bucket-region": "eu-west-3"}),
        ["eu-west-3", "s3.region", "AWS_DEFAULT_REGION"],
    ),
    (READ, Said(403, "InvalidObjectState"), ["archived", "restore"]),
    (READ, Said(400, "KMS.DisabledException"), ["key", "kms:Decrypt"]),
    (READ, Said(403, "AccessDenied", "no kms:Decrypt for you"), ["kms:Decrypt"]),
    (WRITE, Said(501, "NotImplemented"), ["checksum headers", "AWS_REQUEST_CHECKSUM_CALCULATION"]),
    (WRITE, Said(507, "XMinioStorageFull"), ["no space"]),
    (READ, Said(418, "<html>teapot</html>"), ["418"]),
]


@pytest.mark.parametrize(
    ("action", "said", "words"), PERMANENT, ids=lambda value: getattr(value, "code", None)
)
def test_what_will_not_pass_is_said_at_once(
    action: Callable[[S3Storage], object], said: Said, words: list[str], before: Callable[..., Any]
) -> None:
    asked, storage = before(lambda asked: said)
    with pytest.raises(UserError) as caught:
        action(storage)
    one_line(caught.value, storage.uri("a"), *words)
    assert len(asked.asked) <= 2  # a redirect is followed once


def test_a_clock_that_is_off(before: Callable[..., Any]) -> None:
    def answer(asked: object) -> Said:  # its date is made as it answers
        headers = {"date": formatdate(time.time() - 7200)}
        return Said(403, "RequestTimeTooSkewed", headers=headers)

    _, storage = before(answer)
    with pytest.raises(UserError) as caught:
        READ(storage)
    one_line(caught.value, storage.uri("a"), "clock", "by +12", "NTP")


@pytest.mark.parametrize("status", [400, 403])
def test_the_reason_that_an_answer_to_head_has_no_room_for(
    status: int, before: Callable[..., Any]
) -> None:
    _, storage = before(lambda asked: Said(status, "ExpiredToken"))
    with pytest.raises(UserError, match=r"have run out \(ExpiredToken\)"):
        storage.stat("a")


def test_servers_that_lack_what_commits_need(before: Callable[..., Any]) -> None:
    def conditions(asked: Asked) -> Said | None:
        return Said(501, "NotImplemented") if "if-none-match" in asked.headers else None

    def ignored(asked: Asked) -> Said | None:
        return Said(200, "") if "if-none-match" in asked.headers else None

    def checksums(asked: Asked) -> Said | None:
        has = any(name.startswith("x-amz-checksum") for name in asked.headers)
        return Said(501, "NotImplemented") if has else None

    def listing(asked: Asked) -> Said | None:
        return Said(403, "AccessDenied") if "list-type" in asked.path else None

    def deletion(asked: Asked) -> Said | None:
        return Said(403, "AccessDenied") if asked.method == "DELETE" else None

    def anything(asked: Asked) -> Said | None:
        return Said(200, "")

    for answer, words in (
        (conditions, ["NotImplemented", "conditional writes (If-None-Match)", "use a server"]),
        (ignored, ["ignores If-None-Match", "use a server"]),
        (checksums, ["NotImplemented", "AWS_REQUEST_CHECKSUM_CALCULATION=when_required"]),
        (listing, ["s3:ListBucket"]),
        (deletion, ["s3:DeleteObject"]),
        (anything, ["can't be written"]),
    ):
        _, storage = before(answer)
        with pytest.raises(UserError) as caught:
            storage.check_writable()
        one_line(caught.value, f"storage: '{storage.root}' can't be written (", *words)


def test_the_remedy_for_checksums_is_one(
    before: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def checksums(asked: Asked) -> Said | None:
        has = any(name.startswith("x-amz-checksum") for name in asked.headers)
        return Said(501, "NotImplemented") if has else None

    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    _, storage = before(checksums)
    storage.check_writable()


def test_a_bucket_whose_readers_pay(s3_prefix: str) -> None:  # noqa: F811
    def pays(asked: Asked) -> Said | None:
        return None if "x-amz-request-payer" in asked.headers else Said(403, "AccessDenied")

    open_storage(s3_prefix).write_bytes("cat/1.png", b"1")
    open_storage(s3_prefix).write_bytes("dog/1.png", b"2")
    with relay(os.environ["AWS_ENDPOINT_URL_S3"], pays) as server:
        with pytest.raises(UserError) as caught:
            open_source(s3_prefix, s3=S3(endpoint=server.address))
        one_line(caught.value, "AccessDenied", "set s3.requester_pays=true")
        settings = S3(endpoint=server.address, requester_pays=True)
        source = open_source(s3_prefix, s3=settings)
        (chunk,) = source.chunks("train", 10)
        assert [sample.image for sample in source.read(chunk)] == [b"1", b"2"]


def test_an_object_that_is_written_anew_while_it_is_read(s3_prefix: str) -> None:  # noqa: F811
    storage = open_storage(s3_prefix)
    storage.write_bytes("a", bytes(1000))
    system, root = filesystem(f"{s3_prefix}/a")
    with system.open_input_file(root) as file:
        assert file.read(10) == bytes(10)
        storage.write_bytes("a", b"1" * 1000)
        with pytest.raises(UserError, match=r"/a: the object changed while it was read; run again"):
            file.read(10)
