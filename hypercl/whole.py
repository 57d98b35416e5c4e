"""Files that are whole or not there at all, whenever a process or the machine ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hypercl.errors import RunFailed


@contextmanager
def replacing(path: Path, *, keep: str | None = None) -> Iterator[Path]:
    """A context in which a temporary file is written, which then takes the place of ``path``.

    It is flushed to the disk before it is renamed. On any error what was there stays, and the
    temporary file is removed.

    Args:
        keep: The name under which what is replaced stays.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            path.replace(path.with_name(keep))
        part.replace(path)
        _flush_folder(path.parent)
    except Exception:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def replace_file(path: Path, content: bytes) -> None:
    """Write a file at once.

    Raises:
        RunFailed: It cannot be written; what was there stays.
    """
    try:
        with replacing(path) as part:
            part.write_bytes(content)
    except OSError as error:
        raise RunFailed(f"{path} cannot be written ({error.strerror or error})") from None


def _flush_folder(path: Path) -> None:
    """Have the disk know the names in a folder, so that a rename survives a loss of power."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
