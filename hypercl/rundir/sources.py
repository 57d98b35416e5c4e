"""The user's files of code behind a run: their checksums in config.json, their copies in code/."""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hypercl.code import Code, CodeFile, look_in, read_file, source_of
from hypercl.errors import InputError
from hypercl.registry import Entry
from hypercl.rundir.directory import RunDir
from hypercl.rundir.stored import read_config

_CHOICES = ("cl_exp", "net_type", "method")  # options that may name code


class Source(NamedTuple):
    """A file, by the reference that names something in it."""

    reference: str
    path: Path
    content: bytes
    sha256: str

    @property
    def copy(self) -> str:
        """Of its copy, relative to the run directory."""
        return f"code/{self.path.stem}_{self.sha256[:8]}.py"


def sources_of(kinds: Iterable[Entry]) -> list[Source]:
    """The files behind those of a run's entries that the user brings."""
    found = []
    for kind in kinds:
        code: Code | None = getattr(kind, "code", None)
        if code is not None and code.file is not None:
            file = code.file
            found.append(Source(kind.name, file.path, file.content, file.sha256))
    return found


def describe_sources(sources: Iterable[Source]) -> dict[str, Any]:
    """What config.json says of them, by reference."""
    return {s.reference: {"sha256": s.sha256, "copy": s.copy} for s in sources}


def keep_sources(run_dir: RunDir, sources: Iterable[Source]) -> None:
    """Write the copies that are not there."""
    for source in sources:
        if not (run_dir.path / source.copy).exists():
            run_dir.write_bytes(source.copy, source.content)


def require_unchanged(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse to go on with a run whose code is another by now.

    Args:
        path: Of the run directory; ``config``: its config.json.

    Raises:
        InputError: A file has changed, or is gone.
    """
    for reference, code in config.get("code", {}).items():
        file = reference.rpartition(":")[0]
        if _sha256_of(reference) != code["sha256"]:
            raise InputError(
                f"{file} has changed since {path} began: put {path / code['copy']} in its place, "
                "choose another --out_dir, or replace that run with --overwrite"
            )


def with_copies(path: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """A finished run's options, which name the copy of a file that is gone or has changed, with a
    warning.

    Args:
        path: Of the run directory.
    """
    chosen = dict(options)
    if not any(str(options.get(name, "")).count(":") for name in _CHOICES):
        return chosen
    code = read_config(path).get("code", {})
    for name in _CHOICES:
        reference = options.get(name)
        if reference not in code:
            continue
        file, _, what = str(reference).rpartition(":")
        copy, sha256 = path / code[reference]["copy"], code[reference]["sha256"]
        there = _sha256_of(str(reference))
        if there != sha256:
            if _sha256(partial(read_file, copy)) != sha256:
                raise InputError(
                    f"{file} is not what it was when {path} began, and neither is its copy {copy}: "
                    "put the file of that time there"
                )
            problem = "is not there" if there is None else "is not what it was"
            warnings.warn(f"{file} {problem}: the run's copy is used", stacklevel=2)
            look_in(os.path.dirname(os.path.realpath(file)))  # for what the copy imports
            chosen[name] = f"{copy}:{what}"
    return chosen


def _sha256_of(reference: str) -> str | None:
    """Of the file of code, as it is now; None where there is none."""
    return _sha256(partial(source_of, reference))


def _sha256(read: Callable[[], CodeFile | None]) -> str | None:
    """None where it cannot be read."""
    try:
        file = read()
    except InputError:
        return None
    return None if file is None else file.sha256
