"""Accuracies of the networks learned: with the task known, and with the task inferred. Of
regression, mean squared errors with the task known.

The three scenarios of van de Ven and Tolias (arXiv 1904.07734), as von Oswald et al. report them:

CL1, task-incremental: the task is known, and so the network that classifies.
CL2, domain-incremental: the task is inferred; the class within it must be right.
CL3, class-incremental: the task is inferred, and both task and class must be right.

A task is inferred by letting the networks of all tasks classify the sample, or by a network of the
method's that tells tasks apart; inference.py has the rules. The published rules favor, of tasks
with unequal numbers of classes, the smaller ones: with k classes, the entropy is at most log k and
the confidence at least 1 / k.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hypercl.engine.members import Params, num_members, select_members
from hypercl.inference import QUANTITIES, Outputs, Rule, confusion_of, margin, rules_with
from hypercl.methods.base import Generates, InfersTasks, Method
from hypercl.networks.main_net import MainNetwork
from hypercl.tasks.task import Split, Task

_POINTS = 121  # of a curve
_BEYOND = 0.2  # of the width of a task's inputs, on each side
_NUMBERS = 1 << 25  # generated at once, at most; 128 MiB in float32
_SAMPLES = 2000  # of a task's training set, at most, of which the median margin is
_GENERATED = 12  # images of each task that are drawn

_NO_SCALES: Params = {}


class Learned(NamedTuple):
    """What is tested: the networks that some members have learned so far."""

    net: MainNetwork
    method: Method
    params: Params  # [members, …] each
    stats: Sequence[Params]  # running statistics by task, [members, …] each
    scales: Params = _NO_SCALES  # what rules keep of each task, [members, tasks] each

    @property
    def num_members(self) -> int:
        """How many there are."""
        return num_members(self.params)

    def weights(self, task_ids: Tensor) -> Tensor:
        """Of the main networks for tasks [tasks] int64: [members, tasks, num_weights]."""
        return self.method.weights(self.params, task_ids.expand(self.num_members, -1))

    @property
    def rules(self) -> dict[str, Rule]:
        """By which the tasks of samples can be inferred, by name."""
        rules, method, params = rules_with(self.scales), self.method, self.params
        if isinstance(method, InfersTasks):
            task_scores = method.task_scores
            rules[method.inference_rule] = lambda outputs: task_scores(params, outputs.inputs)[
                :, outputs.task_ids
            ]
        return rules


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


@torch.no_grad()
def generated_images(learned: Learned, tasks: Sequence[Task], member: int) -> Tensor | None:
    """What a member's generator makes for tasks of images, where the method has one.

    Args:
        tasks: Those learned.

    Returns:
        [tasks, N, H, W, C] uint8 on the CPU, as the data set has images; [1, N, H, W, C] of a
        generator that is not told the task.
    """
    if not isinstance(learned.method, Generates) or len(tasks[0].in_shape) != 3:
        return None
    params = select_members(learned.params, [member])
    inputs = learned.method.generate(params, len(tasks), _GENERATED)[0]  # [tasks, N, H * W * C]
    images = inputs.clone()
    for of_task, made, task in zip(images, inputs, tasks, strict=False):
        if task.permutation is not None:
            of_task[:, task.permutation] = made
    images = (255 * images).round().to(torch.uint8).cpu()
    return images.view(*images.shape[:2], *tasks[0].in_shape)


@torch.no_grad()
def median_margins(learned: Learned, task: Task, task_id: int, batch_size: int) -> Tensor:
    """The scale of a task's networks: the median, over samples of the task's training set, of the
    margin between the two largest logits. Of an even number of samples, the lower one in the
    middle.

    2000 samples at most, from the whole set at equal distances, as it may be in the order of the
    classes.

    Args:
        task: Of classification, with two classes or more.
        batch_size: Samples at a time.

    Returns:
        [members], on the device.
    """
    number, device = len(task.train.labels), task.train.labels.device
    taken = min(number, _SAMPLES)
    chosen = torch.arange(taken, device=device) * number // taken
    split = Split(*(values[chosen] for values in task.train))

    def of_member(weights: Tensor, inputs: Tensor, stats: Params) -> Tensor:
        return margin(learned.net.logits(weights, inputs, stats)[:, task.outputs])

    weights = learned.weights(torch.tensor([task_id], device=device)).squeeze(1)
    each = learned.net.each_member(of_member, shared=(1,))
    with learned.net.evaluating():
        parts = [
            each(weights, task.inputs(images), learned.stats[task_id])
            for images, _ in split.batches(batch_size)
        ]
    return torch.cat(parts, dim=1).sort().values[:, (taken - 1) // 2]


class ByRule(NamedTuple):
    """How often a rule is right, of one member; percent, one entry a task."""

    cl2: list[float]
    cl3: list[float]
    task_inference: list[float]
    confusion: list[list[float]]  # row, the true task; column, the one inferred


class Inference(NamedTuple):
    """What is right with the task known, and with each rule that infers it, of one member."""

    cl1: list[float]  # percent, one entry a task
    by_rule: Mapping[str, ByRule]


def as_json(inference: Inference) -> dict[str, Any]:
    """For each number its values by task and their mean; the confusion matrices as they are."""
    by_rule = inference.by_rule
    numbers = {"cl1": inference.cl1}
    for quantity in QUANTITIES:
        numbers |= {f"{quantity}_{rule}": getattr(own, quantity) for rule, own in by_rule.items()}
    return {
        **{n: {"tasks": values, "mean": statistics.fmean(values)} for n, values in numbers.items()},
        **{confusion_of(rule): own.confusion for rule, own in by_rule.items()},
    }


@torch.no_grad()
def infer_tasks(
    learned: Learned,
    tasks: Sequence[Task],
    splits: Sequence[Split],
    batch_size: int,
    *,
    rules: Mapping[str, Rule] | None = None,
    between: Callable[[], None] = lambda: None,
) -> list[Inference]:
    """Classify the samples of all tasks with the networks of all tasks.

    Args:
        tasks: Those learned; ``splits``: of each, the samples to classify.
        batch_size: Samples at a time.
        rules: By which tasks are inferred; None: all that can be followed.
        between: Called before the samples of each task; may raise to break off.

    Returns:
        One entry a member.
    """
    rules = learned.rules if rules is None else rules
    members, num_tasks = learned.num_members, len(tasks)
    device = splits[0].labels.device
    known = torch.zeros(members, num_tasks, dtype=torch.int64, device=device)
    size = len(rules), members, num_tasks
    right = torch.zeros(*size, len(QUANTITIES), dtype=torch.int64, device=device)
    confused = torch.zeros(*size, num_tasks, dtype=torch.int64, device=device)
    for true, (task, split) in enumerate(zip(tasks, splits, strict=True)):
        between()
        answers = answers_of_all(learned, tasks, task, split, batch_size, rules)
        known[:, true] = (answers.predicted[:, true] == split.labels).sum(1)
        for number, rule in enumerate(rules):
            task_ids = answers.tasks(rule)  # [members, N]
            of_class, of_task = answers.classes(task_ids) == split.labels, task_ids == true
            correct = (of_class, of_class & of_task, of_task)  # as QUANTITIES has them
            right[number, :, true] = torch.stack([each.sum(1) for each in correct], dim=1)
            for other in range(num_tasks):
                confused[number, :, true, other] = (task_ids == other).sum(1)
    sizes = torch.tensor([len(split.labels) for split in splits], device=device)
    shares_known = (100 * known.double() / sizes).tolist()
    shares = (100 * right.double() / sizes[:, None]).transpose(2, 3).tolist()
    confusion = (100 * confused.double() / sizes[:, None]).tolist()
    return [
        Inference(
            shares_known[member],
            {
                rule: ByRule._make((*shares[number][member], confusion[number][member]))
                for number, rule in enumerate(rules)
            },
        )
        for member in range(members)
    ]


class Answers(NamedTuple):
    """What the networks of all tasks make of some samples."""

    scores: Mapping[str, Tensor]  # by rule, [members, tasks, N] each
    predicted: Tensor  # [members, tasks, N] int64, the class within the task

    def tasks(self, rule: str) -> Tensor:
        """The tasks inferred by a rule, [members, N] int64."""
        return self.scores[rule].argmax(1)

    def classes(self, task_ids: Tensor) -> Tensor:
        """The classes within tasks, [members, N] int64.

        Args:
            task_ids: The same of the tasks.
        """
        return self.predicted.gather(1, task_ids[:, None]).squeeze(1)


@torch.no_grad()
def answers_of_all(
    learned: Learned,
    tasks: Sequence[Task],
    task: Task,
    split: Split,
    batch_size: int,
    rules: Mapping[str, Rule],
) -> Answers:
    """Let the networks of all tasks classify samples; leaves no trace, as :func:`evaluate`.

    Args:
        tasks: Those learned; ``task``: the one of the samples, which says how they become inputs.
        split: The samples.
        batch_size: At a time.
        rules: Whose scores are wanted.
    """
    device = split.labels.device
    # tasks whose networks are generated, and classify, together
    most = min(learned.net.most_together(device), _NUMBERS // learned.net.num_weights)
    groups = _groups(tasks, int(max(1, most // learned.num_members)), device)
    with learned.net.evaluating():
        parts = [
            _predict(learned, tasks, group, task, split, batch_size, rules) for group in groups
        ]
    return _joined(parts, 1)


def _joined(parts: Sequence[Answers], dim: int) -> Answers:
    scores = {
        rule: torch.cat([each.scores[rule] for each in parts], dim) for rule in parts[0].scores
    }
    return Answers(scores, torch.cat([each.predicted for each in parts], dim))


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
    rules: Mapping[str, Rule],
) -> Answers:
    """The answers of a group of tasks with equal numbers of classes, [members, group, N] each."""
    weights = learned.weights(group).flatten(0, 1)  # [members * group, num_weights]
    chosen = [learned.stats[i] for i in group.tolist()]
    stats = {  # [members * group, …]
        name: torch.stack([in_task[name] for in_task in chosen], dim=1).flatten(0, 1)
        for name in chosen[0]
    }
    columns = [tasks[i].outputs for i in group.tolist()] * learned.num_members
    classify = learned.net.on_same_inputs(weights, stats, columns)
    parts = []
    for images, _ in split.batches(batch_size):
        inputs = task.inputs(images)
        logits = classify(inputs).unflatten(0, (learned.num_members, len(group)))
        outputs = Outputs(logits, logits.log_softmax(-1), group, inputs)
        scores = {name: rule(outputs) for name, rule in rules.items()}
        parts.append(Answers(scores, outputs.log_probabilities.argmax(-1)))
    return _joined(parts, -1)
