"""--resume: which run goes on, and with which options."""

from collections.abc import Callable
from pathlib import Path

from hypercl.errors import InputError
from hypercl.options import Options
from hypercl.rundir import directory


def resumed(options: Options, argv: list[str], parse_args: Callable[..., Options]) -> Options:
    """The options with which a run goes on: the stored ones, where none is given.

    Args:
        parse_args: Reads a command line beside stored options.

    Raises:
        InputError: There is no run to go on with.
    """
    path: str | Path | None = options.run.out_dir
    if path is None and (path := directory.newest_unfinished(Path("out"))) is None:
        raise InputError("--resume finds no unfinished run in ./out: give its --out_dir")
    stored = directory.read_config(Path(path))["options"]
    return parse_args([*argv, f"--out_dir={path}"], stored)
