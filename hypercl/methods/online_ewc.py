"""Online EWC (Schwarz et al., 2018, arXiv 1805.06370, section 3.2)::

    loss = task loss + lambda / 2 * sum over i of gamma F~_i (w_i - w*_i)²

w* are the weights after the last task; the running Fisher information is F~ = gamma F~ + F after
each task.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypercl.methods.base import Method, Setting, TaskEnd
from hypercl.methods.ewc import ElasticWeightConsolidation, FisherEntry
from hypercl.ranges import float_in, option

if TYPE_CHECKING:
    from torch import Tensor

    from hypercl.engine.members import Params


@dataclass(frozen=True)
class OnlineEwc(FisherEntry):
    # fmt: off
    ewc_gamma: float = option(1.0, float_in("[0, 1.000001)"), "what is left, after a task, of the earlier tasks' Fisher information", member=True)
    # fmt: on

    def build(self, setting: Setting) -> Method:
        return OnlineConsolidation(self, setting)


class OnlineConsolidation(ElasticWeightConsolidation):
    """EWC with one running Fisher information and the last weights alone."""

    def __init__(self, options: OnlineEwc, setting: Setting) -> None:
        super().__init__(options, setting)
        self.gamma = options.ewc_gamma

    def penalty_and_gradient(self, weights: "Tensor", anchor: Any) -> "tuple[Tensor, Tensor]":
        """The penalty [members], and its gradient [members, num_weights]."""
        from hypercl.engine.members import by_member

        moved = weights - anchor["weights"]
        gradient = by_member(self.gamma, weights) * anchor["precision"] * moved
        return (gradient * moved).sum(1) / 2, gradient

    def after_task(self, params: "Params", memory: "Params", end: TaskEnd) -> "Params":
        """``weights`` and ``precision`` F~, [members, num_weights]."""
        from hypercl.engine.members import by_member

        precision = self.fisher(params, end)
        if memory:
            precision = precision + by_member(self.gamma, precision) * memory["precision"]
        return {"weights": params["weights"].clone(), "precision": precision}


ENTRY = OnlineEwc
