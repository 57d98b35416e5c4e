"""Continual learning with hypernetworks: all but the scripts run.py, train.py and train_args.py.

It imports none of these until ``hypercl.run`` is called, so that it works beside a user's own:
``from hypercl import load_run``. README.rst draws which folder holds what.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypercl.learned import load_run
    from hypercl.program import run

__all__ = ["load_run", "run"]
__version__ = "0.2"  # pyproject.toml reads it here

_PLACES = {"load_run": "hypercl.learned", "run": "hypercl.program"}


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is asked for; the command line does without."""
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'hypercl' has no attribute {name!r}")
