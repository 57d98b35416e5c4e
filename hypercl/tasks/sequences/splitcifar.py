"""SplitCIFAR-10/100: the classes of CIFAR-10 first, then those of CIFAR-100, split.

With 10 classes per task, CIFAR-10 is one task and ten tasks of CIFAR-100 can follow. A data set that
the tasks do not reach is not touched.
"""

from dataclasses import dataclass
from typing import ClassVar

from hypercl.ranges import option, switch
from hypercl.tasks.sequences.base import ClassSplit, Source

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class SplitCifar(ClassSplit):
    sources: ClassVar = (Source("cifar10", "CIFAR-10", 10), Source("cifar100", "CIFAR-100", 100))
    image_shape = (32, 32, 3)
    no_augmentation: bool = option(
        False, switch, "splitcifar: train on the images as they are, without flips and crops"
    )

    def problems(self, options):
        size = options.task.num_classes_per_task
        if isinstance(size, int) and size not in (1, 2, 5, 10):
            yield (
                "--cl_exp=splitcifar splits into 1, 2, 5 or 10 classes per task, not "
                f"{size}: change --num_classes_per_task, or give a list with a number for each task"
            )
        else:
            yield from super().problems(options)

    def build(self, options, device):
        import torch

        from hypercl.tasks.images import load_images
        from hypercl.tasks.split import class_task

        dealt = [(source.name, classes) for source, classes in self.deal(options)]
        images = {name: load_images(name, options.data_dir) for name, _ in dealt}
        mean, std = torch.tensor(MEAN, device=device), torch.tensor(STD, device=device)
        return [
            class_task(
                images[name],
                f"{name} classes",
                classes,
                options,
                device,
                mean=mean,
                std=std,
                augmented=not self.no_augmentation,
            )
            for name, classes in dealt
        ]


ENTRY = SplitCifar
