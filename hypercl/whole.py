"""A file that is whole or not there at all."""

import os
from contextlib import suppress
from pathlib import Path

from hypercl.errors import RunFailed


def replace_file(path: Path, content: bytes) -> None:
    """Fill a temporary file, flush it to the disk, and rename it.

    Raises:
        RunFailed: It cannot be written; what was there stays.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise RunFailed(f"{path} cannot be written ({error.strerror or error})") from None
