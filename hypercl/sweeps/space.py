"""The space of a search: the domain of each option, and what it is under a condition."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypercl.errors import InputError
from hypercl.ranges import as_argument

Plain = str | int | float | bool  # a value as the command line has it; a list is "50,50"
_FEW = 3  # choices


@dataclass(frozen=True)
class Domain:
    """The values that an option may have: choices, or numbers from ``low`` to ``high``."""

    choices: tuple[Plain, ...] | None = None
    low: float | None = None
    high: float | None = None
    log: bool = False
    is_int: bool = False

    @property
    def ends(self) -> tuple[Plain, ...]:
        """All choices, or both ends."""
        if self.choices is not None:
            return self.choices
        assert self.low is not None
        assert self.high is not None
        return (self.low, self.high)

    def contains(self, value: Plain) -> bool:
        """Whether an option may have a value."""
        if self.choices is not None:
            return any(is_same(value, choice) for choice in self.choices)
        if isinstance(value, bool | str) or (self.is_int and value != int(value)):
            return False
        low, high = self.ends
        return float(low) <= value <= float(high)

    def as_json(self) -> dict[str, Any]:
        """As the journal has it."""
        if self.choices is not None:
            return {"choices": list(self.choices)}
        kind = {"int": True} if self.is_int else {}
        return {"low": self.low, "high": self.high, "log": self.log, **kind}


@dataclass(frozen=True)
class When:
    """A condition: where options have these values, others have other domains, or are not given."""

    conditions: Mapping[str, tuple[Plain, ...]]
    then: Mapping[str, Domain]
    without: tuple[str, ...] = ()

    def holds(self, options: Mapping[str, Plain]) -> bool:
        """Whether a point's options meet it; one that is not given meets none."""
        return all(
            name in options and any(is_same(options[name], value) for value in values)
            for name, values in self.conditions.items()
        )

    @property
    def words(self) -> str:
        """``hnet_type=hmlp``."""
        parts = (f"{n}={'|'.join(map(str, values))}" for n, values in self.conditions.items())
        return ", ".join(parts)


@dataclass(frozen=True)
class Space:
    """The options that are searched. Of two conditions that hold, the later one counts."""

    domains: Mapping[str, Domain]
    when: tuple[When, ...] = ()

    @property
    def order(self) -> tuple[str, ...]:
        """The options, each behind those that its conditions look at; else as they stand.

        Raises:
            InputError: Conditions go in a circle.
        """
        names = list(dict.fromkeys((*self.domains, *(n for w in self.when for n in w.then))))
        after = {
            name: {
                c for w in self.when if name in w.then or name in w.without for c in w.conditions
            }
            for name in names
        }
        ordered: list[str] = []
        while len(ordered) < len(names):
            ready = [n for n in names if n not in ordered and after[n] <= set(ordered)]
            if not ready:
                circle = ", ".join(name for name in names if name not in ordered)
                raise InputError(f"the conditions on {circle} go in a circle: leave one out")
            ordered.append(ready[0])
        return tuple(ordered)

    def domain(self, name: str, options: Mapping[str, Plain]) -> tuple[str, Domain] | None:
        """Where an option's values come from, beside the values of those before it in ``order``.

        Returns:
            What Optuna calls it, as it knows one domain by a name, and the domain; None: it is not
            given.
        """
        key, found = name, self.domains.get(name)
        for when in self.when:
            if name in when.then and when.holds(options):
                key, found = f"{name} (if {when.words})", when.then[name]
            elif name in when.without and when.holds(options):
                key, found = name, None
        return None if found is None else (key, found)

    def point(self, choose: Callable[[str, str, Domain], Plain]) -> dict[str, Plain]:
        """The options of a point.

        Args:
            choose: Gives a value of an option, from what Optuna calls it and its domain.
        """
        options: dict[str, Plain] = {}
        for name in self.order:
            domain = self.domain(name, options)
            if domain is not None:
                options[name] = choose(name, *domain)
        return options

    def keyed(self) -> dict[str, tuple[str, Domain]]:
        """Every option and domain that a point can have, by what Optuna calls it."""
        keyed = {name: (name, domain) for name, domain in self.domains.items()}
        for when in self.when:
            for name, domain in when.then.items():
                key = f"{name} (if {when.words})"
                keyed.setdefault(key, (name, domain))
        return keyed

    def combinations(self, ends: bool = False) -> Iterator[dict[str, Plain]]:
        """The points of a grid: the product of all choices, with the conditions applied, each once;
        the last option changes the fastest.

        Args:
            ends: Of ranges their low ends, rather than none.
        """
        seen = set()
        order = self.order

        def grow(options: dict[str, Plain], position: int) -> Iterator[dict[str, Plain]]:
            if position == len(order):
                yield options
                return
            name = order[position]
            domain = self.domain(name, options)
            if domain is None:
                yield from grow(options, position + 1)
                return
            values: Sequence[Plain] = domain[1].choices or (domain[1].ends[:1] if ends else ())
            for value in values:
                yield from grow({**options, name: value}, position + 1)

        for options in grow({}, 0):
            key = frozen(options)
            if key not in seen:
                seen.add(key)
                yield options

    def tried(self, most: int) -> Iterator[dict[str, Plain]]:
        """Points that show whether all can be had: the first of each option together, each end and
        choice beside these, so many pairs of these, and of choices so many combinations.
        """

        def having(wanted: Mapping[str, Plain]) -> dict[str, Plain]:
            def choose(name: str, key: str, domain: Domain) -> Plain:
                value = wanted.get(name)
                fits = value is not None and domain.contains(value)
                return value if fits and value is not None else domain.ends[0]

            return self.point(choose)

        yield having({})
        firsts = [{}, *({n: v[0] for n, v in when.conditions.items()} for when in self.when)]
        for first in firsts:
            for name, domain in self.keyed().values():
                for value in domain.ends:
                    yield having({**first, name: value})
        pairs = list(itertools.combinations(self.keyed().values(), 2))
        both = [
            (
                {**first, name: value, other: its}
                for value in _outermost(domain)
                for its in _outermost(of_other)
            )
            for first in firsts
            for (name, domain), (other, of_other) in pairs
        ]
        in_turn = (each for of_all in itertools.zip_longest(*both) for each in of_all if each)
        yield from map(having, itertools.islice(in_turn, most))
        yield from itertools.islice(self.combinations(ends=True), most)


def _outermost(domain: Domain) -> tuple[Plain, ...]:
    """Of few choices all, else the first and the last."""
    ends = domain.ends
    return ends if len(ends) <= _FEW else (ends[0], ends[-1])


def value_text(value: Plain) -> str:
    """A value as the command line has it, floats with few digits."""
    text = f"{value:.4g}" if isinstance(value, float) else as_argument(value)
    return text or '""'


def options_text(options: Mapping[str, Plain]) -> str:
    """``beta=0.01, lr=0.001``."""
    return ", ".join(f"{name}={value_text(value)}" for name, value in options.items())


def is_same(value: Plain, other: Plain) -> bool:
    """Whether two values are the same; 1 is 1.0, but not true."""
    return isinstance(value, bool) == isinstance(other, bool) and value == other


def frozen(options: Mapping[str, Plain]) -> tuple:
    """What is equal for equal options."""
    return tuple(sorted((n, isinstance(v, bool), v) for n, v in options.items()))
