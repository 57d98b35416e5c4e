"""Pure functions over the accuracy matrix: row t holds the accuracies after learning task t.

The matrix is a list of rows [[a00], [a10, a11], …] in percent. What was not tested is None
(--test_iter); the diagonal always is. A metric is None where it is not defined: while there is one
row, or while what it needs is not known.

Of regression it is a matrix of errors, of which less is better. Transfer and forgetting are those
of the negated errors, so that their signs say what they say of accuracies: a positive forgetting is
an error that has grown, and so is a negative backward transfer.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from hypercl.measure import ACCURACY, Measure

Row = Sequence[float | None]
Matrix = Sequence[Row]


def final_accuracy(accuracy: Matrix) -> float | None:
    """Mean over all tasks after learning the last one."""
    return mean_of_whole(accuracy[-1])


def during_accuracy(accuracy: Matrix) -> float | None:
    """Mean over the tasks of the accuracy right after learning each."""
    return mean_of_whole([row[-1] for row in accuracy])


def backward_transfer(accuracy: Matrix) -> float | None:
    """Mean change of the earlier tasks since each was learned (Lopez-Paz & Ranzato, 2017)."""
    earlier = range(len(accuracy) - 1)
    return mean_of_whole([_difference(accuracy[-1][t], accuracy[t][t]) for t in earlier])


def forgetting(accuracy: Matrix) -> float | None:
    """Mean drop of the earlier tasks from their best earlier accuracy (Chaudhry et al., 2018).

    The best is that of the tests there were.
    """
    earlier = range(len(accuracy) - 1)
    best = [max(v for row in accuracy[t:-1] if (v := row[t]) is not None) for t in earlier]
    return mean_of_whole([_difference(best[t], accuracy[-1][t]) for t in earlier])


def forward_transfer(before: Row, untrained: Row) -> float | None:
    """Mean change of a task that is yet to be learned by what was learned before it (Lopez-Paz &
    Ranzato, 2017).

    Args:
        before: By task, the accuracy right before it is learned; so far as there is one.
        untrained: By task, that before any task is learned. Those of task 0 do not count.
    """
    return mean_of_whole([_difference(before[k], untrained[k]) for k in range(1, len(before))])


def mean(values: Sequence[float]) -> float:
    """Infinite, or NaN, where a value is so, as an error may be."""
    is_finite = all(map(math.isfinite, values))
    return statistics.fmean(values) if is_finite else sum(values) / len(values)


def mean_of_whole(values: Row) -> float | None:
    """Mean; None where there is no value, or one of them is None."""
    known = [value for value in values if value is not None]
    return mean(known) if known and len(known) == len(values) else None


def _difference(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


Metric = Callable[[Mapping[str, Any]], float | None]  # from a seed's entry in results.json


def metrics_of(measure: Measure) -> dict[str, Metric]:
    """All metrics of what is measured, by name."""
    name = measure.name

    def merit(row: Row) -> Row:
        """Of which more is better."""
        if measure.higher_is_better:
            return row
        return [None if value is None else -value for value in row]

    def of_merits(metric: Callable[[Matrix], float | None]) -> Metric:
        return lambda seed: metric([merit(row) for row in seed[name]])

    return {
        f"final_{name}": lambda seed: final_accuracy(seed[name]),
        f"during_{name}": lambda seed: during_accuracy(seed[name]),
        "backward_transfer": of_merits(backward_transfer),
        "forgetting": of_merits(forgetting),
        "forward_transfer": lambda seed: forward_transfer(
            merit(seed[f"{name}_before"]), merit(seed[f"{name}_untrained"])
        ),
    }


METRICS = metrics_of(ACCURACY)


# What the final accuracy is in each scenario of van de Ven and Tolias (arXiv 1904.07734), 1 to 3.
BY_SCENARIO = ("cl1", "cl2", "cl3")


def mean_matrix(matrices: Sequence[Matrix]) -> list[list[float | None]]:
    """Mean over seeds of each entry, None where one has none; the matrices have equal shapes."""
    return [
        [mean_of_whole(values) for values in zip(*rows, strict=True)]
        for rows in zip(*matrices, strict=True)
    ]


class Summary(TypedDict):
    """Of a number over seeds, as results.json has it."""

    mean: float | None  # None where no seed has one
    std: float | None  # of the sample; None for fewer than two seeds, or where one is infinite
    sem: float | None  # standard error of the mean; the same
    n: int  # seeds that have one


def summarize(values: Sequence[float | None]) -> Summary:
    """Mean, sample standard deviation and standard error over seeds; None where undefined."""
    known = [value for value in values if value is not None]
    n = len(known)
    std = statistics.stdev(known) if n > 1 and all(map(math.isfinite, known)) else None
    return {
        "mean": mean(known) if known else None,
        "std": std,
        "sem": std / math.sqrt(n) if std is not None else None,
        "n": n,
    }
