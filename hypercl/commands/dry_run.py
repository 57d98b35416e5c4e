"""--dry_run: what a run would take, without running it."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch

from hypercl.engine import groups
from hypercl.engine.capture import StepRunner
from hypercl.evaluation import Learned, evaluate
from hypercl.experiment import Experiment
from hypercl.options import EvaluationOptions
from hypercl.report.screen import Screen, spoken_time
from hypercl.rundir.checkpoint import Position

_TRIED = 20  # steps that are timed in all
_SLOW = 4  # before them in each task, those with what is slow once


class Training(Protocol):
    """What a command needs of train.TaskTraining."""

    generator: torch.Generator  # of its steps

    def step(self) -> None:
        """Take the next step of a task."""
        ...


def try_out(
    experiment: Experiment,
    start_training: Callable[[Experiment, Position], Training],
    num_learned: int = 0,
) -> dict[str, Any]:
    """Say what a run would take; makes no run directory.

    Args:
        start_training: Begins the training of a position's task; train.TaskTraining.at.
        num_learned: Tasks that the run which it continues has learned.

    Returns:
        What is said: numbers of weights, bytes, seconds.
    """
    options, tasks = experiment.options, experiment.tasks
    seeds = experiment.groups_of_seeds()
    position = Position.start(seeds).on_device(experiment.device, experiment.method.init)
    step_seconds, by_task = time_steps(experiment, position, start_training)
    evaluation = time_evaluation(experiment, position)
    steps = [experiment.length(task).num_steps for task in tasks[num_learned:]]
    num_tests = count_tests(
        range(num_learned + 1, len(tasks) + 1),
        options.evaluation,
        inferred=experiment.tells_tasks_apart,
    )
    main, trained = experiment.net.num_weights, experiment.method.num_trained
    num_bytes = len(position.seeds) * experiment.bytes_per_member()
    seconds = len(seeds) * (float(np.dot(steps, by_task[num_learned:])) + num_tests * evaluation)
    content = {
        "num_weights": {"main": main, "trained": trained},
        "compression_ratio": experiment.method.compression_ratio,
        "bytes": num_bytes,
        "step_seconds": step_seconds,
        "seconds": seconds,
    }
    free = groups.available_bytes(experiment.device)
    screen = Screen(lambda line: None)
    screen.say(f"{options.main_net.net_type} with {experiment.method.describe_size()}")
    screen.say(
        f"memory: about {num_bytes / 2**20:,.0f} MiB in the last task beside the images, of "
        f"{free / 2**20:,.0f} MiB free; {len(position.seeds)} of {len(experiment.seeds)} seed(s) "
        "at a time"
    )
    screen.say(
        f"a step: {1e3 * step_seconds[0]:.1f} ms in the first task, "
        f"{1e3 * step_seconds[-1]:.1f} ms in the last; {sum(steps):,} steps"
    )
    screen.say(f"the whole run: about {spoken_time(seconds)}")
    return content


def count_tests(ends: range, options: EvaluationOptions, *, inferred: bool) -> int:
    """How often a run tests one task with one network.

    Args:
        ends: How many tasks have been learned, at the end of each task of the run.
        inferred: Whether the tasks of samples are inferred.
    """
    of_all = [n for n in ends if n % options.test_iter == 0 or n == ends[-1]]
    num_tests = sum(of_all) + len(ends) - len(of_all)
    num_tests += 2 * (len(ends) - (ends[0] == 1))  # of tasks yet to be learned, but the first
    if inferred:
        num_tests += sum(n * n for n in (of_all if options.scenarios_every_task else of_all[-1:]))
    return num_tests


def time_steps(
    experiment: Experiment,
    position: Position,
    start_training: Callable[[Experiment, Position], Training],
) -> tuple[list[float], list[float]]:
    """Seconds that a step takes: in the tasks timed, and in all, by task.

    A step costs more with the first two earlier tasks, as the regularizer sets in and takes its
    form, and from then on nearly in proportion to them: so steps of the first three tasks and of
    the last are timed, and those between interpolated.
    """
    num_tasks = len(experiment.tasks)
    timed = sorted({*range(min(3, num_tasks)), num_tasks - 1})
    tried = _TRIED // len(timed)
    few = experiment.options.having(n_iter=tried + _SLOW, epochs=None)
    in_timed = []
    for task_id in timed:
        training = start_training(
            replace(experiment, options=few), replace(position, task_id=task_id)
        )
        eager = experiment.net.reads_values
        step = StepRunner(training.step, experiment.device, training.generator, eager=eager)
        _seconds(step, _SLOW, experiment.device)
        in_timed.append(_seconds(step, tried, experiment.device))
    return in_timed, np.interp(range(num_tasks), timed, in_timed).tolist()


def time_evaluation(experiment: Experiment, position: Position) -> float:
    """Seconds that a test of one task takes, on average over the tasks."""
    stats = experiment.net.fresh_stats(len(position.seeds), experiment.device)
    learned = Learned(experiment.net, experiment.method, position.ready_params, [stats])
    task, batch_size = experiment.tasks[0], experiment.options.evaluation.val_batch_size
    splits = experiment.splits_to_test(len(experiment.tasks))
    seconds = _seconds(
        lambda: evaluate(learned, task, 0, splits[0], batch_size), 1, experiment.device
    )
    numbers = [len(split.labels) for split in splits]
    return seconds * float(np.mean(numbers)) / numbers[0]


def _seconds(function: Callable[[], Any], times: int, device: torch.device) -> float:
    """Of one call, on average."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(times):
        function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / times
