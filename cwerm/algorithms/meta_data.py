"""What `MetaWeightNet.fit` is given, checked; and the default classifier of feature vectors."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

Array: TypeAlias = np.ndarray | Tensor


class LabelledData(NamedTuple):
    """Inputs and their labels on one device."""

    inputs: Float[Tensor, "samples ..."]
    labels: Int[Tensor, " samples"]


class Standardize(nn.Module):
    """Shift and scale each feature to mean 0 and variance 1 over the samples given first."""

    mean: Tensor
    scale: Tensor

    def __init__(self, features: Float[Tensor, "samples features"]) -> None:
        super().__init__()
        std = features.std(0, correction=0)
        self.register_buffer("mean", features.mean(0))
        self.register_buffer("scale", torch.where(std > 0, 1 / std, 1.0))

    def forward(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch features"]:
        """Return the standardised features."""
        return (features - self.mean) * self.scale


def feature_head(
    features: Float[Tensor, "samples features"], num_classes: int, hidden: int = 256
) -> nn.Module:
    """A classifier for feature vectors: standardised, one hidden layer.

    Without BatchNorm, with which a small coreset's wrong labels are memorised sooner.
    """
    return nn.Sequential(
        Standardize(features),
        nn.Linear(features.shape[1], hidden),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    )


def prepare(
    inputs: Array,
    labels: Array,
    meta_inputs: Array,
    meta_labels: Array,
    classifier: nn.Module | None,
    device: torch.device,
) -> tuple[LabelledData, LabelledData, int]:
    """Return both sets on the device and the number of classes; `ValueError` for unusable data."""
    data = _on_device(inputs, labels, "", device)
    meta = _on_device(meta_inputs, meta_labels, "meta_", device)
    if data.inputs.shape[1:] != meta.inputs.shape[1:]:
        raise ValueError(
            f"inputs have shape {_shape(data.inputs)} and meta_inputs {_shape(meta.inputs)}: "
            "all but the first size must agree"
        )
    if len(data.labels.unique()) < 2:
        raise ValueError("labels hold fewer than 2 classes: there is nothing to classify")
    num_classes = int(torch.cat([data.labels, meta.labels]).max()) + 1
    if classifier is None:
        if data.inputs.ndim != 2:
            raise ValueError(
                f"inputs have shape {_shape(data.inputs)}: without a classifier, "
                "give feature vectors of shape [samples, features]"
            )
    else:
        outputs = _num_outputs(classifier.to(device), data.inputs[:1])
        if outputs < num_classes:
            raise ValueError(
                f"labels reach {num_classes - 1} but the classifier has {outputs} outputs: "
                f"give one with at least {num_classes}"
            )
    return data, meta, num_classes


def like(original: Array, values: Float[Tensor, " samples"]) -> Array:
    """`values` as the kind of array that `original` is."""
    if isinstance(original, Tensor):
        return values.to(original.device)
    return values.cpu().numpy()


def extra_columns(
    extra: Array | None, size: int, device: torch.device
) -> Float[Tensor, "samples columns"] | None:
    """`extra` as float32 on the device; `ValueError` if it has not one finite row a sample."""
    if extra is None:
        return None
    columns = _tensor(extra, device).float()
    if columns.ndim != 2 or len(columns) != size:
        raise ValueError(
            f"extra has shape {_shape(extra)}: give one row for each of the {size} samples"
        )
    if not columns.isfinite().all():
        raise ValueError("extra holds NaN or infinite values: repair them")
    return columns


def _on_device(inputs: Array, labels: Array, prefix: str, device: torch.device) -> LabelledData:
    if len(inputs) == 0:
        raise ValueError(f"{prefix}inputs is empty: give at least one sample")
    if labels.ndim != 1 or len(labels) != len(inputs):
        raise ValueError(
            f"{prefix}inputs has {len(inputs)} samples and {prefix}labels shape {_shape(labels)}: "
            "give one label a sample"
        )
    tensor = _tensor(labels, device)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(f"{prefix}labels are {tensor.dtype}: give integers from 0")
    if tensor.min() < 0:
        raise ValueError(f"{prefix}labels reach {int(tensor.min())}: give integers from 0")
    values = _tensor(inputs, device).float()
    finite = values.flatten(1).isfinite().all(1) if values.ndim > 1 else values.isfinite()
    if not finite.all():
        bad = (~finite).nonzero()[:, 0]
        raise ValueError(
            f"{prefix}inputs are NaN or infinite in {len(bad)} samples, "
            f"the first at position {int(bad[0])}: repair or remove them"
        )
    if values.ndim == 4:  # convolutions on a CPU are about 1.5 times as fast with channels last
        values = values.contiguous(memory_format=torch.channels_last)
    return LabelledData(values, tensor.long())


def _tensor(values: Array, device: torch.device) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().to(device)
    return torch.tensor(values, device=device)  # a copy: NumPy's array may be read-only


def _num_outputs(classifier: nn.Module, sample: Float[Tensor, "one ..."]) -> int:
    training = classifier.training
    with torch.no_grad():
        outputs = classifier.eval()(sample).shape[1]
    classifier.train(training)
    return outputs


def _shape(values: Array) -> list[int]:
    return list(values.shape)
