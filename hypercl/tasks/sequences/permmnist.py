"""PermutedMNIST: all ten digits, padded images, the pixels of each task in another fixed order.

Task 0 keeps the order; the permutations do not depend on the run's seed.
"""

import math
from dataclasses import dataclass, replace

from hypercl.machine import INDEX
from hypercl.ranges import as_argument, natural, option
from hypercl.registry import Part
from hypercl.tasks.sequences.base import Sequence

PERMUTATION_SEED = 42  # of the script this project replaces, so that runs compare


@dataclass(frozen=True)
class PermutedMnist(Sequence):
    padding: int = option(2, natural, "permmnist: black pixels added on each side")

    @property
    def image_shape(self):
        return (28 + 2 * self.padding, 28 + 2 * self.padding, 1)

    def problems(self, options):
        if options.task.num_classes_per_task != 10:
            yield (
                "--cl_exp=permmnist has 10 classes in every task, not "
                f"{as_argument(options.task.num_classes_per_task)}: give --num_classes_per_task=10"
            )

    def takes(self, options):
        pixels = math.prod(self.image_shape)
        yield Part(70_000 * pixels, "the images", ("padding",))
        yield Part(
            INDEX * options.task.num_tasks * pixels, "permutations", ("num_tasks", "padding")
        )

    def build(self, options, device):
        import numpy as np
        import torch

        from hypercl.tasks.images import load_images
        from hypercl.tasks.split import class_task, padded

        images = load_images("mnist", options.data_dir)
        base = class_task(images, "digits", range(10), options, device)
        train, validation, test = (
            padded(part, self.padding) for part in (base.train, base.validation, base.test)
        )
        num_pixels = math.prod(self.image_shape)
        random_state = np.random.RandomState(PERMUTATION_SEED)
        permutations = [None] + [
            torch.from_numpy(random_state.permutation(num_pixels)).to(device)
            for _ in range(options.skip_tasks + options.num_tasks - 1)
        ]
        return [
            replace(
                base,
                name=f"permutation {i}",
                train=train,
                validation=validation,
                test=test,
                permutation=permutation,
            )
            for i, permutation in enumerate(permutations)
            if i >= options.skip_tasks
        ]


ENTRY = PermutedMnist
