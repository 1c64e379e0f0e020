"""The stages with source and storage in a bucket make the rows that they make on local disk.

In a process of their own, as Ray's workers take the AWS variables from where Ray was started.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from object_store import s3_prefix  # noqa: F401
from safetensors.numpy import load

from cwerm.job.tree import parse_job
from cwerm.stages import common
from cwerm.store.storage import open_storage
from stages.conftest import Chain, chain_tree, run_stages

PROGRAM = """
import sys
from cwerm import pipeline
from cwerm.job.tree import load_job

steps = pipeline.plan(load_job(sys.argv[1]), sys.argv[2])
for name in steps.names:
    steps.execute(name)
"""
COMPARED = (
    ("ingest", "images", "id"),
    ("ingest", "given_test_labels", "label"),
    ("label", "labels", "label"),
    ("extract", "features", "feature"),
    ("select", "coreset", "id"),
    ("select", "coreset", "distance"),
    ("select", "meta", "id"),
    ("reweight", "coreset_weights", "weight"),
    ("broadcast", "weights", "weight"),
)


@pytest.mark.slow
@pytest.mark.parametrize("last", ["select", "train"])
def test_source_and_storage_in_a_bucket(
    last: str,
    request: pytest.FixtureRequest,
    parted_data: Path,
    s3_prefix: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    local: Chain = request.getfixturevalue("trained" if last == "train" else "chain")
    source = open_storage(f"{s3_prefix}/data")
    for split in ("train", "test"):
        source.upload(parted_data / f"{split}.parquet", f"{split}.parquet")
    tree = chain_tree(parted_data, tmp_path)
    tree["storage"], tree["data"]["source"] = f"{s3_prefix}/store", f"{s3_prefix}/data"
    job = parse_job(tree)
    (tmp_path / "job.yaml").write_text(job.to_yaml())

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "job.yaml"), last],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        timeout=500,
    )
    assert done.returncode == 0, done.stderr

    remote = run_stages(job, last)
    for stage, table, column in COMPARED:
        if stage in remote.made:
            found, made = (common.column(c.table(stage, table), column) for c in (remote, local))
            assert np.array_equal(found, made), f"{table}.{column}"
    if last == "train":
        found, expected = (
            load(c.store.read_file(c.made["train"], "model.safetensors")) for c in (remote, local)
        )
        for name, value in expected.items():
            assert np.array_equal(found[name], value), name
