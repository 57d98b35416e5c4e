"""--eval: test what a finished run has learned again."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hypercl.code import within_run
from hypercl.errors import RunFailed
from hypercl.evaluation import evaluate_tasks
from hypercl.learned import load
from hypercl.options import Options
from hypercl.report.screen import Screen
from hypercl.report.summary import show_row
from hypercl.rundir.forms import matrix_of
from hypercl.rundir.provenance import device_name
from hypercl.rundir.stored import read_config, read_finished

_ROUNDED = 2  # samples of a task that another device may classify otherwise
_ROUNDED_ERROR = 1e-3  # by what share a mean squared error may differ there


def retest(path: Path, choose: Callable[[Mapping[str, Any]], Options]) -> dict[str, Any]:
    """Test a finished run's networks on all tasks, and compare with its results.

    Args:
        choose: From the run's options by name, those to load it with.

    Raises:
        RunFailed: An accuracy, or error, is not the one that was found when the run ended; on
            another device or with another number of threads, it is off by more than rounding can
            explain.
    """
    results, config = read_finished(path), read_config(path)
    run = load(path, choose)
    experiment = run.experiment
    tasks = experiment.tasks_to_test(len(experiment.tasks))
    splits = experiment.splits_to_test(len(tasks))
    batch_size = experiment.options.evaluation.val_batch_size
    measure = experiment.measure
    measured: dict[int, list[float]] = {}
    with within_run(experiment.options.kinds[1:]):
        for group in run.groups:
            rows = evaluate_tasks(run.of(group), tasks, splits, batch_size)
            measured |= dict(zip(group, rows, strict=True))
    screen = Screen(lambda line: None)
    show_row(
        screen,
        results["tested_on"],
        list(measured.values()),
        len(experiment.tasks),
        measure,
    )
    stored = {s["seed"]: matrix_of(s)[-1] for s in results["seeds"] if "failed" not in s}
    there, here = config["device"], device_name(experiment.device)
    allowed = of_error = 0.0
    if there != here and measure.higher_is_better:
        allowed = 100 * _ROUNDED / min(len(split.labels) for split in splits)
    elif there != here:
        of_error = _ROUNDED_ERROR
    wrong = [
        seed
        for seed, row in stored.items()
        if seed not in measured
        or len(measured[seed]) != len(row)
        or any(
            abs(a - b) > allowed + of_error * b for a, b in zip(measured[seed], row, strict=True)
        )
    ]
    what = "accuracies" if measure.higher_is_better else "errors"
    if not wrong and measured != stored:
        warnings.warn(
            f"some {what} differ by rounding: the run was tested on {there}, this is {here}",
            stacklevel=2,
        )
    if wrong:
        seed = wrong[0]
        raise RunFailed(
            f"{path} stores other {what} than were found now: of seed {seed} "
            f"{stored[seed]}, now {measured.get(seed)}"
        )
    screen.say("the same as stored" if measured == stored else "as stored but for rounding")
    return results
