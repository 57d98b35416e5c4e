"""What an option is: a field with a range, which says how values are read and how JSON has them."""

import argparse
import difflib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hypercl.errors import InputError

_MAX_INT = 10**9  # for any number that counts something; the product of two fits 64 bits
UNSET = -1  # how command lines, config.json and results.json spell None


@dataclass(frozen=True)
class Range:
    """The values that an option may have.

    Inside the program, "not set" is None. Where an option can be unset, command lines and JSON
    have -1 for it, as the script did which this one replaces.
    """

    read: Callable[[str], Any]  # raises argparse.ArgumentTypeError
    metavar: str | None = None
    choices: Sequence[str] | None = None
    brings: bool = False  # beside the choices, references to what the user brings
    unset_up_to: int | None = None  # numbers that stand for None; None: none does
    is_switch: bool = False
    several: bool = False  # values of which each is read; a tuple of them, and None without any
    types: tuple[type, ...] = ()  # of a value in a file; float: whole numbers too; (): any
    items: type = int  # of a list in a file

    def to_plain(self, value: Any) -> Any:
        """A value as JSON has it."""
        if value is None and self.unset_up_to is not None:
            return UNSET
        return list(value) if isinstance(value, tuple) else value

    def from_plain(self, value: Any) -> Any:
        """The reverse of :meth:`to_plain`."""
        is_number = isinstance(value, int | float)
        if self.unset_up_to is not None and is_number and value <= self.unset_up_to:
            return None
        return tuple(value) if isinstance(value, list) else value

    def check(self, name: str, value: Any) -> None:
        """Refuse what the option ``name`` may not have, as JSON has it.

        Raises:
            InputError: ``value`` is such.
        """
        if value is None:
            return
        try:
            read = self.read(as_argument(value))
            if isinstance(value, str) and not isinstance(read, str):
                raise argparse.ArgumentTypeError(f"{value!r} is a text")
        except argparse.ArgumentTypeError as error:
            raise InputError(f"--{name}: {error}") from None
        is_own = self.brings and isinstance(value, str)
        if self.choices is not None and not is_own and value not in self.choices:
            raise InputError(f"--{name}={value} is none of {', '.join(self.choices)}")

    def normal(self, value: Any) -> Any:
        """A value as JSON has it, in the one spelling that it has there."""
        return self.to_plain(self.from_plain(value))

    def parsed(self, value: Any) -> Any:
        """The same of a value as JSON has it, or as the command line has it.

        Raises:
            argparse.ArgumentTypeError: It is out of range.
        """
        return self.to_plain(self.read(as_argument(value)))


def as_argument(value: Any) -> str:
    """An option's value, as JSON has it, in the spelling of the command line."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def option(default: Any, allowed: Range, help_text: str, *, member: bool = False) -> Any:
    """A field of a dataclass that is an option of the command line.

    Args:
        member: It is a number that may differ among the members of one step: whatever reads it
            also takes numbers by member, where several runs train together; see experiment.py.
    """
    return field(default=default, metadata={"range": allowed, "help": help_text, "member": member})


def _int_or(text: str, otherwise: int | None) -> int | None:
    try:
        value = int(text)
    except ValueError:
        return otherwise
    if abs(value) > _MAX_INT:
        raise argparse.ArgumentTypeError(f"{text!r} is larger than {_MAX_INT:,}")
    return value


def int_at_least(minimum: int) -> Range:
    """Whole numbers from ``minimum`` on."""

    def read(text: str) -> int:
        value = _int_or(text, minimum - 1)
        if value is None or value < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {minimum} or more")
        return value

    return Range(read, "N", types=(int,))


def int_from_to(first: int, last: int) -> Range:
    """Whole numbers between two, both included."""

    def read(text: str) -> int:
        value = _int_or(text, first - 1)
        if value is None or not first <= value <= last:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number from {first} to {last}"
            )
        return value

    return Range(read, "N", types=(int,))


def _read_limit(text: str) -> int | None:
    value = _int_or(text, None)
    if value is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return value if value > 0 else None


def float_in(interval: str) -> Range:
    """Finite numbers in an interval written as ``[low, high)`` or ``(low, high)``."""
    low, high = (float(bound) for bound in interval[1:-1].split(","))

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (low < value < high or (value == low and interval[0] == "[")):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number in {interval}")
        return value

    return Range(read, "X", types=(float,))


def _read_any_int(text: str) -> int:
    value = _int_or(text, None)
    if value is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return value


def or_unset(numbers: Range) -> Range:
    """Those, and -1 for "not set"."""

    def read(text: str) -> Any:
        if text in ("-1", "-1.0"):
            return None
        try:
            return numbers.read(text)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{error}, nor -1 (not set)") from None

    return replace(numbers, read=read, unset_up_to=UNSET)


def int_list(length: int | None = None) -> Range:
    """Positive whole numbers with commas between them."""

    def read(text: str) -> tuple[int, ...]:
        items = text.split(",") if text.strip() else []
        for item in items:
            _int_or(item, None)
        if not all(item.strip().isdecimal() and int(item) > 0 for item in items):
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a comma-separated list of positive whole numbers, like 100,100"
            )
        if length is not None and len(items) != length:
            raise argparse.ArgumentTypeError(f"{text!r} has {len(items)} numbers, not {length}")
        return tuple(int(item) for item in items)

    return Range(read, "LIST", types=(list,))


def normalization() -> Range:
    """``none``, ``dataset``, ``imagenet``, or means and then as many standard deviations."""
    names = ("none", "dataset", "imagenet")

    def read(text: str) -> str | tuple[float, ...]:
        if text in names:
            return text
        try:
            numbers = tuple(map(float, text.split(",")))
        except ValueError:
            numbers = ()
        half = len(numbers) // 2
        if not numbers or len(numbers) % 2 or not all(map(math.isfinite, numbers)):
            raise argparse.ArgumentTypeError(
                f"{text!r} is neither {', '.join(names)} nor means and standard deviations, like "
                "0.5,0.25"
            )
        if min(numbers[half:]) <= 0:
            raise argparse.ArgumentTypeError(f"{text!r} has a standard deviation of 0 or less")
        return numbers

    return Range(read, "NAME|LIST", types=(str, list), items=float)


class _OneOrMore(Range):
    """Where a list of one number is that number."""

    def from_plain(self, value: Any) -> Any:
        value = super().from_plain(value)
        return value[0] if isinstance(value, tuple) and len(value) == 1 else value


def count_or_counts() -> Range:
    """A positive whole number, an int also in JSON; or several, a list there."""
    several = int_list()

    def read(text: str) -> int | tuple[int, ...]:
        if "," not in text:
            return count.read(text)
        return several.read(text)

    return _OneOrMore(read, "N[,N...]", types=(int, list))


def order_of_numbers() -> Range:
    """``natural``, ``random``, or whole numbers from 0 on that are all different."""

    def read(text: str) -> str | tuple[int, ...]:
        if text in ("natural", "random"):
            return text
        items = [item.strip() for item in text.split(",")]
        for item in items:
            _int_or(item, None)
        if not all(item.isdecimal() for item in items):
            raise argparse.ArgumentTypeError(
                f"{text!r} is neither natural nor random nor a comma-separated list of numbers, "
                "like 3,1,2,0"
            )
        numbers = tuple(map(int, items))
        if twice := [number for number in numbers if numbers.count(number) > 1]:
            raise argparse.ArgumentTypeError(f"{text!r} has {twice[0]} more than once")
        return numbers

    return Range(read, "ORDER", types=(str, list))


def _on_or_off(text: str) -> bool:
    if text not in ("on", "off"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither on nor off")
    return text == "on"


def one_of(*names: str) -> Range:
    """Names."""
    return Range(str, choices=names, types=(str,))


def one_of_or_own(*names: str, example: str) -> Range:
    """Names, or what the user brings: a path, ``module:Name``, or a folder here.

    Args:
        example: Of something brought, for the message.
    """

    def read(text: str) -> str:
        if text in names:
            return text
        if is_reference(text) or os.path.isdir(text):
            return _normal_reference(text)
        if text.endswith(".py"):
            raise argparse.ArgumentTypeError(f"{text!r} lacks a name in that file: {text}:Name")
        close = difflib.get_close_matches(text, names, n=1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        raise argparse.ArgumentTypeError(
            f"{text!r} is none of {', '.join(names)}{meant}, nor your own, like {example}"
        )

    return Range(read, "NAME", choices=names, brings=True, types=(str,))


def is_reference(text: str) -> bool:
    """Whether a choice names something of the user's, rather than an entry of a registry."""
    return any(sign in text for sign in (":", "/", os.sep)) or text.endswith(".npz")


def _normal_reference(text: str) -> str:
    """In one spelling, which :func:`is_reference` knows again."""
    where, colon, name = text.rpartition(":")
    path = os.path.normpath(os.path.expanduser(where if colon else name))
    normal = f"{path}:{name}" if colon else path
    return normal if is_reference(normal) else f".{os.sep}{normal}"


def text(metavar: str) -> Range:
    """Any text, like a path."""
    return Range(str, metavar, types=(str,))


def path(metavar: str) -> Range:
    """A path; ``~`` is the user's home, also where the shell has left it."""
    return Range(os.path.expanduser, metavar, types=(str,))


def paths(metavar: str) -> Range:
    """One or more paths, as ``--name A B`` or ``--name=A --name=B``."""

    def read(text: str) -> str:
        if not text:  # what an unset shell variable in quotes gives
            raise argparse.ArgumentTypeError("a path is empty")
        return os.path.expanduser(text)

    return Range(read, metavar, several=True)


def named_paths(metavar: str) -> Range:
    """Paths with a name each, ``NAME=PATH``; the name ends at the first ``=``."""

    def read(text: str) -> str:
        name, is_there, path = text.partition("=")
        if not (is_there and path and name.strip() and name.isprintable()):
            raise argparse.ArgumentTypeError(f"{text!r} is not {metavar}")
        return f"{name.strip()}={os.path.expanduser(path)}"

    return Range(read, metavar, several=True)


def folder(metavar: str) -> Range:
    """A folder's path in the one spelling it has; empty: not set."""

    def read(text: str) -> str | None:
        return os.path.normpath(os.path.expanduser(text)) if text else None

    return Range(read, metavar, types=(str,))


count, natural = int_at_least(1), int_at_least(0)
any_int, finite = Range(_read_any_int, "N", types=(int,)), float_in("(-inf, inf)")
# Whole numbers; 0 or less: no limit, None.
limit = Range(_read_limit, "N", unset_up_to=0, types=(int,))
non_negative, positive = float_in("[0, inf)"), float_in("(0, inf)")
share = float_in("[0, 1)")
switch = Range(_on_or_off, is_switch=True, types=(bool,))
