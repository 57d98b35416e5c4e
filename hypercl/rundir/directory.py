"""The run directory: what a run writes, each file whole or not at all, and reads when it goes on.

config.json, results.json, metrics.jsonl, logfile.txt, weights.pt, weights/, checkpoint.pt, summary/
(TensorBoard), plots/, performance_overview.txt; docs/runs.rst says what is in each. Imports no
torch, so that a finished run's results are shown at once.
"""

import json
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hypercl.errors import InputError, InUse, RunFailed
from hypercl.lock import Held, Lock
from hypercl.rundir import checksum, curves
from hypercl.rundir.growing import GrowingFile, Grown
from hypercl.rundir.stored import (
    ANEW,
    CHECKPOINTS,
    CONFIG,
    LOCK,
    RESULTS,
    checkpointed,
    is_run_dir,
    read_sealed,
    seal,
)
from hypercl.whole import replacing

# Everything a run may write; --overwrite removes these and nothing else.
_CHECKPOINT, _CHECKPOINT_BEFORE = CHECKPOINTS
_GROWING = ("metrics.jsonl", "logfile.txt")
_WEIGHTS, _WEIGHTS_BY_TASK = "weights.pt", "weights"
_OVERVIEW = "performance_overview.txt"
_FILES = (RESULTS, *_GROWING, _WEIGHTS, *CHECKPOINTS, _OVERVIEW)
_CODE = "code"
_FOLDERS = ("summary", "plots", _WEIGHTS_BY_TASK, _CODE)


class RunDir:
    """A directory that holds one run; a context that gives it free again.

    Looks at the directory and changes nothing in it but for the lock; :meth:`begin` makes it, and
    :meth:`open` is to be called before anything that grows is written.

    Args:
        path: None stands for ``./out/run_<timestamp>``, chosen by :meth:`begin`.
        overwrite: Take the directory as if it were empty.

    Attributes:
        config: Of the run that is there; None where there is none, and until :meth:`restore`
            where it is lost.
        results: The same; None also where they are damaged or not yet written.
        lost: What is wrong with files that are written anew from a checkpoint, by name: "is
            damaged" or "is missing".

    Raises:
        InputError: The directory cannot be used; InUse: another process uses it.
        RunFailed: Later, when something cannot be written (no space, directory gone).
    """

    def __init__(self, path: Path | None, *, overwrite: bool = False) -> None:
        self._path = path
        self.config: dict[str, Any] | None = None
        self.results: dict[str, Any] | None = None
        self.lost: dict[str, str] = {}
        self._lock: Lock | None = None
        self._folder: int | None = None  # open as long as the lock is held
        self._growing: dict[str, GrowingFile] = {}
        try:
            self._look(overwrite)
        except OSError as error:  # a name that is too long, a file that may not be read
            raise self._refusal(error) from error

    def __enter__(self) -> "RunDir":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """Where it is; where none was given, there is none before :meth:`begin`."""
        assert self._path is not None
        return self._path

    @property
    def finished(self) -> bool:
        """Whether a run has been here to its end, and all that shows it is whole."""
        return self._ended and not self.lost

    @property
    def has_weights(self) -> bool:
        """Whether weights.pt is there, and whole."""
        try:
            return checksum.is_whole(self.path / _WEIGHTS)
        except FileNotFoundError:
            return False

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is any, whole or not."""
        return checkpointed(self.path)

    @property
    def has_learned(self) -> bool:
        """Whether the run has left something that it writes only behind its first checkpoint."""
        metrics = self.path / _GROWING[0]
        return (self.path / _WEIGHTS).exists() or (metrics.exists() and metrics.stat().st_size > 0)

    @property
    def _ended(self) -> bool:
        return self.results is not None and self.results["status"] == "finished"

    @property
    def checkpoints(self) -> list[Path]:
        """Where checkpoints may be, the newest first."""
        return [self.path / name for name in CHECKPOINTS]

    def _look(self, overwrite: bool) -> None:
        path = self._path or Path("out", "run")
        if not path.exists() and not path.is_symlink():
            return _check_can_be_made(path)
        if self._path is None:
            return None
        if not path.is_dir():
            what = "a file" if path.exists() else "a link to nothing"
            raise InputError(f"--out_dir={path} is {what}: choose another directory")
        if not is_run_dir(path) and not _is_empty(path):
            but = ", and --overwrite replaces nothing else" if overwrite else ""
            raise InputError(
                f"--out_dir={path} is not a run directory{but}: choose another directory"
            )
        self._require_kinds()
        if not overwrite:
            self._read()
        if not self.finished:
            self._take()
            if not overwrite:
                self._read()  # again: its owner so far may have been finishing
        if self.finished:
            self._warn_of_removed()
        return None

    def _require_kinds(self) -> None:
        """Refuse a folder that has the name of a file, and the reverse."""
        for name in (CONFIG, *_FILES):
            if (self.path / name).is_dir():
                raise InputError(f"{self.path / name} is a folder, not a file: move it away")
        for name in _FOLDERS:
            if (self.path / name).exists() and not (self.path / name).is_dir():
                raise InputError(f"{self.path / name} is a file, not a folder: move it away")

    def _read(self) -> None:
        self.lost = {}
        self.config = self._read_json(CONFIG)
        self.results = self._read_json(RESULTS)
        if self._ended and not self.has_weights:
            there = (self.path / _WEIGHTS).exists()
            self.lost[_WEIGHTS] = "is damaged" if there else "is missing"
        if CONFIG in self.lost and not self.has_checkpoint:
            raise InputError(f"{self.path / CONFIG} is damaged: put a good copy there, or {ANEW}")

    def _read_json(self, name: str) -> dict[str, Any] | None:
        """A sealed file; where it is damaged, or a checkpoint says that it should be there, that is
        noted in ``lost``.
        """
        try:
            content = read_sealed(self.path / name)
        except ValueError:
            self.lost[name] = "is damaged"
            return None
        if content is None and self.has_checkpoint:
            self.lost[name] = "is missing"
        return content

    def _warn_of_removed(self) -> None:
        """Name what somebody has removed from a finished run, and nothing can write anew."""
        left, options = [*_GROWING, *_FOLDERS], (self.config or {}).get("options", {})
        if not options.get("keep_weights"):
            left.remove(_WEIGHTS_BY_TASK)
        if "code" not in (self.config or {}):
            left.remove(_CODE)
        names = [name for name in left if not (self.path / name).exists()]
        if names:
            warnings.warn(f"of {self.path} somebody has removed {', '.join(names)}", stacklevel=5)

    def _take(self) -> None:
        try:
            self._lock = Lock(self.path / LOCK)
            if self._folder is None:
                self._folder = os.open(self.path, os.O_RDONLY)
        except Held as held:
            raise InUse(
                f"--out_dir={self.path} is in use by {held.owner}: wait for it to end, or choose "
                "another directory"
            ) from None

    def require_config(self) -> None:
        """Refuse to go on, or to start anew, where config.json of a run and all checkpoints are
        gone.

        Raises:
            InputError: That is so.
        """
        if self._path is None or self.config is not None or self.has_checkpoint:
            return
        if self.results is not None or RESULTS in self.lost:
            raise InputError(f"{self.path / CONFIG} is missing: put it there, or {ANEW}")

    def restore(self, config: Mapping[str, Any]) -> None:
        """Take config.json's content from a checkpoint; :meth:`open` writes it."""
        self.config = seal(config)

    def begin(self, config: Mapping[str, Any]) -> None:
        """Make the directory, or remove the run that is to be overwritten, and write config.json.

        Raises:
            InputError: The directory cannot be made; InUse: another process has made it meanwhile.
        """
        try:
            if self._path is None:
                self._path = _make_default_dir()
            self.path.mkdir(parents=True, exist_ok=True)
            if self._lock is None:
                self._take()
                if is_run_dir(self.path):
                    raise InUse(
                        f"--out_dir={self.path} was made by another process meanwhile: run the "
                        "same command again to see or continue its run"
                    )
            for file in (*self._parts(), *(self.path / name for name in _FILES)):
                file.unlink(missing_ok=True)
            for name in _FOLDERS:
                if (self.path / name).is_dir():
                    shutil.rmtree(self.path / name)
        except OSError as error:
            raise InputError(
                f"--out_dir={self._path or 'out/run_…'} cannot be made "
                f"({error.strerror or error}): choose another directory"
            ) from error
        self.config, self.lost = seal(config), {}
        # Last and replaced, not removed: whenever this ends, the directory remains a run's.
        self.write_json(CONFIG, config)

    def open(self, grown: Mapping[str, Grown] | None = None) -> None:
        """Open the files that grow, and write config.json where that was lost.

        Warns of all that was lost and is written anew from now on.

        Args:
            grown: From :meth:`grown` at a checkpoint: what was written since is cut off, as the run
                that goes on from there writes it again. None empties all.
        """
        grown = grown or {}
        for name, what in self.lost.items():
            warnings.warn(
                f"{self.path / name} {what}: it is written anew from the checkpoint", stacklevel=3
            )
        if CONFIG in self.lost and self.config is not None:
            self.write_json(CONFIG, self.config)
        try:
            (self.path / "plots").mkdir(exist_ok=True)
            for part in self._parts():
                part.unlink(missing_ok=True)
            for name in (*_GROWING, curves.NAME):
                self._growing[name] = GrowingFile(self.path / name, grown.get(name))
        except OSError as error:
            raise self._failure("", error) from error

    def grown(self) -> dict[str, Grown]:
        """What is in each file that grows; so much of them is on the disk.

        What was removed meanwhile is made anew, with a warning.
        """
        self._require_own()
        try:
            return {name: file.grown() for name, file in self._growing.items()}
        except OSError as error:
            raise self._failure("", error) from error

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Replace ``name`` by ``content``, sealed."""
        self.write_bytes(name, (json.dumps(seal(content), indent=2) + "\n").encode())

    def write_bytes(self, name: str, data: bytes) -> None:
        """Replace ``name`` by ``data``."""
        self._replace(name, lambda part: part.write_bytes(data))

    def write_overview(self, text: str) -> None:
        """Replace performance_overview.txt."""
        self.write_bytes(_OVERVIEW, text.encode())

    def write_weights_by_task(self, name: str, data: bytes) -> None:
        """Write weights/<name>."""

        def write(part: Path) -> None:
            part.parent.mkdir(exist_ok=True)
            part.write_bytes(data)

        self._replace(f"{_WEIGHTS_BY_TASK}/{name}", write)

    def write_checkpoint(self, data: bytes) -> None:
        """Replace checkpoint.pt, and keep the one before."""
        self._replace(_CHECKPOINT, lambda part: part.write_bytes(data), keep=_CHECKPOINT_BEFORE)

    def write_plot(self, name: str, files: Mapping[str, bytes]) -> None:
        """Write plots/<name>.png, .pdf or both.

        An older one in a format that is not given goes, as it would show something else.

        Args:
            files: The content, by format.
        """
        for kind in ("png", "pdf"):
            if kind in files:
                self.write_bytes(f"plots/{name}.{kind}", files[kind])
            else:
                with suppress(OSError):
                    (self.path / "plots" / f"{name}.{kind}").unlink(missing_ok=True)

    def write_metrics(self, row: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        self._append("metrics.jsonl", json.dumps(row))

    def metrics_so_far(self) -> tuple[Path, int]:
        """Where metrics.jsonl is, those lines that were written before a break too, and its length
        in bytes.
        """
        name = _GROWING[0]
        return (self.path / name).absolute(), self._growing[name].length

    def write_log(self, text: str) -> None:
        """Append text to logfile.txt."""
        self._append("logfile.txt", text)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add a point to each of TensorBoard's curves, by tag."""
        with self._writing(curves.NAME):
            curves.Curves(self._growing[curves.NAME]).add(step, scalars)

    def write_settings(
        self, settings: Mapping[str, Any], known: Mapping[str, Any], metrics: Mapping[str, float]
    ) -> None:
        """Add what TensorBoard compares runs by; see :meth:`Curves.add_settings`."""
        with self._writing(curves.NAME):
            curves.Curves(self._growing[curves.NAME]).add_settings(settings, known, metrics)

    def close(self) -> None:
        """Close what is open and give the lock back; nothing can be written after it."""
        try:
            for file in self._growing.values():
                with suppress(OSError):  # what could not be written has been reported when it was
                    file.close()
        finally:  # also where a signal comes in between
            if self._lock is not None:
                self._lock.release()
                self._lock = None
            if self._folder is not None:
                os.close(self._folder)
                self._folder = None

    def _parts(self) -> list[Path]:
        """Where a run that was killed may have left half a file."""
        names = [self.path / f".{name}.part" for name in (CONFIG, *_FILES)]
        in_folders = ("plots/.*.part", f"{_WEIGHTS_BY_TASK}/.*.pt.part", f"{_CODE}/.*.part")
        return names + [part for pattern in in_folders for part in self.path.glob(pattern)]

    def _append(self, name: str, line: str) -> None:
        with self._writing(name):
            self._growing[name].append((line + "\n").encode("utf-8", "replace"))

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        """A context in which what cannot be written fails the run."""
        try:
            yield
        except OSError as error:
            raise self._failure(name, error) from error

    def _replace(self, name: str, write, *, keep: str | None = None) -> None:
        """Let ``write`` fill what then takes the place of a file.

        Args:
            keep: The name under which what it replaces stays.
        """
        self._require_own()
        path = self.path / name
        try:
            if path.parent != self.path:  # somebody may have removed the plots
                path.parent.mkdir(exist_ok=True)
            with replacing(path, keep=keep) as part:
                write(part)
        except OSError as error:
            raise self._failure(name, error) from error

    def _require_own(self) -> None:
        """Write nothing to a directory that was removed, or is another's by now.

        Where only the lock's file was removed, it is made anew, if no other process has done so.
        """
        if (gone := self._gone()) is not None:
            raise RunFailed(gone)

    def _gone(self) -> str | None:
        """Why nothing may be written to the directory."""
        if self._lock is None or self._folder is None or self._lock.in_place:
            return None
        removed = f"{self.path} was removed while the run was writing to it"
        try:
            if not os.path.samestat(os.fstat(self._folder), self.path.stat()):
                return removed
            lock = Lock(self.path / LOCK)
        except Held as held:
            return f"{self.path} is in use by {held.owner}, as its {LOCK} was removed"
        except OSError:
            return removed
        self._lock.release()
        self._lock = lock
        return None

    def _failure(self, name: str, error: OSError) -> RunFailed:
        if (gone := self._gone()) is not None:
            return RunFailed(gone)
        path = error.filename if not name and error.filename else self.path / name
        return RunFailed(f"{path} cannot be written ({error.strerror or error})")

    def _refusal(self, error: OSError) -> InputError:
        """What is said of a directory that cannot be looked at, or of a file in it."""
        reason, path = error.strerror or error, self._path
        if path is not None and error.filename is not None:
            file = Path(os.fsdecode(error.filename))
            if file != path and file.is_relative_to(path) and file.name != LOCK:
                return InputError(f"{file} cannot be read ({reason}): make it readable")
        return InputError(f"--out_dir={path} cannot be used ({reason}): choose another directory")


def _is_empty(path: Path) -> bool:
    """Whether there is nothing in a directory, or what a run leaves that ended as it began."""
    return {p.name for p in path.iterdir()} <= {LOCK, f".{CONFIG}.part"}


def _check_can_be_made(path: Path) -> None:
    ancestor = path
    while not os.path.lexists(ancestor) and ancestor != ancestor.parent:
        ancestor = ancestor.parent
    if not ancestor.exists():
        raise InputError(
            f"--out_dir={path} lies below {ancestor}, which is a link to nothing: choose another"
        )
    if not ancestor.is_dir():
        raise InputError(f"--out_dir={path} lies below {ancestor}, which is a file: choose another")
    if not os.access(ancestor, os.W_OK | os.X_OK):
        raise InputError(
            f"--out_dir={path} cannot be made, {ancestor} is not writable: choose another directory"
        )


def _make_default_dir(root: Path = Path("out")) -> Path:
    """Make ``out/run_<timestamp>``, with a number behind it where another run has that name."""
    name = time.strftime("run_%Y-%m-%d_%H-%M-%S")
    number = 1
    while True:
        path = root / (name if number == 1 else f"{name}_{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not path.is_dir():
                raise
            number += 1
        else:
            return path
