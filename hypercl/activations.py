"""Activation functions and their gradients, for passes that are written out."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_ATEN = torch.ops.aten


class Activation(NamedTuple):
    """An elementwise function y = σ(x) whose gradient can be had from y."""

    in_place: Callable[[Tensor], Tensor]  # turns x into y
    backward: Callable[[Tensor, Tensor], Tensor]  # (gradient for y, y) -> gradient for x


ACTIVATIONS = {
    "linear": Activation(lambda x: x, lambda gradient, y: gradient),
    "sigmoid": Activation(torch.sigmoid_, _ATEN.sigmoid_backward),
    "relu": Activation(torch.relu_, lambda gradient, y: _ATEN.threshold_backward(gradient, y, 0)),
    "elu": Activation(F.elu_, lambda gradient, y: _ATEN.elu_backward(gradient, 1, 1, 1, True, y)),
    "tanh": Activation(torch.tanh_, _ATEN.tanh_backward),
}
