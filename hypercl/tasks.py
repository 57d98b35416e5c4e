"""Tasks, and the three sequences of them. All their tensors lie on the device.

Images stay uint8 and whole until a step takes its batch: that is a quarter of the memory, and a
sequence of permutations shares one copy of the images.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hypercl.datasets import load_images
from hypercl.errors import InputError

PERMUTATION_SEED = 42  # of the script this project replaces, so that runs compare
CROP_PADDING = 4
CIFAR_MEAN = (0.485, 0.456, 0.406)
CIFAR_STD = (0.229, 0.224, 0.225)


class Split(NamedTuple):
    """Samples of one task for one purpose."""

    images: Tensor  # [N, H, W, C] uint8
    labels: Tensor  # [N] int64, from 0 within the task

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
    """One classification problem of a sequence, and how its images become inputs."""

    name: str
    num_classes: int
    train: Split
    validation: Split  # the first training samples, not trained on; may be empty
    test: Split
    permutation: Tensor | None = None  # [H * W * C] int64
    mean: Tensor | None = None  # [C], of pixels in [0, 1]
    std: Tensor | None = None  # [C]
    augmented: bool = False  # flipped and cropped at random while training
    first_output: int | None = None  # of the main network's; None: it has no others

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images, as hypnettorch's networks expect it."""
        return tuple(self.train.images.shape[1:])

    @property
    def outputs(self) -> slice:
        """The task's among the main network's outputs."""
        if self.first_output is None:
            return slice(None)
        return slice(self.first_output, self.first_output + self.num_classes)

    def inputs(self, images: Tensor) -> Tensor:
        """Turn images [B, H, W, C] uint8 into network inputs [B, H * W * C] float32."""
        x = images.float() / 255
        if self.mean is not None:
            x = (x - self.mean) / self.std
        x = x.flatten(1)
        return x if self.permutation is None else x[:, self.permutation]


def split_mnist(
    data_dir: str | Path,
    *,
    num_tasks: int,
    num_classes_per_task: int,
    val_set_size: int,
    device: torch.device,
    num_train_samples: int = -1,
    skip_tasks: int = 0,
) -> list[Task]:
    """SplitMNIST: digits [0, 1], [2, 3], … , each pair (or other number of classes) one task.

    Args:
        val_set_size: First training samples of a task, held out.
        num_train_samples: So many of the others are trained on, the first ones; -1: all.
        skip_tasks: The sequence starts after so many tasks.

    Raises:
        InputError: The data cannot be had, or the validation set would be a whole task.
    """
    images = load_images("mnist", data_dir)
    sizes = {"val_set_size": val_set_size, "num_train_samples": num_train_samples}
    groups = _consecutive(skip_tasks + num_tasks, num_classes_per_task)[skip_tasks:]
    return [_class_task(images, "digits", group, device=device, **sizes) for group in groups]


def permuted_mnist(
    data_dir: str | Path,
    *,
    num_tasks: int,
    val_set_size: int,
    device: torch.device,
    num_train_samples: int = -1,
    skip_tasks: int = 0,
    padding: int = 2,
) -> list[Task]:
    """PermutedMNIST: all ten digits, padded images, the pixels in another fixed order in each task.

    Task 0 keeps the order; the permutations do not depend on the run's seed. Arguments as for
    :func:`split_mnist`.

    Args:
        padding: Black pixels added on each side.

    Raises:
        InputError: The data cannot be had, or the validation set would be a whole task.
    """
    images = load_images("mnist", data_dir)
    sizes = {"val_set_size": val_set_size, "num_train_samples": num_train_samples}
    base = _class_task(images, "digits", range(10), device=device, **sizes)
    base = Task(
        "", 10, *(_padded(split, padding) for split in (base.train, base.validation, base.test))
    )
    num_pixels = math.prod(base.in_shape)
    random_state = np.random.RandomState(PERMUTATION_SEED)
    permutations = [None] + [
        torch.from_numpy(random_state.permutation(num_pixels)).to(device)
        for _ in range(skip_tasks + num_tasks - 1)
    ]
    return [
        Task(f"permutation {i}", 10, base.train, base.validation, base.test, permutation)
        for i, permutation in enumerate(permutations)
        if i >= skip_tasks
    ]


def split_cifar(
    data_dir: str | Path,
    *,
    num_tasks: int,
    num_classes_per_task: int,
    val_set_size: int,
    device: torch.device,
    num_train_samples: int = -1,
    skip_tasks: int = 0,
    augmented: bool = True,
) -> list[Task]:
    """SplitCIFAR-10/100: the classes of CIFAR-10 first, then those of CIFAR-100, split in order.

    With 10 classes per task, CIFAR-10 is one task and ten tasks of CIFAR-100 can follow. A data set
    that the tasks do not reach is not touched. Arguments as for :func:`split_mnist`.

    Args:
        augmented: Flip and crop the training images at random.

    Raises:
        InputError: The data cannot be had, or the validation set would be a whole task.
    """
    sequence = [
        (name, group)
        for name, classes in (("cifar10", 10), ("cifar100", 100))
        for group in _consecutive(classes // num_classes_per_task, num_classes_per_task)
    ][skip_tasks : skip_tasks + num_tasks]
    images = {name: load_images(name, data_dir) for name, _ in sequence}
    return [
        _class_task(
            images[name],
            f"{name} classes",
            group,
            val_set_size=val_set_size,
            num_train_samples=num_train_samples,
            device=device,
            mean=torch.tensor(CIFAR_MEAN, device=device),
            std=torch.tensor(CIFAR_STD, device=device),
            augmented=augmented,
        )
        for name, group in sequence
    ]


def with_heads(tasks: Sequence[Task]) -> list[Task]:
    """The tasks with outputs of their own in a main network with the outputs of all."""
    ends = accumulate((task.num_classes for task in tasks), initial=0)
    return [replace(task, first_output=end) for task, end in zip(tasks, ends, strict=False)]


def fingerprint(tasks: Sequence[Task]) -> str:
    """SHA-256 of all samples in a sequence of tasks, those that tasks have in common taken once."""
    digest, taken = hashlib.sha256(), set()
    for task in tasks:
        for values in (*task.train, *task.validation, *task.test):
            if (key := (values.data_ptr(), values.shape)) not in taken:
                taken.add(key)
                digest.update(str(tuple(values.shape)).encode())
                digest.update(np.ascontiguousarray(values.cpu().numpy()))
    return digest.hexdigest()


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


def _consecutive(num_groups: int, group_size: int) -> list[range]:
    return [range(i * group_size, (i + 1) * group_size) for i in range(num_groups)]


def _class_task(
    images,
    prefix: str,
    classes: range,
    *,
    val_set_size: int,
    num_train_samples: int,
    device: torch.device,
    **preprocessing,
) -> Task:
    """The task of telling ``classes`` apart; the samples keep the order of the files."""

    def select(pixels: np.ndarray, labels: np.ndarray) -> Split:
        chosen = (labels >= classes.start) & (labels < classes.stop)
        pixels = torch.from_numpy(pixels[chosen])
        pixels = pixels if pixels.ndim == 4 else pixels[..., None]  # grey images have one channel
        labels = torch.from_numpy(labels[chosen].astype(np.int64) - classes.start)
        return Split(pixels.to(device), labels.to(device))

    name = f"{prefix} {classes.start}" + (f"-{classes.stop - 1}" if len(classes) > 1 else "")
    train = select(images.train_images, images.train_labels)
    test = select(images.test_images, images.test_labels)
    if len(train.labels) == 0:
        raise InputError(f"the data have no training samples for '{name}': complete the file")
    if val_set_size >= len(train.labels):
        raise InputError(
            f"--val_set_size={val_set_size} leaves nothing to train on: the task '{name}' has "
            f"{len(train.labels)} training samples"
        )
    end = len(train.labels)
    if num_train_samples >= 0:
        end = val_set_size + num_train_samples
        if end > len(train.labels):
            raise InputError(
                f"--num_train_samples={num_train_samples} with --val_set_size={val_set_size}: the "
                f"task '{name}' has {len(train.labels)} training samples in all: lower one of them"
            )
    if len(test.labels) == 0:
        raise InputError(f"the data have no test samples for '{name}': complete the file")
    return Task(
        name,
        len(classes),
        train=Split(train.images[val_set_size:end], train.labels[val_set_size:end]),
        validation=Split(train.images[:val_set_size], train.labels[:val_set_size]),
        test=test,
        **preprocessing,
    )


def _padded(split: Split, padding: int) -> Split:
    """Add a black border; the labels stay."""
    p = padding
    return Split(F.pad(split.images, (0, 0, p, p, p, p)), split.labels)
