"""Rules by which the task of a sample is inferred, most of them from what the networks of all
tasks make of it.

A rule gives each network a score for a sample. The task of the network with the highest score is
inferred, and of equal scores the first one. A new rule has its name in :data:`OF_MAIN_NETS`, and
its function in :func:`rules_with`; results, tables, plots and sweeps read the names from here. One
of a method has its name in :data:`OF_METHODS` and is the method's :meth:`InfersTasks.task_scores`
(methods/base.py). Imports no torch, as names of metrics are checked before torch is loaded.

- ``entropy``: the lowest entropy of the predictive distribution, as published (von Oswald et al.).
- ``confidence``: the highest probability of a class, as published, too.
- ``scaled``: the largest margin, in units of the network's median margin on samples of its own
  task. This rule is ours. Networks of a run differ in scale, and large logits, which mean a low
  entropy and a high confidence, claim the samples of other tasks.
- ``tir``: what a network of the method's own says that learned to tell tasks apart (HNET+TIR).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

OF_MAIN_NETS = ("entropy", "confidence", "scaled")  # by what the main networks make of a sample
OF_METHODS = ("tir",)  # by a network of the method's own, which it has or has not
RULES = (*OF_MAIN_NETS, *OF_METHODS)
# Of each rule: the class is right within the task inferred; task and class are; the task is.
QUANTITIES = ("cl2", "cl3", "task_inference")


def names_by(rules: Iterable[str]) -> tuple[str, ...]:
    """The numbers that rules have in results, ``cl2_entropy`` and so on."""
    rules = tuple(rules)
    return tuple(f"{quantity}_{rule}" for quantity in QUANTITIES for rule in rules)


def rules_in(names: Iterable[str]) -> list[str]:
    """The rules of which a number is among these names; a run of an earlier version has fewer."""
    names = set(names)
    return [rule for rule in RULES if not names.isdisjoint(names_by([rule]))]


def confusion_of(rule: str) -> str:
    """Under which name results have a rule's matrix of tasks taken for others; that of the entropy
    was there before there were others.
    """
    return "task_confusion" if rule == "entropy" else f"task_confusion_{rule}"


class Outputs(NamedTuple):
    """What networks of tasks with equal numbers of classes make of N samples."""

    logits: "Tensor"  # [members, tasks, N, classes], of each network those of its own task
    log_probabilities: "Tensor"  # the same
    task_ids: "Tensor"  # [tasks] int64, whose networks they are
    inputs: "Tensor"  # [N, H * W * C], the samples


Rule = Callable[[Outputs], "Tensor"]  # scores [members, tasks, N]


def rules_with(scales: "Mapping[str, Tensor]") -> dict[str, Rule]:
    """The rules that can be followed, by name.

    Args:
        scales: What is kept of each task for a rule, [members, tasks] each, by name: "margin", the
            median margin. Where it is not there, neither is the rule that needs it.
    """
    rules: dict[str, Rule] = {"entropy": negative_entropy, "confidence": confidence}
    if "margin" in scales:
        rules["scaled"] = lambda outputs: scaled_margin(outputs, scales["margin"])
    return rules


def negative_entropy(outputs: Outputs) -> "Tensor":
    """sum of p log p over the classes."""
    log_probabilities = outputs.log_probabilities
    return (log_probabilities.exp() * log_probabilities).sum(-1)


def confidence(outputs: Outputs) -> "Tensor":
    """A score that grows with the highest probability of a class: minus the logarithm of that of
    all other classes. Many confidences are 1 in float32, and then it still tells which is higher.
    """
    log_probabilities = outputs.log_probabilities
    most_probable = log_probabilities.argmax(-1, keepdim=True)
    others = log_probabilities.scatter(-1, most_probable, -float("inf"))
    return -others.logsumexp(-1)


def margin(logits: "Tensor") -> "Tensor":
    """The largest logit less the second largest, [..., classes] to [...]; of one class there is
    none.
    """
    first, second = logits.topk(2, dim=-1).values.unbind(-1)
    return first - second


def scaled_margin(outputs: Outputs, scales: "Tensor") -> "Tensor":
    """The margin by the scale of the network.

    Args:
        scales: [members, all tasks], median margins. That of a network whose logits are all equal
            is 0, and counts as the smallest positive number.
    """
    own = scales[:, outputs.task_ids, None]  # [members, tasks, 1]
    return margin(outputs.logits) / own.clamp(min=1e-38)
