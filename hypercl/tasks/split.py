"""From a data set to tasks that tell some of its classes apart."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from hypercl.errors import InputError
from hypercl.tasks.images import Images
from hypercl.tasks.task import Split, Task

if TYPE_CHECKING:
    from hypercl.options import TaskOptions


def class_task(
    images: Images,
    prefix: str,
    classes: Sequence[int],
    options: "TaskOptions",
    device: torch.device,
    **preprocessing,
) -> Task:
    """The task of telling ``classes`` apart; the samples keep the order of the files.

    Args:
        prefix: The task's name without its classes.
        classes: All different; a label of the task is a position among them.
        options: Of them, ``val_set_size`` training samples are held out, the first ones, and
            ``num_train_samples`` of the others trained on.
        preprocessing: Further arguments of :class:`Task`.

    Raises:
        InputError: There is nothing to train or test on.
    """

    position = np.zeros(max(classes) + 1, dtype=np.int64)  # by class
    position[list(classes)] = range(len(classes))

    def select(pixels: np.ndarray, labels: np.ndarray) -> Split:
        chosen = np.isin(labels, classes)
        samples = torch.from_numpy(pixels[chosen])
        if samples.ndim != 4:  # grey images have one channel
            samples = samples[..., None]
        targets = torch.from_numpy(position[labels[chosen]])
        return Split(samples.to(device), targets.to(device))

    name = f"{prefix} {name_of(classes)}"
    train = select(images.train_images, images.train_labels)
    test = select(images.test_images, images.test_labels)
    num_samples, held_out = len(train.labels), options.val_set_size
    if num_samples == 0:
        raise InputError(f"the data have no training samples for '{name}': complete the file")
    if held_out >= num_samples:
        raise InputError(
            f"--val_set_size={held_out} leaves nothing to train on: the task '{name}' has "
            f"{num_samples} training samples"
        )
    end = num_samples
    if options.num_train_samples is not None:
        end = held_out + options.num_train_samples
        if end > num_samples:
            raise InputError(
                f"--num_train_samples={options.num_train_samples} with --val_set_size={held_out}: "
                f"the task '{name}' has {num_samples} training samples in all: lower one of them"
            )
    if len(test.labels) == 0:
        raise InputError(f"the data have no test samples for '{name}': complete the file")
    return Task(
        name,
        len(classes),
        train=Split(train.images[held_out:end], train.labels[held_out:end]),
        validation=Split(train.images[:held_out], train.labels[:held_out]),
        test=test,
        class_names=tuple(map(str, classes)),
        **preprocessing,
    )


def name_of(classes: Sequence[int]) -> str:
    """``0-4`` for classes in their natural order without gaps, ``3, 7, 4`` for others."""
    first, last = classes[0], classes[-1]
    if len(classes) > 1 and list(classes) == list(range(first, last + 1)):
        return f"{first}-{last}"
    return ", ".join(map(str, classes))


def padded(split: Split, padding: int) -> Split:
    """Add a black border; the labels stay."""
    p = padding
    return Split(F.pad(split.images, (0, 0, p, p, p, p)), split.labels)
