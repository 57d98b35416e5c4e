"""Dark experience replay++ (Buzzega et al., 2020, arXiv 2004.07211, equation 6)::

    loss = task loss + alpha * mean of (z - z*)² + beta * mean cross-entropy

The first is that of DER, on a batch from the buffer; the second is on another one.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypercl.methods.base import Method, Setting
from hypercl.methods.der import DarkReplay, DerEntry
from hypercl.methods.replay import ExperienceReplay
from hypercl.ranges import non_negative, option

if TYPE_CHECKING:
    from torch import Tensor

    from hypercl.engine.members import Params
    from hypercl.tasks.mixture import Mixture


@dataclass(frozen=True)
class DerPlusPlus(DerEntry):
    der_beta: float = option(
        0.5, non_negative, "strength of the loss on stored labels", member=True
    )

    def build(self, setting: Setting) -> Method:
        return DarkReplayPlusPlus(self, setting)


class DarkReplayPlusPlus(DarkReplay):
    """Replay of logits and of labels."""

    num_batches = 2

    def __init__(self, options: DerPlusPlus, setting: Setting) -> None:
        super().__init__(options, setting, strength=1.0)
        self.alpha, self.beta = options.der_alpha, options.der_beta

    def replay_loss(
        self, logits: "Tensor", drawn: "Params", mixture: "Mixture"
    ) -> "tuple[Tensor, Tensor]":
        """The weighted sum of both [members], and its gradient."""
        import torch

        from hypercl.engine.members import by_member

        size = self.batch_size
        first, second = (
            {name: values[:, rows] for name, values in drawn.items()}
            for rows in (slice(size), slice(size, None))
        )
        of_logits, gradient = super().replay_loss(logits[:, :size], first, mixture)
        of_labels, other = ExperienceReplay.replay_loss(self, logits[:, size:], second, mixture)
        loss = self.alpha * of_logits + self.beta * of_labels
        gradient = by_member(self.alpha, gradient) * gradient
        return loss, torch.cat([gradient, by_member(self.beta, other) * other], dim=1)


ENTRY = DerPlusPlus
