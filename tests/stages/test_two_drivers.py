"""Two commands started at once on the same job and storage: each artifact is made once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli.commands import process, start, write_job
from object_store import s3_prefix, storage_uri  # noqa: F401

from cwerm import pipeline
from cwerm.job.tree import load_job
from cwerm.runs.summary import load_summary
from cwerm.store.storage import open_storage
from stages.conftest import chain_tree

ATTEMPT = re.compile(r"artifacts/(\w+)/[0-9a-f]{20}/([0-9a-f]{12})/")


@pytest.mark.slow
def test_each_artifact_is_made_once(parted_data: Path, storage_uri: str, tmp_path: Path) -> None:  # noqa: F811
    tree = chain_tree(parted_data, tmp_path)
    tree["storage"], tree["train"]["epochs"] = storage_uri, 2
    job = write_job(tmp_path, tree)
    with start("run", job) as one, start("run", job) as two:
        logs = [running.communicate(timeout=600) for running in (one, two)]
    assert [one.returncode, two.returncode] == [0, 0], logs
    assert [err for _, err in logs] == ["", ""]
    assert any("waits for process" in out for out, _ in logs)

    attempts: dict[str, set[str]] = {}
    for entry in open_storage(storage_uri).walk("artifacts"):
        assert "/claims/" not in entry.path
        found = ATTEMPT.match(entry.path)
        if found:
            attempts.setdefault(found[1], set()).add(found[2])
    steps = pipeline.plan(load_job(job))
    assert set(attempts) == {"label", *steps.names}
    assert {stage: len(names) for stage, names in attempts.items()} == dict.fromkeys(attempts, 1)
    answer = process("run", job)
    answer.succeeded()
    summary = load_summary(f"{storage_uri}/runs/small")
    assert sorted(["label", *summary["reused"]]) == sorted(attempts)
