"""What the tests of the store share."""

from __future__ import annotations

from pathlib import Path

import pytest

from cwerm.store.artifacts import ArtifactStore
from cwerm.store.storage import open_storage


@pytest.fixture
def local(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(open_storage(str(tmp_path)))
