"""performance_overview.txt: what a run has found, a keyword and its numbers a line.

It is what hypnettorch's hpsearch reads of a run (docs/sweeps.rst); everything in it follows from
results.json. Numbers have no exponent, as that tool would take 1e-05 for two numbers.
"""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypercl.measure import ACCURACY, Measure, measure_of
from hypercl.report import metrics
from hypercl.report.summary import furthest
from hypercl.rundir.forms import matrix_of

# By the published rule and by ours; of the confidence, the numbers are close to the entropy's.
_INFERRED = tuple(
    f"{quantity}_{rule}"
    for rule in ("entropy", "scaled")
    for quantity in ("task_inference", "cl2", "cl3")
)


def keywords(measure: Measure = ACCURACY) -> list[str]:
    """The keywords in the order of their lines; the last is ``finished``."""
    return [
        *metrics.metrics_of(measure),
        f"final_{measure.name}_sem",
        *metrics.BY_SCENARIO,
        *_INFERRED,
        f"{measure.name}_list_final",
        f"{measure.name}_list_during",
        "num_weights_main",
        "num_weights_trained",
        "num_seeds",
        "num_seeds_failed",
        "seconds",
        "finished",
    ]


def overview(results: Mapping[str, Any]) -> str:
    """The file's text: means over the seeds that have come furthest, accuracies in percent.

    ``nan`` stands for what is not defined or not known. ``finished`` is 1 or 0.
    """
    measure, summary = measure_of(results), results["summary"]
    done = furthest(results["seeds"])
    matrix = metrics.mean_matrix([matrix_of(seed) for seed in done])
    final = f"final_{measure.name}"
    numbers: dict[str, Any] = {
        f"{final}_sem": summary.get(final, {}).get("sem"),
        f"{measure.name}_list_final": matrix[-1] if matrix else None,
        f"{measure.name}_list_during": [row[-1] for row in matrix] if matrix else None,
        "num_weights_main": results["num_weights"]["main"],
        "num_weights_trained": results["num_weights"]["trained"],
        "num_seeds": len(results["seeds"]),
        "num_seeds_failed": sum("failed" in seed for seed in results["seeds"]),
        "seconds": round(results["seconds"]["total"], 1),
        "finished": int(results["status"] == "finished"),
    }
    lines = []
    for keyword in keywords(measure):
        value = numbers[keyword] if keyword in numbers else summary.get(keyword, {}).get("mean")
        values = value if isinstance(value, Sequence) else [value]
        lines.append(" ".join([keyword, *map(_text, values)]))
    return "\n".join(lines) + "\n"


def read_overview(path: Path, names: Sequence[str]) -> dict[str, float | list[float]]:
    """What such a file says under some keywords; NaN for what it does not say.

    Raises:
        OSError: It is not there, or cannot be read.
        ValueError: A line has something else than numbers.
    """
    found: dict[str, float | list[float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        keyword, *words = line.split()
        numbers = [float(word) for word in words]
        found[keyword] = numbers[0] if len(numbers) == 1 else numbers
    return {name: found.get(name, math.nan) for name in names}


def _text(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "nan"
    return format(Decimal(repr(value)), "f")
