"""The job: one typed tree. Strict YAML in, resolved YAML out, JSON schema for editors.

Every key has a default except ``data.source``. An unknown key or a wrong type is a `UserError` that
names the key, so that a misspelt setting never runs silently.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cwerm.errors import UserError, did_you_mean

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, as everywhere but in YAML 1.1."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class Data(_Section):
    """Where the labelled images come from."""

    source: str
    """``sample``, ``fashion_mnist``, ``mnist``, ``cifar10``, ``cifar100``, or a path or URI: a folder of
    class folders, or Parquet."""
    root: str | None = None
    """Where a known data set lies or is downloaded to."""
    test: str | None = None
    """Source of the test images, where ``source`` has no test split of its own."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of each class drawn as test split, where the source has none and ``test`` is not given."""
    split_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the drawn test split and of ``limit``; apart from ``seed``, so that runs share the data."""
    trusted: str | None = None
    """Source of trusted (clean) images that serve as the meta set."""
    limit: Count | None = None
    """Use only this many training images, a class-balanced draw."""
    max_rejects: Annotated[float, Field(ge=0)] = 0.01
    """Unreadable images allowed: a share below 1, or a count."""
    image_column: str = "image"
    """Parquet column of encoded images or arrays."""
    label_column: str = "label"
    """Parquet column of labels, strings or integers."""
    rows_per_part: Count = 1024
    """Images a part: the unit of work, of commit and of resumption."""


class Features(_Section):
    """How images become feature vectors."""

    backbone: str = "tf_efficientnet_lite0"
    """Any timm model name."""
    weights: str = "pretrained"
    """``pretrained`` (timm's hub), a local or s3 file, ``package:NAME/FILE`` inside an installed Python
    package, or ``random``."""
    image_size: Count | None = None
    """Side of the square input in pixels; the backbone's own where not given."""
    batch_size: Count = 128
    """Images embedded at once by one worker."""
    dtype: Literal["float16", "float32"] = "float16"
    """Type of the stored features."""


class Coreset(_Section):
    """Which samples stand for the data set, and which are held out as meta set."""

    method: str = "moderate"
    """``moderate`` (paper, section 4.1) or ``random``."""
    ratio: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Size of the coreset as a share of the training images."""
    scope: Literal["class", "global"] = "class"
    """Select within each class, in proportion to its size, or over all classes at once."""
    meta_per_class: Count = 10
    """Size of the hold-out meta set, which no method trains on. Without effect with ``data.trusted``."""


class Reweight(_Section):
    """How weights are learned on the coreset (Meta-Weight-Net)."""

    input: Literal["features", "images"] = "features"
    """Train an MLP head on the stored features, or ``model`` on the images."""
    model: str = "resnet32"
    """timm classifier for ``input: images``."""
    image_size: Count | None = None
    """Side of the images for ``input: images``; as in ``train.image_size``."""
    epochs: Count = 60
    """Passes over the coreset."""
    batch_size: Count = 100
    """Coreset samples a step."""
    meta_batch_size: Count = 100
    """Meta samples a step."""
    lr: Rate = 0.1
    """Learning rate of the classifier."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of the classifier's SGD."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Weight decay of the classifier's SGD."""
    weight_lr: Rate = 1e-3
    """Learning rate of the weight net (Adam)."""
    hidden: Count = 100
    """Hidden units of the weight net."""
    average_last: Count = 5
    """Final weights are the mean over the ends of this many last epochs."""


class Broadcast(_Section):
    """How coreset weights reach every sample (paper, Eq. 3)."""

    method: str = "nearest"
    """``nearest``: the weight of the nearest coreset sample."""
    neighbors: Count = 1
    """Coreset samples asked for."""


class Train(_Section):
    """Weighted empirical risk minimisation (paper, Eq. 2)."""

    model: str = "preactresnet18"
    """Any timm model name, also ``resnet20``, ``resnet32`` and ``preactresnet18`` for small images."""
    image_size: Count | None = None
    """Side of the square input; where not given the images' own, or their median shorter side."""
    epochs: Count = 100
    """Passes over the training images."""
    batch_size: Count = 128
    """Images a step, over all workers."""
    lr: Rate = 0.1
    """Peak learning rate; follows a cosine to zero."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """SGD momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Weight decay, on all parameters."""
    crop_padding: Annotated[int, Field(ge=0)] = 4
    """Pixels of padding of the random crop; 0 for no crop."""
    flip: bool = True
    """Random horizontal flip."""
    keep_checkpoints: Count = 2
    """Checkpoints kept; one is written every epoch."""


class Resources(_Section):
    """How much of the machine or cluster to use."""

    workers: Count | Literal["auto"] = "auto"
    """Parallel workers of every distributed stage: the GPUs there are, or else up to 8 CPUs."""
    address: str | None = None
    """Ray cluster to join; a local one is started where neither this nor RAY_ADDRESS is set."""


class Job(_Section):
    """A whole run of ``cwerm``."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "run"
    """Name of the run folder."""
    method: Literal["erm", "cw-erm"] = "cw-erm"
    """``erm``: plain training; ``cw-erm``: training with weights learned on the coreset."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random draw."""
    storage: str = "cwerm-store"
    """Where artifacts and runs lie: a path or ``s3://bucket/prefix``."""
    data: Data
    features: Features = Features()
    coreset: Coreset = Coreset()
    reweight: Reweight = Reweight()
    broadcast: Broadcast = Broadcast()
    train: Train = Train()
    resources: Resources = Resources()

    def to_yaml(self) -> str:
        """The resolved job, every key present."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)


def load_job(path: str | Path, overrides: Sequence[str] = ()) -> Job:
    """Read a job file and apply ``section.key=value`` overrides, in order.

    Raises:
        UserError: the file is missing or no YAML mapping, or a key or value is wrong.
    """
    try:
        text = Path(path).read_text()
    except FileNotFoundError:
        raise UserError(f"{path}: no such job file; see jobs/ for examples") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read as text ({error}); give a YAML job file") from None
    try:
        tree = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise UserError(f"{path}: not valid YAML: {line}; mend that line") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a job file is a mapping of keys; see jobs/quickstart.yaml")
    for override in overrides:
        _apply(tree, override)
    return parse_job(tree)


def parse_job(tree: dict[str, Any]) -> Job:
    """Check a tree of plain values and turn it into a `Job`.

    Raises:
        UserError: the first wrong key or value, in one line.
    """
    try:
        return Job.model_validate(tree)
    except ValidationError as error:
        raise UserError(_explain(error.errors()[0])) from None


def _apply(tree: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise UserError(f"'{override}': an override is written section.key=value")
    *sections, last = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise UserError(f"{key}: '{section}' is not a section of the job")
    try:
        tree[last] = yaml.load(value, _Loader)
    except yaml.YAMLError:
        raise UserError(f"{key}: '{value}' is not a YAML value; quote it") from None


def _explain(error: Any) -> str:
    """One line for pydantic's first error."""
    location = [part for part in error["loc"] if isinstance(part, str) and part in _all_keys()]
    key = ".".join(location) or ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        key = ".".join(str(part) for part in error["loc"])
        *sections, last = error["loc"]
        return f"{key}: unknown key{did_you_mean(str(last), _keys_at(sections))}"
    if error["type"] == "missing":
        return f"{key}: this key is required; add it to the job file"
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        known = re.findall(r"'([^']+)'", error["msg"])
        hint = did_you_mean(error["input"], known) or f"; choose one of {', '.join(known)}"
        return f"{key}: unknown value '{error['input']}'{hint}"
    given = repr(error["input"])
    message = error["msg"].removeprefix("Input should be ")
    return f"{key}: got {given[:80]}, should be {message}"


def _keys_at(sections: Sequence[Any]) -> list[str]:
    section: Any = Job
    for name in sections:
        section = section.model_fields[name].annotation
    return list(section.model_fields)


def _all_keys() -> set[str]:
    sections = [*Job.model_fields, *(key for name in Job.model_fields for key in _section_keys(name))]
    return set(sections)


def _section_keys(name: str) -> list[str]:
    annotation: Any = Job.model_fields[name].annotation
    return list(getattr(annotation, "model_fields", {}))
