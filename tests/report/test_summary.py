import io

import pytest
from rich.console import Console

from hypercl.report import metrics
from hypercl.report.screen import Screen
from hypercl.report.summary import furthest, mean_and_sem, ranges, show_row, show_summary


@pytest.fixture
def screen():
    lines = []
    return Screen(lambda line: lines.append(line[26:]), console=Console(file=io.StringIO())), lines


def results_of(*matrices, num_tasks=2):
    unlearned = {"accuracy_before": [None, 52.0], "accuracy_untrained": [None, 50.0]}
    seeds = [
        {"seed": 42 + i, "accuracy": matrix, **unlearned} for i, matrix in enumerate(matrices)
    ]
    return {
        "config": {"preset": None},
        "tested_on": "test",
        "tasks": [f"digits {k}" for k in range(num_tasks)],
        "seeds": seeds,
        "summary": {
            name: metrics.summarize([metric(seed) for seed in seeds])
            for name, metric in metrics.METRICS.items()
        },
    }


def test_a_row_and_its_mean(screen):
    show_row(screen[0], "test", [[90.0, 80.0], [94.0, 84.0]], 2)
    assert screen[1] == [
        "test accuracy (%) after task 2/2",
        "  task             1             2          mean",
        "        92.00 ± 2.00  82.00 ± 2.00  87.00 ± 2.00",
    ]


def test_a_row_of_many_tasks_is_one_line(screen):
    show_row(screen[0], "test", [[90.0, 80.0, 85.0]], 11)
    assert screen[1] == [
        "test accuracy (%) after task 3/11: 85.00, mean of all so far 85.00, worst 80.00 (task 2)"
    ]


def test_the_matrix_and_the_metrics(screen):
    show_summary(screen[0], results_of([[90.0], [80.0, 70.0]]), "out/here")
    assert screen[1] == [
        "accuracy matrix (%): rows after learning a task, columns tested on one",
        "  after      1      2",
        "  1      90.00",
        "  2      80.00  70.00",
        "final accuracy: 75.00 %",
        "during accuracy: 80.00 %",
        "backward transfer: -10.00 %",
        "forgetting: 10.00 %",
        "forward transfer: 2.00 %",
        "everything is in out/here",
    ]


def test_what_was_not_tested_is_left_blank(screen):
    show_row(screen[0], "test", [[None, 80.0], [None, 84.0]], 3)
    results = results_of([[90.0], [None, 70.0], [80.0, 60.0, 70.0]], num_tasks=3)
    show_summary(screen[0], results, "out/here")
    assert screen[1][0] == (
        "test accuracy (%) after task 2/3: 82.00 ± 2.00 on that task, the others not tested"
    )
    assert screen[1][4] == "  2             70.00"


def test_many_tasks_have_a_line_each(screen):
    matrix = [[90.0 - t + k for k in range(t + 1)] for t in range(11)]
    show_summary(screen[0], results_of(matrix, num_tasks=11), "out/here")
    assert screen[1][1:3] == [
        "  task       when learned  at the end  change",
        "  digits 0          90.00       80.00  -10.00",
    ]


def test_failed_seeds_are_counted_and_left_out(screen):
    results = results_of([[90.0], [80.0, 70.0]])
    results["seeds"].append({"seed": 43, "accuracy": [[50.0]], "failed": "the loss"})
    show_summary(screen[0], results, "out/here")
    assert "seeds that failed: 1" in screen[1]
    assert furthest(results["seeds"]) == results["seeds"][:1]


def test_words_for_numbers():
    assert mean_and_sem({"mean": 0.5, "sem": 0.25, "n": 3}, 100, 1) == "50.0 ± 25.0"
    assert mean_and_sem({"mean": 99.5, "sem": None, "n": 1}) == "99.50"
    assert (ranges([1, 2, 3]), ranges([1, 2]), ranges([1, 3, 4])) == ("1-3", "1, 2", "1, 3, 4")
