"""Losses on a network's outputs, with their gradients for these outputs, written out.

A criterion takes logits [members, B, outputs] and returns what is to be known of the loss, and the
gradient of its sum over members, of the logits' shape. ``TaskLoss.of_logits`` carries it on to the
weights. Of regression, logits are the outputs as they are.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hypercl.engine.members import by_member

Criterion = Callable[[Tensor], tuple[Any, Tensor]]


def of_labels(labels: Tensor, allowed: Tensor | None = None) -> Criterion:
    """The criterion of a task: of labels that are numbers, the mean squared error.

    Args:
        labels: [members, B] int64, or of regression [members, B, outputs].
        allowed: Which outputs are those of each sample, [members, B, outputs] bool; None: all.
    """
    chosen = mean_squared_error if labels.is_floating_point() else cross_entropy
    return partial(chosen, labels=labels, allowed=allowed)


class Classified(NamedTuple):
    """How well samples are classified, [members] each."""

    loss: Tensor  # mean cross-entropy
    accuracy: Tensor  # in [0, 1]


def cross_entropy(
    logits: Tensor, labels: Tensor, allowed: Tensor | None = None
) -> tuple[Classified, Tensor]:
    """Mean cross-entropy of the samples.

    Args:
        logits: [members, B, outputs]; ``labels``: [members, B] int64.
        allowed: Among which outputs each sample is classified, [members, B, outputs] bool; None:
            among all.
    """
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -torch.inf)
    log_probabilities = logits.log_softmax(-1)
    index = labels[..., None]
    loss = -log_probabilities.gather(-1, index).mean((1, 2))
    accuracy = (log_probabilities.argmax(-1) == labels).to(loss.dtype).mean(-1)
    ones = torch.ones_like(index, dtype=loss.dtype)
    gradient = log_probabilities.exp_().scatter_add_(-1, index, -ones).div_(labels.shape[1])
    return Classified(loss, accuracy), gradient


class Fitted(NamedTuple):
    """How well numbers are met, [members] each: what is minimized is what is measured."""

    loss: Tensor  # mean squared error
    error: Tensor  # the same


def mean_squared_error(
    logits: Tensor, labels: Tensor, allowed: Tensor | None = None
) -> tuple[Fitted, Tensor]:
    """Mean over samples and outputs of (f - y)².

    Args:
        logits: f, [members, B, outputs]; ``labels``: y, the same.
        allowed: Which outputs count, [members, B, outputs] bool; None: all.
    """
    if allowed is not None:
        loss, gradient = squared_error(logits, labels, allowed)
    else:
        difference = logits - labels
        loss = difference.square().mean((1, 2))
        gradient = difference.mul_(2 / (logits.shape[1] * logits.shape[2]))
    return Fitted(loss, loss), gradient


def distillation(
    logits: Tensor,
    targets: Tensor,
    temperature: float | Tensor,
    *,
    mean_over_classes: bool = False,
    allowed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy between the softened predictions of two networks (Hinton et al., 2015), times
    the temperature's square, so that its gradient does not shrink with it.

    Args:
        logits: [members, B, outputs].
        targets: The other network's logits, [members, B, outputs or fewer]; where there are fewer,
            what is missing has the probability 0.
        temperature: Of all members, or [members].
        mean_over_classes: Divide the sum over classes by their number.
        allowed: Among which outputs each sample is classified, [members, B, outputs] bool; None:
            among all.

    Returns:
        The mean over samples [members], and its gradient.
    """
    divisor = by_member(temperature, logits)
    if allowed is not None:
        logits, targets = (x.masked_fill(~allowed, -torch.inf) for x in (logits, targets))
    wanted = (targets / divisor).softmax(-1)
    wanted = torch.nn.functional.pad(wanted, (0, logits.shape[-1] - targets.shape[-1]))
    log_probabilities = (logits / divisor).log_softmax(-1)
    scale = 1 / logits.shape[1]
    if mean_over_classes:
        scale /= logits.shape[2]
    products = wanted * log_probabilities
    if allowed is not None:  # there they are 0 times the logarithm of 0
        products = products.masked_fill(~allowed, 0)
    loss = temperature**2 * scale * -products.sum((1, 2))
    return loss, divisor * scale * (log_probabilities.exp_() - wanted)


def squared_error(logits: Tensor, targets: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared difference of logits, over the outputs that each sample is allowed.

    Args:
        logits: [members, B, outputs]; ``targets``: the same; ``allowed``: the same, bool.

    Returns:
        The mean [members], and its gradient.
    """
    difference = (logits - targets) * allowed
    number = allowed.sum((1, 2)).clamp(min=1)[:, None, None]
    loss = (difference.square() / number).sum((1, 2))
    return loss, difference.mul_(2 / number)
