"""What a run says of the labels that it is tested by, and how much they matter."""

from __future__ import annotations

from typing import Any

import numpy as np

from cwerm.stages import common
from cwerm.stages.plan import Plan

__all__ = ["JUDGED", "held_out_scores", "told_without"]

JUDGED = ("weights", "test_judgements", "trusted_judgements")  # tables that hold judgements


def held_out_scores(plan: Plan) -> dict[str, Any]:
    """How many labels of test and trusted images look wrong, and the accuracy without such test images.

    ``test_suspects`` and ``trusted_suspects``, None where they were not judged, and
    ``test_accuracy_without_suspects``, None where there are none or nothing else.
    """
    scores: dict[str, Any] = dict.fromkeys(("test_suspects", "trusted_suspects"))
    scores["test_accuracy_without_suspects"] = None
    judged = plan.made.get("judge_test")
    if judged is None:
        return scores
    store, is_open = plan.store, plan.made["reweight"].info["open"]
    for kind in ("test", "trusted"):
        if f"{kind}_judgements" not in judged.tables:
            continue
        rows = store.read(judged, f"{kind}_judgements").sort_by("id")
        label, suggested = (common.column(rows, name) for name in ("label", "suggested_label"))
        wrong = (label != suggested) & is_open
        if kind == "test":
            said = store.read(plan.made["train"], "test_predictions")
            ids, predicted = (common.column(said, name) for name in ("id", "predicted"))
            wrong, right = wrong[ids], predicted == label[ids]  # without those a person removed
            if wrong.any() and not wrong.all():
                scores["test_accuracy_without_suspects"] = float(right[~wrong].mean())
        scores[f"{kind}_suspects"] = int(np.count_nonzero(wrong))
    return scores


def told_without(summary: dict[str, Any]) -> tuple[str, str] | None:
    """The accuracy without the test labels that look wrong, and which these are; None where there is none."""
    accuracy = summary["test_accuracy_without_suspects"]
    if accuracy is None:
        return None
    of = f"{summary['test_suspects']:,} of {summary['num_test_samples']:,}"
    return f"without {of} labels that look wrong", f"{100 * accuracy:.2f} %"
