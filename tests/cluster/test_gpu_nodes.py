"""A run on two GPUs, as far as Ray knows, with one or both lost in each of its stages."""

from __future__ import annotations

import os
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
pytestmark = pytest.mark.slow
QUICK = {
    f"RAY_health_check_{name}": value
    for name, value in (
        ("initial_delay_ms", "1000"),
        ("period_ms", "1000"),
        ("timeout_ms", "1000"),
        ("failure_threshold", "3"),
    )
}
# what lies in the storage as the stage works
DURING = {
    "ingest": "artifacts/ingest/*/parts/*.json",
    "extract": "artifacts/extract/*/parts/*.json",
    "select": "artifacts/extract/*/manifest.json",
    "reweight": "artifacts/reweight/*/state*",
    "broadcast": "artifacts/reweight/*/manifest.json",
    "train": "runs/*/checkpoints/*/*/state.pt",
}


def run(tree: dict[str, Any], folder: Path, *options: str) -> tuple[int, str]:
    (folder / "job.yaml").write_text(parse_job(tree).to_yaml())
    environment = {
        **os.environ,
        **QUICK,
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "disabled",
        "RAY_worker_niceness": "0",
    }
    done = subprocess.run(
        [sys.executable, "tests/cluster/gpu_nodes.py", str(folder / "job.yaml"), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=500,
    )
    sys.stdout.write(done.stdout)
    assert "Traceback" not in done.stdout
    return done.returncode, done.stdout


def tree_of(data: Path, folder: Path, **resources: Any) -> dict[str, Any]:
    tree = chain_tree(data, folder / "store")
    tree["resources"] |= resources
    return tree


@pytest.mark.parametrize("stage", DURING)
def test_one_gpu_lost_and_another_come(
    stage: str, chain: Chain, parted_data: Path, tmp_path: Path
) -> None:
    """Work that one GPU can do goes on; the training waits for its second. The result is that of CPUs."""
    tree = tree_of(parted_data, tmp_path)
    if stage == "reweight":
        tree["reweight"]["epochs"] = 1500
    waits = stage in ("extract", "train")
    back = ("--back-when", "train waits") if waits else ("--back", "12")
    code, output = run(tree, tmp_path, "--strike", DURING[stage], *back)
    assert code == 0
    assert "2 workers of a GPU and 1 CPU on 2 nodes" in output
    assert "lost node" in output
    assert "RESOURCES {'workers': 2, 'device': 'GPU'" in output
    if waits:
        assert "train waits (0 s of 600) for 1 more GPU" in output
        assert "train goes on" in output
    if stage != "reweight":
        mine = run_stages(parse_job(tree), "train")
        for name, table, column in (
            ("extract", "features", "feature"),
            ("broadcast", "weights", "weight"),
        ):
            values, wanted = (common.column(c.table(name, table), column) for c in (mine, chain))
            np.testing.assert_allclose(values, wanted, rtol=1e-5, err_msg=f"{table}.{column}")


@pytest.mark.parametrize("stage", ["extract", "reweight", "train"])
def test_both_gpus_lost_for_good_end_with_one_line(
    stage: str, parted_data: Path, tmp_path: Path
) -> None:
    """It never goes on with CPUs."""
    tree = tree_of(parted_data, tmp_path, wait_minutes=0.15)
    tree["reweight"]["epochs"] = 1500
    strikes = ("--strike", DURING[stage]) * 2
    code, output = run(tree, tmp_path, *strikes)
    assert code == 1
    missing = "2 more GPUs" if stage == "train" else "a GPU"
    assert f"{stage} waits (0 s of 9) for {missing} (" in output
    (ended,) = [line for line in output.splitlines() if line.startswith("ENDED")]
    assert ended.startswith(
        f"ENDED resources.wait_minutes: {stage} has waited 0.15 minutes for {missing} ("
    )
    assert "python cluster/gpus.py" in ended


def test_gpus_of_the_type_that_is_asked_for(parted_data: Path, tmp_path: Path) -> None:
    tree = tree_of(parted_data, tmp_path, workers="auto", accelerator_type="T4")
    code, output = run(tree, tmp_path, "--types", "A100", "T4")
    assert code == 0
    assert "1 worker of a GPU (T4) and 1 CPU on 2 nodes" in output
    tree["resources"]["accelerator_type"] = "H100"
    tree["storage"] = str(tmp_path / "other")
    code, output = run(tree, tmp_path, "--types", "A100", "T4")
    assert code == 1
    (ended,) = [line for line in output.splitlines() if line.startswith("ENDED")]
    assert ended == (
        "ENDED resources.accelerator_type: no node has 'H100', there are A100, T4; give one that is there, "
        "or leave it out for any"
    )


def test_one_gpu_lost_for_good_ends_the_training_that_needs_two(
    parted_data: Path, tmp_path: Path
) -> None:
    tree = tree_of(parted_data, tmp_path, wait_minutes=0.15)
    code, output = run(tree, tmp_path, "--strike", DURING["extract"])
    assert code == 1
    assert "ENDED resources.wait_minutes: train has waited 0.15 minutes for 1 more GPU" in output
