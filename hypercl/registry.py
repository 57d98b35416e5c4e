"""Registries: packages in which every module with an ``ENTRY`` is one choice of an option.

``hypercl.tasks.sequences`` has those of --cl_exp, ``hypercl.networks.main_nets`` those of
--net_type, ``hypercl.methods`` those of --method. To add a choice is to add a file there, and
nothing else: the module's name is what the command line takes.

Beside the entries, an option takes what the user brings, like --net_type=my.py:Net. The registry's
module ``brought`` makes an entry of it.

These modules are imported for the command line, so that --help lists the options of all of them.
What takes seconds to import, like torch, they import in the functions that need it.
"""

import importlib
import os
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, ClassVar, NamedTuple

if TYPE_CHECKING:
    from hypercl.options import Options


class Part(NamedTuple):
    """A part of what a run takes."""

    num_bytes: int  # at least
    what: str  # it is for
    options: tuple[str, ...]  # that it grows with
    mend: str | None = None  # where none of these can be lowered


@dataclass(frozen=True)
class Entry:
    """One choice of an option; its fields are the options that concern this choice alone."""

    name: ClassVar[str]  # of its module
    chosen_by: ClassVar[str]  # the option of which it is a choice
    # Options of the common ones that it cannot have any other value of than the default: why.
    cannot: ClassVar[Mapping[str, str]] = {}

    def problems(self, options: "Options") -> Iterator[str]:
        """What is wrong with the options of a run beside :attr:`cannot`, each in one line with the
        mend.
        """
        yield from ()

    def unread(self, options: "Options") -> Mapping[str, str]:
        """Common options, or its own, that a run with these would not read: what each goes with."""
        return {}

    def takes(self, options: "Options") -> Iterator[Part]:
        """What may be large of a run with these options, because of this entry's; see sizes.py."""
        yield from ()

    def refusals(self, options: "Options") -> Iterator[str]:
        """What of :attr:`cannot` is asked for, each in one line with the mend."""
        for option, reason in self.cannot.items():
            if options.is_changed(option):
                yield (
                    f"{options.spelled(option)} cannot be used with "
                    f"--{self.chosen_by}={self.name}{reason}"
                )


def require_options(entry: type[Entry]) -> None:
    """Refuse an entry whose fields would silently be no options.

    Raises:
        TypeError: There is such a field.
    """
    if "__dataclass_fields__" not in vars(entry):
        raise TypeError(f"{entry.__module__}.{entry.__name__} is no @dataclass(frozen=True)")
    for field in fields(entry):
        if "range" not in field.metadata:
            raise TypeError(
                f"{entry.__module__}.{entry.__name__}.{field.name} is no option: make it one, "
                "option(default, range, help), or a ClassVar"
            )


def entry(package: str, name: str) -> type[Entry]:
    """The entry of a choice: of a registry, or one that the user brings, which is read again where
    its file has changed.

    Args:
        package: The registry's dotted name.

    Raises:
        InputError: What the user brings is not there, or cannot be used.
    """
    if name in entries(package):
        return entries(package)[name]
    return _brought(package, name, _stamp(name))


@cache
def _brought(package: str, name: str, stamp: tuple[int, ...]) -> type[Entry]:
    brought: type[Entry] = importlib.import_module(f"{package}.brought").bring(name)
    brought.name = name
    return brought


def _stamp(reference: str) -> tuple[int, ...]:
    """What changes with the file that is named; empty where none is."""
    where, _, name = reference.rpartition(":")
    try:
        status = os.stat(os.path.expanduser(where or name))
    except (OSError, ValueError):
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


@cache
def entries(package: str) -> dict[str, type[Entry]]:
    """The entries of a registry by name, in alphabetical order.

    Args:
        package: Its dotted name.
    """
    by_name = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        entry = getattr(importlib.import_module(f"{package}.{module.name}"), "ENTRY", None)
        if entry is not None:
            require_options(entry)
            entry.name = module.name
            by_name[module.name] = entry
    return by_name
