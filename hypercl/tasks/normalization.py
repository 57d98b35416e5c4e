"""--normalize: what is taken off inputs, and what they are divided by, the same for all tasks.

Statistics are those of the first task that is learned. Those of all tasks would show a learner what
comes later, and those of each task would tell it, in a test, which task a sample is of.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hypercl.errors import InputError
from hypercl.tasks.sequences.splitcifar import MEAN, STD
from hypercl.tasks.task import Task, as_floats

_AT_ONCE = 4096  # samples


def normalized(tasks: Sequence[Task], choice: str | tuple[float, ...]) -> list[Task]:
    """The tasks with other normalization than they have.

    Args:
        choice: As :func:`hypercl.ranges.normalization` reads it.

    Raises:
        InputError: It has another number of means than there are channels, or features.
    """
    if choice == "none":
        return [replace(task, mean=None, std=None) for task in tasks]
    if choice == "dataset":
        mean, std = statistics(tasks[0].train.images)
    else:
        mean, std = _given(choice, tasks[0])
    return [replace(task, mean=mean, std=std) for task in tasks]


def statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, [C], or of each feature, [D].

    Computed in float64. What does not vary at all is divided by 1.

    Args:
        images: [N, H, W, C] or [N, D].
    """
    channels = images.shape[-1]
    number = images.numel() // channels

    def mean_of(function: Callable[[Tensor], Tensor]) -> Tensor:
        parts = (as_floats(p).double().reshape(-1, channels) for p in images.split(_AT_ONCE))
        return torch.stack([function(part).sum(0) for part in parts]).sum(0) / number

    mean = mean_of(lambda pixels: pixels)
    std = mean_of(lambda pixels: (pixels - mean).square()).sqrt().float()
    return mean.float(), torch.where(std > 0, std, torch.ones_like(std))


def _given(choice: str | tuple[float, ...], task: Task) -> tuple[Tensor, Tensor]:
    """Means and standard deviations that do not depend on the data, [C] or [D]."""
    channels, what = task.in_shape[-1], "channels" if len(task.in_shape) > 1 else "features"
    if choice == "imagenet":
        if channels != len(MEAN) or what == "features":
            raise InputError(
                f"--normalize=imagenet is for images of {len(MEAN)} channels, and these inputs "
                f"have {channels} {what}: take --normalize=dataset"
            )
        numbers: tuple[float, ...] = (*MEAN, *STD)
    else:
        assert isinstance(choice, tuple)
        numbers = choice
    half = len(numbers) // 2
    if half not in (1, channels):
        raise InputError(
            f"--normalize has {half} means, and these inputs have {channels} {what}: give 1 or "
            f"{channels}, and as many standard deviations"
        )
    device = task.train.images.device
    mean, std = (torch.tensor(part, device=device) for part in (numbers[:half], numbers[half:]))
    return mean.expand(channels).clone(), std.expand(channels).clone()
