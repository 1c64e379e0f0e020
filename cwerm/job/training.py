"""The section of a job that says how the classifier is trained: every key, with default and meaning."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cwerm.values import Address, Count, Rate, Section, Text

Momentum = Annotated[float, Field(ge=0, lt=1)]

# what is so where a head is trained on features, and nothing else is said
FOR_FEATURES = {"model": "linear", "lr": 0.01, "crop_padding": 0, "flip": False}
# keys whose values suit images or features, and are left out where a job is given the other
OF_INPUT = (*FOR_FEATURES, "image_size", "weights", "crop", "augment", "cutmix", "head_lr_factor")
# what is so with AdamW, and nothing else is said
FOR_ADAMW = {"lr": 0.001, "weight_decay": 0.05}


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
    max_steps: Count | None = None
    """Batches after which the training ends, where that is before the last epoch; the learning rate then
    follows its course over these."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """``sgd``, with momentum, or ``adamw``."""
    lr: Rate = 0.1
    """Peak learning rate; follows a cosine to zero. Where not given, on ``features`` 0.01, with ``adamw``
    0.001."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Epochs, also a part of one, over which the learning rate rises to its peak in a straight line."""
    momentum: Momentum = 0.9
    """SGD momentum."""
    betas: list[Momentum] = Field(default=[0.9, 0.999], min_length=2, max_length=2)
    """AdamW's, of the mean gradient and of the mean square."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Weight decay; on all parameters, with ``adamw`` on all but biases and norms, and 0.05 where not
    given."""
    head_lr_factor: Rate = 1.0
    """For fine-tuning (``weights``): what the learning rate is multiplied by for the last layer, which begins
    anew."""
    accumulate: Count = 1
    """Parts in which each worker learns its share of a batch, one after the other, to hold fewer activations;
    the gradient is that of the whole batch. BatchNorm sees each part by itself."""
    clip_gradient_norm: Rate | None = None
    """Longest gradient, over all parameters; longer ones are cut to it."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of a moving average of the model, such as 0.999, which is then tested and saved instead of it.
    The first steps' decay is less, (1 + step) / (10 + step)."""
    crop: Literal["padded", "resized"] = "padded"
    """Random crop: ``padded``, by ``crop_padding``; ``resized``, 8 to 100 % of the image, in a ratio of 3:4
    to 4:3, enlarged to the whole. Of images alone."""
    crop_padding: Annotated[int, Field(ge=0)] = 4
    """Pixels of padding of the ``padded`` crop; 0 for no crop. Of images alone."""
    flip: bool = True
    """Random horizontal flip. Of images alone."""
    augment: Literal["none", "trivial", "rand"] = "none"
    """Random colours, shears and the like: ``trivial``, TrivialAugment in its wide space, one operation an
    image; ``rand``, RandAugment, two of magnitude 9 of 30. Of images alone."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Mixup: of each two images a mean, with both labels, each times its own weight; its share is drawn from
    a beta distribution with this parameter, such as 0.2. 0 for none."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """CutMix: likewise a window of the other image, parameter such as 1.0. With ``mixup``, each batch goes
    through one of them. Of images alone."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of what is learned of a sample that is spread evenly over all classes; of the cross entropy."""
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
    """How many parts are mixed at a time where images are streamed, over all workers, in eights; each is up
    to 16 MiB of encoded images in memory. More parts make batches that are more alike, above all of sorted
    images."""
    cache_bytes: Annotated[int, Field(ge=0)] = 16 * 2**30
    """Where the storage is a bucket: what each node may keep of its parts on the node's disk, in
    ``~/.cache/cwerm/parts``, so that no stage fetches what is near; 2 GiB of the disk stay free."""
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 10.0
    """Minutes of training after which it is saved in mid-epoch, too; an interruption costs no more."""
    keep_checkpoints: Count = 2
    """Checkpoints kept while it trains, at least 2: of a damaged one the one before counts. When it is
    finished they go, unless more are asked for."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_others(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        of_input = FOR_FEATURES if tree.get("input") == "features" else {}
        of_optimizer = FOR_ADAMW if tree.get("optimizer") == "adamw" else {}
        return {**of_input, **of_optimizer, **tree}

    @model_validator(mode="after")
    def _fits_together(self) -> Train:
        if self.loss == "small_loss":
            self._check_small_loss()
        if self.label_smoothing and self.loss in ("focal", "gce"):
            raise ValueError(
                f"label_smoothing is of the cross entropy, and loss is {self.loss}; leave one of them out"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs:g}, and epochs {self.epochs}; warm up for fewer"
            )
        if self.head_lr_factor != 1 and self.weights == "random":
            raise ValueError(
                "head_lr_factor is for fine-tuning, and all layers are new where weights is random; "
                "leave it out, or give weights"
            )
        return self

    def _check_small_loss(self) -> None:
        if self.wrong_share is None:
            raise ValueError(
                "loss is small_loss, which needs wrong_share, the share of wrong labels"
            )
        idle = {"accumulate": 1, "mixup": 0, "cutmix": 0}
        for name in (name for name, value in idle.items() if getattr(self, name) != value):
            raise ValueError(
                f"loss is small_loss, which compares the samples of a whole batch by their own labels; "
                f"leave {name} out"
            )
