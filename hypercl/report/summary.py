"""What the screen says of results: a row after each task, and the whole at the end."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hypercl import presets
from hypercl.inference import rules_in
from hypercl.measure import ACCURACY, Measure, measure_of
from hypercl.report import metrics
from hypercl.report.screen import Screen
from hypercl.rundir.directory import RunDir
from hypercl.rundir.forms import matrix_of

_MAX_COLUMNS = 10  # tasks beyond which the whole matrix is not shown on the screen


def show_row(
    screen: Screen,
    tested_on: str,
    rows: Sequence[Sequence[float | None]],
    num_tasks: int,
    measure: Measure = ACCURACY,
) -> None:
    """The accuracies, or errors, after a task.

    Args:
        rows: Of each seed, accuracies in percent, on the tasks so far; None for those that were not
            tested.
    """
    title = f"{tested_on} {measure.titled} after task {len(rows[0])}/{num_tasks}"
    columns = zip(*rows, strict=True)
    tested = {
        k: metrics.summarize(column) for k, column in enumerate(columns) if None not in column
    }
    whole = metrics.summarize([metrics.mean_of_whole(row) for row in rows])
    last = tested[len(rows[0]) - 1]
    if num_tasks > _MAX_COLUMNS:
        text = f"{title}: {mean_and_std(last, measure)}"
        if whole["n"]:
            worst = min(tested, key=lambda k: measure.sign * _known(tested[k]["mean"]))
            text += (
                f", mean {mean_and_std(whole, measure)}, worst "
                f"{mean_and_std(tested[worst], measure)} "
                f"(task {worst + 1})"
            )
        screen.say(text + about_spread(last, "; "))
        return
    shown = {str(k + 1): summary for k, summary in tested.items()}
    if whole["n"]:
        shown["mean"] = whole

    def lines(digits: int) -> list[list[str]]:
        means = [measure.text(summary["mean"], digits) for summary in shown.values()]
        table = [["task", *shown], ["", *means]]
        if last["std"] is not None:
            table.append(["±", *(measure.text(s["std"], digits) for s in shown.values())])
        return table

    header, *body = _with_digits_that_fit(screen, lines)
    screen.table(title + about_spread(last, ", "), header, body)


def _with_digits_that_fit(
    screen: Screen, make: Callable[[int], list[list[str]]]
) -> list[list[str]]:
    """A table with two digits behind the point, with one where two are too wide for the screen."""
    one = make(1)
    return one if screen.fits(one) and not screen.fits(make(2)) else make(2)


def show_summary(screen: Screen, results: Mapping[str, Any], path: object) -> None:
    """The matrix and the summary metrics of results that lie at ``path``."""
    done, measure = furthest(results["seeds"]), measure_of(results)
    names = results["tasks"]
    mean = metrics.mean_matrix([seed[measure.name] for seed in done])
    remarks = [measure.unit] if measure.unit else []
    remarks += [f"mean of {len(done)} seeds"] if len(done) > 1 else []
    of_seeds = f" ({', '.join(remarks)})" if remarks else ""
    if len(names) <= _MAX_COLUMNS:

        def lines(digits: int) -> list[list[str]]:
            header = ["after", *(str(k + 1) for k in range(len(names)))]
            return [
                header,
                *(
                    [
                        str(t + 1),
                        *(measure.text(v, digits) for v in row),
                        *[""] * (len(names) - len(row)),
                    ]
                    for t, row in enumerate(mean)
                ),
            ]

        header, *body = _with_digits_that_fit(screen, lines)
        screen.table(
            f"{measure.name} matrix{of_seeds}: rows after learning a task, columns tested on one",
            header,
            body,
        )
    else:
        screen.table(
            f"{measure.name}{of_seeds} on each task",
            ["task", "when learned", "at the end", "change"],
            [
                [
                    name,
                    measure.text(mean[k][k]),
                    measure.text(last),
                    _change(measure, mean[k][k], last),
                ]
                for k, (name, last) in enumerate(zip(names, mean[-1], strict=True))
            ],
        )
    if rules_in(results["summary"]):
        show_scenarios(screen, results["summary"])
    for name, entry in results["summary"].items():
        if name not in metrics.metrics_of(measure):
            continue
        shown = "undefined"
        if entry["n"]:
            unit = f" {measure.unit}" if measure.unit else ""
            shown = f"{mean_and_std(entry, measure)}{unit}{about_spread(entry)}"
        screen.say(f"{name.replace('_', ' ')}: {shown}")
    if results.get("published"):
        show_published(screen, results["config"]["preset"], results["published"], measure)
        if altered := results.get("altered"):
            screen.say(f"with other settings than the published run's: {', '.join(altered)}")
    elif results["tested_on"] != "test" and results["config"]["preset"] is not None:
        screen.say("not compared with published numbers, which are of the test sets")
    if len(done) < len(results["seeds"]):
        screen.say(f"seeds that failed: {len(results['seeds']) - len(done)}")
    screen.say(f"everything is in {path}")


def show_scenarios(screen: Screen, summary: Mapping[str, metrics.Summary]) -> None:
    """What is right when the task is known, and when it is inferred."""
    columns = ("task_inference", "cl2", "cl3")
    known = summary["cl1"]
    screen.table(
        f"accuracy (%{about_spread(known, ', ')}) with the task known {mean_and_std(known)}, with "
        "the task inferred:",
        ["task inferred by", "the task", "class (CL2)", "both (CL3)"],
        [
            [rule, *(mean_and_std(summary[f"{column}_{rule}"]) for column in columns)]
            for rule in rules_in(summary)
        ],
    )


def show_published(
    screen: Screen,
    preset: str,
    rows: Sequence[Mapping[str, Any]],
    measure: Measure = ACCURACY,
) -> None:
    """Published numbers beside the run's.

    The standard errors that were published do not show, as the ± of the run is a standard
    deviation; the difference is given in units of both. What an earlier version wrote has no such
    unit, and a verdict by another rule.
    """
    columns = ("metric", "published", "which is a", "measured", "off by", "in standard errors")
    body = []
    for row in rows:
        measured: metrics.Summary = {
            "mean": row["measured"], "std": row["std"], "sem": None, "n": row["n"]
        }  # fmt: skip
        what, verdict = "", "within" if row["within"] else "outside"
        if "spread" in row:
            verdict += " by an earlier rule"
        else:
            what = presets.kind(row["published_n"], best_of_search=row["best_of_search"])
            off = row["standard_errors"]
            verdict = "unknown" if off is None else f"{off:+.1f}, {verdict} two"
        metric = _SHOWN_METRICS.get(row["metric"], row["metric"])
        body.append(
            [metric, measure.text(row["published"]), what, mean_and_std(measured, measure),
             measure.change(row["difference"]), verdict]
        )  # fmt: skip
    inferred = ""
    of_unit = f" ({measure.unit or measure.title})"
    if any(row["metric"] == "cl3_entropy" for row in rows):
        inferred = ", with the task known (CL1) or inferred by entropy (CL3)"
    screen.table(
        f"{preset}: published and measured{of_unit}{inferred}{about_spread(rows[0], '; ')}",
        columns,
        body,
    )


_SHOWN_METRICS = {
    "cl1": "CL1", "cl2": "CL2", "cl3": "CL3", "cl3_entropy": "CL3", "final_error": "final error",
}  # fmt: skip


def furthest(seeds: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The seeds' results that have come furthest, without those that failed."""
    alive = [seed for seed in seeds if "failed" not in seed]
    most = max((len(matrix_of(seed)) for seed in alive), default=0)
    return [seed for seed in alive if len(matrix_of(seed)) == most]


def mean_and_std(summary: metrics.Summary, measure: Measure = ACCURACY) -> str:
    """``98.12``, and of several seeds ``98.12 ± 0.34``, the standard deviation."""
    text = measure.text(summary["mean"])
    return text if summary["std"] is None else f"{text} ± {measure.text(summary['std'])}"


def about_spread(summary: Mapping[str, Any], before: str = " (") -> str:
    """What the ± of :func:`mean_and_std` is, behind ``before``; empty where there is none."""
    if summary["std"] is None:
        return ""
    end = ")" if before.endswith("(") else ""
    return f"{before}± standard deviation, n = {summary['n']}{end}"


def number(value: float | None, digits: int = 2) -> str:
    """A percentage as the screen has it; ``-`` for what was not measured."""
    return "-" if value is None else f"{value:z.{digits}f}"  # z: no -0.00


def _change(measure: Measure, before: float | None, after: float | None) -> str:
    return "-" if before is None or after is None else measure.change(after - before)


def _known(value: float | None) -> float:
    assert value is not None
    return value


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
    screen.say_command(f"finished before, {config['started']}", config["command"])
    show_summary(screen, results, run_dir.path)
    return results
