"""The written-out gradients against autograd, and what values say by themselves."""

import pytest
import torch
import torch.nn.functional as F

from hypercl.networks.criteria import (
    cross_entropy,
    distillation,
    mean_squared_error,
    of_labels,
    squared_error,
)


def draw(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def require_gradient(criterion, value, logits):
    """Of the sum over members."""
    logits = logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(value(logits).sum(), logits)
    found, gradient = criterion(logits.detach())
    loss = found[0] if isinstance(found, tuple) else found
    torch.testing.assert_close(loss, value(logits).detach())
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("masked", [False, True])
def test_cross_entropy(masked):
    logits, labels = draw(0, 2, 5, 4), torch.tensor([[0, 1, 2, 3, 0], [1, 1, 0, 2, 3]])
    allowed = F.one_hot(labels, 4).bool() | (draw(1, 2, 5, 4) > 0) if masked else None

    def value(logits):
        if masked:
            logits = torch.where(allowed, logits, torch.tensor(-torch.inf).double())
        return torch.stack([F.cross_entropy(z, y) for z, y in zip(logits, labels, strict=True)])

    require_gradient(lambda z: cross_entropy(z, labels, allowed), value, logits)
    (loss, accuracy), _ = cross_entropy(logits, labels, allowed)
    among = logits if allowed is None else logits.masked_fill(~allowed, -torch.inf)
    assert torch.equal(accuracy, (among.argmax(-1) == labels).double().mean(1))
    assert loss.isfinite().all()


@pytest.mark.parametrize("known", [4, 3])
@pytest.mark.parametrize("mean_over_classes", [True, False])
def test_distillation(known, mean_over_classes):
    logits, targets, T = draw(0, 2, 5, 4), draw(1, 2, 5, known), 1.7

    def value(logits):
        q = F.pad((targets / T).softmax(-1), (0, 4 - known))
        losses = -(T**2) * (q * (logits / T).log_softmax(-1)).sum(-1)
        return losses.mean(1) / (4 if mean_over_classes else 1)

    def criterion(logits):
        return distillation(logits, targets, T, mean_over_classes=mean_over_classes)

    require_gradient(criterion, value, logits)


def test_distillation_pulls_nowhere_where_the_network_answers_as_before():
    logits = draw(0, 2, 5, 4)
    _, gradient = distillation(logits, logits + 3, 2.0)
    torch.testing.assert_close(gradient, torch.zeros_like(logits))


def test_squared_error():
    logits, targets, allowed = draw(0, 2, 5, 4), draw(1, 2, 5, 4), draw(2, 2, 5, 4) > 0

    def value(logits):
        pairs = zip(logits, targets, allowed, strict=True)
        return torch.stack([(z - y)[mask].square().mean() for z, y, mask in pairs])

    require_gradient(lambda z: squared_error(z, targets, allowed), value, logits)
    nothing = torch.zeros_like(allowed)
    loss, gradient = squared_error(logits, targets, nothing)
    assert loss.tolist() == [0, 0]
    assert (gradient == 0).all()


@pytest.mark.parametrize("masked", [False, True])
def test_mean_squared_error(masked):
    outputs, targets = draw(0, 2, 5, 3), draw(1, 2, 5, 3)
    allowed = draw(2, 2, 5, 3) > 0 if masked else None

    def value(outputs):
        if not masked:
            return torch.stack([F.mse_loss(f, y) for f, y in zip(outputs, targets, strict=True)])
        pairs = zip(outputs, targets, allowed, strict=True)
        return torch.stack([F.mse_loss(f[chosen], y[chosen]) for f, y, chosen in pairs])

    require_gradient(lambda f: mean_squared_error(f, targets, allowed), value, outputs)
    (loss, error), _ = of_labels(targets, allowed)(outputs)
    assert torch.equal(loss, error)


def test_labels_say_which_loss_it_is():
    logits, classes = draw(0, 2, 5, 3), torch.ones(2, 5, dtype=torch.int64)
    assert torch.equal(of_labels(classes)(logits)[1], cross_entropy(logits, classes)[1])
    numbers = draw(1, 2, 5, 3)
    expected = mean_squared_error(logits, numbers)[1]
    assert torch.equal(of_labels(numbers)(logits)[1], expected)
