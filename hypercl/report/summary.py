"""What the screen says of results: a row after each task, and the whole at the end."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from hypercl.report import metrics
from hypercl.report.screen import Screen
from hypercl.rundir.directory import RunDir

_MAX_COLUMNS = 10  # tasks beyond which the whole matrix is not shown on the screen


def show_row(
    screen: Screen, tested_on: str, rows: Sequence[Sequence[float | None]], num_tasks: int
) -> None:
    """The accuracies after a task.

    Args:
        rows: Of each seed, in percent, on the tasks so far; None where not tested.
    """
    columns = list(zip(*rows, strict=True))
    title = f"{tested_on} accuracy (%) after task {len(columns)}/{num_tasks}"
    if any(None in row for row in rows):
        alone = mean_and_sem(metrics.summarize(columns[-1]))
        screen.say(f"{title}: {alone} on that task, the others not tested")
        return
    shown = [mean_and_sem(metrics.summarize(column)) for column in columns]
    mean = mean_and_sem(metrics.summarize([metrics.final_accuracy([row]) for row in rows]))
    if num_tasks > _MAX_COLUMNS:
        worst = min(range(len(columns)), key=lambda k: statistics.fmean(columns[k]))
        screen.say(
            f"{title}: {shown[-1]}, mean of all so far {mean}, worst {shown[worst]} "
            f"(task {worst + 1})"
        )
        return
    screen.table(
        title,
        ["task", *(str(k + 1) for k in range(len(columns))), "mean"],
        [["", *shown, mean]],
    )


def show_summary(screen: Screen, results: Mapping[str, Any], path: object) -> None:
    """The accuracy matrix and the summary metrics of results that lie at ``path``."""
    done = furthest(results["seeds"])
    names = results["tasks"]
    mean = metrics.mean_matrix([seed["accuracy"] for seed in done])
    of_seeds = f", mean of {len(done)} seeds" if len(done) > 1 else ""
    if len(names) <= _MAX_COLUMNS:
        screen.table(
            f"accuracy matrix (%{of_seeds}): rows after learning a task, columns tested on one",
            ["after", *(str(k + 1) for k in range(len(names)))],
            [
                [str(t + 1), *map(_accuracy, row), *[""] * (len(names) - len(row))]
                for t, row in enumerate(mean)
            ],
        )
    else:
        screen.table(
            f"accuracy (%{of_seeds}) on each task",
            ["task", "when learned", "at the end", "change"],
            [
                [name, _accuracy(row[-1]), _accuracy(last), _accuracy(last - row[-1], "+.2f")]
                for name, row, last in zip(names, mean, mean[-1], strict=True)
                if last is not None and row[-1] is not None  # never: both are always tested
            ],
        )
    if "cl1" in results["summary"]:
        show_scenarios(screen, results["summary"])
    for name, entry in results["summary"].items():
        if name not in metrics.METRICS:
            continue
        shown = f"{mean_and_sem(entry)} %" if entry["n"] else "undefined with one task"
        screen.say(f"{name.replace('_', ' ')}: {shown}")
    if results.get("published"):
        show_published(screen, results["config"]["preset"], results["published"])
        if altered := results.get("altered"):
            screen.say(f"with other settings than the published run's: {', '.join(altered)}")
    elif results["tested_on"] != "test" and results["config"]["preset"] is not None:
        screen.say("not compared with published numbers, which are of the test sets")
    if len(done) < len(results["seeds"]):
        screen.say(f"seeds that failed: {len(results['seeds']) - len(done)}")
    screen.say(f"everything is in {path}")


def _accuracy(value: float | None, spec: str = ".2f") -> str:
    return "" if value is None else format(value, spec)


def show_scenarios(screen: Screen, summary: Mapping[str, metrics.Summary]) -> None:
    """What is right when the task is known, and when it is inferred."""
    rules = {"lowest entropy": "entropy", "highest confidence": "confidence"}
    columns = ("task_inference", "cl2", "cl3")
    screen.table(
        f"accuracy (%) with the task known {mean_and_sem(summary['cl1'])}, with the task inferred:",
        ["task inferred by", "the task", "class within it (CL2)", "both (CL3)"],
        [
            [rule, *(mean_and_sem(summary[f"{column}_{name}"]) for column in columns)]
            for rule, name in rules.items()
        ],
    )


def show_published(screen: Screen, preset: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Published numbers beside the run's."""
    screen.table(
        f"{preset}: published and measured (%)",
        ["", "published", "measured ± std", "difference", ""],
        [
            [
                _SHOWN_METRICS.get(row["metric"], row["metric"]),
                f"{row['published']:.2f}" + (f" ± {row['spread']:.2f}" if row["spread"] else ""),
                f"{row['measured']:.2f}"
                + (f" ± {row['std']:.2f} (n = {row['n']})" if row["n"] > 1 else ""),
                f"{row['difference']:+.2f}",
                "within" if row["within"] else "outside",
            ]
            for row in rows
        ],
    )


_SHOWN_METRICS = {"cl1": "task known (CL1)", "cl3_entropy": "task inferred by entropy (CL3)"}


def furthest(seeds: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The seeds' results that have come furthest, without those that failed."""
    alive = [seed for seed in seeds if "failed" not in seed]
    most = max((len(seed["accuracy"]) for seed in alive), default=0)
    return [seed for seed in alive if len(seed["accuracy"]) == most]


def mean_and_sem(summary: metrics.Summary, scale: float = 1, digits: int = 2) -> str:
    """``98.12``, and of several seeds ``98.12 ± 0.34``, the standard error."""
    mean, sem = summary["mean"], summary["sem"]
    assert mean is not None
    text = f"{scale * mean:.{digits}f}"
    return text if sem is None else f"{text} ± {scale * sem:.{digits}f}"


def ranges(seeds: Sequence[int]) -> str:
    """``1-4`` for neighbours, ``1, 3`` otherwise."""
    if len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1:
        return f"{seeds[0]}-{seeds[-1]}"
    return ", ".join(map(str, seeds))


def show_again(run_dir: RunDir) -> dict[str, Any]:
    """Say what a finished run has found; trains nothing."""
    config, results = run_dir.config, run_dir.results
    assert config is not None
    assert results is not None
    screen = Screen(lambda line: None)
    screen.say(f"finished before, {config['started']}: {config['command']}")
    show_summary(screen, results, run_dir.path)
    return results
