"""Activation functions and their gradients, for passes that are written out."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ATEN = torch.ops.aten


class Activation(NamedTuple):
    """An elementwise function y = σ(x) whose gradient can be had from y. Both work in place."""

    forward: Callable[[Tensor], Tensor]  # turns x into y
    backward: Callable[[Tensor, Tensor], Tensor]  # turns the gradient for y, given y, into x's


def _sigmoid_backward(gradient: Tensor, y: Tensor) -> Tensor:
    return _ATEN.sigmoid_backward.grad_input(gradient, y, grad_input=gradient)


def _relu_backward(gradient: Tensor, y: Tensor) -> Tensor:
    return _ATEN.threshold_backward.grad_input(gradient, y, 0, grad_input=gradient)


def _elu_backward(gradient: Tensor, y: Tensor) -> Tensor:
    return _ATEN.elu_backward.grad_input(gradient, 1, 1, 1, True, y, grad_input=gradient)


def _tanh_backward(gradient: Tensor, y: Tensor) -> Tensor:
    return _ATEN.tanh_backward.grad_input(gradient, y, grad_input=gradient)


ACTIVATIONS = {
    "linear": Activation(lambda x: x, lambda gradient, y: gradient),
    "sigmoid": Activation(torch.sigmoid_, _sigmoid_backward),
    "relu": Activation(torch.relu_, _relu_backward),
    "elu": Activation(F.elu_, _elu_backward),
    "tanh": Activation(torch.tanh_, _tanh_backward),
}

# The same as modules, which hypnettorch's networks take.
MODULES = {
    "linear": None,
    "sigmoid": nn.Sigmoid(),
    "relu": nn.ReLU(),
    "elu": nn.ELU(),
    "tanh": nn.Tanh(),
}


def name_of(module: nn.Module | None) -> str | None:
    """Under which name an activation is among :data:`MODULES`; None for another one."""
    return next((name for name, known in MODULES.items() if type(known) is type(module)), None)
