"""Synaptic intelligence (Zenke et al., 2017, arXiv 1703.04200, equations 3 to 5)::

    loss = task loss + c * sum over i of Omega_i (w_i - w*_i)²
    Omega_i = sum over t' < t of omega_t'i / (Delta_t'i² + epsilon)

w* are the weights after the last task. In task t', omega_i is the part of the decrease of the task
loss that is due to w_i: the sum over steps of -g_i times the change of w_i, with g the gradient of
the task loss before the step. Delta is the whole change of w in the task. As in the paper, Omega is
negative where a weight has moved against its gradient; hypnettorch's si_regularizer takes 0 there.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypercl.methods.base import (
    Batch,
    Method,
    OwnWeights,
    OwnWeightsEntry,
    Setting,
    TaskEnd,
)
from hypercl.ranges import non_negative, option, positive

if TYPE_CHECKING:
    from torch import Tensor

    from hypercl.engine.members import Params
    from hypercl.networks.main_net import TaskLoss, TaskLossValue


@dataclass(frozen=True)
class Si(OwnWeightsEntry):
    # fmt: off
    si_c: float = option(1.0, non_negative, "si: strength of the penalty", member=True)
    si_epsilon: float = option(0.1, positive, "keeps the importance of a weight finite that has hardly changed", member=True)
    # fmt: on

    def build(self, setting: Setting) -> Method:
        return SynapticIntelligence(self, setting)


class SynapticIntelligence(OwnWeights):
    """A network whose weights are held by what they have contributed to the earlier tasks."""

    def __init__(self, options: Si, setting: Setting) -> None:
        super().__init__(setting, options.si_c, options.mnet_init)
        self.epsilon = options.si_epsilon

    def remember(self, params: "Params", memory: "Params", task_id: int) -> Any:
        """The memory."""
        return memory or None

    def running(self, params: "Params", memory: "Params", task_id: int) -> "Params":
        """[members, num_weights] each: ``path`` omega, the weights at the ``start`` of the task,
        those ``before`` the last step, and its ``gradient``.
        """
        weights = params["weights"]
        zeros = weights.new_zeros(weights.shape)
        return {"path": zeros, "start": weights, "before": weights, "gradient": zeros}

    def loss_of_task(
        self, weights: "Tensor", batch: Batch, task_loss: "TaskLoss"
    ) -> "TaskLossValue":
        """The task loss; what the last step has done enters omega."""
        running, value = batch.running, task_loss(weights, batch)
        _add_step(running, weights)
        running["before"].copy_(weights)
        running["gradient"].copy_(value.gradient)
        return value

    def penalty_and_gradient(self, weights: "Tensor", anchor: Any) -> "tuple[Tensor, Tensor]":
        """The penalty [members], and its gradient [members, num_weights]."""
        moved = weights - anchor["weights"]
        weighted = anchor["importance"] * moved
        return (weighted * moved).sum(1), 2 * weighted

    def after_task(self, params: "Params", memory: "Params", end: TaskEnd) -> "Params":
        """``weights`` and ``importance`` Omega, [members, num_weights]."""
        from hypercl.engine.members import by_member

        weights = params["weights"].clone()
        running = {name: value.clone() for name, value in end.running.items()}
        _add_step(running, weights)
        change = weights - running["start"]
        importance = running["path"] / (change.square() + by_member(self.epsilon, change))
        if memory:
            importance = importance + memory["importance"]
        return {"weights": weights, "importance": importance}


def _add_step(running: "Params", weights: "Tensor") -> None:
    """Add to omega what the step has done that led to the weights."""
    running["path"].addcmul_(running["gradient"], weights - running["before"], value=-1)


ENTRY = Si
