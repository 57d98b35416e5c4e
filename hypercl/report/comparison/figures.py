"""Figures of a comparison, made without a display and without matplotlib's global state.

A function takes a comparison and returns a figure, or None where nothing is to be shown. It is
called within ``plots.own_defaults()``.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hypercl.report.comparison.results import Comparison, Tested, summarize
from hypercl.report.comparison.rows import Row, Variant, scenario_name
from hypercl.report.comparison.table import bytes_as_text
from hypercl.report.metrics import Matrix, mean_matrix

_MAX_NUMBERS = 10  # tasks beyond which numbers in the cells could not be read
_MAX_SIDE_BY_SIDE = 4
_LONGEST = 40  # characters of a label, beyond which it is cut
_MARKERS = "osD^vPX*<>"


def accuracy_over_time(comparison: Comparison) -> Figure | None:
    """The mean accuracy (%) on the tasks so far after each task; bands are ± the standard error
    over seeds.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    longest = 1
    for (label, variant), color, marker in _styled(_labelled(comparison)):
        numbers = np.array(variant.while_learning, dtype=float)  # [seeds, tasks]
        known = ~np.isnan(numbers).any(axis=0)
        x, numbers = 1 + np.flatnonzero(known), numbers[:, known]
        middle = numbers.mean(axis=0)
        axes.plot(x, middle, f"{marker}-", ms=4, lw=1.5, color=color, label=label)
        if len(numbers) > 1:
            sem = numbers.std(axis=0, ddof=1) / math.sqrt(len(numbers))
            axes.fill_between(x, middle - sem, middle + sem, alpha=0.2, lw=0, color=color)
        longest = max(longest, len(variant.tasks))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0.8, longest + 0.2)
    axes.set(xlabel="tasks learned", ylabel="accuracy (%), mean of tasks so far")
    axes.grid(alpha=0.3)
    _place_legend(figure, axes)
    axes.set_title("accuracy over time, bands ± standard error of the mean", fontsize=10)
    return figure


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
            axes.plot(mean, y, _MARKERS[y % len(_MARKERS)], color=color, ms=7, **look)
        axes.set_title(column.upper(), fontsize=10)
        axes.set_xlabel("accuracy (%)")
        axes.grid(alpha=0.3, axis="x")
    axes = figure.axes[0]
    axes.set_yticks(range(len(rows)), [_plain(row.label) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    title = "final accuracy, lines are 95 % intervals" + _about_inferred(comparison)
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
    sizes = {kept for points in by_column.values() for _, _, _, kept in points if kept}
    size = (2.0 + 3.2 * len(by_column), 3.6)
    figure = Figure(figsize=size, layout="constrained")
    shown: dict[int, Any] = {}  # the points that the legend explains, by row
    all_axes = _axes_of(figure, len(by_column), sharex=True)
    for axes, (column, points) in zip(all_axes, by_column.items(), strict=True):
        for i, label, tested, kept in points:
            mean = _mean(tested)
            interval = tested.interval or (mean, mean)
            bar = [[mean - interval[0]], [interval[1] - mean]]
            look = {"mfc": "white"} if tested.cell.by is not None else {}
            marker = _MARKERS[i % len(_MARKERS)]
            point = axes.errorbar(kept, mean, bar, fmt=marker, color=_color(i), ms=7, **look)
            point.set_label(label)
            shown.setdefault(i, point)
        if sizes:  # a logarithm has no place for 0, which keeps nothing
            axes.set_xscale("symlog", base=2, linthresh=min(sizes))
            axes.set_xlim(left=-0.2 * min(sizes), right=4 * max(sizes))
        axes.xaxis.set_major_locator(_few_sizes(sizes))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: bytes_as_text(max(0, round(x)))))
        axes.tick_params(axis="x", labelrotation=30)
        axes.set_title(column.upper(), fontsize=10)
        axes.set_xlabel("kept of earlier tasks")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("accuracy (%)")
    explained = [shown[i] for i in sorted(shown)]
    labels = [str(point.get_label()) for point in explained]
    columns = min(3, len(labels))
    figure.legend(explained, labels, loc="outside lower center", fontsize=8, ncols=columns)
    title = "accuracy against memory kept, lines are 95 % intervals" + _about_inferred(comparison)
    figure.suptitle(title, fontsize=10)
    return figure


def accuracy_matrices(comparison: Comparison) -> Figure | None:
    """The accuracy (%) on each task (column) after learning each task (row), of all methods."""
    labelled = _labelled(comparison)
    cells = [_square(variant.matrices) for _, variant in labelled]
    low = min(90.0, 10 * math.floor(min(map(np.nanmin, cells)) / 10))
    columns = min(len(cells), _MAX_SIDE_BY_SIDE)
    lines = -(-len(cells) // columns)
    figure = Figure(figsize=(1.4 + 2.8 * columns, 0.8 + 2.8 * lines), layout="constrained")
    all_axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes in all_axes[len(cells) :]:
        axes.remove()
    for axes, (label, variant), values in zip(all_axes, labelled, cells, strict=False):
        size = len(values)
        extent = (0.5, size + 0.5, size + 0.5, 0.5)  # tasks are counted from 1
        image = axes.imshow(values, cmap="viridis", vmin=low, vmax=100, extent=extent)
        if size <= _MAX_NUMBERS:
            for (t, k), value in np.ndenumerate(values):
                if not np.isnan(value):
                    color = "white" if value < (low + 100) / 2 else "black"
                    axes.text(k + 1, t + 1, f"{value:.0f}", ha="center", va="center", color=color,
                              fontsize=8 if size <= 6 else 6)  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_title(f"{label}, n = {len(variant.seeds)}", fontsize=9, wrap=True)
        axes.set(xlabel="task tested", ylabel="after learning task")
    figure.colorbar(image, ax=figure.axes, shrink=0.8, label="accuracy (%)")
    return figure


# By the name of their files: what makes them, and what they are called.
FIGURES: dict[str, tuple[Callable[[Comparison], Figure | None], str]] = {
    "accuracy_over_time": (accuracy_over_time, "Accuracy over time"),
    "final_accuracies": (final_accuracies, "Final accuracies"),
    "accuracy_against_memory": (accuracy_against_memory, "Accuracy against memory"),
    "accuracy_matrices": (accuracy_matrices, "Accuracy matrices"),
}


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


def _with_memory(comparison: Comparison, column: str) -> list[tuple[int, str, Tested, int]]:
    """The rows whose accuracy and memory are known: number, label, accuracy, bytes."""
    points = []
    for i, (row, tested) in enumerate(zip(comparison.rows, comparison.tested[column], strict=True)):
        kept = _kept(row, column)
        if tested is not None and kept is not None:
            points.append((i, _plain(row.label), tested, kept))
    return points


def _kept(row: Row, column: str) -> int | None:
    variant = row.variant(column)
    return None if variant is None else variant.kept_bytes


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


def _styled(items: Sequence[Any]) -> list[tuple[Any, Any, str]]:
    return [(item, _color(i), _MARKERS[i % len(_MARKERS)]) for i, item in enumerate(items)]


def _color(i: int) -> Any:
    return mpl.colormaps["tab10"](i % 10)


def _mean(tested: Tested) -> float:
    mean = summarize(tested.cell)["mean"]
    assert mean is not None  # a cell has a value
    return mean


def _about_inferred(comparison: Comparison) -> str:
    cells = [t.cell for of_column in comparison.tested.values() for t in of_column if t is not None]
    inferred = any(cell.by is not None for cell in cells)
    return "; open: the task is inferred by entropy" if inferred else ""


def _place_legend(figure: Figure, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    widest = max(map(len, labels))
    columns = max(1, min(len(labels), 90 // (widest + 6)))
    figure.legend(handles, labels, loc="outside lower center", fontsize=8, ncols=columns)


def _plain(label: str) -> str:
    """A label of one line that matplotlib takes for no formula."""
    cut = label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"
    return cut.replace("$", r"\$")
