"""Optimizers of one tensor that holds all parameters of all members.

What an optimizer remembers is in ``state``: tensors on the device, which its steps change in place,
so that a step can be captured in a CUDA graph, and copied back and forth to save and to go on.
"""

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from hypercl.engine.members import Numbers, as_tensor, by_member, is_positive, of_each

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
        lr: The learning rate, or one of each member; a tensor of them may change between steps.
        beta1: Decay of the running mean of gradients, or one of each member.
        weight_decay: Times the parameters is added to the gradient; or one of each member.
    """

    _BETA2, _EPS = 0.999, 1e-8

    def __init__(
        self,
        parameters: Tensor,
        gradient: Tensor,
        *,
        lr: Numbers,
        beta1: Numbers = 0.9,
        weight_decay: Numbers = 0.0,
    ) -> None:
        self._parameters, self._gradient = parameters, gradient
        # The kernel takes one of each for all that it is given.
        self._shared: Any = (lr, beta1, weight_decay)
        self._own: list[tuple] | None = None  # of each member; of a tensor, views
        if not all(isinstance(number, int | float) for number in self._shared):
            of_members = (of_each(number, len(parameters)) for number in self._shared)
            self._own = list(zip(*of_members, strict=True))
        self.state = {
            "mean": torch.zeros_like(parameters),
            "mean_square": torch.zeros_like(parameters),
            "step": torch.zeros((), device=parameters.device),
        }

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters."""
        self.state["step"] += 1
        mean, mean_square = self.state["mean"], self.state["mean_square"]
        self._update(self._parameters, self._gradient, mean, mean_square)

    @torch.no_grad()
    def lookahead(self, numbers: slice = slice(None), *, uncorrected_eps: bool = False) -> Tensor:
        """What some of the parameters would be after the next step; nothing is changed.

        Args:
            numbers: Which ones.
            uncorrected_eps: Foresee the step of the end of Kingma and Ba's section 2, where eps is
                added before the correction of bias: lr sqrt(1 - β₂ᵏ) / (1 - β₁ᵏ) m / (sqrt(v) +
                eps). Without weight decay.

        Returns:
            [members, of these numbers].
        """
        parameters, mean, mean_square = (
            values[:, numbers].clone(memory_format=torch.contiguous_format)
            for values in (self._parameters, self.state["mean"], self.state["mean_square"])
        )
        gradient = self._gradient[:, numbers].contiguous()
        self.state["step"] += 1
        if uncorrected_eps:
            # Beside gradients that are s times as large, eps counts as eps / s.
            scale = (1 - self._BETA2 ** self.state["step"].to(mean.dtype)).sqrt()
            gradient = gradient * scale
            mean.mul_(scale)
            mean_square.mul_(scale**2)
        self._update(parameters, gradient, mean, mean_square)
        self.state["step"] -= 1
        return parameters

    def _update(
        self, parameters: Tensor, gradient: Tensor, mean: Tensor, mean_square: Tensor
    ) -> None:
        if self._own is None:
            self._kernel(parameters, gradient, mean, mean_square, *self._shared)
            return
        for i, own in enumerate(self._own):
            self._kernel(parameters[i], gradient[i], mean[i], mean_square[i], *own)

    def _kernel(
        self,
        parameters: Tensor,
        gradient: Tensor,
        mean: Tensor,
        mean_square: Tensor,
        lr: float | Tensor,
        beta1: float,
        weight_decay: float,
    ) -> None:
        torch._fused_adam_(
            [parameters],
            [gradient],
            [mean],
            [mean_square],
            [],
            [self.state["step"]],
            lr=lr,
            beta1=beta1,
            beta2=self._BETA2,
            weight_decay=weight_decay,
            eps=self._EPS,
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
        lr: Numbers,
        momentum: Numbers = 0.0,
        weight_decay: Numbers = 0.0,
    ) -> None:
        self._parameters, self._gradient = parameters, gradient
        self._lr = as_tensor(lr, parameters)
        self._momentum = by_member(as_tensor(momentum, parameters), parameters)
        self._weight_decay = by_member(as_tensor(weight_decay, parameters), parameters)
        self._has_momentum = is_positive(self._momentum)
        self.state = {"momentum": torch.zeros_like(parameters)} if self._has_momentum else {}

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters."""
        change = self._gradient
        if is_positive(self._weight_decay):
            change = change + self._weight_decay * self._parameters
        change = self._scaled(change)
        if self._has_momentum:
            change = self.state["momentum"].mul_(self._momentum).add_(change)
        if isinstance(self._lr, Tensor):
            self._parameters.sub_(by_member(self._lr, change) * change)
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
    options: "TrainOptions", parameters: Tensor, gradient: Tensor, lr: Numbers
) -> Optimizer:
    """The optimizer that the options describe; arguments as in :class:`Adam`."""
    decay = options.weight_decay
    if options.use_sgd or options.use_rmsprop:
        kind = SGD if options.use_sgd else RMSprop
        return kind(parameters, gradient, lr=lr, momentum=options.momentum, weight_decay=decay)
    return Adam(parameters, gradient, lr=lr, beta1=options.adam_beta1, weight_decay=decay)


@torch.no_grad()
def clip_value(gradient: Tensor, limit: float | Tensor) -> None:
    """Bring each number into [-limit, limit], as torch.nn.utils.clip_grad_value_ does.

    Args:
        limit: Of all members, or [members].
    """
    bound: Any = by_member(limit, gradient)  # torch's stubs do not know of both
    gradient.clamp_(-bound, bound)


@torch.no_grad()
def clip_norm(gradient: Tensor, limit: float | Tensor) -> None:
    """Scale each member's gradient [members, numbers] to a norm of at most ``limit``, as
    torch.nn.utils.clip_grad_norm_ does.

    Args:
        limit: Of all members, or [members].
    """
    norm = gradient.norm(dim=1, keepdim=True)
    gradient *= (by_member(limit, gradient) / (norm + 1e-6)).clamp(max=1)
