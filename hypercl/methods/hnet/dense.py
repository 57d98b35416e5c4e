"""The dense form of the regularizer: generate the earlier tasks' weights and compare them.

This is the sum as the paper has it. It is cheaper than the factored form where few rows of features
meet a wide last layer; factored.py has the other one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypercl.engine.members import Params, by_member, own_rows
from hypercl.methods.hnet.anchor import Penalty, num_bytes
from hypercl.networks.heads import Heads
from hypercl.networks.hypernet import Hypernet


@dataclass(frozen=True)
class DenseAnchor:
    """The earlier tasks' weights as they were, or what generates them anew.

    ``kept`` holds, each with a leading dimension of members, ``targets`` [tasks, num_weights]; or
    θ* and e* themselves, where targets are generated at every step.
    """

    form = "dense"
    needs_weights = True

    hnet: Hypernet
    num_tasks: int  # earlier tasks: 0 … num_tasks - 1
    subset: bool  # whether a step regularizes some of them alone
    kept: Params
    mask: Tensor | None  # [tasks, num_weights - shared ones], 1 for the weights used; None: all

    @classmethod
    def take(
        cls,
        hnet: Hypernet,
        params: Params,
        num_tasks: int,
        *,
        subset: bool,
        store_targets: bool,
        heads: Heads,
    ) -> "DenseAnchor":
        """Of the parameters as they are now; arguments as in choice.take_anchor."""
        weight = hnet.last_layer(params)[0]
        earlier = torch.arange(num_tasks, device=weight.device).expand(len(weight), -1)
        if store_targets:
            kept = {"targets": hnet.weights(params, earlier).clone()}
        else:
            kept = {name: value.clone() for name, value in params.items()}
        mask = None
        if heads.shared < heads.num_weights:
            masks = [heads.mask(i)[heads.shared :] for i in range(num_tasks)]
            mask = torch.stack(masks).to(weight)
        return cls(hnet, num_tasks, subset, kept, mask)

    @property
    def num_bytes(self) -> int:
        """Memory that it takes."""
        return num_bytes(*self.kept.values(), self.mask)

    def at_once(self, num_earlier: int) -> int:
        """How many of the tasks regularized in a step go through the hypernetwork at once: all."""
        return num_earlier

    @torch.no_grad()
    def penalty(
        self,
        params: Params,
        earlier: Tensor,
        features: Tensor,
        weights: Tensor | None,
        beta: float | Tensor,
    ) -> Penalty:
        """See :class:`OutputAnchor`."""
        assert weights is not None  # as needs_weights says
        moved = weights - self._targets(earlier)
        if self.mask is not None:
            mask = self.mask[earlier] if self.subset else self.mask
            moved[..., -mask.shape[-1] :] *= mask
        num_earlier = earlier.shape[1]
        value = moved.square().sum((1, 2)) / num_earlier
        moved *= by_member(2 * beta / num_earlier, moved)
        return Penalty(value, None, moved, None, {})

    def _targets(self, earlier: Tensor) -> Tensor:
        if "targets" not in self.kept:
            return self.hnet.weights(self.kept, earlier)
        return own_rows(self.kept["targets"], earlier) if self.subset else self.kept["targets"]
