"""Accuracies of the networks learned: with the task known, and with the task inferred. Of
regression, mean squared errors with the task known.

The three scenarios of van de Ven and Tolias (arXiv 1904.07734), as von Oswald et al. report them:

CL1, task-incremental: the task is known, and so the network that classifies.
CL2, domain-incremental: the task is inferred; the class within it must be right.
CL3, class-incremental: the task is inferred, and both task and class must be right.

A task is inferred by letting the networks of all tasks classify the sample, and taking the one with
the lowest entropy of its predictive distribution, or with the highest confidence in a class. Both
rules are as published, and of tasks with unequal numbers of classes favor the smaller ones: with k
classes, the entropy is at most log k and the confidence at least 1 / k.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hypercl.engine.members import Params, num_members
from hypercl.methods.base import Method
from hypercl.networks.main_net import MainNetwork
from hypercl.tasks.task import Split, Task

_POINTS = 121  # of a curve
_BEYOND = 0.2  # of the width of a task's inputs, on each side
_NUMBERS = 1 << 25  # generated at once, at most; 128 MiB in float32


class Learned(NamedTuple):
    """What is tested: the networks that some members have learned so far."""

    net: MainNetwork
    method: Method
    params: Params  # [members, …] each
    stats: Sequence[Params]  # running statistics by task, [members, …] each

    @property
    def num_members(self) -> int:
        """How many there are."""
        return num_members(self.params)

    def weights(self, task_ids: Tensor) -> Tensor:
        """Of the main networks for tasks [tasks] int64: [members, tasks, num_weights]."""
        return self.method.weights(self.params, task_ids.expand(self.num_members, -1))


@torch.no_grad()
def evaluate(
    learned: Learned, task: Task, task_id: int, split: Split, batch_size: int
) -> list[float]:
    """Share of a split's samples that the main networks for a task get right; of regression, their
    mean squared error over samples and outputs.

    Leaves no trace: no gradients, the network's mode restored.

    Args:
        batch_size: Samples at a time, at most; the batches are of nearly equal size.

    Returns:
        Accuracy of each member, in [0, 1], or its error.
    """

    def count_correct(weights: Tensor, inputs: Tensor, labels: Tensor, stats: Params) -> Tensor:
        logits = learned.net.logits(weights, inputs, stats)[:, task.outputs]
        return (logits.argmax(dim=1) == labels).sum()

    def squared_errors(weights: Tensor, inputs: Tensor, labels: Tensor, stats: Params) -> Tensor:
        outputs = learned.net.logits(weights, inputs, stats)[:, task.outputs]
        return (outputs - labels).double().square().sum()

    device = split.labels.device
    weights = learned.weights(torch.tensor([task_id], device=device)).squeeze(1)
    of_batch, kind, number = count_correct, torch.int64, len(split.labels)
    if task.is_regression:
        of_batch, kind, number = squared_errors, torch.float64, split.labels.numel()
    total = torch.zeros(learned.num_members, dtype=kind, device=device)
    with learned.net.evaluating():
        for images, labels in split.batches(batch_size):
            total += learned.net.each_member(of_batch, shared=(1, 2))(
                weights, task.inputs(images), labels, learned.stats[task_id]
            )
    return [value / number for value in total.tolist()]


def evaluate_tasks(
    learned: Learned,
    tasks: Sequence[Task],
    splits: Sequence[Split],
    batch_size: int,
    *,
    task_ids: Iterable[int] | None = None,
    between: Callable[[], None] = lambda: None,
) -> list[list[float]]:
    """:func:`evaluate` on tasks, each with its split.

    Args:
        task_ids: Which of the tasks; None: all.
        between: Called before each task; may raise to break off.

    Returns:
        For each member the accuracies on the tasks, in percent, or the errors.
    """
    columns = []  # [tasks][members]
    for task_id in range(len(tasks)) if task_ids is None else task_ids:
        between()
        task, split = tasks[task_id], splits[task_id]
        columns.append(evaluate(learned, task, task_id, split, batch_size))
    factor = tasks[0].measure.factor
    return [[factor * value for value in row] for row in zip(*columns, strict=True)]


def has_curve(task: Task) -> bool:
    """Whether a task is one of regression that can be drawn: one input, one output."""
    return task.is_regression and task.in_shape == (1,) and task.num_classes == 1


def curve_inputs(task: Task) -> Tensor:
    """Where a fit is drawn, [points, 1], on the device: over the samples and a bit beyond."""
    images = torch.cat([task.train.images, task.test.images])
    low, high = images.min().item(), images.max().item()
    beyond = _BEYOND * (high - low)
    return torch.linspace(low - beyond, high + beyond, _POINTS, device=images.device)[:, None]


@torch.no_grad()
def curves(learned: Learned, tasks: Sequence[Task]) -> list[list[list[float]]]:
    """What the main networks of tasks with :func:`has_curve` make of :func:`curve_inputs`.

    Returns:
        For each member, by task, the outputs.
    """

    def of_member(weights: Tensor, inputs: Tensor, stats: Params) -> Tensor:
        return learned.net.logits(weights, inputs, stats)

    by_task = []
    with learned.net.evaluating():
        for task_id, task in enumerate(tasks):
            points = curve_inputs(task)
            weights = learned.weights(torch.tensor([task_id], device=points.device)).squeeze(1)
            outputs = learned.net.each_member(of_member, shared=(1,))(
                weights, task.inputs(points), learned.stats[task_id]
            )
            by_task.append(outputs[..., task.outputs].squeeze(-1).tolist())
    return [list(of_member) for of_member in zip(*by_task, strict=True)]


class Inference(NamedTuple):
    """By how much each rule is right, of one member; percent, one entry a task."""

    cl1: list[float]
    cl2_entropy: list[float]
    cl2_confidence: list[float]
    cl3_entropy: list[float]
    cl3_confidence: list[float]
    task_inference_entropy: list[float]
    task_inference_confidence: list[float]
    task_confusion: list[list[float]]  # by entropy: row, the true task; column, the one inferred


SCENARIOS = tuple(name for name in Inference._fields if name != "task_confusion")


def as_json(inference: Inference) -> dict[str, Any]:
    """For each number its values by task and their mean; the confusion matrix as it is."""
    content: dict[str, Any] = {}
    for name, values in inference._asdict().items():
        if name in SCENARIOS:
            values = {"tasks": values, "mean": statistics.fmean(values)}
        content[name] = values
    return content


@torch.no_grad()
def infer_tasks(
    learned: Learned,
    tasks: Sequence[Task],
    splits: Sequence[Split],
    batch_size: int,
    *,
    between: Callable[[], None] = lambda: None,
) -> list[Inference]:
    """Classify the samples of all tasks with the networks of all tasks.

    Args:
        tasks: Those learned; ``splits``: of each, the samples to classify.
        batch_size: Samples at a time.
        between: Called before the samples of each task; may raise to break off.

    Returns:
        One entry a member.
    """
    members, num_tasks = learned.num_members, len(tasks)
    device = splits[0].labels.device
    counts = torch.zeros(7, members, num_tasks, dtype=torch.int64, device=device)
    confusion = torch.zeros(members, num_tasks, num_tasks, dtype=torch.int64, device=device)
    for true, (task, split) in enumerate(zip(tasks, splits, strict=True)):
        between()
        answers = answers_of_all(learned, tasks, task, split, batch_size)
        right = [answers.predicted[:, true] == split.labels]
        by_rule = (answers.tasks("entropy"), answers.tasks("confidence"))  # [members, N]
        classes = [answers.classes(task_ids) == split.labels for task_ids in by_rule]
        inferred = [task_ids == true for task_ids in by_rule]
        right += classes
        right += [a & b for a, b in zip(classes, inferred, strict=True)]
        right += inferred
        counts[:, :, true] = torch.stack([correct.sum(1) for correct in right])
        for other in range(num_tasks):
            confusion[:, true, other] = (by_rule[0] == other).sum(1)
    sizes = torch.tensor([len(split.labels) for split in splits], device=device)
    shares = (100 * counts.double() / sizes).transpose(0, 1).tolist()
    confused = (100 * confusion.double() / sizes[:, None]).tolist()
    return [
        Inference._make((*of_member, matrix))
        for of_member, matrix in zip(shares, confused, strict=True)
    ]


class Answers(NamedTuple):
    """What the networks of all tasks make of some samples, [members, tasks, N] each.

    The doubt is the logarithm of 1 - confidence, the probability of all other classes: many
    confidences are 1 in float32, and then the doubt still tells which is higher.
    """

    entropy: Tensor
    doubt: Tensor
    predicted: Tensor  # int64, the class within the task

    def tasks(self, rule: str) -> Tensor:
        """The tasks inferred, [members, N] int64.

        Args:
            rule: One of :data:`RULES`.
        """
        return (self.entropy if rule == "entropy" else self.doubt).argmin(1)

    def classes(self, task_ids: Tensor) -> Tensor:
        """The classes within tasks, [members, N] int64.

        Args:
            task_ids: The same of the tasks.
        """
        return self.predicted.gather(1, task_ids[:, None]).squeeze(1)


RULES = ("entropy", "confidence")


@torch.no_grad()
def answers_of_all(
    learned: Learned, tasks: Sequence[Task], task: Task, split: Split, batch_size: int
) -> Answers:
    """Let the networks of all tasks classify samples; leaves no trace, as :func:`evaluate`.

    Args:
        tasks: Those learned; ``task``: the one of the samples, which says how they become inputs.
        split: The samples.
        batch_size: At a time.
    """
    device = split.labels.device
    # tasks whose networks are generated, and classify, together
    most = min(learned.net.most_together(device), _NUMBERS // learned.net.num_weights)
    groups = _groups(tasks, int(max(1, most // learned.num_members)), device)
    with learned.net.evaluating():
        parts = [_predict(learned, tasks, group, task, split, batch_size) for group in groups]
    return Answers._make(torch.cat(values, dim=1) for values in zip(*parts, strict=True))


def _groups(tasks: Sequence[Task], most: int, device: torch.device) -> list[Tensor]:
    """The tasks' numbers in their order, cut where the number of classes changes, and into groups
    of at most so many.
    """
    groups: list[Tensor] = []
    for _, alike in groupby(range(len(tasks)), key=lambda task_id: tasks[task_id].num_classes):
        groups += torch.tensor(list(alike), device=device).split(most)
    return groups


def _predict(
    learned: Learned,
    tasks: Sequence[Task],
    group: Tensor,
    task: Task,
    split: Split,
    batch_size: int,
) -> Answers:
    """The answers of a group of tasks with equal numbers of classes, [members, group, N] each."""
    weights = learned.weights(group).flatten(0, 1)  # [members * group, num_weights]
    chosen = [learned.stats[i] for i in group.tolist()]
    stats = {  # [members * group, …]
        name: torch.stack([in_task[name] for in_task in chosen], dim=1).flatten(0, 1)
        for name in chosen[0]
    }
    columns = [tasks[i].outputs for i in group.tolist()]
    parts = []
    for images, _ in split.batches(batch_size):
        each = learned.net.each_member(learned.net.logits, shared=(1,))
        logits = each(weights, task.inputs(images), stats)
        logits = logits.view(learned.num_members, len(columns), len(images), -1)
        own = [logits[:, i, :, outputs] for i, outputs in enumerate(columns)]
        log_probabilities = torch.stack(own, dim=1).log_softmax(-1)
        probabilities = log_probabilities.exp()
        entropy = -(probabilities * log_probabilities).sum(-1)
        predicted = log_probabilities.argmax(-1)
        others = log_probabilities.scatter(-1, predicted[..., None], -torch.inf)
        parts.append((entropy, others.logsumexp(-1), predicted))
    return Answers._make(torch.cat(part, dim=-1) for part in zip(*parts, strict=True))
