"""Two Ray nodes give the weights of one, also where one of the two is lost midway."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stages.conftest import Chain, chain, chain_tree, run_stages

from cwerm.job.tree import parse_job
from cwerm.stages import common

__all__ = ["chain"]  # a fixture
ROOT = Path(__file__).parents[2]


def run_on_two_nodes(tree: dict[str, Any], folder: Path, *options: str) -> tuple[Chain, str]:
    job = parse_job(tree)
    (folder / "job.yaml").write_text(job.to_yaml())
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
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
    return run_stages(job, options[0]), done.stdout


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
    made, output = run_on_two_nodes(
        chain_tree(parted_data, tmp_path / "store"), tmp_path, "broadcast"
    )
    assert "nodes at the end: 2" in output
    assert_same_rows(made, chain)


@pytest.mark.slow
def test_a_node_lost_during_extract_loses_and_repeats_no_row(
    chain: Chain, parted_data: Path, tmp_path: Path
) -> None:
    pattern = "artifacts/extract/*/parts/*.json"
    tree = chain_tree(parted_data, tmp_path / "store")
    made, output = run_on_two_nodes(tree, tmp_path, "broadcast", pattern)
    assert "struck after" in output
    assert "lost node" in output
    assert "nodes at the end: 1" in output
    assert_same_rows(made, chain)


@pytest.mark.slow
def test_elastic_training_goes_on_with_the_workers_that_are_left(
    parted_data: Path, tmp_path: Path
) -> None:
    """Four workers of one CPU each on two nodes of two; two are left, and no epoch is lost."""
    tree = chain_tree(parted_data, tmp_path / "store")
    tree["method"] = "erm"
    tree["train"] |= {"epochs": 8}
    tree["resources"] = {"workers": 4, "min_workers": 1}
    made, output = run_on_two_nodes(tree, tmp_path, "train", "runs/*/checkpoints/*/*/state.pt")
    assert "nodes at the end: 1" in output
    assert "goes on after epoch" in output
    history = json.loads(made.store.read_file(made.made["train"], "history.json"))
    assert [epoch["epoch"] for epoch in history] == [*range(8)]
    workers = [epoch["workers"] for epoch in history]
    assert (workers[0], workers[-1]) == (4, 2)
    assert workers == sorted(workers, reverse=True)
    assert history[-1]["train_loss"] < history[0]["train_loss"]
