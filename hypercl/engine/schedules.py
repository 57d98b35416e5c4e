"""Learning rates that change while a task is learned; both schedules start anew with each task."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hypercl.engine.members import Numbers, of_each

if TYPE_CHECKING:
    from hypercl.options import TrainOptions


# From these epochs on, counted from 0, the rate is multiplied by so much: the schedule for ResNets
# in Keras' example for CIFAR-10, whose condition is "epoch > 80".
_DROPS = {81: 1e-1, 121: 1e-2, 161: 1e-3, 181: 0.5e-3}


def epoch_factors(num_steps: int, steps_per_epoch: int) -> Tensor:
    """By what the learning rate is multiplied at each step of a task: [num_steps]."""
    factors = torch.ones(num_steps)
    for epoch, factor in _DROPS.items():
        factors[epoch * steps_per_epoch :] = factor
    return factors


class LearningRates:
    """The learning rate of each member at each step of a task.

    Args:
        num_members: Each has a rate of its own.
        higher_is_better: Whether what is looked at is to rise.

    Attributes:
        now: For the optimizer: a number where the rate is constant, or one of each member, else
            [members], which :meth:`set` changes.
    """

    def __init__(
        self,
        options: "TrainOptions",
        num_steps: int,
        steps_per_epoch: int,
        num_members: int,
        device: torch.device,
        *,
        higher_is_better: bool = True,
    ) -> None:
        self.now: Numbers = options.lr
        self._factors: Tensor | None = None
        self._plateau: Plateau | None = None
        rates = of_each(options.lr, num_members)
        self._base = torch.tensor(rates, dtype=torch.float32, device=device)  # before the factors
        if options.plateau_lr_scheduler:
            self._plateau = Plateau(rates, higher_is_better)
        if options.lambda_lr_scheduler:
            self._factors = epoch_factors(num_steps, steps_per_epoch).to(device)
        if self._plateau is not None or self._factors is not None:
            self.now = self._base.clone()
        self._steps_per_epoch = steps_per_epoch

    @property
    def of_members(self) -> list[float]:
        """Of each member, at the last step; to the seven digits that float32 has."""
        if isinstance(self.now, Tensor):
            return [float(f"{rate:.7g}") for rate in self.now.tolist()]
        return list(of_each(self.now, len(self._base)))

    def set(self, step: Tensor) -> None:
        """Take the rate of a step, whose number is in [1] int64 on the device."""
        if isinstance(self.now, Tensor):
            factor = 1 if self._factors is None else self._factors.index_select(0, step)
            self.now.copy_(self._base * factor)

    def looks_at(self, step: int) -> bool:
        """Whether what is validated after a step can change the rates."""
        return self._plateau is not None and step % self._steps_per_epoch == 0

    def look(self, measured: Sequence[float]) -> None:
        """Look at the members' validation accuracies, or errors, after an epoch; see
        :meth:`looks_at`.
        """
        assert self._plateau is not None
        self._plateau.step(measured)
        self._base.copy_(torch.tensor(self._plateau.rates))

    def state(self) -> list[dict[str, Any]]:
        """All that is needed to go on, beside the step: numbers and strings."""
        return [] if self._plateau is None else self._plateau.state()

    def load_state(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from where :meth:`state` was taken."""
        if self._plateau is not None:
            self._plateau.load_state(states)
            self._base.copy_(torch.tensor(self._plateau.rates))


class Plateau:
    """Lowers a member's learning rate when its validation accuracy, or error, gets no better.

    torch's ReduceLROnPlateau with the settings of Keras' example: after more than 5 epochs without
    a rise, times sqrt(0.1), down to 5e-7.

    Args:
        rates: To start from, of each member.
        higher_is_better: Whether what is looked at is to rise.
    """

    def __init__(self, rates: Sequence[float], higher_is_better: bool = True) -> None:
        self._optimizers = [  # torch's scheduler changes the rate of an optimizer
            torch.optim.SGD([torch.zeros(1)], lr=lr) for lr in rates
        ]
        self._schedulers = [
            torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer,
                mode="max" if higher_is_better else "min",
                factor=math.sqrt(0.1),
                patience=5,
                min_lr=0.5e-6,
            )
            for optimizer in self._optimizers
        ]

    def step(self, measured: Sequence[float]) -> None:
        """Look at the members' validation accuracies, or errors, after an epoch."""
        for scheduler, value in zip(self._schedulers, measured, strict=True):
            scheduler.step(value)

    @property
    def rates(self) -> list[float]:
        """Of each member, now."""
        return [optimizer.param_groups[0]["lr"] for optimizer in self._optimizers]

    def state(self) -> list[dict[str, Any]]:
        """All that is needed to go on: numbers and strings."""
        return [
            {"lr": rate, **scheduler.state_dict()}
            for rate, scheduler in zip(self.rates, self._schedulers, strict=True)
        ]

    def load_state(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from where :meth:`state` was taken."""
        for optimizer, scheduler, state in zip(
            self._optimizers, self._schedulers, states, strict=True
        ):
            state = dict(state)
            optimizer.param_groups[0]["lr"] = state.pop("lr")
            scheduler.load_state_dict(state)
