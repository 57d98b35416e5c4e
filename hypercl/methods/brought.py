"""A method of the user's: ``--method=path/to/my.py:MyMethod``."""

import inspect
from dataclasses import dataclass
from typing import Any, ClassVar

from hypercl.code import Code, calling, entry_of, load, own_entry
from hypercl.errors import InputError
from hypercl.methods.base import Method, MethodEntry, Setting


def bring(reference: str) -> type[MethodEntry]:
    """The entry of a reference to a :class:`MethodEntry`, or to a class with the protocol
    :class:`~hypercl.methods.base.Method` whose constructor takes a ``setting`` and options.

    Raises:
        InputError: It is neither.
    """
    code = load(reference)
    if (own := own_entry(MethodEntry, reference, code)) is not None:
        return own
    what = code.what
    if not (inspect.isclass(what) and "setting" in inspect.signature(what).parameters):
        raise InputError(
            f"{reference} is no method: give a class whose constructor takes a setting, like those "
            "that inherit from hypercl.methods.base.OwnWeights"
        )
    entry = entry_of(BroughtMethod, reference, code, ("setting",))
    by_task = getattr(what, "network_by_task", False)
    entry.scenarios = getattr(what, "scenarios", (1,) if by_task else MethodEntry.scenarios)
    return entry


@dataclass(frozen=True)
class BroughtMethod(MethodEntry):
    """Builds the user's class with its options."""

    code: ClassVar[Code]

    def arguments(self) -> dict[str, Any]:
        """The options; see :func:`~hypercl.code.entry_of`."""
        raise NotImplementedError

    def build(self, setting: Setting) -> Method:
        with calling(self.code, self.name):
            method: Method = self.code.what(setting=setting, **self.arguments())
        return method
