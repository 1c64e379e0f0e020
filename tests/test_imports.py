"""The arrows between the rooms, read from the source, and what a light start must not load."""

from __future__ import annotations

import ast
import builtins
import dis
import importlib
import subprocess
import sys
import types
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cwerm"
# What each room, a folder or a file of cwerm, may import of the others: only what stands above it here.
BASE = {"errors", "terminal", "values", "job"}
ALLOWED = {
    "errors": set[str](),
    "algorithms": set[str](),
    "terminal": {"errors"},
    "values": {"errors"},
    "methods": {"errors", "values", "algorithms"},
    "job": {"errors", "values", "methods"},
    "store": BASE,
    "data": BASE | {"store"},
    "runtime": BASE | {"store", "data"},
    "stages": BASE | {"algorithms", "methods", "store", "data", "runtime"},
    "suspects": BASE | {"algorithms", "store", "data", "stages"},
    "runs": BASE | {"algorithms", "store", "data", "runtime", "stages", "suspects"},
    "pipeline": BASE | {"store", "runtime", "stages", "runs"},
    "finding": BASE | {"algorithms", "store", "data", "stages", "suspects", "runs", "pipeline"},
    "predicting": BASE | {"algorithms", "store", "data", "runtime", "stages", "runs"},
    "forecast": BASE | {"algorithms", "data", "store", "stages", "pipeline", "runs"},
    "reports": BASE | {"algorithms", "store", "stages", "suspects", "runs"},
    "sweeps": BASE | {"store", "runtime", "reports", "pipeline"},
    "submission": BASE | {"data", "runtime", "sweeps"},
    "upkeep": BASE | {"store", "runtime", "runs"},
    "cli": BASE
    | {
        "pipeline",
        "forecast",
        "finding",
        "predicting",
        "reports",
        "runs",
        "sweeps",
        "submission",
        "upkeep",
    },
    "cwerm": BASE | {"algorithms", "pipeline", "runs"},
}
CROWDED = 15  # files in a folder
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
def test_a_file_imports_only_rooms_above_its_own(path: Path) -> None:
    own = room(path)
    assert rooms_imported(path.read_text()) - {own} <= ALLOWED[own]


def test_the_list_of_rooms_goes_one_way() -> None:
    seen = set[str]()
    for own, allowed in ALLOWED.items():
        assert allowed <= seen, own
        seen.add(own)


def test_no_circle_of_files() -> None:
    modules = {
        ".".join(("cwerm", *path.relative_to(PACKAGE).with_suffix("").parts)): path
        for path in FILES
    }
    named = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    arrows = {}
    for name, path in named.items():
        found = {full if full in named else full.rpartition(".")[0] for full in loaded(path)}
        arrows[name] = (found & named.keys()) - {name, "cwerm"}
    assert arrows["cwerm.pipeline"] > {"cwerm.runs.folder", "cwerm.stages.train"}
    TopologicalSorter(arrows).prepare()  # raises CycleError


def loaded(path: Path) -> set[str]:
    """What a file imports when it runs, not only for a type checker."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    return imports(ast.unparse(tree))


def test_the_root_holds_folders_and_little_else() -> None:
    loose = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert loose == {"__init__.py", "pipeline.py", "errors.py", "py.typed"}


def test_no_folder_is_crowded() -> None:
    folders = Counter(path.parent for path in FILES if path.name != "__init__.py")
    assert max(folders.values()) <= CROWDED, folders.most_common(3)


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


def test_every_name_is_defined() -> None:
    """Shapes in annotations look like names, so that the linter is told to look away in `algorithms`."""
    missing = []
    for path in sorted((PACKAGE / "algorithms").rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        known = {*vars(importlib.import_module(name.removesuffix(".__init__"))), *dir(builtins)}
        code = [compile(path.read_text(), str(path), "exec")]
        while code:
            part = code.pop()
            loaded = {i.argval for i in dis.get_instructions(part) if i.opname == "LOAD_GLOBAL"}
            missing += [f"{name}: {unknown}" for unknown in loaded - known]
            code += [inner for inner in part.co_consts if isinstance(inner, types.CodeType)]
    assert missing == []
