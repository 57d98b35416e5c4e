"""run.py, called from Python: ``hypercl.run(cl_exp="splitmnist", n_iter=100)``.

The scripts stay scripts. In the repository they lie beside this package. ``pip install .`` puts
them into its folder ``_scripts`` and nothing at the top level of site-packages, where a name like
"train" would stand in others' way. They import each other as "train" and "train_args", and a
user's own files may have these names, too: they are the scripts' while a call lasts, and are put
back.
"""

import importlib
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from hypercl.errors import InputError
from hypercl.options import all_options
from hypercl.ranges import as_argument

_NAMES = ("run", "train", "train_args")
_PLACES = (Path(__file__).parent / "_scripts", Path(__file__).parents[1])
_loaded: dict[str, ModuleType] = {}
_one_at_a_time = threading.RLock()


def run(*arguments: str, **options: Any) -> dict[str, Any]:
    """Do what ``python run.py`` does, in this process.

    One call at a time: others, in other threads, wait.

    Args:
        arguments: As on the command line, like "--cl_exp=splitmnist" or "--batchnorm".
        options: The same by name: ``n_iter=100``, ``batchnorm=True``, ``mlp_arch=[50, 50]``. None:
            the option is not set.

    Returns:
        What results.json holds at the end; of a dry run, a comparison or an export, what it says.

    Raises:
        InputError: An option, the data or a directory cannot be used.
        RunFailed: The loss was not finite, or the results could not be written.
        Interrupted: By a signal; what was learned has been saved.
    """
    argv = [*map(str, arguments), *as_arguments(options)]
    with scripts() as script:
        try:
            results: dict[str, Any] = script.main(argv)
            return results
        except SystemExit as left:
            if (message := getattr(left, "message", None)) is None:  # --help
                raise
            raise InputError(message) from None


def as_arguments(options: Mapping[str, Any]) -> list[str]:
    """Options by name as a command line has them."""
    arguments = []
    for name, value in options.items():
        field = all_options().get(name)
        several = False
        if field is not None:
            value = field.metadata["range"].to_plain(value)
            several = field.metadata["range"].several and not isinstance(value, str)
        if value is not None:
            values = value if several else [value]
            arguments += [f"--{name}={as_argument(each)}" for each in values]
    return arguments


@contextmanager
def scripts() -> Iterator[ModuleType]:
    """The module of run.py, in a context in which the scripts have their names.

    Raises:
        InputError: They are not there.
    """
    place = next((p for p in _PLACES if all((p / f"{n}.py").exists() for n in _NAMES)), None)
    if place is None:
        raise InputError(
            f"hypercl.run needs run.py, train.py and train_args.py, which are not in {_PLACES[0]}: "
            "install the whole project with pip install ."
        )
    finder: Any = _Finder(place)
    with _one_at_a_time:
        others = {name: sys.modules.pop(name) for name in _NAMES if name in sys.modules}
        sys.modules.update(_loaded)
        sys.meta_path.insert(0, finder)
        try:
            yield importlib.import_module("run")
        finally:
            sys.meta_path.remove(finder)
            _loaded.update({n: sys.modules.pop(n) for n in _NAMES if n in sys.modules})
            sys.modules.update(others)


class _Finder:
    """Finds the scripts, whatever else has their names."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in _NAMES:
            return None
        return spec_from_file_location(name, self._place / f"{name}.py")
