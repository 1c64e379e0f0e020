"""Run a job whose ranks write down each batch that they take, and take their time for it.

python recorded_training.py JOB FOLDER SECONDS
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from cwerm import pipeline
from cwerm.job.tree import load_job
from cwerm.stages.train import loop


def recorded(folder: str, seconds: float) -> Callable[[dict[str, Any]], None]:
    """What each rank does; it goes to the workers as it is here, which know nothing of this file."""

    def train_worker(config: dict[str, Any]) -> None:
        import hashlib
        import json
        import os
        import time
        from collections.abc import Iterator
        from pathlib import Path

        from cwerm.algorithms.training.batches import Batch
        from cwerm.algorithms.training.streaming.batches import StreamedBatches
        from cwerm.stages.train.loop import train_worker as whole_worker

        whole = StreamedBatches.epoch

        def epoch(self: StreamedBatches, number: int, start: int = 0) -> Iterator[Batch]:
            world, rank = self.ranks.world_size, self.ranks.rank
            path = Path(folder, f"{os.uname().nodename}-{os.getpid()}-{time.time()}.jsonl")
            order = self.order(number)
            for step, batch in enumerate(whole(self, number, start), start):
                seen = [hashlib.sha256(row.numpy().tobytes()).hexdigest() for row in batch.inputs]
                line = {
                    **{"world": world, "rank": rank, "step": step, "time": time.time()},
                    "samples": [*zip(order[step].tolist(), seen, strict=True)],
                }
                with path.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                time.sleep(seconds)
                yield batch

        StreamedBatches.epoch = epoch  # type: ignore[method-assign]
        whole_worker(config)

    return train_worker


if __name__ == "__main__":
    loop.train_worker = recorded(sys.argv[2], float(sys.argv[3]))
    pipeline.run(load_job(sys.argv[1]))
