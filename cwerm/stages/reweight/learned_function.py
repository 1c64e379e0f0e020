"""What the reweight stage learned, evaluated on any samples: the weights of `broadcast.method: function`.

One object in each worker of the broadcast, built from the files of the reweight artifact.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from cwerm.data.images import decode
from cwerm.runtime.session import cluster
from cwerm.stages import common, pixels
from cwerm.stages.classifiers import create_classifier
from cwerm.store.artifacts import Artifact, ArtifactStore

if TYPE_CHECKING:
    from cwerm.algorithms.labels.judgement import Judgement

EVALUATION_BATCH = 500


class LearnedFunction:
    """Weighs the samples of one part by `LabelPosterior`, or by V of the loss of the classifier."""

    def __init__(
        self,
        store: ArtifactStore,
        learned: Artifact,
        images: Artifact,
        dimensions: int,
        device: str,
    ) -> None:
        cluster.check_device(device)
        self.store, self.images, self.device = store, images, device
        self.learner = learned.info["learner"]
        self.posterior = None
        if self.learner["method"] == "posterior":
            from cwerm.algorithms.labels.posterior import LabelPosterior

            self.posterior = LabelPosterior.from_state(self._tensors(learned, "label_posterior"))
            return
        from cwerm.algorithms.reweighting.weight_net import WeightNet

        inputs = 2 if self.learner["agrees"] else 1
        self.weight_net = WeightNet(inputs, self.learner["hidden"]).to(self.device)
        self.weight_net.load_state_dict(self._tensors(learned, "weight_net"))
        self.classifier = self._classifier(learned, dimensions).to(self.device).eval()

    def judge(self, vectors: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> Judgement | None:
        """What the posterior says of these samples; None where something else was learned.

        ``rows`` [b] says which row of the coreset a sample is, -1 for none.
        """
        if self.posterior is None:
            return None
        return self.posterior.judge(vectors.astype(np.float32), labels, reference_rows=rows)

    def weigh(
        self, part: int, vectors: np.ndarray, labels: np.ndarray, agreement: np.ndarray | None
    ) -> np.ndarray:
        """Weights float32 [b] by V of the samples of one part, whose features are ``vectors``."""
        import torch

        from cwerm.algorithms.reweighting.weight_net import net_inputs

        columns = None if agreement is None else torch.from_numpy(agreement)[:, None]
        with torch.inference_mode():
            losses = self._losses(part, vectors, labels)
            inputs = net_inputs(losses, columns).to(self.device)
            return self.weight_net(inputs).cpu().numpy()

    def _losses(self, part: int, vectors: np.ndarray, labels: np.ndarray) -> Any:
        import torch
        from torch.nn import functional

        inputs = torch.from_numpy(vectors.astype(np.float32))
        if self.learner["input"] == "images":
            rows = self.store.read_part(self.images, "images", part, ["image"])
            squares = [pixels.to_square(decode(i), self.size) for i in common.images_of(rows)]
            inputs = torch.from_numpy(np.stack(squares).transpose(0, 3, 1, 2))
        losses = []
        targets = torch.from_numpy(labels.astype(np.int64))
        for batch, wanted in zip(
            inputs.split(EVALUATION_BATCH), targets.split(EVALUATION_BATCH), strict=True
        ):
            given = batch.to(self.device)
            logits = self.classifier(self.normalise(given) if self.normalise else given)
            losses.append(functional.cross_entropy(logits.cpu(), wanted, reduction="none"))
        return torch.cat(losses)

    def _classifier(self, learned: Artifact, dimensions: int) -> Any:
        import torch

        from cwerm.algorithms.reweighting.meta_data import feature_head

        names = self.images.info["class_names"]
        self.normalise = None
        if self.learner["input"] == "features":
            model = feature_head(torch.zeros(2, dimensions), len(names))
        else:
            from cwerm.algorithms.networks.timm_models import channels_last
            from cwerm.algorithms.training.batches import Normaliser

            how = self._description(learned)
            self.size = how["image_size"]
            self.normalise = Normaliser(tuple(how["mean"]), tuple(how["std"]))
            name = self.learner["model"]
            model = create_classifier("reweight.model", name, len(names), self.size, 0)
            model = channels_last(model)
        model.load_state_dict(self._tensors(learned, "classifier"))
        return model

    def _tensors(self, learned: Artifact, name: str) -> dict[str, Any]:
        from safetensors.torch import load

        return load(self.store.read_file(learned, f"{name}.safetensors"))

    def _description(self, learned: Artifact) -> dict[str, Any]:
        data = self.store.read_file(learned, "classifier.safetensors")
        return json.loads(common.tensor_metadata(data)["cwerm"])
