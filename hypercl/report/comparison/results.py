"""Rows and what the statistics say of them: what --compare returns, shows and writes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from hypercl.measure import ACCURACY, Measure
from hypercl.report import metrics
from hypercl.report.comparison import statistics
from hypercl.report.comparison.rows import (
    SCENARIOS,
    TRANSFERS,
    Cell,
    Row,
    Variant,
    differences_beside_method,
    differences_without_label,
)
from hypercl.report.summary import ranges


class Tested(NamedTuple):
    """A row's accuracy, or error, in a scenario, beside that of the first row."""

    cell: Cell
    interval: statistics.Interval | None  # of the mean
    difference: statistics.Difference | None  # None of the first row
    holm_t: float | None = None  # the p of the difference, corrected over the rows of the column
    holm_wilcoxon: float | None = None


class Comparison(NamedTuple):
    """What is compared, and what was found; ``tested`` has by column one entry a row."""

    rows: Sequence[Row]
    tested: Mapping[str, Sequence[Tested | None]]
    warnings: Sequence[str]
    command: str

    @property
    def measure(self) -> Measure:
        """What is measured, the same of all runs."""
        return self.rows[0].variants[0].measure

    @property
    def columns(self) -> list[str]:
        """Those of SCENARIOS that a row has."""
        return [column for column in SCENARIOS if any(self.tested[column])]

    @property
    def sentence(self) -> str:
        """What is compared, with n and seeds."""
        of_rows = [" / ".join(dict.fromkeys(map(_n_and_seeds, row.variants))) for row in self.rows]
        if len(of_rows) > 1 and len({*of_rows}) == 1:
            rows = "; ".join(row.label for row in self.rows) + f" (each {of_rows[0]})"
        else:
            described = zip(self.rows, of_rows, strict=True)
            rows = "; ".join(f"{row.label} ({of_row})" for row, of_row in described)
        tasks = {
            f"{v.experiment}, {len(v.tasks)} tasks, {v.tested_on} sets": None
            for row in self.rows
            for v in row.variants
        }
        return f"{'; '.join(tasks)}: {rows}"

    def as_json(self) -> dict[str, Any]:
        """All of it in dictionaries and lists."""
        measure = {} if self.measure == ACCURACY else {"measure": self.measure.key}
        return {
            **measure,
            "rows": [_row_as_json(row) for row in self.rows],
            "statistics": {
                column: [None if t is None else _tested_as_json(t) for t in self.tested[column]]
                for column in self.columns
            },
            "warnings": list(self.warnings),
            "compared": self.sentence,
            "command": self.command,
        }


def compare_rows(rows: Sequence[Row], warnings: Sequence[str], command: str) -> Comparison:
    """Test each row against the first.

    Args:
        warnings: Of what has been read.
    """
    tested = {column: _test(rows, column) for column in SCENARIOS}
    found = [*warnings]
    if hidden := differences_without_label(rows):
        found.append(f"the labels leave out other options that differ: {hidden}")
    if beside := differences_beside_method(rows):
        found.append(f"the runs differ in more than the method: {beside}")
    concerned: dict[str, dict[str, list[str]]] = {}  # by what there is to say, by row: columns
    for reason, label, column in _weak(rows, tested):
        concerned.setdefault(reason, {}).setdefault(label, []).append(column.upper())
    for reason, by_row in concerned.items():
        by_columns: dict[str, list[str]] = {}
        for label, columns in by_row.items():
            by_columns.setdefault(", ".join(columns), []).append(label)
        where = (f"{columns} of {'; '.join(labels)}" for columns, labels in by_columns.items())
        found.append(f"{', and '.join(where)}: {reason}")
    return Comparison(rows, tested, list(dict.fromkeys(found)), command)


def _n_and_seeds(variant: Variant) -> str:
    seeds = list(variant.seeds)
    return f"n = {len(seeds)}, seed{'s' if len(seeds) > 1 else ''} {ranges(seeds)}"


def _test(rows: Sequence[Row], column: str) -> list[Tested | None]:
    cells = [row.accuracy(column) for row in rows]
    first = cells[0]
    tested: list[Tested | None] = []
    for i, cell in enumerate(cells):
        if cell is None:
            tested.append(None)
            continue
        difference = None
        if i and first is not None:
            difference = statistics.difference(cell.values, first.values)
        interval = statistics.mean_interval(list(cell.values.values()))
        tested.append(Tested(cell, interval, difference))
    differences = [None if one is None else one.difference for one in tested]
    by_t = statistics.holm([None if d is None else d.p_t for d in differences])
    by_wilcoxon = statistics.holm([None if d is None else d.p_wilcoxon for d in differences])
    return [
        None if one is None else one._replace(holm_t=t, holm_wilcoxon=wilcoxon)
        for one, t, wilcoxon in zip(tested, by_t, by_wilcoxon, strict=True)
    ]


def _weak(
    rows: Sequence[Row], tested: Mapping[str, Sequence[Tested | None]]
) -> Iterator[tuple[str, str, str]]:
    """Tests that cannot find anything, or were not made: what to say, of which row and column."""
    for column in SCENARIOS:
        known = [(row, t) for row, t in zip(rows, tested[column], strict=True) if t is not None]
        if len(known) < 2:
            continue
        num_tests = len([t for _, t in known if t.holm_wilcoxon is not None])
        for row, one in known:
            if one.difference is not None:
                if (reason := _weakness(one.difference, num_tests)) is not None:
                    yield reason, row.label, column
            elif row is not rows[0]:
                yield (
                    f"no difference to {rows[0].label}, which has no such number",
                    row.label,
                    column,
                )


def _weakness(difference: statistics.Difference, num_tests: int) -> str | None:
    """What a difference's tests cannot tell; ``num_tests``: in whose family it is."""
    n = difference.n
    if n < 2:
        of = "pair of seeds" if difference.paired else "seed on one side"
        return f"a single {of} gives neither an interval nor a p"
    if not difference.paired:
        return (
            "no seed in common: independent samples are compared (Welch), without Wilcoxon's test"
        )
    counting, pairs = difference.n_unequal, f"n = {n}"
    if not counting:
        return "all pairs are equal"
    if counting < n:
        pairs = f"{counting} pairs that differ (n = {n})"
    if counting < (needed := statistics.pairs_needed(1)):
        least = statistics.least_wilcoxon_p(counting)
        return (
            f"with {pairs} no p of Wilcoxon's test can be below {statistics.LEVEL:g}, the least is "
            f"{least:g} (n = {needed} is enough)"
        )
    if counting < (needed := statistics.pairs_needed(num_tests)):
        return (
            f"with {pairs} and Holm's correction over {num_tests} rows, the smallest p of "
            f"Wilcoxon's test cannot be below {statistics.LEVEL:g} (n = {needed} is enough)"
        )
    return None


def _row_as_json(row: Row) -> dict[str, Any]:
    runs = []
    for variant in row.variants:
        of_variant: dict[str, Any] = {
            "method": variant.method,
            "scenario": variant.scenario,
            "options": dict(variant.settings),
            "seeds": list(variant.seeds),
            "runs": list(dict.fromkeys(str(seed.path) for seed in variant.seeds.values())),
            "num_trained": variant.num_trained,
            "kept_bytes": variant.kept_bytes,
            "minutes": summarize(variant.minutes),
        }
        for column in TRANSFERS:
            of_variant[column] = summarize(variant.transfer(column))
        runs.append(of_variant)
    accuracies = {}
    for column in SCENARIOS:
        cell = row.accuracy(column)
        accuracies[column] = summarize(cell) | {"by": None if cell is None else cell.by}
    return {"label": row.label, **accuracies, "variants": runs}


def _tested_as_json(tested: Tested) -> dict[str, Any]:
    difference = tested.difference
    return {
        "interval": tested.interval and list(tested.interval),
        "difference": difference
        and {**difference._asdict(), "interval": difference.interval and list(difference.interval)},
        "p_t_holm": tested.holm_t,
        "p_wilcoxon_holm": tested.holm_wilcoxon,
    }


def summarize(cell: Cell | None) -> metrics.Summary:
    """Mean, standard deviation, standard error and n over the seeds."""
    return metrics.summarize([] if cell is None else list(cell.values.values()))
