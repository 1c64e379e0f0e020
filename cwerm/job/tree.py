"""The job: one typed tree. Strict YAML in, resolved YAML out, JSON schema for editors.

Every key has a default except ``data.source``. An unknown key or a wrong type is a `UserError` that
names the key, so that a misspelt setting never runs silently. The keys of the sections are in
`sections` and `surroundings`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from cwerm.errors import UserError
from cwerm.job.explain import explain
from cwerm.job.file import apply_override, read_tree, set_key
from cwerm.job.sections import Broadcast, Coreset, Data, Features, Reweight, Train
from cwerm.job.surroundings import S3, Resources
from cwerm.job.values import Address, Section, Seed

AUTO_BROADCAST = {
    "posterior": "function",
    "metaweightnet": "agreement",
    "l2r": "vote",
    "uniform": "nearest",
}
FIXED_CORESETS = {"w-erm": "all", "c-random-erm": "random", "c-moderate-erm": "moderate"}


class Job(Section):
    """A whole run of ``cwerm``."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "run"
    """Name of the run folder."""
    method: Literal["erm", "w-erm", "c-random-erm", "c-moderate-erm", "cw-erm"] = "cw-erm"
    """``erm``: plain training; ``w-erm``: with weights learned on all samples; ``c-random-erm`` and
    ``c-moderate-erm``: on a coreset alone; ``cw-erm``: with weights learned on the coreset."""
    control: Literal["none", "constant", "permuted", "untrained"] = "none"
    """What a gain must beat: all weights 1, the weights shuffled, or a weight net that never learns."""
    seed: Seed = 0
    """Seed of every random draw."""
    storage: Address = "cwerm-store"
    """Where artifacts and runs lie: a path or ``s3://bucket/prefix``."""
    s3: S3 = S3()
    data: Data
    features: Features = Features()
    coreset: Coreset = Coreset()
    reweight: Reweight = Reweight()
    broadcast: Broadcast = Broadcast()
    train: Train = Train()
    resources: Resources = Resources()

    @property
    def coreset_method(self) -> str:
        """The coreset method that runs, with ``auto`` resolved; some training methods leave no choice."""
        chosen = self.coreset.method
        if chosen == "auto":
            chosen = "random" if self.reweight_method == "posterior" else "moderate"
        return FIXED_CORESETS.get(self.method, chosen)

    @property
    def coreset_ratio(self) -> float | None:
        """Share of the samples in the coreset; None for a reference set of the posterior's own size."""
        posterior = self.reweight_method == "posterior" and not self.trains_on_coreset
        return self.coreset.ratio or (None if posterior else 0.01)

    @property
    def reweight_method(self) -> str:
        """How weights are learned, with ``auto`` resolved."""
        if self.reweight.method != "auto":
            return self.reweight.method
        auto = self.broadcast.method == "auto" and self.method != "w-erm"
        return "posterior" if auto else "metaweightnet"

    @property
    def broadcast_method(self) -> str:
        """How weights reach every sample, with ``auto`` resolved; ``identity`` where all have theirs."""
        if self.method == "w-erm":
            return "identity"
        if self.broadcast.method != "auto":
            return self.broadcast.method
        return AUTO_BROADCAST[self.reweight_method]

    @property
    def neighbors(self) -> int:
        """Coreset samples that the broadcast asks for."""
        default = 10 if self.broadcast_method in ("vote", "agreement") else 1
        return self.broadcast.neighbors or default

    @property
    def has_meta(self) -> bool:
        """Whether there are samples whose labels are known to be right."""
        return bool(self.data.trusted) or self.coreset.meta == "hold_out"

    @property
    def places(self) -> dict[str, str]:
        """By key, the paths and URIs that every node must see."""
        named = {f"data.{key}": getattr(self.data, key) for key in ("source", "test", "trusted")}
        return {key: value for key, value in named.items() if value} | {"storage": self.storage}

    @property
    def trains_on_coreset(self) -> bool:
        """Whether the classifier sees the coreset alone."""
        return self.method in ("c-random-erm", "c-moderate-erm")

    def to_yaml(self) -> str:
        """The resolved job, every key present."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)


def _section(key: str, value: Any) -> Any:
    """A section without a value, and ``resources: auto``, have their defaults."""
    if key in SECTIONS and (value is None or (key, value) == ("resources", "auto")):
        return {}
    return value


SECTIONS = tuple(
    name
    for name, field in Job.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
)


def load_job(
    path: str | Path, overrides: Sequence[str] = (), options: Mapping[str, str] | None = None
) -> Job:
    """Read a job file and apply ``section.key=value`` overrides, then ``options`` (key to text).

    Raises:
        UserError: the file is missing or no YAML mapping, or a key or value is wrong.
    """
    tree = read_tree(path)
    for override in overrides:
        apply_override(tree, override, SECTIONS)
    for key, value in (options or {}).items():
        set_key(tree, key, value, SECTIONS)
    return parse_job(tree)


def parse_job(tree: Mapping[str, Any]) -> Job:
    """Check a tree of plain values and turn it into a `Job`.

    A section without a value, as in a file where all its keys are commented out, has its defaults, and
    so has ``resources: auto``.

    Raises:
        UserError: the first wrong key or value, in one line.
    """
    try:
        return Job.model_validate({k: _section(k, v) for k, v in tree.items()})
    except ValidationError as error:
        raise UserError(explain(error.errors()[0], Job.model_json_schema())) from None
