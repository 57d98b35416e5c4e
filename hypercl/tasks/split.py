"""From a data set to tasks that tell some of its classes apart."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from hypercl.errors import InputError
from hypercl.tasks.images import Images
from hypercl.tasks.task import Split, Task

_SHOWN = 60  # characters of a list of classes, at most

if TYPE_CHECKING:
    from hypercl.options import TaskOptions


def class_task(
    images: Images,
    prefix: str,
    classes: Sequence[int],
    options: "TaskOptions",
    device: torch.device,
    *,
    names: Sequence[str] | None = None,
    **preprocessing,
) -> Task:
    """The task of telling ``classes`` apart; the samples keep the order of the files.

    Args:
        prefix: The task's name without its classes.
        classes: All different; a label of the task is a position among them.
        options: See :func:`held_out_task`.
        names: Of all classes, for the task's name; None: their numbers.
        preprocessing: Further arguments of :class:`Task`.

    Raises:
        InputError: There is nothing to train or test on.
    """

    position = np.zeros(max(classes) + 1, dtype=np.int64)  # by class
    position[list(classes)] = range(len(classes))

    def select(pixels: np.ndarray, labels: np.ndarray) -> Split:
        chosen = np.isin(labels, classes)
        return as_split(pixels[chosen], position[labels[chosen]], device)

    shown = name_of(classes) if names is None else list_of([names[c] for c in classes])
    train = select(images.train_images, images.train_labels)
    test = select(images.test_images, images.test_labels)
    name = f"{prefix} {shown}"
    class_names = tuple(str(c) if names is None else names[c] for c in classes)
    more = {"class_names": class_names, **preprocessing}
    return held_out_task(name, len(classes), train, test, options, **more)


def as_split(pixels: np.ndarray, labels: np.ndarray, device: torch.device) -> Split:
    """Arrays on the device: images [N, H, W] or [N, H, W, C], vectors [N, D]; labels [N]."""
    samples = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
    if samples.ndim == 3:  # grey images have one channel
        samples = samples[..., None]
    return Split(samples.to(device), torch.from_numpy(labels).to(device))


def held_out_task(
    name: str,
    num_classes: int,
    train: Split,
    test: Split,
    options: "TaskOptions",
    **preprocessing,
) -> Task:
    """A task of which some training samples are held out for validation.

    Args:
        options: Of them, ``val_set_size`` training samples are held out and ``num_train_samples``
            of the others trained on: the first ones, or where ``val_split`` says so the first of
            each class.
        preprocessing: Further arguments of :class:`Task`.

    Raises:
        InputError: There is nothing to train or test on.
    """
    num_samples, held_out = len(train.labels), options.val_set_size
    if num_samples == 0:
        raise InputError(f"the data have no training samples for '{name}': complete the file")
    if held_out >= num_samples:
        raise InputError(
            f"--val_set_size={held_out} leaves nothing to train on: the task '{name}' has "
            f"{num_samples} training samples: lower it, 0 is no validation"
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
    if options.val_split == "stratified":
        if num_samples - held_out < num_classes or end - held_out < num_classes:
            raise InputError(
                f"--val_set_size={held_out} leaves {end - held_out} of {end} training samples of "
                f"'{name}', which has {num_classes} classes: lower it, or take more samples"
            )
        is_held = stratified(train.labels, held_out)
        validation, rest = _selected(train, is_held), _selected(train, ~is_held)
        is_left_out = stratified(rest.labels.flip(0), num_samples - end).flip(0)  # the last ones
        learned = _selected(rest, ~is_left_out)
    else:
        validation = Split(train.images[:held_out], train.labels[:held_out])
        learned = Split(train.images[held_out:end], train.labels[held_out:end])
    return Task(name, num_classes, learned, validation, test, **preprocessing)


def _selected(split: Split, chosen: torch.Tensor) -> Split:
    """Samples, [N] bool, of a split; the split itself where that is all of them."""
    return split if bool(chosen.all()) else Split(split.images[chosen], split.labels[chosen])


def stratified(labels: torch.Tensor, number: int) -> torch.Tensor:
    """Choose samples to do without: of each class the first, as many as are in proportion.

    What rounding leaves goes to the classes with the largest remainders, and one sample of each
    class is never chosen.

    Args:
        labels: [N] int64, of each class from 0 on at least one.
        number: Of samples chosen, N less the number of classes at most.

    Returns:
        [N] bool.
    """
    sizes = torch.bincount(labels).tolist()
    num_samples, most = len(labels), [n - 1 for n in sizes]
    shares = [min(n * number // num_samples, limit) for n, limit in zip(sizes, most, strict=True)]
    by_remainder = sorted(range(len(sizes)), key=lambda c: -(sizes[c] * number % num_samples))
    while sum(shares) < number:
        for c in by_remainder:
            if sum(shares) < number and shares[c] < most[c]:
                shares[c] += 1
    chosen = torch.zeros(num_samples, dtype=torch.bool, device=labels.device)
    for c, n in enumerate(shares):
        chosen[(labels == c).nonzero().flatten()[:n]] = True
    return chosen


def name_of(classes: Sequence[int]) -> str:
    """``0-4`` for classes in their natural order without gaps, ``3, 7, 4`` for others."""
    first, last = classes[0], classes[-1]
    if len(classes) > 1 and list(classes) == list(range(first, last + 1)):
        return f"{first}-{last}"
    return ", ".join(map(str, classes))


def list_of(names: Sequence[str]) -> str:
    """All of them, or the first and the last of many."""
    shown = ", ".join(names)
    return shown if len(shown) <= _SHOWN else f"{names[0]} to {names[-1]} ({len(names)})"


def padded(split: Split, padding: int) -> Split:
    """Add a black border; the labels stay."""
    p = padding
    return Split(F.pad(split.images, (0, 0, p, p, p, p)), split.labels)
