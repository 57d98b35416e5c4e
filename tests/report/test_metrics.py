import math

import pytest

from hypercl.measure import ERROR
from hypercl.report import metrics

# Worked by hand.
MATRIX = [
    [90.0],
    [95.0, 80.0],
    [70.0, 84.0, 60.0],
]


def test_worked_by_hand():
    assert metrics.final_accuracy(MATRIX) == pytest.approx((70 + 84 + 60) / 3)
    assert metrics.during_accuracy(MATRIX) == pytest.approx((90 + 80 + 60) / 3)
    assert metrics.backward_transfer(MATRIX) == pytest.approx(((70 - 90) + (84 - 80)) / 2)
    # task 0 was best after task 1, task 1 right after it was learned
    assert metrics.forgetting(MATRIX) == pytest.approx(((95 - 70) + (80 - 84)) / 2)


def test_what_was_not_tested_counts_for_nothing():
    matrix = [MATRIX[0], [None, 80.0], MATRIX[2]]
    assert metrics.final_accuracy(matrix) == metrics.final_accuracy(MATRIX)
    assert metrics.during_accuracy(matrix) == metrics.during_accuracy(MATRIX)
    assert metrics.backward_transfer(matrix) == metrics.backward_transfer(MATRIX)
    assert metrics.forgetting(matrix) == pytest.approx(((90 - 70) + (80 - 84)) / 2)
    half = matrix[:2]
    assert metrics.during_accuracy(half) == 85
    for metric in (metrics.final_accuracy, metrics.backward_transfer, metrics.forgetting):
        assert metric(half) is None  # not yet known
    assert metrics.mean_matrix([half, half]) == half


def test_forward_transfer_worked_by_hand():
    untrained = [None, 50.0, 40.0]
    assert metrics.forward_transfer([None, 53.0, 39.0], untrained) == ((53 - 50) + (39 - 40)) / 2
    assert metrics.forward_transfer([None, 53.0], untrained) == 3  # after task 0
    assert metrics.forward_transfer([None, None, 39.0], untrained) is None
    assert metrics.forward_transfer([None], [None]) is None  # one task


def test_one_task_has_nothing_to_forget():
    assert metrics.final_accuracy([[88.0]]) == metrics.during_accuracy([[88.0]]) == 88.0
    assert metrics.backward_transfer([[88.0]]) is None
    assert metrics.forgetting([[88.0]]) is None


def test_summary_over_seeds():
    summary = metrics.summarize([1.0, 2.0, 6.0])
    assert summary["mean"] == pytest.approx(3.0)
    assert summary["std"] == pytest.approx(7**0.5)  # (4 + 1 + 9) / 2
    assert summary["sem"] == pytest.approx((7 / 3) ** 0.5)
    assert summary["n"] == 3


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_what_is_not_finite_has_no_spread(value):
    summary = metrics.summarize([1.0, value])
    assert (summary["std"], summary["sem"], summary["n"]) == (None, None, 2)
    assert not math.isfinite(summary["mean"])


def test_a_mean_is_missing_where_a_seed_has_none():
    assert metrics.mean_matrix([[[1.0], [2.0, 3.0]], [[3.0], [None, 5.0]]]) == [[2.0], [None, 4.0]]
    assert metrics.mean_of_whole([1.0, 2.0]) == 1.5
    assert metrics.mean_of_whole([1.0, None]) is None


def test_summary_of_one_or_no_value():
    assert metrics.summarize([5.0]) == {"mean": 5.0, "std": None, "sem": None, "n": 1}
    assert metrics.summarize([None]) == {"mean": None, "std": None, "sem": None, "n": 0}


def test_errors_have_the_signs_of_accuracies():
    """A task that gets worse has a positive forgetting and a negative backward transfer."""
    of_errors = metrics.metrics_of(ERROR)
    seed = {
        "error": [[0.2], [0.1, 0.3], [0.5, 0.2, 0.1]],
        "error_before": [None, 0.7, 0.4],
        "error_untrained": [None, 1.0, 0.9],
    }
    found = {name: metric(seed) for name, metric in of_errors.items()}
    assert found == pytest.approx(
        {
            "final_error": 0.8 / 3,
            "during_error": 0.2,
            "backward_transfer": (-0.3 + 0.1) / 2,
            "forgetting": (0.4 - 0.1) / 2,
            "forward_transfer": (0.3 + 0.5) / 2,
        }
    )
    lacking = {**seed, "error": [[0.2], [None, 0.3]]}
    assert of_errors["forgetting"](lacking) is None
