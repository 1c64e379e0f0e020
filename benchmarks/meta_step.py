"""What a step of Meta-Weight-Net costs: `python benchmarks/meta_step.py --help`.

Compares, in interleaved rounds, a plain SGD step, `meta_step`, its variants, and the step as others
write it (`pip install higher torchopt betty-ml`; those that are missing or break are named). Times
are in units of the plain step's median of the same run. Error is the relative difference of the
weight net's first gradient to double backward's; rows that begin with ~ take another step by
design. Peak memory is what the tensors of one step add to what the model and data hold (CUDA's
counter; on a CPU the profiler's). Operations are those that a GPU would launch, one or more kernels
each: all but views and allocations. Where a contestant's steps differ, five in a row are one sample.
"""

from __future__ import annotations

import argparse
import logging
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import timm
import torch
from meta_contestants import CONTESTANTS, Contestant, EveryFifth
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

import cwerm.algorithms.networks.models  # noqa: F401  (registers resnet20, preactresnet18)
from cwerm.algorithms.reweighting.weight_net import WeightNet


def seconds(step: Callable[[], None], device: torch.device, clock: str) -> float:
    """Time of one call: on the wall, or of this process's CPUs."""
    now = time.process_time if clock == "cpu" else time.perf_counter
    start = now()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return now() - start


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


class Operations(TorchDispatchMode):
    """Counts what is dispatched, views and allocations apart."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Count and call."""
        aliases = [value.alias_info for value in func._schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in aliases)
        apart = is_view or func._schema.name.startswith(("aten::empty", "profiler::"))
        self.count += not apart
        return func(*args, **(kwargs or {}))


def operations(step: Callable[[], None]) -> int:
    """Operations of one call."""
    with Operations() as seen:
        step()
    return seen.count


def first_gradient(contestant: Contestant) -> torch.Tensor:
    """What the weight net's optimizer is handed in the first step; empty if nothing."""
    seen: list[torch.Tensor] = []

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        seen.append(torch.cat([g.flatten() for g in gradients if g is not None]))

    handle = contestant.weight_optimizer.register_step_pre_hook(look)
    contestant.step()
    handle.remove()
    return seen[0].clone() if seen else torch.empty(0)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--only", nargs="*", help="contestants beside plain SGD")
    options = parser.parse_args()
    logging.disable(logging.INFO)  # betty's
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    torch.manual_seed(0)
    model = timm.create_model(options.model).to(device, memory_format=torch.channels_last)
    weight_net = WeightNet().to(device)
    batch, meta = (
        (
            torch.randn(options.batch, 3, options.size, options.size, device=device).contiguous(
                memory_format=torch.channels_last
            ),
            torch.randint(10, (options.batch,), device=device),
        )
        for _ in range(2)
    )

    contestants: dict[str, Contestant] = {}
    gradients, peaks, counts, times = {}, {}, {}, {}
    for name, kind in CONTESTANTS.items():
        if options.only and name not in (*options.only, "plain SGD", "double backward"):
            continue
        try:
            contestant = kind(model, weight_net, batch, meta)
            gradients[name] = first_gradient(contestant)
            if not isinstance(contestant, EveryFifth):
                peaks[name] = peak_bytes(contestant.step, device)
                counts[name] = operations(contestant.step)
        except Exception as error:  # a contestant that this torch breaks stays in the table
            print(f"{name}: left out, {type(error).__name__}: {str(error).splitlines()[0]}")
            continue
        contestants[name], times[name] = contestant, list[float]()
    for _ in range(options.rounds):
        for name, contestant in contestants.items():
            repeats = 5 if isinstance(contestant, EveryFifth) else 1
            taken = [seconds(contestant.step, device, options.clock) for _ in range(repeats)]
            times[name].append(sum(taken) / repeats)
    report(options, gradients, peaks, counts, times)


def report(
    options: argparse.Namespace,
    gradients: dict[str, torch.Tensor],
    peaks: dict[str, int],
    counts: dict[str, int],
    times: dict[str, list[float]],
) -> None:
    """Print the conditions and one row a contestant."""
    unit = statistics.median(times["plain SGD"])
    cuda = options.device.startswith("cuda")
    hardware = torch.cuda.get_device_name() if cuda else f"{platform.machine()} CPU"
    versions = {name: _version(name) for name in ("torch", "higher", "torchopt", "betty-ml")}
    print(
        f"{options.model}, batch and meta batch {options.batch}, {options.size} px, channels last, "
        f"{hardware}, {torch.get_num_threads()} threads, {options.clock} time, "
        f"n = {options.rounds}, " + ", ".join(f"{k} {v}" for k, v in versions.items())
    )
    print(f"plain step {unit * 1e3:.0f} ms, {peaks['plain SGD'] / 2**20:.0f} MiB")
    print(
        f"{'step':<22}{'median':>8}{'min':>7}{'max':>7}{'paired':>8}{'peak':>7}{'ops':>7}{'error':>10}"
    )
    exact = gradients.get("double backward", torch.empty(0))
    for name, values in times.items():
        paired = statistics.median(a / b for a, b in zip(values, times["plain SGD"], strict=True))
        gradient = gradients[name]
        error = f"{((gradient - exact).norm() / exact.norm()).item():.0e}" if len(gradient) else "-"
        peak = f"{peaks[name] / peaks['plain SGD']:.2f}" if name in peaks else "-"
        print(
            f"{name:<22}{statistics.median(values) / unit:>8.2f}{min(values) / unit:>7.2f}"
            f"{max(values) / unit:>7.2f}{paired:>8.2f}{peak:>7}{counts.get(name, '-'):>7}{error:>10}"
        )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"


if __name__ == "__main__":
    main()
