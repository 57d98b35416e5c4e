"""Registries: packages in which every module with an ``ENTRY`` is one choice of an option.

``hypercl.tasks.sequences`` has those of --cl_exp, ``hypercl.networks.main_nets`` those of
--net_type, ``hypercl.methods`` those of --method. To add a choice is to add a file there, and
nothing else: the module's name is what the command line takes.

These modules are imported for the command line, so that --help lists the options of all of them.
What takes seconds to import, like torch, they import in the functions that need it.
"""

import importlib
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


def _require_options(entry: type[Entry]) -> None:
    """Refuse an entry whose fields would silently be no options."""
    if "__dataclass_fields__" not in vars(entry):
        raise TypeError(f"{entry.__module__}.{entry.__name__} is no @dataclass(frozen=True)")
    for field in fields(entry):
        if "range" not in field.metadata:
            raise TypeError(
                f"{entry.__module__}.{entry.__name__}.{field.name} is no option: make it one, "
                "option(default, range, help), or a ClassVar"
            )


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
            _require_options(entry)
            entry.name = module.name
            by_name[module.name] = entry
    return by_name
