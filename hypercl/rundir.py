"""The run directory: what a run writes, each file whole or not at all.

config.json, results.json, metrics.jsonl, logfile.txt, weights.pt, summary/ (TensorBoard), plots/;
README.rst says what is in each.
"""

import io
import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from hypercl.errors import InputError, RunFailed

# Everything a run may write; --overwrite removes these and nothing else.
_FILES = ("config.json", "results.json", "metrics.jsonl", "logfile.txt", "weights.pt")
_FOLDERS = ("summary", "plots")


def default_out_dir(root: str | Path = "out") -> Path:
    """``out/run_<timestamp>``, with a number behind it where two runs start in the same second."""
    name = time.strftime("run_%Y-%m-%d_%H-%M-%S")
    path, number = Path(root, name), 1
    while path.exists():
        number += 1
        path = Path(root, f"{name}_{number}")
    return path


def check_out_dir(path: Path, *, overwrite: bool) -> None:
    """Refuse, before anything is loaded or written, a directory that no run may be made in.

    Raises:
        InputError: The path exists and is not a run directory to overwrite, or cannot be made.
    """
    try:
        _check_out_dir(path, overwrite)
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise InputError(
            f"--out_dir={path} cannot be used ({error.strerror or error}): choose another directory"
        ) from error


def _check_out_dir(path: Path, overwrite: bool) -> None:
    if path.exists() or path.is_symlink():
        if not path.is_dir():
            raise InputError(f"--out_dir={path} is a file: choose another directory")
        if not overwrite:
            raise InputError(
                f"--out_dir={path} exists: choose another directory, or replace the run in it with "
                "--overwrite"
            )
        if any(path.iterdir()) and not _is_run_dir(path):
            raise InputError(
                f"--out_dir={path} is not a run directory, and --overwrite replaces nothing else: "
                "choose another directory"
            )
    ancestor = path
    while not ancestor.exists() and ancestor != ancestor.parent:
        ancestor = ancestor.parent
    if not ancestor.is_dir():
        raise InputError(f"--out_dir={path} lies below {ancestor}, which is a file: choose another")
    if not os.access(ancestor, os.W_OK | os.X_OK):
        raise InputError(
            f"--out_dir={path} cannot be made, {ancestor} is not writable: choose another directory"
        )


def _is_run_dir(path: Path) -> bool:
    """Whether a run made this directory: it has a config.json with a run's marks."""
    try:
        config = json.loads((path / "config.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "options" in config and "versions" in config


def _remove_run(path: Path) -> None:
    for name in _FILES:
        (path / name).unlink(missing_ok=True)
    for name in _FOLDERS:
        if (path / name).is_dir():
            shutil.rmtree(path / name)


class RunDir:
    """Makes the directory, then writes into it. Check with :func:`check_out_dir` first.

    Args:
        overwrite: The directory may exist; what a run wrote in it is removed.

    Raises:
        InputError: The directory cannot be made, or was made by another process meanwhile.
        RunFailed: Later, when something cannot be written (no space, directory gone).
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=overwrite)
            if overwrite:
                _remove_run(path)
            (path / "plots").mkdir()
        except OSError as error:
            raise InputError(
                f"--out_dir={path} cannot be made ({error.strerror or error}): "
                "choose another directory"
            ) from error
        # A line at a time, so that a crash loses none.
        self._metrics = self._open("metrics.jsonl")
        self._log = self._open("logfile.txt")
        self._summary = None

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Replace ``name`` by ``content``."""
        text = json.dumps(content, indent=2) + "\n"
        self._replace(name, lambda part: part.write_text(text))

    def write_weights(self, content: Mapping[str, Any]) -> None:
        """Write weights.pt, which ``torch.load(path, weights_only=True)`` reads."""
        buffer = io.BytesIO()  # torch's own writer would not report a full disk as an OSError
        torch.save(dict(content), buffer)
        self._replace("weights.pt", lambda part: part.write_bytes(buffer.getbuffer()))

    def write_figure(self, name: str, figure) -> None:
        """Write a matplotlib figure as plots/<name>.png."""
        self._replace(f"plots/{name}.png", lambda part: figure.savefig(part, format="png", dpi=150))

    def write_metrics(self, row: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        self._append(self._metrics, json.dumps(row))

    def write_log(self, text: str) -> None:
        """Append text to logfile.txt."""
        self._append(self._log, text)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add numbers to the TensorBoard summary."""
        try:
            if self._summary is None:
                from torch.utils.tensorboard import SummaryWriter  # slow to import

                self._summary = SummaryWriter(self.path / "summary")
            for tag, value in scalars.items():
                self._summary.add_scalar(tag, value, step)
        except OSError as error:
            raise self._failure("summary", error) from error

    def close(self) -> None:
        """Close what is open; nothing can be written after it."""
        for file in (self._metrics, self._log, self._summary):
            with suppress(OSError):  # what could not be written has been reported when it was
                if file is not None:
                    file.close()

    def _open(self, name: str):
        try:
            return (self.path / name).open("w", buffering=1, encoding="utf-8")
        except OSError as error:
            raise self._failure(name, error) from error

    def _append(self, file, text: str) -> None:
        try:
            file.write(text + "\n")
        except OSError as error:
            raise self._failure(Path(file.name).name, error) from error

    def _replace(self, name: str, write) -> None:
        """Let ``write`` fill a temporary file, flush it to the disk, and rename it."""
        path = self.path / name
        part = path.with_name(f".{path.name}.part")
        try:
            write(part)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise self._failure(name, error) from error

    def _failure(self, name: str, error: OSError) -> RunFailed:
        return RunFailed(f"{self.path / name} cannot be written ({error.strerror or error})")
