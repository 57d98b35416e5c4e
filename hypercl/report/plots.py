"""Figures of a run, made without a display and without matplotlib's global state."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from hypercl.measure import ACCURACY, Measure
from hypercl.report.drawing import Fit
from hypercl.report.metrics import Matrix, mean_matrix, mean_of_whole

_MAX_NUMBERS = 20  # tasks beyond which numbers in the cells could not be read
_MAX_LEGEND = 10


_settings = threading.Lock()  # matplotlib's, which all threads share


@contextmanager
def own_defaults() -> Iterator[None]:
    """A context with matplotlib's own settings: a user's may ask for what a machine lacks."""
    with _settings, mpl.rc_context():
        mpl.rcdefaults()
        yield


def accuracy_matrix(
    matrices: Sequence[Matrix],
    task_names: Sequence[str],
    title: str,
    measure: Measure = ACCURACY,
) -> Figure:
    """Heatmap of the accuracy (%), or the error, on each task (column) after learning each task
    (row).

    Args:
        matrices: One matrix for each seed; their mean is shown. A cell is empty where a task was
            not tested.
    """
    mean = mean_matrix(matrices)
    cells = np.full((len(task_names), len(task_names)), np.nan)
    for t, row in enumerate(mean):
        cells[t, : len(row)] = [np.nan if value is None else value for value in row]
    title = _of_mean(title, len(matrices))
    if measure.higher_is_better:
        low = min(90.0, 10 * np.floor(np.nanmin(cells) / 10))
        figure = _heatmap(cells, task_names, title, low, measure.titled)
    else:
        figure = _heatmap_of_errors(cells, task_names, title, measure)
    figure.axes[0].set(xlabel="task tested", ylabel="after learning task")
    return figure


def task_confusion(
    by_rule: Mapping[str, Sequence[Matrix]], task_names: Sequence[str], title: str
) -> Figure:
    """Heatmaps of the share (%) of each task's samples (row) taken for each task (column), one for
    each rule that infers tasks. Rules that agree have one together, as entropy and confidence do
    where tasks have two classes.

    Args:
        by_rule: One matrix for each seed; their mean is shown.
    """
    shares = {rule: np.array(mean_matrix(m), dtype=float) for rule, m in by_rule.items()}
    shown: list[tuple[str, np.ndarray]] = []
    for rule, cells in shares.items():
        alike = [i for i, (_, others) in enumerate(shown) if np.array_equal(cells, others)]
        if alike:
            shown[alike[0]] = (f"{shown[alike[0]][0]} and {rule}", cells)
        else:
            shown.append((rule, cells))
    width, number = _width_of(len(task_names)), len(shown)
    size = 0.75 * width * number + 1.5, 0.75 * width + 1.5
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, number, squeeze=False, sharey=True)[0]
    scale = mpl.colors.Normalize(0, 100)
    for axes, (rules, cells) in zip(panels, shown, strict=True):
        image = _draw_square(axes, cells, task_names, scale, "viridis", "{:.1f}".format)
        axes.set_title(f"by {rules}: {np.diagonal(cells).mean():.1f} % right", fontsize=10)
        axes.set_xlabel("task inferred")
    panels[0].set_ylabel("task")
    label = "share of the task's samples (%)"
    figure.colorbar(image, ax=panels, shrink=0.8, label=label)
    figure.suptitle(_of_mean(title, len(next(iter(by_rule.values())))), fontsize=10)
    return figure


def _heatmap(
    cells: np.ndarray, task_names: Sequence[str], title: str, low: float, label: str
) -> Figure:
    """A square of percentages from ``low`` to 100 over tasks; a NaN leaves its cell empty."""
    scale = mpl.colors.Normalize(low, 100)
    return _square_of(cells, task_names, title, label, scale, "viridis", "{:.1f}".format)


def _heatmap_of_errors(
    cells: np.ndarray, task_names: Sequence[str], title: str, measure: Measure
) -> Figure:
    """The same of errors, by their logarithms; bright is good here, too."""
    low, high = error_range(cells)
    scale = mpl.colors.LogNorm(low, high, clip=True)
    return _square_of(cells, task_names, title, measure.titled, scale, "viridis_r", "{:.2g}".format)


def error_range(values: np.ndarray) -> tuple[float, float]:
    """Where an axis of the logarithms of errors begins and ends; some may be NaN or 0."""
    known = values[np.isfinite(values) & (values > 0)]
    if not known.size:
        return 0.1, 1.0
    low, high = float(known.min()), float(known.max())
    return low / 1.5, max(high, 10 * low) * 1.5


def _square_of(
    cells: np.ndarray,
    task_names: Sequence[str],
    title: str,
    label: str,
    scale: mpl.colors.Normalize,
    colors: str,
    text: Callable[[float], str],
) -> Figure:
    width = _width_of(len(cells))
    figure = Figure(figsize=(width, 0.85 * width), layout="constrained")
    axes = figure.subplots()
    image = _draw_square(axes, cells, task_names, scale, colors, text)
    figure.colorbar(image, ax=axes, shrink=0.8, label=label)
    axes.set_title(title, fontsize=10)
    return figure


def _width_of(size: int) -> float:
    """Of a square over so many tasks with its colors' scale, in inches."""
    return max(6.0, min(12.0, 1.5 + 0.75 * size))


def _draw_square(
    axes,
    cells: np.ndarray,
    task_names: Sequence[str],
    scale: mpl.colors.Normalize,
    colors: str,
    text: Callable[[float], str],
) -> mpl.image.AxesImage:
    """Cells over tasks, with their numbers where these can be read."""
    size = len(cells)
    extent = (0.5, size + 0.5, size + 0.5, 0.5)  # tasks are counted from 1
    image = axes.imshow(cells, cmap=colors, norm=scale, extent=extent)
    if size <= _MAX_NUMBERS:
        dark_below = not colors.endswith("_r")
        for (t, k), value in np.ndenumerate(cells):
            if not np.isnan(value):
                is_dark = (scale(value) < 0.5) == dark_below
                color = "white" if is_dark else "black"
                axes.text(
                    k + 1, t + 1, text(value), ha="center", va="center", color=color, fontsize=9
                )
        labels = [f"{i + 1}: {name}" for i, name in enumerate(task_names)]
        axes.set_xticks(range(1, size + 1), labels, rotation=45, ha="right")
        axes.set_yticks(range(1, size + 1), labels)
    return image


def accuracy_over_time(
    matrices: Sequence[Matrix],
    task_names: Sequence[str],
    title: str,
    measure: Measure = ACCURACY,
) -> Figure:
    """Accuracy (%), or error, of each task after each task learned, and the mean over the tasks so
    far.

    Lines join the points at which a task was tested; means are of points at which all were.

    Args:
        matrices: One for each seed; lines are their means, bands ± the standard
            deviation.
    """
    size, num_learned = len(task_names), len(matrices[0])
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    colors = mpl.colormaps["viridis"](np.linspace(0, 0.9, size))
    many = size > _MAX_NUMBERS
    if many:  # a tangle, in which the last point tells and the mean is to be seen
        look: dict[str, Any] = {"style": "-", "lw": 0.5, "alpha": 0.5}
    else:
        look = {"style": "o-", "ms": 4, "lw": 1.2}
    for k in range(num_learned):
        column: list[list[float | None]] = [[*[None] * k, *(row[k] for row in accuracy[k:])]
                                            for accuracy in matrices]  # fmt: skip
        label = f"{k + 1}: {task_names[k]}" if size <= _MAX_LEGEND else None
        _draw_known(axes, column, color=colors[k], label=label, band=not many, **look)
    if many:
        learned = [[row[-1] for row in accuracy] for accuracy in matrices]
        _draw_known(axes, learned, "-", color="black", lw=1.2, label="task just learned")
    means = [[mean_of_whole(row) for row in accuracy] for accuracy in matrices]
    look = {"lw": 2} if many else {"ms": 5, "lw": 2}
    _draw_known(axes, means, "-" if many else "s--", color="crimson", label="mean of tasks so far",
                **look)  # fmt: skip
    axes.set_xlim(0.8, size + 0.2)
    axes.set_xticks(_few_of(size))
    axes.set_xlabel("tasks learned")
    axes.set_ylabel(measure.titled)
    if not measure.higher_is_better:
        known = [value for matrix in matrices for row in matrix for value in row if value]
        axes.set_yscale("log", nonpositive="clip")
        axes.set_ylim(*error_range(np.array(known, dtype=float)))
        axes.yaxis.set_major_formatter(_PlainFormatter())
    axes.grid(alpha=0.3)
    if size > _MAX_LEGEND:
        scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(1, size), _UP_TO_YELLOW)
        figure.colorbar(scale, ax=axes, label="task")
        axes.legend(loc="lower left")
    else:
        axes.legend(title="task", loc="center left", bbox_to_anchor=(1.01, 0.5))
    axes.set_title(_with_spread(title, len(matrices)), fontsize=10)
    return figure


# The part of the colormap that lines have: yellow ones could not be seen on white.
_UP_TO_YELLOW = mpl.colors.ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.9, 256)))


def _draw_known(
    axes, values: Sequence[Sequence[float | None]], style: str, *, band: bool = True, **look
) -> None:
    """A line through the mean over seeds after 1, 2, … tasks, and a band of ± their deviation.

    Args:
        values: [seeds, tasks learned]; None, for all seeds alike, where there is no point.
    """
    numbers = np.array(values, dtype=float)
    known = ~np.isnan(numbers).any(axis=0)
    x, numbers = 1 + np.flatnonzero(known), numbers[:, known]
    _draw(axes, x, numbers, style, band=band, **look)


def _draw(axes, x, values: np.ndarray, style: str, *, band: bool = True, **look) -> None:
    """A line through the mean over the first axis, and a band of ± the standard deviation."""
    middle = values.mean(axis=0)
    axes.plot(x, middle, style, **look)
    if band and len(values) > 1:
        std = values.std(axis=0, ddof=1)
        axes.fill_between(x, middle - std, middle + std, alpha=0.2, lw=0, color=look["color"])


class _PlainFormatter(LogFormatter):
    """Numbers as they are: a formula costs 0.1 s."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


_FEW_POINTS = 60  # have marks, as one between two gaps makes no line


class LossHistory(NamedTuple):
    """The losses at the logged steps of all tasks; a NaN stands between two tasks."""

    steps: np.ndarray  # [N], counted through all tasks
    task_loss: np.ndarray  # [seeds, N]
    penalty: np.ndarray  # [seeds, N]
    others: Mapping[str, np.ndarray]  # [seeds, N] each, by name in metrics.jsonl
    ends: list[int]  # of the tasks, in steps
    tasks: list[int]  # counted from 0; of a run that continues another, the new ones

    @classmethod
    def of(
        cls, rows: Iterable[Mapping[str, Any]], seeds: Sequence[int], others: Sequence[str] = ()
    ) -> "LossHistory":
        """From the lines of metrics.jsonl, at the steps that are logged of all ``seeds``.

        Args:
            others: Names of the method's own losses. Lines of an earlier version lack them.
        """
        names = "task_loss", "penalty", *others
        by_step: dict[tuple[int, int], dict[int, list[float]]] = {}
        for row in rows:
            at_step = by_step.setdefault((row["task"], row["step"]), {})
            at_step[row["seed"]] = [row.get(name, np.nan) for name in names]
        steps: list[float] = []
        losses: list[list[list[float]]] = []
        ends: list[int] = []
        tasks: list[int] = []
        before, task_now, last = 0, None, 0
        for (task, step), at_step in sorted(by_step.items()):
            if not all(seed in at_step for seed in seeds):
                continue
            if task != task_now:
                if task_now is not None:
                    before += last
                    ends.append(before)
                    steps.append(np.nan)
                    losses.append([[np.nan] * len(names)] * len(seeds))
                task_now = task
                tasks.append(task)
            steps.append(before + step)
            losses.append([at_step[seed] for seed in seeds])
            last = step
        ends.append(before + last)
        numbers = np.array(losses, dtype=float).reshape(len(steps), len(seeds), len(names))
        task_loss, penalty, *of_others = numbers.transpose(2, 1, 0)
        by_name = dict(zip(others, of_others, strict=True))
        return cls(np.array(steps), task_loss, penalty, by_name, ends, tasks)


def losses(history: LossHistory, title: str) -> Figure:
    """Task loss, penalty and the method's own losses over the steps of all tasks, a panel each;
    lines stand where tasks end.
    """
    own = history.others.items()
    shown = [
        (history.task_loss, "tab:blue", "task loss of the batch"),
        (history.penalty, "tab:orange", "penalty, without beta"),
        *((values, "tab:green", name.replace("_", " ")) for name, values in own),
    ]
    width, height = min(16.0, max(8.0, 0.3 * len(history.ends))), 6 + 1.8 * len(own)
    figure = Figure(figsize=(width, height))
    margin = 0.9 / width  # set by hand: a layout engine would draw the figure twice
    frame: dict[str, Any] = {"left": margin, "right": 1 - margin / 2, "hspace": 0.06}
    frame |= {"bottom": 0.5 / height, "top": 1 - 0.8 / height}
    frame |= {"height_ratios": [2.3, 2.3, *[1.8] * len(own)]}
    panels = figure.subplots(len(shown), sharex=True, gridspec_kw=frame)
    for axes, (values, color, label) in zip(panels, shown, strict=True):
        # A logarithm has no place for zeros, and a first step's penalty is one but for rounding.
        least = 1e-6 * np.max(values, where=~np.isnan(values), initial=0)
        values = np.where(values > least, values, np.nan)
        if np.isfinite(values).any():
            axes.set_yscale("log", nonpositive="clip")
            for ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
                ticks(_PlainFormatter(minor_thresholds=(1, 0.4)))
            few = np.isfinite(values).sum() <= _FEW_POINTS * len(values)
            _draw(axes, history.steps, values, ".-" if few else "-", color=color, lw=1)
            # A band that reaches zero has no lower end there.
            axes.set_ylim(np.nanmin(values) / 1.5, np.nanmax(values) * 1.5)
        else:
            axes.set_yticks([])  # a first task has no penalty
        axes.vlines(history.ends[:-1], 0, 1, transform=axes.get_xaxis_transform(), color="gray",
                    lw=0.8 if len(history.ends) <= _MAX_NUMBERS else 0.3)  # fmt: skip
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    starts = [0, *history.ends[:-1]]
    middles = [(start + end) / 2 for start, end in zip(starts, history.ends, strict=True)]
    top = panels[0]
    at_top = {"transform": top.get_xaxis_transform(), "ha": "center", "va": "bottom"}
    for k in (k - 1 for k in _few_of(len(middles))):
        number = history.tasks[k] + 1 if history.tasks else 1
        top.text(middles[k], 1.02, str(number), **at_top)
    top.set_title("task", fontsize=10, pad=18)
    top.set_xlim(0, history.ends[-1])
    panels[-1].set_xlabel("steps")
    title = _with_spread(title, len(history.task_loss))
    figure.suptitle(title, fontsize=10, y=1 - 0.1 / height)
    return figure


def fit(fits: Sequence[Fit], title: str) -> Figure:
    """Each task's network on the task's interval and a bit beyond: thin lines are seeds, thick ones
    their means. Dots are training samples, the dashed line goes through the test samples.
    """
    num_seeds = len(fits[0].outputs)
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    colors = mpl.colormaps["viridis"](np.linspace(0, 0.8, len(fits)))
    shown = [value for one in fits for part in (one.train, one.test) for value in part[1]]
    for number, (one, color) in enumerate(zip(fits, colors, strict=True), start=1):
        outputs = np.array(one.outputs)
        axes.plot(*one.train, ".", color=color, ms=6, alpha=0.5, mew=0)
        if num_seeds > 1:
            axes.plot(one.inputs, outputs.T, "-", color=color, lw=0.7, alpha=0.45)
        mean = outputs.mean(axis=0)
        label = f"{number}: {one.name}" if len(fits) <= _MAX_LEGEND else None
        axes.plot(one.inputs, mean, "-", color=color, lw=2, label=label)
        x, y = np.array(one.test)[:, np.argsort(one.test[0])]
        axes.plot(x, y, "--", color="black", lw=1.2, label="test" if number == 1 else None)
    low, high = min(shown), max(shown)
    margin = 0.15 * (high - low or 1.0)
    axes.set_ylim(low - margin, high + margin)  # beyond its samples a network may go anywhere
    handles, labels = axes.get_legend_handles_labels()
    dots = mpl.lines.Line2D([], [], ls="", marker=".", ms=7, mew=0, color="gray")
    order = sorted(range(len(labels)), key=lambda i: labels[i] == "test")
    handles = [handles[i] for i in order] + [dots]
    labels = [labels[i] for i in order] + ["training samples"]
    labels = ["test samples" if label == "test" else label for label in labels]
    axes.legend(handles, labels, title="task", loc="center left", bbox_to_anchor=(1.01, 0.5))
    axes.set(xlabel="input", ylabel="output")
    axes.grid(alpha=0.3)
    about = f"\nthin lines: n = {num_seeds} seeds, thick: their mean" if num_seeds > 1 else ""
    axes.set_title(title + about, fontsize=10)
    return figure


def replay(images: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """Generated images, those of a task side by side, the tasks below each other.

    Args:
        images: [tasks, N, H, W, C] uint8, of one channel or three; or [1, N, H, W, C] of all tasks.
        names: Of the tasks.
    """
    rows, number, height, width, channels = images.shape
    gap = 2
    shape = rows * (height + gap) - gap, number * (width + gap) - gap, channels
    mosaic = np.full(shape, 255, dtype=np.uint8)
    for row in range(rows):
        for column in range(number):
            top, left = row * (height + gap), column * (width + gap)
            mosaic[top : top + height, left : left + width] = images[row, column]
    figure = Figure(figsize=(8, 0.9 + 6.5 * shape[0] / shape[1]), layout="constrained")
    axes = figure.subplots()
    axes.imshow(mosaic.squeeze(-1) if channels == 1 else mosaic, cmap="gray", vmin=0, vmax=255)
    shown = _few_of(rows)
    labels = [names[i - 1] for i in shown] if rows > 1 else ["all tasks"]
    axes.set_yticks([(i - 1) * (height + gap) + height / 2 for i in shown], labels)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=10)
    return figure


def _few_of(size: int) -> list[int]:
    """Tasks to write at an axis, counted from 1."""
    step = 1 if size <= _MAX_NUMBERS else size // 10
    return list(range(step, size + 1, step))


def _of_mean(title: str, num_seeds: int) -> str:
    return title if num_seeds == 1 else f"{title}\nmean of n = {num_seeds} seeds"


def _with_spread(title: str, num_seeds: int) -> str:
    if num_seeds == 1:
        return title
    return f"{title}\nmean ± standard deviation, n = {num_seeds} seeds"
