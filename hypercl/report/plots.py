"""Figures of a run, made without a display and without matplotlib's global state."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from hypercl.report.metrics import Matrix, final_accuracy, mean_matrix

_MAX_NUMBERS = 20  # tasks beyond which numbers in the cells could not be read
_MAX_LEGEND = 10


@contextmanager
def own_defaults() -> Iterator[None]:
    """A context with matplotlib's own settings: a user's may ask for what a machine lacks."""
    with mpl.rc_context():
        mpl.rcdefaults()
        yield


def accuracy_matrix(matrices: Sequence[Matrix], task_names: Sequence[str], title: str) -> Figure:
    """Heatmap of the accuracy (%) on each task (column) after learning each task (row).

    Args:
        matrices: One accuracy matrix for each seed; their mean is shown.
    """
    accuracy = mean_matrix(matrices)
    cells = np.full((len(task_names), len(task_names)), np.nan)
    for t, row in enumerate(accuracy):
        cells[t, : len(row)] = np.array(row, dtype=float)  # None becomes NaN
    low = min(90.0, 10 * np.floor(np.nanmin(cells) / 10))
    figure = _heatmap(cells, task_names, title, low, "accuracy (%)")
    figure.axes[0].set(xlabel="task tested", ylabel="after learning task")
    return figure


def task_confusion(confusion: Matrix, task_names: Sequence[str], title: str) -> Figure:
    """Heatmap of the share (%) of each task's samples (row) taken for each task (column)."""
    label = "share of the task's samples (%)"
    figure = _heatmap(np.array(confusion), task_names, title, 0, label)
    figure.axes[0].set(xlabel="task inferred, by the lowest entropy", ylabel="task")
    return figure


def _heatmap(
    cells: np.ndarray, task_names: Sequence[str], title: str, low: float, label: str
) -> Figure:
    """A square of percentages from ``low`` to 100 over tasks; a NaN leaves its cell empty."""
    size = len(cells)
    width = max(6.0, min(12.0, 1.5 + 0.75 * size))
    figure = Figure(figsize=(width, 0.85 * width), layout="constrained")
    axes = figure.subplots()
    extent = (0.5, size + 0.5, size + 0.5, 0.5)  # tasks are counted from 1
    image = axes.imshow(cells, cmap="viridis", vmin=low, vmax=100, extent=extent)
    figure.colorbar(image, ax=axes, shrink=0.8, label=label)
    if size <= _MAX_NUMBERS:
        for (t, k), value in np.ndenumerate(cells):
            color = "white" if value < (low + 100) / 2 else "black"
            if not np.isnan(value):
                axes.text(
                    k + 1, t + 1, f"{value:.1f}", ha="center", va="center", color=color, fontsize=9
                )
        labels = [f"{i + 1}: {name}" for i, name in enumerate(task_names)]
        axes.set_xticks(range(1, size + 1), labels, rotation=45, ha="right")
        axes.set_yticks(range(1, size + 1), labels)
    axes.set_title(title, fontsize=10)
    return figure


def accuracy_over_time(matrices: Sequence[Matrix], task_names: Sequence[str], title: str) -> Figure:
    """Accuracy (%) of each task after each task learned, and the mean over the tasks so far.

    Args:
        matrices: One accuracy matrix for each seed; lines are their means, bands ± the standard
            error.
    """
    size, num_learned = len(task_names), len(matrices[0])
    learned = np.arange(1, num_learned + 1)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    colors = mpl.colormaps["viridis"](np.linspace(0, 0.9, size))

    def draw(x, values, style: str, **look) -> None:  # values [seeds, rows]
        values = np.array(values, dtype=float)
        tested = ~np.isnan(values).any(axis=0)
        x, values = x[tested], values[:, tested]
        middle, sem = np.mean(values, axis=0), _sem(values)
        axes.plot(x, middle, style, **look)
        if len(values) > 1:
            axes.fill_between(x, middle - sem, middle + sem, alpha=0.2, lw=0, color=look["color"])

    for k in range(num_learned):
        values = [[row[k] for row in accuracy[k:]] for accuracy in matrices]
        label = f"{k + 1}: {task_names[k]}" if size <= _MAX_LEGEND else None
        draw(learned[k:], values, "o-", ms=4, lw=1.2, color=colors[k], label=label)
    means = [[final_accuracy([row]) for row in accuracy] for accuracy in matrices]
    draw(learned, means, "s--", ms=5, lw=2, color="crimson", label="mean of tasks so far")
    axes.set_xlim(0.8, size + 0.2)
    axes.set_xticks(learned if size <= _MAX_NUMBERS else learned[:: size // 10])
    axes.set_xlabel("tasks learned")
    axes.set_ylabel("accuracy (%)")
    axes.grid(alpha=0.3)
    if size > _MAX_LEGEND:
        scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(1, size), mpl.colormaps["viridis"])
        figure.colorbar(scale, ax=axes, label="task")
        axes.legend(loc="lower left")
    else:
        axes.legend(title="task", loc="center left", bbox_to_anchor=(1.01, 0.5))
    axes.set_title(title, fontsize=10)
    return figure


def _sem(values) -> np.ndarray:
    """Standard error of the mean over the first axis; zero for one value."""
    count = len(values)
    return np.std(values, axis=0, ddof=1) / np.sqrt(count) if count > 1 else np.zeros(1)
