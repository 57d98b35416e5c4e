"""What a run tests, and when; evaluation.py has how."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import torch

from hypercl.engine.members import Params
from hypercl.evaluation import (
    Learned,
    curves,
    evaluate_tasks,
    generated_images,
    has_curve,
    infer_tasks,
    median_margins,
)
from hypercl.experiment import Experiment
from hypercl.report.results import Report
from hypercl.rundir.checkpoint import Position, parted


def with_scales(experiment: Experiment, position: Position) -> Position:
    """The position with what rules that infer tasks keep of the task just learned.

    It is measured now, as the task's training samples are not at hand later. A run of which an
    earlier version learned the first tasks goes on without it.
    """
    if not experiment.keeps_scales:
        return position
    number, params, stats = position.task_id, position.ready_params, position.stats
    learned = Learned(experiment.net, experiment.method, params, stats)
    task = experiment.tasks_to_test(number)[number - 1]
    batch_size = experiment.options.evaluation.val_batch_size
    scales: Params = {}
    if number == 1:
        scales["margin"] = median_margins(learned, task, 0, batch_size)[:, None]
    elif "margin" in position.scales:
        of_task = median_margins(learned, task, number - 1, batch_size)
        scales["margin"] = torch.cat([position.scales["margin"], of_task[:, None]], dim=1)
    return replace(position, scales=scales)


def after_task(
    experiment: Experiment, position: Position, report: Report, between: Callable[[], None]
) -> None:
    """Test the tasks learned so far, and after the last one infer the tasks of all samples, where
    each task has a network or outputs of its own.

    Args:
        between: Called before each task; may raise to break off.
    """
    num_learned, options = position.task_id, experiment.options.evaluation
    params, stats, scales = position.ready_params, position.stats, position.scales
    learned = Learned(experiment.net, experiment.method, params, stats, scales)
    tasks = experiment.tasks_to_test(num_learned)[:num_learned]
    splits = experiment.splits_to_test(num_learned)
    at_end = num_learned == len(experiment.tasks)
    all_tested = at_end or num_learned % options.test_iter == 0
    first = 0 if all_tested else num_learned - 1
    rows = evaluate_tasks(
        learned,
        tasks,
        splits,
        options.val_batch_size,
        task_ids=range(first, num_learned),
        between=between,
    )
    measured = {s: [None] * first + row for s, row in zip(position.seeds, rows, strict=True)}
    inferred = None
    every_time = options.scenarios_every_task and all_tested
    if experiment.tells_tasks_apart and (at_end or every_time):
        inferences = infer_tasks(learned, tasks, splits, options.val_batch_size, between=between)
        inferred = dict(zip(position.seeds, inferences, strict=True))
    if all(map(has_curve, tasks)):
        report.draw_fits(dict(zip(position.seeds, curves(learned, tasks), strict=True)))
    report.draw_generated(position.seeds, partial(generated_images, learned, tasks))
    _, memory = parted(position.memory)
    kept = experiment.method.kept_bytes(position.ready_params, memory, num_learned)
    report.end_task(num_learned - 1, measured, inferred, kept)


def before_task(
    experiment: Experiment, position: Position, report: Report, between: Callable[[], None]
) -> None:
    """Test tasks that are yet to be learned, where a run has not done so: all of them without any
    training when it begins, and each right before it is learned.
    """
    seeds, task_id = position.seeds, position.task_id
    unlearned = range(max(1, task_id), len(experiment.tasks))
    if report.lacks_untrained(seeds, unlearned):
        fresh = position
        if task_id > 0:  # of a run that continues another
            fresh = replace(position, params=experiment.init(seeds), stats=[])
        measured = _test_unlearned(experiment, fresh, unlearned, between)
        report.untrained(task_id, unlearned, measured)
    if report.lacks_before(seeds, task_id):
        report.before(task_id, _test_unlearned(experiment, position, [task_id], between))


def _test_unlearned(
    experiment: Experiment,
    position: Position,
    task_ids: Iterable[int],
    between: Callable[[], None],
) -> dict[int, list[float]]:
    """Test tasks that are yet to be learned, for forward transfer.

    Returns:
        By seed, the accuracies on them, in percent, or the errors.
    """
    tasks = experiment.tasks_to_test(position.task_id)
    batch_size = experiment.options.evaluation.val_batch_size
    stats = [experiment.stats_to_begin_with(position.stats, len(position.seeds))] * len(tasks)
    learned = Learned(experiment.net, experiment.method, position.ready_params, stats)
    splits = experiment.splits_to_test(len(tasks))
    rows = evaluate_tasks(learned, tasks, splits, batch_size, task_ids=task_ids, between=between)
    return dict(zip(position.seeds, rows, strict=True))
