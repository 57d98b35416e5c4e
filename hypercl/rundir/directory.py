"""The run directory: what a run writes, each file whole or not at all, and reads when it goes on.

config.json, results.json, metrics.jsonl, logfile.txt, weights.pt, weights/, checkpoint.pt, summary/
(TensorBoard), plots/; docs/runs.rst says what is in each. Imports no torch, so that a finished
run's results are shown at once.
"""

import hashlib
import json
import os
import shlex
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from hypercl.errors import InputError, RunFailed
from hypercl.lock import Held, Lock, is_held
from hypercl.ranges import as_argument

if TYPE_CHECKING:
    from torch.utils.tensorboard import FileWriter

# Everything a run may write; --overwrite removes these and nothing else.
_CONFIG, _RESULTS, _LOCK = "config.json", "results.json", "run.lock"
_CHECKPOINT, _CHECKPOINT_BEFORE = "checkpoint.pt", "checkpoint.before.pt"
_GROWING = ("metrics.jsonl", "logfile.txt")
_WEIGHTS, _WEIGHTS_BY_TASK = "weights.pt", "weights"
_FILES = (_RESULTS, *_GROWING, _WEIGHTS, _CHECKPOINT, _CHECKPOINT_BEFORE)
_FOLDERS = ("summary", "plots", _WEIGHTS_BY_TASK)
_MARKS = {_CONFIG: ("options", "versions"), _RESULTS: ("status", "config", "seeds")}
_FIGURE_METADATA: Mapping[str, dict[str, None]] = {"png": {}, "pdf": {"CreationDate": None}}
_EVENTS = "summary/events.out.tfevents.*"


class RunDir:
    """A directory that holds one run; a context that gives it free again.

    Looks at the directory and changes nothing in it but for the lock; :meth:`begin` makes it, and
    :meth:`open` is to be called before anything that grows is written.

    Args:
        path: None stands for ``./out/run_<timestamp>``, chosen by :meth:`begin`.
        overwrite: Take the directory as if it were empty.

    Attributes:
        config: Of the run that is there; None where there is none.
        results: The same; None also where they are damaged or not yet written.

    Raises:
        InputError: The directory cannot be used, or another process uses it.
        RunFailed: Later, when something cannot be written (no space, directory gone).
    """

    def __init__(self, path: Path | None, *, overwrite: bool = False) -> None:
        self._path = path
        self.config: dict[str, Any] | None = None
        self.results: dict[str, Any] | None = None
        self._lock: Lock | None = None
        self._metrics: TextIO | None = None
        self._log: TextIO | None = None
        self._summary: FileWriter | None = None
        self._without_summary = False
        try:
            self._look(overwrite)
        except OSError as error:  # a name that is too long, a folder that may not be read
            raise InputError(
                f"--out_dir={path} cannot be used ({error.strerror or error}): choose another "
                "directory"
            ) from error

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
        """Whether a run has been here to its end, and all that it leaves is there."""
        ended = self.results is not None and self.results["status"] == "finished"
        return ended and self.has_weights

    @property
    def has_weights(self) -> bool:
        """Whether weights.pt is there."""
        return (self.path / _WEIGHTS).exists()

    @property
    def checkpoints(self) -> list[Path]:
        """Where checkpoints may be, the newest first."""
        return [self.path / _CHECKPOINT, self.path / _CHECKPOINT_BEFORE]

    def _look(self, overwrite: bool) -> None:
        path = self._path or Path("out", "run")
        if not path.exists() and not path.is_symlink():
            return _check_can_be_made(path)
        if self._path is None:
            return None
        if not path.is_dir():
            raise InputError(f"--out_dir={path} is a file: choose another directory")
        if not _is_run_dir(path) and not _is_empty(path):
            but = ", and --overwrite replaces nothing else" if overwrite else ""
            raise InputError(
                f"--out_dir={path} is not a run directory{but}: choose another directory"
            )
        if not overwrite:
            self._read()
        if not self.finished:
            self._take()
            if not overwrite:
                self._read()  # again: its owner so far may have been finishing
        return None

    def _read(self) -> None:
        try:
            self.config = _read_sealed(self.path / _CONFIG)
        except ValueError:
            raise InputError(
                f"{self.path / _CONFIG} is damaged: put a good copy there, or start anew with "
                "--overwrite"
            ) from None
        try:
            self.results = _read_sealed(self.path / _RESULTS)
        except ValueError:
            warnings.warn(
                f"{self.path / _RESULTS} is damaged; it is written anew from the checkpoint",
                stacklevel=5,
            )

    def _take(self) -> None:
        try:
            self._lock = Lock(self.path / _LOCK)
        except Held as held:
            raise InputError(
                f"--out_dir={self.path} is in use by {held.owner}: wait for it to end, or choose "
                "another directory"
            ) from None

    def require_config(self) -> None:
        """Refuse to go on, or to start anew, where only config.json of a run is gone.

        Raises:
            InputError: That is so.
        """
        if self._path is None or self.config is not None:
            return
        if self.results is not None or any(path.exists() for path in self.checkpoints):
            raise InputError(
                f"{self.path / _CONFIG} is missing: put it there, or start anew with --overwrite"
            )

    def begin(self, config: Mapping[str, Any]) -> None:
        """Make the directory, or remove the run that is to be overwritten, and write config.json.

        Raises:
            InputError: The directory cannot be made, or was made by another process meanwhile.
        """
        try:
            if self._path is None:
                self._path = _make_default_dir()
            self.path.mkdir(parents=True, exist_ok=True)
            if self._lock is None:
                self._take()
                if _is_run_dir(self.path):
                    raise InputError(
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
        # Last and replaced, not removed: whenever this ends, the directory remains a run's.
        self.write_json(_CONFIG, config)

    def open(self, lengths: Mapping[str, int] | None = None) -> None:
        """Open the files that grow.

        Args:
            lengths: From :meth:`lengths` at a checkpoint: what was written since is cut off, as
                the run that goes on from there writes it again. None empties all.
        """
        lengths = lengths or {}
        try:
            (self.path / "plots").mkdir(exist_ok=True)
            for part in self._parts():
                part.unlink(missing_ok=True)
            for file in self.path.glob(_EVENTS):
                name = str(file.relative_to(self.path))
                _cut(file, lengths.get(name, 0))
                if name not in lengths:
                    file.unlink()
            for name in _GROWING:
                _cut(self.path / name, lengths.get(name, 0))
            # A line at a time, so that a crash of the program loses none.
            self._metrics, self._log = (
                (self.path / name).open("a", buffering=1, encoding="utf-8", errors="replace")
                for name in _GROWING
            )
        except OSError as error:
            raise self._failure("", error) from error

    def lengths(self) -> dict[str, int]:
        """Bytes in each file that grows; so much of them is on the disk."""
        try:
            if self._summary is not None:
                self._summary.flush()
            files = [self.path / name for name in _GROWING]
            files += sorted(self.path.glob(_EVENTS))
            lengths = {}
            for path in files:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                    lengths[str(path.relative_to(self.path))] = os.fstat(file.fileno()).st_size
        except OSError as error:
            raise self._failure("", error) from error
        return lengths

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Replace ``name`` by ``content``, sealed."""
        self.write_bytes(name, (json.dumps(seal(content), indent=2) + "\n").encode())

    def write_bytes(self, name: str, data: bytes) -> None:
        """Replace ``name`` by ``data``."""
        self._replace(name, lambda part: part.write_bytes(data))

    def write_weights_by_task(self, name: str, data: bytes) -> None:
        """Write weights/<name>."""

        def write(part: Path) -> None:
            part.parent.mkdir(exist_ok=True)
            part.write_bytes(data)

        self._replace(f"{_WEIGHTS_BY_TASK}/{name}", write)

    def write_checkpoint(self, data: bytes) -> None:
        """Replace checkpoint.pt, and keep the one before."""
        self._replace(_CHECKPOINT, lambda part: part.write_bytes(data), keep=_CHECKPOINT_BEFORE)

    def write_figure(self, name: str, figure, formats: Sequence[str] = ("png",)) -> None:
        """Write a matplotlib figure as plots/<name>.png, .pdf or both.

        An older one in a format that is not asked for goes, as it would show something else.
        """
        for kind, metadata in _FIGURE_METADATA.items():
            file = f"plots/{name}.{kind}"
            if kind in formats:
                options = {"format": kind, "dpi": 150, "metadata": metadata}
                self._replace(file, lambda part, options=options: figure.savefig(part, **options))
            else:
                with suppress(OSError):
                    (self.path / file).unlink(missing_ok=True)

    def write_metrics(self, row: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        self._append(self._metrics, json.dumps(row))

    def read_metrics(self) -> Iterator[dict[str, Any]]:
        """The lines of metrics.jsonl, those written before a break too."""
        with (self.path / _GROWING[0]).open(encoding="utf-8") as file:
            yield from map(json.loads, file)

    def write_log(self, text: str) -> None:
        """Append text to logfile.txt."""
        self._append(self._log, text)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add numbers to the TensorBoard summary, in one event."""
        if scalars:
            self._write_events(lambda: [_scalar_event(scalars)], step)

    def write_settings(
        self, settings: Mapping[str, Any], known: Mapping[str, Any], metrics: Mapping[str, float]
    ) -> None:
        """Add what TensorBoard's HParams tab shows of a finished run.

        Written beside the curves, and not by SummaryWriter.add_hparams, which makes a folder and a
        file of its own with a time in its name.

        Args:
            settings: Of this run, as JSON has them; ``known``: those of any run, for the columns.
            metrics: Tags and values of numbers that have been added as scalars.
        """

        def events() -> list:
            from torch.utils.tensorboard.summary import hparams

            of_any, _, _ = hparams(_plain(known), dict(metrics))
            _, start, end = hparams(_plain(settings), dict(metrics))
            return [of_any, start, end]

        self._write_events(events, None)
        if self._summary is not None:
            self._summary.flush()

    def _write_events(self, events: Callable[[], list], step: int | None) -> None:
        """Add events to the process' one file; ``events`` makes them when torch is imported."""
        if self._without_summary:
            return
        try:
            if self._summary is None:
                from torch.utils.tensorboard import FileWriter  # slow to import

                self._summary = FileWriter(str(self.path / "summary"))
            for event in events():
                self._summary.add_summary(event, step)
        except OSError as error:
            raise self._failure("summary", error) from error
        except UnicodeEncodeError:
            self._without_summary = True
            warnings.warn(
                "there will be no TensorBoard curves, which need a path in UTF-8", stacklevel=3
            )

    def close(self) -> None:
        """Close what is open and give the lock back; nothing can be written after it."""
        try:
            for file in (self._metrics, self._log, self._summary):
                with suppress(OSError):  # what could not be written has been reported when it was
                    if file is not None:
                        file.close()
        finally:  # also where a signal comes in between
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def _parts(self) -> list[Path]:
        """Where a run that was killed may have left half a file."""
        names = [self.path / f".{name}.part" for name in (_CONFIG, *_FILES)]
        in_folders = ("plots/.*.part", f"{_WEIGHTS_BY_TASK}/.*.pt.part")
        return names + [part for pattern in in_folders for part in self.path.glob(pattern)]

    def _append(self, file, text: str) -> None:
        try:
            file.write(text + "\n")
        except OSError as error:
            raise self._failure(Path(file.name).name, error) from error

    def _replace(self, name: str, write, *, keep: str | None = None) -> None:
        """Let ``write`` fill a temporary file, flush it to the disk, and rename it.

        Args:
            keep: The name under which what it replaces stays.
        """
        if self._is_gone():
            raise self._failure(name, FileNotFoundError())
        path = self.path / name
        part = path.with_name(f".{path.name}.part")
        try:
            write(part)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            if keep is not None and path.exists():
                path.replace(path.with_name(keep))
            part.replace(path)
            _flush_folder(path.parent)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise self._failure(name, error) from error

    def _is_gone(self) -> bool:
        """Whether the directory was removed, or is another's by now."""
        return self._lock is not None and not self._lock.in_place

    def _failure(self, name: str, error: OSError) -> RunFailed:
        if self._is_gone():
            return RunFailed(f"{self.path} was removed while the run was writing to it")
        return RunFailed(f"{self.path / name} cannot be written ({error.strerror or error})")


def newest_unfinished(root: Path) -> Path | None:
    """The run below ``root`` that began last, can go on, and is in no process's hands.

    One that is finished cannot, nor can one in which all seeds have failed.
    """
    runs = []
    for folder in root.iterdir() if root.is_dir() else []:
        if not _is_run_dir(folder) or is_held(folder / _LOCK):
            continue
        with suppress(ValueError, OSError):
            results = _read_sealed(folder / _RESULTS)
            seeds = [] if results is None else results["seeds"]
            ended = bool(seeds) and all("failed" in seed for seed in seeds)
            if results is None or not (ended or results["status"] == "finished"):
                runs.append(((folder / _CONFIG).stat().st_mtime_ns, folder))
    return max(runs)[1] if runs else None


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a run directory.

    Raises:
        InputError: There is none, or it is damaged.
    """
    try:
        config = _read_sealed(path / _CONFIG)
    except (ValueError, OSError):
        raise InputError(
            f"{path / _CONFIG} is damaged or cannot be read: put a good copy there"
        ) from None
    if config is None:
        raise InputError(f"{path} is not a run directory: it has no {_CONFIG}")
    return config


def read_finished(path: Path) -> dict[str, Any]:
    """results.json of a finished run.

    Raises:
        InputError: There is none, it is damaged, or the run is not finished.
    """
    resume = f"python run.py --resume --out_dir={shlex.quote(str(path))}"
    if not path.exists():
        raise InputError(f"{path} does not exist: give the directory of a finished run")
    try:
        results = _read_sealed(path / _RESULTS)
    except ValueError:
        raise InputError(f"{path / _RESULTS} is damaged: {resume} writes it anew") from None
    except OSError as error:
        raise InputError(
            f"{path / _RESULTS} cannot be read ({error.strerror or error}): mend that"
        ) from None
    if results is None and not _is_run_dir(path):
        raise InputError(f"{path} is not a run directory: give that of a finished run")
    if results is None or results["status"] != "finished":
        raise InputError(f"{path} is not a finished run: {resume} continues one")
    return results


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """``content`` with a SHA-256 of all of it but ``seconds``."""
    counted = {k: v for k, v in content.items() if k not in ("seconds", "sha256")}
    text = json.dumps(counted, sort_keys=True)
    return {**content, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def _read_sealed(path: Path) -> dict[str, Any] | None:
    """A JSON file's content, or None; ValueError where it is damaged or another file's."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except RecursionError:
        raise ValueError from None
    if not _has_marks(content, path.name) or seal(content) != content:
        raise ValueError
    return content


def _is_run_dir(path: Path) -> bool:
    """Whether a run made this directory: config.json or results.json has a run's marks."""
    for name in _MARKS:
        with suppress(OSError, ValueError, RecursionError):
            if _has_marks(json.loads((path / name).read_bytes()), name):
                return True
    return False


def _has_marks(content: Any, name: str) -> bool:
    return isinstance(content, dict) and all(mark in content for mark in _MARKS[name])


def _is_empty(path: Path) -> bool:
    """Whether there is nothing in a directory, or what a run leaves that ended as it began."""
    return {p.name for p in path.iterdir()} <= {_LOCK, f".{_CONFIG}.part"}


def _check_can_be_made(path: Path) -> None:
    ancestor = path
    while not ancestor.exists() and ancestor != ancestor.parent:
        ancestor = ancestor.parent
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


def _scalar_event(scalars: Mapping[str, float]) -> Any:
    """A summary of many numbers: one a number costs twenty times as long."""
    from torch.utils.tensorboard.summary import Summary

    return Summary(value=[Summary.Value(tag=t, simple_value=v) for t, v in scalars.items()])


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers, and text for anything else."""
    return {
        name: value if type(value) in (int, float) else as_argument(value)
        for name, value in settings.items()
        if value is not None
    }


def _cut(path: Path, length: int) -> None:
    if not path.exists():
        if length:
            warnings.warn(f"{path} is gone; it goes on without its beginning", stacklevel=4)
        return
    if path.stat().st_size < length:
        warnings.warn(f"{path} has become shorter; some of it is lost", stacklevel=4)
        return
    os.truncate(path, length)


def _flush_folder(path: Path) -> None:
    """Have the disk know the names in a folder, so that a rename survives a loss of power."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
