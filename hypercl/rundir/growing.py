"""Files to which a run appends: cut back when it goes on, and checked for changes."""

import hashlib
import os
import warnings
from pathlib import Path
from typing import NamedTuple

_CHUNK = 1 << 20  # bytes read at a time


class Grown(NamedTuple):
    """What a file held at a checkpoint."""

    length: int  # bytes
    sha256: str | None = None  # of them; None where it is not known


class GrowingFile:
    """A file, made with its folder where it is missing, and the checksum of all that it holds.

    Only what is appended is summed up, so that a checkpoint costs no more with a large file; the
    whole is read once, where a run goes on, or where another program has changed it.

    Args:
        grown: At the checkpoint from which the run goes on: what was written since is cut off, as
            it is written again. Warns where the file has been changed, which costs no run.

    Attributes:
        length: Bytes in it.

    Raises:
        OSError: From any method: the file cannot be read or written.
    """

    def __init__(self, path: Path, grown: Grown | None) -> None:
        self.path = path
        untouched = _cut(path, 0 if grown is None else grown.length)
        self._open()
        if untouched and grown is not None and grown.sha256 not in (None, self._sum.hexdigest()):
            warnings.warn(
                f"{path} was changed since the checkpoint; the run goes on behind what is there",
                stacklevel=4,
            )

    def append(self, data: bytes) -> None:
        """Write; it is the system's at once, so that a crash of the program loses nothing."""
        self._file.write(data)
        self._file.flush()
        self._sum.update(data)
        self.length += len(data)

    def grown(self) -> Grown:
        """What it holds; so much is on the disk.

        Where the file was removed, it is made anew; the warning says so.
        """
        if not self._in_place():
            self._file.close()
            self._open()
            warnings.warn(
                f"{self.path} was removed or replaced while the run was writing to it; it goes on "
                "without its beginning",
                stacklevel=4,
            )
        elif os.fstat(self._file.fileno()).st_size != self.length:
            self._file.close()
            self._open()
            warnings.warn(
                f"{self.path} was changed while the run was writing to it; the run goes on behind "
                "what is there",
                stacklevel=4,
            )
        os.fsync(self._file.fileno())
        return Grown(self.length, self._sum.hexdigest())

    def close(self) -> None:
        """Nothing can be written after it."""
        self._file.close()

    def _open(self) -> None:
        """Open it behind what is there, and sum that up."""
        self.path.parent.mkdir(exist_ok=True)
        self._file = self.path.open("ab")
        self._sum, self.length = hashlib.sha256(), 0
        with self.path.open("rb") as file:
            while data := file.read(_CHUNK):
                self._sum.update(data)
                self.length += len(data)

    def _in_place(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False


def _cut(path: Path, length: int) -> bool:
    """Cut a file back to a length; False, and a warning, where it has become shorter."""
    if not path.exists():
        if length:
            warnings.warn(f"{path} is gone; it goes on without its beginning", stacklevel=5)
        return length == 0
    if path.stat().st_size < length:
        warnings.warn(f"{path} has become shorter; some of it is lost", stacklevel=5)
        return False
    os.truncate(path, length)
    return True
