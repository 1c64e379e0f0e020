"""Label: the labels that were given -> ``labels``, those in use: with noise made on purpose if asked for."""

from __future__ import annotations

from typing import Literal

import numpy as np

from cwerm.algorithms.noise.corrupt import corrupt_labels
from cwerm.errors import UserError, blame
from cwerm.job.tree import Job
from cwerm.stages import common
from cwerm.stages.outside import Outside
from cwerm.stages.stage import Context, Inputs, Settings, Stage, always
from cwerm.store.artifacts import Artifact


class LabelSettings(Settings):
    """What becomes of the given labels: nothing, where nothing is named."""

    noise: Literal["uniform", "symmetric", "flip", "flip2"] | None = None
    noise_rate: float = 0.0
    seed: int = 0

    @classmethod
    def of(cls, job: Job, outside: Outside) -> LabelSettings:
        """Those of this job."""
        del outside
        data = job.data
        if data.noise == "none":
            return cls()
        return cls(noise=data.noise, noise_rate=data.noise_rate, seed=data.split_seed)


def _run(settings: LabelSettings, inputs: Inputs, context: Context) -> Artifact:
    """Write the labels in use, and beside them the true ones where noise was made.

    Raises:
        UserError: a class that the noise leaves without images.
    """
    images = inputs["ingest"]
    given = common.column(context.store.read(images, "given_labels", ["label"]), "label")
    ids, used, clean = np.arange(len(given)), given, None
    if settings.noise is not None:
        used, clean = made_wrong(settings, images.info["class_names"], given), given
    table = common.table("labels", ids, used, clean)
    return context.writer.commit({"labels": [context.writer.write_part("labels", 0, table)]})


def made_wrong(settings: LabelSettings, names: list[str], labels: np.ndarray) -> np.ndarray:
    """Labels with noise, int32 [n].

    Raises:
        UserError: a class that the noise leaves without images.
    """
    assert settings.noise, "without a kind of noise there is none"
    rate = settings.noise_rate
    with blame("data.noise", names):
        noisy = corrupt_labels(labels, settings.noise, rate, len(names), settings.seed)
    lost = np.setdiff1d(labels, noisy)
    if len(lost):
        raise UserError(
            f"data.noise_rate: at {rate:g} no training image keeps or gets the label "
            f"'{names[lost[0]]}'; lower the rate or use more images"
        )
    return noisy


label = Stage("label", 1, always("ingest"), LabelSettings.of, _run, in_passing=True)
