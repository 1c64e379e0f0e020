"""What the checks of the files in ``cluster/`` share. A check takes a file's content and raises."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import yaml
from ray.scripts.scripts import start

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
HEALTH = ("initial_delay_ms", "period_ms", "timeout_ms", "failure_threshold")

Tree = dict[str, Any]


def read(name: str) -> str:
    return (CLUSTER / name).read_text()


def load(name: str) -> Tree:
    return yaml.safe_load(read(name))


def require(condition: object, message: str) -> None:
    if not condition:
        raise ValueError(message)


def constraints() -> dict[str, str]:
    """The locked version of each package."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def start_options(command: str) -> Tree:
    """The options of the `ray start` in a shell command, as Ray itself parses them."""
    words = shlex.split(command.split("ray start ", 1)[1].rstrip().rstrip("&"))
    return start.make_context("start", words).params


def check_head_options(options: Tree) -> None:
    require(options["num_cpus"] == 0 and options["num_gpus"] == 0, "the head takes work")


def closed(schema: Tree) -> Tree:
    """The schema with unknown keys refused, as by `kubectl apply --validate=strict`."""
    result = dict(schema)
    if "properties" in schema:
        result["properties"] = {k: closed(v) for k, v in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            result.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            result[key] = closed(schema[key])
    return result
