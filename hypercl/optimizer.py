"""Adam on one tensor that holds all parameters."""

import torch
from torch import Tensor


class Adam:
    """Kingma and Ba, arXiv 1412.6980, by torch's fused kernel.

    torch.optim.Adam calls the same kernel; what it has around it takes two seconds to import and,
    for networks of this size, longer than the kernel.

    Args:
        parameters: Of any shape; updated in place from ``gradient``.
        weight_decay: Times the parameters is added to the gradient.
    """

    def __init__(
        self,
        parameters: Tensor,
        gradient: Tensor,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
    ) -> None:
        self._tensors = ([parameters], [gradient])
        self._options = {
            "lr": lr,
            "beta1": betas[0],
            "beta2": betas[1],
            "weight_decay": weight_decay,
            "eps": 1e-8,
            "amsgrad": False,
            "maximize": False,
        }
        # All that it remembers, on the device, so that a step can be captured in a CUDA graph.
        self.state = {
            "mean": torch.zeros_like(parameters),
            "mean_square": torch.zeros_like(parameters),
            "step": torch.zeros((), device=parameters.device),
        }

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters."""
        mean, mean_square, step = ([value] for value in self.state.values())
        step[0] += 1
        torch._fused_adam_(*self._tensors, mean, mean_square, [], step, **self._options)
