"""The journal of a sweep: Optuna's file, of which a write leaves a whole line or none."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from hypercl.errors import InputError


def open_journal(path: Path, *, to_read: bool = False) -> JournalStorage:
    """The storage in a file, made where it is missing; a torn last line is cut off.

    Args:
        to_read: Alone; the file must be there, and another process may be writing.

    Raises:
        InputError: It is damaged, or is not there to be read.
        OSError: It cannot be opened.
    """
    if not to_read:
        _cut_torn_line(path)
    elif not path.exists():
        raise InputError(f"{path} does not exist: give the directory of a sweep")
    try:
        return JournalStorage((_ToRead if to_read else _Whole)(str(path), _NoLock(str(path))))
    except (ValueError, KeyError, TypeError, AssertionError):
        raise InputError(f"{path} is damaged: put a good copy there") from None


class _Whole(JournalFileBackend):
    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write lines; where the disk is full, cut off what has been written of them."""
        path = self._file_path
        size = os.path.getsize(path)
        try:
            super().append_logs(logs)
        except OSError:
            with suppress(OSError):
                os.truncate(path, size)
            raise


class _ToRead(JournalFileBackend):
    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        raise RuntimeError("this journal was opened to be read")


class _NoLock(JournalFileOpenLock):
    """The sweep has a lock, which dies with its owner as Optuna's does not."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _cut_torn_line(path: Path) -> None:
    """Cut off what a kill or a full disk has left behind the last whole line."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    end = data.rfind(b"\n") + 1
    last = data[data.rfind(b"\n", 0, max(0, end - 1)) + 1 : end]
    try:
        json.loads(last or b"{}")
    except ValueError:
        end -= len(last)
    if end < len(data):
        os.truncate(path, end)
