"""What a user would write: tasks, networks, a method. :mod:`benchmarks.survive` lays a copy beside
its runs.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from hypercl.methods.base import OwnWeights

SIZE = 8  # pixels a side


def samples(seed, number, classes):
    """Noise with a bright row for each class: [N, 8, 8] uint8, and labels [N]."""
    labels = np.arange(number) % classes
    pixels = np.random.default_rng(seed).integers(0, 200, (number, SIZE, SIZE), dtype=np.uint8)
    pixels[np.arange(number), labels % SIZE] += 40
    return pixels, labels


def tasks(num_tasks=3, angle=90):
    """Tasks that differ in how the images are turned.

    angle: degrees from one task to the next, a multiple of 90
    """
    made = []
    for task in range(num_tasks):
        train, test = (samples(2 * task + i, number, 3) for i, number in ((0, 240), (1, 90)))
        turned = [(np.rot90(x, task * angle // 90, axes=(1, 2)), y) for x, y in (train, test)]
        made.append((*turned[0], *turned[1]))
    return made


def archive():
    """What an .npz of six classes holds."""
    parts = {"train": samples(0, 480, 6), "test": samples(1, 120, 6)}
    return {
        f"{part}_{name}": array
        for part, arrays in parts.items()
        for name, array in zip(("images", "labels"), arrays, strict=True)
    }


class Net(nn.Module):
    """A small convolutional network with running statistics and random numbers.

    width: feature maps
    dropout: rate before the last layer
    """

    def __init__(self, in_shape, num_classes, width=4, dropout=0.3):
        super().__init__()
        self.first = nn.Conv2d(in_shape[0], width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(dropout)
        self.out = nn.Linear(width * (in_shape[1] // 2) * (in_shape[2] // 2), num_classes)

    def forward(self, x):
        x = F.max_pool2d(self.norm(self.first(x)).relu(), 2)
        return self.out(self.drop(x.flatten(1)))


class Mlp(nn.Sequential):
    """The default of --net_type=mlp."""

    def __init__(self, in_shape, num_classes):
        size = int(np.prod(in_shape))
        hidden = [nn.Linear(size, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU()]
        super().__init__(nn.Flatten(), *hidden, nn.Linear(100, num_classes))


class Lenet(nn.Sequential):
    """The default of --net_type=lenet, for images of 28x28 pixels."""

    def __init__(self, in_shape, num_classes):
        first = [nn.Conv2d(in_shape[0], 10, 5), nn.MaxPool2d(2), nn.ReLU()]
        second = [nn.Conv2d(10, 20, 5), nn.MaxPool2d(2), nn.ReLU()]
        last = [nn.Flatten(), nn.Linear(320, 50), nn.ReLU(), nn.Linear(50, num_classes)]
        super().__init__(*first, *second, *last)


class NearTheMean(OwnWeights):
    """Fine-tuning near the mean of the weights after all earlier tasks, which is kept.

    pull: strength of the penalty
    """

    def __init__(self, setting, pull=0.1):
        super().__init__(setting, strength=pull)

    def remember(self, params, memory, task_id):
        return memory["sum"] / task_id if task_id > 0 else None

    def penalty_and_gradient(self, weights, anchor):
        moved = weights - anchor
        return moved.square().sum(1) / 2, moved

    def after_task(self, params, memory, end):
        return {"sum": memory.get("sum", torch.zeros_like(params["weights"])) + params["weights"]}
