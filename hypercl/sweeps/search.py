"""What is tried next, and which points stop; Optuna chooses, its journal keeps.

What point k is follows from the file, k and the values of the points that it is told: those up to
k - at_once, in blocks where points train together. So it does not depend on which of them ends
first, on how many workers there are, or on kills.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hypercl.sweeps.spec import Point, Sweep, Value

if TYPE_CHECKING:
    import optuna

STATES = ("running", "finished", "stopped", "diverged", "failed")


@dataclass(frozen=True)
class Entry:
    """What the journal has of a point."""

    point: Point
    state: str  # one of STATES
    value: float | None  # at the end, or where it stopped; the worst where it diverged
    sem: float | None  # standard error over the seeds
    rungs: Mapping[int, float]  # after so many tasks, the value
    message: str  # why it failed; else empty
    attempt: int  # from 1


class Search:
    """The points of a sweep; one process at a time has it open for writing.

    Errors of writing leave the journal as it was before (OSError).
    """

    at_once: int  # as noted when the sweep began
    block: int

    @classmethod
    def open(cls, journal: Path, sweep: Sweep, *, at_once: int, block: int = 1) -> "Search":
        """Begin a sweep, or go on with it; a torn last line is cut off.

        Args:
            journal: The file; made where it is missing.
            at_once: Points at work at a time; counts when the sweep begins, and is kept.
            block: Points that are asked for together, as they train together; the same.

        Raises:
            InputError: The journal is of a sweep that this one contradicts, or is damaged.
        """
        raise NotImplementedError

    @classmethod
    def look(cls, journal: Path, sweep: Sweep) -> "Search":
        """The same to read alone, also while another process writes."""
        raise NotImplementedError

    def next(self, label: str) -> Point | None:
        """Enter the next point in the journal; None where it waits for others, or all are there."""
        raise NotImplementedError

    def pending(self, label: str) -> list[Point]:
        """Points that are to run or to go on, in order."""
        raise NotImplementedError

    def done(self, label: str) -> bool:
        """Whether all points have been asked for and told."""
        raise NotImplementedError

    def report(self, point: Point, num_tasks: int, value: Value) -> None:
        """Enter the value after so many tasks, one of ``Sweep.rungs``; again: no change."""
        raise NotImplementedError

    def decide(self, point: Point) -> str | None:
        """What becomes of a point after its last report: "go on" or "stop" (then tell it so);
        None: earlier points must get there first. Written down.
        """
        raise NotImplementedError

    def tell(self, point: Point, state: str, value: Value | None = None, message: str = "") -> None:
        """End a point: "finished" or "diverged" with a value, "stopped" (after :meth:`decide`), or
        "failed" with a message. Again: no change.
        """
        raise NotImplementedError

    def retry_failed(self, label: str) -> list[Point]:
        """Make the failed points pending again, and return them."""
        raise NotImplementedError

    def entries(self, label: str) -> list[Entry]:
        """All points asked for, by number."""
        raise NotImplementedError

    def ranked(self, label: str) -> list[Entry]:
        """The finished points, the best first; of equals the one with the lower number."""
        raise NotImplementedError

    def chosen(self, label: str) -> list[Entry]:
        """The best, and the runners-up within one standard error of it, at most ``sweep.retest``;
        the rest of ``ranked`` is not.
        """
        raise NotImplementedError

    def num_points(self, label: str) -> int:
        """How many points there will be."""
        raise NotImplementedError

    def study(self, label: str) -> "optuna.Study":
        """The points as a study in memory, for Optuna's evaluators: parameters are options."""
        raise NotImplementedError
