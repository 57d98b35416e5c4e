"""SplitMNIST: digits [0, 1], [2, 3], …, each pair (or other number of classes) one task."""

from dataclasses import dataclass
from typing import ClassVar

from hypercl.tasks.sequences.base import ClassSplit, Source


@dataclass(frozen=True)
class SplitMnist(ClassSplit):
    sources: ClassVar = (Source("mnist", "MNIST", 10),)
    image_shape = (28, 28, 1)

    def build(self, options, device):
        from hypercl.tasks.images import load_images
        from hypercl.tasks.split import class_task

        images = load_images("mnist", options.data_dir)
        return [
            class_task(images, "digits", classes, options, device)
            for _, classes in self.deal(options)
        ]


ENTRY = SplitMnist
