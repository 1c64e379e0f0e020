"""How often a bucket is asked, counted on the way to a real server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from object_store import BUCKET, s3_prefix  # noqa: F401
from s3_servers import Relay, relay
from store.small_artifacts import meta_table

from cwerm.store.artifacts import ArtifactStore, CorruptArtifactError
from cwerm.store.claims import claimed
from cwerm.store.storage import open_storage
from cwerm.store.writing import Writer

PARTS = 30
PLACE = "select", "0123456789abcdef0123"


@pytest.fixture
def asked(s3_prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ArtifactStore, Relay]]:  # noqa: F811
    import os

    with relay(os.environ["AWS_ENDPOINT_URL_S3"], lambda _: None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.address)
        yield ArtifactStore(open_storage(s3_prefix)), proxy


def kinds(proxy: Relay) -> Counter[str]:
    """Requests since the last look."""
    found = Counter(
        "LIST" if f"/{BUCKET}?" in one.path or f"/{BUCKET}/?" in one.path else one.method
        for one in proxy.asked
    )
    proxy.asked.clear()
    return found


def test_many_parts_are_looked_at_with_few_requests(asked: tuple[ArtifactStore, Relay]) -> None:
    store, proxy = asked
    with claimed(store, *PLACE) as found:
        assert found is None
        assert kinds(proxy) == {"PUT": 1, "LIST": 1}
        writer = Writer(store, *PLACE, {})
        assert not any(writer.finished_part("meta", i, "c") for i in range(PARTS))
        assert not kinds(proxy), "nobody else has been there"
        parts = [writer.write_part("meta", i, meta_table(3 * i), "c") for i in range(PARTS)]
        assert kinds(proxy) == {"PUT": 2 * PARTS}
        store.untouched.clear()
        again = Writer(store, *PLACE, {})
        with ThreadPoolExecutor(8) as threads:
            found = threads.map(lambda i: again.finished_part("meta", i, "c"), range(PARTS))
            assert [*found] == parts
        assert kinds(proxy) == {"LIST": 1, "GET": 2 * PARTS}
        assert [again.finished_part("meta", i, "c") for i in range(PARTS)] == parts
        assert kinds(proxy) == {"GET": 2 * PARTS}
        made = writer.commit({"meta": parts})
        assert kinds(proxy) == {"PUT": 1}
    assert kinds(proxy) == {"DELETE": 1}
    assert store.find(*PLACE) == made
    assert kinds(proxy) == {"GET": 1, "LIST": 1}
    assert store.read(made, "meta").num_rows == 3 * PARTS
    assert kinds(proxy) == {"GET": PARTS}


def test_a_part_that_is_gone_is_noticed(asked: tuple[ArtifactStore, Relay]) -> None:
    store, _ = asked
    writer = Writer(store, *PLACE, {})
    parts = [writer.write_part("meta", i, meta_table(3 * i)) for i in range(2)]
    made = writer.commit({"meta": parts})
    store.storage.delete(f"{made.folder}/{parts[1].path}")
    with pytest.raises(CorruptArtifactError, match=r"meta-00001\.parquet is missing"):
        store.find(*PLACE)
