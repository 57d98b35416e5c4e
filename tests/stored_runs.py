"""results.json files of runs that never were, for the tests of --compare."""

import json
import random
from pathlib import Path

from hypercl.options import METHODS, HypernetOptions, Options, options_of
from hypercl.registry import entries
from hypercl.report import metrics
from hypercl.report.comparison.results import compare_rows
from hypercl.report.comparison.rows import StoredRun, make_rows, pool
from hypercl.rundir.stored import seal

# By scenario: what a run's own accuracies are called; None: a network for each task.
_OF_HYPERNET = {field.name for field in options_of(HypernetOptions)} | {
    field.name for field in options_of(entries(METHODS)["hnet"])
}
_OWN = {None: "cl1", 1: "cl1", 2: "cl2", 3: "cl3"}


def results_of(
    method="hnet",
    scenario=None,
    seeds=range(42, 48),
    *,
    level=95.0,
    inferred=None,
    forgotten=2.0,
    num_tasks=3,
    kept_bytes=4096,
    form=2,
    failed=(),
    status="finished",
    seconds=120.0,
    **config,
):
    """What results.json holds of a run with some seeds; sealed.

    Args:
        level: Percent, about which accuracies lie; ``inferred``: with the task inferred, if at all.
        config: Options, beside those of the defaults.
    """
    seeds = list(seeds)
    options = {"random_seed": seeds[0], "num_seeds": len(seeds), **config}
    options = {**Options.of(options).recorded, **config, "method": method}
    if method != "hnet":
        options = {n: v for n, v in options.items() if n in config or n not in _OF_HYPERNET}
    if scenario is not None:
        options["cl_scenario"] = scenario
    own = f"{method} {scenario} {level}"
    of_seeds = [_seed(seed, own, level, forgotten, num_tasks) for seed in seeds]
    for entry in of_seeds:
        if entry["seed"] in failed:
            entry["failed"] = "the loss is not finite"
        if inferred is not None:
            entry["scenarios"] = {
                f"{column}_{rule}": {"tasks": [inferred] * num_tasks,
                                     "mean": inferred + entry["final_accuracy"] / 100}
                for column in ("task_inference", "cl2", "cl3")
                for rule in ("entropy", "confidence")
            }  # fmt: skip
        if form > 1:
            entry |= dict.fromkeys(("cl1", "cl2", "cl3"))
            entry[_OWN[scenario]] = entry["final_accuracy"]
    going = [entry for entry in of_seeds if "failed" not in entry]
    results = {
        "format": form,
        "status": status,
        "error": None,
        "experiment": options["cl_exp"],
        "config": options,
        "tasks": [f"task {k}" for k in range(num_tasks)],
        "num_weights": {"main": 1000, "hypernet" if form == 1 else "trained": 900},
        "compression_ratio": 0.9,
        "seeds": of_seeds,
        "tested_on": "test",
        "summary": {
            name: metrics.summarize([entry[name] for entry in going]) for name in metrics.METRICS
        },
        "seconds": {"total": seconds, "train": [], "test": []},
    }
    if form > 1:
        results |= {"method": method, "scenario": scenario, "kept_bytes": kept_bytes}
        for name in ("cl1", "cl2", "cl3"):
            results["summary"][name] = metrics.summarize([entry[name] for entry in going])
    return seal(results)


def write_run(folder, *args, **options):
    """A run directory with such a results.json."""
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results_of(*args, **options)))
    return folder


def runs_of(*results, names=()):
    """Runs named a, b, ... by their paths."""
    names = [*names, *[None] * len(results)]
    paths = [Path(chr(ord("a") + i)) for i in range(len(results))]
    return [StoredRun(*one) for one in zip(paths, results, names, strict=False)]


def rows_of(*results, names=()):
    """The rows of runs with these results."""
    return make_rows(pool(runs_of(*results, names=names))[0])


def compared(*results, names=()):
    """A comparison of runs with these results."""
    return compare_rows(rows_of(*results, names=names), [], "python run.py --compare x")


def _seed(seed, own, level, forgotten, num_tasks):
    """Accuracies near a level, which fall; those of a seed go up and down together."""
    together, draw = random.Random(seed).uniform(-1, 1), random.Random(f"{seed} {own}")
    matrix = [
        [level + together + draw.uniform(-0.2, 0.2) - forgotten * (t - k) for k in range(t + 1)]
        for t in range(num_tasks)
    ]
    entry = {
        "seed": seed,
        "accuracy": matrix,
        "accuracy_untrained": [None, *[50.0] * (num_tasks - 1)],
        "accuracy_before": [None, *[51.0 + together] * (num_tasks - 1)],
    }
    return entry | {name: metric(entry) for name, metric in metrics.METRICS.items()}
