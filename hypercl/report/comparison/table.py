"""The tables of a comparison, in rows of text; and these as CSV, LaTeX and Markdown."""

import csv
import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from hypercl.measure import Measure
from hypercl.report.comparison.results import Comparison, Tested, summarize
from hypercl.report.comparison.rows import (
    SCENARIOS,
    TRANSFERS,
    Cell,
    Row,
    Variant,
    about_inferred,
    scenario_name,
)
from hypercl.report.comparison.statistics import LEVEL, Interval
from hypercl.report.summary import number, ranges

_MARK = "*"  # behind an accuracy with the task inferred
_MINUS = re.compile(r"(?<![\w.-])-(\d)")  # not that of a range or of an option
_BETWEEN = " / "  # numbers of several variants of a row


# What columns of the main table are; {} is what is measured.
_MEANINGS = {
    "CL1": "mean {} over all tasks after the last one; the task of a sample is known",
    "CL2": "the same; the task is unknown, and the class within it must be right",
    "CL3": "the same; the task is unknown, and task and class must be right",
    "forgetting": "how much worse the earlier tasks are at the end than at their best before, on "
    "average",
    "backward transfer": "how much better the earlier tasks are at the end than right after each "
    "was learned, on average",
    "forward transfer": "how much better the later tasks are right before each is learned than "
    "before any training, on average",
    "trained weights": "how many numbers the method trains for one seed",
    "kept of earlier tasks": "what one seed keeps of them while the last task is learned, beside "
    "the weights that train",
    "minutes per seed": "a run's time divided by its number of seeds; it depends on the machine",
    "n": "seeds",
}


class Table(NamedTuple):
    """Text, a row a method; ``notes`` are sentences that belong below it."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]


def main_table(comparison: Comparison) -> Table:
    """All rows, by the columns that at least one of them has."""
    rows, measure = comparison.rows, comparison.measure
    columns: dict[str, list[str]] = {"": [row.label for row in rows]}
    for column in comparison.columns:
        columns[column.upper()] = [_accuracy(row.accuracy(column), measure) for row in rows]
    for column in TRANSFERS:

        def transfer(variant: Variant, column: str = column) -> str:
            return _mean_and_sem(variant.transfer(column), measure)

        columns[column.replace("_", " ")] = [_of_variants(row, transfer) for row in rows]
    of_run: dict[str, Callable[[Variant], str]] = {
        "trained weights": lambda variant: f"{variant.num_trained:,}",
        "kept of earlier tasks": lambda variant: bytes_as_text(variant.kept_bytes),
        "minutes per seed": _minutes,
        "n": lambda variant: str(len(variant.seeds)),
    }
    for name, shown in of_run.items():
        columns[name] = [_of_variants(row, shown) for row in rows]
    numbers = {len(variant.seeds) for row in rows for variant in row.variants}
    title = f"{measure.title}, forgetting and transfer ({measure.unit})"
    if not measure.higher_is_better:
        title = f"{measure.title} (lower is better), forgetting and transfer"
    if numbers != {1}:
        title += ", mean ± standard error of the mean"
    if len(numbers) == 1:
        title += f", n = {numbers.pop()}"
        del columns["n"]
    shown_columns = {name: cells for name, cells in columns.items() if not name or {*cells} - {"-"}}
    return Table(
        title,
        list(shown_columns),
        list(zip(*shown_columns.values(), strict=True)),
        list(_notes(comparison)),
    )


def _notes(comparison: Comparison) -> Iterator[str]:
    tested = [t for column in comparison.columns for t in comparison.tested[column]]
    if said := about_inferred(t.cell for t in tested if t is not None):
        yield f"{_MARK} {said}"
    by_names: dict[str, list[str]] = {}
    for row in comparison.rows:
        by_names.setdefault(_BETWEEN.join(map(scenario_name, row.variants)), []).append(row.label)
    if len(by_names) > 1 or any(_BETWEEN in names for names in by_names):
        of = (f"{names} ({'; '.join(labels)})" for names, labels in by_names.items())
        yield f"forgetting, transfer and what follows are of the runs for {', and '.join(of)}"


def meanings(header: Sequence[str], measure: Measure) -> dict[str, str]:
    """What the columns of the main table are, by name; those that need no words are left out."""
    known = {name: _MEANINGS[name] for name in header if name in _MEANINGS}
    return {name: meaning.format(measure.title) for name, meaning in known.items()}


def statistics_table(comparison: Comparison, column: str, reference: str | None = None) -> Table:
    """The accuracies in a scenario, their differences to the first row and the tests of these.

    Args:
        reference: What the title calls the first row; None: its label.
    """
    rows = [(row, t) for row, t in zip(comparison.rows, comparison.tested[column], strict=True)
            if t is not None]  # fmt: skip
    differences = [t.difference for _, t in rows if t.difference is not None]
    level = f"{100 * (1 - LEVEL):g} % interval"
    header = ["", "mean", level]
    if differences:
        header += ["difference", f"{level} of it", "n", "pairs", "p, Wilcoxon", "Holm", "p, t",
                   "Holm"]  # fmt: skip
    body = [[row.label, *_tested(t, comparison.measure)][: len(header)] for row, t in rows]
    title = f"{column.upper()}{_remark(comparison.measure)}"
    if differences:
        title += f", differences to {reference or comparison.rows[0].label}"
    return Table(title, header, body, [])


def _remark(measure: Measure) -> str:
    """`` (%)``, or that less is better."""
    return f" ({measure.unit})" if measure.unit else f" ({measure.title}: lower is better)"


def _tested(tested: Tested, measure: Measure) -> list[str]:
    mean = measure.text(summarize(tested.cell)["mean"])
    cells = [mean, _interval(tested.interval, measure.text)]
    difference = tested.difference
    if difference is None:
        return [*cells, *[""] * 8]
    return [
        *cells,
        measure.change(difference.mean),
        _interval(difference.interval, measure.change),
        str(difference.n),
        "by seed" if difference.paired else "none (Welch)",
        p_as_text(difference.p_wilcoxon),
        p_as_text(tested.holm_wilcoxon),
        p_as_text(difference.p_t),
        p_as_text(tested.holm_t),
    ]


def _minutes(variant: Variant) -> str:
    mean = summarize(variant.minutes)["mean"] or 0.0
    return number(mean, 1 if mean >= 1 else 2)


def _accuracy(cell: Cell | None, measure: Measure) -> str:
    mark = _MARK if cell is not None and cell.by is not None else ""
    return _mean_and_sem(cell, measure) + mark


def _mean_and_sem(cell: Cell | None, measure: Measure) -> str:
    summary = summarize(cell)
    text = measure.text(summary["mean"])
    return text if summary["sem"] is None else f"{text} ± {measure.text(summary['sem'])}"


def _of_variants(row: Row, shown: Callable[[Variant], str]) -> str:
    """What each variant has, once where it is the same."""
    texts = [shown(variant) for variant in row.variants]
    return texts[0] if len({*texts}) == 1 else _BETWEEN.join(texts)


def _interval(interval: Interval | None, text: Callable[[float], str]) -> str:
    return "-" if interval is None else f"[{text(interval.low)}, {text(interval.high)}]"


def p_as_text(p: float | None) -> str:
    """Three digits; ``-`` for what was not tested."""
    if p is None:
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def bytes_as_text(num_bytes: int | None) -> str:
    """In the largest binary unit of which there is one; ``-`` where it is not known."""
    if num_bytes is None:
        return "-"
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = 0 if num_bytes < 1 else min(len(units) - 1, int(math.log2(num_bytes)) // 10)
    return f"{num_bytes / 2 ** (10 * power):.{1 if power else 0}f} {units[power]}"


_CSV = (
    "label", "method", "scenario", "metric", "unit", "task_inferred_by", "n", "seeds", "mean",
    "std", "sem", "low", "high", "reference", "paired", "pairs", "difference", "difference_low",
    "difference_high", "p_wilcoxon", "p_wilcoxon_holm", "p_t", "p_t_holm",
)  # fmt: skip


def as_csv(comparison: Comparison) -> str:
    """A line for each number of each row, unrounded; empty for what is not defined."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _CSV, restval="", lineterminator="\n")
    writer.writeheader()
    unit = comparison.measure.unit or comparison.measure.title
    for i, row in enumerate(comparison.rows):
        for column in SCENARIOS:
            tested, variant = comparison.tested[column][i], row.variant(column)
            if tested is None or variant is None:
                continue
            line = _line(row, variant, column, unit, tested.cell)
            low, high = tested.interval or (None, None)
            line |= {"task_inferred_by": tested.cell.by, "low": low, "high": high}
            if (difference := tested.difference) is not None:
                low, high = difference.interval or (None, None)
                line |= {
                    "reference": comparison.rows[0].label,
                    "paired": "yes" if difference.paired else "no",
                    "pairs": difference.n,
                    "difference": difference.mean,
                    "difference_low": low,
                    "difference_high": high,
                    "p_wilcoxon": difference.p_wilcoxon,
                    "p_wilcoxon_holm": tested.holm_wilcoxon,
                    "p_t": difference.p_t,
                    "p_t_holm": tested.holm_t,
                }
            writer.writerow(line)
        for variant in row.variants:
            for column in TRANSFERS:
                if (cell := variant.transfer(column)) is not None:
                    writer.writerow(_line(row, variant, column, unit, cell))
            for metric, of_metric, value in (
                ("trained_weights", "", variant.num_trained),
                ("kept_of_earlier_tasks", "bytes", variant.kept_bytes),
            ):
                if value is not None:
                    writer.writerow({**_begun(row, variant, metric, of_metric), "mean": value})
            writer.writerow(_line(row, variant, "minutes_per_seed", "minutes", variant.minutes))
    return text.getvalue()


def _begun(row: Row, variant: Variant, metric: str, unit: str) -> dict[str, object]:
    return {"label": row.label, "method": variant.method, "scenario": variant.scenario,
            "metric": metric, "unit": unit}  # fmt: skip


def _line(row: Row, variant: Variant, metric: str, unit: str, cell: Cell) -> dict[str, object]:
    summary = summarize(cell)
    return {**_begun(row, variant, metric, unit), **summary, "seeds": ranges(list(cell.values))}


def as_markdown(tables: Sequence[Table]) -> str:
    """GitHub's tables, with their titles and notes."""
    parts = []
    for table in tables:
        rule = [":--", *["--:"] * (len(table.header) - 1)]
        lines = [_markdown_line(row) for row in (table.header, rule, *table.rows)]
        notes = "".join(f"\n{_in_markdown(note)}\n" for note in table.notes)
        parts.append(f"{_in_markdown(table.title)}\n\n" + "\n".join(lines) + f"\n{notes}")
    return "\n".join(parts)


def _markdown_line(cells: Sequence[str]) -> str:
    escaped = [cell if set(cell) <= set(":-") else _in_markdown(cell) for cell in cells]
    return f"| {' | '.join(escaped)} |"


def _in_markdown(text: str) -> str:
    return "".join(f"\\{c}" if c in r"\`*_[]<>|#~" else c for c in text)


def as_latex(tables: Sequence[Table]) -> str:
    """Tables of booktabs, to be read with ``\\input``."""
    return "% \\usepackage{booktabs}\n" + "\n".join(map(_latex_table, tables))


def _latex_table(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(in_latex, cells)) + r" \\"

    caption = ". ".join(text[:1].upper() + text[1:] for text in (table.title, *table.notes))
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{in_latex(caption)}.}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
            r"\toprule",
            line(table.header),
            r"\midrule",
            *map(line, table.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


# Brackets too: at the beginning of a line they would be an option of the \\ before it, as a star
# would be.
_IN_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%",
    "`": r"\textasciigrave{}", "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$", ">": r"$>$", "|": r"\textbar{}", "±": r"$\pm$", "[": "{[}", "]": "{]}",
}  # fmt: skip


def in_latex(text: str) -> str:
    """Text that LaTeX sets as it is; ± becomes a formula, and so does a number's minus."""
    escaped = "".join(_IN_LATEX.get(c, c) for c in text)
    escaped = _MINUS.sub(r"$-$\1", escaped).replace("--", "-{}-")  # else a dash
    return f"{{*}}{escaped[1:]}" if escaped[:1] == "*" else escaped
