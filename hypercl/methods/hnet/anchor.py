"""What the regularizer's two anchors, dense.py and factored.py, have in common.

The penalty is how far the weights generated for the earlier tasks have moved since then:

    penalty = 1 / |tasks| Σ_t || h(e_t, θ) - h(e*_t, θ*) ||²

The sum of squares runs over the generated weights that matter to a task, the mean over the earlier
tasks regularized in a step. Equation 2 of von Oswald et al. (arXiv 1906.00695) has beta times this,
at θ + Δθ where the lookahead is on.
"""

from typing import NamedTuple, Protocol

from torch import Tensor

from hypercl.engine.members import Params
from hypercl.networks.hypernet import Hypernet


class Penalty(NamedTuple):
    """The penalty of one step, and the gradient of beta times it, in up to four parts."""

    value: Tensor  # [members]
    for_features: Tensor | None  # [members, tasks, chunks, features], of the first block's
    for_weights: Tensor | None  # [members, tasks, num_weights]
    for_layer: Tensor | None  # the last one, as Hypernet.split_last_layer takes it
    for_params: Params  # what of it comes through none of these


class OutputAnchor(Protocol):
    """What is kept, before a task is learned, of the tasks learned earlier."""

    @property
    def form(self) -> str:
        """Its name."""
        ...

    @property
    def hnet(self) -> Hypernet:
        """Whose weights are held."""
        ...

    @property
    def num_tasks(self) -> int:
        """Earlier tasks: 0 … num_tasks - 1."""
        ...

    @property
    def kept(self) -> Params:
        """[members, …] each."""
        ...

    @property
    def num_bytes(self) -> int:
        """Memory that it takes."""
        ...

    def at_once(self, num_earlier: int) -> int:
        """How many of the tasks regularized in a step go through the hypernetwork at once."""
        ...

    @property
    def needs_weights(self) -> bool:
        """Whether the penalty is of the weights generated for the earlier tasks."""
        ...

    def penalty(
        self,
        params: Params,
        earlier: Tensor,
        features: Tensor,
        weights: Tensor | None,
        beta: float | Tensor,
    ) -> Penalty:
        """The penalty and the gradient of ``beta`` times it.

        Args:
            params: θ and e now.
            earlier: [members, tasks] int64, those regularized.
            features: [members, block, chunks, features] of the first block of them.
            weights: [members, tasks, num_weights] of them; not read where they are not needed.
            beta: Of all members, or [members].
        """
        ...


def num_bytes(*values: Tensor | None) -> int:
    """Memory that tensors take, with what they are views of."""
    return sum(value.untyped_storage().nbytes() for value in values if value is not None)
