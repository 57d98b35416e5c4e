"""The tables of a sweep, in rows of text, and sweep.csv."""

import csv
import io
from collections.abc import Sequence

from hypercl.report.comparison.table import Table
from hypercl.report.summary import number, ranges
from hypercl.report.sweep.points import Findings, Method, Tried
from hypercl.sweeps.search import STATES
from hypercl.sweeps.space import options_text, value_text


def tried_table(findings: Findings) -> Table:
    """How many points were tried of each method, and what became of them."""
    states = [s for s in STATES if any(method.counts[s] for method in findings.methods)]
    rows = []
    for method in findings.methods:
        of = "" if method.is_done else f" of {method.num_points}"
        counts = [str(method.counts[state]) for state in states]
        best = method.best
        shown = "-" if best is None else findings.text(best.value, best.sem)
        hours = number(method.hours, 1 if method.hours >= 1 else 2)
        found = [shown] if findings.sweep.chooses else []
        rows.append([method.label, f"{method.num_ended}{of}", *counts, *found, hours])
    best_of = [f"best {findings.metric.name}"] if findings.sweep.chooses else []
    header = ["", "points tried", *states, *best_of, "hours of the runs"]
    notes = []
    if "stopped" in states:
        notes.append(
            "stopped: weaker than others after some tasks, and learned no more; it counts as "
            "tried, and its value is that after these tasks"
        )
    if "diverged" in states:
        notes.append("diverged: a loss was not finite; it counts as tried, with the worst value")
    return Table(f"Points tried, {samples(findings)}", header, rows, notes)


def chosen_table(findings: Findings) -> Table:
    """The chosen points of each method: validation value, and the test with fresh seeds."""
    name = findings.metric.name
    chosen = [one for method in findings.methods for one in method.chosen]
    rows = []
    for one in chosen:
        value, test = findings.text(one.value, one.sem), findings.test_text(one)
        seeds = ranges(one.test_seeds)
        rows.append(
            [one.label, str(one.rank), one.title, options_text(one.options), value, test, seeds]
        )
    header = ["", "rank", "point", "options", f"{name}, validation", f"{name}, test", "test seeds"]
    title = f"Chosen on validation samples{_spread(findings)}"
    notes = []
    if any((one.rank or 0) > 1 for one in chosen):
        known = all(method.best.sem is not None for method in findings.methods if method.best)
        within = "within one standard error of the best" if known else "the next best"
        notes.append(f"ranks above 1 are {within}")
    if any(one.test is not None for one in chosen):
        notes.append(
            "the validation value of a chosen point is the best of many, and so too good; the test "
            "has other seeds, and chose nothing"
        )
    return Table(title, header, rows, notes)


def points_table(method: Method, findings: Findings) -> Table:
    """All points of a method, the best first, then those that stopped, diverged, failed or run."""
    shown = sorted(method.tried, key=lambda one: (one.rank or len(method.tried) + 1, _order(one)))
    rows = []
    for one in shown:
        options = [_given(one, name) for name in method.options]
        seconds = "-" if one.seconds is None else f"{one.seconds:.0f}"
        value = findings.text(one.value, one.sem)
        rows.append([one.title, one.status, *options, value, str(one.num_tasks), seconds])
    header = ["point", "status", *method.options, findings.metric.name, "tasks learned", "seconds"]
    return Table(f"{method.label}, {samples(findings)}{_spread(findings)}", header, rows, [])


def samples(findings: Findings) -> str:
    """``cl1 (%) on validation samples``."""
    unit = f" ({findings.measure.unit})" if findings.measure.unit else ""
    return f"{findings.metric.name}{unit} on {findings.sweep.tested_on} samples"


def as_csv(findings: Findings) -> str:
    """A line a point, unrounded; empty for what is not known."""
    rows = findings.rows()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["label"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        chosen = "yes" if row["chosen"] else "no"
        line = {name: "" if value is None else value for name, value in row.items()}
        writer.writerow({**line, "chosen": chosen})
    return text.getvalue()


def _spread(findings: Findings) -> str:
    tried: Sequence[Tried] = [one for method in findings.methods for one in method.tried]
    if all(one.sem is None for one in tried):
        return ""
    return f", mean ± standard error of the mean, n = {findings.sweep.seeds} seeds"


def _order(one: Tried) -> tuple[int, int]:
    return STATES.index(one.status), one.number


def _given(one: Tried, name: str) -> str:
    """The value of an option; ``-`` where it is not given."""
    return value_text(one.options[name]) if name in one.options else "-"
