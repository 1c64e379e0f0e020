"""The sections of a job on data, features and coreset: every key with its type, default and meaning."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from cwerm.values import Address, Count, Section, Seed, Text


class Data(Section):
    """Where the labelled images come from."""

    source: Address | Annotated[list[Address], Field(min_length=1)]
    """``sample``, ``fashion_mnist``, ``mnist``, ``cifar10``, ``cifar100``, or a path or URI: a folder of
    class folders, a table (CSV, JSON Lines, Parquet) of paths and labels, Parquet with images, tar shards
    as WebDataset has them, or a folder that ``save_to_disk`` of Hugging Face's datasets made; or
    ``hf:owner/name``, a data set of their hub (also ``hf:owner/name/config`` and ``@revision``). A list of
    these is one source: classes are matched by name."""
    root: Address | None = None
    """Where a known data set lies or is downloaded to; or the folder that the paths of a table are below,
    by default the table's own."""
    test: Address | None = None
    """Source of the test images, where ``source`` has no test split of its own."""
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of each class drawn as test split, where the source has none and ``test`` is not given; 0 for
    none, where nothing is trained."""
    validation: Address | None = None
    """Source of the validation images, which tell how well a training goes, epoch by epoch, and what a sweep
    chooses; the test images are then read once, at the end. Not needed where ``source`` has a test and a
    validation split of its own."""
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each class of the training images drawn as validation split, where there is none; 0 for none.
    A sweep draws 0.1 where nothing is said."""
    split_seed: Seed = 0
    """Seed of the drawn test and validation splits, ``limit``, ``imbalance`` and ``noise``; apart from
    ``seed``, so that runs share the data."""
    trusted: Address | None = None
    """Source of trusted (clean) images that serve as the meta set."""
    corrections: Address | None = None
    """What a person decided on single labels: a CSV file with the columns path and decision (``confirmed``,
    ``removed``, or ``relabelled`` and the column new_label), as the page of `cwerm find` saves it."""
    judge_test: bool | None = None
    """Whether the labels of test and trusted images are judged, too, where those of the training images are:
    for a list of their own and a second accuracy, nothing else changes. It embeds the test images. Where not
    given: yes, unless ``noise`` is made, of which test labels have none."""
    limit: Count | None = None
    """Use only this many training images, a class-balanced draw."""
    imbalance: Annotated[float, Field(ge=1)] = 1.0
    """Largest class over smallest of the long tail that is drawn from the training images; 1 for none."""
    noise: Literal["none", "uniform", "symmetric", "flip", "flip2", "confusion"] = "none"
    """Wrong training labels made on purpose, the true ones kept as ``clean_label``, and as many in a drawn
    validation split: ``uniform`` draws from all classes, ``symmetric`` from all others, ``flip`` takes the
    next class, ``flip2`` one of two, ``confusion`` what people take for each other, by ``confusions``."""
    noise_rate: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Probability that a label is drawn anew; with ``confusion`` the share of wrong labels. Without effect
    without ``noise``."""
    confusions: Address | None = None
    """For ``confusion``, a YAML or JSON file: each class with those that it is taken for, and how often, as
    in {"Shirt": {"Coat": 0.1}}; all by one factor, so that ``noise_rate`` comes out. Fashion-MNIST's
    classes have one, which counts where none is given."""
    max_rejects: Annotated[float, Field(ge=0)] = 0.01
    """Unreadable images allowed: a share below 1, or a count."""
    image_column: Text = "image"
    """Parquet column of encoded images, or of arrays (nested lists, tensors of Arrow or Ray Data); or a
    table's column of paths, where it is not one of the usual names (path, file_name, ...)."""
    label_column: Text = "label"
    """Column of labels: text, or whole numbers, with the names of Hugging Face's ``ClassLabel``
    where the file has them. Also a folder's name may hold it, as ``label=cat``."""
    rows_per_part: Count = 1024
    """Images a part, the unit of work, of commit and of resumption; fewer where they are large, so that a
    part holds up to 16 MiB of them."""

    @property
    def sources(self) -> list[str]:
        """The addresses of ``source``, one or several."""
        return [self.source] if isinstance(self.source, str) else self.source


class Features(Section):
    """How images become feature vectors."""

    backbone: Text = "tf_efficientnet_lite0"
    """Any timm model name."""
    weights: Address = "pretrained"
    """``pretrained`` (timm's hub), a local or s3 file, ``package:NAME/FILE`` inside an installed Python
    package, or ``random``."""
    source: Address | None = None
    """For `cwerm find` on a table of paths and labels: embeddings that are there already, .npy with a row for
    each of the table's, or Parquet with a column embedding and, where the order is another, path."""
    probabilities: Address | None = None
    """Likewise the probability of each class, by a model that has not been trained on the sample; classes in
    natural order, as class2 before class10."""
    image_size: Count | None = None
    """Side of the square input in pixels; the backbone's own where not given."""
    batch_size: Count = 128
    """Images embedded at once by one worker."""
    dtype: Literal["float16", "float32"] = "float16"
    """Type of the stored features."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the backbone computes in; ``bfloat16`` is faster on GPUs."""


def _was_auto(value: Any) -> Any:
    """Refuse what a job file of before may say.

    Raises:
        ValueError: it is ``auto``.
    """
    if value == "auto":
        raise ValueError("'auto' has gone: nothing clean is needed now; use none, the default")
    return value


class Coreset(Section):
    """Which samples stand for the data set, and which are held out as meta set."""

    method: Text = "auto"
    """``moderate`` (paper, section 4.1), ``random``, ``herding``, ``k_center``, ``k_means``, ``clean_first``
    (``k_center`` among what its neighbours do not outvote), ``zcore``, ``least_confidence``, ``entropy``,
    ``margin``, ``el2n``, ``grand``, ``forgetting``, or ``module:Class``, your own. ``auto``: ``random``
    for ``reweight.method: posterior``, which looks at all kinds of samples, else ``moderate``."""
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    """Size of the coreset as a share of the training images, 1 for all but the meta set; where not given,
    0.01, and for ``reweight.method: posterior`` all images up to 20,000."""
    scope: Literal["class", "global"] = "class"
    """Select within each class, in proportion to its size, or over all classes at once."""
    meta: Annotated[Literal["none", "hold_out"], BeforeValidator(_was_auto)] = "none"
    """Samples whose labels are right, beside ``data.trusted``: ``none``, or ``hold_out``, which believes
    a class-balanced part of the training images and holds it out of the training."""
    meta_per_class: Count = 10
    """Size of that hold-out. Without effect with ``data.trusted``."""
