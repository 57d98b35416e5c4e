"""Experience replay: samples of the earlier tasks are kept in a buffer and learned again (Rolnick et
al., 2019, arXiv 1811.11682)::

    loss = task loss + replay_weight * task loss of a batch from the buffer

The buffer takes samples of a task when it has been learned: of each class the same number, or
those that reservoir sampling (Vitter, 1985) keeps of all samples there have been, one after the
other. A class is one of a task: the same digit in two tasks counts twice. Tasks of regression have no
classes, so that theirs is a reservoir.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from hypercl.errors import InputError
from hypercl.machine import FLOAT
from hypercl.methods.base import (
    Batch,
    Method,
    OwnWeights,
    OwnWeightsEntry,
    Setting,
    StepLosses,
    TaskEnd,
)
from hypercl.ranges import count, non_negative, one_of, option, or_unset

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor

    from hypercl.engine.members import Params
    from hypercl.networks.main_net import TaskLoss
    from hypercl.tasks.mixture import Mixture

_AT_ONCE = 1024  # samples whose logits are computed at a time


@dataclass(frozen=True)
class BufferEntry(OwnWeightsEntry):
    """What all methods with a buffer have."""

    # fmt: off
    replay_budget: int = option(2000, count, "samples in the buffer")
    replay_per_class: int | None = option(None, or_unset(count), "samples of each class of each task in the buffer, instead of --replay_budget; -1: not set")
    replay_sampling: str = option("balanced", one_of("balanced", "reservoir"), "what the buffer keeps: as many samples of each class, or those of reservoir sampling")
    replay_batch_size: int | None = option(None, or_unset(count), "samples from the buffer per step; -1: --batch_size")
    # fmt: on

    def problems(self, options):
        task, sizes = options.task, options.task.num_classes_per_task
        if task.is_regression:
            yield from self._problems_of_regression()
            return
        if task.num_tasks is None or sizes is None:
            return  # known when the tasks are there
        by_task = [sizes] * task.num_tasks if isinstance(sizes, int) else sizes[task.skip_tasks :]
        yield from self.problems_of_budget(sum(by_task))

    def _problems_of_regression(self) -> "Iterator[str]":
        remark = "samples of each class, and tasks of regression have none"
        if self.replay_per_class is not None:
            yield (
                f"--replay_per_class={self.replay_per_class} keeps {remark}: take --replay_budget "
                "and --replay_sampling=reservoir"
            )
        elif self.replay_sampling == "balanced":
            yield (
                f"--replay_sampling=balanced keeps as many {remark}: add "
                "--replay_sampling=reservoir"
            )

    def problems_of_budget(self, classes: int) -> "Iterator[str]":
        """Whether it is too small for so many classes of all tasks."""
        balanced = self.replay_per_class is None and self.replay_sampling == "balanced"
        if balanced and self.replay_budget < classes:
            yield (
                f"--replay_budget={self.replay_budget} leaves no sample for each of {classes} classes: "
                "give more, or take --replay_sampling=reservoir"
            )

    def unread(self, options):
        unread = dict(super().unread(options))
        if self.replay_per_class is not None:
            remark = "is chosen by --replay_per_class: leave one out"
            unread |= dict.fromkeys(("replay_budget", "replay_sampling"), remark)
        return unread


@dataclass(frozen=True)
class Replay(BufferEntry):
    # fmt: off
    replay_weight: float = option(1.0, non_negative, "weight of the loss on samples from the buffer", member=True)
    # fmt: on

    def build(self, setting: Setting) -> Method:
        return ExperienceReplay(self, setting, self.replay_weight)


class Buffer(NamedTuple):
    """The samples that are replayed while a task is learned."""

    memory: "Params"
    mixture: "Mixture"


class ExperienceReplay(OwnWeights):
    """A network that learns samples of the earlier tasks beside those of the current one.

    Args:
        strength: Of the loss on the buffer.
    """

    num_batches = 1  # from the buffer, per step
    keeps_logits = False

    def __init__(self, options: BufferEntry, setting: Setting, strength: float) -> None:
        super().__init__(setting, strength, options.mnet_init)
        for problem in options.problems_of_budget(sum(task.num_classes for task in setting.tasks)):
            raise InputError(problem)
        self.options = options
        self.batch_size = options.replay_batch_size or setting.train.batch_size

    def remember(self, params: "Params", memory: "Params", task_id: int) -> Any:
        """The memory, and how its samples are classified."""
        from hypercl.tasks.mixture import Mixture

        if not memory:
            return None
        num_outputs = self.setting.net.num_outputs
        return Buffer(memory, Mixture.of(self.setting.tasks, task_id + 1, num_outputs))

    def describe(self, anchor: Any) -> str:
        """How many samples are replayed."""
        if anchor is None:
            return "nothing to replay"
        return f"{anchor.memory['labels'].shape[1]:,} samples in the buffer"

    def draw(
        self, anchor: Any, task_id: int, num_steps: int, generator: "torch.Generator"
    ) -> "Tensor":
        """Slots of the buffer for each step; see :func:`draw_samples`."""
        import torch

        from hypercl.tasks.mixture import draw_samples

        if anchor is None:
            return super().draw(anchor, task_id, num_steps, generator)
        number, augmented = anchor.memory["labels"].shape[1], self.setting.tasks[0].augmented
        batches = [
            draw_samples(number, num_steps, self.batch_size, augmented, generator)
            for _ in range(self.num_batches)
        ]
        return torch.cat(batches, dim=1)

    def loss_with_anchor(
        self, weights: "Tensor", batch: Batch, anchor: Any, task_loss: "TaskLoss"
    ) -> "tuple[Tensor, StepLosses]":
        """Both losses, in one pass of the network over the samples of the task and of the buffer."""
        import torch

        from hypercl.engine.members import by_member, own_rows
        from hypercl.networks.criteria import of_labels
        from hypercl.tasks.mixture import augmented_images

        memory, mixture = anchor
        drawn = {name: own_rows(values, batch.drawn[..., 0]) for name, values in memory.items()}
        images = augmented_images(drawn["images"], batch.drawn)
        inputs = torch.cat([batch.inputs, mixture.inputs(images, drawn["task_ids"])], dim=1)
        own = batch.outputs if mixture.allowed is not None else slice(None)
        size = batch.labels.shape[1]
        strength = task_loss.weight * self.strength

        def criterion(logits: "Tensor") -> "tuple[tuple, Tensor]":
            gradient = torch.zeros_like(logits)
            classified, of_own = of_labels(batch.labels)(logits[:, :size, own])
            gradient[:, :size, own] = task_loss.weight * of_own
            penalty, of_buffer = self.replay_loss(logits[:, size:], drawn, mixture)
            gradient[:, size:] = by_member(strength, of_buffer) * of_buffer
            return (*classified, penalty), gradient

        (loss, accuracy, penalty), gradient = task_loss.of_logits(
            weights, inputs, batch.stats, criterion, mixture.outputs
        )
        total = task_loss.weight * loss + strength * penalty
        return gradient, StepLosses(loss, penalty, total, accuracy)

    def replay_loss(
        self, logits: "Tensor", drawn: "Params", mixture: "Mixture"
    ) -> "tuple[Tensor, Tensor]":
        """The loss [members] on samples of the buffer, and its gradient.

        Args:
            logits: [members, samples, outputs], of ``mixture.outputs``.
            drawn: The samples: ``labels`` and ``task_ids`` [members, samples], ``logits`` where
                they are kept [members, samples, all outputs].
        """
        from hypercl.networks.criteria import of_labels

        allowed = mixture.allowed_to(drawn["task_ids"])
        (loss, _), gradient = of_labels(mixture.labels(drawn["labels"]), allowed)(logits)
        return loss, gradient

    def after_task(self, params: "Params", memory: "Params", end: TaskEnd) -> "Params":
        """[members, samples, …] each: ``images`` as they are, ``labels`` of the main network's
        outputs, ``task_ids`` int64, and ``logits`` where they are kept.
        """
        import torch

        from hypercl.engine.members import own_rows, rows_of
        from hypercl.engine.seeding import generator
        from hypercl.tasks.mixture import network_labels

        generators = [generator(seed, "replay buffer", end.task_id) for seed in end.seeds]
        device = end.task.train.labels.device
        source = torch.stack([self._sources(end.task_id, g) for g in generators]).to(device)
        old_size = memory["labels"].shape[1] if memory else 0
        is_new = source >= old_size
        new = (source - old_size).clamp(min=0)
        images, labels = end.task.train
        buffer: Params = {
            "images": rows_of(images, new),
            "labels": network_labels(end.task, labels, self.setting.net.num_outputs)[new],
            "task_ids": torch.full_like(new, end.task_id),
        }
        if self.keeps_logits:
            buffer["logits"] = self._logits(params["weights"], buffer["images"], end)
        if memory:
            old = source.clamp(max=old_size - 1)
            buffer = {
                name: torch.where(_like(is_new, values), values, own_rows(memory[name], old))
                for name, values in buffer.items()
            }
        return buffer

    def _sources(self, task_id: int, generator: "torch.Generator") -> "Tensor":
        """Where a seed's buffer is filled from after a task, [samples] int64 on the CPU: a slot of
        the buffer as it is, or behind these the number of one of the task's training samples.
        """
        reservoir = self.options.replay_sampling == "reservoir"
        if reservoir and self.options.replay_per_class is None:
            sizes = [len(task.train.labels) for task in self.setting.tasks[: task_id + 1]]
            return reservoir_sources(
                sum(sizes[:-1]), sizes[-1], self.options.replay_budget, generator
            )
        return self._balanced_sources(task_id, generator)

    def _balanced_sources(self, task_id: int, generator: "torch.Generator") -> "Tensor":
        import torch

        before, after = self._class_sizes(task_id), self._class_sizes(task_id + 1)
        starts = [sum(before[:i]) for i in range(len(before))]
        kept = [start + torch.arange(n) for start, n in zip(starts, after, strict=False)]
        labels = self.setting.tasks[task_id].train.labels.cpu()
        fresh = []
        for label, n in zip(labels.unique(), after[len(before) :], strict=True):
            members = (labels == label).nonzero().flatten()
            fresh.append(members[torch.randperm(len(members), generator=generator)[:n]])
        return torch.cat([*kept, sum(before) + torch.cat(fresh)])

    def _class_sizes(self, num_learned: int) -> list[int]:
        """How many samples of each class of the first tasks there are in a balanced buffer."""
        tasks = self.setting.tasks[:num_learned]
        there = [
            n for task in tasks for n in task.train.labels.unique(return_counts=True)[1].tolist()
        ]
        most = self.options.replay_per_class
        if most is None:
            most = self.options.replay_budget // max(1, len(there))
        return [min(n, most) for n in there]

    def numbers_per_member(self) -> int:
        """With the buffer, and three of its size while it is renewed."""
        tasks, (images, labels) = self.setting.tasks, self.setting.tasks[0].train
        number = sum(len(task.train.labels) for task in tasks)
        if self.options.replay_per_class is not None:
            classes = sum(task.num_classes for task in tasks)
            number = min(number, self.options.replay_per_class * classes)
        else:
            number = min(number, self.options.replay_budget)
        of_sample = -(-(images[0].nbytes + labels[0].nbytes) // FLOAT) + 2  # and its task
        of_sample += self.setting.net.num_outputs if self.keeps_logits else 0
        return super().numbers_per_member() + 4 * number * of_sample

    def _logits(self, weights: "Tensor", images: "Tensor", end: TaskEnd) -> "Tensor":
        """Of images [members, N, H, W, C] of a task: [members, N, outputs]."""
        import torch

        parts = []
        for chosen in images.split(_AT_ONCE, dim=1):
            inputs = end.task.inputs(chosen.flatten(0, 1)).view(*chosen.shape[:2], -1)
            parts.append(end.task_loss.logits(weights, inputs, end.stats))
        return torch.cat(parts, dim=1)


def reservoir_sources(
    num_seen: int, num_new: int, capacity: int, generator: "torch.Generator"
) -> "Tensor":
    """Algorithm R of Vitter (1985) over ``num_new`` samples, in an order that is drawn, after
    ``num_seen`` others: each of all has the same chance to be in the reservoir.

    Returns:
        By slot, [slots] int64: the slot itself where it stays, and from the number of slots there
        were on, the number of a new sample.
    """
    import torch

    slots = min(num_seen, capacity)
    order = torch.randperm(num_new, generator=generator)
    drawn = torch.rand(num_new, generator=generator, dtype=torch.float64)
    place = torch.arange(num_seen, num_seen + num_new)
    place = torch.where(place < capacity, place, (drawn * (place + 1)).long())
    kept = place < capacity
    source = torch.arange(min(num_seen + num_new, capacity)).numpy()
    source[place[kept].numpy()] = (slots + order[kept]).numpy()  # of several, the last one stays
    return torch.from_numpy(source)


def _like(mask: "Tensor", values: "Tensor") -> "Tensor":
    """A mask [members, samples] with as many dimensions as the values."""
    return mask.view(*mask.shape, *[1] * (values.ndim - 2))


ENTRY = Replay
