"""Dark experience replay (Buzzega et al., 2020, arXiv 2004.07211, equation 5)::

    loss = task loss + alpha * mean over samples and outputs of (z - z*)²

z are the network's logits for a batch from the buffer, z* those that were stored with it. Where this
is not the paper's: samples and logits are stored when a task has been learned, in the paper while it
is, by reservoir sampling; the paper's equation sums over the outputs, where its code takes the mean,
as here. What counts of a sample are the outputs of its task, and where these grow, all: also those of
classes that came later, which nothing else would keep low on samples of the buffer.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypercl.methods.base import Method, Setting
from hypercl.methods.replay import BufferEntry, ExperienceReplay
from hypercl.ranges import non_negative, option

if TYPE_CHECKING:
    from torch import Tensor

    from hypercl.engine.members import Params
    from hypercl.tasks.mixture import Mixture


@dataclass(frozen=True)
class DerEntry(BufferEntry):
    """What DER and DER++ have."""

    der_alpha: float = option(
        0.5, non_negative, "strength of the loss on stored logits", member=True
    )


@dataclass(frozen=True)
class Der(DerEntry):
    def build(self, setting: Setting) -> Method:
        return DarkReplay(self, setting, self.der_alpha)


class DarkReplay(ExperienceReplay):
    """Replay of logits.

    Attributes:
        answered: Which of the stored logits count, [tasks, outputs] bool.
    """

    keeps_logits = True

    def __init__(self, options: "DerEntry", setting: Setting, strength: float) -> None:
        import torch

        super().__init__(options, setting, strength)
        size = len(setting.tasks), setting.net.num_outputs
        self.answered = torch.zeros(size, dtype=torch.bool, device=setting.device)
        for row, task in zip(self.answered, setting.tasks, strict=True):
            row[slice(None) if task.outputs_grow else task.outputs] = True

    def replay_loss(
        self, logits: "Tensor", drawn: "Params", mixture: "Mixture"
    ) -> "tuple[Tensor, Tensor]":
        """The mean squared difference from the stored logits [members], and its gradient."""
        from hypercl.networks.criteria import squared_error

        stored = drawn["logits"][..., mixture.outputs]
        answered = self.answered[drawn["task_ids"]][..., mixture.outputs]
        return squared_error(logits, stored, answered)


ENTRY = Der
