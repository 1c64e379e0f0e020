"""The classifier of feature vectors where none is given."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Standardize", "feature_head"]


class Standardize(nn.Module):
    """Shift and scale each feature to mean 0 and variance 1 over the samples given first.

    Of float64 features mean and scale are float64, too; the output is float32.
    """

    mean: Tensor
    scale: Tensor
    kind: Tensor

    def __init__(self, features: Float[Tensor, "samples features"]) -> None:
        super().__init__()
        std = features.std(0, correction=0)
        scale = 1 / std
        self.register_buffer("mean", features.mean(0))
        self.register_buffer("scale", torch.where((std > 0) & scale.isfinite(), scale, 1.0))
        # follows the module's type, as float() and double() set it
        kind = torch.empty(0, dtype=torch.float32, device=features.device)
        self.register_buffer("kind", kind, persistent=False)

    def forward(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch features"]:
        """Return the standardised features."""
        return ((features - self.mean) * self.scale).to(self.kind.dtype)


def feature_head(
    features: Float[Tensor, "samples features"], num_classes: int, hidden: int = 256
) -> nn.Sequential:
    """A classifier for feature vectors: standardised, one hidden layer.

    Without BatchNorm, with which a small coreset's wrong labels are memorised sooner.
    """
    return nn.Sequential(
        Standardize(features),
        nn.Linear(features.shape[1], hidden),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    )
