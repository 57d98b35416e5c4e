"""Any torch.nn.Module of the user's: ``--net_type=path/to/my.py:Net``."""

import inspect
from dataclasses import dataclass
from typing import Any, ClassVar

from hypercl.code import Code, calling, entry_of, load, own_entry
from hypercl.errors import InputError
from hypercl.networks.main_nets.base import MainNet

_GIVEN = ("in_shape", "num_classes")
_ITSELF = ", which says itself what layers it has: leave it out"


def bring(reference: str) -> type[MainNet]:
    """The entry of a reference to a :class:`MainNet`, or to a class or function that makes a
    torch.nn.Module.

    It is given ``in_shape``, (C, H, W) of images or (D,) of vectors, and ``num_classes``, where it
    has such parameters; its other ones are options.

    Raises:
        InputError: There is no such thing, it is a module itself, or a parameter of it can be no
            option.
    """
    code = load(reference)
    if hasattr(code.what, "state_dict") and not inspect.isclass(code.what):
        raise InputError(
            f"{reference} is a module, which could not be made anew for each seed: give its class, "
            "or a function that makes it"
        )
    own = own_entry(MainNet, reference, code)
    return entry_of(BroughtNet, reference, code, _GIVEN) if own is None else own


@dataclass(frozen=True)
class BroughtNet(MainNet):
    """Builds the user's module with its options."""

    code: ClassVar[Code]
    takes_vectors: ClassVar = True
    brings_stats: ClassVar = True
    cannot: ClassVar = dict.fromkeys(
        ("net_act", "no_bias", "dropout_rate", "batchnorm", "bn_no_running_stats"), _ITSELF
    )

    def arguments(self) -> dict[str, Any]:
        """The options; see :func:`~hypercl.code.entry_of`."""
        raise NotImplementedError

    def build(self, options, in_shape, num_outputs):
        """A :class:`~hypercl.networks.module_net.ModuleNet`.

        Raises:
            InputError: The module cannot be made, or not be trained so.
        """
        from hypercl.networks.module_net import ModuleNet

        channels_first = (in_shape[-1], *in_shape[:-1])
        given = _taken(self.code.what, {"in_shape": channels_first, "num_classes": num_outputs})

        def make():
            with calling(self.code, self.name):
                return self.code.what(**given, **self.arguments())

        return ModuleNet(make, in_shape, num_outputs, f"--net_type={self.name}")


def _taken(what: Any, offered: dict[str, Any]) -> dict[str, Any]:
    """What of the things offered a class or function has parameters for; ``**kwargs`` takes
    num_classes, as functions of torchvision do.
    """
    try:
        parameters = inspect.signature(what).parameters
    except (TypeError, ValueError):  # of what is written in C
        return {}
    taken = {name: value for name, value in offered.items() if name in parameters}
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        taken["num_classes"] = offered["num_classes"]
    return taken
