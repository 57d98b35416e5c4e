"""Presets: the settings of published runs, what was published, and how a run compares with it.

To add one is to add a file to this folder: ``experiment``, ``networks``, ``source``, perhaps
``remarks``; a table ``options`` of the command line's options; and any number of ``published``
values with ``metric`` (of "summary" in results.json), ``value`` in percent, and where they were
``printed``; of regression ``measure = "mse"``. A value is that of a single run, unless it has the
number ``n`` of runs that it is the mean of, and the standard error ``sem`` of that mean. A single
run that a search has chosen by its test accuracy has ``best_of_search = true``. What several
presets share is in a file of the folder ``shared``, which they name as ``base``; their own options
win over those there.
"""

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hypercl.measure import ACCURACY

FOLDER = Path(__file__).parent
MEASURED = Path(__file__).parents[2] / "benchmarks" / "results" / "presets"
WITHIN = 2  # standard errors of a difference, up to which a result is called reproduced


class Value(NamedTuple):
    """A published number, in percent, or an error."""

    metric: str
    value: float
    printed: str
    sem: float | None = None  # standard error of the mean; None for a single run
    n: int = 1  # runs that it is the mean of
    best_of_search: bool = False  # a single run, chosen by its test accuracy


@dataclass(frozen=True)
class Preset:
    """The settings of a published run."""

    name: str
    experiment: str
    networks: str
    source: str
    options: Mapping[str, Any]
    published: Sequence[Value]
    remarks: str = ""
    measure: str = ACCURACY.key

    def describe(self) -> str:
        """What it is of, in words."""
        remarks = f"; {self.remarks}" if self.remarks else ""
        return f"preset {self.name}: {self.experiment}, {self.networks}; {self.source}{remarks}"


def names() -> list[str]:
    """All presets."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> Preset:
    """Read a preset.

    Raises:
        KeyError: There is none of this name.
    """
    if name not in names():
        raise KeyError(name)
    content = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    if (base := content.pop("base", None)) is not None:
        shared = tomllib.loads((FOLDER / "shared" / f"{base}.toml").read_text(encoding="utf-8"))
        content = shared | content | {"options": shared["options"] | content["options"]}
    values = [Value(**value) for value in content.pop("published", [])]
    return Preset(name, published=values, **content)


def kind(n: int, *, best_of_search: bool) -> str:
    """What a published number is, in words."""
    if n > 1:
        return f"mean of {n} runs"
    return "best of a search" if best_of_search else "single run"


def standard_error(published: Value, std: float | None, n: int) -> float | None:
    """Of the difference of a published number and the mean of n runs of standard deviation ``std``.

    It is sqrt(s_p² / n_p + s² / n), of two means the root of the sum of their squared standard
    errors. A single run says nothing of its spread and is taken to spread as the other side does;
    beside the mean of n runs that is s sqrt(1 + 1/n), as in a prediction interval.

    Returns:
        None where both are single runs, or no run differs from another.
    """
    spread = std if published.sem is None else published.sem * math.sqrt(published.n)
    if spread is None:
        return None
    measured = spread if std is None else std
    return math.sqrt(spread**2 / published.n + measured**2 / n) or None


def measured(name: str) -> dict[str, Any] | None:
    """The results.json of a run under a preset, if one is kept with the benchmarks."""
    path = MEASURED / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def compare(preset: Preset, summary: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Published numbers beside a run's.

    Args:
        summary: Of each metric "mean", "std" and "n" over the seeds, as in results.json.

    Returns:
        One entry a published number that was measured: metric, published, published_sem,
        published_n, best_of_search, measured, std, n, difference; the difference in standard errors
        (:func:`standard_error`) and whether it is within two of them, None where that is unknown.
    """
    rows = []
    for value in preset.published:
        if value.metric not in summary:
            continue
        measured = summary[value.metric]
        difference = measured["mean"] - value.value
        error = standard_error(value, measured["std"], measured["n"])
        rows.append(
            {
                "metric": value.metric,
                "published": value.value,
                "published_sem": value.sem,
                "published_n": value.n,
                "best_of_search": value.best_of_search,
                "measured": measured["mean"],
                "std": measured["std"],
                "n": measured["n"],
                "difference": difference,
                "standard_errors": None if error is None else difference / error,
                "within": None if error is None else abs(difference) <= WITHIN * error,
            }
        )
    return rows
