"""Joint training: each task is learned together with all before it, from all their samples.

What a method could reach if no samples had to be left behind. The network goes on from where it is,
so that after T tasks it has taken as many steps as with any other method (van de Ven and Tolias,
arXiv 1904.07734, call it offline).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from hypercl.methods.base import (
    Batch,
    Method,
    OwnWeights,
    OwnWeightsEntry,
    Setting,
    StepLosses,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from hypercl.engine.members import Params
    from hypercl.networks.main_net import TaskLoss
    from hypercl.tasks.mixture import Mixture, Samples


@dataclass(frozen=True)
class Joint(OwnWeightsEntry):
    def build(self, setting: Setting) -> Method:
        return JointTraining(setting, mnet_init=self.mnet_init)


class AllSamples(NamedTuple):
    """Of the current task and those before it."""

    samples: "Samples"
    mixture: "Mixture"


class JointTraining(OwnWeights):
    """A network that learns from the samples of all tasks so far at once."""

    def remember(self, params: "Params", memory: "Params", task_id: int) -> Any:
        """All samples; nothing in the first task, whose samples every step has anyway."""
        from hypercl.tasks.mixture import Mixture, training_samples

        if task_id == 0:
            return None
        tasks, num_learned = self.setting.tasks, task_id + 1
        num_outputs = self.setting.net.num_outputs
        return AllSamples(
            training_samples(tasks, num_learned, num_outputs),
            Mixture.of(tasks, num_learned, num_outputs),
        )

    def describe(self, anchor: Any) -> str:
        """How many samples there are."""
        if anchor is None:
            return "the first task alone"
        return f"{len(anchor.samples.labels):,} samples of all tasks so far"

    def draw(
        self, anchor: Any, task_id: int, num_steps: int, generator: "torch.Generator"
    ) -> "Tensor":
        """The samples of each step; see :func:`draw_samples`."""
        from hypercl.tasks.mixture import draw_samples

        if anchor is None:
            return super().draw(anchor, task_id, num_steps, generator)
        augmented, size = self.setting.tasks[task_id].augmented, self.setting.train.batch_size
        return draw_samples(len(anchor.samples.labels), num_steps, size, augmented, generator)

    def loss_with_anchor(
        self, weights: "Tensor", batch: Batch, anchor: Any, task_loss: "TaskLoss"
    ) -> "tuple[Tensor, StepLosses]":
        """The task loss of a batch of all samples."""
        from hypercl.engine.members import rows_of
        from hypercl.networks.criteria import of_labels
        from hypercl.tasks.mixture import augmented_images

        samples, mixture = anchor
        chosen = batch.drawn[..., 0]  # [members, B]
        images, task_ids = (
            rows_of(samples.images, samples.image_ids[chosen]),
            samples.task_ids[chosen],
        )
        inputs = mixture.inputs(augmented_images(images, batch.drawn), task_ids)
        labels = mixture.labels(samples.labels[chosen])
        criterion = of_labels(labels, mixture.allowed_to(task_ids))
        (loss, accuracy), gradient = task_loss.of_logits(
            weights, inputs, batch.stats, criterion, mixture.outputs
        )
        total = task_loss.weight * loss
        losses = StepLosses(loss, loss.new_zeros(loss.shape), total, accuracy)
        return task_loss.weight * gradient, losses

    def kept_bytes(self, params: "Params", memory: "Params", num_learned: int) -> int:
        """All samples of the tasks learned; images that tasks share once."""
        from hypercl.tasks.task import distinct

        tasks = self.setting.tasks[:num_learned]
        labels = sum(task.train.labels.nbytes for task in tasks)
        return labels + sum(images.nbytes for images in distinct(t.train.images for t in tasks))


ENTRY = Joint
