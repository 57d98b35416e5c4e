"""A method of the user's: ``--method=path/to/my.py:MyMethod``."""

import inspect
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

from hypercl.code import Code, calling, entry_of, load, own_entry
from hypercl.errors import InputError
from hypercl.methods.base import Method, MethodEntry, OwnWeightsEntry, Setting


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
    if not (inspect.isclass(what) and "setting" in _parameters(what)):
        raise InputError(
            f"{reference} is no method: give a class whose constructor takes a setting, like those "
            "that inherit from hypercl.methods.base.OwnWeights"
        )
    entry: type[BroughtMethod]
    if "mnet_init" in _parameters(what):
        entry = entry_of(BroughtOwnWeights, reference, code, ("setting", "mnet_init"))
    else:
        entry = entry_of(BroughtMethod, reference, code, ("setting",))
    by_task = getattr(what, "network_by_task", False)
    scenarios = getattr(what, "scenarios", (1,) if by_task else MethodEntry.scenarios)
    if not isinstance(scenarios, tuple) or not set(scenarios) <= {1, 2, 3}:
        raise InputError(f"{reference} has scenarios={scenarios!r}: give a tuple, as in (1, 2, 3)")
    entry.scenarios, entry.network_by_task = scenarios, bool(by_task)
    return entry


def _parameters(what: type) -> Collection[str]:
    try:
        return inspect.signature(what).parameters
    except (TypeError, ValueError):  # of what is written in C
        return ()


@dataclass(frozen=True)
class BroughtMethod(MethodEntry):
    """Builds the user's class with its options."""

    code: ClassVar[Code]

    def arguments(self) -> dict[str, Any]:
        """The options; see :func:`~hypercl.code.entry_of`."""
        raise NotImplementedError

    def given(self) -> dict[str, Any]:
        """Options of other methods that the constructor takes, too."""
        return {}

    def build(self, setting: Setting) -> Method:
        """The user's method, once it has been tried out.

        Raises:
            InputError: It cannot be made, or has or gives something else than a method.
        """
        with calling(self.code, self.name):
            method: Method = self.code.what(setting=setting, **self.given(), **self.arguments())
            for problem in problems_of_method(method, setting):
                raise InputError(f"{self.name} {problem}")
        return method


@dataclass(frozen=True)
class BroughtOwnWeights(BroughtMethod, OwnWeightsEntry):
    """The same where the constructor takes ``mnet_init``, as that of OwnWeights does."""

    def given(self) -> dict[str, Any]:
        """The initialization."""
        return {"mnet_init": self.mnet_init}


def problems_of_method(method: Method, setting: Setting) -> Iterator[str]:
    """Whether something lacks what :class:`~hypercl.methods.base.Method` has, or its parameters and
    weights have other forms; parameters are drawn for that, and thrown away.
    """
    import torch

    has = {*Method.__annotations__, *(name for name in vars(Method) if name[0] != "_")}
    if missing := sorted(name for name in has if not hasattr(method, name)):
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        yield (
            f"lacks {', '.join(missing[:3])}{more}: inherit from hypercl.methods.base.OwnWeights, and call "
            "its constructor"
        )
        return
    if not isinstance(method.num_trained, Integral):
        yield f"has num_trained={method.num_trained!r}: give the number of what one member learns"
    params: Any = method.init([0])
    if not isinstance(params, dict) or not all(
        isinstance(value, torch.Tensor) and value.shape[:1] == (1,) for value in params.values()
    ):
        yield "has an init that returns something else: return tensors [members, …] by name"
        return
    weights: Any = method.weights(
        params, torch.zeros(1, 1, dtype=torch.long, device=setting.device)
    )
    expected = [1, 1, setting.net.num_weights]
    if not isinstance(weights, torch.Tensor) or [*weights.shape] != expected:
        shape = [*weights.shape] if isinstance(weights, torch.Tensor) else type(weights).__name__
        yield (
            f"gives weights {shape} of one member and one task, and the network takes {expected}: "
            "return [members, tasks, num_weights]"
        )
