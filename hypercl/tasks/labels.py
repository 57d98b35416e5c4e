"""The labels and tasks of a user's samples: any integers there, positions here."""

from typing import NamedTuple

import numpy as np

from hypercl.errors import InputError


class Labels(NamedTuple):
    """What samples are labelled with, as the user has it."""

    classes: np.ndarray  # [N] integers
    tasks: np.ndarray | None = None  # [N] integers; None: all are of one


class Grouped(NamedTuple):
    """The same as positions: of a task among all, of a class among those of its task."""

    tasks: list[int]  # the user's numbers, in their order
    classes: list[list[int]]  # of each task, the user's numbers, in their order
    train: Labels  # [N] int64 each
    test: Labels


def group(train: Labels, test: Labels, title: str) -> Grouped:
    """Number the tasks in the order of their numbers, and the classes of each task.

    Args:
        title: Of the data, for messages.

    Raises:
        InputError: They are no integers; a class of a task, or a task, has training samples alone
            or test samples alone.
    """
    for values in (*train, *test):
        require_integers(values, title)
    number = len(train.classes)
    classes, codes = _numbered(train.classes, test.classes)
    if train.tasks is None or test.tasks is None:
        tasks, task_ids = np.zeros(1, np.int64), np.zeros_like(codes)
        of_task = ""
    else:
        tasks, task_ids = _numbered(train.tasks, test.tasks)
        of_task = " of task {}"
    pairs = task_ids * len(classes) + codes
    learned = np.unique(pairs[:number])
    for others, there, missing in (
        (np.setdiff1d(pairs[number:], learned), "test", "training"),
        (np.setdiff1d(learned, pairs[number:]), "training", "test"),
    ):
        if len(others):
            task, code = divmod(others[0], len(classes))
            which = f"class {classes[code]}{of_task.format(tasks[task])}"
            raise InputError(
                f"{title} has {there} samples of {which}, and no {missing} samples: add some, or "
                "take the class away"
            )
    task_of_pair = learned // len(classes)
    starts = np.searchsorted(task_of_pair, np.arange(len(tasks)))
    labels = np.searchsorted(learned, pairs) - starts[task_ids]
    by_task = np.split(classes[learned % len(classes)], starts[1:])
    return Grouped(
        tasks.tolist(),
        [of.tolist() for of in by_task],
        Labels(labels[:number], task_ids[:number]),
        Labels(labels[number:], task_ids[number:]),
    )


def require_integers(values: np.ndarray | None, title: str) -> None:
    """Refuse labels that are something else."""
    if values is not None and (values.ndim != 1 or values.dtype.kind not in "iu"):
        raise InputError(
            f"{title} has labels or tasks of shape {list(values.shape)} and type {values.dtype}: "
            "give one whole number a sample"
        )


def _numbered(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All values once, in order, and the position of each."""
    together = np.concatenate([train.astype(np.int64), test.astype(np.int64)])
    values, positions = np.unique(together, return_inverse=True)
    return values, positions.astype(np.int64)
