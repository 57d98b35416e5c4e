"""Figures of a comparison, made without a display and without matplotlib's global state.

A function takes a comparison and returns a figure, or None where nothing is to be shown. It is
called within ``plots.own_defaults()``.
"""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import ScaledTranslation

from hypercl.measure import Measure
from hypercl.report.comparison.results import Comparison, Tested, summarize
from hypercl.report.comparison.rows import Row, Variant, about_inferred, scenario_name
from hypercl.report.comparison.table import bytes_as_text
from hypercl.report.metrics import Matrix, mean_matrix
from hypercl.report.plots import error_range

_MAX_NUMBERS = 10  # tasks beyond which numbers in the cells could not be read
_MAX_SIDE_BY_SIDE = 4
_LONGEST = 40  # characters of a label, beyond which it is cut
_LEGEND_LINE = 0.18  # inches
_NUM_COLORS = 10
_MARKERS = "osD^vPX<>"  # one fewer than colors, so that 90 rows look different
_ASIDE = 5.0  # points between the points of rows that keep the same


def accuracy_over_time(comparison: Comparison) -> Figure | None:
    """The mean accuracy (%), or error, on the tasks so far after each task, in each scenario; bands
    are ± the standard error over seeds.
    """
    measure = comparison.measure
    scenarios = sorted({scenario_name(v) for row in comparison.rows for v in row.variants})
    wide = len(scenarios) == 1
    figure = Figure(figsize=(8 if wide else 1 + 3.6 * len(scenarios), 4.2), layout="constrained")
    shown: dict[int, Any] = {}  # the lines that the legend explains, by row
    all_axes = _axes_of(figure, len(scenarios), sharey=True)
    for axes, scenario in zip(all_axes, scenarios, strict=True):
        longest = 1
        for i, row in enumerate(comparison.rows):
            for variant in row.variants:
                if scenario_name(variant) == scenario:
                    shown.setdefault(i, _draw_over_time(axes, variant, i))
                    longest = max(longest, len(variant.tasks))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(0.8, longest + 0.2)
        axes.set_xlabel("tasks learned")
        axes.grid(alpha=0.3)
        if not wide:
            axes.set_title(scenario, fontsize=10)
    figure.axes[0].set_ylabel(f"{measure.titled}, mean of tasks so far")
    if not measure.higher_is_better:
        whole = [v for row in comparison.rows for one in row.variants for v in one.while_learning]
        figure.axes[0].set_yscale("log", nonpositive="clip")
        known = np.array([value for values in whole for value in values], dtype=float)
        figure.axes[0].set_ylim(*error_range(known))
    _explain(figure, comparison, shown)
    title = f"{measure.name} over time{_better(measure)}, bands ± standard error of the mean"
    figure.suptitle(title, fontsize=10)
    return figure


def _draw_over_time(axes: Any, variant: Variant, i: int) -> Any:
    """The line of row ``i``, from the points at which all tasks so far were tested."""
    numbers = np.array(variant.while_learning, dtype=float)  # [seeds, tasks]
    known = ~np.isnan(numbers).any(axis=0)
    x, numbers = 1 + np.flatnonzero(known), numbers[:, known]
    middle = numbers.mean(axis=0)
    style = f"{_marker(i)}{'-' if i < _NUM_COLORS else '--'}"
    (line,) = axes.plot(x, middle, style, ms=4, lw=1.5, color=_color(i))
    if len(numbers) > 1:
        sem = numbers.std(axis=0, ddof=1) / math.sqrt(len(numbers))
        axes.fill_between(x, middle - sem, middle + sem, alpha=0.2, lw=0, color=_color(i))
    return line


def final_accuracies(comparison: Comparison) -> Figure | None:
    """The accuracies (%) after the last task in each scenario, with their 95 % intervals."""
    columns = comparison.columns
    if not columns:
        return None
    rows = comparison.rows
    size = (2.0 + 3.0 * len(columns), 1.3 + 0.4 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    for axes, column in zip(_axes_of(figure, len(columns), sharey=True), columns, strict=True):
        for y, tested in enumerate(comparison.tested[column]):
            if tested is None:
                continue
            mean = _mean(tested)
            color = _color(y)
            if tested.interval is not None:
                axes.plot(tested.interval, (y, y), "-", color=color, lw=2)
            look = {"mfc": "white"} if tested.cell.by is not None else {}
            axes.plot(mean, y, _marker(y), color=color, ms=7, **look)
        axes.set_title(column.upper(), fontsize=10)
        axes.set_xlabel(comparison.measure.titled)
        axes.grid(alpha=0.3, axis="x")
    axes = figure.axes[0]
    axes.set_yticks(range(len(rows)), [_plain(row.label) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    measure = comparison.measure
    title = f"final {measure.name}{_better(measure)}, lines are 95 % intervals"
    title += _about_inferred(comparison)
    figure.suptitle(title, fontsize=10)
    return figure


def accuracy_against_memory(comparison: Comparison) -> Figure | None:
    """The accuracies (%) against what is kept of the earlier tasks; None where nothing is known
    of that.
    """
    by_column = {column: _with_memory(comparison, column) for column in comparison.columns}
    by_column = {column: points for column, points in by_column.items() if points}
    if not by_column:
        return None
    sizes = {kept for points in by_column.values() for _, _, kept in points if kept}
    size = (2.0 + 3.2 * len(by_column), 3.5)
    figure = Figure(figsize=size, layout="constrained")
    shown: dict[int, Any] = {}  # the points that the legend explains, by row
    all_axes = _axes_of(figure, len(by_column), sharex=True)
    for axes, (column, points) in zip(all_axes, by_column.items(), strict=True):
        aside = _side_by_side([kept for _, _, kept in points])
        for (i, tested, kept), right in zip(points, aside, strict=True):
            mean = _mean(tested)
            interval = tested.interval or (mean, mean)
            bar = [[mean - interval[0]], [interval[1] - mean]]
            look = {"mfc": "white"} if tested.cell.by is not None else {}
            moved = ScaledTranslation(right / 72, 0, figure.dpi_scale_trans)  # from inches
            point = axes.errorbar(kept, mean, bar, fmt=_marker(i), color=_color(i), ms=7,
                                  transform=axes.transData + moved, **look)  # fmt: skip
            shown.setdefault(i, point)
            axes.update_datalim([(kept, interval[0]), (kept, interval[1])])
        if sizes:  # a logarithm has no place for 0, which keeps nothing
            axes.set_xscale("symlog", base=2, linthresh=min(sizes))
            axes.set_xlim(left=-0.2 * min(sizes), right=4 * max(sizes))
        axes.xaxis.set_major_locator(_few_sizes(sizes))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: bytes_as_text(max(0, round(x)))))
        for text in axes.get_xticklabels():
            text.set(rotation=30, ha="right", rotation_mode="anchor")
        axes.set_title(column.upper(), fontsize=10)
        axes.set_xlabel("kept of earlier tasks")
        axes.grid(alpha=0.3)
    measure = comparison.measure
    figure.axes[0].set_ylabel(measure.titled)
    _explain(figure, comparison, shown)
    title = f"{measure.name} against memory kept{_better(measure)}, lines are 95 % intervals"
    title += _about_inferred(comparison)
    missing = [_plain(r.label) for i, r in enumerate(comparison.rows) if i not in shown]
    if missing:
        title += f"\nnot known of {'; '.join(missing)}"
    figure.suptitle(title, fontsize=10)
    return figure


def accuracy_matrices(comparison: Comparison) -> Figure | None:
    """The accuracy (%), or error, on each task (column) after learning each task (row), of all
    methods.
    """
    labelled, measure = _labelled(comparison), comparison.measure
    cells = [_square(variant.matrices) for _, variant in labelled]
    if measure.higher_is_better:
        low = min(90.0, 10 * math.floor(min(map(np.nanmin, cells)) / 10))
        scale, colors = mpl.colors.Normalize(low, 100), "viridis"
    else:
        ends = error_range(np.concatenate([values.ravel() for values in cells]))
        scale, colors = mpl.colors.LogNorm(*ends, clip=True), "viridis_r"
    columns = min(len(cells), _MAX_SIDE_BY_SIDE)
    lines = -(-len(cells) // columns)
    figure = Figure(figsize=(1.4 + 2.8 * columns, 0.8 + 2.8 * lines), layout="constrained")
    all_axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes in all_axes[len(cells) :]:
        axes.remove()
    for axes, (label, variant), values in zip(all_axes, labelled, cells, strict=False):
        size = len(values)
        extent = (0.5, size + 0.5, size + 0.5, 0.5)  # tasks are counted from 1
        image = axes.imshow(values, cmap=colors, norm=scale, extent=extent)
        if size <= _MAX_NUMBERS:
            for (t, k), value in np.ndenumerate(values):
                if not np.isnan(value):
                    is_dark = (scale(value) < 0.5) == measure.higher_is_better
                    text = f"{value:.0f}" if measure.higher_is_better else f"{value:.1g}"
                    axes.text(k + 1, t + 1, text, ha="center", va="center",
                              color="white" if is_dark else "black",
                              fontsize=8 if size <= 6 else 6)  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        n = f"n = {len(variant.seeds)}".replace(" ", "\N{NO-BREAK SPACE}")
        title = textwrap.fill(f"{label}, {n}", 34)
        axes.set_title(title, fontsize=9)
        axes.set(xlabel="task tested", ylabel="after learning task")
    figure.colorbar(image, ax=all_axes[:columns], shrink=0.8, label=measure.titled)
    return figure


# By the name of their files: what makes them, and what they are called.
FIGURES: dict[str, tuple[Callable[[Comparison], Figure | None], str]] = {
    "accuracy_over_time": (accuracy_over_time, "Accuracy over time"),
    "final_accuracies": (final_accuracies, "Final accuracies"),
    "accuracy_against_memory": (accuracy_against_memory, "Accuracy against memory"),
    "accuracy_matrices": (accuracy_matrices, "Accuracy matrices"),
}


def _better(measure: Measure) -> str:
    return "" if measure.higher_is_better else " (lower is better)"


def _labelled(comparison: Comparison) -> list[tuple[str, Variant]]:
    """All variants; each label says in which scenario, where they are of several."""
    variants = [v for row in comparison.rows for v in row.variants]
    if len({scenario_name(v) for v in variants}) == 1:
        return [(_plain(row.label), v) for row in comparison.rows for v in row.variants]
    return [
        (f"{_plain(row.label)} ({scenario_name(variant)})", variant)
        for row in comparison.rows
        for variant in row.variants
    ]


def _with_memory(comparison: Comparison, column: str) -> list[tuple[int, Tested, int]]:
    """The rows whose accuracy and memory are known: number, accuracy, bytes."""
    points = []
    for i, (row, tested) in enumerate(zip(comparison.rows, comparison.tested[column], strict=True)):
        kept = _kept(row, column)
        if tested is not None and kept is not None:
            points.append((i, tested, kept))
    return points


def _kept(row: Row, column: str) -> int | None:
    variant = row.variant(column)
    return None if variant is None else variant.kept_bytes


def _side_by_side(sizes: Sequence[int]) -> list[float]:
    """By how many points each is moved to the right, so that equal ones, within 10 %, lie side by
    side; in the order of the sizes.
    """
    moved = [0.0] * len(sizes)
    groups: list[list[int]] = []
    for i in sorted(range(len(sizes)), key=lambda i: sizes[i]):
        if groups and sizes[i] <= 1.1 * sizes[groups[-1][0]]:
            groups[-1].append(i)
        else:
            groups.append([i])
    for group in groups:
        for place, i in enumerate(group):
            moved[i] = _ASIDE * (place - (len(group) - 1) / 2)
    return moved


def _few_sizes(sizes: set[int]) -> Any:
    """Ticks where something lies, but none on top of another."""
    ticks = [0.0]
    for size in sorted(sizes):
        if ticks[-1] == 0 or size >= 2 * ticks[-1]:
            ticks.append(float(size))
    return mpl.ticker.FixedLocator(ticks[-6:] if len(ticks) > 6 else ticks)


def _square(matrices: Sequence[Matrix]) -> np.ndarray:
    """The mean over seeds; a NaN where there is none."""
    mean = mean_matrix(matrices)
    cells = np.full((len(mean), len(mean)), np.nan)
    for t, row in enumerate(mean):
        cells[t, : len(row)] = [np.nan if value is None else value for value in row]
    return cells


def _axes_of(figure: Figure, number: int, **share: Any) -> list[Any]:
    return list(figure.subplots(1, number, squeeze=False, **share).flat)


def _marker(i: int) -> str:
    return _MARKERS[i % len(_MARKERS)]


def _color(i: int) -> Any:
    return mpl.colormaps["tab10"](i % _NUM_COLORS)


def _mean(tested: Tested) -> float:
    mean = summarize(tested.cell)["mean"]
    assert mean is not None  # a cell has a value
    return mean


def _about_inferred(comparison: Comparison) -> str:
    cells = [t.cell for of_column in comparison.tested.values() for t in of_column if t is not None]
    said = about_inferred(cells)
    return f"; open markers: {said}" if said else ""


def _explain(figure: Figure, comparison: Comparison, shown: Mapping[int, Any]) -> None:
    """A legend below the axes; ``shown``: by row, what is drawn of it."""
    labels = [_plain(comparison.rows[i].label) for i in sorted(shown)]
    room = 13 * figure.get_figwidth()  # characters
    columns = max(1, min(len(labels), int(room / (max(map(len, labels)) + 6))))
    lines = -(-len(labels) // columns)
    figure.set_figheight(figure.get_figheight() + _LEGEND_LINE * lines)
    figure.legend([shown[i] for i in sorted(shown)], labels, loc="outside lower center",
                  fontsize=8, ncols=columns)  # fmt: skip


def _plain(label: str) -> str:
    """A label of one line that matplotlib takes for no formula."""
    cut = label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"
    return cut.replace("$", r"\$")
