"""Locks between processes that die with their owner: flock on a small file that names it."""

import fcntl
import os
import socket
import time
import warnings
from contextlib import suppress
from pathlib import Path

_BUSY = (BlockingIOError, PermissionError)
_TRIES, _MOMENT = 4, 0.05  # seconds


class Held(Exception):  # noqa: N818 - it is a state, not always an error
    """Another process has the lock; ``owner`` says which, in words."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.owner = owner


class Lock:
    """Exclusive use of what ``path`` stands for, until :meth:`release` or the process's end.

    Args:
        path: The lock's file, made where it is missing; its folder must exist.
        wait: Wait for another owner rather than raise.

    Raises:
        Held: Another process, or another part of this one, has it.
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path, *, wait: bool = False) -> None:
        self.path = path
        while True:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                self._lock(wait)
            except BaseException:
                os.close(self._file)
                raise
            if self.in_place:
                break
            os.close(self._file)  # its last owner has removed it meanwhile
        with suppress(OSError):  # a full disk; the lock holds without a name in it
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    @property
    def in_place(self) -> bool:
        """Whether the file is still where it was made; a removed folder takes it away."""
        try:
            return os.path.samestat(os.fstat(self._file), os.stat(self.path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give the lock back and remove its file."""
        with suppress(OSError):
            if self.in_place:
                self.path.unlink()
        os.close(self._file)

    def _lock(self, wait: bool) -> None:
        try:
            for left in reversed(range(_TRIES)):  # it may be is_held, for a moment
                try:
                    fcntl.flock(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                    break
                except _BUSY:
                    if not left:
                        raise
                    time.sleep(_MOMENT)
        except _BUSY:
            owner = os.pread(self._file, 300, 0).decode(errors="replace").strip()
            raise Held(owner or "another process") from None
        except OSError as error:
            warnings.warn(
                f"{self.path} cannot be locked ({error.strerror}): see to it that no other process "
                "uses the same directory",
                stacklevel=4,
            )


def is_held(path: Path) -> bool:
    """Whether a process has the lock at ``path``; changes nothing."""
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except _BUSY:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False
