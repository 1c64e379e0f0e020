"""What the keys of a method become."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cwerm.job.tree import parse_job
from cwerm.methods.samples import Run


@pytest.mark.parametrize(
    ("precision", "autocast"), [("float32", None), ("bfloat16", torch.bfloat16)]
)
@pytest.mark.parametrize("method", ["metaweightnet", "l2r"])
def test_the_precision_of_a_job_reaches_the_step(
    method: str, precision: str, autocast: Any
) -> None:
    section = {"method": method, "precision": precision}
    job: Any = parse_job({"data": {"source": "sample"}, "reweight": section})
    assert job.reweight._fresh(100, Run(["a", "b"])).options.autocast == autocast
