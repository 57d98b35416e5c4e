"""The three scenarios: what is tested among which classes, and where tasks are inferred."""

import pytest
import torch
from helpers import CPU, make_experiment, make_sequence, random_weights

from hypercl import testing
from hypercl.evaluation import Learned, evaluate_tasks
from hypercl.options import Options
from hypercl.rundir.checkpoint import Position

SIZES = (2, 3, 2)


class Kept:
    """A report that keeps what it is told of a task."""

    def end_task(self, task_id, accuracy, inferred, kept):
        self.accuracy, self.inferred, self.kept = accuracy, inferred, kept

    def draw_generated(self, seeds, images_of):
        assert images_of(0) is None


def after_tasks(scenario, num_learned, method="finetune", seeds=(1, 2), **values):
    """The experiment, untrained networks, and what is reported of them after a task."""
    tasks = make_sequence(scenario, SIZES)
    experiment = make_experiment(tasks, method=method, cl_scenario=scenario, **values)
    if method == "finetune":
        params = {"weights": random_weights(experiment.net, len(seeds), 0, torch.float32)}
    else:
        params = experiment.method.init(seeds)
    stats = [experiment.net.fresh_stats(len(seeds), CPU)] * num_learned
    start = Position.start([list(seeds)]).on_device(CPU, lambda seeds: params)
    position = Position(**{**vars(start), "task_id": num_learned, "stats": stats})
    report = Kept()
    testing.after_task(experiment, position, report, lambda: None)
    return experiment, params, report


@pytest.mark.parametrize("num_learned", [1, 2, 3])
@pytest.mark.parametrize("scenario", [1, 2, 3])
def test_accuracies_are_those_of_a_loop_over_samples(scenario, num_learned):
    experiment, params, report = after_tasks(scenario, num_learned)
    ends = [2, 5, 7]
    for member, seed in enumerate((1, 2)):
        for task_id in range(num_learned):
            task, right = experiment.tasks[task_id], 0
            among = {
                1: range(ends[task_id] - SIZES[task_id], ends[task_id]),
                2: range(SIZES[task_id]),
                3: range(ends[num_learned - 1]),
            }[scenario]
            for image, label in zip(*task.test, strict=True):
                weights = params["weights"][member]
                logits = experiment.net.logits(weights, task.inputs(image[None]), {})[0]
                best = max(among, key=lambda output: logits[output].item())
                right += best == label + (among[0] if scenario == 1 else 0)
            expected = 100 * right.item() / len(task.test.labels)
            assert report.accuracy[seed][task_id] == pytest.approx(expected)


def test_more_classes_make_it_harder():
    """The same network, after one task and after three."""
    _, _, early = after_tasks(3, 1)
    _, _, late = after_tasks(3, 3)
    for seed in (1, 2):
        assert late.accuracy[seed][0] <= early.accuracy[seed][0]
    assert late.accuracy != early.accuracy


def test_tasks_are_tested_among_the_classes_so_far_and_their_own():
    experiment = make_experiment(make_sequence(3, SIZES), method="finetune", cl_scenario=3)
    for num_learned, ends in ((0, [2, 5, 7]), (1, [2, 5, 7]), (2, [5, 5, 7]), (3, [7, 7, 7])):
        outputs = [task.outputs for task in experiment.tasks_to_test(num_learned)]
        assert outputs == [slice(end) for end in ends]
    for scenario in (1, 2):
        tasks = make_sequence(scenario, SIZES)
        experiment = make_experiment(tasks, method="finetune", cl_scenario=scenario)
        for num_learned in range(4):
            assert experiment.tasks_to_test(num_learned) == tasks


@pytest.mark.parametrize(
    ("scenario", "method", "inferred"),
    [(1, "finetune", True), (2, "finetune", False), (3, "finetune", False), (1, "separate", True),
     (1, "hnet", True)],
)  # fmt: skip
def test_tasks_are_inferred_where_each_has_a_network_or_outputs_of_its_own(
    scenario, method, inferred
):
    experiment, params, report = after_tasks(scenario, 3, method)
    assert experiment.tells_tasks_apart == inferred
    assert (report.inferred is not None) == inferred
    if inferred:
        stats = [experiment.net.fresh_stats(2, CPU)] * 3
        learned = Learned(experiment.net, experiment.method, params, stats)
        splits = [task.test for task in experiment.tasks]
        for seed, row in zip(
            (1, 2), evaluate_tasks(learned, experiment.tasks, splits, 9), strict=True
        ):
            assert report.inferred[seed].cl1 == pytest.approx(row)
            assert report.accuracy[seed] == pytest.approx(row)
    _, _, before = after_tasks(scenario, 2, method)
    assert before.inferred is None  # but after every task where that is asked for
    _, _, every = after_tasks(scenario, 2, method, scenarios_every_task=True)
    assert (every.inferred is not None) == inferred


@pytest.mark.parametrize(
    ("values", "scenario"),
    [
        ({}, None),  # of the hypernetwork: shared outputs, the task known
        ({"multi_head": True}, 1),
        ({"cl_scenario": 1}, 1),
        ({"method": "separate"}, None),
        ({"method": "ewc"}, 2),
        ({"method": "ewc", "multi_head": True}, 1),
        ({"method": "ewc", "cl_scenario": 2}, 2),
        ({"method": "ewc", "cl_scenario": 3}, 3),
    ],
)
def test_the_scenario_of_a_run(values, scenario):
    options = Options.of(values)
    assert options.scenario == scenario
    assert options.task.has_heads == (scenario == 1)
    assert options.task.has_growing_outputs == (scenario == 3)
    assert options.task.shares_outputs == (scenario in (None, 2))
