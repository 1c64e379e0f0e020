from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional

from cwerm.algorithms.reweighting.head_training import snapshot, train_head
from cwerm.algorithms.reweighting.training_record import TrainingRecord
from cwerm.algorithms.training.erm import epoch_batches

pytestmark = pytest.mark.usefixtures("on_one_thread")


def make_data(n: int = 600, num_classes: int = 4, d: int = 16) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, num_classes, n)
    features = 3 * generator.standard_normal((n, d)) + 12 * np.eye(num_classes, d)[labels] + 5
    return features.astype(np.float32), labels


def arrays(record: TrainingRecord) -> list[np.ndarray]:
    return [record.probabilities, record.errors, record.gradient_norms, record.correct]


@pytest.mark.parametrize("hidden", [(), (7,)], ids=["linear", "one hidden layer"])
def test_gradient_norms_equal_autograd_sample_by_sample(hidden: tuple[int, ...]) -> None:
    features, labels = make_data(n=50)
    torch.manual_seed(0)
    body = [nn.Linear(16, *hidden), nn.ReLU(), nn.Dropout(0.5)] if hidden else []
    last = nn.Linear(*(hidden or (16,)), 4)
    head = nn.Sequential(*body, last)
    measured = snapshot(head, features, labels)
    assert head.training
    head.eval()
    for i in range(50):
        logits = head(torch.from_numpy(features[i : i + 1]))
        loss = functional.cross_entropy(logits, torch.tensor(labels[i : i + 1]))
        gradients = torch.autograd.grad(loss, [last.weight, last.bias])
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
        assert measured.gradient_norms[i] == pytest.approx(norm, rel=1e-4)
        expected = np.exp(logits[0].detach().numpy().astype(np.float64))
        expected /= expected.sum()
        np.testing.assert_allclose(measured.probabilities[i], expected, rtol=1e-4)
        error = np.linalg.norm(expected - np.eye(4)[labels[i]])
        assert measured.errors[i] == pytest.approx(error, rel=1e-4)


def test_the_record_is_that_of_the_head_at_each_epoch() -> None:
    features, labels = make_data()
    head, record = train_head(features, labels, epochs=4)
    with torch.no_grad():
        expected = head.eval()(torch.from_numpy(features)).softmax(1).numpy()
    np.testing.assert_allclose(record.probabilities, expected, atol=1e-6)
    errors = np.linalg.norm(expected - np.eye(4)[labels], axis=1)
    np.testing.assert_allclose(record.errors[:, -1], errors, atol=1e-5)
    np.testing.assert_array_equal(record.correct[:, -1], expected.argmax(axis=1) == labels)
    assert record.errors.shape == record.gradient_norms.shape == record.correct.shape == (600, 4)
    assert record.correct.mean(axis=0)[-1] > 0.95
    means = record.errors.mean(axis=0)
    assert (np.diff(means) < 0).all()


def test_training_equals_a_plain_loop_with_torch_s_own_schedule() -> None:
    features, labels = make_data()
    _, record = train_head(features, labels, epochs=3, batch_size=50, seed=7, lr=0.05, hidden=9)
    inputs, targets = torch.from_numpy(features), torch.from_numpy(labels)
    with torch.random.fork_rng([]):
        torch.manual_seed(7)
        layers = [nn.Linear(16, 9), nn.ReLU(), nn.Linear(9, 4)]
    inputs = (inputs - inputs.mean(0)) / inputs.std(0, correction=0)
    head = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(head.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3 * 12)
    for epoch in range(3):
        for batch in epoch_batches(600, 50, 7, epoch):
            optimizer.zero_grad()
            functional.cross_entropy(head(inputs[batch]), targets[batch]).backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            probabilities = head(inputs).softmax(1)
        errors = (probabilities - functional.one_hot(targets)).norm(dim=1)
        np.testing.assert_allclose(record.errors[:, epoch], errors.numpy(), atol=1e-4)
    np.testing.assert_allclose(record.probabilities, probabilities.numpy(), atol=1e-4)


def test_equal_seeds_give_equal_records_and_leave_the_global_generator() -> None:
    features, labels = make_data()
    state = torch.get_rng_state()
    _, first = train_head(features, labels, epochs=2, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    _, again = train_head(features, labels, epochs=2, seed=1)
    _, other = train_head(features, labels, epochs=2, seed=2)
    for left, right in zip(arrays(first), arrays(again), strict=True):
        np.testing.assert_array_equal(left, right)
    assert not np.array_equal(first.errors, other.errors)


def test_half_precision_and_read_only_features() -> None:
    features, labels = make_data()
    half = features.astype(np.float16)
    half.flags.writeable = labels.flags.writeable = False
    _, record = train_head(half, labels, epochs=2)
    _, same = train_head(half.astype(np.float32), labels.astype(np.int32), epochs=2)
    for left, right in zip(arrays(record), arrays(same), strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_group_of_samples() -> None:
    features, labels = make_data()
    _, record = train_head(features, labels, epochs=2)
    ids = np.array([5, 3, 400])
    group = record[ids]
    assert len(group) == 3
    for part, whole in zip(arrays(group), arrays(record), strict=True):
        np.testing.assert_array_equal(part, np.stack([whole[i] for i in ids]))


def test_mislabelled_samples_stand_out() -> None:
    features, labels = make_data()
    mislabelled = np.random.default_rng(1).random(600) < 0.2
    _, record = train_head(features, (labels + mislabelled) % 4)
    for scores in (record.errors, record.gradient_norms, ~record.correct):
        assert roc_auc_score(mislabelled, scores[:, :5].mean(axis=1)) > 0.95


def test_errors() -> None:
    features, labels = make_data()
    with pytest.raises(ValueError, match="NaN or infinite in epoch 0: lower its learning rate"):
        train_head(features, labels, epochs=2, lr=1e20)
    with pytest.raises(ValueError, match="at least 1 epoch, got 0"):
        train_head(features, labels, epochs=0)
