"""Continual learning with hypernetworks: all but the scripts run.py, train.py and train_args.py.

It imports none of these, so that it works beside a user's own: ``from hypercl import load_run``.
README.rst draws which folder holds what.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypercl.learned import load_run

__all__ = ["load_run"]


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is asked for; the command line does without."""
    if name == "load_run":
        from hypercl.learned import load_run

        return load_run
    raise AttributeError(f"module 'hypercl' has no attribute {name!r}")
