"""What a sweep is: which points are tried, by which metric, in what order. No torch.

reading.py reads one from a file; docs/sweeps.rst has the format.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hypercl.ranges import as_argument
from hypercl.sweeps.space import Plain, Space
from hypercl.sweeps.values import Metric

SEARCHES = ("grid", "random", "tpe", "qmc", "list")
STOPS = ("none", "halving")
POINTS, RETEST = "points", "retest"  # folders of a sweep
FRESH = 1000  # the seeds of the retest are so much higher than those of the search


@dataclass(frozen=True)
class Searched:
    """What is searched on its own: a method, or all there is."""

    label: str  # a folder's name
    options: tuple[str, ...]  # command line beside the sweep's
    space: Space
    named: Mapping[str, Mapping[str, Plain]]  # the points of a list, by name
    points: int | None  # how many are tried; None: all of a grid or a list
    num_tasks: int | None  # that a point learns; None where the data say it


@dataclass(frozen=True)
class Sweep:
    """What a file says."""

    path: Path
    name: str
    options: tuple[str, ...]  # command line common to all points
    seeds: int
    first_seed: int
    metric: Metric
    search: str  # one of SEARCHES
    seed: int  # from which the search draws
    stop: str  # one of STOPS
    together: int | None  # points in one step; None: by the rule that seeds have
    at_once: int | None  # points at work; None: as many as the workers need
    chooses: bool  # False: all points are tested on test samples, and none is chosen
    retest: int  # how many chosen points are trained again with fresh seeds
    retest_seeds: int  # with how many
    searched: tuple[Searched, ...]

    @property
    def tested_on(self) -> str:
        """``tested_on`` in results.json of its points: "validation", or "test"."""
        return "validation" if self.chooses else "test"

    @property
    def labels(self) -> tuple[str, ...]:
        """Of all that is searched."""
        return tuple(searched.label for searched in self.searched)

    def of(self, label: str) -> Searched:
        """The one with this label.

        Raises:
            KeyError: There is none.
        """
        by_label = {searched.label: searched for searched in self.searched}
        return by_label[label]

    def rungs(self, label: str) -> tuple[int, ...]:
        """After how many tasks the weaker points stop: 1, 2, 4, …, fewer than there are; empty
        without halving. Where the metric needs two tasks, from 2 on.
        """
        num_tasks = self.of(label).num_tasks
        if self.stop == "none" or num_tasks is None:
            return ()
        doubled = (self.metric.first * 2**i for i in itertools.count())
        return tuple(itertools.takewhile(lambda rung: rung < num_tasks, doubled))


@dataclass(frozen=True)
class Point:
    """What is tried: options in which the points of a sweep differ."""

    label: str  # of its Searched
    number: int  # in it, from 0
    options: Mapping[str, Plain]
    name: str | None = None  # in a list

    @property
    def folder(self) -> str:
        """Its place below ``points/`` and ``retest/``: ``<label>/00000``."""
        return f"{self.label}/{self.number:05}"

    def argv(self, place: str | Path, sweep: Sweep) -> list[str]:
        """The command line of its run.

        Args:
            place: The run directory.
        """
        more = ["--test_with_val_set"] if sweep.chooses else []
        if sweep.metric.inferred and sweep.rungs(self.label):
            more.append("--scenarios_every_task")
        return self._argv(place, sweep, sweep.seeds, sweep.first_seed, more)

    def retest_argv(self, place: str | Path, sweep: Sweep) -> list[str]:
        """The same with fresh seeds, tested on test samples."""
        return self._argv(
            place, sweep, sweep.retest_seeds, sweep.first_seed + max(FRESH, sweep.seeds), []
        )

    def _argv(
        self, place: str | Path, sweep: Sweep, seeds: int, first: int, more: list[str]
    ) -> list[str]:
        own = [f"--{name}={as_argument(value)}" for name, value in self.options.items()]
        of_seeds = [f"--num_seeds={seeds}"]
        if "random_seed" not in self.options:
            of_seeds.insert(0, f"--random_seed={first}")
        return [
            *sweep.options, *sweep.of(self.label).options, *own, *of_seeds, *more,
            f"--out_dir={place}",
        ]  # fmt: skip
