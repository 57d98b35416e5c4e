"""What the file of a sweep says: which points are tried, by which metric, in what order. No torch.

docs/sweeps.rst has the format. All mistakes in a file are found when it is read, before a run
begins, each with its line.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hypercl.options import Options

SEARCHES = ("grid", "random", "tpe", "qmc", "list")
STOPS = ("none", "halving")

Plain = str | int | float | bool  # a value as the command line has it; a list is "50,50"


class Value(NamedTuple):
    """A metric of a point, over its seeds."""

    mean: float  # the metric's worst value, which may be infinite, where it diverged
    sem: float | None  # standard error of the mean; None of one seed, or where it diverged
    n: int  # seeds
    diverged: bool  # a seed has failed


@dataclass(frozen=True)
class Metric:
    """A number in the summary of results.json, by which points are chosen."""

    name: str
    higher_is_better: bool
    worst: float  # of a point that diverged
    first: int  # tasks that must have been learned for it to be defined
    inferred: bool  # measured where tasks are inferred alone

    def better(self, value: float, other: float) -> bool:
        """Whether a value is better than another."""
        return value > other if self.higher_is_better else value < other


@dataclass(frozen=True)
class Domain:
    """The values that an option may have: choices, or numbers from ``low`` to ``high``."""

    choices: tuple[Plain, ...] | None = None
    low: float | None = None
    high: float | None = None
    log: bool = False
    is_int: bool = False


@dataclass(frozen=True)
class When:
    """A condition: where options have these values, others have other domains, or are not given."""

    conditions: Mapping[str, tuple[Plain, ...]]
    then: Mapping[str, Domain]
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Searched:
    """What is searched on its own: a method, or all there is."""

    label: str  # a folder's name
    options: tuple[str, ...]  # command line beside the sweep's
    space: Mapping[str, Domain]
    when: tuple[When, ...]
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

    def of(self, label: str) -> Searched:
        """The one with this label.

        Raises:
            KeyError: There is none.
        """
        raise NotImplementedError

    def rungs(self, label: str) -> tuple[int, ...]:
        """After how many tasks the weaker points stop: 1, 2, 4, …, fewer than there are; empty
        without halving.
        """
        raise NotImplementedError


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
        raise NotImplementedError

    def argv(self, place: str | Path, sweep: Sweep) -> list[str]:
        """The command line of its run.

        Args:
            place: The run directory.
        """
        raise NotImplementedError

    def retest_argv(self, place: str | Path, sweep: Sweep) -> list[str]:
        """The same with fresh seeds, tested on test samples."""
        raise NotImplementedError


def read(path: str | Path, parse_args: Callable[[list[str]], Options]) -> Sweep:
    """Read and check a sweep.

    Args:
        path: A TOML file, or the name of a sweep that comes with the project.
        parse_args: Of the command line: refuses a bad one with SystemExit, whose ``message`` says
            why.

    Raises:
        InputErrors: Of all mistakes, each in a line that begins with the file and the number of
            its line.
        NotThere: There is no such file.
    """
    raise NotImplementedError


def value_of(
    results: Mapping[str, Any],
    metric: Metric,
    num_tasks: int | None = None,
    tested_on: str = "validation",
) -> Value:
    """A metric of a point, from the content of its results.json.

    Args:
        num_tasks: After so many tasks; None: after all.
        tested_on: The samples; Sweep.tested_on.

    Raises:
        InputError: It is of other samples, has not come so far, or has no such metric.
    """
    raise NotImplementedError


def combinations(searched: Searched) -> Sequence[Mapping[str, Plain]]:
    """The points of a grid: the product of all choices, with the conditions applied, each once."""
    raise NotImplementedError
