"""Reads the space of a sweep: the values of options, and the conditions on which they depend."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields
from typing import Any

from hypercl.errors import InputError
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
from hypercl.sweeps.content import ABOVE, KEYS, Content
from hypercl.sweeps.lines import Place
from hypercl.sweeps.space import Domain, Plain, Space, When, is_same


class SpaceContent(Content):
    """Content of which options and their domains are read."""

    def _known(self, argv: Iterable[str]) -> Mapping[str, Any]:
        """All options that there are beside these, the user's own too."""
        given = dict(
            item.removeprefix("--").split("=", 1) for item in argv if "=" in item
        )  # of which those that choose an entry matter
        try:
            return all_options(given)
        except InputError:  # the parser says it
            return all_options()

    def _is_option(self, name: str, path: Place, known: Collection[str], chooses: bool) -> bool:
        """Whether points may differ in an option."""
        if name not in known and name in KEYS:
            self._add(path, f"{name} is no option: {ABOVE}")
        elif name not in known:
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
        unread = set() if of_run is None else unread_of(of_run)
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


def unread_of(options: Options) -> set[str]:
    """Options of other methods, which a run with this one would not read."""
    kind = type(options.method.kind)
    own = {option.name for option in options_of(kind)}
    others = entries(METHODS).values()
    unread = {option.name for other in others for option in options_of(other)} - own
    of_hypernet = {option.name for option in fields(HypernetOptions)}
    return unread | (
        of_hypernet if of_hypernet <= set(options.method.kind.unread(options)) else set()
    )
