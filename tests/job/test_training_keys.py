"""How a job says in which way its classifier is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cwerm.errors import UserError
from cwerm.job.file import set_key
from cwerm.job.tree import SECTIONS, load_job, parse_job

JOBS = Path(__file__).parents[2] / "jobs"


def train(**keys: Any) -> Any:
    return parse_job({"data": {"source": "sample"}, "train": keys}).train


def test_adamw_has_a_rate_and_a_decay_of_its_own() -> None:
    assert (train().lr, train().weight_decay) == (0.1, 5e-4)
    adamw = train(optimizer="adamw")
    assert (adamw.lr, adamw.weight_decay) == (0.001, 0.05)
    assert train(optimizer="adamw", input="features").lr == 0.001
    assert train(optimizer="adamw", lr=0.3).lr == 0.3


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"optimizer": "adam"}, r"train\.optimizer: unknown value 'adam'; did you mean 'adamw'"),
        ({"betas": [0.9]}, r"train\.betas: got \[0\.9\], should be a list of 2"),
        ({"betas": [0.9, 1.0]}, r"train\.betas.* should be "),
        ({"ema": 1.0}, r"train\.ema: got 1\.0, should be a number above 0 and below 1"),
        ({"epochs": 3, "warmup_epochs": 3}, r"train: warmup_epochs is 3, and epochs 3"),
        (
            {"loss": "focal", "label_smoothing": 0.1},
            r"train: label_smoothing is of the cross entropy",
        ),
        ({"loss": "small_loss", "wrong_share": 0.2, "mixup": 0.2}, r"train: .* leave mixup out"),
        ({"loss": "small_loss", "wrong_share": 0.2, "accumulate": 2}, r"leave accumulate out"),
        ({"head_lr_factor": 10}, r"train: head_lr_factor is for fine-tuning"),
    ],
)
def test_what_does_not_fit_is_one_line(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        train(**keys)
    assert "\n" not in str(caught.value)


def test_features_leave_out_what_is_of_images() -> None:
    tree: dict[str, Any] = {
        "train": {"crop": "resized", "augment": "rand", "cutmix": 1.0, "ema": 0.9}
    }
    left_out = set_key(tree, "train.input", "features", SECTIONS)
    assert left_out == ["train.crop", "train.augment", "train.cutmix"]
    assert tree["train"] == {"ema": 0.9, "input": "features"}


@pytest.mark.parametrize("name", ["imagenet", "finetune"])
def test_the_recipes_are_jobs(name: str) -> None:
    job = load_job(JOBS / f"{name}.yaml")
    assert job.train.crop == "resized"
    assert job.train.label_smoothing == 0.1
