"""Figures of a sweep, made without a display and without matplotlib's global state.

A function takes the findings and returns a figure, or None where nothing is to be shown. It is
called within ``plots.own_defaults()``. Optuna's own drawings are experimental and use pyplot's
global state; its numbers are drawn here.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from hypercl.ranges import as_argument
from hypercl.report.sweep.points import Findings, Method, Tried, validation
from hypercl.report.sweep.tables import samples

_SIDE_BY_SIDE = 3  # axes in a line
_LONGEST = 24  # characters of a name at an axis
_MANY = 30  # lines, beyond which they are thin
_LOG = 20  # times the smallest number of an option is the largest, where its axis is logarithmic
_DECADES = 1e3  # the same, where powers of ten alone would be too few ticks
_BEST, _OTHER = "crimson", "0.6"
_LOW_END = 0.25  # share of the points, the worst, that have one color: the good ones count
_MISSING = -0.12  # where a parallel axis has points to which an option is not given


_STOPPED = (
    "The value of one that stopped is that after fewer tasks, which are easier to keep: it may "
    "look better than the best."
)


class Scale(NamedTuple):
    """Where the values of an option, or of the metric, lie on an axis."""

    is_log: bool
    low: float
    high: float
    names: tuple[str, ...] | None = None  # of choices that are no numbers, at 0, 1, …

    @classmethod
    def of(cls, values: Sequence[Any]) -> "Scale":
        """Of all values that are to be shown."""
        if not values:
            return cls(False, 0.0, 1.0)
        if any(isinstance(value, str | bool) for value in values):
            names = tuple(dict.fromkeys(as_argument(value) for value in values))
            names = tuple(sorted(names, key=lambda name: (len(name), name)))
            return cls(False, 0.0, max(1.0, len(names) - 1.0), names)
        low, high = float(min(values)), float(max(values))
        return cls(low > 0 and high / low >= _LOG, low, high)

    def at(self, value: Any) -> float:
        """On the axis."""
        return float(value) if self.names is None else float(self.names.index(as_argument(value)))

    def share(self, value: Any) -> float:
        """From 0 at the low end to 1 at the high one."""
        low, high, at = self.low, self.high, self.at(value)
        if self.is_log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return 0.5 if high == low else (at - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """A few places on the axis, from 0 to 1, and what is written there."""
        if self.names is not None:
            step = -(-len(self.names) // 8)
            return [(self.share(name), _plain(name or '""')) for name in self.names[::step]]
        if self.high == self.low:
            return [(0.5, f"{self.low:.4g}")]
        if self.is_log:
            values = np.geomspace(self.low, self.high, 5)
        else:
            values = np.linspace(self.low, self.high, 5)
        shares = np.linspace(0, 1, 5)
        return [(float(s), f"{v:.3g}") for s, v in zip(shares, values, strict=True)]


def history(findings: Findings) -> Figure | None:
    """The value of each point, in the order in which they were chosen, and the best so far."""
    shown = [method for method in findings.methods if _valued(method)]
    if not shown:
        return None
    figure, all_axes = _grid(len(shown), height=3.0, sharey=True)
    sign = findings.metric.sign
    for axes, method in zip(all_axes, shown, strict=True):
        _draw_points(axes, method, [float(one.number) for one in method.tried], findings)
        finished = [one for one in method.tried if one.rank is not None]
        best = np.maximum.accumulate([sign * (one.value or 0.0) for one in finished])
        x = [one.number for one in finished] + [len(method.tried) - 0.5]
        if finished:
            axes.step(x, sign * np.append(best, best[-1]), where="post", color=_BEST, lw=1.2,
                      label="best so far")  # fmt: skip
        axes.set_title(_plain(method.label), fontsize=10)
        axes.set_xlabel("point")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    _limit_values(all_axes, shown, findings)
    figure.axes[0].set_ylabel(_named(findings))
    _explain(figure)
    return figure


def importance(findings: Findings) -> Figure | None:
    """The share of each option in what makes a point one of the best (PED-ANOVA)."""
    shown = [method for method in findings.methods if method.importance]
    if not shown:
        return None
    most = max(len(method.importance) for method in shown)
    figure, all_axes = _grid(len(shown), height=0.9 + 0.36 * most)
    for axes, method in zip(all_axes, shown, strict=True):
        names, shares = list(method.importance), [*method.importance.values()]
        bars = axes.barh(range(len(names)), shares, color="tab:blue", height=0.6)
        axes.bar_label(bars, [f"{share:.2f}" for share in shares], padding=3, fontsize=8)
        axes.set_yticks(range(len(names)), [_plain(name, 40) for name in names])
        axes.set_ylim(most - 0.4, -0.6)
        axes.set_xlim(0, 1.15)
        axes.set_title(_plain(method.label), fontsize=10)
        axes.set_xlabel("importance")
        axes.grid(alpha=0.3, axis="x")
    return figure


def parallel_coordinates(findings: Findings) -> Figure | None:
    """Each point as a line through its options and its value; the best is thick."""
    shown = [method for method in findings.methods if method.searched and _valued(method)]
    if not shown:
        return None
    widest = max(len(method.searched) for method in shown)
    size = (max(7.0, min(14.0, 2.0 + 1.7 * widest)), 0.5 + 3.0 * len(shown))
    figure = Figure(figsize=size, layout="constrained")
    all_axes = figure.subplots(len(shown), 1, squeeze=False).flat
    for axes, method in zip(all_axes, shown, strict=True):
        _draw_parallel(axes, method, findings)
    return figure


def _draw_parallel(axes: Any, method: Method, findings: Findings) -> None:
    names, points = method.searched, _valued(method)
    scales = [Scale.of([o.options[n] for o in method.tried if n in o.options]) for n in names]
    values = _scale_of_values(points, findings)
    colors = _colors(_finished(points), findings)
    order = sorted(points, key=lambda one: -_merit(one, findings))[::-1]
    look: dict[str, Any] = {"lw": 0.8 if len(points) > _MANY else 1.2, "alpha": 0.75}
    for one in order:
        y = [
            scale.share(one.options[name]) if name in one.options else _MISSING
            for name, scale in zip(names, scales, strict=True)
        ]
        y.append(values.share(one.value))
        special: dict[str, Any] = {"color": colors.to_rgba(one.value), **look}
        if one.rank == 1:
            special = {"color": _BEST, "lw": 2.5, "zorder": 9}
        elif one.status == "stopped":
            special |= {"color": _OTHER, "ls": ":"}
        axes.plot(range(len(y)), y, **special)
    lowest = 0.0
    for i, (name, scale) in enumerate(zip([*names, findings.metric.name], [*scales, values],
                                          strict=True)):  # fmt: skip
        axes.axvline(i, color="black", lw=0.8)
        ticks = scale.ticks()
        if i < len(names) and any(name not in one.options for one in points):
            ticks, lowest = [(_MISSING, "not given"), *ticks], _MISSING
        for share, text in ticks:
            axes.annotate(text, (i, share), (3, 0), textcoords="offset points", fontsize=7.5,
                          va="center", zorder=10,
                          bbox={"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none",
                                "alpha": 0.75})  # fmt: skip
    axes.set_xticks(range(len(names) + 1), [_plain(n) for n in [*names, findings.metric.name]])
    axes.set_yticks([])
    axes.set_xlim(-0.05, len(names) + 0.35)
    axes.set_ylim(lowest - 0.06, 1.06)
    for side in axes.spines.values():
        side.set_visible(False)
    best = "" if method.best is None else f"; the best, point {method.best.number}, is red"
    axes.set_title(f"{_plain(method.label)}{best}", fontsize=10)
    axes.figure.colorbar(colors, ax=axes, label=findings.metric.name, extend="min"
                         if findings.metric.higher_is_better else "max")  # fmt: skip


def metric_against_options(findings: Findings) -> Figure | None:
    """The value of each point against each of its options."""
    pairs = [(m, name) for m in findings.methods if _valued(m) for name in m.searched]
    if not pairs:
        return None
    figure, all_axes = _grid(len(pairs), height=2.7)
    for axes, (method, name) in zip(all_axes, pairs, strict=True):
        given = [one for one in method.tried if name in one.options]
        scale = Scale.of([one.options[name] for one in given])
        x = [
            scale.at(one.options[name]) + _jitter(scale, one) if name in one.options else math.nan
            for one in method.tried
        ]
        _draw_points(axes, method, x, findings)
        if scale.names is not None:
            axes.set_xticks(range(len(scale.names)), [_plain(n or '""') for n in scale.names],
                            rotation=30 if max(map(len, scale.names)) > 5 else 0)  # fmt: skip
            axes.set_xlim(-0.5, len(scale.names) - 0.5)
        elif scale.is_log:
            axes.set_xscale("log")
            if scale.high / scale.low < _DECADES:  # or the names of the ticks run into each other
                axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
                axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(_plain(name))
        if len(findings.methods) > 1:
            axes.set_title(_plain(method.label), fontsize=10)
        axes.set_ylabel(_named(findings))
        axes.grid(alpha=0.3)
        _limit_values([axes], [method], findings)
    _explain(figure)
    return figure


def learning_curves(findings: Findings) -> Figure | None:
    """The metric of each point after each task."""
    shown = [m for m in findings.methods if any(_known(one.curve) > 1 for one in m.tried)]
    if not shown:
        return None
    figure, all_axes = _grid(len(shown), height=3.4, sharey=True)
    for axes, method in zip(all_axes, shown, strict=True):
        curves = [
            (
                one,
                [k for k, value in enumerate(one.curve, start=1) if value is not None],
                [value for value in one.curve if value is not None],
            )
            for one in method.tried
        ]
        _draw_curves(axes, method, curves, findings)
        axes.set_xlabel("tasks learned")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if _scale_of_values(_valued(method), findings).is_log:
            axes.set_yscale("log")
    figure.axes[0].set_ylabel(_named(findings))
    _explain(figure)
    return figure


def validation_curves(findings: Findings) -> Figure | None:
    """The accuracy (%), or error, on the validation samples of the task that is being learned, over
    the steps of all tasks.
    """
    curves = {
        method.label: [
            (one, [step for step, _ in points], [value for _, value in points])
            for one in method.tried
            if (points := validation(one.place, findings.measure))
        ]
        for method in findings.methods
    }
    shown = [method for method in findings.methods if curves[method.label]]
    if not shown:
        return None
    figure, all_axes = _grid(len(shown), height=3.4, sharey=True)
    for axes, method in zip(all_axes, shown, strict=True):
        _draw_curves(axes, method, curves[method.label], findings)
        axes.set_xlabel("steps")
        if not findings.measure.higher_is_better:
            axes.set_yscale("log")
    figure.axes[0].set_ylabel(f"{findings.measure.titled}, validation")
    _explain(figure)
    return figure


# By the name of their files: what makes them, what they are called, and what they show.
FIGURES: dict[str, tuple[Callable[[Findings], Figure | None], str, str]] = {
    "history": (
        history,
        "Points in their order",
        f"Each point's value in the order in which the points were chosen. {_STOPPED}",
    ),
    "importance": (
        importance,
        "Importance of the options",
        "Shares in what tells the best points from all, by Optuna's PED-ANOVA; rough where there "
        "are few points.",
    ),
    "parallel_coordinates": (
        parallel_coordinates,
        "Parallel coordinates",
        f"A line is a point; its color is its value, gray ones stopped early. {_STOPPED}",
    ),
    "metric_against_options": (
        metric_against_options,
        "The metric against each option",
        "Only one option is shown at a time: points at the same place differ in the others. "
        f"{_STOPPED}",
    ),
    "learning_curves": (
        learning_curves,
        "Learning curves",
        "The metric of each point after each task.",
    ),
    "validation_curves": (
        validation_curves,
        "Validation while learning",
        "On the task that is being learned, means over the seeds.",
    ),
}


def _draw_points(axes: Any, method: Method, x: Sequence[float], findings: Findings) -> None:
    """Dots with the standard error of their values; what diverged lies at the bad end."""
    for status, look in (
        ("finished", {"marker": "o", "color": "tab:blue"}),
        ("stopped", {"marker": "o", "color": "tab:blue", "mfc": "white"}),
    ):
        chosen = [
            (at, one)
            for at, one in zip(x, method.tried, strict=True)
            if one.status == status and one.rank != 1 and _is_valued(one)
        ]
        if chosen:
            bars = [one.sem or 0.0 for _, one in chosen]
            axes.errorbar([at for at, _ in chosen], [one.value for _, one in chosen], bars, ls="",
                          ms=5, elinewidth=0.8, alpha=0.8, label=status, **look)  # fmt: skip
    diverged = [at for at, one in zip(x, method.tried, strict=True) if one.status == "diverged"]
    if diverged:
        at_end = 0.03 if findings.metric.higher_is_better else 0.97
        axes.plot(diverged, [at_end] * len(diverged), "x", color="black", ms=6, label="diverged",
                  transform=axes.get_xaxis_transform())  # fmt: skip
    for at, one in zip(x, method.tried, strict=True):
        if one.rank == 1:
            axes.errorbar(at, one.value, one.sem, marker="*", ms=13, color=_BEST, ls="", zorder=9,
                          elinewidth=1.2, label="best")  # fmt: skip


def _draw_curves(
    axes: Any,
    method: Method,
    curves: Sequence[tuple[Tried, Sequence[float], Sequence[float]]],
    findings: Findings,
) -> None:
    """A line a point, by its value's color; the best is thick, and those that have not learned all
    tasks are gray.
    """
    points = _finished(_valued(method))
    colors, colored = _colors(points, findings) if points else None, {o.number for o in points}
    thin = 0.7 if len(curves) > _MANY else 1.1
    marker = "." if all(len(x) <= 20 for _, x, _ in curves) else ""
    named: set[str | None] = set()
    for one, x, y in sorted(curves, key=lambda curve: _merit(curve[0], findings)):
        if not x:
            continue
        if one.rank == 1:
            look: dict[str, Any] = {"color": _BEST, "lw": 2.2, "zorder": 9, "label": "best"}
        elif colors is not None and one.number in colored:
            look = {"color": colors.to_rgba(one.value), "lw": thin, "alpha": 0.8}
        else:
            look = {"color": _OTHER, "lw": thin, "ls": "--", "label": one.status}
        if look.get("label") in named:
            look["label"] = None
        named.add(look.get("label"))
        axes.plot(x, y, marker=marker, **look)
    if colors is not None and _known([one.value for one in points]) > 1:
        axes.figure.colorbar(colors, ax=axes, extend="min" if findings.metric.higher_is_better
                             else "max", label=f"{findings.metric.name} of the point")  # fmt: skip
    axes.set_title(_plain(method.label), fontsize=10)
    axes.grid(alpha=0.3)


def _colors(points: Sequence[Tried], findings: Findings) -> Any:
    """A color for each value, bright for good ones; the worst part has one color."""
    values = sorted(_number(one.value) for one in points)
    if not findings.metric.higher_is_better:
        values = values[::-1]
    worst, best = values[int(_LOW_END * len(values))], values[-1]
    if worst == best:
        worst = values[0]
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.92, 256))  # yellow is lost on white
    up = findings.metric.higher_is_better
    colors = mpl.colors.ListedColormap(shades if up else shades[::-1])
    low, high = min(worst, best), max(worst, best)
    is_log = _scale_of_values(points, findings).is_log
    scale = mpl.colors.LogNorm if is_log else mpl.colors.Normalize
    return mpl.cm.ScalarMappable(scale(low, high), colors)


def _scale_of_values(points: Sequence[Tried], findings: Findings) -> Scale:
    """Of the metric; percentages have no logarithms."""
    scale = Scale.of([_number(one.value) for one in points])
    return scale._replace(is_log=scale.is_log and not findings.measure.unit)


def _limit_values(all_axes: Sequence[Any], methods: Sequence[Method], findings: Findings) -> None:
    """Leave room at the bad end, where what diverged is marked."""
    points = [one for method in methods for one in _valued(method)]
    if not points:
        return
    scale = _scale_of_values(points, findings)
    low, high = (math.log(end) if scale.is_log else end for end in (scale.low, scale.high))
    margin = 0.08 * (high - low) or 1e-3 * max(1.0, abs(high))
    more = 2.0 if any(method.counts["diverged"] for method in methods) else 1.0
    up = findings.metric.higher_is_better
    ends = low - margin * (more if up else 1.0), high + margin * (1.0 if up else more)
    for axes in all_axes:
        if scale.is_log:
            axes.set_yscale("log", nonpositive="clip")
        axes.set_ylim(*map(math.exp, ends) if scale.is_log else ends)


def _grid(number: int, height: float, **share: Any) -> tuple[Figure, list[Any]]:
    """A figure with so many axes, some side by side; ``height``: of a line, in inches."""
    columns = min(number, _SIDE_BY_SIDE)
    lines = -(-number // columns)
    width = 7.0 if columns == 1 else 1.0 + 4.0 * columns
    figure = Figure(figsize=(width, 0.5 + height * lines), layout="constrained")
    all_axes = list(figure.subplots(lines, columns, squeeze=False, **share).flat)
    for axes in all_axes[number:]:
        axes.remove()
    return figure, all_axes[:number]


def _explain(figure: Figure) -> None:
    """One legend of all axes, below them."""
    shown: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    if shown:
        figure.set_figheight(figure.get_figheight() + 0.25)
        figure.legend(list(shown.values()), list(shown), loc="outside lower center", fontsize=8,
                      ncols=len(shown))  # fmt: skip


def _valued(method: Method) -> list[Tried]:
    """The points with a value that can be shown."""
    return [one for one in method.tried if _is_valued(one)]


def _finished(points: list[Tried]) -> list[Tried]:
    """Those that have learned all tasks, which alone have values to be compared; else all."""
    return [one for one in points if one.status == "finished"] or points


def _is_valued(one: Tried) -> bool:
    has_value = one.value is not None and math.isfinite(one.value)
    return has_value and one.status in ("finished", "stopped")


def _known(values: Sequence[float | None]) -> int:
    return sum(value is not None for value in values)


def _number(value: float | None) -> float:
    assert value is not None  # _is_valued
    return value


def _merit(one: Tried, findings: Findings) -> float:
    """More is better; without a value it is the least."""
    if not _is_valued(one):
        return -math.inf
    value = _number(one.value)
    return value if findings.metric.higher_is_better else -value


def _jitter(scale: Scale, one: Tried) -> float:
    """So that points with the same choice do not hide each other."""
    return 0.0 if scale.names is None else 0.3 * ((one.number * 0.618034) % 1 - 0.5)


def _named(findings: Findings) -> str:
    return samples(findings).replace(" on ", ",\n").removesuffix(" samples")


def _plain(text: str, longest: int = _LONGEST) -> str:
    """Short text that matplotlib takes for no formula."""
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return cut.replace("$", r"\$")
