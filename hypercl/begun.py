"""A run that has begun: what learning needs of it, and what it leaves on the way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hypercl import learned
from hypercl.experiment import Experiment
from hypercl.report.results import Report
from hypercl.rundir.checkpoint import Checkpoints, Position
from hypercl.rundir.directory import RunDir
from hypercl.tasks.task import Task


class Data(NamedTuple):
    """The tasks that runs have in common."""

    tasks: Sequence[Task]
    checksum: str  # of their samples


@dataclass(frozen=True)
class Begun:
    """What there is of a run before its next step is taken.

    Attributes:
        config: The options with which it began, by name.
        is_new: Whether nothing has been saved yet.
    """

    run_dir: RunDir
    experiment: Experiment
    config: Mapping[str, Any]
    position: Position
    report: Report
    checkpoints: Checkpoints
    is_new: bool

    def keep(self, position: Position) -> None:
        """Where it is asked for, keep what has been learned after a task."""
        if self.experiment.options.run.keep_weights:
            learned.keep_weights(self.run_dir, self.experiment, position, self.config)

    def save_weights(self, position: Position) -> None:
        """Write what the groups of seeds have learned that are done."""
        if position.learned:
            learned.save_weights(self.run_dir, self.experiment, position, self.config)

    def end(self, position: Position) -> str | None:
        """Do what is left to do at the end, or at a pause.

        Returns:
            Why the run has failed; None where it has not.
        """
        at_end = self.position.group == len(self.position.groups)
        if at_end and not self.run_dir.has_weights:  # lost since the run ended
            self.save_weights(position)
        if self.checkpoints.pauses_at(position):
            self.report.pause()
        elif not position.learned:
            reason: str = self.report.results["seeds"][0]["failed"]
            return reason
        return None
