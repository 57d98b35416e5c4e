"""Files of tensors that tell when they are damaged.

Such a file is what ``torch.save`` writes, a zip archive, with the SHA-256 of all its bytes as the
archive's comment (checksum.py): ``torch.load(path, weights_only=True)`` reads it as any other, and
:func:`decode` reads it only if not one byte has changed.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hypercl.errors import InputError
from hypercl.rundir import checksum
from hypercl.rundir.stored import ANEW
from hypercl.shell import is_out_of_memory

_LENGTH = 2  # bytes at the end of an archive without comment that hold the comment's length


class Damaged(Exception):  # noqa: N818 - it is what the messages call it
    """The bytes are not those that were written."""


def encode(content: Mapping[str, Any]) -> bytes:
    """The bytes of a file of tensors, numbers, strings, and lists and dicts of them.

    They follow from the content alone.
    """
    buffer = io.BytesIO()
    torch.save(_with_equal_strings_once(dict(content), {}), buffer)
    archive = buffer.getvalue()[:-_LENGTH] + checksum.LENGTH.to_bytes(_LENGTH, "little")
    return archive + checksum.comment(archive)


def _with_equal_strings_once(value: Any, known: dict[str, str]) -> Any:
    """A copy in which equal strings are one object: pickle writes an object out once, and a run
    that goes on has read some of its strings, others not.
    """
    if isinstance(value, str):
        return known.setdefault(value, value)
    if isinstance(value, Mapping):
        items = value.items()
        return {
            _with_equal_strings_once(k, known): _with_equal_strings_once(v, known) for k, v in items
        }
    if isinstance(value, list):
        return [_with_equal_strings_once(item, known) for item in value]
    return value


def decode(data: bytes) -> dict[str, Any]:
    """What :func:`encode` was given, on the CPU; nothing in ``data`` is executed.

    Raises:
        Damaged: A byte has changed, or the data are of another kind altogether.
    """
    if data[-checksum.LENGTH :] != checksum.comment(data[: -checksum.LENGTH]):
        raise Damaged
    try:
        content = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:  # no archive, or one that asks for more than tensors
        if is_out_of_memory(error):
            raise
        raise Damaged from None
    if not isinstance(content, dict):
        raise Damaged
    return content


def load_newest(paths: Sequence[Path]) -> dict[str, Any] | None:
    """The first of several files, newest first, that is whole.

    A damaged one in front of it is removed, with a warning: it must not take a good one's place.

    Returns:
        None where there is no file.

    Raises:
        InputError: There are files, and all are damaged; or one cannot be read.
    """
    damaged = []
    for path in paths:
        try:
            content = decode(path.read_bytes())
        except FileNotFoundError:
            continue
        except OSError as error:  # it may be good, so that it is not for us to remove
            raise InputError(
                f"{path} cannot be read ({error.strerror or error}): mend that, or move it away"
            ) from None
        except Damaged:
            damaged.append(path)
            continue
        for other in damaged:
            warnings.warn(f"{other} is damaged: the one before, {path}, is used", stacklevel=3)
            other.unlink()
        return content
    if damaged:
        names = " and ".join(map(str, damaged))
        plural = "is" if len(damaged) == 1 else "are"
        raise InputError(f"{names} {plural} damaged: put a good copy there, or {ANEW}")
    return None
