"""What was tried and what came of it: the journal's points beside their run directories.

Nothing is written, and a sweep may be under way: of a point at work it is known how far it is.
"""

import json
import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from hypercl.errors import InputError
from hypercl.measure import ACCURACY, Measure, measure_of
from hypercl.report.comparison.results import Comparison, compare_rows
from hypercl.report.comparison.rows import StoredRun, is_comparable, make_rows, pool
from hypercl.rundir.forms import matrix_of
from hypercl.rundir.stored import RESULTS, failed_for_good, read_sealed
from hypercl.sweeps.search import STATES, Entry
from hypercl.sweeps.space import Plain
from hypercl.sweeps.spec import POINTS, RETEST, Sweep
from hypercl.sweeps.values import Metric, Value, value_of

_LEAST = 4  # finished points, below which nothing is said of the importance of options
_AT_TOP = 5  # points at least that Optuna's PED-ANOVA should have among the best


class Searching(Protocol):
    """What is read of a search; hypercl.sweeps.search.Search has it."""

    def entries(self, label: str) -> list[Entry]:
        """All points asked for, by number."""

    def ranked(self, label: str) -> list[Entry]:
        """The finished ones, the best first."""

    def chosen(self, label: str) -> list[Entry]:
        """The best, and those within one standard error of it."""

    def num_points(self, label: str) -> int:
        """How many points there will be."""

    def study(self, label: str) -> Any:
        """The points as a study of Optuna's."""


@dataclass(frozen=True)
class Tried:
    """A point, and what its run directories say."""

    label: str  # of its method
    number: int
    name: str | None  # in a list
    options: Mapping[str, Plain]
    status: str  # one of search.STATES
    value: float | None  # of the metric; where it stopped, after the tasks it has learned
    sem: float | None  # standard error of the mean over its seeds
    place: Path  # of its run
    message: str  # why it failed
    attempt: int
    num_tasks: int = 0  # learned
    seconds: float | None = None  # its run's; None where that is not known
    curve: tuple[float | None, ...] = ()  # the metric after 1, 2, … tasks
    rank: int | None = None  # 1 is the best of the finished ones; None where nothing is chosen
    is_chosen: bool = False
    test: Value | None = None  # the metric on test samples, with fresh seeds
    test_seeds: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        """Its number in its method, and the name that it has in a list."""
        return f"{self.number}" if self.name is None else f"{self.number} ({self.name})"


@dataclass(frozen=True)
class Method:
    """What was searched on its own."""

    label: str
    tried: tuple[Tried, ...]  # by number
    num_points: int  # that there will be
    importance: Mapping[str, float]  # shares by option; empty where nothing can be said

    @property
    def chosen(self) -> list[Tried]:
        """The best, and the runners-up that are tested with it; by rank."""
        chosen = [one for one in self.tried if one.is_chosen]
        return sorted(chosen, key=lambda one: one.rank or 0)

    @property
    def best(self) -> Tried | None:
        """The best on validation samples."""
        return next((one for one in self.tried if one.rank == 1), None)

    @property
    def counts(self) -> dict[str, int]:
        """How many points are in each of search.STATES."""
        counts = Counter(one.status for one in self.tried)
        return {state: counts[state] for state in STATES}

    @property
    def num_ended(self) -> int:
        """How many points have ended, in whatever way."""
        return len(self.tried) - self.counts["running"]

    @property
    def is_done(self) -> bool:
        """Whether all points have ended."""
        return self.num_ended == self.num_points

    @property
    def hours(self) -> float:
        """Of all its runs."""
        return sum(one.seconds or 0.0 for one in self.tried) / 3600

    @property
    def options(self) -> list[str]:
        """The options in which its points differ, in the order of the file."""
        return list(dict.fromkeys(name for one in self.tried for name in one.options))

    @property
    def searched(self) -> list[str]:
        """The same without the seed, which is no choice."""
        return [name for name in self.options if name != "random_seed"]


@dataclass(frozen=True)
class Findings:
    """What a sweep has found so far."""

    sweep: Sweep
    measure: Measure
    methods: tuple[Method, ...]
    comparison: Comparison | None  # of the tests; None while there is none
    warnings: tuple[str, ...]

    @property
    def metric(self) -> Metric:
        """By which points are chosen."""
        return self.sweep.metric

    @property
    def is_done(self) -> bool:
        """Whether all points have ended, and all that are chosen are tested."""
        return all(method.is_done for method in self.methods) and not self.untested

    @property
    def untested(self) -> list[str]:
        """The labels of the methods of which a chosen point has yet to be tested."""
        return _untested(self.sweep, self.methods)

    @property
    def best(self) -> Tried | None:
        """The best of all methods on validation samples; None where nothing is chosen."""
        ranked = [one for method in self.methods if (one := method.best) is not None]
        if not ranked:
            return None
        return max(ranked, key=lambda one: self.metric.sign * _known(one.value))

    def test_text(self, one: Tried) -> str:
        """The test of a point for people."""
        if one.test is not None and one.test.diverged:
            return "diverged"
        return "-" if one.test is None else self.text(one.test.mean, one.test.sem)

    def text(self, value: float | None, sem: float | None = None) -> str:
        """A value of the metric for people."""
        if value is None:
            return "-"
        if not math.isfinite(value):
            return "diverged"
        text = self.measure.text(value)
        return text if sem is None else f"{text} ± {self.measure.text(sem)}"

    def rows(self) -> list[dict[str, Any]]:
        """A plain dictionary a point, with the same keys for all: what sweep.csv has."""
        names = dict.fromkeys(name for method in self.methods for name in method.options)
        return [self._row(one, list(names)) for method in self.methods for one in method.tried]

    def _row(self, one: Tried, names: Sequence[str]) -> dict[str, Any]:
        first = {
            "label": one.label,
            "number": one.number,
            "name": one.name,
            "status": one.status,
        }
        others = {
            "metric": self.metric.name,
            "tested_on": self.sweep.tested_on,
            "value": one.value,
            "sem": one.sem,
            "tasks_learned": one.num_tasks,
            "seconds": one.seconds,
            "rank": one.rank,
            "chosen": one.is_chosen,
            "test_value": None if one.test is None else one.test.mean,
            "test_sem": None if one.test is None else one.test.sem,
            "test_seeds": None if one.test is None else one.test.n,
            "attempt": one.attempt,
            "message": one.message,
            "run": "/".join(one.place.parts[-3:]),  # in the sweep's folder, which may move
        }
        taken = {*first, *others}  # a network of the user's may have an option of such a name
        options = {
            f"option.{name}" if name in taken else name: one.options.get(name) for name in names
        }
        return {**first, **options, **others}

    def as_json(self) -> dict[str, Any]:
        """All of it in dictionaries and lists."""
        return {
            "name": self.sweep.name,
            "metric": self.metric.name,
            "done": self.is_done,
            "points": self.rows(),
            "methods": {
                method.label: {
                    "points": method.num_points,
                    **method.counts,
                    "hours": method.hours,
                    "importance": dict(method.importance),
                    "chosen": [one.number for one in method.chosen],
                }
                for method in self.methods
            },
            "tests": None if self.comparison is None else self.comparison.as_json(),
            "warnings": list(self.warnings),
        }


def collect(out_dir: Path, sweep: Sweep, search: Searching, command: str = "") -> Findings:
    """What a sweep has found so far.

    Args:
        out_dir: The folder of the sweep.
        search: Of the same sweep; :meth:`Search.look` reads one that is under way.
        command: That the comparison of the tests repeats.
    """
    problems: list[str] = []
    measure, methods = ACCURACY, []
    tests: list[StoredRun] = []
    for searched in sweep.searched:
        label = searched.label
        ranked, chosen = (search.ranked(label), search.chosen(label)) if sweep.chooses else ((), ())
        ranks = {entry.point.number: i for i, entry in enumerate(ranked, start=1)}
        to_test = {entry.point.number for entry in chosen}
        tried = []
        for entry in search.entries(label):
            one = _begun(out_dir, entry)
            rank = ranks.get(one.number)
            one = replace(one, rank=rank, is_chosen=rank == 1 or one.number in to_test)
            results = _read(one.place, problems, expected=one.status not in ("running", "failed"))
            if results is not None:
                measure = measure_of(results)
                one = _with_results(one, results, sweep)
            if not sweep.chooses and one.status == "finished" and results is not None:
                tests.append(StoredRun(one.place, results, label))
            if one.is_chosen:
                place = out_dir / RETEST / entry.point.folder
                results = _read(place, problems, expected=False)
                if results is not None and _is_tested(results, sweep):
                    one = _with_test(one, results, sweep.metric)
                    if not failed_for_good(results):
                        tests.append(StoredRun(place, results, label))
            tried.append(one)
        failed = [one for one in tried if one.status == "failed"]
        problems += [f"{one.label}, point {one.title} failed: {one.message}" for one in failed]
        importance = _importance(search.study(label)) if len(ranks) >= _LEAST else {}
        methods.append(Method(label, tuple(tried), search.num_points(label), importance))
    found = tuple(methods)
    comparison, more = _compared(sweep, found, tests, command)
    about = (*_of_progress(sweep, found), *problems, *more)
    return Findings(sweep, measure, found, comparison, about)


def validation(place: Path, measure: Measure) -> list[tuple[int, float]]:
    """The validations in a run's metrics.jsonl: steps through all tasks, and the mean over its
    seeds, in percent or as errors; a NaN stands between two tasks. Empty where there are none.
    """
    by_step: dict[tuple[int, int], list[float]] = {}
    try:
        with (place / "metrics.jsonl").open(encoding="utf-8") as file:
            for line in file:
                row = _parsed(line)
                if row is not None:
                    value = row.get(f"validation_{measure.name}")
                    values = by_step.setdefault((row["task"], row["step"]), [])
                    if value is not None:
                        values.append(measure.factor * value)
    except (OSError, UnicodeDecodeError):
        return []
    before, task_now, last = 0, 0, 0
    points: list[tuple[int, float]] = []
    for (task, step), values in sorted(by_step.items()):
        if task != task_now:
            before, task_now = before + last, task
            points.append((before, math.nan))
        last = step
        if values:
            points.append((before + step, sum(values) / len(values)))
    return points if any(math.isfinite(value) for _, value in points) else []


def _parsed(line: str) -> dict[str, Any] | None:
    """A line of metrics.jsonl; None of the last one, where that is being written."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    is_row = isinstance(row, dict) and isinstance(row.get("task"), int)
    return row if is_row and isinstance(row.get("step"), int) else None


def _begun(out_dir: Path, entry: Entry) -> Tried:
    point = entry.point
    return Tried(
        label=point.label,
        number=point.number,
        name=point.name,
        options=point.options,
        status=entry.state,
        value=entry.value,
        sem=entry.sem,
        place=out_dir / POINTS / point.folder,
        message=entry.message,
        attempt=entry.attempt,
    )


def _read(place: Path, problems: list[str], *, expected: bool) -> dict[str, Any] | None:
    """results.json of a run; None, and a problem where it is expected, where it cannot be read."""
    try:
        results = read_sealed(place / RESULTS)
        problem = "is missing"
    except ValueError:
        results, problem = None, "is damaged"
    except OSError as error:
        results, problem = None, f"cannot be read ({error.strerror or error})"
    if results is None and (expected or problem != "is missing"):
        problems.append(f"{place / RESULTS} {problem}: of this point the journal's value is known")
    return results


def _with_results(one: Tried, results: Mapping[str, Any], sweep: Sweep) -> Tried:
    alive = [seed for seed in results["seeds"] if "failed" not in seed]
    num_tasks = min((len(matrix_of(seed)) for seed in alive), default=0)
    curve = [
        _value_or_none(results, sweep.metric, k, sweep.tested_on) for k in range(1, num_tasks + 1)
    ]
    seconds = results["seconds"]["total"]
    return replace(one, num_tasks=num_tasks, seconds=seconds, curve=tuple(curve))


def _value_or_none(
    results: Mapping[str, Any], metric: Metric, num_tasks: int, tested_on: str
) -> float | None:
    try:
        value = value_of(results, metric, num_tasks, tested_on)
    except InputError:  # not defined after so few tasks
        return None
    return None if value.diverged else value.mean


def _is_tested(results: Mapping[str, Any], sweep: Sweep) -> bool:
    """Whether a chosen point has been tested, with as many seeds as the sweep has now."""
    has_ended = results["status"] == "finished" or failed_for_good(results)
    of_now = len(results["seeds"]) == sweep.retest_seeds
    return has_ended and of_now and results["tested_on"] == "test"


def _with_test(one: Tried, results: Mapping[str, Any], metric: Metric) -> Tried:
    try:
        value = value_of(results, metric, tested_on="test")
    except InputError:
        return one
    seeds = tuple(seed["seed"] for seed in results["seeds"])
    return replace(one, test=value, test_seeds=seeds)


def _importance(study: Any) -> dict[str, float]:
    """The share of each option in what makes a point one of the best, by Optuna's PED-ANOVA, the
    most important first; empty where all are equal.
    """
    import optuna

    values = [trial.value for trial in study.get_trials(deepcopy=False) if trial.value is not None]
    complete = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    if len(complete) < _LEAST or len(set(values)) < 2:
        return {}
    quantile = min(0.5, max(0.1, _AT_TOP / len(complete)))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=quantile)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where it is experimental, in Optuna 4
        shares = optuna.importance.get_param_importances(
            study, evaluator=evaluator, normalize=False
        )
    whole = sum(shares.values())
    return {name: share / whole for name, share in shares.items()} if whole > 0 else {}


def _compared(
    sweep: Sweep, methods: Sequence[Method], tests: Sequence[StoredRun], command: str
) -> tuple[Comparison | None, list[str]]:
    """The tests beside each other: of several methods each one's best, of one all that were tested.

    Which of a method's points stands for it was chosen on validation samples.
    """
    ranks = {(one.label, one.number): one.rank or 0 for m in methods for one in m.chosen}
    runs = [run for run in tests if is_comparable(run.results)]
    if sweep.chooses:
        of_runs = [(ranks[run.name or "", int(run.path.name)], run) for run in runs]
        if len(methods) > 1:
            runs = [run for rank, run in of_runs if rank == 1]
        else:
            by_rank = sorted(of_runs, key=lambda one: one[0])
            runs = [run._replace(name=f"point {int(run.path.name)}") for _, run in by_rank]
    if not runs:
        return None, []
    variants, problems = pool(runs)
    try:
        rows = make_rows(variants)
    except InputError:  # points of a list that differ in more than one row can have
        rows = make_rows([replace(variant, name=None) for variant in variants])
    return compare_rows(rows, [], command), problems


def _untested(sweep: Sweep, methods: Sequence[Method]) -> list[str]:
    if not sweep.retest:
        return []
    return [method.label for method in methods if any(one.test is None for one in method.chosen)]


def _of_progress(sweep: Sweep, methods: Sequence[Method]) -> list[str]:
    """What is not finished yet."""
    found = []
    for method in methods:
        if not method.is_done:
            ended = f"{method.num_ended} of {method.num_points} points"
            found.append(f"{method.label} is under way: {ended}")
        elif method.label in _untested(sweep, methods):
            found.append(f"the chosen points of {method.label} are not all tested yet")
    return found


def _known(value: float | None) -> float:
    assert value is not None  # a finished point has one
    return value
