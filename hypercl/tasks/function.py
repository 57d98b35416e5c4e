"""What a function of the user's returns, as tasks.

A task is (train_inputs, train_labels, test_inputs, test_labels), arrays or tensors, or a pair
(train, test) of torch's Datasets. Inputs are as in samples.py. Labels are whole numbers [N], or of
regression any finite numbers [N] or [N, K]. Of a Dataset, an item's input that
is a tensor of three dimensions is [C, H, W], as torchvision's ToTensor makes it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hypercl.errors import InputError
from hypercl.options import TaskOptions
from hypercl.tasks.labels import Labels, group
from hypercl.tasks.samples import Header, has_channels_first, problem_of_images, usable
from hypercl.tasks.split import as_split, held_out_task
from hypercl.tasks.task import Task


class Arrays(NamedTuple):
    """A task as the function returned it."""

    train_inputs: np.ndarray
    train_labels: np.ndarray
    test_inputs: np.ndarray
    test_labels: np.ndarray


def as_arrays(returned: Any, title: str) -> list[Arrays]:
    """The tasks that a function returned; Datasets are read through.

    Args:
        title: Of the function, for messages.

    Raises:
        InputError: It returned something else, or inputs that no task can have.
    """
    if not isinstance(returned, Sequence) or isinstance(returned, str) or not len(returned):
        raise InputError(
            f"{title} returns {_described(returned)}: let it return a list of tasks, each "
            "(train_inputs, train_labels, test_inputs, test_labels) or a pair of Datasets"
        )
    tasks: list[Arrays] = []
    for number, task in enumerate(returned):
        of_task = f"task {number} of {title}"
        if not isinstance(task, Sequence) or len(task) not in (2, 4):
            raise InputError(
                f"{of_task} is {_described(task)}: let it be (train_inputs, train_labels, "
                "test_inputs, test_labels) or a pair of Datasets"
            )
        if len(task) == 2:
            task = [array for part in task for array in _of_dataset(part, of_task)]
        arrays = Arrays(*(_as_array(values, of_task) for values in task))
        _require_usable(arrays, of_task)
        first = tasks[0] if tasks else arrays
        for inputs in (arrays.train_inputs, arrays.test_inputs):
            one, other = first.train_inputs, inputs
            if one.shape[1:] != other.shape[1:] or (one.dtype == np.uint8) != (
                other.dtype == np.uint8
            ):
                raise InputError(
                    f"{of_task} has inputs {list(other.shape[1:])} {other.dtype}, and the first "
                    f"inputs are {list(one.shape[1:])} {one.dtype}: make them alike"
                )
        tasks.append(arrays)
    return tasks


def make_task(
    arrays: Arrays, number: int, title: str, options: TaskOptions, device: torch.device
) -> Task:
    """A task on the device, with labels in the order of the user's numbers.

    Raises:
        InputError: The labels, or a number among the inputs, cannot be used, or too few samples are
            left to train on.
    """
    of_task = f"task {number} of {title}"
    if options.is_regression:
        return _regression_task(arrays, number, of_task, options, device)
    grouped = group(Labels(arrays.train_labels), Labels(arrays.test_labels), of_task)
    train, test = (
        as_split(usable(inputs, of_task), labels.classes, device)
        for inputs, labels in (
            (arrays.train_inputs, grouped.train),
            (arrays.test_inputs, grouped.test),
        )
    )
    names = tuple(map(str, grouped.classes[0]))
    return held_out_task(f"task {number}", len(names), train, test, options, class_names=names)


def _regression_task(
    arrays: Arrays, number: int, of_task: str, options: TaskOptions, device: torch.device
) -> Task:
    """A task whose labels are targets, [N, K] float32."""
    train, test = (
        as_split(usable(inputs, of_task), _targets(labels, of_task), device)
        for inputs, labels in (
            (arrays.train_inputs, arrays.train_labels),
            (arrays.test_inputs, arrays.test_labels),
        )
    )
    numbers = train.labels.shape[1]
    if test.labels.shape[1] != numbers:
        raise InputError(
            f"{of_task} has {numbers} numbers in a training label and {test.labels.shape[1]} in a "
            "test label: make them alike"
        )
    return held_out_task(f"task {number}", numbers, train, test, options)


def _targets(labels: np.ndarray, of_task: str) -> np.ndarray:
    """[N, K] float32."""
    if labels.ndim not in (1, 2) or labels.dtype.kind not in "iuf" or 0 in labels.shape[1:]:
        raise InputError(
            f"{of_task} has labels of shape {list(labels.shape)} and type {labels.dtype}: for "
            "--task_type=regression, give numbers [N] or [N, K]"
        )
    targets = labels.astype(np.float32).reshape(len(labels), -1)
    if not np.isfinite(targets).all():
        raise InputError(f"{of_task} has labels that are not finite in float32: take these out")
    return targets


def _of_dataset(dataset: Any, of_task: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels of all items."""
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise InputError(
            f"{of_task} has {_described(dataset)}: let a pair be Datasets with a length, or a task "
            "four arrays"
        )
    inputs, labels = [], []
    for i in range(len(dataset)):
        item = dataset[i]
        if not isinstance(item, Sequence) or len(item) != 2:
            raise InputError(
                f"{of_task}: an item of a Dataset is {_described(item)}: let it be (input, label)"
            )
        inputs.append(_item(item[0]))
        labels.append(np.asarray(item[1]))
        if inputs[-1].shape != inputs[0].shape:
            raise InputError(
                f"{of_task}: item {i} of a Dataset has shape {list(inputs[-1].shape)}, and the "
                f"first {list(inputs[0].shape)}: make them alike"
            )
    if not inputs:
        raise InputError(f"{of_task} has a Dataset without items: add some")
    return np.stack(inputs), np.array(labels)


def _item(value: Any) -> np.ndarray:
    """An input, channels last."""
    if not isinstance(value, Tensor):
        return np.asarray(value)
    if value.ndim == 3 and not has_channels_first(value.shape[::-1]):  # not [H, W, C] yet
        value = value.permute(1, 2, 0)
    return value.detach().cpu().numpy()


def _as_array(values: Any, of_task: str) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    if isinstance(values, Dataset):
        raise InputError(
            f"{of_task} has a Dataset among four arrays: give a pair of Datasets, or four arrays"
        )
    return np.asarray(values)


def _require_usable(arrays: Arrays, of_task: str) -> None:
    for name, inputs, labels in (
        ("train_inputs", arrays.train_inputs, arrays.train_labels),
        ("test_inputs", arrays.test_inputs, arrays.test_labels),
    ):
        if problem := problem_of_images(name, Header(inputs.shape, inputs.dtype)):
            raise InputError(f"{of_task} cannot be used: {problem}")
        if labels.shape[:1] != (len(inputs),):
            raise InputError(
                f"{of_task} has {len(inputs)} {name} and labels of shape {list(labels.shape)}: "
                "give one label each"
            )


def _described(value: Any) -> str:
    """``a list of 3``, ``a str``."""
    kind = type(value).__name__
    article = "an" if kind[:1].lower() in "aeiou" else "a"
    length = f" of {len(value)}" if isinstance(value, list | tuple | dict) else ""
    return "None" if value is None else f"{article} {kind}{length}"
