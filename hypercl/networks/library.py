"""hypnettorch's networks, the library's half of this folder, imported without pyplot.

All of them import ``hypnettorch.utils.misc``, and that imports matplotlib's pyplot for functions of
its that plot. Nothing here calls them, and pyplot takes a fifth of the time in which torch is
imported. So stand-ins have the names of matplotlib while hypnettorch is imported, and only then.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch  # noqa: F401  # before the stand-ins, which are there for milliseconds


class _Later(ModuleType):
    """Stands for a module that is imported when something in it is asked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def _standing_in(parent: str, child: str) -> Iterator[None]:
    """A context in which a package and a module in it, if nothing has imported them, are imported
    as stand-ins.
    """
    names = (parent, f"{parent}.{child}")
    stand_ins = {name: _Later(name) for name in names if name not in sys.modules}
    if parent in stand_ins:  # as the import of a module enters it in its package
        setattr(stand_ins[parent], child, stand_ins[f"{parent}.{child}"])
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            sys.modules.pop(name, None)


with _standing_in("matplotlib", "pyplot"):
    from hypnettorch.hnets import HMLP, ChunkedHMLP, HyperNetInterface
    from hypnettorch.mnets import MLP, WRN, LeNet, MainNetInterface, ResNet, ZenkeNet
    from hypnettorch.mnets.classifier_interface import Classifier

__all__ = [
    "HMLP",
    "MLP",
    "WRN",
    "ChunkedHMLP",
    "Classifier",
    "HyperNetInterface",
    "LeNet",
    "MainNetInterface",
    "ResNet",
    "ZenkeNet",
]
