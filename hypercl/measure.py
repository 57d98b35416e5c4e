"""What is measured of a task: an accuracy, or of regression a mean squared error. No torch."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Measure(NamedTuple):
    """A number that says how well a task is solved, and how it is written."""

    key: str  # in "measure" of results.json
    name: str  # of its matrix in results.json, and in the names of summary and metrics.jsonl
    title: str  # in words
    unit: str  # "%", or empty where it has none
    higher_is_better: bool

    @property
    def factor(self) -> int:
        """From what networks are tested by to what is written: 100 for percent."""
        return 100 if self.unit else 1

    @property
    def titled(self) -> str:
        """``accuracy (%)``, ``mean squared error``."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.higher_is_better else -1

    def text(self, value: float | None, digits: int = 2) -> str:
        """A number for people; ``-`` for what was not measured.

        Args:
            digits: Of percentages, behind the point; of what has no unit, twice as many count.
        """
        if value is None:
            return "-"
        return f"{value:.{digits}f}" if self.unit else f"{value:#.{2 * digits}g}"

    def change(self, value: float | None) -> str:
        """The same of a difference, with its sign."""
        if value is None:
            return "-"
        return f"{value:+.2f}" if self.unit else f"{value:+#.4g}"


ACCURACY = Measure("accuracy", "accuracy", "accuracy", "%", higher_is_better=True)
ERROR = Measure("mse", "error", "mean squared error", "", higher_is_better=False)
_ALL = {measure.key: measure for measure in (ACCURACY, ERROR)}


def measure_of(results: Mapping[str, Any]) -> Measure:
    """That of a run's results.json; where it has none, an accuracy.

    Raises:
        KeyError: It is of another version.
    """
    return _ALL[results.get("measure", ACCURACY.key)]


def is_known(results: Mapping[str, Any]) -> bool:
    """Whether :func:`measure_of` knows it."""
    return results.get("measure", ACCURACY.key) in _ALL
