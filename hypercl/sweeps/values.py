"""The metrics by which points are chosen, and what a point has reached, from its results.json."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from hypercl.errors import InputError
from hypercl.inference import OF_METHODS, RULES, names_by
from hypercl.measure import ACCURACY, Measure, measure_of
from hypercl.options import Options
from hypercl.report.metrics import BY_SCENARIO, metrics_of, summarize

INFERRED = names_by(RULES)  # measured where the tasks of samples are inferred
_OF_EARLIER_TASKS = ("backward_transfer", "forgetting", "forward_transfer")


class Value(NamedTuple):
    """A metric of a point, over its seeds."""

    mean: float  # the metric's worst value, which may be infinite, where it diverged
    sem: float | None  # standard error of the mean; None of one seed, or where it diverged
    n: int  # seeds
    diverged: bool  # a seed has failed


@dataclass(frozen=True)
class Metric:
    """A number in the summary of results.json, by which points are chosen."""

    name: str
    higher_is_better: bool
    worst: float  # of a point that diverged
    first: int  # tasks that must have been learned for it to be defined
    inferred: bool  # measured where tasks are inferred alone

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.higher_is_better else -1


def metrics_for(options: Options) -> tuple[str, ...]:
    """The metrics that a run with these options has at its end."""
    task = options.task
    direct = BY_SCENARIO[(options.scenario or 1) - 1]
    sizes = task.num_classes_per_task
    has_margins = 1 not in (sizes if isinstance(sizes, tuple) else (sizes,))
    left_out = set(OF_METHODS) - {options.method.kind.inference_rule}
    left_out |= set() if has_margins else {"scaled"}
    rules = [rule for rule in RULES if rule not in left_out]
    inferred = names_by(rules) if options.tells_tasks_apart else ()
    return (*metrics_of(task.measure), direct, *inferred)


def names_of(measure: Measure) -> tuple[str, ...]:
    """All metrics of accuracies, or of errors."""
    return (*metrics_of(measure), *BY_SCENARIO, *(INFERRED if measure == ACCURACY else ()))


def metric_named(name: str, measure: Measure = ACCURACY) -> Metric:
    """A metric, of accuracies or of errors.

    Raises:
        InputError: There is none of this name.
    """
    names = names_of(measure)
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        raise InputError(f"there is no metric {name}{meant}: take one of {', '.join(names)}")
    earlier = name in _OF_EARLIER_TASKS
    higher = name != "forgetting" if earlier else measure.higher_is_better
    worst = -math.inf if higher else math.inf
    if measure.unit:  # percent
        worst = 100.0 if not higher else -100.0 if earlier else 0.0
    return Metric(name, higher, worst, 2 if earlier else 1, name in INFERRED)


def value_of(
    results: Mapping[str, Any],
    metric: Metric,
    num_tasks: int | None = None,
    tested_on: str = "validation",
) -> Value:
    """A metric of a point, from the content of its results.json.

    A point of which a seed has failed has diverged. After ``num_tasks`` tasks counts what was so
    then: of what was learned later nothing is looked at, and seeds of a later group, which have not
    come so far, are left out. Where tasks are inferred, the file has the numbers after its last
    task alone.

    Args:
        num_tasks: After so many tasks; None: after all.
        tested_on: The samples; ``Sweep.tested_on``.

    Raises:
        InputError: It is of other samples, has not come so far, or has no such metric.
    """
    if results["tested_on"] != tested_on:
        raise InputError(
            f"the results are of {results['tested_on']} samples, and not of {tested_on} samples"
        )
    number = len(results["tasks"]) if num_tasks is None else num_tasks
    name = measure_of(results).name
    seeds = results["seeds"]
    if any("failed" in seed and len(seed[name]) < number for seed in seeds):
        return Value(metric.worst, None, len(seeds), diverged=True)
    if num_tasks is not None:
        seeds = [seed for seed in seeds if len(seed[name]) >= number]
    if not seeds or any(len(seed[name]) < number for seed in seeds):
        raise InputError(f"{number} tasks are not learned yet")
    values = [_of_seed(results, seed, metric.name, number) for seed in seeds]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        raise InputError(f"there is no {metric.name} after {number} tasks")
    if not all(map(math.isfinite, known)):
        return Value(metric.worst, None, len(known), diverged=True)
    summary = summarize(known)
    assert summary["mean"] is not None
    return Value(summary["mean"], summary["sem"], len(known), diverged=False)


def _of_seed(
    results: Mapping[str, Any], seed: Mapping[str, Any], metric: str, number: int
) -> float | None:
    """The metric of a seed after so many tasks; None where it is not defined."""
    measure = measure_of(results)
    name = measure.name
    so_far = {
        name: seed[name][:number],
        f"{name}_before": seed.get(f"{name}_before", [])[:number],
        f"{name}_untrained": seed.get(f"{name}_untrained", []),
    }
    metrics = metrics_of(measure)
    if metric == BY_SCENARIO[(results["scenario"] or 1) - 1]:
        metric = f"final_{name}"
    if metric in metrics:
        return metrics[metric](so_far)
    if metric in seed.get("scenarios", {}) and len(seed[name]) == number:
        return seed["scenarios"][metric]["mean"]
    return None
