"""The sections of a job that say what is computed: every key with its type, default and meaning."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from cwerm.values import Address, Count, Rate, Section, Seed, Text


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


# what is so where a head is trained on features, and nothing else is said
FOR_FEATURES = {"model": "linear", "lr": 0.01, "crop_padding": 0, "flip": False}
# keys whose values suit images or features, and are left out where a job is given the other
OF_INPUT = (*FOR_FEATURES, "image_size", "weights")


class Train(Section):
    """Weighted empirical risk minimisation (paper, Eq. 2)."""

    input: Literal["images", "features"] = "images"
    """What is learned from: ``images``, or ``features``, those of the section of that name, on which a head
    is trained in seconds. With ``features`` some keys have other defaults, and those of images no effect."""
    model: Text = "preactresnet18"
    """Any timm model name, also ``resnet20``, ``resnet32`` and ``preactresnet18`` for small images. Of
    ``features`` ``linear``, the default there, or ``mlp``, with a hidden layer."""
    weights: Address = "random"
    """What the training starts from: ``random``, or, to fine-tune, ``pretrained`` (timm's hub), a local or s3
    file, or ``package:NAME/FILE``, as ``features.weights`` has them; the last layer is drawn anew. Pixels are
    then normalised as the model has learned them. A smaller ``lr``, such as 0.01, suits that."""
    image_size: Count | None = None
    """Side of the square input; where not given the images' own, or their median shorter side. With
    ``weights``: 64 or 128, for images whose shorter side is no longer, else the model's own."""
    epochs: Count = 100
    """Passes over the training images."""
    batch_size: Count = 128
    """Images a step, over all workers."""
    lr: Rate = 0.1
    """Peak learning rate; follows a cosine to zero. On ``features`` 0.01 where not given."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """SGD momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Weight decay, on all parameters."""
    crop_padding: Annotated[int, Field(ge=0)] = 4
    """Pixels of padding of the random crop; 0 for no crop. Of images alone."""
    flip: bool = True
    """Random horizontal flip. Of images alone."""
    targets: Literal["auto", "given", "soft", "relabel"] = "auto"
    """What is learned of a sample: ``given``, its label, times its weight; ``soft``, how probable each class
    is; ``relabel``, another class where that is sure. ``auto``: what suits the noise that was found, of
    ``soft`` and ``relabel``; ``given`` where labels are not judged one by one."""
    loss: Literal["cross_entropy", "focal", "gce", "small_loss"] = "cross_entropy"
    """Loss of a sample, times its weight; ``focal`` (Lin et al., 2017) mutes well classified samples,
    ``gce`` (generalised cross entropy, Zhang and Sabuncu, 2018) those whose label seems improbable;
    ``small_loss`` (Han et al., 2018) leaves the largest cross entropies of each batch out."""
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    """Exponent of the focal loss."""
    gce_q: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Exponent of ``gce``: towards 0 the cross entropy, at 1 the mean absolute error."""
    wrong_share: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of wrong labels, for ``small_loss``, which leaves out as many from the tenth epoch on."""
    report_every: Count = 1
    """Epochs from one evaluation and checkpoint to the next; the last epoch always has both."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the network computes in; ``bfloat16`` is faster on GPUs. Parameters and loss stay float32."""
    deterministic: bool = False
    """The same bits from each run, also on GPUs, where it is slower; on CPUs they are always the same."""
    memory_bytes: Annotated[int, Field(ge=0)] = 4 * 2**30
    """Decoded images that are held in memory, once on a node, in bytes. Where the training images are more,
    they are streamed: read part by part and decoded as they are needed, in each epoch. Of images alone."""
    window: Count = 32
    """How many parts are mixed at a time where images are streamed, over all workers; each is up to 16 MiB of
    encoded images in memory. More parts make batches that are more alike, above all of sorted images."""
    cache_bytes: Annotated[int, Field(ge=0)] = 16 * 2**30
    """Where images are streamed from a bucket: what each node may keep of their parts on its disk, in
    ``~/.cache/cwerm/parts``, so that they are fetched once; 2 GiB of the disk stay free."""
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 10.0
    """Minutes of training after which it is saved in mid-epoch, too; an interruption costs no more."""
    keep_checkpoints: Count = 2
    """Checkpoints kept while it trains, at least 2: of a damaged one the one before counts. When it is
    finished they go, unless more are asked for."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_features(cls, tree: Any) -> Any:
        given = isinstance(tree, dict) and tree.get("input") == "features"
        return {**FOR_FEATURES, **tree} if given else tree

    @model_validator(mode="after")
    def _small_loss_knows_how_many_are_wrong(self) -> Train:
        if self.loss == "small_loss" and self.wrong_share is None:
            raise ValueError(
                "loss is small_loss, which needs wrong_share, the share of wrong labels"
            )
        return self
