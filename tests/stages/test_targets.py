"""What the training learns of each sample: the arrays of the store against those of the Python API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from changes import change

from cwerm.algorithms.labels import LabelPosterior
from cwerm.algorithms.training.targets import on_device
from cwerm.errors import UserError
from cwerm.job.tree import parse_job
from cwerm.pipeline import plan
from cwerm.stages.train.targets import Targets, check_targets, chosen_targets, make_targets
from cwerm.terminal import console
from stages.conftest import Chain, Vary, run_stages
from stages.noisy import Arrays

pytestmark = pytest.mark.usefixtures("ray_session")

JUDGED: dict[str, Any] = {
    "reweight": {"method": "posterior"},
    "broadcast": {"method": "function"},
    "coreset": {"method": "auto", "meta": "none"},
}


def learned(chain: Chain, **train: Any) -> tuple[str, Targets]:
    """What the training of the chain's job would learn, and the name of it."""
    tree = chain.job.model_dump()
    tree["train"] |= train
    steps = plan(parse_job(tree))
    settings, inputs = steps["train"].settings, steps.inputs("train")
    ids, weights = Chain(steps).training_set()
    assert np.array_equal(ids, np.arange(chain.made["ingest"].rows("images")))
    return chosen_targets(settings, inputs), make_targets(
        settings, inputs, steps.store, ids, weights
    )


@pytest.fixture
def judged(vary: Vary) -> tuple[Chain, Any, LabelPosterior]:
    """The noisy images after the broadcast, and what the Python API says of them."""
    chain = vary("broadcast", **JUDGED)
    arrays = Arrays(chain)
    posterior = LabelPosterior(10, chain.job.seed).fit(arrays.features, arrays.labels)
    rows = np.arange(400)
    return chain, posterior.judge(arrays.features, arrays.labels, reference_rows=rows), posterior


def test_soft_targets_are_the_beliefs(judged: tuple[Chain, Any, LabelPosterior]) -> None:
    chain, found, _ = judged
    name, mine = learned(chain, targets="soft")
    assert name == "soft"
    assert mine.beliefs is not None
    dense = on_device(mine.beliefs, torch.device("cpu")).dense(10).numpy()
    np.testing.assert_allclose(dense, found.belief, atol=1e-6)
    assert np.array_equal(mine.weights, np.ones(400))
    assert np.array_equal(mine.labels, chain.labels)


def test_relabelled_targets(judged: tuple[Chain, Any, LabelPosterior]) -> None:
    chain, found, _ = judged
    name, mine = learned(chain, targets="relabel")
    assert name == "relabel"
    sure = found.issue & (found.suggestion_probability > 0.9)
    assert 20 < sure.sum() < 300
    assert np.array_equal(mine.labels, np.where(sure, found.suggested, chain.labels))
    wanted = found.weight.astype(np.float64) / found.weight.mean(dtype=np.float64)
    wanted = np.where(sure, 2 * found.suggestion_probability - 1, wanted)
    np.testing.assert_allclose(mine.weights, wanted / wanted.mean(), atol=1e-5)
    assert mine.beliefs is None


def test_given_targets_are_labels_times_weights(judged: tuple[Chain, Any, LabelPosterior]) -> None:
    chain, found, _ = judged
    name, mine = learned(chain, targets="given")
    assert name == "given"
    assert np.array_equal(mine.labels, chain.labels)
    np.testing.assert_allclose(mine.weights, found.weight / found.weight.mean(), atol=1e-5)


def test_what_is_taken_follows_from_the_noise(judged: tuple[Chain, Any, LabelPosterior]) -> None:
    chain, _, posterior = judged
    expected = "relabel" if posterior.verdict.gate.unstructured else "soft"
    assert learned(chain)[0] == expected
    assert learned(chain, loss="gce")[0] == "given", "soft labels are for the cross entropy"


def test_where_nothing_is_wrong_labels_are_as_given(vary: Vary) -> None:
    chain = vary("broadcast", **JUDGED, data__noise="none", data__limit=200)
    assert "beliefs" not in chain.made["broadcast"].tables
    for targets in ("auto", "soft", "relabel"):
        name, mine = learned(chain, targets=targets)
        assert name == "given"
        assert np.array_equal(mine.labels, chain.labels)
        assert np.array_equal(mine.weights, np.ones(200))


@pytest.mark.parametrize("control", ["constant", "permuted", "untrained"])
def test_controls_learn_given_labels(
    judged: tuple[Chain, Any, LabelPosterior], control: str
) -> None:
    tree = {**judged[0].job.model_dump(), "control": control}
    assert plan(parse_job(tree))["train"].settings.targets == "given"


@pytest.mark.slow
def test_a_training_says_what_it_learned(judged: tuple[Chain, Any, LabelPosterior]) -> None:
    tree = judged[0].job.model_dump()
    change(tree, {"train__epochs": 1, "train__targets": "soft"})
    said: list[str] = []
    with console.told_to(said.append):
        made = run_stages(parse_job(tree), "train").made["train"]
    assert made.info["targets"] == "soft"
    assert "train.targets: soft, how probable each class is" in said


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method": "erm"}, "needs what is believed of each sample"),
        ({"reweight": {"method": "uniform"}}, "needs what is believed"),
        ({"broadcast": {"method": "nearest"}}, "needs what is believed"),
        ({"control": "permuted"}, "with control permuted"),
        ({"train": {"targets": "soft", "loss": "gce"}}, "not by train.loss gce"),
    ],
)
def test_targets_that_nothing_tells_are_refused(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    tree = {"data": {"source": str(tmp_path)}, "train": {"targets": "soft"}, **changes}
    with pytest.raises(UserError, match=rf"train\.targets: 'soft'.*{told}"):
        check_targets(parse_job(tree))
