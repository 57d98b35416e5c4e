"""A task, the order of its samples, and their augmentation. All its tensors lie on the device.

Images stay as they are and whole until a step takes its batch: bytes are a quarter of the memory of
inputs, and a sequence of permutations shares one copy of them. Inputs may be vectors, too: what is
called an image below is then a row of a table.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hypercl.measure import ACCURACY, ERROR, Measure

CROP_PADDING = 4


class Split(NamedTuple):
    """Samples of one task for one purpose."""

    images: Tensor  # [N, H, W, C] uint8 or float32, or [N, D] float32
    # [N] int64, counted from the first of the task's outputs; of regression [N, K] float32
    labels: Tensor

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels in batches of at most so many samples and of nearly equal size, so that
        none is too small for the statistics of a batch.
        """
        number = math.ceil(len(self.labels) / batch_size)
        images, labels = (values.tensor_split(number) for values in self)
        return zip(images, labels, strict=True)


class Crops(NamedTuple):
    """How to augment the images of a batch, one row an image; any leading dimensions."""

    offsets: Tensor  # [..., B, 2] uint8, top and left of the window in the padded image
    flips: Tensor  # [..., B] bool


@dataclass(frozen=True)
class Task:
    """One problem of a sequence, classification or regression, and how images become inputs."""

    name: str
    num_classes: int  # of regression, the numbers K of a target
    train: Split
    validation: Split  # training samples that are not trained on; may be empty
    test: Split
    permutation: Tensor | None = None  # [H * W * C] int64
    mean: Tensor | None = None  # [C] or [D], of pixels in [0, 1] where they are uint8
    std: Tensor | None = None  # [C] or [D]
    augmented: bool = False  # flipped and cropped at random while training
    # Of the main network, among which a sample is classified.
    outputs: slice = field(default_factory=lambda: slice(None))
    outputs_grow: bool = False  # with each task that is learned after it
    class_names: tuple[str, ...] = ()  # of its own classes; (): they have none

    @property
    def in_shape(self) -> tuple[int, ...]:
        """(H, W, C) of the images, as hypnettorch's networks expect it; (D,) of vectors."""
        return tuple(self.train.images.shape[1:])

    @property
    def is_regression(self) -> bool:
        """Whether its labels are numbers, and no classes."""
        return self.train.labels.is_floating_point()

    @property
    def measure(self) -> Measure:
        """What is measured of it."""
        return ERROR if self.is_regression else ACCURACY

    @property
    def has_own_outputs(self) -> bool:
        """Whether its outputs are a head of its own, which the other tasks do not use."""
        return self.outputs.start is not None

    def inputs(self, images: Tensor) -> Tensor:
        """Turn images [B, H, W, C] into network inputs [B, H * W * C] float32."""
        x = as_floats(images)
        if self.mean is not None:
            assert self.std is not None  # they go together
            x = (x - self.mean) / self.std
        x = x.flatten(1)
        return x if self.permutation is None else x[:, self.permutation]


def as_floats(images: Tensor) -> Tensor:
    """Images as float32: bytes as shares of 255, other numbers as they are."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def with_heads(tasks: Sequence[Task]) -> list[Task]:
    """The tasks with outputs of their own in a main network with the outputs of all."""
    ends = list(accumulate(task.num_classes for task in tasks))
    return [
        replace(task, outputs=slice(end - task.num_classes, end))
        for task, end in zip(tasks, ends, strict=True)
    ]


def with_shared_outputs(tasks: Sequence[Task]) -> list[Task]:
    """The tasks in a main network with the outputs of the largest one."""
    largest = max(task.num_classes for task in tasks)
    return [
        replace(task, outputs=slice(task.num_classes if task.num_classes < largest else None))
        for task in tasks
    ]


def with_growing_outputs(tasks: Sequence[Task]) -> list[Task]:
    """The tasks in a main network with the outputs of all, where a sample is classified among the
    classes of its own task and of those before it.
    """
    ends = accumulate(task.num_classes for task in tasks)
    grown = []
    for task, end in zip(tasks, ends, strict=True):
        first = end - task.num_classes
        train, validation, test = (
            Split(split.images, split.labels + first)
            for split in (task.train, task.validation, task.test)
        )
        grown.append(
            replace(
                task,
                outputs=slice(end),
                outputs_grow=True,
                train=train,
                validation=validation,
                test=test,
            )
        )
    return grown


def outputs_after(tasks: Sequence[Task], task_id: int, num_learned: int) -> slice:
    """Among which outputs samples of a task are classified once so many tasks have been learned,
    its own at least.
    """
    task = tasks[task_id]
    return tasks[max(task_id, num_learned - 1)].outputs if task.outputs_grow else task.outputs


def describe(tasks: Sequence[Task]) -> str:
    """``5 tasks of 2 classes``, ``3 tasks of 4, 3, 3 classes``, ``3 tasks of 1 output of
    regression``.
    """
    sizes = [task.num_classes for task in tasks]
    shown = sizes if len(set(sizes)) > 1 else sizes[:1]
    plural = "s" if len(tasks) > 1 else ""
    what = "classes"
    if tasks[0].is_regression:
        what = "output of regression" if shown == [1] else "outputs of regression"
    return f"{len(tasks)} task{plural} of {', '.join(map(str, shown))} {what}"


def fingerprint(tasks: Sequence[Task]) -> str:
    """SHA-256 of all samples in a sequence of tasks, those that tasks have in common once."""
    digest = hashlib.sha256()
    for values in distinct(v for t in tasks for v in (*t.train, *t.validation, *t.test)):
        digest.update(str(tuple(values.shape)).encode())
        digest.update(np.ascontiguousarray(values.cpu().numpy()).data)
    return digest.hexdigest()


def distinct(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Each tensor once, in order, where some are the same piece of memory."""
    return list({place(tensor): tensor for tensor in tensors}.values())


def place(tensor: Tensor) -> tuple[int, torch.Size]:
    """Of tensors that lie in memory, the same for the same piece of it."""
    return tensor.data_ptr(), tensor.shape


def draw_batches(
    num_samples: int, num_steps: int, batch_size: int, generator: torch.Generator
) -> Tensor:
    """Draw the samples of every step of a task beforehand.

    The steps run through one fresh permutation of the samples after the other, so that a batch may
    hold the end of one epoch and the start of the next, and all batches are full.

    Returns:
        Indices [num_steps, batch_size] int64, on the CPU.
    """
    num_epochs = math.ceil(num_steps * batch_size / num_samples)
    epochs = torch.empty(num_epochs, num_samples, dtype=torch.int64)
    for epoch in epochs:
        torch.randperm(num_samples, generator=generator, out=epoch)
    return epochs.flatten()[: num_steps * batch_size].view(num_steps, batch_size)


def draw_offsets(num_steps: int, batch_size: int, generator: torch.Generator) -> Tensor:
    """Draw beforehand where images are cropped, [num_steps, batch_size, 2] uint8, on the CPU."""
    size = (num_steps, batch_size, 2)
    return torch.randint(2 * CROP_PADDING + 1, size, generator=generator, dtype=torch.uint8)


def draw_flips(num_steps: int, batch_size: int, generator: torch.Generator) -> Tensor:
    """Draw beforehand which images are flipped, [num_steps, batch_size] bool, on the CPU."""
    size = (num_steps, batch_size)
    return torch.randint(2, size, generator=generator, dtype=torch.uint8).bool()


def augment(images: Tensor, offsets: Tensor, flips: Tensor) -> Tensor:
    """Flip and crop each image [B, H, W, C] in its own way, in one gather; see :class:`Crops`.

    The padding is black, as in torchvision's RandomCrop before normalization.
    """
    batch, height, width, _ = images.shape
    p = CROP_PADDING
    padded = F.pad(images, (0, 0, p, p, p, p))  # [B, H + 2p, W + 2p, C]
    offsets = offsets.long()
    rows = offsets[:, :1] + torch.arange(height, device=images.device)  # [B, H]
    columns = torch.arange(width, device=images.device).expand(batch, width)
    columns = torch.where(flips[:, None], width - 1 - columns, columns)
    columns = offsets[:, 1:] + columns  # [B, W]
    image = torch.arange(batch, device=images.device)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]]
