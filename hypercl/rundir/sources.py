"""The user's files of code behind a run: their checksums in config.json, their copies in code/."""

import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hypercl.code import Code, load, read_file
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
        copy = path / code[reference]["copy"]
        if _sha256_of(str(reference)) != code[reference]["sha256"]:
            if _sha256(copy) != code[reference]["sha256"]:
                raise InputError(
                    f"{file} is not what it was when {path} began, and neither is its copy {copy}: "
                    "put the file of that time there"
                )
            warnings.warn(f"{file} is not what it was: the run's copy is used", stacklevel=2)
            chosen[name] = f"{copy}:{what}"
    return chosen


def _sha256_of(reference: str) -> str | None:
    """Of the file of code, as it is now; None where there is none."""
    where = reference.rpartition(":")[0]
    if where.endswith(".py"):
        return _sha256(Path(os.path.expanduser(where)))
    file = load(reference).file
    return None if file is None else file.sha256


def _sha256(path: Path) -> str | None:
    """None where it cannot be read."""
    try:
        return read_file(path).sha256
    except InputError:
        return None
