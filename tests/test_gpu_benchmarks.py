"""The benchmarks of a GPU run, in small, where neither Ray nor FAISS nor pydantic is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

GPU = Path(__file__).parents[1] / "benchmarks/gpu"
ABSENT = ("ray", "faiss", "pydantic", "boto3", "pandas", "rich")


@pytest.fixture
def without_packages(tmp_path: Path) -> dict[str, str]:
    """Surroundings in which these can't be imported."""
    folder = tmp_path / "absent"
    folder.mkdir()
    for name in ABSENT:
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} is absent')\n")
    return {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.parametrize("part", ["train", "extract", "meta", "compile", "whole"])
def test_it_runs_in_small(part: str, tmp_path: Path, without_packages: dict[str, str]) -> None:
    command = [sys.executable, str(GPU), str(tmp_path / "out"), "--only", part, "--small"]
    done = subprocess.run(
        command, env=without_packages, capture_output=True, text=True, timeout=300, check=False
    )
    told = [
        line for line in done.stderr.splitlines() if "No CUDA runtime" not in line
    ]  # of a compiler
    assert (done.returncode, told) == (0, [])
    kept = json.loads((tmp_path / "out" / f"{part}.json").read_text())
    assert kept["small"]
    for row in kept["rows"]:
        assert row["ours"] > 0
        assert row["bare"] > 0
        assert f"| {row['name']} |" in done.stdout
