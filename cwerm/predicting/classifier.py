"""A run's model, read from its store and asked about images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from cwerm.data.images import FULL_SCALES, decode
from cwerm.errors import UserError
from cwerm.job.surroundings import S3
from cwerm.runs.summary import FinishedRun, job_of
from cwerm.stages.extract.settings import ExtractSettings

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

BATCH = 128  # images the model sees at once
LARGEST = 10_000  # pixels of a side

Three = Annotated[list[float], Field(min_length=3, max_length=3)]


def _of_usual_size(settings: ExtractSettings) -> ExtractSettings:
    """Refuse a size that no backbone was made for.

    Raises:
        ValueError: the images would take gigabytes.
    """
    if not 1 <= (settings.image_size or 1) <= LARGEST:
        raise ValueError("images of no usual size")
    return settings


class OfImages(BaseModel, strict=True):
    """How an image becomes the input of a network."""

    mean: Three
    std: Three
    image_size: Annotated[int, Field(ge=1, le=LARGEST)]


class OfFeatures(BaseModel, strict=True):
    """What a head's features are made by."""

    features: Annotated[ExtractSettings, AfterValidator(_of_usual_size)]


class About(BaseModel, strict=True):
    """What stands beside the tensors in ``model.safetensors``."""

    model: str
    class_names: Annotated[list[str], Field(min_length=1)]
    full_scale: int = FULL_SCALES[-1]


@dataclass(frozen=True)
class Trained:
    """A model as a run left it; small enough to be sent to workers."""

    data: bytes
    about: About
    of: OfImages | OfFeatures
    weights: str = ""
    """Where the weights of the backbone lie; "" for a network on images."""

    @classmethod
    def of_run(cls, run: str, weights: str | None = None) -> Trained:
        """The model of a finished run; ``weights`` says where the backbone's lie now, if not where they were.

        Raises:
            UserError: it is gone, or damaged, or ``weights`` are given for a model without backbone.
        """
        store, artifact = FinishedRun(run).artifact("model", "train")
        data = store.read_file(artifact, "model.safetensors")
        try:
            length = int.from_bytes(data[:8], "little")
            header = json.loads(data[8 : 8 + length])
            text = header["__metadata__"]["cwerm"]
            about = About.model_validate_json(text)
            kind = OfFeatures if "features" in json.loads(text) else OfImages
            of = kind.model_validate_json(text)
        except (ValueError, KeyError, TypeError, ValidationError):
            raise UserError(
                f"{run}: its model does not say how images become its input; run the job again"
            ) from None
        if isinstance(of, OfFeatures):
            return cls(data, about, of, weights or job_of(run).features.weights)
        if weights is not None:
            raise UserError("features.weights: this run's model takes images; leave it out")
        return cls(data, about, of)


class Classifier:
    """The model, ready to be asked."""

    def __init__(self, trained: Trained, s3: S3 | None = None, device: str = "cpu") -> None:
        import torch

        from cwerm.algorithms.networks.timm_models import channels_last

        self.about = trained.about
        kind = _Images if isinstance(trained.of, OfImages) else _Features
        self.device = torch.device(device)
        self.input: Any = kind(trained, self.device, s3)
        self.model: Any = channels_last(self.input.model.eval().to(self.device))

    def square(self, image: bytes) -> np.ndarray:
        """The image as the training saw it, uint8.

        Raises:
            ValueError: it can't be decoded; the message is a short reason.
        """
        return self.input.square(decode(image, self.about.full_scale))

    def probabilities(self, squares: Sequence[np.ndarray]) -> np.ndarray:
        """Of each class, float32 [n, classes]."""
        import torch

        found = [np.empty((0, len(self.about.class_names)), np.float32)]
        for start in range(0, len(squares), BATCH):
            inputs = self.input(np.stack(squares[start : start + BATCH]))
            with torch.inference_mode():
                logits = self.model(inputs)
            found.append(logits.double().softmax(dim=1).float().cpu().numpy())
        return np.concatenate(found)


class _Images:
    """A network, and the squares that it takes."""

    def __init__(self, trained: Trained, device: torch.device, s3: S3 | None) -> None:
        from safetensors.torch import load

        from cwerm.algorithms.training.batches import Normaliser
        from cwerm.stages.classifiers import create_classifier

        del s3
        of = trained.of
        assert isinstance(of, OfImages)
        about, self.size, self.device = trained.about, of.image_size, device
        classes = len(about.class_names)
        self.model = create_classifier("train.model", about.model, classes, self.size, 0)
        _fill(self.model, load(trained.data), about.model)
        self.normalise = Normaliser(tuple(of.mean), tuple(of.std))

    def square(self, picture: Image) -> np.ndarray:
        """uint8 [3, size, size]."""
        from cwerm.stages.pixels import to_square

        return to_square(picture, self.size).transpose(2, 0, 1)

    def __call__(self, squares: np.ndarray) -> Tensor:
        """What the network takes."""
        import torch

        return self.normalise(torch.from_numpy(squares).to(self.device))


class _Features:
    """A head, and the backbone whose features it takes."""

    def __init__(self, trained: Trained, device: torch.device, s3: S3 | None) -> None:
        from safetensors.torch import load

        from cwerm.algorithms.networks.heads import make_head
        from cwerm.algorithms.training.batches import Standardiser
        from cwerm.stages.backbone_weights import load_same_backbone

        assert isinstance(trained.of, OfFeatures)
        self.settings, self.device = trained.of.features, device
        self.backbone = load_same_backbone(self.settings, trained.weights, s3)
        about, width = trained.about, self.backbone.num_features
        tensors = load(trained.data)
        try:
            standard = Standardiser(*(tensors.pop(f"standard.{name}") for name in ("mean", "std")))
            if standard.mean.shape != (width,) or standard.std.shape != (width,):
                raise ValueError("the standardisation is of other features")
            self.model = make_head(about.model, width, len(about.class_names))
        except (KeyError, ValueError) as error:
            raise UserError(f"the run's model is no head on features ({error})") from None
        _fill(self.model, tensors, about.model)
        self.standardise = standard.to(device)

    def square(self, picture: Image) -> np.ndarray:
        """uint8 [size, size, 3]."""
        from cwerm.algorithms.networks.preprocessing import preprocess

        return preprocess(picture, self.backbone.spec)

    def __call__(self, squares: np.ndarray) -> Tensor:
        """What the head takes, rounded as features are stored."""
        import torch

        from cwerm.algorithms.networks.features import embed

        found = embed(self.backbone, squares, self.device, self.settings.precision)
        stored = torch.from_numpy(found.astype(self.settings.dtype))
        return self.standardise(stored.to(self.device))


def _fill(model: Any, tensors: dict[str, Tensor], name: str) -> None:
    try:
        model.load_state_dict(tensors)
    except (RuntimeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"the run's model is not one of {name} ({first})") from None
