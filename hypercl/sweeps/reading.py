"""Reads the file of a sweep; docs/sweeps.rst has the format.

All mistakes in a file are found when it is read, before a run begins, each with its line.
"""

import contextlib
import difflib
import io
import itertools
import math
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hypercl import sweeps
from hypercl.errors import InputError, InputErrors, NotThere
from hypercl.measure import ACCURACY, ERROR
from hypercl.option_file import nearest
from hypercl.options import (
    METHODS,
    OF_THE_PROCESS,
    HypernetOptions,
    Options,
    all_options,
    options_of,
)
from hypercl.ranges import as_argument
from hypercl.registry import entries
from hypercl.report.metrics import BY_SCENARIO
from hypercl.sweeps.lines import Place, line_of, lines_of
from hypercl.sweeps.space import Domain, Plain, Space, When, frozen, is_same
from hypercl.sweeps.spec import SEARCHES, STOPS, Searched, Sweep
from hypercl.sweeps.values import Metric, metric_named, metrics_for, names_of

_MOST_TRIED = 200  # combinations of choices that are tried through the parser, of each method
_MOST_IN_GRID = 100_000  # points
_OPTION = re.compile(r"--(\w+)")
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")

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
        meant = _meant(str(path), sweeps.names())
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
        raise InputErrors(
            [f"{file}:{at[1] if at else 1}: is not TOML ({error}): mend that"]
        ) from None
    return _Reader(file, content, lines_of(text), parse_args).sweep()


_KEYS = (
    "name", "options", "preset", "seeds", "metric", "search", "points", "stop", "seed", "together",
    "at_once", "chooses", "retest", "retest_seeds", "space", "when", "methods", "point",
)  # fmt: skip
_METHOD_KEYS = ("method", "label", "options", "preset", "points", "space", "when", "point")
_CHANGE_TASKS = ("cl_exp", "num_tasks", "num_classes_per_task", "skip_tasks", "preset")
_KINDS: dict[type, str] = {
    str: "a text", int: "a whole number", bool: "true or false", list: "an array, in [ ]",
    dict: "a table",
}  # fmt: skip


@dataclass
class _Reader:
    """Reads a file's content, and collects what is wrong with it."""

    file: Path
    content: Mapping[str, Any]
    lines: Mapping[Place, int]
    parse_args: ParseArgs
    problems: dict[tuple[int, str], None] = field(default_factory=dict)  # by line; each once

    def sweep(self) -> Sweep:
        """All that the file says.

        Raises:
            InputErrors: Something is wrong.
        """
        content = self.content
        self._refuse_unknown((), content, _KEYS)
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

    # What is wrong.

    def _add(self, path: Place, text: str) -> None:
        self.problems[line_of(self.lines, path), text] = None

    def _refuse_unknown(self, path: Place, table: Any, known: Collection[str]) -> None:
        for key in table:
            if key not in known:
                close = _meant(key, known)
                meant = close or f": there are {', '.join(known)}"
                value = table[key]
                of_tables = isinstance(value, list) and any(isinstance(v, Mapping) for v in value)
                if key in all_options() and not (of_tables and close):
                    meant = f': an option goes into options, as "--{key}=...", or into [space]'
                self._add((*path, key), f"there is no key {key}{meant}")

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

    # Values.

    def _at(self, path: Place) -> Any:
        inside: Any = self.content
        for key in path:
            if isinstance(key, int):
                inside = inside[key]
            else:
                inside = inside.get(key) if isinstance(inside, Mapping) else None
        return inside

    def _get(self, path: Place, kind: type, default: Any) -> Any:
        value = self._at(path)
        if value is None:
            return default
        if type(value) is not kind:
            self._add(path, f"{path[-1]} = {value!r} is not {_KINDS[kind]}")
            return default
        return value

    def _count(self, path: Place, default: Any, least: int = 1) -> Any:
        value = self._get(path, int, default)
        if value is not None and not least <= value <= 10**6:
            self._add(path, f"{path[-1]} = {value} is not a number from {least} to 1000000")
            return default
        return value

    def _one_of(self, key: str, names: tuple[str, ...], default: str = "") -> str:
        value = self._get((key,), str, default)
        if key not in self.content and not default:
            self._add((), f"{key} is missing: give one of {', '.join(names)}")
        elif key in self.content and value not in names:
            meant = _meant(value, names)
            self._add((key,), f"{key} = {value!r} is none of {', '.join(names)}{meant}")
            return default
        return value

    def _label(self, path: Place, default: str) -> str:
        """A name of a folder."""
        value = self._get(path, str, default)
        if not _NAME.fullmatch(value):
            self._add(path, f"{value!r} is no name: take letters, digits, and -_.+ between them")
        return value

    # Command lines.

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

    def _known(self, argv: Iterable[str]) -> Mapping[str, Any]:
        """All options that there are beside these, the user's own too."""
        given = dict(
            item.removeprefix("--").split("=", 1) for item in argv if "=" in item
        )  # of which those that choose an entry matter
        try:
            return all_options(given)
        except InputError:  # the parser says it
            return all_options()

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
        unread: list[set[str]] = [_unread(of_run) for of_run in of_runs if of_run is not None]
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

    def _is_option(self, name: str, path: Place, known: Collection[str], chooses: bool) -> bool:
        """Whether points may differ in an option."""
        if name not in known:
            meant = nearest(name, known)
            hint = f" (did you mean {meant}?)" if meant else ": --help lists the options"
            self._add(path, f"there is no option {name}{hint}")
        elif name == "random_seed" and not chooses:
            return True
        elif name in ("random_seed", "num_seeds"):
            self._add(path, f"{name}: seeds says with which seeds a point is trained: give that")
        elif name in ("test_with_val_set", *OF_THE_PROCESS):
            self._add(path, f"{name} is the sweep's own affair: leave it out")
        else:
            return True
        return False

    def _plain(self, name: str, value: Any, path: Place, known: Mapping[str, Any]) -> Plain | None:
        """A value of an option as the command line has it; None where it cannot be."""
        if isinstance(value, list) and all(type(v) in (int, float) for v in value):
            return as_argument(value)
        if not isinstance(value, str | int | float | bool):
            self._add(path, f"{name}: {value!r} is no value of an option")
            return None
        if isinstance(value, str) and known[name].metadata["range"].is_switch:
            return {"on": True, "off": False}.get(value, value)
        return value

    def _space(
        self, path: Place, of_run: Options | None, argv: tuple[str, ...], chooses: bool
    ) -> tuple[Space, dict[str, Place]]:
        """The common space and that of the method, with their conditions, and where each option
        stands; of the common space without what the method would not read.
        """
        known = self._known(argv)
        unread = set() if of_run is None else _unread(of_run)
        domains: dict[str, Domain] = {}
        where: dict[str, Place] = {}
        given = {item.removeprefix("--").partition("=")[0] for item in argv}
        whens: list[tuple[Place, bool]] = []
        for place in [(), path] if path else [()]:
            for name, value in self._get((*place, "space"), dict, {}).items():
                at = (*place, "space", name)
                if not self._is_option(name, at, known, chooses):
                    continue
                domain = self._domain(name, value, at, known)
                if domain is None or (path and not place and name in unread):
                    continue
                if name in given:
                    self._add(at, f"{name} is in options too: leave one out")
                domains[name], where[name] = domain, at
            tables = self._get((*place, "when"), list, [])
            whens += [((*place, "when", i), not place) for i in range(len(tables))]
        when = []
        for place, is_common in whens:
            left_out = unread if is_common and path else set()
            condition = self._when(place, domains, of_run, known, left_out, chooses)
            if condition is not None:
                when.append(condition)
                where |= {n: (*place, "then", n) for n in condition.then if n not in where}
        space = Space(domains, tuple(when))
        try:
            _ = space.order
        except InputError as error:
            self._add(whens[-1][0], str(error))
            space = Space(domains)
        return space, where

    def _when(
        self,
        path: Place,
        domains: Mapping[str, Domain],
        of_run: Options | None,
        known: Mapping[str, Any],
        unread: Collection[str],
        chooses: bool,
    ) -> When | None:
        """A condition; None where it never holds, or is bad. What of it does not depend on the
        point is looked up in the options of a run.
        """
        table = self._at(path)
        if not isinstance(table, Mapping):
            self._add(path, f"when: {table!r} is not a table: write [[when]]")
            return None
        self._refuse_unknown(path, table, ("if", "then", "without"))
        then = self._get((*path, "then"), dict, {})
        without = self._get((*path, "without"), list, [])
        asked = self._get((*path, "if"), dict, {})
        if not asked or not (then or without):
            self._add(path, "when: give if = {option = value}, and then = {...} or without = [...]")
            return None
        holds, conditions = True, {}
        for name, value in asked.items():
            at = (*path, "if", name)
            if name not in known:
                self._is_option(name, at, known, chooses)
                continue
            several = value if isinstance(value, list) else [value]
            plain = [self._plain(name, each, at, known) for each in several]
            values = tuple(each for each in plain if each is not None)
            elsewhere = self._is_in_then(name, path)
            if name in domains or elsewhere:
                conditions[name] = values
                if not elsewhere:
                    self._check_condition(name, values, domains[name], at)
            elif name in unread:
                holds = False
            elif of_run is not None:
                has = of_run.values[name]
                has = as_argument(has) if isinstance(has, list) else has
                holds = holds and any(is_same(has, value) for value in values)
        new: dict[str, Domain] = {}
        for name, value in then.items():
            at = (*path, "then", name)
            if self._is_option(name, at, known, chooses):
                domain = self._domain(name, value, at, known)
                if domain is not None and name not in unread:
                    new[name] = domain
        for name in without:
            if not isinstance(name, str) or (name not in domains and name not in unread):
                self._add((*path, "without"), f"without: {name} is not in [space]: leave it out")
        left = tuple(name for name in without if name in domains)
        return When(conditions, new, left) if holds and (new or left) else None

    def _is_in_then(self, name: str, path: Place) -> bool:
        """Whether a condition beside the one at a path, or a common one, gives an option values."""
        tables = [*self._get(("when",), list, [])]
        if len(path) > 2:
            tables += self._get(path[:-1], list, [])
        thens = [table.get("then") for table in tables if isinstance(table, Mapping)]
        return any(isinstance(then, Mapping) and name in then for then in thens)

    def _check_condition(
        self, name: str, values: tuple[Plain, ...], domain: Domain, path: Place
    ) -> None:
        if domain.choices is None:
            self._add(
                path, f"if: {name} is a range: give choices, or a condition on another option"
            )
            return
        for value in values:
            if not domain.contains(value):
                choices = ", ".join(map(as_argument, domain.choices))
                self._add(path, f"if: {name} is never {as_argument(value)}: it is one of {choices}")

    def _domain(
        self, name: str, value: Any, path: Place, known: Mapping[str, Any]
    ) -> Domain | None:
        """The values that a file gives an option; None where they are bad."""
        if isinstance(value, Mapping):
            return self._range(name, value, path, known)
        values = value if isinstance(value, list) else [value]
        if not values:
            self._add(path, f"{name} has no values: give some, or leave it out")
            return None
        plain = [self._plain(name, each, path, known) for each in values]
        choices = tuple(each for each in plain if each is not None)
        for i, choice in enumerate(choices):
            if any(is_same(choice, other) for other in choices[:i]):
                self._add(path, f"{name} has {as_argument(choice)} twice: leave one out")
        return Domain(choices) if len(choices) == len(values) else None

    def _range(
        self, name: str, table: Mapping[str, Any], path: Place, known: Mapping[str, Any]
    ) -> Domain | None:
        """``{log = [a, b]}``, ``{uniform = [a, b]}`` or ``{int = [a, b]}``, the last one perhaps
        with ``log = true``.
        """
        kinds = [kind for kind in ("int", "uniform", "log") if isinstance(table.get(kind), list)]
        is_int = kinds == ["int"]
        rest = set(table) - set(kinds)
        log = kinds == ["log"] or (is_int and table.get("log") is True)
        if len(kinds) != 1 or rest - ({"log"} if is_int else set()):
            self._add(
                path,
                f"{name}: give a list of values, or one of {{log = [a, b]}}, {{uniform = [a, b]}}, "
                "{int = [a, b]} and {int = [a, b], log = true}",
            )
            return None
        types, ends = known[name].metadata["range"].types, table[kinds[0]]
        wanted = (int,) if is_int else (int, float)
        if len(ends) != 2 or not all(type(e) in wanted and math.isfinite(e) for e in ends):
            what = "whole numbers" if is_int else "numbers"
            self._add(path, f"{name}: {kinds[0]} = {ends!r} is not two {what}, low and high")
            return None
        low, high = ends
        if float not in types and (int not in types or not is_int):
            mend = "give {int = [a, b]}" if int in types else "give a list of its values"
            self._add(
                path, f"{name}: {kinds[0]} = {ends!r} is no range that {name} can have: {mend}"
            )
        elif low >= high:
            self._add(path, f"{name}: the range from {low} to {high} is empty: give low and high")
        elif log and low <= 0:
            self._add(path, f"{name}: log = {ends!r} has no logarithm at {low}: begin above 0")
        else:
            number: Callable[[Any], Any] = int if is_int else float
            return Domain(None, number(low), number(high), log, is_int)
        return None

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
                self._add(
                    ("metric",), f"metric: there is no {name}{_meant(name, names_of(ACCURACY))}"
                )
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


def _meant(name: str, names: Iterable[str]) -> str:
    """A remark on which of some names may have been meant."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _short(method: str) -> str:
    """A method's name; of one that the user brings, its name in the file."""
    return re.split(r"[:/\\]", method)[-1]


def _unread(options: Options) -> set[str]:
    """Options of other methods, which a run with this one would not read."""
    kind = type(options.method.kind)
    own = {option.name for option in options_of(kind)}
    others = entries(METHODS).values()
    unread = {option.name for other in others for option in options_of(other)} - own
    of_hypernet = {option.name for option in fields(HypernetOptions)}
    return unread | (
        of_hypernet if of_hypernet <= set(options.method.kind.unread(options)) else set()
    )
