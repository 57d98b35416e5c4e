"""Reads the file of a sweep; docs/sweeps.rst has the format.

All mistakes in a file are found when it is read, before a run begins, each with its line.
"""

import contextlib
import io
import itertools
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hypercl import sweeps
from hypercl.errors import InputError, InputErrors, NotThere
from hypercl.measure import ACCURACY, ERROR
from hypercl.options import OF_THE_PROCESS, Options
from hypercl.ranges import as_argument
from hypercl.report.metrics import BY_SCENARIO
from hypercl.sweeps.content import KEYS, did_you_mean
from hypercl.sweeps.lines import Place, lines_of
from hypercl.sweeps.read_space import SpaceContent, unread_of
from hypercl.sweeps.space import Plain, Space, frozen
from hypercl.sweeps.spec import SEARCHES, STOPS, Searched, Sweep
from hypercl.sweeps.values import Metric, metric_named, metrics_for, names_of

_MOST_TRIED = 500  # pairs, and combinations of choices, tried through the parser, of each method
_MOST_IN_GRID = 100_000  # points
_OPTION = re.compile(r"--(\w+)")

ParseArgs = Callable[[list[str]], Options]


def read(path: str | Path, parse_args: ParseArgs) -> Sweep:
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
    shipped = str(path) in sweeps.names()
    file = sweeps.FOLDER / f"{path}.toml" if shipped else Path(path).expanduser()
    try:
        text = file.read_bytes().decode()
    except FileNotFoundError:
        meant = did_you_mean(str(path), sweeps.names())
        raise NotThere(
            f"{file} does not exist{meant}: give a TOML file, or one of {', '.join(sweeps.names())}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InputError(f"{file} cannot be read ({reason}): mend that") from None
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        at = re.search(r"at line (\d+)", str(error))
        mend = 'write texts in " "' if "Invalid value" in str(error) else "mend that"
        raise InputErrors([f"{file}:{at[1] if at else 1}: is not TOML ({error}): {mend}"]) from None
    return _Reader(file, content, lines_of(text), parse_args).sweep()


_METHOD_KEYS = ("method", "label", "options", "preset", "points", "space", "when", "point")
_CHANGE_TASKS = ("cl_exp", "num_tasks", "num_classes_per_task", "skip_tasks", "preset")


@dataclass
class _Reader(SpaceContent):
    """Reads a file's content as a sweep."""

    parse_args: ParseArgs

    def sweep(self) -> Sweep:
        """All that the file says.

        Raises:
            InputErrors: Something is wrong.
        """
        content = self.content
        self._refuse_unknown((), content, KEYS)
        options, first_seed = self._options(())
        search = self._one_of("search", SEARCHES)
        stop = self._one_of("stop", STOPS, "none")
        chooses = self._get(("chooses",), bool, True)
        seeds = self._count(("seeds",), 1)
        if not chooses and search not in ("grid", "list", ""):
            self._add(("chooses",), f"chooses = false: {search} chooses its points: take grid")
        if not chooses and stop == "halving":
            self._add(("stop",), "stop: halving chooses points, and chooses = false: leave one out")
        retest = self._count(("retest",), 1 if chooses else 0, least=0)
        if not chooses and retest:
            self._add(("retest",), "retest: nothing is chosen with chooses = false: leave it out")
        name = self._label(("name",), self.file.stem)
        parsed = []  # of what is searched, with the options of a run
        for path, own, own_options in self._methods(options):
            found = self._searched(path, own, options, own_options, search, chooses)
            if found is not None:
                parsed.append(found)
        labels = [searched.label for searched, _, _ in parsed]
        for searched, _, path in parsed:
            if labels.count(searched.label) > 1:
                two = f"there are two of label {searched.label}"
                self._add(path, f'{two}: give one a label = "..."')
        metric = self._metric([of_run for _, of_run, _ in parsed])
        if stop == "halving":
            for searched, of_run, path in parsed:
                self._check_halving(searched, of_run, path, metric)
        seed = self._count(("seed",), 0, least=0)
        together = self._count(("together",), None)
        at_once = self._count(("at_once",), None)
        retest_seeds = self._count(("retest_seeds",), seeds)
        if self.problems:
            raise InputErrors([f"{self.file}:{n}: {text}" for n, text in sorted(self.problems)])
        assert metric is not None
        return Sweep(
            self.file, name, options, seeds, first_seed, metric, search, seed, stop, together,
            at_once, chooses, retest, retest_seeds, tuple(searched for searched, _, _ in parsed),
        )  # fmt: skip

    # Command lines.

    def _message_of(self, argv: Iterable[str]) -> tuple[Options | None, str]:
        """The options of a command line, or why it is refused."""
        screen = io.StringIO()
        try:
            with contextlib.redirect_stderr(screen), contextlib.redirect_stdout(io.StringIO()):
                return self.parse_args(list(argv)), ""
        except SystemExit as left:
            asks = "the options ask for help or for a list, and for no run: leave that out"
            return None, getattr(left, "message", screen.getvalue().strip()) if left.code else asks
        except InputError as error:
            return None, str(error)

    def _line_of_option(self, message: str, places: Mapping[str, Place], otherwise: Place) -> Place:
        """The place of the first option that a message names."""
        named = [name for name in _OPTION.findall(message) if name in places]
        return places[named[0]] if named else otherwise

    def _options(self, path: Place) -> tuple[tuple[str, ...], int]:
        """``options`` and ``preset`` of a table, and the first seed that they name."""
        preset = self._get((*path, "preset"), str, None)
        options = [] if preset is None else [f"--preset={preset}"]
        first_seed = 42
        for i, item in enumerate(self._get((*path, "options"), list, [])):
            place = (*path, "options", i)
            name, _, value = str(item).removeprefix("--").partition("=")
            if not (isinstance(item, str) and item.startswith("--") and name):
                self._add(place, f'options: {item!r} is no option: write "--name=value"')
            elif name == "num_seeds":
                self._add(place, "--num_seeds: seeds says how many seeds a point has: give that")
            elif name in ("test_with_val_set", *OF_THE_PROCESS) and name != "loglevel_info":
                self._add(place, f"--{name} is the sweep's own affair: leave it out")
            elif name == "random_seed" and path:
                self._add(place, "--random_seed: all methods have one: give it in options above")
            elif name == "random_seed" and not value.isdecimal():
                self._add(place, f"--random_seed={value} is not a whole number")
            elif name == "random_seed":
                first_seed = int(value)
            else:
                options.append(item)
        return tuple(options), first_seed

    def _places_of_options(self, path: Place) -> dict[str, Place]:
        """Where the options of a table are, by name."""
        table = self._at(path)
        items = table.get("options") if isinstance(table, Mapping) else None
        places: dict[str, Place] = {}
        for i, item in enumerate(items if isinstance(items, list) else ()):
            if isinstance(item, str):
                places[item.removeprefix("--").partition("=")[0]] = (*path, "options", i)
        for key in ("method", "preset"):
            if isinstance(table, Mapping) and key in table:
                places[key] = (*path, key)
        return places

    # What is searched.

    def _methods(
        self, options: tuple[str, ...]
    ) -> Iterator[tuple[Place, str | None, tuple[str, ...]]]:
        """Each that is searched: where it stands, the method that it is given, its command line."""
        tables = self._get(("methods",), list, None)
        if tables is None:
            yield (), None, ()
            return
        if not tables:
            self._add(("methods",), "methods: there are none: give some, or leave it out")
        found = []
        for i, table in enumerate(tables):
            path: Place = ("methods", i)
            if not isinstance(table, Mapping):
                self._add(path, f"methods: {table!r} is not a table: write [[methods]]")
                continue
            self._refuse_unknown(path, table, _METHOD_KEYS)
            method = self._get((*path, "method"), str, None)
            own, _ = self._options(path)
            of_method = () if method is None else (f"--method={method}",)
            found.append((path, method, (*of_method, *own)))
        of_runs = [self._message_of([*options, *own])[0] for _, _, own in found]
        unread: list[set[str]] = [unread_of(of_run) for of_run in of_runs if of_run is not None]
        if len(unread) == len(found) > 0:
            for name in self._get(("space",), dict, {}):
                if all(name in of_method for of_method in unread):
                    self._add(
                        ("space", name),
                        f"none of [[methods]] reads {name}: add the one that does, or leave it out",
                    )
        yield from found

    def _searched(
        self,
        path: Place,
        method: str | None,
        options: tuple[str, ...],
        own: tuple[str, ...],
        search: str,
        chooses: bool,
    ) -> tuple[Searched, Options, Place] | None:
        """What is searched, with the options of a run of it; None where its options are bad."""
        places = {**self._places_of_options(()), **self._places_of_options(path)}
        argv = (*options, *own, *(() if not chooses else ("--test_with_val_set",)))
        label = self.content.get("name", self.file.stem) if method is None else _short(method)
        if path:
            label = self._label((*path, "label"), str(label))
        label = str(label)
        named = self._named(path, argv, search, chooses)
        points = self._points(path, search)
        of_run, message = self._message_of(argv)
        if of_run is None:
            self._add(self._line_of_option(message, places, path), message)
        num_problems = len(self.problems)
        space, where = self._space(path, of_run, argv, chooses)
        if search == "list":
            if space.domains or space.when:
                self._add((*path, "space"), "a list has [point.NAME] tables, and no [space]")
            for key, point in named.items():
                place = self._place_of_points(path, key)
                self._try(argv, point, {n: (*place, n) for n in point}, place)
        elif not space.domains and not any(when.then for when in space.when):
            if len(self.problems) == num_problems:  # else its options are there, and are bad
                self._add(path, "there is no [space]: give one, with the options to be searched")
        elif search == "grid":
            self._check_grid(space, where)
        if of_run is None:
            return None
        if search != "list" and len(self.problems) == num_problems:
            tried = set()
            for options_tried in space.tried(_MOST_TRIED):
                if frozen(options_tried) not in tried:
                    tried.add(frozen(options_tried))
                    self._try(argv, options_tried, {**places, **where}, path)
        num_tasks = of_run.task.num_tasks
        return Searched(label, own, space, named, points, num_tasks), of_run, path

    def _try(
        self,
        argv: Iterable[str],
        options: Mapping[str, Plain],
        places: Mapping[str, Place],
        otherwise: Place,
    ) -> None:
        """Have the parser read a point."""
        own = [f"--{name}={as_argument(value)}" for name, value in options.items()]
        of_run, message = self._message_of([*argv, *own])
        if of_run is None:
            self._add(self._line_of_option(message, places, otherwise), message)

    def _points(self, path: Place, search: str) -> int | None:
        """How many points are tried."""
        place = (*path, "points")
        if path and self._at(place) is None:
            place = ("points",)
        points = self._count(place, None)
        if search in ("grid", "list") and points is not None:
            self._add(place, f"points: a {search} has all of its own: leave it out")
            return None
        if search in ("random", "tpe", "qmc") and points is None and self._at(place) is None:
            self._add(path, f"points is missing: say how many {search} is to try")
        return points

    def _place_of_points(self, path: Place, name: str) -> Place:
        own = (*path, "point", name)
        return own if own in self.lines else ("point", name)

    def _named(
        self, path: Place, argv: Iterable[str], search: str, chooses: bool
    ) -> dict[str, dict[str, Plain]]:
        """The points of a list, by name: the common ones, then those of the method."""
        named: dict[str, dict[str, Plain]] = {}
        places = [("point",), (*path, "point")] if path else [("point",)]
        known = self._known(argv)
        if isinstance(self._at(("point",)), int):
            self._add(("point",), "point: points says how many there are: give that")
            return named
        for place in places:
            for name, table in self._get(place, dict, {}).items():
                if not isinstance(table, Mapping):
                    self._add((*place, name), f"point: {name} is not a table: write [point.NAME]")
                    continue
                values = {}
                for option, value in table.items():
                    at = (*place, name, option)
                    if self._is_option(option, at, known, chooses):
                        plain = self._plain(option, value, at, known)
                        if plain is not None:
                            values[option] = plain
                named[name] = values
        if named and search not in ("list", ""):
            self._add(places[0], f'point: {search} makes its points: take search = "list"')
        if not named and search == "list":
            self._add(path, "a list has no point: give [point.NAME] tables with options")
        return named

    def _check_grid(self, space: Space, where: Mapping[str, Place]) -> None:
        """Whether all domains are choices, and not too many."""
        for name, domain in space.keyed().values():
            if domain.choices is None:
                self._add(
                    where[name], f"{name}: a grid needs a list of values, and this is a range"
                )
                return
        points = itertools.islice(space.combinations(), _MOST_IN_GRID + 1)
        if sum(1 for _ in points) > _MOST_IN_GRID:
            self._add(("space",), f"the grid has more than {_MOST_IN_GRID} points: take random")

    # Across what is searched.

    def _metric(self, of_runs: list[Options]) -> Metric | None:
        """The metric, which all runs must have."""
        name = self._get(("metric",), str, None)
        if "metric" not in self.content:
            self._add((), "metric is missing: give that by which points are chosen, like cl1")
        if name is None:
            return None
        if not of_runs:  # whether it is that of any run
            if not any(name in names_of(measure) for measure in (ACCURACY, ERROR)):
                hint = did_you_mean(name, names_of(ACCURACY))
                self._add(("metric",), f"metric: there is no {name}{hint}")
            return None
        measures = {of_run.task.measure for of_run in of_runs}
        try:
            metric = metric_named(name, of_runs[0].task.measure)
        except InputError as error:
            self._add(("metric",), f"metric: {error}")
            return None
        if len(measures) > 1:
            self._add(
                ("metric",), "metric: some runs measure accuracies and some errors: part them"
            )
        for of_run in of_runs:
            there = metrics_for(of_run)
            if name not in there:
                scenario = f" in scenario {of_run.scenario}" if of_run.scenario else ""
                of_what = f"--method={of_run.method.method}{scenario}"
                mend = f"take one of {', '.join(there)}"
                if name in BY_SCENARIO:
                    mend += f", or give --cl_scenario={BY_SCENARIO.index(name) + 1}"
                self._add(("metric",), f"metric: {of_what} has no {name}: {mend}")
            num_tasks = of_run.task.num_tasks
            if num_tasks is not None and num_tasks < metric.first:
                self._add(("metric",), f"metric: {name} needs {metric.first} tasks")
        return metric

    def _check_halving(
        self, searched: Searched, of_run: Options, path: Place, metric: Metric | None
    ) -> None:
        """Whether points can be compared after 1, 2, 4, … tasks."""
        if searched.num_tasks is None:
            self._add(
                ("stop",), "stop: halving must know how many tasks there are: give --num_tasks"
            )
        elif metric is not None and searched.num_tasks <= metric.first:
            self._add(
                ("stop",), f"stop: {searched.num_tasks} tasks are too few for halving: leave it out"
            )
        if of_run.evaluation.test_iter != 1:
            self._add(("stop",), "stop: halving tests after each task: leave --test_iter out")
        options = {name for name, _ in searched.space.keyed().values()}
        options |= {name for point in searched.named.values() for name in point}
        for name in sorted(options & set(_CHANGE_TASKS)):
            self._add(
                ("stop",),
                f"stop: halving compares points of equal tasks, and they differ in {name}: "
                "leave one out",
            )


def _short(method: str) -> str:
    """A method's name; of one that the user brings, its name in the file."""
    return re.split(r"[:/\\]", method)[-1]
