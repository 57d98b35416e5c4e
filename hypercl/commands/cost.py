"""What a run costs, from a few of its steps and tests: the times that --dry_run adds up.

On a CPU, seconds are those of a processor: waiting for other work on the machine is not in them.
How long they took by the clock on the wall says what share of a processor the machine gives. What
stays in them is that a processor is slower where others share its core or its caches. On a GPU, all
seconds are those of the wall.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch

from hypercl.engine.capture import StepRunner
from hypercl.evaluation import Learned, evaluate
from hypercl.experiment import Experiment
from hypercl.report import plots
from hypercl.report.drawing import files_of
from hypercl.rundir.checkpoint import Position
from hypercl.tasks.task import Split

_SLOW = 4  # steps before those timed, with what is slow once: as many as precede a graph's replay
_FEWEST, _MOST, _ENOUGH = 3, 100, 0.5  # steps timed in a task; seconds after which they are enough
_AT_ONCE = 20  # steps between two waits for a GPU, which are no part of a run; divides _MOST
_REPEATS = 3  # tests of one task
_PLOTS = 4  # figures that most runs leave
_Made = TypeVar("_Made")


class Training(Protocol):
    """What a command needs of train.TaskTraining."""

    generator: torch.Generator  # of its steps

    def step(self) -> None:
        """Take the next step of a task."""
        ...

    def result(self, position: Position) -> Position:
        """Where the run is when the task has been learned."""
        ...


StartTraining = Callable[[Experiment, Position], Training]


class Stopwatch:
    """Times work, and what share of a processor all of it got.

    Args:
        device: On which the work is, which is waited for.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._own = self._wall = 0.0

    def time(self, work: Callable[[], _Made]) -> tuple[_Made, float]:
        """What the work returns, and how many seconds it takes alone on the machine.

        Of several threads, the calling one takes part in all that is computed, and where it sleeps,
        others are busy. So the time is the calling thread's own, or that of all threads by their
        number, whichever is longer.
        """
        self._wait()
        wall, own, of_all = time.perf_counter(), time.thread_time(), time.process_time()
        made = work()
        self._wait()
        own, of_all = time.thread_time() - own, time.process_time() - of_all
        wall = time.perf_counter() - wall
        own = wall if self._on_gpu else min(wall, max(own, of_all / torch.get_num_threads()))
        self._own, self._wall = self._own + own, self._wall + wall
        return made, own

    @property
    def share(self) -> float:
        """Of a processor, in (0, 1]; 1 on a GPU, and before anything is timed."""
        return self._own / self._wall if self._own > 0 else 1.0

    def _wait(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize()


class Cost(NamedTuple):
    """Seconds of the parts of a run, for a group of seeds that train together."""

    steps: list[float]  # one step, by task
    timed: list[float]  # the same of the tasks of which steps were timed
    # Before the steps of a task, what is remembered and drawn, and on a GPU the capture; by task.
    begins: list[float]
    once: float  # what the first steps and tests of a process take longer than others
    end: float  # after the steps of a task: what is kept of it
    validation: float  # a test of the validation samples
    test: float  # a test of one task, on average over the tasks


def measure(experiment: Experiment, start_training: StartTraining, stopwatch: Stopwatch) -> Cost:
    """Time parts of a run.

    A step costs more with the first two earlier tasks, as a penalty sets in and takes its form, and
    from then on nearly in proportion to them: so steps of the first three tasks and of the last are
    timed, and those between interpolated. In all of them the method remembers the first alone.

    Args:
        start_training: Begins the training of a position's task; train.TaskTraining.at.
    """
    num_tasks = len(experiment.tasks)
    timed = sorted({*range(min(3, num_tasks)), num_tasks - 1})
    position = Position.start(experiment.groups_of_seeds())
    position = position.on_device(experiment.device, experiment.init)
    steps, begins, end, once = [], [], 0.0, 0.0
    for task_id in timed:
        training, seconds = stopwatch.time(
            partial(start_training, _long_enough(experiment), replace(position, task_id=task_id))
        )
        step, slow = _time_step(experiment, training, stopwatch)
        steps.append(step)
        captured = experiment.device.type == "cuda"
        begins.append(seconds + slow if captured else seconds)
        once += 0 if captured else slow
        if task_id == 0:
            position, end = stopwatch.time(partial(training.result, position))
    every = range(num_tasks)
    validation, test, slow = time_tests(experiment, position, stopwatch)
    return Cost(
        np.interp(every, timed, steps).tolist(),
        steps,
        np.interp(every, timed, begins).tolist(),
        once + slow,
        end,
        validation,
        test,
    )


def _long_enough(experiment: Experiment) -> Experiment:
    """The same with the steps in a task that are to be timed, at least."""
    num_steps = max(experiment.length(task).num_steps for task in experiment.tasks)
    n_iter = max(num_steps, _SLOW + _MOST)
    return replace(experiment, options=experiment.options.having(n_iter=n_iter, epochs=None))


def _time_step(
    experiment: Experiment, training: Training, stopwatch: Stopwatch
) -> tuple[float, float]:
    """Seconds of a step, the mean, as some of a run's steps take long, too; and how many more the
    first ones take.
    """
    eager = experiment.net.reads_values
    step = StepRunner(training.step, experiment.device, training.generator, eager=eager)
    at_once = _AT_ONCE if experiment.device.type == "cuda" else 1

    def take(number: int) -> None:
        for _ in range(number):
            step()

    first = stopwatch.time(partial(take, _SLOW))[1]
    taken, seconds = 0, 0.0
    while taken < _FEWEST or (taken < _MOST and seconds < _ENOUGH):
        seconds += stopwatch.time(partial(take, at_once))[1]
        taken += at_once
    return seconds / taken, max(0.0, first - _SLOW * seconds / taken)


def time_tests(
    experiment: Experiment, position: Position, stopwatch: Stopwatch
) -> tuple[float, float, float]:
    """Seconds that a test of the first task's validation samples takes; a test of one task, on
    average over the tasks; and how many more the very first one.

    Args:
        position: Behind the first task.
    """
    task, batch_size = experiment.tasks[0], experiment.options.evaluation.val_batch_size
    learned = Learned(experiment.net, experiment.method, position.ready_params, position.stats)

    def seconds_of(split: Split) -> tuple[float, float]:
        test = partial(evaluate, learned, task, 0, split, batch_size)
        seconds = [stopwatch.time(test)[1] for _ in range(_REPEATS)]
        return median(seconds), max(0.0, seconds[0] - median(seconds))

    splits = experiment.splits_to_test(len(experiment.tasks))
    sizes = [len(split.labels) for split in splits]
    test, slow = seconds_of(splits[0])
    validation = seconds_of(task.validation)[0] if len(task.validation.labels) else 0.0
    return validation, test * float(np.mean(sizes)) / sizes[0], slow


def time_plots(experiment: Experiment, stopwatch: Stopwatch) -> tuple[float, float]:
    """Seconds that the plots of a run take when they are drawn for the first time, and again.

    Judged by two of them, of which the first finds the fonts.
    """
    names = [task.name for task in experiment.tasks]
    rows = [[50.0] * (i + 1) for i in range(len(names))]

    def draw() -> None:
        with plots.own_defaults():
            files_of(plots.accuracy_matrix([rows], names, ""), ["png"])

    first, more = (stopwatch.time(draw)[1] for _ in range(2))
    return first + (_PLOTS - 1) * more, _PLOTS * more
