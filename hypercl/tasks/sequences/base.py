"""What a sequence of tasks has to say of itself."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hypercl.registry import Entry

if TYPE_CHECKING:
    import torch

    from hypercl.options import TaskOptions
    from hypercl.tasks.task import Task


@dataclass(frozen=True)
class Sequence(Entry):
    """A way to make tasks; its fields are the options that concern it alone."""

    chosen_by: ClassVar[str] = "cl_exp"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images, known before they are loaded."""
        raise NotImplementedError

    def build(self, options: "TaskOptions", device: "torch.device") -> "list[Task]":
        """Make the tasks, on the device.

        Raises:
            InputError: The data cannot be had, or a task would have nothing to train or test on.
        """
        raise NotImplementedError


def classes_missing(task: "TaskOptions", available: int, owner: str) -> str | None:
    """What is wrong with a sequence that takes more classes than there are; None if nothing is.

    Args:
        owner: ``"MNIST has 10"``.
    """
    classes = (task.skip_tasks + task.num_tasks) * task.num_classes_per_task
    if classes <= available:
        return None
    skipped = f" after --skip_tasks={task.skip_tasks}" if task.skip_tasks else ""
    return (
        f"--num_tasks={task.num_tasks}{skipped} with --num_classes_per_task="
        f"{task.num_classes_per_task} takes {classes} classes, and {owner}: lower one of them"
    )
