"""--eval: test what a finished run has learned again."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hypercl.code import within_run
from hypercl.errors import RunFailed
from hypercl.evaluation import as_json, evaluate_tasks, infer_tasks
from hypercl.learned import load
from hypercl.options import Options
from hypercl.report.results import summary_of_inferred
from hypercl.report.screen import Screen
from hypercl.report.summary import show_row, show_scenarios
from hypercl.rundir.forms import matrix_of
from hypercl.rundir.provenance import device_name
from hypercl.rundir.stored import read_config, read_finished

_ROUNDED = 2  # samples of a task that another device may classify otherwise
_ROUNDED_ERROR = 1e-3  # by what share a mean squared error may differ there
_INFERRED = 1.0  # percent of a task's samples whose task may be another one by rounding


def retest(path: Path, choose: Callable[[Mapping[str, Any]], Options]) -> dict[str, Any]:
    """Test a finished run's networks on all tasks, with the tasks inferred where the run has
    inferred them, and compare with its results.

    Args:
        choose: From the run's options by name, those to load it with.

    Raises:
        RunFailed: An accuracy, or error, is not the one that was found when the run ended; on
            another device or with another number of threads, one with the task known is off by more
            than rounding can explain. One with the task inferred, which hangs on differences of
            numbers close to zero, is off by more than one percent on the same device; or the run
            has one by a rule that cannot be followed now.
    """
    results, config = read_finished(path), read_config(path)
    finished = {s["seed"]: s for s in results["seeds"] if "failed" not in s}
    infers = any("scenarios" in of_seed for of_seed in finished.values())
    run = load(path, choose)
    experiment = run.experiment
    tasks = experiment.tasks_to_test(len(experiment.tasks))
    splits = experiment.splits_to_test(len(tasks))
    batch_size = experiment.options.evaluation.val_batch_size
    measure = experiment.measure
    measured: dict[int, list[float]] = {}
    inferred: dict[int, dict[str, Any]] = {}
    with within_run(experiment.options.kinds[1:]):
        for group in run.groups:
            learned = run.of(group)
            rows = evaluate_tasks(learned, tasks, splits, batch_size)
            measured |= dict(zip(group, rows, strict=True))
            if infers:
                inferences = infer_tasks(learned, tasks, splits, batch_size)
                inferred |= dict(zip(group, map(as_json, inferences), strict=True))
    screen = Screen(lambda line: None)
    show_row(
        screen,
        results["tested_on"],
        list(measured.values()),
        len(experiment.tasks),
        measure,
    )
    if inferred:
        show_scenarios(screen, summary_of_inferred(list(inferred.values())))
    stored = {seed: matrix_of(of_seed)[-1] for seed, of_seed in finished.items()}
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
    off = 0.0
    for seed, of_seed in finished.items():
        off = max(off, _off(path, of_seed.get("scenarios", {}), inferred.get(seed, {})))
    if off > 0:
        differ = f"accuracies with the task inferred, which are off by {off:.3g} % at most"
        if there == here and off > _INFERRED:
            raise RunFailed(f"{path} stores other {differ}")
        warnings.warn(
            f"found other {differ}: the run was tested on {there}, this is {here}", stacklevel=2
        )
    same = measured == stored and off == 0
    screen.say("the same as stored" if same else "as stored but for rounding")
    return results


def _off(path: Path, stored: Mapping[str, Any], found: Mapping[str, Any]) -> float:
    """The largest difference of a seed's percentages with the task inferred from those found now.

    Raises:
        RunFailed: One was found by a rule that cannot be followed any more.
    """
    if unknown := stored.keys() - found.keys():
        raise RunFailed(f"{path} has no longer what {', '.join(sorted(unknown))} was found by")
    differences = [
        abs(then - now)
        for name in stored
        for then, now in zip(_percentages(stored[name]), _percentages(found[name]), strict=True)
    ]
    return max(differences, default=0.0)


def _percentages(value: Any) -> list[float]:
    """Of the tasks, or of a confusion matrix."""
    return list(value["tasks"]) if isinstance(value, Mapping) else [x for row in value for x in row]
