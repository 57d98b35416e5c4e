"""What lies in a run directory, looked at without taking it. No torch."""

import hashlib
import json
import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypercl.errors import InputError
from hypercl.lock import is_held
from hypercl.rundir import checksum, forms

CONFIG, RESULTS, LOCK = "config.json", "results.json", "run.lock"
CHECKPOINTS = ("checkpoint.pt", "checkpoint.before.pt")  # the newest first
_MARKS = {CONFIG: ("options", "versions"), RESULTS: ("status", "config", "seeds")}
_NO_FILE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)

ANEW = "start anew with the run's command and --overwrite"  # the last mend of any damage


def newest_unfinished(root: Path) -> Path | None:
    """The run below ``root`` that began last, can go on, and is in no process's hands.

    One that is finished cannot, nor can one in which all seeds have failed.
    """
    runs = []
    for folder in root.iterdir() if root.is_dir() else []:
        with suppress(OSError):
            if not is_run_dir(folder) or is_held(folder / LOCK):
                continue
            try:
                results = read_sealed(folder / RESULTS)
            except ValueError:  # a checkpoint may have it
                results = None
            if results is None or not (failed_for_good(results) or results["status"] == "finished"):
                begun = [folder / name for name in (CONFIG, *CHECKPOINTS)]
                first = next((file for file in begun if file.exists()), None)
                if first is not None:
                    runs.append((first.stat().st_mtime_ns, folder))
    return max(runs)[1] if runs else None


def failed_for_good(results: Mapping[str, Any]) -> bool:
    """Whether all seeds of a run have failed, so that it would end in the same way again."""
    return bool(results["seeds"]) and all("failed" in seed for seed in results["seeds"])


def find_config(path: Path) -> dict[str, Any] | None:
    """config.json of a run directory; None where it is lost, but a checkpoint has its content.

    Raises:
        InputError: There is none and no checkpoint, or it cannot be read.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist: give a run directory")
    try:
        if not is_run_dir(path):
            raise InputError(f"{path} is not a run directory: give one")
        config = read_sealed(path / CONFIG)
    except ValueError:
        if checkpointed(path):
            return None
        raise InputError(f"{path / CONFIG} is damaged: put a good copy there, or {ANEW}") from None
    except OSError as error:
        raise _unreadable(path / CONFIG, error) from None
    if config is None and not checkpointed(path):
        raise InputError(f"{path / CONFIG} is missing: put it there, or {ANEW}")
    return config


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a run directory.

    Raises:
        InputError: There is none, or it is damaged or cannot be read.
    """
    config = find_config(path)
    if config is None:
        what = "damaged" if (path / CONFIG).exists() else "missing"
        raise InputError(f"{path / CONFIG} is {what}: {mend_by_resuming(path)}")
    return config


def read_finished(path: Path) -> dict[str, Any]:
    """results.json of a finished run.

    Raises:
        InputError: It is missing or damaged, or the run is not finished.
    """
    results = read_results(path)
    if results is not None and failed_for_good(results):
        reason = results["seeds"][0]["failed"]
        raise InputError(f"{path} is a run that failed ({reason}): give that of a finished run")
    if results is None or results["status"] != "finished":
        raise InputError(f"{path} is not a finished run: {_resume(path)} continues one")
    return results


def read_results(path: Path) -> dict[str, Any] | None:
    """results.json of a run directory, as far as the run has come; None where there is none.

    Raises:
        InputError: It is no run directory, or the file is damaged or cannot be read.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist: give the directory of a finished run")
    try:
        if not is_run_dir(path):
            raise InputError(f"{path} is not a run directory: give that of a finished run")
        return read_sealed(path / RESULTS)
    except ValueError:
        raise InputError(f"{path / RESULTS} is damaged: {mend_by_resuming(path)}") from None
    except OSError as error:
        raise _unreadable(path / RESULTS, error) from None


def checkpointed(path: Path) -> bool:
    """Whether there is a checkpoint in a directory, whole or not."""
    return any((path / name).exists() for name in CHECKPOINTS)


def refused(path: Path) -> InputError:
    """What is said of a file whose checksum is right and whose content is not."""
    return InputError(
        f"{path} holds what no run of this version has written: put a good copy there, or {ANEW}"
    )


def mend_by_resuming(path: Path) -> str:
    """What to do about a file of a finished run that a checkpoint can write anew."""
    if checkpointed(path):
        return f"{_resume(path)} writes it anew"
    return f"put a good copy there, or {ANEW}"


def _resume(path: Path) -> str:
    return f"python run.py --resume --out_dir={shlex.quote(str(path))}"


def _unreadable(path: Path, error: OSError) -> InputError:
    path = path if error.filename is None else Path(os.fsdecode(error.filename))
    return InputError(f"{path} cannot be read ({error.strerror or error}): make it readable")


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """``content`` with a SHA-256 of all of it but ``seconds``."""
    counted = {k: v for k, v in content.items() if k not in ("seconds", "sha256")}
    text = json.dumps(counted, sort_keys=True)
    return {**content, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def read_sealed(path: Path) -> dict[str, Any] | None:
    """A JSON file's content, or None; ValueError where it is damaged or no run's."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except RecursionError:
        raise ValueError from None
    of_run = forms.is_config if path.name == CONFIG else forms.is_results
    if not of_run(content) or seal(content) != content:
        raise ValueError
    return content


def is_run_dir(path: Path) -> bool:
    """Whether a run made this directory: config.json or results.json has a run's marks, or a
    checkpoint has our comment.

    Raises:
        OSError: A file cannot be read, so that it is not known.
    """
    for name in _MARKS:
        with suppress(*_NO_FILE, ValueError, RecursionError):
            if _has_marks(json.loads((path / name).read_bytes()), name):
                return True
    for name in CHECKPOINTS:
        with suppress(*_NO_FILE):
            if checksum.has_comment(path / name):
                return True
    return False


def _has_marks(content: Any, name: str) -> bool:
    return isinstance(content, dict) and all(mark in content for mark in _MARKS[name])
