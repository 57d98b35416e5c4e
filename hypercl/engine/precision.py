"""Reduced precision on CUDA, for the parts of a step that may have it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Let float32 products and convolutions on CUDA run in TF32 inside the context, if allowed.

    torch allows it in convolutions by default; :func:`forbid_tf32` ends that.
    """
    if not allowed:
        yield
        return
    _set_tf32(True)
    try:
        yield
    finally:
        _set_tf32(False)


def forbid_tf32() -> None:
    """Full float32 precision everywhere, until a :func:`tf32` context."""
    _set_tf32(False)


def _set_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
