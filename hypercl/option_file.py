"""Options from a file, for --config: TOML, or what a run has recorded. No torch."""

import argparse
import difflib
import json
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import Field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from hypercl.errors import InputError
from hypercl.options import OF_THE_PROCESS, all_options
from hypercl.ranges import Range
from hypercl.rundir.stored import seal

# What other scripts call what this one calls otherwise; a name that is merely close would mislead.
USUAL_NAMES = {
    "seed": "random_seed",
    "gpu": "no_cuda",
    "cuda": "no_cuda",
    "use_cuda": "no_cuda",
    "device": "no_cuda",
    "lr_hyper": "lr",
    "learning_rate": "lr",
    "dataset": "cl_exp",
    "experiment": "cl_exp",
    "hidden": "mlp_arch",
    "emb_size": "cond_emb_size",
    "output_dir": "out_dir",
    "quiet": "loglevel_info",
}
_COMMAND_LINE_ALONE = frozenset(OF_THE_PROCESS) - {"loglevel_info"}
_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "a string",
          list: "an array of whole numbers"}  # fmt: skip


class OptionFile(NamedTuple):
    """What a file says."""

    path: Path
    options: Mapping[str, Any]  # by name, as JSON has them
    of_run: bool  # recorded by a run: all options that concern it


def read(path: str, choices: Mapping[str, Any] = MappingProxyType({})) -> OptionFile:
    """Read the options in a file.

    Args:
        path: A TOML file with an option a line; a run directory, its config.json or its
            results.json, whose options of the process are left out.
        choices: Of entries, which the command line may have made in the file's place; both their
            options and those of the file's own choices can be there.

    Raises:
        InputError: It cannot be read or is none of these; it names what is no option, or an option
            of the process; a value is none that the option may have.
    """
    file, of_run, given = _content(path)
    known = {**all_options(given), **all_options(choices)}
    _refuse_unknown(file, given, known)
    values = {n: _checked(file, n, v, known[n]) for n, v in given.items() if v is not None}
    if of_run:
        values = {n: v for n, v in values.items() if n not in OF_THE_PROCESS}
    elif for_command_line := sorted(_COMMAND_LINE_ALONE & values.keys()):
        raise InputError(
            f"{file}: {', '.join(for_command_line)} cannot be in a file, which says what is "
            "learned and not what is done with a run: give it on the command line"
        )
    elif "n_iter" in values and values.get("epochs", -1) != -1:
        raise InputError(f"{file}: epochs replaces n_iter: leave one out")
    return OptionFile(file, values, of_run)


def choices_in(path: str, names: Collection[str]) -> dict[str, Any]:
    """Some of the options in a file, unchecked.

    Raises:
        InputError: It cannot be read.
    """
    return {name: value for name, value in _content(path)[2].items() if name in names}


def _content(path: str) -> tuple[Path, bool, dict[str, Any]]:
    """The file, whether a run has written it, and its options, as they stand there."""
    file = Path(path, "config.json") if Path(path).is_dir() else Path(path)
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise InputError(
            f"--config: {file} does not exist: give a TOML file, or the directory of a run"
        ) from None
    except OSError as error:
        raise InputError(
            f"--config: {file} cannot be read ({error.strerror or error}): mend that"
        ) from None
    of_run = file.suffix == ".json"
    return file, of_run, _recorded(file, data) if of_run else _from_toml(file, data)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The option that an unknown name may have meant."""
    if name in USUAL_NAMES:
        return USUAL_NAMES[name]
    return next(iter(difflib.get_close_matches(name, names, n=1)), None)


def _from_toml(file: Path, data: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"--config: {file} is not TOML ({error}): mend that") from None


def _recorded(file: Path, data: bytes) -> dict[str, Any]:
    """The options in a run's config.json or results.json."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise InputError(f"--config: {file} is damaged: put a good copy there") from None
    content = content if isinstance(content, dict) else {}
    options = content.get("config" if "config" in content else "options")
    if not isinstance(options, dict):
        raise InputError(
            f"--config: {file} is neither a run's config.json nor its results.json: give one of "
            "these, or a TOML file"
        )
    if seal(content) != content:
        raise InputError(
            f"--config: {file} is not as the run wrote it: put a good copy there; options of your "
            "own go into a TOML file or on the command line"
        )
    return options


def _refuse_unknown(file: Path, names: Iterable[str], known: Collection[str]) -> None:
    """Name all that are no options, each with the option that it may have meant."""
    unknown = []
    for name in names:
        if name not in known:
            meant = nearest(name, known)
            unknown.append(f"{name} (did you mean {meant}?)" if meant else name)
    if unknown:
        raise InputError(f"{file}: no such option: {', '.join(unknown)}: --help lists the options")


def _checked(file: Path, name: str, value: Any, field: Field) -> Any:
    """A value that an option may have, in the one spelling that JSON has of it."""
    allowed = field.metadata["range"]
    if not _has_type(value, allowed):
        types = {**_TYPES, list: "an array of numbers"} if allowed.items is float else _TYPES
        kinds = " or ".join(types[kind] for kind in allowed.types)
        raise InputError(f"{file}: {name} = {value!r} is not {kinds}")
    try:
        if allowed.choices is not None and not allowed.brings and value not in allowed.choices:
            raise argparse.ArgumentTypeError(f"none of {', '.join(allowed.choices)}")
        return allowed.parsed(value)
    except argparse.ArgumentTypeError as error:
        raise InputError(f"{file}: {name}: {error}") from None


def _has_type(value: Any, allowed: Range) -> bool:
    types = allowed.types
    if not types:
        return True
    if isinstance(value, list):
        return list in types and all(type(item) in (int, allowed.items) for item in value)
    return type(value) in types or (float in types and type(value) is int)
