"""--dry_run: what a run would take, without running it."""

import time
from typing import Any

import numpy as np

from hypercl.commands.cost import Cost, StartTraining, Stopwatch, measure, time_plots
from hypercl.engine import groups
from hypercl.experiment import Experiment
from hypercl.options import EvaluationOptions
from hypercl.report.results import PLOT_SECONDS
from hypercl.report.screen import Screen, spoken_time_at


def try_out(
    experiment: Experiment,
    start_training: StartTraining,
    num_learned: int = 0,
    used: float = 0.0,
) -> dict[str, Any]:
    """Say what a run would take; makes no run directory.

    Args:
        start_training: Begins the training of a position's task; train.TaskTraining.at.
        num_learned: Tasks that the run which it continues has learned.
        used: Seconds of the processor that the process had taken before the command. What it has
            taken since, to begin, a run takes as well.

    Returns:
        What is said: numbers of weights, bytes, seconds of a processor, and what share of one the
        machine gives now.
    """
    options, seeds = experiment.options, experiment.groups_of_seeds()
    begun = time.process_time() - used
    stopwatch = Stopwatch(experiment.device)
    cost = measure(experiment, start_training, stopwatch)
    plots, again = time_plots(experiment, stopwatch)
    learning = len(seeds) * seconds_of_learning(experiment, cost, num_learned)
    seconds = begun + cost.once + learning + plots
    # Once more on the way, at the end of a task, where the run is not over by then.
    if len(experiment.tasks) > 1 and seconds / stopwatch.share > PLOT_SECONDS:
        seconds += again
    steps = sum(experiment.length(task).num_steps for task in experiment.tasks[num_learned:])
    num_bytes = len(seeds[0]) * experiment.bytes_per_member()
    content = {
        "num_weights": {
            "main": experiment.net.num_weights,
            "trained": experiment.method.num_trained,
        },
        "compression_ratio": experiment.method.compression_ratio,
        "bytes": num_bytes,
        "step_seconds": cost.timed,
        "seconds": seconds,
        "share": stopwatch.share,
    }
    free = groups.available_bytes(experiment.device)
    screen = Screen(lambda line: None)
    screen.say(f"{options.main_net.net_type} with {experiment.method.describe_size()}")
    screen.say(
        f"memory: about {num_bytes / 2**20:,.0f} MiB in the last task beside the images, of "
        f"{free / 2**20:,.0f} MiB free; {len(seeds[0])} of {len(experiment.seeds)} seed(s) "
        "at a time"
    )
    screen.say(
        f"a step: {1e3 * cost.timed[0]:.1f} ms in the first task, "
        f"{1e3 * cost.timed[-1]:.1f} ms in the last; {steps:,} steps"
    )
    screen.say(f"the whole run: about {spoken_time_at(seconds, stopwatch.share)}")
    return content


def seconds_of_learning(experiment: Experiment, cost: Cost, num_learned: int) -> float:
    """Of a group of seeds, from its first task that is not learned yet to its last.

    Args:
        num_learned: Tasks that the run which it continues has learned.
    """
    evaluation, tasks = experiment.options.evaluation, experiment.tasks
    to_learn = range(num_learned, len(tasks))
    steps = [experiment.length(tasks[task_id]).num_steps for task_id in to_learn]
    training = float(np.dot(steps, cost.steps[num_learned:])) + sum(cost.begins[num_learned:])
    validations = sum(-(-of_task // evaluation.val_iter) for of_task in steps)
    num_tests = count_tests(
        range(num_learned + 1, len(tasks) + 1), evaluation, inferred=experiment.tells_tasks_apart
    )
    return training + len(steps) * cost.end + validations * cost.validation + num_tests * cost.test


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
