"""No call in the package can make objects of bytes that it reads, but for those that look first."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "cwerm"
# Modules that load programs along with data, and the one file that restricts what they may make.
LOADERS = {
    "pickle", "_pickle", "cloudpickle", "ray.cloudpickle", "dill", "marshal", "shelve", "joblib",
    "jsonpickle", "torch.package",
}  # fmt: skip
RESTRICTED = {"data/public/cifar.py"}
# Parquet and Arrow are opened in one place, which looks at the types first.
ARROW = {
    "read_table", "ParquetFile", "ParquetDataset", "read_metadata", "read_schema", "read_pandas",
    "open_file", "open_stream", "read_feather", "dataset", "read_parquet", "RecordBatchFileReader",
}  # fmt: skip
LOOKS_FIRST = {"store/plain_types.py"}
FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all",
    "yaml.unsafe_load_all", "yaml.full_load_all", "torch.hub.load", "torch.jit.load",
    "pandas.read_pickle", "pandas.read_hdf", "torch.serialization.load", "torch.export.load",
    "ray.tune.Tuner.restore", "ray.tune.ResultGrid", "ray.tune.ExperimentAnalysis",
    "ray.data.read_numpy", "timm.models.load_checkpoint", "timm.models.resume_checkpoint",
}  # fmt: skip
SAFE_ARGUMENT = {
    "torch.load": ("weights_only", "True"),
    "timm.models.load_state_dict": ("weights_only", "True"),
    "torch.hub.load_state_dict_from_url": ("weights_only", "True"),
}
YAML_LOADERS = {"_Loader", "yaml.SafeLoader", "SafeLoader"}


def findings(source: str, name: str = "file.py") -> Iterator[str]:
    """What can run code in a source file named ``name`` below the package."""
    tree = ast.parse(source)
    names = dict(_imported(tree))
    annotations = {id(part) for whole in _annotations(tree) for part in ast.walk(whole)}
    for node in ast.walk(tree):
        if id(node) in annotations:
            continue
        if isinstance(node, ast.Import | ast.ImportFrom) and name not in RESTRICTED:
            yield from (f"{node.lineno}: {module}" for module in _modules(node) & LOADERS)
        # a reference counts as a call: it may be called under another name
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            called = _full_name(node, names)
            if called in FORBIDDEN:
                yield f"{node.lineno}: {called}"
            is_arrow = called.startswith(("pyarrow", "ray.data.", "pandas."))
            if is_arrow and called.rpartition(".")[2] in ARROW and name not in LOOKS_FIRST:
                yield f"{node.lineno}: {called}"
        if isinstance(node, ast.Call):
            yield from _arguments(node, _full_name(node.func, names))


def _annotations(tree: ast.AST) -> Iterator[ast.AST]:
    """What only says of which type something is."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
            yield node.annotation
        elif isinstance(node, ast.FunctionDef) and node.returns:
            yield node.returns


def _arguments(node: ast.Call, called: str) -> Iterator[str]:
    given = {word.arg: ast.unparse(word.value) for word in node.keywords}
    wanted = SAFE_ARGUMENT.get(called)
    if wanted and given.get(wanted[0]) != wanted[1]:
        yield f"{node.lineno}: {called} without {wanted[0]}={wanted[1]}"
    if given.get("allow_pickle", "False") != "False":
        yield f"{node.lineno}: {called} with allow_pickle"
    if called == "numpy.load" and len(node.args) > 2:
        yield f"{node.lineno}: {called} with allow_pickle"
    if called == "yaml.load":
        loader = given.get("Loader") or (ast.unparse(node.args[1]) if len(node.args) > 1 else "")
        if loader not in YAML_LOADERS:
            yield f"{node.lineno}: {called} with Loader {loader!r}"


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (top, top)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _modules(node: ast.Import | ast.ImportFrom) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    return {f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)}


def _full_name(node: ast.AST, names: dict[str, str]) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([names.get(node.id, node.id), *parts])


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads as read",
        "import ray.cloudpickle as other",
        "from ray import cloudpickle",
        "import torch\ntorch.load(file)",
        "import torch as t\nt.load(file, weights_only=False)",
        "from torch import load\nload(file, 'cpu')",
        "import timm\ntimm.models.load_state_dict(path)",
        "import numpy as np\nnp.load(file, allow_pickle=True)",
        "import numpy\nnumpy.load(file, None, True)",
        "import yaml\nyaml.load(text, yaml.Loader)",
        "import yaml\nyaml.load(text)",
        "from yaml import unsafe_load",
        "import pyarrow.parquet as pq\npq.read_table(file)",
        "import pyarrow as pa\npa.parquet.ParquetFile(file)",
        "import pyarrow as pa\npa.ipc.open_file(file)",
        "import ray\nread = ray.data.read_parquet",
        "from ray import tune\ntune.Tuner.restore(path, function)",
        "from ray.tune import Tuner\nTuner.restore(path, function)",
        "eval(text)",
    ],
)
def test_what_runs_code_is_seen(line: str) -> None:
    source = f"def f(file, text, path, function):\n    {line.replace(chr(10), chr(10) + '    ')}"
    assert [*findings(source)] or (
        "from yaml" in line and [*findings(f"{source}\n    unsafe_load(text)")]
    )


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_no_file_of_the_package_can_run_what_it_reads(path: Path) -> None:
    assert [*findings(path.read_text(), str(path.relative_to(PACKAGE)))] == []
