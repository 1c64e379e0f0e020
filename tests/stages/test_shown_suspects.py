"""The run folder shows the suspects of its own weights, and of no others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cwerm.reports.report import report
from cwerm.runs import folder as folders
from cwerm.runs.folder import RunFolder
from cwerm.runs.weights_file import write_weights
from cwerm.suspects.show import DUPLICATES, FILES, HELD_OUT, LIST, PAGE, SHEET, UNUSUAL
from stages.conftest import Chain, Vary

JUDGED: dict[str, Any] = {
    "reweight": {"method": "posterior"},
    "broadcast": {"method": "function"},
    "coreset": {"method": "auto", "meta": "none"},
}
pytestmark = pytest.mark.usefixtures("ray_session")


def place(chain: Chain) -> Path:
    return Path(chain.job.storage, "runs", chain.job.name)


def finished(chain: Chain) -> None:
    """As if the run of the chain's weights had ended here."""
    (file, *more) = chain.made["broadcast"].tables["weights"]
    uris = [chain.store.uri(chain.made["broadcast"], part) for part in (file, *more)]
    summary = {
        "name": "small", "method": "cw-erm", "control": "none", "seed": 0, "test_accuracy": 0.5,
        "test_accuracy_top5": None, "train_accuracy": 0.5, "test_expected_calibration_error": 0.1,
        "test_per_class_accuracy": [0.5], "class_names": ["a"], "num_samples": 1, "num_test_samples": 1,
        "num_rejects": 0, "seconds": {}, "reused": [],
        "artifacts": {"weights": uris if more else uris[0]},
    }  # fmt: skip
    (place(chain) / "summary.json").write_text(json.dumps(summary))


def test_what_is_shown_is_of_these_weights(vary: Vary, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = vary("broadcast", **JUDGED)
    clean = vary("broadcast", **JUDGED, data__noise="none", data__limit=200)
    RunFolder(noisy.plan).show_suspects()
    always = (LIST, PAGE, SHEET, DUPLICATES, UNUSUAL)
    shown = {name: (place(noisy) / name).read_bytes() for name in always}
    assert {*FILES} == {*shown, *HELD_OUT.values()}
    assert not any((place(noisy) / name).exists() for name in HELD_OUT.values()), "not judged"
    assert shown[LIST].count(b"\n") > 50
    finished(noisy)
    made: list[bool] = []
    own = folders.show

    def show(steps: Any) -> Any:
        made.append(True)
        return own(steps)

    monkeypatch.setattr(folders, "show", show)
    RunFolder(noisy.plan).show_suspects()
    assert made == [], "it is there"
    RunFolder(clean.plan).show_suspects()
    assert made == [True], "the folder has that of other weights"
    assert (place(clean) / LIST).read_bytes().count(b"\n") == 1
    assert not (place(clean) / SHEET).exists(), "nothing is left of the others"
    finished(clean)
    RunFolder(noisy.plan).show_suspects()
    assert (place(noisy) / PAGE).read_bytes() == shown[PAGE]


def test_the_report_of_judged_labels(vary: Vary) -> None:
    noisy = vary("broadcast", **JUDGED)
    folder = RunFolder(noisy.plan)
    uris = folder._uris(noisy.made | {"label": noisy.run("label")})
    run = str(place(noisy).relative_to(noisy.job.storage))
    write_weights(run, noisy.store, noisy.made["broadcast"], noisy.made["ingest"])
    history = Path(noisy.job.storage, "artifacts/train/key/attempt/history.json")
    history.parent.mkdir(parents=True)
    history.write_text('[{"epoch": 0, "train_loss": 1.0, "test_loss": 1.0}]')
    finished(noisy)
    path = place(noisy) / "summary.json"
    names = noisy.made["ingest"].info["class_names"]
    summary = json.loads(path.read_text()) | {
        "class_names": names,
        "test_per_class_accuracy": [0.5] * len(names),
        "artifacts": uris | {"train/history.json": str(history)},
    }
    path.write_text(json.dumps(summary))
    try:
        (*_, page) = report(str(place(noisy)))
    finally:
        path.unlink()
    text = Path(page).read_text()
    count = (place(noisy) / LIST).read_bytes().count(b"\n") - 1
    assert f"labels {count} look wrong" in text
    assert text.count("% likely right") == 32
    assert 'class="matrix"' in text
    assert "The quality of the training labels against the truth" in text
    assert "A red\ncross" in text
    assert "an earlier version" in text, "no reliability was recorded"
    assert (Path(page).parent / "label_reliability.png").exists()
