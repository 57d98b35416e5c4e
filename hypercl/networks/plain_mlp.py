"""A plain multilayer perceptron as the main network: loss and gradient of all members, written out.

hypnettorch's MLP checks its arguments and autograd builds its graph anew at every step, which takes
several times as long as the products of a small network. This is the same function, for networks
without batch normalization, dropout and reduced precision; the others go the general way.
"""

from collections.abc import Sequence

import torch
from hypnettorch.mnets import MLP, MainNetInterface
from torch import Tensor

from hypercl.engine.products import linear, product, sum_over_rows
from hypercl.networks.activations import ACTIVATIONS, Activation, name_of


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
    labels: Tensor,
    outputs: slice = slice(None),
) -> tuple[Tensor, Tensor]:
    """Mean cross entropy of a batch, and its gradient.

    Args:
        tensors: Weight [members, outputs, inputs] and, if there are any, bias [members, outputs] of
            one layer after the other.
        gradients: Of the same shapes; filled, but for what belongs to other outputs.
        inputs: [members, B, inputs]; ``labels``: [members, B] int64, counted from the first of
            ``outputs``, those that take part.

    Returns:
        Loss and accuracy, [members] each.
    """
    weights, biases = _layers(tensors, outputs)
    of_weights, of_biases = _layers(gradients, outputs)
    xs = [inputs]  # what enters each layer
    for weight, bias in zip(weights, biases, strict=True):
        x = linear(xs[-1], weight, bias)
        xs.append(activation.forward(x) if len(xs) < len(weights) else x)

    log_probabilities = xs.pop().log_softmax(-1)  # [members, B, classes]
    index = labels[..., None]
    loss = -log_probabilities.gather(-1, index).mean((1, 2))
    accuracy = (log_probabilities.argmax(-1) == labels).to(loss.dtype).mean(-1)

    ones = torch.ones_like(index, dtype=loss.dtype)
    gradient = log_probabilities.exp_().scatter_add_(-1, index, -ones).div_(labels.shape[1])
    for layer in reversed(range(len(weights))):
        sum_over_rows(gradient, xs[layer], out=of_weights[layer])
        if of_biases[layer] is not None:
            torch.sum(gradient, 1, out=of_biases[layer])
        if layer > 0:
            gradient = activation.backward(product(gradient, weights[layer]), xs[layer])
    return loss, accuracy


def _layers(tensors: list[Tensor], outputs: slice) -> tuple[list[Tensor], Sequence[Tensor | None]]:
    """Weights and biases, of the last layer those of some outputs alone."""
    weights = [tensor for tensor in tensors if tensor.ndim == 3]
    biases = [tensor for tensor in tensors if tensor.ndim == 2]
    weights[-1] = weights[-1][:, outputs]
    if not biases:
        return weights, [None] * len(weights)
    biases[-1] = biases[-1][:, outputs]
    return weights, biases
