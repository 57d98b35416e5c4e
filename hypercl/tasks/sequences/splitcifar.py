"""SplitCIFAR-10/100: the classes of CIFAR-10 first, then those of CIFAR-100, split in order.

With 10 classes per task, CIFAR-10 is one task and ten tasks of CIFAR-100 can follow. A data set that
the tasks do not reach is not touched.
"""

from dataclasses import dataclass

from hypercl.ranges import option, switch
from hypercl.tasks.sequences.base import Sequence, classes_missing

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class SplitCifar(Sequence):
    image_shape = (32, 32, 3)
    no_augmentation: bool = option(
        False, switch, "splitcifar: train on the images as they are, without flips and crops"
    )

    def problems(self, options):
        if options.task.num_classes_per_task not in (1, 2, 5, 10):
            yield (
                "--cl_exp=splitcifar splits into 1, 2, 5 or 10 classes per task, not "
                f"{options.task.num_classes_per_task}: change --num_classes_per_task"
            )
        elif problem := classes_missing(options.task, 110, "CIFAR-10 and CIFAR-100 have 110"):
            yield problem

    def build(self, options, device):
        import torch

        from hypercl.tasks.images import load_images
        from hypercl.tasks.split import class_task, groups_of

        chosen = [
            (name, classes)
            for name, number in (("cifar10", 10), ("cifar100", 100))
            for classes in groups_of(options.num_classes_per_task, number)
        ][options.skip_tasks : options.skip_tasks + options.num_tasks]
        images = {name: load_images(name, options.data_dir) for name, _ in chosen}
        preprocessing = {
            "mean": torch.tensor(MEAN, device=device),
            "std": torch.tensor(STD, device=device),
            "augmented": not self.no_augmentation,
        }
        return [
            class_task(images[name], f"{name} classes", classes, options, device, **preprocessing)
            for name, classes in chosen
        ]


ENTRY = SplitCifar
