"""SplitMNIST: digits [0, 1], [2, 3], …, each pair (or other number of classes) one task."""

from dataclasses import dataclass

from hypercl.tasks.sequences.base import Sequence, classes_missing


@dataclass(frozen=True)
class SplitMnist(Sequence):
    image_shape = (28, 28, 1)

    def problems(self, options):
        if problem := classes_missing(options.task, 10, "MNIST has 10"):
            yield problem

    def build(self, options, device):
        from hypercl.tasks.images import load_images
        from hypercl.tasks.split import chosen_groups, class_task

        images = load_images("mnist", options.data_dir)
        return [
            class_task(images, "digits", classes, options, device)
            for classes in chosen_groups(options, 10)
        ]


ENTRY = SplitMnist
