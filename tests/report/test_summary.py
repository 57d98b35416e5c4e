import io
import re

import pytest
from rich.console import Console

from hypercl import presets
from hypercl.inference import RULES
from hypercl.report import metrics
from hypercl.report.screen import Screen
from hypercl.report.summary import furthest, mean_and_std, ranges, show_row, show_summary


@pytest.fixture
def screen():
    lines = []
    return Screen(lambda line: lines.append(line[26:]), console=Console(file=io.StringIO())), lines


def results_of(*matrices, num_tasks=2):
    unlearned = {"accuracy_before": [None, 52.0], "accuracy_untrained": [None, 50.0]}
    seeds = [{"seed": 42 + i, "accuracy": matrix, **unlearned} for i, matrix in enumerate(matrices)]
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
        "test accuracy (%) after task 2/2, ± standard deviation, n = 2",
        "  task      1      2   mean",
        "        92.00  82.00  87.00",
        "  ±      2.83   2.83   2.83",
    ]


def test_a_row_of_many_tasks_is_one_line(screen):
    show_row(screen[0], "test", [[90.0, 80.0, 85.0]], 11)
    show_row(screen[0], "test", [[90.0, 80.0, 85.0], [92.0, 80.0, 87.0]], 11)
    assert screen[1] == [
        "test accuracy (%) after task 3/11: 85.00, mean 85.00, worst 80.00 (task 2)",
        "test accuracy (%) after task 3/11: 86.00 ± 1.41, mean 85.67 ± 0.94, worst 80.00 ± 0.00 "
        "(task 2); ± standard deviation, n = 2",
    ]


def test_a_row_shows_what_was_tested_and_a_mean_of_nothing_less_than_all(screen):
    show_row(screen[0], "test", [[None, 80.0]], 3)
    show_row(screen[0], "test", [[None, 80.0]], 11)
    assert screen[1] == [
        "test accuracy (%) after task 2/3",
        "  task      2",
        "        80.00",
        "test accuracy (%) after task 2/11: 80.00",
    ]


def test_what_was_not_tested_is_a_dash_in_the_matrix(screen):
    matrix = [[90.0], [None, 85.0], [80.0, 70.0, 60.0]]
    results = {**results_of([[90.0]], num_tasks=3), "seeds": [{"seed": 1, "accuracy": matrix}] * 2}
    show_summary(screen[0], results, "out/here")
    assert screen[1][2:5] == ["  1      90.00", "  2          -  85.00",
                              "  3      80.00  70.00  60.00"]  # fmt: skip


def test_a_metric_that_no_seed_has_is_undefined(screen):
    show_summary(screen[0], results_of([[90.0]], num_tasks=1), "out/here")
    assert screen[1][3:] == [
        "final accuracy: 90.00 %",
        "during accuracy: 90.00 %",
        "backward transfer: undefined",
        "forgetting: undefined",
        "forward transfer: 2.00 %",
        "everything is in out/here",
    ]


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("num_seeds", [1, 5])
def test_no_line_is_wider_than_the_screen_and_no_number_is_cut(width, num_seeds):
    for num_tasks in (5, 10, 100):
        matrix = [[100.0 - t + k / 7 for k in range(t + 1)] for t in range(num_tasks)]
        matrices = [[[v - i / 3 for v in row] for row in matrix] for i in range(num_seeds)]
        results = results_of(*matrices, num_tasks=num_tasks)
        names = ("task_inference", "cl2", "cl3")
        scenarios = ["cl1", *(f"{n}_{rule}" for n in names for rule in RULES)]
        numbers = metrics.summarize([100.0, 0.0, 54.5][:num_seeds])
        results["summary"] |= dict.fromkeys(scenarios, numbers)
        results["config"]["preset"] = "paper-splitmnist"
        preset = presets.load("paper-splitmnist")
        results["published"] = presets.compare(preset, results["summary"])
        results["altered"] = ["--n_iter (2000 there, 3 here)", "--mlp_arch (400,400 there, 7 here)"]
        for terminal in (False, True):
            file = io.StringIO()
            console = Console(file=file, width=width, force_terminal=terminal, highlight=False)
            shown = Screen(lambda line: None, console=console)
            show_row(shown, "test", [matrix[-1] for matrix in matrices], num_tasks)
            show_summary(shown, results, "out/here")
            lines = re.sub("\x1b\\[[0-9;]*m", "", file.getvalue()).splitlines()
            assert max(map(len, lines)) <= width
            assert "…" not in file.getvalue()
            shown_numbers = re.findall(r"\d+\.\d+", " ".join(lines))
            assert {len(number.split(".")[1]) for number in shown_numbers} <= {1, 2}
            row = [f"{m:.1f}" for m in metrics.mean_matrix(matrices)[-1]]
            if num_tasks < 100:
                assert [f"{float(number):.1f}" for number in shown_numbers][:3] == row[:3]
            spreads = {line for line in lines if "±" in line}
            assert bool(spreads) == (num_seeds > 1)


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
    assert mean_and_std({"mean": 50.0, "std": 25.0, "sem": 1.0, "n": 3}) == "50.00 ± 25.00"
    assert mean_and_std({"mean": 99.5, "std": None, "sem": None, "n": 1}) == "99.50"
    assert (ranges([1, 2, 3]), ranges([1, 2]), ranges([1, 3, 4])) == ("1-3", "1, 2", "1, 3, 4")
