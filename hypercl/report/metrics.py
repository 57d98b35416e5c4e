"""Pure functions over the accuracy matrix: row t holds the accuracies after learning task t.

The matrix is a list of rows [[a00], [a10, a11], …] in percent; metrics that compare an earlier with
a later row are None while there is one row.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import TypedDict

Matrix = Sequence[Sequence[float]]


def final_accuracy(accuracy: Matrix) -> float:
    """Mean over all tasks after learning the last one."""
    return statistics.fmean(accuracy[-1])


def during_accuracy(accuracy: Matrix) -> float:
    """Mean over the tasks of the accuracy right after learning each."""
    return statistics.fmean(row[-1] for row in accuracy)


def backward_transfer(accuracy: Matrix) -> float | None:
    """Mean change of the earlier tasks since each was learned (Lopez-Paz & Ranzato, 2017)."""
    last, earlier = accuracy[-1], range(len(accuracy) - 1)
    return statistics.fmean(last[t] - accuracy[t][t] for t in earlier) if earlier else None


def forgetting(accuracy: Matrix) -> float | None:
    """Mean drop of the earlier tasks from their best earlier accuracy (Chaudhry et al., 2018)."""
    last, earlier = accuracy[-1], range(len(accuracy) - 1)
    if not earlier:
        return None
    return statistics.fmean(max(row[t] for row in accuracy[t:-1]) - last[t] for t in earlier)


METRICS: dict[str, Callable[[Matrix], float | None]] = {
    "final_accuracy": final_accuracy,
    "during_accuracy": during_accuracy,
    "backward_transfer": backward_transfer,
    "forgetting": forgetting,
}


def mean_matrix(
    matrices: Sequence[Sequence[Sequence[float | None]]],
) -> list[list[float | None]]:
    """Mean over seeds of each entry, None where any has None; the matrices have equal shapes."""
    return [
        [mean_of_whole(values) for values in zip(*rows, strict=True)]
        for rows in zip(*matrices, strict=True)
    ]


def mean_of_whole(values: Sequence[float | None]) -> float | None:
    """Mean; None where any value is None."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


class Summary(TypedDict):
    """Of a number over seeds, as results.json has it."""

    mean: float | None  # None where no seed has one
    std: float | None  # of the sample; None for fewer than two seeds
    sem: float | None  # standard error of the mean; the same
    n: int  # seeds that have one


def summarize(values: Sequence[float | None]) -> Summary:
    """Mean, sample standard deviation and standard error over seeds; None where undefined."""
    known = [value for value in values if value is not None]
    n = len(known)
    std = statistics.stdev(known) if n > 1 else None
    return {
        "mean": statistics.fmean(known) if known else None,
        "std": std,
        "sem": std / math.sqrt(n) if std is not None else None,
        "n": n,
    }
