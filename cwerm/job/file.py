"""Job files: strict YAML to a tree of plain values, and the command line's overrides."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from cwerm.errors import UserError, did_you_mean
from cwerm.job.training import OF_INPUT, Train
from cwerm.methods.choices import keys_of_others

INPUT = "train.input"
EXAMPLE = "see jobs/quickstart.yaml for an example"


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, as everywhere but in YAML 1.1, and no key comes twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key '{key}' comes twice", problem_mark=key_node.start_mark
                )
            if key is not None:
                seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_tree(path: str | Path) -> dict[str, Any]:
    """The mapping in a job file.

    Raises:
        UserError: the file is missing, or no YAML mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such job file; {EXAMPLE}") from None
    except IsADirectoryError:
        raise UserError(f"{path}: this is a folder; give a job file in it") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: this is no text; give a YAML job file, {EXAMPLE}") from None
    except OSError as error:
        raise UserError(
            f"{path}: can't be read ({error.strerror}); check the path and its permissions"
        ) from None
    try:
        tree = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid YAML: {_problem(error)}; {EXAMPLE}") from None
    if tree is None:
        raise UserError(f"{path}: this file is empty; {EXAMPLE}")
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a job file is a mapping of keys; {EXAMPLE}")
    return tree


def apply_override(tree: dict[str, Any], override: str, sections: Sequence[str]) -> list[str]:
    """Set the key of ``section.key=value``, the value in YAML; what `set_key` left out.

    Raises:
        UserError: it is not written so, names a whole section, or its value is no YAML.
    """
    key, separator, value = override.partition("=")
    if not separator or not all(key.split(".")):
        raise UserError(f"'{override}': an override is written section.key=value")
    try:
        return set_key(tree, key, yaml.load(value, _Loader), sections)
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{key}: '{value}' is not a YAML value; put it in quotes") from None


def methods_first(keys: Iterable[str]) -> list[str]:
    """In the order in which they are set: what is set for a method is not left out with the one before."""

    def later(key: str) -> bool:
        name = key.partition("=")[0]
        return name != INPUT and not name.endswith(".method")

    return sorted(keys, key=later)


def set_key(tree: dict[str, Any], key: str, value: Any, sections: Sequence[str]) -> list[str]:
    """Set ``section.key`` or a top-level key to ``value``.

    Another method, or another input of the training, leaves out the section's keys that belong to the one
    before, which are returned.
    """
    section, dot, last = key.rpartition(".")
    if key in sections:
        raise UserError(f"{key}: this is a section; set one of its keys, {key}.KEY=VALUE")
    if not dot:
        tree[key] = value
        return []
    if section not in sections:
        hint = did_you_mean(section, sections) or f" (sections: {', '.join(sections)})"
        raise UserError(f"{key}: '{section}' is not a section of the job{hint}")
    below = tree.get(section) or {}
    if not isinstance(below, dict):
        return []  # the check of the whole job will say so
    idle = keys_of_others(section, value, below) if last == "method" else []
    if key == INPUT and value != below.get(last, Train.model_fields[last].default):
        idle = [name for name in OF_INPUT if name in below]
    kept = {name: given for name, given in below.items() if name not in idle}
    tree[section] = {**kept, last: value}
    return [f"{section}.{name}" for name in idle]


def _problem(error: Exception) -> str:
    """What YAML says, in one line, with the place."""
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    mark = getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}: {problem}" if mark else problem
