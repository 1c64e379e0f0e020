"""Two Ray nodes give the weights of one, also where one of the two is lost during extract."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stages.conftest import CHAIN, Chain, chain, chain_tree, parted_data, run_stages

from cwerm.config import parse_job
from cwerm.stages import common

__all__ = ["chain", "parted_data"]  # fixtures
ROOT = Path(__file__).parents[2]


def run_on_two_nodes(data: Path, folder: Path, *options: str) -> tuple[Chain, str]:
    job = parse_job(chain_tree(data, folder / "store"))
    (folder / "job.yaml").write_text(job.to_yaml())
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "disabled",
        "RAY_worker_niceness": "0",
    }
    done = subprocess.run(
        [sys.executable, "tests/cluster/two_nodes.py", str(folder / "job.yaml"), *options],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    made = run_stages(job, CHAIN)
    return made, done.stdout


def assert_same_rows(found: Chain, expected: Chain) -> None:
    assert np.array_equal(common.column(found.table("extract", "features"), "id"), np.arange(400))
    for stage, table, name in (
        ("extract", "features", "feature"),
        ("select", "coreset", "id"),
        ("broadcast", "weights", "weight"),
        ("broadcast", "weights", "neighbor_id"),
    ):
        values, wanted = (common.column(c.table(stage, table), name) for c in (found, expected))
        np.testing.assert_allclose(values, wanted, rtol=1e-5, err_msg=f"{table}.{name}")


@pytest.mark.slow
def test_two_nodes_give_the_weights_of_one(chain: Chain, parted_data: Path, tmp_path: Path) -> None:
    made, output = run_on_two_nodes(parted_data, tmp_path)
    assert "nodes at the end: 2" in output
    assert_same_rows(made, chain)


@pytest.mark.slow
def test_a_lost_node_loses_and_repeats_no_row(
    chain: Chain, parted_data: Path, tmp_path: Path
) -> None:
    made, output = run_on_two_nodes(parted_data, tmp_path, "--lose")
    assert "lost a node after" in output
    assert "nodes at the end: 1" in output
    assert_same_rows(made, chain)
