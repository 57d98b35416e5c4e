"""Learning without forgetting (Li and Hoiem, 2016, arXiv 1606.09282), as van de Ven and Tolias weigh
it (arXiv 1904.07734)::

    loss = 1/t * task loss + (1 - 1/t) * mean over heads of T² * sum over c of -q_c log p_c

t counts the tasks, this one included; q and p are the softmax of logits / T, of the network before
the task, without its dropout, and of the one that learns, on the samples of the current task. The
heads are those of the earlier tasks where each has outputs of its own, or the one set of outputs;
of classes that are new, q is 0.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from hypercl.methods.base import (
    Batch,
    Method,
    OwnWeights,
    OwnWeightsEntry,
    Setting,
    StepLosses,
)
from hypercl.ranges import non_negative, option, or_unset, positive, switch

if TYPE_CHECKING:
    from torch import Tensor

    from hypercl.engine.members import Params
    from hypercl.networks.main_net import TaskLoss


@dataclass(frozen=True)
class Lwf(OwnWeightsEntry):
    no_regression: ClassVar = "distills probabilities of classes"
    # fmt: off
    lwf_temperature: float = option(2.0, positive, "temperature T of the softened predictions", member=True)
    lwf_lambda: float | None = option(None, or_unset(non_negative), "strength of the distillation beside the whole task loss; -1: both are weighed, (1 - 1/t) to 1/t in task t", member=True)
    lwf_mean_over_classes: bool = option(False, switch, "divide the distillation by the number of classes, as the code of van de Ven and Tolias does")
    # fmt: on

    def build(self, setting: Setting) -> Method:
        return LearningWithoutForgetting(self, setting)


class Teacher(NamedTuple):
    """The network before the task, and how it is listened to."""

    weights: "Tensor"  # [members, num_weights]
    # By head: of the network that learns, the outputs that are distilled into; of the one before,
    # those that are distilled.
    heads: list[tuple[slice, slice]]
    task_weight: float  # of the task loss
    strength: "float | Tensor"  # weight of the distillation, or [members]


class LearningWithoutForgetting(OwnWeights):
    """A network that goes on to answer as the one before the task did."""

    def __init__(self, options: Lwf, setting: Setting) -> None:
        super().__init__(setting, mnet_init=options.mnet_init)
        self.options = options

    def remember(self, params: "Params", memory: "Params", task_id: int) -> Any:
        """The network before the task; nothing before the first."""
        if task_id == 0:
            return None
        task_weight, strength = 1 / (task_id + 1), 1 - 1 / (task_id + 1)
        if self.options.lwf_lambda is not None:
            task_weight, strength = 1.0, self.options.lwf_lambda
        return Teacher(params["weights"].clone(), self._heads(task_id), task_weight, strength)

    def describe(self, anchor: Any) -> str:
        """Whether there is something to distill."""
        return "no distillation" if anchor is None else "with distillation"

    def loss_with_anchor(
        self, weights: "Tensor", batch: Batch, anchor: Any, task_loss: "TaskLoss"
    ) -> "tuple[Tensor, StepLosses]":
        """Both losses on the samples of the task."""
        return self.distilling(weights, batch, anchor, task_loss)

    def distilling(
        self,
        weights: "Tensor",
        batch: Batch,
        teacher: Teacher,
        task_loss: "TaskLoss",
        replayed: "Tensor | None" = None,
    ) -> "tuple[Tensor, StepLosses]":
        """Both losses, in one pass of the network that learns and one of the network before.

        Args:
            replayed: Inputs [members, N, H * W * C] on which it is to answer as before; None: those
                of the task.
        """
        import torch

        from hypercl.engine.members import by_member
        from hypercl.networks.criteria import cross_entropy, distillation
        from hypercl.networks.dropout import without_dropout

        before, heads, task_weight, strength = teacher
        task_weight, strength = task_loss.weight * task_weight, task_loss.weight * strength
        inputs, size, rows = batch.inputs, batch.labels.shape[1], slice(None)  # rows distilled
        if replayed is not None:
            inputs, rows = torch.cat([inputs, replayed], dim=1), slice(size, None)
        # As the network that learns, it has the statistics of the batch.
        own, stats = batch.outputs, {name: v.clone() for name, v in batch.stats.items()}
        with without_dropout():
            targets = task_loss.logits(before, inputs[:, rows], stats)
        of_each_head = by_member(strength / len(heads), targets)

        def criterion(logits: "Tensor") -> "tuple[tuple, Tensor]":
            gradient = logits.new_zeros(logits.shape)
            classified, of_own = cross_entropy(logits[:, :size, own], batch.labels)
            gradient[:, :size, own] = task_weight * of_own
            penalty = logits.new_zeros(len(logits))
            for taught, known in heads:
                loss, of_head = distillation(
                    logits[:, rows, taught],
                    targets[..., known],
                    self.options.lwf_temperature,
                    mean_over_classes=self.options.lwf_mean_over_classes,
                )
                penalty += loss / len(heads)
                gradient[:, rows, taught] += of_head.mul_(of_each_head)
            return (*classified, penalty), gradient

        (loss, accuracy, penalty), gradient = task_loss.of_logits(
            weights, inputs, batch.stats, criterion
        )
        total = task_weight * loss + strength * penalty
        return gradient, StepLosses(loss, penalty, total, accuracy)

    def _heads(self, task_id: int) -> list[tuple[slice, slice]]:
        """As :class:`Teacher` has them."""
        tasks = self.setting.tasks
        if tasks[task_id].has_own_outputs:
            return [(task.outputs, task.outputs) for task in tasks[:task_id]]
        if tasks[task_id].outputs_grow:
            return [(tasks[task_id].outputs, tasks[task_id - 1].outputs)]
        return [(slice(None), slice(None))]

    def kept_bytes(self, params: "Params", memory: "Params", num_learned: int) -> int:
        """A copy of the weights."""
        return params["weights"][0].numel() * params["weights"].element_size()


ENTRY = Lwf
