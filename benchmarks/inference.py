"""Rules that infer tasks, on the networks of finished runs: how often each is right.

    python -m benchmarks.inference out/a out/b [--save]

With --save, benchmarks/results/inference.json is written anew. Beside the rules that the run has
(hypercl/inference.py) there are these:

scaled at the end: the margin in units of the median margin of the network as it is at the end, and
    not as it was when its task had been learned.
energy: the largest logsumexp of a network's logits, that is the lowest energy (Liu et al., 2020,
    arXiv 2010.03759, equation 4, at temperature 1).
temperature: the lowest entropy, after each network's logits were divided by a temperature of its
    own, by which the cross-entropy on its task's validation samples is lowest (Guo et al., 2017,
    arXiv 1706.04599, section 4.2). Only of runs with validation samples.

Samples are those of the test sets. Means are over seeds and tasks, in percent.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import print_table, save
from hypercl.engine.members import Params
from hypercl.evaluation import Learned, as_json, infer_tasks, median_margins
from hypercl.inference import (
    QUANTITIES,
    Outputs,
    Rule,
    negative_entropy,
    scaled_margin,
)
from hypercl.learned import Run, load_run
from hypercl.report.metrics import summarize
from hypercl.report.summary import mean_and_std
from hypercl.tasks.task import Task

_RANGE = -9.0, 9.0  # of the logarithm of a temperature
_HALVINGS = 60


def main(arguments: list[str]) -> None:
    paths = [path for path in arguments if path != "--save"]
    if not paths:
        raise SystemExit("give the directories of finished runs")
    results = {}
    for path in paths:
        run = load_run(path, no_cuda=True)
        measured = measure(run)
        n = len(run.params)
        print_table(rows_of(measured), f"{path}: %, n = {n}, ± standard deviation over seeds")
        results[Path(path).name] = {
            "preset": run.experiment.options.run.preset,
            "n_iter": run.experiment.options.train.n_iter,
            "validation samples": len(run.tasks[0].validation.labels),
            "seeds": list(run.params),
            "rules": measured,
        }
    if len(paths) < len(arguments):
        save("inference", {"runs": results})


def measure(run: Run) -> dict[str, dict[str, Any]]:
    """For each rule its numbers, summarized over the seeds; "cl1" is the same for all rules."""
    tasks, batch_size = run.tasks, run.experiment.options.evaluation.val_batch_size
    splits = run.experiment.splits_to_test(len(tasks))
    of_seeds: list[dict[str, Any]] = []
    names: list[str] = []
    for group in run.groups:
        learned = run.of(group)
        rules = all_rules(learned, tasks, batch_size)
        names = list(rules)
        inferences = infer_tasks(learned, tasks, splits, batch_size, rules=rules)
        of_seeds += map(as_json, inferences)
    return {
        rule: {
            name: summarize([seed[key]["mean"] for seed in of_seeds])
            for name, key in [("cl1", "cl1"), *((q, f"{q}_{rule}") for q in QUANTITIES)]
        }
        for rule in names
    }


def rows_of(measured: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    """A table's rows, one a rule."""
    return [
        {"task inferred by": rule} | {name: mean_and_std(own) for name, own in numbers.items()}
        for rule, numbers in measured.items()
    ]


def all_rules(learned: Learned, tasks: Sequence[Task], batch_size: int) -> dict[str, Rule]:
    """Those of the run, and those that are measured here alone."""
    medians = [median_margins(learned, task, i, batch_size) for i, task in enumerate(tasks)]
    at_end = torch.stack(medians, dim=1)
    rules = learned.rules
    rules["scaled at the end"] = lambda outputs: scaled_margin(outputs, at_end)
    rules["energy"] = negative_energy
    if all(len(task.validation.labels) > 0 for task in tasks):
        fitted = [fit_temperature(*logits_of(learned, t, i)) for i, t in enumerate(tasks)]
        temperatures = torch.stack(fitted, dim=1)
        rules["temperature"] = lambda outputs: entropy_at(outputs, temperatures)
    return rules


def negative_energy(outputs: Outputs) -> Tensor:
    """logsumexp of the logits."""
    return outputs.logits.logsumexp(-1)


def entropy_at(outputs: Outputs, temperatures: Tensor) -> Tensor:
    """The rule of the entropy, at temperatures [members, all tasks]."""
    logits = outputs.logits / temperatures[:, outputs.task_ids, None, None]
    return negative_entropy(
        outputs._replace(logits=logits, log_probabilities=logits.log_softmax(-1))
    )


@torch.no_grad()
def logits_of(learned: Learned, task: Task, task_id: int) -> tuple[Tensor, Tensor]:
    """Logits [members, N, classes] and labels [N] of a task's validation samples."""

    def of_member(weights: Tensor, inputs: Tensor, stats: Params) -> Tensor:
        return learned.net.logits(weights, inputs, stats)[:, task.outputs]

    weights = learned.weights(torch.tensor([task_id])).squeeze(1)
    inputs, stats = task.inputs(task.validation.images), learned.stats[task_id]
    with learned.net.evaluating():
        logits = learned.net.each_member(of_member, shared=(1,))(weights, inputs, stats)
    return logits, task.validation.labels


def fit_temperature(logits: Tensor, labels: Tensor) -> Tensor:
    """The temperature T of each member by which the mean cross-entropy of softmax(logits / T) is
    lowest, [members].

    The cross-entropy is convex in 1 / T. Its derivative there, the logit expected less that of the
    label, is followed to zero by halving an interval of log T. Where all samples are classified
    right, there is no zero, and T is the lower end of the interval.

    Args:
        logits: [members, N, classes].
        labels: [N] int64.
    """
    logits = logits.double()
    own = logits.gather(-1, labels.expand(len(logits), -1)[..., None]).squeeze(-1)
    low, high = (torch.full((len(logits),), end, dtype=torch.float64) for end in _RANGE)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        probabilities = (logits / middle.exp()[:, None, None]).softmax(-1)
        too_cold = ((probabilities * logits).sum(-1) - own).mean(1) > 0
        low, high = torch.where(too_cold, middle, low), torch.where(too_cold, high, middle)
    return ((low + high) / 2).exp().float()


if __name__ == "__main__":
    main(sys.argv[1:])
