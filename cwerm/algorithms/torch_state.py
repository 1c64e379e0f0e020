"""Torch's global state while cwerm computes: what the caller has set neither disturbs nor is changed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

__all__ = [
    "autocast",
    "check_shapes",
    "default_device",
    "float32_defaults",
    "one_thread",
    "plain_torch",
]


@contextmanager
def plain_torch() -> Iterator[None]:
    """Gradients on, no inference mode and no autocast, also where the caller is inside of such.

    What was compiled runs uncompiled, as compiled graphs cannot be walked twice.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """What runs inside computes in `precision`, `float32` (as it is) or `bfloat16`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


@contextmanager
def default_device(device: torch.device) -> Iterator[None]:
    """New tensors are made on `device`, whatever `torch.set_default_device` was told."""
    if torch.get_default_device().type == device.type:  # a device context slows every call down
        yield
        return
    with device:
        yield


@contextmanager
def float32_defaults() -> Iterator[None]:
    """New tensors are float32 and on the CPU, whatever torch's defaults are."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with default_device(torch.device("cpu")):
            yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def one_thread() -> Iterator[int]:
    """Sums in one order, whatever the number of cores; gives the threads that there were."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def check_shapes(optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError where what an optimizer has loaded for a parameter is not of its shape."""
    for parameter, values in optimizer.state.items():
        for value in values.values():
            if isinstance(value, torch.Tensor) and value.shape not in (parameter.shape, ()):
                raise ValueError("the optimizer's state is of another shape")
