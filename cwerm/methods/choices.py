"""The sections ``reweight`` and ``broadcast`` of a job: one of the methods, each with its own keys."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Discriminator, SerializeAsAny, Tag
from pydantic_core import PydanticUndefined

from cwerm.methods import reweighting, spreading
from cwerm.methods.own import OwnReweighting, OwnSpreading
from cwerm.methods.reweighting import Reweighting
from cwerm.methods.spreading import Spreading
from cwerm.values import Section
from cwerm.values.explain import OWN


def _by_name(package: ModuleType, base: type[Section]) -> dict[str, Any]:
    """The methods of a package by their names."""
    found = {}
    for module in pkgutil.iter_modules(package.__path__):
        name = f"{package.__name__}.{module.name}"
        for _, kind in inspect.getmembers(importlib.import_module(name), inspect.isclass):
            if issubclass(kind, base) and kind.__module__ == name:
                method = kind.model_fields["method"].default
                if method is not PydanticUndefined:  # else it is what some methods have in common
                    found[method] = kind
    return found


def _name_in(value: Any) -> str:
    """Which of the methods the keys of a section are those of."""
    name = value.get("method") if isinstance(value, dict) else getattr(value, "method", None)
    return "" if name is None else OWN if ":" in str(name) else str(name)


def _one_of(methods: dict[str, Any], own: Any, usual: str) -> Any:
    tagged = [Annotated[kind, Tag(name)] for name, kind in {**methods, OWN: own}.items()]
    choose = Discriminator(lambda value: _name_in(value) or usual)
    return Annotated[Union[tuple(tagged)], choose]  # noqa: UP007 - of as many as there are files


REWEIGHTING: dict[str, type[Reweighting]] = _by_name(reweighting, Reweighting)
SPREADING: dict[str, type[Spreading]] = _by_name(spreading, Spreading)
METHODS: Mapping[str, Mapping[str, type[Section]]] = {
    "reweight": REWEIGHTING,
    "broadcast": SPREADING,
}

if TYPE_CHECKING:
    AnyReweighting = Reweighting
    AnySpreading = Spreading
else:
    AnyReweighting = SerializeAsAny[_one_of(REWEIGHTING, OwnReweighting, "posterior")]
    AnySpreading = SerializeAsAny[_one_of(SPREADING, OwnSpreading, "function")]


def keys_of_others(section: str, name: Any, keys: Iterable[str]) -> list[str]:
    """Those of a section's keys that the method of that name does not have, and others do.

    Of ``auto``, and of a user's own, those that not every method has.
    """
    has = {method: kind.model_fields.keys() for method, kind in METHODS.get(section, {}).items()}
    if not has or not isinstance(name, str):
        return []
    if name in has:
        own = set(has[name])
    elif name == "auto" or ":" in name:
        own = set.intersection(*map(set, has.values()))
    else:
        return []  # no method: said where the job is checked
    return sorted((set().union(*has.values()) - own) & set(keys))


def resolve(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree of a job with ``auto``, the default of both methods, as what it stands for.

    The posterior where neither is given, else Meta-Weight-Net, which fits any way of spreading; and what
    suits the reweighting.
    """
    reweight, broadcast = (
        {} if tree.get(key) is None else tree[key] for key in ("reweight", "broadcast")
    )
    if not isinstance(reweight, dict) or not isinstance(broadcast, dict):
        return tree  # said where the tree is checked
    learned, spread = (section.get("method", "auto") for section in (reweight, broadcast))
    if learned == "auto":
        both = spread == "auto" and tree.get("method") != "w-erm"
        learned = "posterior" if both else "metaweightnet"
    if spread == "auto":
        kind = REWEIGHTING.get(learned) if isinstance(learned, str) else None
        spread = (kind or Reweighting).spreading
    return {
        **tree,
        "reweight": {**reweight, "method": learned},
        "broadcast": {**broadcast, "method": spread},
    }
