"""What fits the memory where the workers run."""

from __future__ import annotations

import psutil

from cwerm.errors import UserError
from cwerm.runtime import capacity, waiting
from cwerm.runtime.asked import Run
from cwerm.runtime.worker_errors import user_errors


def check_memory(
    run: Run, key: str, bytes_a_sample: int, batch_size: int, workers_a_node: int = 1
) -> None:
    """Refuse a batch that can't fit the memory where the workers run.

    ``workers_a_node`` is the number of batches in one memory at once; see `Size.sharing_memory`.

    Raises:
        UserError: naming ``key``, the memory needed, the memory free and a batch that fits.
    """
    free = _free_memory(run)
    needed = bytes_a_sample * batch_size * workers_a_node
    if needed > free:
        fitting = int(0.5 * free / (bytes_a_sample * workers_a_node))
        raise UserError(
            f"{key}: a batch of {batch_size} needs about {needed / 2**30:.1f} GiB and "
            f"{free / 2**30:.1f} GiB are free; try {max(1, fitting)}"
        )


def _free_memory(run: Run) -> int:
    """Bytes free for a batch: on a GPU worker where there are GPUs, else on a CPU worker."""
    import ray

    def on_gpu() -> int:
        import torch

        return torch.cuda.mem_get_info()[0]

    def on_cpu() -> int:
        return psutil.virtual_memory().available

    size = capacity.size(run)
    request = capacity.Request(0.1, size.gpus, size.accelerator)
    probe = ray.remote(on_gpu if size.device == "cuda" else on_cpu).options(**request.options())
    with user_errors():
        return waiting.for_answer(run, "the run", request, probe.remote())
