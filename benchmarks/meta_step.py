"""What a step of Meta-Weight-Net costs: `python benchmarks/meta_step.py --help`.

Compares, in interleaved rounds on one ResNet20 with BatchNorm, a plain SGD step, the step as the
authors of Meta-Weight-Net write it (unrolled, `create_graph=True`, a second forward for the final
update) and `meta_step`; the last two reach the same parameters. Times are in units of the plain
step's median of the same run. Peak memory is what tensors of one step add to what the model and
data hold (CUDA's counter; on a CPU the profiler's).
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial

import timm
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

import cwerm.algorithms.models  # noqa: F401  (registers resnet20)
from cwerm.algorithms.weight_net import WeightNet, meta_step

LR = 0.1
Pair = tuple[Tensor, Tensor]


class Setup:
    """One model, weight net and pair of optimisers; each contestant steps a copy of its own."""

    def __init__(self, model: nn.Module, weight_net: nn.Module) -> None:
        self.model, self.weight_net = copy.deepcopy(model), copy.deepcopy(weight_net)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), LR, momentum=0.9, weight_decay=5e-4
        )
        self.weight_optimizer = torch.optim.Adam(self.weight_net.parameters(), 1e-3)

    def plain(self, batch: Pair, _: Pair) -> None:
        """A step of SGD on the mean loss."""
        self.optimizer.zero_grad()
        functional.cross_entropy(self.model(batch[0]), batch[1]).backward()
        self.optimizer.step()

    def double_backward(self, batch: Pair, meta_batch: Pair) -> None:
        """The unrolled step: differentiate the meta loss through the virtual step's gradient."""
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        names, parameters = zip(*self.model.named_parameters(), strict=True)
        logits = functional_call(
            self.model, {**dict(zip(names, parameters, strict=True)), **buffers}, (batch[0],)
        )
        losses = functional.cross_entropy(logits, batch[1], reduction="none")
        weights = self.weight_net(losses.detach()[:, None])
        gradients = torch.autograd.grad((weights * losses).mean(), parameters, create_graph=True)
        theta = {n: p - LR * g for n, p, g in zip(names, parameters, gradients, strict=True)}
        meta_logits = functional_call(self.model, {**theta, **buffers}, (meta_batch[0],))
        meta_loss = functional.cross_entropy(meta_logits, meta_batch[1])
        meta = torch.autograd.grad(meta_loss, list(self.weight_net.parameters()))
        for parameter, gradient in zip(self.weight_net.parameters(), meta, strict=True):
            parameter.grad = gradient
        self.weight_optimizer.step()
        losses = functional.cross_entropy(self.model(batch[0]), batch[1], reduction="none")
        with torch.no_grad():
            weights = self.weight_net(losses[:, None])
        self.optimizer.zero_grad()
        (weights * losses).mean().backward()
        self.optimizer.step()

    def ours(self, batch: Pair, meta_batch: Pair) -> None:
        """The same step by the Jacobian-vector product."""
        meta_step(
            self.model,
            self.weight_net,
            batch,
            meta_batch,
            self.optimizer,
            self.weight_optimizer,
            LR,
        )


def seconds(step: Callable[[], None], device: torch.device) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_bytes(step: Callable[[], None], device: torch.device) -> int:
    """The most bytes of tensors that one call holds beyond those alive before it."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        step()
    held = peak = 0
    for event in trace.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--channels-last", action="store_true")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(0)
    model = timm.create_model(options.model).to(device)
    weight_net = WeightNet().to(device)
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    batch, meta_batch = (
        (
            torch.randn(options.batch, 3, options.size, options.size, device=device).contiguous(
                memory_format=layout
            ),
            torch.randint(10, (options.batch,), device=device),
        )
        for _ in range(2)
    )

    steps: dict[str, Callable[[], None]] = {}
    for name in ("plain", "double_backward", "ours"):
        setup = Setup(model, weight_net)
        steps[name] = partial(getattr(setup, name), batch, meta_batch)
    peaks = {name: peak_bytes(step, device) for name, step in steps.items()}  # also warms up
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds):
        for name, step in steps.items():
            times[name].append(seconds(step, device))

    unit = statistics.median(times["plain"])
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    print(
        f"{options.model}, batch {options.batch}, {options.size} px, "
        f"{'channels last' if options.channels_last else 'channels first'}, {name}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, n = {options.rounds}; "
        f"plain step {unit * 1e3:.0f} ms"
    )
    print(f"{'step':<16}{'median':>8}{'min':>8}{'max':>8}{'peak MiB':>10}")
    for name, values in times.items():
        ratios = [value / unit for value in values]
        print(
            f"{name:<16}{statistics.median(ratios):>8.2f}{min(ratios):>8.2f}{max(ratios):>8.2f}"
            f"{peaks[name] / 2**20:>10.0f}"
        )
    paired = [a / b for a, b in zip(times["double_backward"], times["ours"], strict=True)]
    print(
        f"double backward / ours: {statistics.median(paired):.2f} "
        f"({min(paired):.2f} to {max(paired):.2f})"
    )


if __name__ == "__main__":
    main()
