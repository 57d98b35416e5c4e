"""Folders of sweeps that never were, for the tests of their reports."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import optuna
from stored_runs import results_of

from hypercl.rundir.stored import seal
from hypercl.sweeps.spec import Point
from hypercl.sweeps.values import Metric

TEST_SEEDS = range(1042, 1045)


def sweep_of(*labels, higher=True, chooses=True, **more):
    """What a report reads of a Sweep."""
    metric = Metric("cl1", higher, 0.0 if higher else math.inf, 1, False)
    fields = {
        "path": Path("sweep.toml"), "name": "a sweep", "seeds": 3, "first_seed": 42,
        "metric": metric, "search": "tpe", "seed": 0, "stop": "none",
        "chooses": chooses, "retest": 2, "retest_seeds": 3,
        "tested_on": "validation" if chooses else "test",
        "searched": [SimpleNamespace(label=label) for label in labels],
    }  # fmt: skip
    return SimpleNamespace(**{**fields, **more})


class StoredSearch:
    """What a report reads of a Search; ``entries``: by label."""

    def __init__(self, entries, num_points=None, most=2, higher=True):
        self._entries, self._most, self._sign = entries, most, 1 if higher else -1
        self._num_points = num_points or {}

    def entries(self, label):
        return self._entries[label]

    def ranked(self, label):
        finished = [entry for entry in self._entries[label] if entry.state == "finished"]
        return sorted(finished, key=lambda entry: -self._sign * entry.value)

    def chosen(self, label):
        return self.ranked(label)[: self._most]

    def num_points(self, label):
        return self._num_points.get(label, len(self._entries[label]))

    def study(self, label):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(direction="maximize" if self._sign > 0 else "minimize")
        complete = optuna.trial.TrialState.COMPLETE
        for entry in self._entries[label]:
            if entry.state in ("finished", "diverged"):
                options = entry.point.options
                kinds = {name: self._kind(label, name) for name in options}
                study.add_trial(
                    optuna.trial.create_trial(
                        params=options, distributions=kinds, value=entry.value, state=complete
                    )
                )
        return study

    def _kind(self, label, name):
        values = [entry.point.options.get(name) for entry in self._entries[label]]
        values = sorted({value for value in values if value is not None}, key=str)
        if any(isinstance(value, str | bool) for value in values):
            return optuna.distributions.CategoricalDistribution(values)
        return optuna.distributions.FloatDistribution(min(values), max(values), log=min(values) > 0)


def write_point(
    out_dir, label, number, value, *, state="finished", sem=None, num_tasks=3, test=None, **options
):
    """A point's run directory, that of its retest where it has a test value; what a report
    reads of its Entry."""
    point = Point(label, number, options)
    done = num_tasks if state in ("finished", "diverged") else 1
    failed = range(42, 45) if state == "diverged" else ()
    level = value if value is not None and math.isfinite(value) else 50.0
    of_run = {"method": "ewc", "scenario": 1, **{n: _plain(v) for n, v in options.items()}}
    if "beta" in options:
        of_run |= {"method": "hnet", "scenario": None}
    if state != "failed":
        results = results_of(seeds=range(42, 45), level=level, num_tasks=num_tasks, failed=failed,
                             **of_run)  # fmt: skip
        results |= {"tested_on": "validation"}
        for seed in results["seeds"]:
            seed["accuracy"] = seed["accuracy"][: 0 if state == "diverged" else done]
        if state != "finished":
            results["status"] = "failed" if state == "diverged" else "interrupted"
        _write(out_dir / "points" / point.folder, results)
    if test is not None:
        results = results_of(seeds=TEST_SEEDS, level=test, num_tasks=num_tasks, **of_run)
        _write(out_dir / "retest" / point.folder, results)
    message = "the disk is full" if state == "failed" else ""
    return SimpleNamespace(
        point=point, state=state, value=value, sem=sem, message=message, attempt=1
    )


def _plain(value):
    """A value as JSON has it; a list is "50,50" in a point."""
    is_list = isinstance(value, str) and value.replace(",", "").isdigit()
    return [*map(int, value.split(","))] if is_list else value


def _write(folder, results):
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(seal(results)))
    config = {"options": results["config"], "versions": {}, "device": "cpu", "git_commit": None,
              "command": "python run.py", "started": "today"}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(seal(config)))
    steps = [0, 1, 50, 100]
    rows = [
        {"seed": seed["seed"], "task": task, "step": step, "task_loss": 0.5,
         "validation_accuracy": 0.5 + step / 400 if step else None}
        for seed in results["seeds"] for task in range(len(seed["accuracy"])) for step in steps
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
