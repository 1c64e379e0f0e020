"""The table that a run ends with."""

from __future__ import annotations

from typing import Any

from cwerm.runs.held_out import told_without
from cwerm.terminal import console


def print_table(summary: dict[str, Any], folder: str) -> None:
    """Print what a run gave, and where everything lies."""
    from rich.table import Table

    table = Table(
        title=f"{summary['name']}: {summary['method']}, seed {summary['seed']}", show_header=False
    )
    table.add_column()
    table.add_column(justify="right")
    for stage, seconds in summary["seconds"].items():
        table.add_row(stage, "reused" if stage in summary["reused"] else f"{seconds:.1f} s")
    table.add_section()
    if summary["validation_accuracy"] is not None:
        table.add_row("validation accuracy", f"{100 * summary['validation_accuracy']:.2f} %")
    table.add_row("test accuracy", f"{100 * summary['test_accuracy']:.2f} %")
    if told := told_without(summary):
        table.add_row(*told)
    if summary["test_accuracy_top5"] is not None:
        table.add_row("top 5", f"{100 * summary['test_accuracy_top5']:.2f} %")
    error = summary["test_expected_calibration_error"]
    table.add_row("calibration error", f"{100 * error:.2f} %")
    if "weights" in summary:
        table.add_section()
        for name, score in summary["weights"].items():
            shown = "-" if score is None else f"{score:.3f}"
            table.add_row(name.replace("_", " ").replace("auroc", "AUROC"), shown)
    console.out.print(table)
    places = {"run": folder, "model": summary["artifacts"]["model"]}
    if "weights" in summary["artifacts"]:
        places["weights"] = f"{folder}/weights.parquet"
    places["TensorBoard"] = f"tensorboard --logdir {folder}/events"
    for name, place in places.items():
        console.out.print(f"{name:<12} {place}", soft_wrap=True, markup=False)
