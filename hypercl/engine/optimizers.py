"""Optimizers of one tensor that holds all parameters of all members.

What an optimizer remembers is in ``state``: tensors on the device, which its steps change in place,
so that a step can be captured in a CUDA graph, and copied back and forth to save and to go on.
"""

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from hypercl.options import TrainOptions


class Optimizer(Protocol):
    """Updates parameters [members, numbers] in place from a gradient of that shape."""

    state: dict[str, Tensor]

    def step(self) -> None:
        """Take a step along the gradient as it is now."""


class Adam:
    """Kingma and Ba, arXiv 1412.6980, by torch's fused kernel.

    torch.optim.Adam calls the same kernel; what it has around it takes two seconds to import and,
    for networks of this size, longer than the kernel.

    Args:
        parameters: [members, numbers]; updated in place from ``gradient``.
        lr: The learning rate, or [members] of them, which may change between steps.
        weight_decay: Times the parameters is added to the gradient.
    """

    def __init__(
        self,
        parameters: Tensor,
        gradient: Tensor,
        *,
        lr: float | Tensor,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
    ) -> None:
        self._parameters, self._gradient, self._lr = parameters, gradient, lr
        self._betas, self._weight_decay = betas, weight_decay
        self.state = {
            "mean": torch.zeros_like(parameters),
            "mean_square": torch.zeros_like(parameters),
            "step": torch.zeros((), device=parameters.device),
        }

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters."""
        self.state["step"] += 1
        self._update(self._parameters, self.state["mean"], self.state["mean_square"])

    @torch.no_grad()
    def lookahead(self) -> Tensor:
        """What the next step would add to the parameters; nothing is changed."""
        parameters = self._parameters.clone()
        self.state["step"] += 1
        self._update(parameters, self.state["mean"].clone(), self.state["mean_square"].clone())
        self.state["step"] -= 1
        return parameters - self._parameters

    def _update(self, parameters: Tensor, mean: Tensor, mean_square: Tensor) -> None:
        gradient = self._gradient
        if isinstance(self._lr, Tensor):  # the kernel takes one rate for all that it is given
            for i, lr in enumerate(self._lr):
                self._kernel(parameters[i], gradient[i], mean[i], mean_square[i], lr)
        else:
            self._kernel(parameters, gradient, mean, mean_square, self._lr)

    def _kernel(
        self,
        parameters: Tensor,
        gradient: Tensor,
        mean: Tensor,
        mean_square: Tensor,
        lr: float | Tensor,
    ) -> None:
        torch._fused_adam_(
            [parameters],
            [gradient],
            [mean],
            [mean_square],
            [],
            [self.state["step"]],
            lr=lr,
            beta1=self._betas[0],
            beta2=self._betas[1],
            weight_decay=self._weight_decay,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )


class _WithMomentum:
    """What SGD and RMSprop have in common; arguments as in :class:`Adam`."""

    def __init__(
        self,
        parameters: Tensor,
        gradient: Tensor,
        *,
        lr: float | Tensor,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        self._parameters, self._gradient, self._lr = parameters, gradient, lr
        self._momentum, self._weight_decay = momentum, weight_decay
        self.state = {"momentum": torch.zeros_like(parameters)} if momentum else {}

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters."""
        change = self._gradient
        if self._weight_decay:
            change = change + self._weight_decay * self._parameters
        change = self._scaled(change)
        if self._momentum:
            change = self.state["momentum"].mul_(self._momentum).add_(change)
        if isinstance(self._lr, Tensor):
            self._parameters.sub_(self._lr[:, None] * change)
        else:
            self._parameters.sub_(change, alpha=self._lr)

    def _scaled(self, gradient: Tensor) -> Tensor:
        return gradient


class SGD(_WithMomentum):
    """Gradient descent with Polyak's momentum, as torch.optim.SGD does it."""


class RMSprop(_WithMomentum):
    """Tieleman and Hinton's method, as torch.optim.RMSprop does it."""

    _ALPHA, _EPS = 0.99, 1e-8

    def __init__(self, parameters: Tensor, gradient: Tensor, **options) -> None:
        super().__init__(parameters, gradient, **options)
        self.state["mean_square"] = torch.zeros_like(parameters)

    def _scaled(self, gradient: Tensor) -> Tensor:
        mean_square = self.state["mean_square"]
        mean_square.mul_(self._ALPHA).addcmul_(gradient, gradient, value=1 - self._ALPHA)
        return gradient / mean_square.sqrt().add_(self._EPS)


def build_optimizer(
    options: "TrainOptions", parameters: Tensor, gradient: Tensor, lr: float | Tensor
) -> Optimizer:
    """The optimizer that the options describe; arguments as in :class:`Adam`."""
    decay = options.weight_decay
    if options.use_sgd or options.use_rmsprop:
        kind = SGD if options.use_sgd else RMSprop
        return kind(parameters, gradient, lr=lr, momentum=options.momentum, weight_decay=decay)
    betas = (options.adam_beta1, 0.999)
    return Adam(parameters, gradient, lr=lr, betas=betas, weight_decay=decay)


@torch.no_grad()
def clip_value(gradient: Tensor, limit: float) -> None:
    """Bring each number into [-limit, limit], as torch.nn.utils.clip_grad_value_ does."""
    gradient.clamp_(-limit, limit)


@torch.no_grad()
def clip_norm(gradient: Tensor, limit: float) -> None:
    """Scale each member's gradient [members, numbers] to a norm of at most ``limit``, as
    torch.nn.utils.clip_grad_norm_ does.
    """
    norm = gradient.norm(dim=1, keepdim=True)
    gradient *= (limit / (norm + 1e-6)).clamp(max=1)
