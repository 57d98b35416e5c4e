"""A plain multilayer perceptron as the main network: loss and gradient of all members, written out.

hypnettorch's MLP checks its arguments and autograd builds its graph anew at every step, which takes
several times as long as the products of a small network. This is the same function, for networks
without batch normalization, dropout and reduced precision; the others go the general way.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hypercl.engine.products import linear, product, sum_over_rows
from hypercl.networks.activations import ACTIVATIONS, Activation, name_of
from hypercl.networks.criteria import Criterion
from hypercl.networks.library import MLP, MainNetInterface


def plain_activation(mnet: MainNetInterface) -> Activation | None:
    """The hidden layers' activation if the network is a plain MLP, else None."""
    if type(mnet) is not MLP or mnet._use_batch_norm or mnet._dropout_rate > 0:
        return None
    return ACTIVATIONS.get(name_of(mnet._a_fun) or "")


def loss_and_gradient(
    activation: Activation,
    tensors: list[Tensor],
    gradients: list[Tensor],
    inputs: Tensor,
    criterion: Criterion,
    outputs: slice = slice(None),
    *,
    of_inputs: Tensor | None = None,
) -> Any:
    """A criterion on what the networks make of a batch, and its gradient.

    Args:
        tensors: Weight [members, outputs, inputs] and, if there are any, bias [members, outputs] of
            one layer after the other.
        gradients: Of the same shapes; filled, but for what belongs to other outputs.
        inputs: [members, B, inputs].
        criterion: Takes the logits of the ``outputs``; see criteria.py.
        of_inputs: Where to put the gradient for the inputs, if that is wanted.

    Returns:
        What the criterion returns beside the gradient.
    """
    weights, biases = _layers(tensors, outputs)
    of_weights, of_biases = _layers(gradients, outputs)
    xs = _forward(activation, weights, biases, inputs)
    value, gradient = criterion(xs.pop())
    for layer in reversed(range(len(weights))):
        sum_over_rows(gradient, xs[layer], out=of_weights[layer])
        if of_biases[layer] is not None:
            torch.sum(gradient, 1, out=of_biases[layer])
        if layer > 0:
            gradient = activation.backward(product(gradient, weights[layer]), xs[layer])
        elif of_inputs is not None:
            of_inputs.copy_(product(gradient, weights[0]))
    return value


def squared_gradients(
    activation: Activation,
    tensors: list[Tensor],
    sums: list[Tensor],
    inputs: Tensor,
    criterion: Criterion,
    outputs: slice = slice(None),
) -> None:
    """Add up the squares of the gradients of the single samples.

    A sample's gradient for a layer's weight is δ xᵀ, so that the sum of the squares over samples is
    one product, of the squares of δ and x.

    Args:
        sums: Of the tensors' shapes; added to, but for what belongs to other outputs.
        criterion: Its gradient is that of each sample's own loss, not of their mean.
    """
    weights, biases = _layers(tensors, outputs)
    of_weights, of_biases = _layers(sums, outputs)
    xs = _forward(activation, weights, biases, inputs)
    _, gradient = criterion(xs.pop())
    for layer in reversed(range(len(weights))):
        squares = gradient.square()
        of_weights[layer] += sum_over_rows(squares, xs[layer].square())
        if (of_bias := of_biases[layer]) is not None:
            of_bias += squares.sum(1)
        if layer > 0:
            gradient = activation.backward(product(gradient, weights[layer]), xs[layer])


def logits(activation: Activation, tensors: list[Tensor], inputs: Tensor) -> Tensor:
    """Of all outputs, [members, B, outputs]."""
    return _forward(activation, *_layers(tensors, slice(None)), inputs)[-1]


def on_same_inputs(
    activation: Activation, tensors: list[Tensor], outputs: Sequence[slice]
) -> Callable[[Tensor], Tensor]:
    """A function from inputs [B, inputs], which all networks have in common, to the logits of each,
    [networks, B, classes].

    Their first layers are one product, and of the last ones only the outputs asked for are
    computed. So a logit rounds otherwise than that of the network alone.

    Args:
        tensors: As :func:`loss_and_gradient` has them, [networks, …] each; copied where they must
            lie together.
        outputs: Of each network, equally many.
    """
    weights, biases = _layers(tensors, slice(None))
    biases = list(biases)

    def own(values: Tensor) -> Tensor:
        return torch.stack([value[which] for value, which in zip(values, outputs, strict=True)])

    weights[-1] = own(weights[-1])
    if (last := biases[-1]) is not None:
        biases[-1] = own(last)
    first, networks = weights[0].flatten(0, 1)[None], len(outputs)
    of_first = None if (bias := biases[0]) is None else bias.reshape(1, -1)

    def all_logits(inputs: Tensor) -> Tensor:
        x = linear(inputs[None], first, of_first)  # [1, B, networks * features]
        x = x.view(len(inputs), networks, -1).transpose(0, 1)
        if len(weights) == 1:
            return x
        return _forward(activation, weights[1:], biases[1:], activation.forward(x))[-1]

    return all_logits


def _forward(
    activation: Activation,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    inputs: Tensor,
) -> list[Tensor]:
    """What enters each layer, and what leaves the last one."""
    xs = [inputs]
    for weight, bias in zip(weights, biases, strict=True):
        x = linear(xs[-1], weight, bias)
        xs.append(activation.forward(x) if len(xs) < len(weights) else x)
    return xs


def _layers(tensors: list[Tensor], outputs: slice) -> tuple[list[Tensor], Sequence[Tensor | None]]:
    """Weights and biases, of the last layer those of some outputs alone."""
    weights = [tensor for tensor in tensors if tensor.ndim == 3]
    biases = [tensor for tensor in tensors if tensor.ndim == 2]
    weights[-1] = weights[-1][:, outputs]
    if not biases:
        return weights, [None] * len(weights)
    biases[-1] = biases[-1][:, outputs]
    return weights, biases
