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


def groups_of(size: int, num_classes: int) -> Sequence[range]:
    """The classes 0 … num_classes - 1 in groups of a size; what is left over is left out."""
    return [range(i * size, (i + 1) * size) for i in range(num_classes // size)]


def chosen_groups(options: "TaskOptions", num_classes: int) -> Sequence[range]:
    """The groups of classes of the tasks that a run learns."""
    groups = groups_of(options.num_classes_per_task, num_classes)
    return groups[options.skip_tasks : options.skip_tasks + options.num_tasks]


def class_task(
    images: Images,
    prefix: str,
    classes: range,
    options: "TaskOptions",
    device: torch.device,
    **preprocessing,
) -> Task:
    """The task of telling ``classes`` apart; the samples keep the order of the files.

    Args:
        prefix: The task's name without its classes.
        options: Of them, ``val_set_size`` training samples are held out, the first ones, and
            ``num_train_samples`` of the others trained on.
        preprocessing: Further arguments of :class:`Task`.

    Raises:
        InputError: There is nothing to train or test on.
    """

    def select(pixels: np.ndarray, labels: np.ndarray) -> Split:
        chosen = (labels >= classes.start) & (labels < classes.stop)
        samples = torch.from_numpy(pixels[chosen])
        if samples.ndim != 4:  # grey images have one channel
            samples = samples[..., None]
        targets = torch.from_numpy(labels[chosen].astype(np.int64) - classes.start)
        return Split(samples.to(device), targets.to(device))

    name = f"{prefix} {classes.start}" + (f"-{classes.stop - 1}" if len(classes) > 1 else "")
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
        **preprocessing,
    )


def padded(split: Split, padding: int) -> Split:
    """Add a black border; the labels stay."""
    p = padding
    return Split(F.pad(split.images, (0, 0, p, p, p, p)), split.labels)
