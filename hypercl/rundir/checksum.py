"""The checksum of a file of tensors: the comment of the zip archive that ``torch.save`` writes.

Imports no torch, so that the weights of a finished run are checked at once.
"""

import hashlib
from pathlib import Path

_MARK = b"sha256:"
_CHUNK = 1 << 20  # bytes read at a time
LENGTH = len(_MARK) + 64  # of the comment


def comment(archive: bytes) -> bytes:
    """What stands behind an archive: the SHA-256 of all its bytes."""
    return _MARK + hashlib.sha256(archive).hexdigest().encode()


def has_comment(path: Path) -> bool:
    """Whether a file ends as one of ours does; OSError where it cannot be read."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LENGTH))
        return file.read(len(_MARK)) == _MARK


def is_whole(path: Path) -> bool:
    """Whether every byte of a file is as it was written; OSError where it cannot be read."""
    left = path.stat().st_size - LENGTH
    if left < 0:
        return False
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        while left > 0 and (data := file.read(min(left, _CHUNK))):
            checksum.update(data)
            left -= len(data)
        return file.read() == _MARK + checksum.hexdigest().encode()
