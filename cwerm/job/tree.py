"""The job: one typed tree. Strict YAML in, resolved YAML out, JSON schema for editors.

Every key has a default except ``data.source``. An unknown key or a wrong type is a `UserError` that
names the key, so that a misspelt setting never runs silently. The keys of the sections are in
`sections`, `training` and `surroundings`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from cwerm.errors import UserError
from cwerm.job.file import apply_override, methods_first, read_tree, set_key
from cwerm.job.sections import Coreset, Data, Features
from cwerm.job.surroundings import S3, Resources
from cwerm.job.training import Train
from cwerm.methods.choices import AnyReweighting, AnySpreading, resolve
from cwerm.methods.identity import Identity
from cwerm.methods.reweighting import Reweighting
from cwerm.methods.reweighting.posterior import Posterior
from cwerm.methods.spreading import Spreading
from cwerm.methods.spreading.function import Function
from cwerm.values import Address, Section, Seed
from cwerm.values.explain import explain

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
    reweight: AnyReweighting = Posterior()
    """How weights are learned on the coreset. ``method``: ``metaweightnet``, V of the loss; ``l2r``, learning
    to reweight, a weight a sample and no V; ``posterior``, how likely each label is right, with or without
    samples known to be clean; ``uniform``, 1 for each; or ``module:Class``, your own. ``auto``, the default:
    ``posterior`` if ``broadcast.method`` is ``auto``, too, else ``metaweightnet``, which needs a meta set
    (``data.trusted`` or ``coreset.meta: hold_out``). The other keys depend on it."""
    broadcast: AnySpreading = Function()
    """How coreset weights reach every sample (paper, Eq. 3). ``method``: ``nearest``, the weight of the
    nearest coreset sample, as in the paper; ``vote``, the share of the neighbours' weight with the sample's
    own label; ``function``, what the reweighting learned, evaluated on every sample; ``agreement``, the same
    with the neighbours' label agreement beside the loss; or ``module:Class``, your own. ``auto``, the
    default: what suits ``reweight.method``. The other keys depend on it."""
    train: Train = Train()
    resources: Resources = Resources()

    @model_validator(mode="before")
    @classmethod
    def _resolve_auto(cls, tree: Any) -> Any:
        """The methods of reweighting and of spreading by their names."""
        return resolve(tree) if isinstance(tree, dict) else tree

    @property
    def reweighting(self) -> Reweighting:
        """How weights are learned, one of the user's own as an object of its class."""
        return self.reweight.made()

    @property
    def spreading(self) -> Spreading:
        """How weights reach every sample; where all have their own, there is nothing to choose."""
        return Identity() if self.method == "w-erm" else self.broadcast.made()

    @property
    def coreset_method(self) -> str:
        """The coreset method that runs, with ``auto`` resolved; some training methods leave no choice."""
        chosen = self.coreset.method
        if chosen == "auto":
            chosen = self.reweighting.coreset
        return FIXED_CORESETS.get(self.method, chosen)

    @property
    def reference_size(self) -> int | None:
        """Samples in the coreset where the job gives no ratio and its method has a size of its own."""
        if self.trains_on_coreset or self.coreset.ratio:
            return None
        return self.reweighting.reference_size

    @property
    def coreset_ratio(self) -> float | None:
        """Share of the samples in the coreset; None for a set of its own size."""
        return self.coreset.ratio or (None if self.reference_size else 0.01)

    @property
    def believes(self) -> bool:
        """Whether weights come with how probable each class is, for every sample."""
        return self.spreading.asks_learned and self.reweighting.believes

    @property
    def judges_labels(self) -> bool:
        """Whether labels are judged one by one, on features."""
        on_features = self.believes and self.reweighting.reads == "features"
        return on_features and self.method == "cw-erm" and not self.spreading.asks_agreement

    @property
    def judges_test(self) -> bool:
        """Whether the labels of test and trusted images are judged, too."""
        wanted = self.data.judge_test
        return self.judges_labels and (self.data.noise == "none" if wanted is None else wanted)

    @property
    def has_meta(self) -> bool:
        """Whether there are samples whose labels are known to be right."""
        return bool(self.data.trusted) or self.coreset.meta == "hold_out"

    @property
    def places(self) -> dict[str, str]:
        """By key, the paths and URIs that every node must see."""
        keys = ("test", "validation", "trusted")
        named = {f"data.{key}": getattr(self.data, key) for key in keys}
        for number, address in enumerate(self.data.sources):
            named["data.source" if number == 0 else f"data.source[{number}]"] = address
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
    if isinstance(field.default, Section) or field.annotation is Data
)


def load_job(
    path: str | Path,
    overrides: Sequence[str] = (),
    options: Mapping[str, str] | None = None,
    note: Callable[[str], object] = lambda _: None,
) -> Job:
    """Read a job file and apply ``section.key=value`` overrides, then ``options`` (key to text).

    Overrides of a method come first, and leave out the file's keys of another; ``note`` is told which.

    Raises:
        UserError: the file is missing or no YAML mapping, or a key or value is wrong.
    """
    tree = read_tree(path)
    for override in methods_first(overrides):
        if idle := apply_override(tree, override, SECTIONS):
            note(f"{override} leaves out keys of the one before: {', '.join(idle)}")
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
