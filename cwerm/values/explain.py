"""What is wrong with a job, in the words a person would use: from pydantic's errors and our schema."""

from __future__ import annotations

import json
from typing import Any

from cwerm.errors import did_you_mean

Schema = dict[str, Any]
LONGEST_VALUE = 60
CHOOSES = "method"  # the key on which the other keys of a section can depend
OWN = "module:Class"  # what stands for all methods of users' own


def explain(error: Any, schema: Schema) -> str:
    """One line for one of pydantic's errors about a tree that should have the JSON ``schema``."""
    if error["type"] == "extra_forbidden":
        return _unknown_key([str(part) for part in error["loc"]], schema)
    if error["type"] == "invalid_key":
        key = ".".join(str(part) for part in error["loc"] if part != "[key]")
        return f"{key}: keys are text; remove this one or correct its name"
    keys, expected = _field(error["loc"], schema)
    key = ".".join(keys)
    if error["type"] == "union_tag_invalid":
        given, names = error["ctx"]["tag"], sorted(_branches(expected, schema))
        hint = did_you_mean(given, names) or f"; choose one of {', '.join(names)}"
        return f"{key}.{CHOOSES}: unknown value '{given}'{hint}"
    if error["type"] == "value_error":
        return f"{key}: {error['ctx']['error']}"
    if error["type"] == "missing":
        needed = expected.get("required", [])
        key = ".".join([*keys, *needed])  # of a missing section, the key that it must hold
        return f"{key}: this key is required; add it to the job file"
    if "properties" in expected and isinstance(error["input"], str | int | float | list):
        return (
            f"{key}: got {_show(error['input'])}, should be a section of keys; "
            f"indent them below '{key}:'"
        )
    given, names = error["input"], _names(expected)
    if isinstance(given, str) and given and names and expected.keys() >= {"enum"}:
        hint = did_you_mean(given, names) or f"; choose one of {', '.join(names)}"
        return f"{key}: unknown value '{given}'{hint}"
    return f"{key}: got {_show(given)}, should be {_describe(expected, given)}"


def _unknown_key(parts: list[str], schema: Schema) -> str:
    """The key, with near names of its section, or else the sections that do have such a key."""
    *sections, last = parts
    keys, parent = _field(sections, schema)
    parts = [*keys, last]
    others = _methods_with(last, keys, schema)
    if others:
        chosen = parent["properties"][CHOOSES].get("const", "another")
        return f"{'.'.join(parts)}: a key of {CHOOSES} {' and '.join(others)}; here it is {chosen}"
    hint = did_you_mean(last, parent["properties"])
    elsewhere = [
        f"{name}.{last}"
        for name, field in schema["properties"].items()
        if any(
            last in branch.get("properties", {})
            for branch in (_resolve(field, schema), *_branches(field, schema).values())
        )
    ]
    if elsewhere:
        hint = f"; did you mean {' or '.join(repr(name) for name in elsewhere)}?"
    listed = f" (known: {', '.join(parent['properties'])})"
    return f"{'.'.join(parts)}: unknown key{hint or listed}"


def _field(location: Any, schema: Schema) -> tuple[list[str], Schema]:
    """The keys in an error's location (what follows them names branches of a type), and their schema."""
    keys, field = [], schema
    for part in location:
        branches = _branches(field, schema)
        if part in branches:  # not a key, but which of the methods has it
            field = branches[part]
            continue
        if part not in field.get("properties", {}):
            break
        keys.append(part)
        field = _resolve(field["properties"][part], schema)
    return keys, field


def _branches(field: Schema, schema: Schema) -> dict[str, Schema]:
    """By method, the schemas of a section whose keys depend on its method."""
    found = [_resolve(branch, schema) for branch in field.get("oneOf", [])]
    return {
        branch["properties"][CHOOSES].get("const", OWN): branch
        for branch in found
        if CHOOSES in branch.get("properties", {})
    }


def _methods_with(key: str, section: list[str], schema: Schema) -> list[str]:
    """The methods that have the key, of a section whose keys depend on its method."""
    if len(section) != 1:
        return []
    branches = _branches(schema["properties"][section[0]], schema)
    return [name for name, branch in branches.items() if key in branch["properties"]]


def _resolve(field: Schema, schema: Schema) -> Schema:
    return schema["$defs"][field["$ref"].rpartition("/")[2]] if "$ref" in field else field


def _names(field: Schema) -> list[str]:
    return [str(name) for name in field.get("enum", [])]


def _describe(field: Schema, given: Any) -> str:
    """What the field takes: ``a whole number of at least 1 or 'auto'``."""
    if "anyOf" in field:
        *most, last = [_describe(branch, given) for branch in field["anyOf"]]
        return f"{', '.join(most)} or {last}"
    if "enum" in field:
        return " or ".join(f"'{name}'" for name in _names(field))
    if "const" in field:
        return f"'{field['const']}'"
    if "properties" in field:
        return "a section of keys"
    kind = field["type"]
    if kind == "string" and "pattern" in field:
        return (
            "text of letters, digits, '.', '_' and '-' that starts with a letter or digit"
            + _in_quotes(given)
        )
    if kind == "string":
        return ("text" if given != "" else "text that is not empty") + _in_quotes(given)
    words = {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "null": "null",
        "array": "a list",
        "object": "keys with values",
    }
    if kind == "array" and "minItems" in field and field["minItems"] == field.get("maxItems"):
        return f"a list of {field['minItems']}"
    return words[kind] + _range(field)


def _in_quotes(given: Any) -> str:
    return " (put it in quotes)" if isinstance(given, bool | int | float) else ""


def _range(field: Schema) -> str:
    bounds = [
        ("minimum", "of at least"),
        ("exclusiveMinimum", "above"),
        ("maximum", "at most"),
        ("exclusiveMaximum", "below"),
    ]
    words = [f"{word} {field[name]}" for name, word in bounds if name in field]
    return f" {' and '.join(words)}" if words else ""


def _show(value: Any) -> str:
    if isinstance(value, str):
        text = f"'{value}'"
    elif isinstance(value, dict | list | bool) or value is None:
        text = json.dumps(value, default=str)
    else:
        text = str(value)
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."
