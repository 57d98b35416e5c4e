"""The losses of networks that learn generated samples beside those of the task.

With s the share of generated samples in the loss, both halves means over their samples::

    (1 - s) * cross-entropy of the task's batch + s * loss on the generated samples

A classifier has no labels for these; it distills the predictions of itself as it was before the
task, at a temperature of 2 (Hinton et al., 2015, arXiv 1503.02531). A network that infers tasks has
labels: the tasks that the samples were generated for.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hypercl.engine.members import Numbers, as_tensor, by_member
from hypercl.methods.base import Batch, StepLosses
from hypercl.methods.generative.generator import Replayed
from hypercl.networks.criteria import Classified, cross_entropy, distillation, of_labels
from hypercl.networks.dropout import without_dropout
from hypercl.networks.main_net import MainNetwork, TaskLoss
from hypercl.tasks.mixture import Mixture
from hypercl.tasks.task import Task

_TEMPERATURE = 2.0


class Teacher(NamedTuple):
    """A classifier as it was before a task, and how it is listened to."""

    weights: Tensor  # [members, num_weights]
    mixture: Mixture  # of the tasks so far, the one being learned among them
    known: slice  # of the network's outputs, those that had a class then

    @classmethod
    def before(
        cls, tasks: Sequence[Task], task_id: int, num_outputs: int, weights: Tensor
    ) -> "Teacher":
        """Take a copy of the weights [members, num_weights] before a task."""
        last = tasks[task_id - 1]
        known = last.outputs if last.outputs_grow else slice(None)
        return cls(weights.clone(), Mixture.of(tasks, task_id + 1, num_outputs), known)

    def targets(self, replayed: Replayed, batch: Batch, task_loss: TaskLoss) -> Tensor:
        """Its logits of generated samples, [members, N, outputs of ``mixture``]; 0 for classes that
        are new.
        """
        # As the network that learns, it has the statistics of the batch.
        stats = {name: value.clone() for name, value in batch.stats.items()}
        with without_dropout():
            logits = task_loss.logits(self.weights, replayed.inputs, stats)[..., self.known]
        width = range(task_loss.net.num_outputs)[self.mixture.outputs]
        return F.pad(logits, (0, len(width) - logits.shape[-1]))


def classifier_loss(
    weights: Tensor,
    batch: Batch,
    replayed: Replayed,
    teacher: Teacher,
    share: Numbers,
    task_loss: TaskLoss,
) -> tuple[Tensor, StepLosses]:
    """In one pass of the network over the samples of the task and those generated.

    Args:
        weights: [members, num_weights].
        share: s, of all members or of each.

    Returns:
        The gradient for the weights [members, num_weights]; the losses, of which the penalty is
        that of the distillation.
    """
    mixture, size = teacher.mixture, batch.labels.shape[1]
    targets = teacher.targets(replayed, batch, task_loss)
    allowed = mixture.allowed_to(replayed.task_ids.expand(len(weights), -1))
    own = batch.outputs if mixture.allowed is not None else slice(None)
    inputs = torch.cat([batch.inputs, replayed.inputs], dim=1)
    s = as_tensor(share, weights)
    of_task, of_generated = task_loss.weight * (1 - s), task_loss.weight * s

    def criterion(logits: Tensor) -> tuple[tuple, Tensor]:
        gradient = torch.zeros_like(logits)
        classified, of_own = of_labels(batch.labels)(logits[:, :size, own])
        gradient[:, :size, own] = by_member(of_task, of_own) * of_own
        penalty, of_distilled = distillation(
            logits[:, size:], targets, _TEMPERATURE, allowed=allowed
        )
        gradient[:, size:] = by_member(of_generated, of_distilled) * of_distilled
        return (*classified, penalty), gradient

    (loss, accuracy, penalty), gradient = task_loss.of_logits(
        weights, inputs, batch.stats, criterion, mixture.outputs
    )
    total = of_task * loss + of_generated * penalty
    return gradient, StepLosses(loss, penalty, total, accuracy)


def task_inference_loss(
    net: MainNetwork,
    weights: Tensor,
    inputs: Tensor,
    task_id: int,
    replayed: Replayed,
    share: Numbers,
) -> tuple[Classified, Tensor]:
    """Of a network with an output for each task, of which those of the tasks so far take part.

    Args:
        weights: [members, num_weights].
        inputs: Of the task being learned, [members, B, D].
        replayed: Of all tasks before it.
        share: s, of all members or of each.

    Returns:
        The loss and the accuracy, both with the share of generated samples that the loss has, and
        the loss's gradient for the weights [members, num_weights].
    """
    members, size = inputs.shape[:2]
    s = as_tensor(share, weights)

    def criterion(logits: Tensor) -> tuple[Classified, Tensor]:
        labels = torch.full((members, size), task_id, device=logits.device)
        of_task, own = cross_entropy(logits[:, :size], labels)
        labels = replayed.task_ids.expand(members, -1)
        of_replay, generated = cross_entropy(logits[:, size:], labels)
        both = ((1 - s) * a + s * b for a, b in zip(of_task, of_replay, strict=True))
        halves = by_member(1 - s, own) * own, by_member(s, generated) * generated
        return Classified(*both), torch.cat(halves, dim=1)

    both = torch.cat([inputs, replayed.inputs], dim=1)
    return TaskLoss(net).of_logits(weights, both, {}, criterion, slice(task_id + 1))
