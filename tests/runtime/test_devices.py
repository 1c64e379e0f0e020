"""What a GPU saved goes on without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cwerm.algorithms.reweighting.feature_head import feature_head
from cwerm.algorithms.reweighting.metaweight import MetaWeightNet
from cwerm.runtime.training import saved_state
from cwerm.store.storage import open_storage


@pytest.fixture
def as_saved_by_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files say of their tensors what those of a machine with a GPU say."""
    registry = torch.serialization._package_registry
    mine = (0, lambda storage: "cuda:0", lambda storage, location: None)
    monkeypatch.setattr(torch.serialization, "_package_registry", [mine, *registry])


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds a GPU here")
def test_the_state_of_a_gpu_resumes_on_a_cpu(as_saved_by_a_gpu: None, tmp_path: Path) -> None:
    """It ends with the weights of an undisturbed run."""
    storage, notes = open_storage(str(tmp_path)), list[str]()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 8, generator=generator).numpy()
    labels = torch.arange(60).numpy() % 3
    settings: dict[str, Any] = {"epochs": 4, "batch_size": 20, "meta_batch_size": 10, "seed": 0}

    def fit(**options: Any) -> Any:
        torch.manual_seed(0)
        head = feature_head(torch.from_numpy(inputs), 3)
        method = MetaWeightNet(head, device="cpu", **settings)
        return method.fit(inputs, labels, inputs[:12], labels[:12], **options)

    def save(epoch: int, state: Any) -> None:
        if epoch == 1:
            saved_state.write(storage, "key/state", state(), 2)

    expected = fit(on_epoch=save)
    file = tmp_path / "key/state.pt"
    with pytest.raises(RuntimeError, match="deserialize object on a CUDA device"):
        torch.load(file, weights_only=True)
    found = saved_state.find(storage, ["key/state"], notes.append)
    ((_, state),) = saved_state.load(storage, found, notes.append)
    assert notes == []
    assert (fit(state=state) == expected).all()
