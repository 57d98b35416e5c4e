"""What a point has reached, from its results.json."""

import math
from pathlib import Path

import pytest
from helpers import read_json

import run
from hypercl.errors import InputError
from hypercl.measure import ACCURACY, ERROR
from hypercl.report.metrics import summarize
from hypercl.sweeps.values import (
    INFERRED,
    Value,
    metric_named,
    metrics_for,
    names_of,
    value_of,
)
from train_args import parse_args

ROWS = [[90.0], [80.0, 70.0], [60.0, 65.0, 95.0]]


def results(*matrices, **other):
    seeds = [
        {
            "seed": 42 + i,
            "accuracy": matrix,
            "accuracy_before": [None, 50.0, 40.0],
            "accuracy_untrained": [None, 30.0, 20.0],
        }
        for i, matrix in enumerate(matrices)
    ]
    common = {"tested_on": "validation", "scenario": 1, "tasks": ["a", "b", "c"], "seeds": seeds}
    return common | other


def plus(rows, more):
    return [[value + more for value in row] for row in rows]


@pytest.mark.parametrize(
    ("name", "after", "expected"),
    [
        ("final_accuracy", None, 220 / 3),
        ("cl1", None, 220 / 3),
        ("during_accuracy", None, 85),
        ("forgetting", None, 17.5),
        ("backward_transfer", None, -17.5),
        ("forward_transfer", None, 20),
        ("final_accuracy", 1, 90),
        ("cl1", 2, 75),
        ("during_accuracy", 2, 80),
        ("forgetting", 2, 10),
        ("forward_transfer", 2, 20),
    ],
)
def test_a_metric_is_known_at_the_end_and_after_fewer_tasks(name, after, expected):
    value = value_of(results(ROWS), metric_named(name), after)
    assert value.mean == pytest.approx(expected)
    assert value[1:] == (None, 1, False)
    assert value_of(results(ROWS[:after]), metric_named(name), after) == value  # in mid-run


def test_of_several_seeds_it_is_the_mean_with_its_standard_error():
    value = value_of(results(ROWS, plus(ROWS, 2)), metric_named("final_accuracy"), 1)
    assert value == Value(91.0, pytest.approx(1.0), 2, diverged=False)


def test_a_point_of_which_a_seed_failed_has_diverged():
    content = results(ROWS, ROWS[:1])
    content["seeds"][1]["failed"] = "the loss is not finite"
    for name, worst in (("cl1", 0.0), ("forgetting", 100.0), ("backward_transfer", -100.0)):
        assert value_of(content, metric_named(name)) == Value(worst, None, 2, diverged=True)
    assert value_of(content, metric_named("cl1"), 2).diverged
    assert value_of(content, metric_named("cl1"), 1) == Value(90.0, 0.0, 2, diverged=False)


def test_seeds_of_a_later_group_are_left_out_before_the_end():
    """They begin when those before them have learned all tasks, or as many as were asked for."""
    content = results(ROWS, plus(ROWS, 2), [])
    assert value_of(content, metric_named("cl1"), 1) == Value(91.0, pytest.approx(1), 2, False)
    with pytest.raises(InputError, match="not learned yet"):
        value_of(content, metric_named("cl1"))


def test_tests_are_not_looked_at():
    with pytest.raises(InputError, match="of test samples, and not of validation samples"):
        value_of(results(ROWS, tested_on="test"), metric_named("cl1"))
    content = results(ROWS, tested_on="test")
    assert value_of(content, metric_named("cl1"), tested_on="test").n == 1


@pytest.mark.parametrize(
    ("content", "name", "after", "words"),
    [
        (results(ROWS[:2]), "cl1", None, "3 tasks are not learned yet"),
        (results(ROWS), "forgetting", 1, "no forgetting after 1 tasks"),
        (results(ROWS), "cl2", None, "no cl2 after 3 tasks"),
        (results(ROWS), "cl3_entropy", None, "no cl3_entropy"),
        (results([[90.0], [None, 70.0]]), "cl1", 2, "no cl1 after 2 tasks"),
        (results(ROWS[:1], ROWS[:1]), "cl1", 2, "2 tasks are not learned yet"),
        (results(), "cl1", None, "3 tasks are not learned yet"),
    ],
)
def test_what_is_not_there_is_refused(content, name, after, words):
    with pytest.raises(InputError, match=words):
        value_of(content, metric_named(name), after)


def test_with_the_task_inferred_the_last_numbers_alone_are_there():
    content = results(ROWS)
    content["seeds"][0]["scenarios"] = {"cl3_entropy": {"tasks": [], "mean": 44.0}}
    assert value_of(content, metric_named("cl3_entropy")).mean == 44
    with pytest.raises(InputError, match="after 2 tasks"):
        value_of(content, metric_named("cl3_entropy"), 2)


def test_of_regression_less_is_better():
    content = results(ROWS, measure="mse", scenario=None)
    for seed in content["seeds"]:
        seed["error"] = seed.pop("accuracy")
    metric = metric_named("final_error", ERROR)
    assert (metric.higher_is_better, metric.sign, metric.worst) == (False, -1, math.inf)
    assert value_of(content, metric).mean == pytest.approx(220 / 3)
    assert value_of(content, metric_named("forgetting", ERROR)).mean == pytest.approx(-12.5)
    assert not metric_named("forgetting", ERROR).higher_is_better
    content["seeds"][0]["error"][2][0] = math.inf
    assert value_of(content, metric) == Value(math.inf, None, 1, diverged=True)


def test_every_metric_has_a_direction():
    higher = {name for name in names_of(ACCURACY) if metric_named(name).higher_is_better}
    assert set(names_of(ACCURACY)) - higher == {"forgetting"}
    lower = {name for name in names_of(ERROR) if not metric_named(name, ERROR).higher_is_better}
    assert lower == {"final_error", "during_error", "forgetting", "cl1", "cl2", "cl3"}
    assert {"cl2_scaled", "cl3_entropy"} < set(INFERRED) < set(names_of(ACCURACY))
    with pytest.raises(InputError, match=r"no metric final_acuracy \(did you mean final_accuracy"):
        metric_named("final_acuracy")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--method=ewc --cl_scenario=1",
        "--method=si --cl_scenario=3",
        "--cl_exp=toyregression",
        "--num_classes_per_task=1,2",
    ],
)
def test_the_metrics_of_a_run_are_those_that_its_results_have(line, few_digits):
    short = ["--n_iter=2", "--mlp_arch=4", "--no_cuda", "--loglevel_info"]
    argv = [*line.split(), *short, "--num_seeds=2", "--test_with_val_set"]
    argv += [] if "per_task" in line else ["--num_tasks=2"]
    argv += ["--val_set_size=20", "--out_dir=out"]
    run.main(argv)
    content, options = read_json(Path("out/results.json")), parse_args(argv)
    named = set(content["summary"]) - {"cl1"} | {f"cl{options.scenario or 1}"}
    assert set(metrics_for(options)) == named
    for name in metrics_for(options):
        value = value_of(content, metric_named(name, options.task.measure))
        of_seeds = content["summary"][name]
        assert (value.mean, value.sem, value.n) == (
            pytest.approx(of_seeds["mean"]), pytest.approx(of_seeds["sem"]), 2
        )  # fmt: skip
    rows = [seed[options.task.measure.name][0] for seed in content["seeds"]]
    first = value_of(content, metric_named(metrics_for(options)[0], options.task.measure), 1)
    assert first.mean == pytest.approx(summarize([row[0] for row in rows])["mean"])
