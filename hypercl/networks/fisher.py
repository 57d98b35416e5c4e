"""The diagonal of the Fisher information of a main network's weights."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from hypercl.engine.members import Params, alone
from hypercl.networks import plain_mlp
from hypercl.networks.main_net import MainNetwork

_NUMBERS = 1 << 25  # gradients of single samples at once, at most; 128 MiB in float32
_SAMPLES = 1024  # at once where the sum of squares is one product


class Density(NamedTuple):
    """p(label | x) of what a network makes of x, up to what does not depend on the network."""

    # Of a sample's logits [outputs] and its label: a number whose gradient is that of log p.
    of_sample: Callable[[Tensor, Tensor], Tensor]
    # A criterion of logits, labels and scale [members, N, …]: see :func:`_own_gradients`.
    gradients: Callable[..., tuple[None, Tensor]]


def sum_of_squares(
    net: MainNetwork,
    weights: Tensor,
    inputs: Tensor,
    stats: Params,
    labels: Tensor,
    scale: Tensor,
    outputs: slice,
    density: Density | None = None,
) -> Tensor:
    """Sum over samples of scale * (d log p(label | x) / d w)².

    Args:
        weights: [members, num_weights]; ``inputs``: [members, N, H * W * C].
        labels: [members, N] int64, counted from the first of ``outputs``, or as the density says.
        scale: [members, N], of each sample's square.
        density: None: :data:`CATEGORICAL`.

    Returns:
        [members, num_weights].
    """
    density = CATEGORICAL if density is None else density
    sums = torch.zeros_like(weights)
    activation = plain_mlp.plain_activation(net.module)
    if activation is not None:
        for chosen in torch.arange(inputs.shape[1], device=inputs.device).split(_SAMPLES):
            plain_mlp.squared_gradients(
                activation,
                net.split(weights),
                net.split(sums),
                inputs[:, chosen],
                partial(density.gradients, labels=labels[:, chosen], scale=scale[:, chosen]),
                outputs,
            )
        return sums

    def log_probability(weights, x, label, stats):
        return density.of_sample(net.logits(weights, x[None], stats)[0, outputs], label)

    gradients = torch.func.vmap(torch.func.grad(log_probability), in_dims=(None, 0, 0, None))
    if net.is_own:
        gradients = _one_by_one_if_need_be(gradients, log_probability)
    at_once = max(1, _NUMBERS // net.num_weights)
    for member in range(len(weights)):
        own_stats = alone({name: value[member : member + 1] for name, value in stats.items()})
        for chosen in torch.arange(inputs.shape[1], device=inputs.device).split(at_once):
            of_samples = gradients(
                weights[member], inputs[member, chosen], labels[member, chosen], own_stats
            )
            sums[member] += scale[member, chosen] @ of_samples.square()
    return sums


def _one_by_one_if_need_be(together: Callable, function: Callable) -> Callable:
    """Gradients of single samples, [N, num_weights], of a network that torch may not be able to run
    on single samples together.
    """

    def gradients(weights: Tensor, inputs: Tensor, labels: Tensor, stats: Params) -> Tensor:
        try:
            return together(weights, inputs, labels, stats)
        except RuntimeError:
            weights = weights.detach().requires_grad_()
        with torch.enable_grad():
            rows = [
                torch.autograd.grad(function(weights, x, label, stats), weights)[0]
                for x, label in zip(inputs, labels, strict=True)
            ]
        return torch.stack(rows)

    return gradients


def _own_gradients(logits: Tensor, labels: Tensor, scale: Tensor) -> tuple[None, Tensor]:
    """Of each sample's -log p(label), times the root of its scale."""
    probabilities = logits.softmax(-1)
    ones = torch.ones_like(probabilities[..., :1])
    return None, probabilities.scatter_add_(-1, labels[..., None], -ones) * scale.sqrt()[..., None]


def _log_probability(logits: Tensor, label: Tensor) -> Tensor:
    return logits.log_softmax(0).gather(0, label[None])[0]


def _times_residual(outputs: Tensor, residual: Tensor) -> Tensor:
    return (outputs * residual).sum()


def _residuals(outputs: Tensor, labels: Tensor, scale: Tensor) -> tuple[None, Tensor]:
    return None, labels * scale.sqrt()[..., None]


CATEGORICAL = Density(_log_probability, _own_gradients)
# Of variance 1 around the outputs f: log p = -1/2 |y - f|², with the gradient (y - f) df/dw. What
# stands for a label is the residual y - f, [members, N, K], a constant.
GAUSSIAN = Density(_times_residual, _residuals)
