"""Presets: the settings of published runs, what was published, and how a run compares with it.

To add one is to add a file to this folder: ``experiment``, ``networks``, ``source``, perhaps
``remarks``; a table ``options`` of the command line's options; and any number of ``published``
values with ``metric`` (of "summary" in results.json), ``value``, perhaps ``spread``, both in
percent, and where they were ``printed``; of regression ``measure = "mse"``. What several presets
share is in a file of the folder ``shared``, which they name as ``base``; their own options win over
those there.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hypercl.measure import ACCURACY, Measure, measure_of

FOLDER = Path(__file__).parent
MEASURED = Path(__file__).parents[2] / "benchmarks" / "results" / "presets"
TOLERANCE = 0.5  # points within which a result is called reproduced, unless more was published
_SHARE = 0.5  # of a published error: the same


class Value(NamedTuple):
    """A published number, in percent, or an error."""

    metric: str
    value: float
    printed: str
    spread: float | None = None


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


def allowed(measure: Measure, published: float, spread: float | None) -> float:
    """By how much a result may differ that is called reproduced: the published spread or half a
    point, whichever is wider; of errors the spread or half of what was published.
    """
    return max(TOLERANCE if measure.unit else _SHARE * published, spread or 0)


def measured(name: str) -> dict[str, Any] | None:
    """The results.json of a run under a preset, if one is kept with the benchmarks."""
    path = MEASURED / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def compare(preset: Preset, summary: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Published numbers beside a run's.

    Args:
        summary: Of each metric "mean", "std" and "n" over the seeds, as in results.json.

    Returns:
        One entry a published number that was measured: metric, published, spread, measured, std, n,
        difference, within (what is :func:`allowed`).
    """
    rows = []
    measure = measure_of({"measure": preset.measure})
    for metric, value, _, spread in preset.published:
        if metric not in summary:
            continue
        measured = summary[metric]
        difference = measured["mean"] - value
        rows.append(
            {
                "metric": metric,
                "published": value,
                "spread": spread,
                "measured": measured["mean"],
                "std": measured["std"],
                "n": measured["n"],
                "difference": difference,
                "within": abs(difference) <= allowed(measure, value, spread),
            }
        )
    return rows
