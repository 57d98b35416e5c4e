"""Intervals and tests of significance over a few seeds: pure functions of lists of numbers.

A number is None where it is not defined: an interval of one seed, or a test of one pair.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy import stats

from hypercl.report.metrics import mean

LEVEL = 0.05  # of significance; intervals are of 1 - LEVEL
_EQUAL = 1e-9  # differences that are this close are equal but for rounding


class Interval(NamedTuple):
    """An interval of confidence around a mean."""

    low: float
    high: float


class Difference(NamedTuple):
    """A mean difference between two methods, in the unit of what is compared."""

    mean: float
    interval: Interval | None
    paired: bool  # by seed; otherwise Welch's
    n: int  # pairs; of unpaired ones the seeds of the smaller side
    n_unequal: int  # pairs that differ, which count in Wilcoxon's test; of unpaired ones n
    p_t: float | None  # of the paired t test, or of Welch's
    p_wilcoxon: float | None  # of pairs alone


def mean_interval(values: Sequence[float]) -> Interval | None:
    """The 95 % interval of a mean, mean ± t(n - 1) sem (Student, 1908); None below two values, or
    where one is not finite, as an error may be.
    """
    n = len(values)
    if n < 2 or not all(map(math.isfinite, values)):
        return None
    sem = statistics.stdev(values) / math.sqrt(n)
    return _around(statistics.fmean(values), sem, n - 1)


def difference(values: Mapping[int, float], reference: Mapping[int, float]) -> Difference:
    """How far ``values`` lie above ``reference``; both are by seed, and not empty.

    The seeds in common make pairs. Without any, the means are compared as those of independent
    samples.
    """
    common = [seed for seed in values if seed in reference]
    if common:
        return paired_difference([values[s] for s in common], [reference[s] for s in common])
    return welch_difference(list(values.values()), list(reference.values()))


def paired_difference(values: Sequence[float], reference: Sequence[float]) -> Difference:
    """The mean of the pairs' differences, with Student's interval and two tests that it is 0.

    The paired t test (Student, 1908) and Wilcoxon's signed-rank test (1945), two-sided. The second
    leaves out differences of 0; its p is exact for up to 50 pairs, or 13 with ties or zeros. Where
    all differences are equal, there is neither an interval nor a t test; where all are 0, the p of
    Wilcoxon's is 1.
    """
    pairs = [a - b for a, b in zip(values, reference, strict=True)]
    n, middle = len(pairs), mean(pairs)
    interval = p_t = p_wilcoxon = None
    rounded = [round(pair, 9) for pair in pairs]  # what is equal but for rounding is a tie
    if n > 1 and math.isfinite(middle):
        if max(pairs) - min(pairs) > _EQUAL:
            interval = mean_interval(pairs)
            p_t = float(stats.ttest_1samp(pairs, 0.0).pvalue)
        p_wilcoxon = float(stats.wilcoxon(rounded).pvalue) if any(rounded) else 1.0
    return Difference(middle, interval, True, n, sum(map(bool, rounded)), p_t, p_wilcoxon)


def welch_difference(values: Sequence[float], reference: Sequence[float]) -> Difference:
    """The difference of two means of independent samples, whose variances may differ.

    Welch's t test and interval (1947), with the degrees of freedom of Welch and Satterthwaite.
    There is neither where a sample has one value, or no sample varies.
    """
    apart = mean(values) - mean(reference)
    n = min(len(values), len(reference))
    interval = p_t = None
    if n > 1 and math.isfinite(apart):
        a, b = (statistics.variance(sample) / len(sample) for sample in (values, reference))
        if math.sqrt(a + b) > _EQUAL:
            freedom = (a + b) ** 2 / (a**2 / (len(values) - 1) + b**2 / (len(reference) - 1))
            interval = _around(apart, math.sqrt(a + b), freedom)
            p_t = float(2 * stats.t.sf(abs(apart) / math.sqrt(a + b), freedom))
    return Difference(apart, interval, False, n, n, p_t, None)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """The p of several tests, corrected such that one error among all has probability LEVEL.

    Holm's procedure (1979): of m tests the k-th smallest p is multiplied by m - k + 1, and is at
    least as large as those before it. What is None was not tested, and does not count.
    """
    corrected: list[float | None] = [None] * len(ps)
    known = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected[i] = largest
    return corrected


def least_wilcoxon_p(n: int) -> float:
    """The smallest p that Wilcoxon's signed-rank test can have with n pairs: 2 of 2^n signs."""
    return min(1.0, 2.0 ** (1 - n))


def pairs_needed(num_tests: int) -> int:
    """How many pairs Wilcoxon's test needs, so that a p corrected for so many tests can be below
    LEVEL.
    """
    n = 2
    while num_tests * least_wilcoxon_p(n) >= LEVEL:
        n += 1
    return n


def _around(mean: float, sem: float, freedom: float) -> Interval:
    half = float(stats.t.ppf(1 - LEVEL / 2, freedom)) * sem
    return Interval(mean - half, mean + half)
