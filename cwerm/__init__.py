"""CW-ERM: pick a coreset, learn sample weights there, spread them to all data, train with them."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cwerm.algorithms.coreset import select_coreset
    from cwerm.algorithms.labels import LabelErrors, LabelPosterior, find_label_errors
    from cwerm.algorithms.reweighting.metaweight import MetaWeightNet, meta_gradient
    from cwerm.algorithms.spreading.broadcast import broadcast_weights
    from cwerm.errors import UserError
    from cwerm.job.tree import Job, load_job
    from cwerm.pipeline import run
    from cwerm.runs.folder import RunResult, load_weights

__all__ = [
    "Job",
    "LabelErrors",
    "LabelPosterior",
    "MetaWeightNet",
    "RunResult",
    "UserError",
    "__version__",
    "broadcast_weights",
    "find_label_errors",
    "load_job",
    "load_weights",
    "meta_gradient",
    "run",
    "select_coreset",
]

# Loaded on first use, so that `import cwerm` and `cwerm --help` do not wait for torch.
_MODULES = {
    "Job": "cwerm.job.tree",
    "LabelErrors": "cwerm.algorithms.labels",
    "LabelPosterior": "cwerm.algorithms.labels",
    "MetaWeightNet": "cwerm.algorithms.reweighting.metaweight",
    "RunResult": "cwerm.runs.folder",
    "UserError": "cwerm.errors",
    "broadcast_weights": "cwerm.algorithms.spreading.broadcast",
    "find_label_errors": "cwerm.algorithms.labels",
    "load_job": "cwerm.job.tree",
    "load_weights": "cwerm.runs.folder",
    "meta_gradient": "cwerm.algorithms.reweighting.metaweight",
    "run": "cwerm.pipeline",
    "select_coreset": "cwerm.algorithms.coreset",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("cwerm")
    if name not in _MODULES:
        raise AttributeError(f"module 'cwerm' has no attribute '{name}'")
    return getattr(importlib.import_module(_MODULES[name]), name)
