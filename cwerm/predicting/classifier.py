"""A run's model, read from its store and asked about images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from cwerm.data.images import FULL_SCALES, decode
from cwerm.errors import UserError
from cwerm.runs.summary import artifact_of

BATCH = 128  # images the model sees at once

Three = Annotated[list[float], Field(min_length=3, max_length=3)]


class About(BaseModel, strict=True):
    """What stands beside the tensors in ``model.safetensors``."""

    model: str
    class_names: Annotated[list[str], Field(min_length=1)]
    mean: Three
    std: Three
    image_size: Annotated[int, Field(ge=1, le=10_000)]
    full_scale: int = FULL_SCALES[-1]


@dataclass(frozen=True)
class Trained:
    """A model as a run left it; small enough to be sent to workers."""

    data: bytes
    about: About

    @classmethod
    def of_run(cls, run: str) -> Trained:
        """The model of a finished run.

        Raises:
            UserError: it is gone, or damaged.
        """
        store, artifact = artifact_of(run, "model", "train")
        data = store.read_file(artifact, "model.safetensors")
        try:
            length = int.from_bytes(data[:8], "little")
            header = json.loads(data[8 : 8 + length])
            about = About.model_validate_json(header["__metadata__"]["cwerm"])
        except (ValueError, KeyError, TypeError, ValidationError):
            raise UserError(
                f"{run}: its model does not say how images become its input; run the job again"
            ) from None
        return cls(data, about)


class Classifier:
    """The model, ready to be asked."""

    def __init__(self, trained: Trained, device: str = "cpu") -> None:
        import torch
        from safetensors.torch import load

        from cwerm.algorithms.networks.timm_models import channels_last
        from cwerm.algorithms.training.batches import Normaliser
        from cwerm.stages.classifiers import create_classifier

        self.about = about = trained.about
        classes, size = len(about.class_names), about.image_size
        model = create_classifier("train.model", about.model, classes, size, 0)
        try:
            model.load_state_dict(load(trained.data))
        except (RuntimeError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise UserError(f"the run's model is not one of {about.model} ({first})") from None
        self.device = torch.device(device)
        self.model: Any = channels_last(model.eval().to(self.device))
        self.normalise = Normaliser(tuple(about.mean), tuple(about.std))

    def square(self, image: bytes) -> np.ndarray:
        """The image as the training saw it, uint8 [3, size, size].

        Raises:
            ValueError: it can't be decoded; the message is a short reason.
        """
        from cwerm.stages.pixels import to_square

        picture = decode(image, self.about.full_scale)
        return to_square(picture, self.about.image_size).transpose(2, 0, 1)

    def probabilities(self, squares: Sequence[np.ndarray]) -> np.ndarray:
        """Of each class, float32 [n, classes]."""
        import torch

        found = [np.empty((0, len(self.about.class_names)), np.float32)]
        for start in range(0, len(squares), BATCH):
            pixels = torch.from_numpy(np.stack(squares[start : start + BATCH])).to(self.device)
            with torch.inference_mode():
                logits = self.model(self.normalise(pixels))
            found.append(logits.double().softmax(dim=1).float().cpu().numpy())
        return np.concatenate(found)
