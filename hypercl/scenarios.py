"""What is left when nobody says which task a sample is from.

The three scenarios of van de Ven and Tolias (arXiv 1904.07734), as von Oswald et al. report them:

CL1, task-incremental: the task is known, and so the network that classifies.
CL2, domain-incremental: the task is inferred; the class within it must be right.
CL3, class-incremental: the task is inferred, and both task and class must be right.

A task is inferred by letting the networks of all tasks classify the sample, and taking the one with
the lowest entropy of its predictive distribution, or with the highest confidence in a class.
"""

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from hypnettorch.mnets import MainNetInterface
from torch import Tensor

from hypercl.hypernet import Hypernet
from hypercl.members import Params, each_member
from hypercl.networks import logits_of, most_together
from hypercl.tasks import Split, Task

_NUMBERS = 1 << 25  # generated at once, at most; 128 MiB in float32


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
    hnet: Hypernet,
    mnet: MainNetInterface,
    params: Params,
    tasks: Sequence[Task],
    splits: Sequence[Split],
    batch_size: int,
    stats: Sequence[Params] = (),
    *,
    between: Callable[[], None] = lambda: None,
) -> list[Inference]:
    """Classify the samples of all tasks with the networks of all tasks.

    Args:
        params: [members, …] each.
        tasks: With equal numbers of classes; ``splits``: of each, the samples to classify.
        batch_size: Samples at a time.
        stats: Running statistics by task, [members, …] each; empty without them.
        between: Called before the samples of each task; may raise to break off.

    Returns:
        One entry a member.
    """
    members, num_tasks = len(params["weight0"]), len(tasks)
    device = splits[0].labels.device
    # tasks whose networks are generated, and classify, together
    most = min(most_together(mnet, device), _NUMBERS // hnet.num_weights)
    at_once = int(max(1, most // members))
    counts = torch.zeros(7, members, num_tasks, dtype=torch.int64, device=device)
    confusion = torch.zeros(members, num_tasks, num_tasks, dtype=torch.int64, device=device)
    was_training = mnet.training
    mnet.eval()
    try:
        for true, (task, split) in enumerate(zip(tasks, splits, strict=True)):
            between()
            entropy, doubt, predicted = (
                torch.cat(parts, dim=1)  # [members, tasks, N]
                for parts in zip(
                    *(
                        _predict(hnet, mnet, params, stats, tasks, group, task, split, batch_size)
                        for group in torch.arange(num_tasks, device=device).split(at_once)
                    ),
                    strict=True,
                )
            )
            labels = split.labels
            right = [predicted[:, true] == labels]
            by_rule = (entropy.argmin(1), doubt.argmin(1))  # [members, N], tasks inferred
            classes = [
                predicted.gather(1, task_ids[:, None]).squeeze(1) == labels for task_ids in by_rule
            ]
            inferred = [task_ids == true for task_ids in by_rule]
            right += classes
            right += [a & b for a, b in zip(classes, inferred, strict=True)]
            right += inferred
            counts[:, :, true] = torch.stack([found.sum(1) for found in right])
            for other in range(num_tasks):
                confusion[:, true, other] = (by_rule[0] == other).sum(1)
    finally:
        mnet.train(was_training)
    sizes = torch.tensor([len(split.labels) for split in splits], device=device)
    shares = (100 * counts.double() / sizes).transpose(0, 1).tolist()
    confused = (100 * confusion.double() / sizes[:, None]).tolist()
    return [
        Inference(*of_member, matrix) for of_member, matrix in zip(shares, confused, strict=True)
    ]


def _predict(
    hnet: Hypernet,
    mnet: MainNetInterface,
    params: Params,
    stats: Sequence[Params],
    tasks: Sequence[Task],
    group: Tensor,
    task: Task,
    split: Split,
    batch_size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Entropy, doubt and predicted class of the samples of one task under the networks of a group
    of tasks: [members, group, N] each.

    The doubt is the logarithm of 1 - confidence, the probability of all other classes: many
    confidences are 1 in float32, and then the doubt still tells which is higher.
    """

    def classify(weights: Tensor, inputs: Tensor, stats: Params) -> Tensor:
        return logits_of(mnet, hnet.split(weights), inputs, stats)

    members = len(params["weight0"])
    weights = hnet.weights(params, group.expand(members, -1)).flatten(0, 1)  # [members * group, n]
    of_group = {}  # [members * group, …]
    if stats:
        chosen = [stats[i] for i in group.tolist()]
        of_group = {
            name: torch.stack([each[name] for each in chosen], dim=1).flatten(0, 1)
            for name in chosen[0]
        }
    columns = [tasks[i].outputs for i in group.tolist()]
    found = []
    for images, _ in split.batches(batch_size):
        logits = each_member(classify, shared=(1,))(weights, task.inputs(images), of_group)
        logits = logits.view(members, len(columns), len(images), -1)
        own = [logits[:, i, :, outputs] for i, outputs in enumerate(columns)]
        log_probabilities = torch.stack(own, dim=1).log_softmax(-1)
        probabilities = log_probabilities.exp()
        entropy = -(probabilities * log_probabilities).sum(-1)
        predicted = log_probabilities.argmax(-1)
        others = log_probabilities.scatter(-1, predicted[..., None], -torch.inf)
        found.append((entropy, others.logsumexp(-1), predicted))
    return tuple(torch.cat(parts, dim=-1) for parts in zip(*found, strict=True))
