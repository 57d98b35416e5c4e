import itertools
import math
import statistics as plain

import numpy as np
import pytest
from scipy import stats

from hypercl.report.comparison import statistics


def test_the_interval_of_a_mean_worked_by_hand():
    """Of 1, 2, 3: the standard error is 1 / sqrt(3), and t(2) is 4.3027 in tables."""
    low, high = statistics.mean_interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx(
        (2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), 1e-4
    )
    assert statistics.mean_interval([1.0]) is None


def test_pairs_are_tested_as_by_hand_and_as_by_scipy():
    values, reference = [91.0, 93.5, 90.0, 96.0, 95.0, 92.0], [90.0, 91.5, 87.0, 92.0, 90.0, 86.0]
    found = statistics.difference(dict(enumerate(values)), dict(enumerate(reference)))
    assert (found.n, found.paired, found.mean) == (6, True, 3.5)  # 1, 2, 3, 4, 5, 6
    t = 3.5 / (math.sqrt(3.5) / math.sqrt(6))
    assert found.p_t == pytest.approx(2 * stats.t.sf(t, 5))
    assert found.p_t == pytest.approx(stats.ttest_rel(values, reference).pvalue)
    assert found.interval == pytest.approx(tuple(stats.ttest_rel(values, reference)
                                                 .confidence_interval()))  # fmt: skip
    assert found.p_wilcoxon == 2 / 2**6  # all signs are the same


@pytest.mark.parametrize("pairs", [[1, -2, 3, 4, 5, 6], [5, -1.5, 2.5, 0.5, -3.5, 7, 8]])
def test_wilcoxons_p_is_that_of_all_signs(pairs):
    """The share of all signs whose sum of positive ranks is as far from the middle."""
    ranks = stats.rankdata(np.abs(pairs))
    middle = ranks.sum() / 2
    own = abs(sum(r for r, pair in zip(ranks, pairs, strict=True) if pair > 0) - middle)
    sums = [
        ranks[list(signs)].sum() for signs in itertools.product([False, True], repeat=len(pairs))
    ]
    share = np.mean([abs(one - middle) >= own for one in sums])
    found = statistics.paired_difference(pairs, [0] * len(pairs))
    assert found.p_wilcoxon == pytest.approx(share)


def test_pairs_are_those_of_the_seeds_in_common():
    found = statistics.difference({1: 5.0, 2: 7.0, 9: 100.0}, {2: 4.0, 1: 1.0, 8: -100.0})
    assert (found.n, found.paired, found.mean) == (2, True, 3.5)
    assert found.interval == statistics.mean_interval([4.0, 3.0])


def test_without_a_seed_in_common_the_test_is_welchs():
    values, reference = {1: 1.0, 2: 2.0, 3: 3.0}, {4: 4.0, 5: 6.0, 6: 9.0, 7: 10.0}
    found = statistics.difference(values, reference)
    theirs = stats.ttest_ind([*values.values()], [*reference.values()], equal_var=False)
    assert (found.n, found.paired, found.mean, found.p_wilcoxon) == (3, False, -5.25, None)
    assert found.p_t == pytest.approx(theirs.pvalue)
    assert found.interval == pytest.approx(tuple(theirs.confidence_interval()))


def test_what_is_not_defined_is_none():
    alone = statistics.paired_difference([2.0], [1.0])
    assert (alone.mean, alone.interval, alone.p_t, alone.p_wilcoxon) == (1.0, None, None, None)
    same = statistics.paired_difference([0.3, 1.3, 2.3], [0.1, 1.1, 2.1])  # 0.2, but for rounding
    assert (same.interval, same.p_t, same.p_wilcoxon) == (None, None, 0.25)
    equal = statistics.paired_difference([1.0, 2.0], [1.0, 2.0])
    assert (equal.mean, equal.p_t, equal.p_wilcoxon) == (0.0, None, 1.0)
    assert (equal.n, equal.n_unequal, same.n_unequal) == (2, 0, 3)
    for values in ([1.0], [2.0, 2.0]):
        apart = statistics.welch_difference(values, [3.0, 3.0])
        assert (apart.interval, apart.p_t) == (None, None)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_of_errors_that_are_not_finite_there_is_no_test(value):
    assert statistics.mean_interval([1.0, value]) is None
    for found in (
        statistics.paired_difference([1.0, value], [1.0, 2.0]),
        statistics.paired_difference([1.0, value], [value, 2.0]),
        statistics.welch_difference([1.0, value], [1.0, 2.0]),
    ):
        assert (found.interval, found.p_t, found.p_wilcoxon) == (None, None, None)
        assert not math.isfinite(found.mean)


def test_ties_and_zeros_give_no_warning():
    for pairs in ([1, 1, 2, 2, 0, 3], [1, -1, 0, 0], [0.1] * 20, [*range(1, 60)], [0, 1] * 30):
        found = statistics.paired_difference(pairs, [0] * len(pairs))
        assert 0 < found.p_wilcoxon <= 1


def test_holms_correction_worked_by_hand():
    """Times 3, 2 and 1, and none below one before it (Holm, 1979)."""
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.04, None, 0.01]) == [0.04, None, 0.02]
    assert statistics.holm([0.6, 0.9, 0.01]) == pytest.approx([1.0, 1.0, 0.03])
    assert statistics.holm([None]) == [None]
    assert statistics.holm([]) == []


def test_how_many_pairs_wilcoxons_test_needs():
    for n in range(2, 9):
        pairs = [float(k) for k in range(1, n + 1)]
        found = statistics.paired_difference(pairs, [0.0] * n)
        assert found.p_wilcoxon == pytest.approx(statistics.least_wilcoxon_p(n))
    assert [statistics.pairs_needed(m) for m in (1, 2, 3, 4)] == [6, 7, 7, 8]
    assert statistics.least_wilcoxon_p(5) > statistics.LEVEL > statistics.least_wilcoxon_p(6)


def test_intervals_hold_the_mean_as_often_as_they_say():
    random = np.random.default_rng(0)
    samples = random.normal(3.0, 2.0, (2000, 4)).tolist()
    held = [low <= 3.0 <= high for low, high in map(statistics.mean_interval, samples)]
    assert plain.fmean(held) == pytest.approx(0.95, abs=0.02)
