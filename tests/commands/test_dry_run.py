"""What --dry_run makes of times; how it counts steps and tests, test_run.py has."""

import time

import pytest
import torch
from helpers import make_experiment, make_task

import run
from hypercl.commands import cost
from hypercl.commands.cost import Cost, Stopwatch, measure
from hypercl.commands.dry_run import seconds_of_learning
from hypercl.report.screen import spoken_time_at
from train import TaskTraining

CPU = torch.device("cpu")
SMALL = {"batch_size": 4, "val_set_size": 4, "n_iter": 5}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(cost, "_ENOUGH", 0.02)


def test_waiting_is_in_the_share_and_not_in_the_seconds():
    def work():
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass

    stopwatch = Stopwatch(CPU)
    assert stopwatch.share == 1
    made, seconds = stopwatch.time(lambda: work() or "made")
    assert (made, seconds) == ("made", pytest.approx(0.05, rel=0.5))
    before = stopwatch.share
    _, seconds = stopwatch.time(lambda: time.sleep(0.2))
    assert seconds < 0.05
    assert stopwatch.share < before


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (1.0, "30 seconds"),
        (0.93, "30 seconds"),
        (
            0.5,
            "30 seconds alone; this machine seems to give it 0.5 of a processor now, which makes "
            "60 seconds",
        ),
    ],
)
def test_the_share_is_said_where_it_is_small(share, said):
    assert spoken_time_at(30, share) == said


@pytest.mark.parametrize("method", ["ewc", "replay", "der", "si", "hnet"])
def test_later_tasks_are_timed_with_what_is_kept_of_earlier_ones(method):
    started = []

    def start(experiment, position):
        started.append((position.task_id, set(position.memory)))
        return TaskTraining.at(experiment, position)

    experiment = make_experiment([make_task()] * 6, method=method, **SMALL)
    measured = measure(experiment, start, Stopwatch(CPU))
    task_ids, memories = zip(*started, strict=True)
    assert task_ids == (0, 1, 2, 5)
    assert memories[0] == set()
    assert [bool(memory) for memory in memories[1:]] == [method != "hnet"] * 3
    assert len(measured.steps) == len(measured.begins) == 6
    assert measured.timed == [measured.steps[task_id] for task_id in task_ids]
    assert measured.steps[3] == pytest.approx((2 * measured.steps[2] + measured.steps[5]) / 3)
    assert (
        min(measured.validation, measured.test, measured.end, *measured.steps, *measured.begins) > 0
    )


def test_all_parts_of_a_run_are_added_up():
    experiment = make_experiment([make_task()] * 3, **SMALL | {"val_iter": 2})
    measured = Cost([1.0, 2.0, 4.0], [], [0.1, 0.2, 0.4], 9.0, 0.01, 0.001, 0.0001)
    # Tests after the tasks, of tasks yet to be learned, and of all samples by all networks.
    num_tests = (1 + 2 + 3) + 2 * 2 + 3 * 3
    expected = 5 * 7 + 0.7 + 3 * 0.01 + 3 * 3 * 0.001 + num_tests * 0.0001
    assert seconds_of_learning(experiment, measured, 0) == pytest.approx(expected)
    num_tests = 3 + 2 + 9
    expected = 5 * 4 + 0.4 + 0.01 + 3 * 0.001 + num_tests * 0.0001
    assert seconds_of_learning(experiment, measured, 2) == pytest.approx(expected)


def test_groups_of_seeds_take_their_turns_and_what_begins_and_ends_is_there_once(monkeypatch):
    monkeypatch.setattr("hypercl.commands.dry_run.measure", lambda *args: COST)
    monkeypatch.setattr("hypercl.commands.dry_run.time_plots", lambda *args: (7.0, 3.0))
    monkeypatch.setattr("hypercl.experiment.Experiment.groups_of_seeds", lambda self: [[42], [43]])
    given = ["--no_cuda", "--dry_run", "--num_tasks=1", "--n_iter=10", "--num_seeds=2"]
    seconds = run.main(given)["seconds"]
    assert (
        2 * 10 + 7 + 5 < seconds < 2 * 10 + 7 + 5 + 30
    )  # with the seconds up to there, on a busy machine


COST = Cost([1.0], [1.0], [0.0], 5.0, 0.0, 0.0, 0.0)
