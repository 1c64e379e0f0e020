"""What `MetaWeightNet.fit` is given, checked."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cwerm.algorithms.class_labels import Labels, as_labels, join_labels
from cwerm.algorithms.gradients.given_model import check_logits, floating_type
from cwerm.algorithms.inputs import LARGEST, Given, as_array

# Of a column, up to which float32 may blur it: a share of its standard deviation.
BLUR = 1e-3


class LabelledData(NamedTuple):
    """Inputs and their labels on one device."""

    inputs: Tensor
    labels: Int[Tensor, " samples"]


def prepare(
    inputs: Given,
    labels: Given,
    meta_inputs: Given,
    meta_labels: Given,
    classifier: nn.Module | None,
    num_classes: int | None,
    device: torch.device,
) -> tuple[LabelledData, LabelledData, np.ndarray]:
    """Return both sets on the device and the class of each output; `ValueError` for unusable data.

    Labels become positions among the classes that occur, but where `num_classes` or a classifier fix
    the outputs, integers are their numbers.
    """
    values, meta_values = (
        _inputs(inputs, "inputs", device),
        _inputs(meta_inputs, "meta_inputs", device),
    )
    if values.shape[1:] != meta_values.shape[1:]:
        raise ValueError(
            f"inputs have shape {list(values.shape)} and meta_inputs {list(meta_values.shape)}: "
            "all but the first size must agree"
        )
    known, meta_known = join_labels(
        as_labels(labels, len(values), "labels", "inputs"),
        as_labels(meta_labels, len(meta_values), "meta_labels", "meta_inputs"),
        "labels",
        "meta_labels",
    )
    _check_classes(known, meta_known)
    outputs = num_classes
    if classifier is not None:
        values, meta_values, outputs = _fitted(values, meta_values, classifier)
    elif values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(
            f"inputs have shape {list(values.shape)}: without a classifier, "
            "give feature vectors of shape [samples, features]"
        )
    else:
        values, meta_values = _for_head(values), _for_head(meta_values)
        if meta_values.dtype != values.dtype:
            values, meta_values = values.double(), meta_values.double()
    classes = known.classes
    codes = [known.codes, meta_known.codes]
    if outputs is not None:
        if classes.dtype.kind in "iu":
            _check_outputs(int(classes[-1]), outputs, classifier)
            codes = [classes.astype(np.int64)[positions] for positions in codes]
            classes = np.arange(outputs)
        else:
            _check_outputs(len(classes) - 1, outputs, classifier)
    positions = [torch.from_numpy(values).to(device) for values in codes]
    return LabelledData(values, positions[0]), LabelledData(meta_values, positions[1]), classes


def _check_classes(known: Labels, meta_known: Labels) -> None:
    occurring = np.unique(known.codes)
    if len(occurring) < 2:
        raise ValueError(
            f"all samples are of class {known.classes[occurring[0]]}: fewer than 2 classes leave "
            "nothing to learn"
        )
    missing = np.setdiff1d(occurring, meta_known.codes)
    if len(missing):
        raise ValueError(
            f"class {known.classes[missing[0]]} has no sample in the meta set; give every class a few"
        )


def _check_outputs(highest: int, outputs: int, classifier: nn.Module | None) -> None:
    if highest >= outputs:
        of = (
            f"num_classes is {outputs}"
            if classifier is None
            else f"the classifier has {outputs} outputs"
        )
        raise ValueError(f"labels reach {highest} but {of}: give at least {highest + 1}")


def like(original: Given, values: Float[Tensor, " samples"]) -> Any:
    """`values` as a tensor where `original` is one, else as an array."""
    if isinstance(original, Tensor):
        return values.to(original.device)
    return values.cpu().numpy()


def extra_columns(
    extra: Given | None, size: int, device: torch.device
) -> Float[Tensor, "samples columns"] | None:
    """`extra` as float32 on the device; `ValueError` if it has not one finite row a sample."""
    if extra is None:
        return None
    columns = _tensor(extra, "extra", device).float()
    if columns.ndim != 2 or len(columns) != size:
        raise ValueError(
            f"extra has shape {list(columns.shape)}: give one row for each of the {size} samples"
        )
    if not columns.isfinite().all():
        raise ValueError("extra holds NaN or infinite values: repair them")
    return columns


def _inputs(inputs: Given, name: str, device: torch.device) -> Tensor:
    """Finite numbers of the type given, one row a sample."""
    values = _tensor(inputs, name, device)
    if values.ndim == 0 or len(values) == 0:
        raise ValueError(f"{name} is empty: there are no samples; give at least one")
    if values.is_complex():
        raise ValueError(f"{name} are {values.dtype}: give real numbers")
    if values.is_floating_point():
        sizes = values.abs().reshape(len(values), -1).amax(1) if values.numel() else values
        bad = (~(sizes <= LARGEST)).nonzero()
        if len(bad):
            row = int(bad[0, 0])
            size = float(sizes[row])
            what = f"holds {size:.6g}, which is a fill value as a rule"
            if not np.isfinite(size):
                what = f"has NaN or infinite values, the first of {len(bad)} rows"
            raise ValueError(f"row {row} of the {name} {what}; repair or remove it")
    return values


def _for_head(values: Tensor) -> Tensor:
    """Features as float32, or as float64 where that tells more apart."""
    single = values.float()
    if values.dtype in (torch.float16, torch.bfloat16, torch.float32):
        return single
    return single if torch.equal(single.double(), values.double()) else values.double()


def _fitted(
    values: Tensor, meta_values: Tensor, classifier: nn.Module
) -> tuple[Tensor, Tensor, int]:
    """Both inputs in the type that the classifier takes, and the number of its outputs.

    Integers stay integers where it takes them, as an embedding does.
    """
    kind = floating_type(classifier)
    if not values.is_floating_point() and not meta_values.is_floating_point():
        try:
            outputs = _num_outputs(classifier, values[:2].long())
            return values.long(), meta_values.long(), outputs
        except (RuntimeError, TypeError, IndexError):
            pass
    if kind == torch.float32:
        _check_blur(values)
    given, meta_given = values.to(kind), meta_values.to(kind)
    try:
        outputs = _num_outputs(classifier, given[:2])
    except (RuntimeError, TypeError, IndexError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"the classifier cannot take inputs of shape {list(given[:2].shape)} in "
            f"{str(kind).removeprefix('torch.')}: {reason}"
        ) from error
    if given.ndim == 4:  # convolutions on a CPU are about 1.5 times as fast with channels last
        given, meta_given = (
            each.contiguous(memory_format=torch.channels_last) for each in (given, meta_given)
        )
    return given, meta_given, outputs


def _check_blur(values: Tensor) -> None:
    """Raise ValueError where float32 cannot tell a column's values apart that float64 can."""
    if values.dtype != torch.float64 or len(values) < 2:
        return
    rows = values.reshape(len(values), -1)
    spread = rows.std(0, correction=0)
    blurred = (rows - rows.float()).abs().amax(0) > BLUR * spread
    if (blurred & (spread > 0)).any():
        column = int((blurred & (spread > 0)).nonzero()[0, 0])
        raise ValueError(
            f"column {column} of the inputs varies by {float(spread[column]):.3g} about "
            f"{float(rows[:, column].mean()):.3g}, which float32, the classifier's type, blurs: subtract "
            "the mean first, or give a classifier in float64"
        )


def _tensor(values: Given, name: str, device: torch.device) -> Tensor:
    """A contiguous tensor of its own on the device."""
    if not isinstance(values, Tensor):
        array = as_array(values, name)
        if array.dtype.kind == "O" or array.dtype.itemsize > 8:
            try:
                array = array.astype(np.float64)
            except (TypeError, ValueError):
                raise ValueError(f"{name} are {array.dtype}: give real numbers") from None
        if array.dtype.kind not in "fiubc":
            raise ValueError(f"{name} are {array.dtype}: give real numbers")
        # a copy in the machine's own byte order: what is given may be read-only
        return torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C")).to(
            device
        )
    tensor = values.detach()
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise ValueError(f"{name} are no dense tensor: give a plain one, as of .to_dense()")
    tensor = tensor.clone() if tensor.is_inference() else tensor
    return tensor.contiguous().to(device)


def _num_outputs(classifier: nn.Module, sample: Tensor) -> int:
    with torch.no_grad():
        return check_logits(classifier(sample), len(sample)).shape[1]
