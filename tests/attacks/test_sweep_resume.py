"""A sweep goes on from its own records: what Ray Tune has left, and damaged records, count as nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from attacks.payload import pickled
from cwerm.errors import UserError
from cwerm.sweeps.earlier import Earlier, read_earlier
from cwerm.sweeps.search import _study
from cwerm.sweeps.space import load_both
from cwerm.sweeps.sweep import sweep
from cwerm.sweeps.trial import Records, Trials

RATES = [0.05, 0.1]


class Begun:
    """A sweep whose trials have left records, written here by hand."""

    def __init__(self, folder: Path, **tree: Any) -> None:
        self.folder, self.tune, self.job = folder, folder / "tune.yaml", folder / "job.yaml"
        space = {"method": "erm", "train.lr": {"grid": RATES}}
        self.tune.write_text(yaml.safe_dump({"name": "study", "space": space} | tree))
        job = {
            "storage": str(folder / "store"),
            "data": {"source": "sample", "validation_fraction": 0.1},
        }
        self.job.write_text(yaml.safe_dump(job))
        self.settings, loaded = load_both(self.tune, self.job)
        base = {**loaded.model_dump()}
        base["resources"]["address"] = None
        self.trials = Trials(
            "study", base, self.settings.seeds if self.settings.search == "optuna" else 1,
            tuple(self.settings.metrics), False, str(folder), self.settings.search == "optuna",
        )  # fmt: skip
        self.records = Records(loaded, "study")
        self.loaded = loaded
        given = {
            "sweep": self.settings.model_dump(),
            "base": {**base, "resources": None, "s3": None},
        }
        description = {
            "name": "study", "report": None, "metric": "validation_accuracy", "mode": "max",
            "baseline": {}, "keys": ["method", "train.lr"], "experiment": "abc", "given": given,
        }  # fmt: skip
        self.path = folder / "store/sweeps/study"
        self.path.mkdir(parents=True)
        (self.path / "sweep.json").write_text(json.dumps(description))

    def leave(self, point: dict[str, Any], **changes: Any) -> str:
        """Records of all seeds of a point; the last one's name."""
        for job in self.trials.jobs(point):
            record = {
                "trial": job.name, "seed": job.seed, "status": "done", "error": None, "epochs": 2,
                "job": json.dumps(job.model_dump()), "validation_accuracy": 0.5 + point["train.lr"],
                "test_accuracy": 0.4, "seconds_total": 3.0, "reused": ["ingest"], "folder": "runs/x",
            }  # fmt: skip
            self.records.write(job.name, record | changes)
        return job.name

    def rows(self) -> list[dict[str, Any]]:
        return pq.read_table(self.path / "results.parquet").to_pylist()


def test_nothing_of_tunes_state_is_loaded(tmp_path: Path) -> None:
    begun, mark = Begun(tmp_path), tmp_path / "mark"
    for rate in RATES:
        begun.leave({"seed": 0, "method": "erm", "train.lr": rate})
    state = begun.path / "tune" / "abc"
    state.mkdir(parents=True)
    for name in ("tuner.pkl", "trainable.pkl", "experiment_state-2026-01-01_00-00-00.json"):
        (state / name).write_bytes(pickled(mark))
    sweep(begun.tune, begun.job, resume=True)
    assert not mark.exists()
    assert [row["validation_accuracy"] for row in begun.rows()] == [0.55, 0.6]
    assert [row["status"] for row in begun.rows()] == ["done", "done"]


DAMAGES: dict[str, bytes] = {
    "empty": b"",
    "cut": b'{"status": "done"',
    "list": b"[1]",
    "null": b"null",
    "nothing": b"{}",
    "deep": b'{"job":' + b"[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_record_counts_as_none(
    tmp_path: Path, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = Begun(tmp_path)
    point = {"seed": 0, "method": "erm", "train.lr": RATES[0]}
    name = begun.leave(point)
    (begun.path / "trials" / f"{name}.json").write_bytes(damage)
    found = read_earlier(begun.settings, begun.trials, begun.records, [point])
    assert found == Earlier()
    assert f"{name}: its record is damaged" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "change",
    [
        {"status": "fine"}, {"test_accuracy": "0.9"}, {"validation_accuracy": float("nan")}, {"seed": "0"},
        {"epochs": 1.5}, {"epochs": None}, {"job": "[]"}, {"job": "{}"}, {"job": 5}, {"reused": [1]},
        {"reused": "x"}, {"error": 5}, {"folder": 1}, {"seconds_ingest": 10**30}, {"trial": None},
        {"validation_accuracy": None}, {"validation_accuracy": True},
    ],
    ids=str,
)  # fmt: skip
def test_a_record_of_other_values_counts_as_none(tmp_path: Path, change: dict[str, Any]) -> None:
    begun = Begun(tmp_path)
    point = {"seed": 0, "method": "erm", "train.lr": RATES[0]}
    begun.leave(point, **change)
    assert read_earlier(begun.settings, begun.trials, begun.records, [point]) == Earlier()


@pytest.mark.parametrize("damage", [b"", b"[]", b"{", b'{"given": 5}', b"{}"])
def test_a_damaged_sweep_is_one_line(tmp_path: Path, damage: bytes) -> None:
    begun = Begun(tmp_path)
    (begun.path / "sweep.json").write_bytes(damage)
    with pytest.raises(UserError, match=r"--resume: .*leave --resume out") as error:
        sweep(begun.tune, begun.job, resume=True)
    assert "\n" not in str(error.value)


def _optuna(tmp_path: Path, **tree: Any) -> Begun:
    space = {
        "method": "erm", "train.lr": {"log_uniform": [1e-3, 1e-1]},
        "train.momentum": {"choice": [0.0, 0.9]}, "train.epochs": {"integer": [2, 9]},
    }  # fmt: skip
    return Begun(
        tmp_path, **{"search": "optuna", "space": space, "num_samples": 6, "seeds": 2} | tree
    )


def _point(lr: float, momentum: float = 0.9, epochs: int = 2) -> dict[str, Any]:
    return {"method": "erm", "train.lr": lr, "train.momentum": momentum, "train.epochs": epochs}


def test_optuna_is_told_what_ended_and_begins_with_what_had_begun(tmp_path: Path) -> None:
    begun = _optuna(tmp_path)
    begun.leave(_point(0.01))
    begun.leave(_point(0.02, epochs=9), status="begun")
    begun.leave(_point(0.03, 0.0), status="failed", error="because")
    begun.leave(_point(0.5))  # out of the space, as of another sweep
    begun.leave({**_point(0.04), "train.momentum": 0.5})
    found = read_earlier(begun.settings, begun.trials, begun.records, [])
    assert found.judged == [(_point(0.01), [0.51])]
    assert found.ended == [_point(0.01)]
    assert sorted(found.begun, key=lambda point: point["train.lr"]) == [
        _point(0.02, epochs=9), _point(0.03, 0.0),
    ]  # fmt: skip
    storage, sampler = _study(begun.settings, begun.loaded, found)
    import optuna

    study = optuna.load_study(study_name="study", storage=storage, sampler=sampler)
    assert [(t.params["train.lr"], t.values) for t in study.get_trials(states=[
        optuna.trial.TrialState.COMPLETE])] == [(0.01, [0.51])]  # fmt: skip
    from ray.tune.search.optuna import OptunaSearch

    from cwerm.sweeps.search import param_space

    ranges = OptunaSearch.convert_search_space(param_space(begun.settings, []))
    asked = [study.ask(fixed_distributions=ranges).params["train.lr"] for _ in range(3)]
    assert sorted(asked[:2]) == [0.02, 0.03]
    assert asked[2] not in (0.01, 0.02, 0.03)


def test_a_sampler_that_goes_on_draws_other_points(tmp_path: Path) -> None:
    begun = _optuna(tmp_path)

    def drawn(earlier: Earlier) -> list[float]:
        import optuna
        from ray.tune.search.optuna import OptunaSearch

        from cwerm.sweeps.search import param_space

        storage, sampler = _study(begun.settings, begun.loaded, earlier)
        study = optuna.load_study(study_name="study", storage=storage, sampler=sampler)
        ranges = OptunaSearch.convert_search_space(param_space(begun.settings, []))
        return [study.ask(fixed_distributions=ranges).params["train.lr"] for _ in range(5)]

    fresh = drawn(Earlier())
    assert fresh == drawn(Earlier())
    later = drawn(Earlier(judged=[(_point(fresh[0]), [0.9]), (_point(fresh[1]), [0.8])]))
    assert not {*fresh} & {*later}


def test_two_metrics_are_told_together(tmp_path: Path) -> None:
    tree = {"metric": ["validation_accuracy", "seconds_total"], "mode": ["max", "min"]}
    begun = _optuna(tmp_path, **tree)
    begun.leave(_point(0.01))
    found = read_earlier(begun.settings, begun.trials, begun.records, [])
    assert found.judged == [(_point(0.01), [0.51, 3.0])]
    _study(begun.settings, begun.loaded, found)
