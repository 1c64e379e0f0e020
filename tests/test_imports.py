"""The arrows between the rooms, read from the source, and what a light start must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cwerm"
BASE = {"config", "sections", "errors", "schema", "console"}
# What each room may import of cwerm besides itself; a file directly in cwerm is a room of its own.
ALLOWED = {
    "errors": set[str](),
    "console": set[str](),
    "addresses": {"errors"},
    "sections": {"addresses"},
    "config": {"errors", "explain", "job_file", "sections"},
    "explain": {"errors"},
    "job_file": {"errors"},
    "schema": {"errors"},
    "algorithms": set[str](),
    "exclusive": set[str](),
    "objects": {"errors", "exclusive"},
    "s3_settings": {"errors", "sections"},
    "s3_outage": set[str](),
    "s3_client": {"console", "s3_outage", "s3_settings", "sections"},
    "s3_errors": {"errors", "sections", "s3_client", "s3_outage", "s3_settings"},
    "s3": BASE | {"addresses", "objects", "s3_client", "s3_errors", "s3_probe", "s3_settings"},
    "s3_probe": {"errors", "s3", "s3_errors"},
    "s3_files": {"errors", "sections", "objects", "s3"},
    "storage": BASE | {"addresses", "objects", "s3", "s3_client", "s3_files"},
    "manifest": {"errors"},
    "artifacts": BASE | {"storage", "manifest"},
    "claims": {"console", "errors", "storage", "artifacts"},
    "summary": {"errors", "manifest", "storage"},
    "reports": {"console", "errors", "runs", "storage", "summary"},
    "sweeps": BASE | {"explain", "job_file", "storage", "reports", "stages", "pipeline"},
    "garbage": BASE | {"objects", "storage", "artifacts"},
    "repair": BASE | {"objects", "storage", "artifacts", "manifest", "summary"},
    "data": BASE | {"algorithms", "storage", "artifacts"},
    "stages": BASE | {"algorithms", "storage", "artifacts", "data"},
    "preflight": BASE | {"algorithms", "storage", "artifacts", "data", "stages"},
}
HEAVY = {"ray", "pyarrow", "boto3", "botocore"}


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "cwerm" if parts == ("__init__",) else parts[0]


def imports(source: str) -> set[str]:
    """Full names of all modules that the source imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_imported(source: str) -> set[str]:
    parts = [name.split(".") for name in imports(source)]
    return {"cwerm" if len(p) == 1 else p[1] for p in parts if p[0] == "cwerm"}


FILES = sorted(PACKAGE.rglob("*.py"))


def test_imports_inside_functions_are_seen() -> None:
    source = (
        "def f():\n    from cwerm.stages import common\n    import ray.data\n    import cwerm.cli"
    )
    assert rooms_imported(source) == {"stages", "cli"}
    assert "ray.data" in imports(source)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_rooms_below_its_own(path: Path) -> None:
    own = room(path)
    found = rooms_imported(path.read_text()) - {own}
    if own in ALLOWED:
        assert found <= ALLOWED[own]
    assert "cli" not in found, "nobody imports the command line"
    if own not in ("cwerm", "cli", "sweep", "sweeps"):
        assert own == "pipeline" or "pipeline" not in found or own == "runs"


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "algorithms").rglob("*.py")), ids=lambda path: path.name
)
def test_algorithms_know_neither_ray_nor_storage(path: Path) -> None:
    tops = {name.split(".")[0] for name in imports(path.read_text())}
    assert not tops & HEAVY


@pytest.mark.parametrize(
    "program",
    [
        "import cwerm",
        "import sys; sys.argv = ['cwerm', '--help']; import cwerm.cli; cwerm.cli.main()",
    ],
    ids=["import cwerm", "cwerm --help"],
)
def test_a_light_start_loads_neither_torch_nor_ray(program: str) -> None:
    check = (
        "import atexit, os, sys\n"
        "def check():\n"
        "    loaded = {'torch', 'ray', 'timm', 'faiss'} & set(sys.modules)\n"
        "    sys.stdout.flush()\n"
        "    os._exit(3 if loaded else 0)\n"
        "atexit.register(check)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", check + program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
