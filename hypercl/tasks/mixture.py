"""Samples of several tasks in one batch: what replay and joint training learn from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hypercl.tasks.task import (
    Task,
    as_floats,
    augment,
    distinct,
    draw_batches,
    draw_flips,
    draw_offsets,
    outputs_after,
    place,
)


@dataclass(frozen=True)
class Mixture:
    """How samples of several tasks become inputs, and among which outputs each is classified.

    Tensors are indexed by task and lie on the device.

    Attributes:
        outputs: Of the main network, those that any of the samples is classified among.
        allowed: [tasks, outputs] bool, those of a task's samples; None: all of ``outputs``.
    """

    outputs: slice
    allowed: Tensor | None
    permutations: Tensor | None  # [tasks, H * W * C] int64
    mean: Tensor | None  # [tasks, 1, 1, C] or [tasks, D]
    std: Tensor | None

    @classmethod
    def of(cls, tasks: Sequence[Task], num_learned: int, num_outputs: int) -> "Mixture":
        """Of the first tasks.

        Args:
            num_learned: How many of them there are, the one being learned among them.
            num_outputs: Of the main network.
        """
        device = tasks[0].train.labels.device
        by_task = [outputs_after(tasks, k, num_learned) for k in range(num_learned)]
        outputs, allowed = by_task[-1], None
        if any(own != outputs for own in by_task):
            outputs = slice(None)
            allowed = torch.zeros(num_learned, num_outputs, dtype=torch.bool, device=device)
            for row, own in zip(allowed, by_task, strict=True):
                row[own] = True
        first = tasks[:num_learned]
        ones, channels = [1] * (len(tasks[0].in_shape) - 1), tasks[0].in_shape[-1]

        def stacked(values: list[Tensor | None], otherwise: Tensor) -> Tensor | None:
            """None where no task has any; a task without them has what changes nothing."""
            if all(value is None for value in values):
                return None
            return torch.stack([otherwise if value is None else value for value in values])

        permutations = stacked(
            [task.permutation for task in first],
            torch.arange(math.prod(tasks[0].in_shape), device=device),
        )
        means = stacked([t.mean for t in first], torch.zeros(channels, device=device))
        stds = stacked([t.std for t in first], torch.ones(channels, device=device))
        if means is not None and stds is not None:
            means, stds = (v.view(num_learned, *ones, channels) for v in (means, stds))
        return cls(outputs, allowed, permutations, means, stds)

    def inputs(self, images: Tensor, task_ids: Tensor) -> Tensor:
        """Turn images [members, B, H, W, C] into inputs [members, B, H * W * C] float32, as
        ``Task.inputs`` does.

        Args:
            task_ids: [members, B] int64.
        """
        x = as_floats(images)
        if self.mean is not None and self.std is not None:
            x = (x - self.mean[task_ids]) / self.std[task_ids]
        x = x.flatten(2)
        return x if self.permutations is None else x.gather(2, self.permutations[task_ids])

    def labels(self, labels: Tensor) -> Tensor:
        """Labels as :func:`network_labels` has them, for logits of ``outputs``."""
        return labels[..., self.outputs] if labels.is_floating_point() else labels

    def allowed_to(self, task_ids: Tensor) -> Tensor | None:
        """By sample, [members, B, outputs] bool; None: all of ``outputs``."""
        return None if self.allowed is None else self.allowed[task_ids]


def network_labels(task: Task, labels: Tensor, num_outputs: int) -> Tensor:
    """A task's labels, counted from the first of all the main network's outputs; of regression,
    [N, num_outputs], with zeros for the outputs of others.
    """
    first = task.outputs.start or 0
    if not task.is_regression:
        return labels + first
    return F.pad(labels, (first, num_outputs - first - labels.shape[-1]))


class Samples(NamedTuple):
    """Of several tasks, on the device."""

    images: Tensor  # [M, H, W, C]; those that tasks share are there once
    image_ids: Tensor  # [N] int64, of each sample
    labels: Tensor  # [N] int64 or [N, outputs], as :func:`network_labels` has them
    task_ids: Tensor  # [N] int64


def training_samples(tasks: Sequence[Task], num_learned: int, num_outputs: int) -> Samples:
    """All training samples of the first tasks, one after the other.

    Args:
        num_outputs: Of the main network.
    """
    first = tasks[:num_learned]
    sizes = torch.tensor([len(task.train.labels) for task in first])
    labels = torch.cat([network_labels(t, t.train.labels, num_outputs) for t in first])
    task_ids = torch.repeat_interleave(torch.arange(num_learned), sizes).to(labels.device)
    images = distinct(task.train.images for task in first)
    starts = {place(each): sum(map(len, images[:i])) for i, each in enumerate(images)}
    image_ids = torch.cat(
        [starts[place(x)] + torch.arange(len(x)) for x in (task.train.images for task in first)]
    ).to(labels.device)
    together = images[0] if len(images) == 1 else torch.cat(images)
    return Samples(together, image_ids, labels, task_ids)


def draw_samples(
    num_samples: int,
    num_steps: int,
    batch_size: int,
    augmented: bool,
    generator: torch.Generator,
) -> Tensor:
    """Draw beforehand which samples a step takes, and how they are augmented.

    Returns:
        [num_steps, batch_size, 1 or 4] int64, on the CPU: index, top, left, flip.
    """
    drawn = [draw_batches(num_samples, num_steps, batch_size, generator)[..., None]]
    if augmented:
        drawn.append(draw_offsets(num_steps, batch_size, generator).long())
        drawn.append(draw_flips(num_steps, batch_size, generator)[..., None].long())
    return torch.cat(drawn, dim=-1)


def augmented_images(images: Tensor, drawn: Tensor) -> Tensor:
    """The images drawn by :func:`draw_samples`, augmented where it says how.

    Args:
        images: [members, B, H, W, C]; ``drawn``: [members, B, 1 or 4].
    """
    if drawn.shape[-1] == 1:
        return images
    shape, rows = images.shape, drawn.flatten(0, 1)
    return augment(images.flatten(0, 1), rows[:, 1:3], rows[:, 3].bool()).view(shape)
