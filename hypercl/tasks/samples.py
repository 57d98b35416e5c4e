"""What samples of the user's may be, in whatever form they come: images [N, H, W] or [N, H, W, C],
uint8 or floats, or vectors [N, D], floats.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hypercl.errors import InputError
from hypercl.tasks.images import Images

_AT_ONCE = 1 << 24  # numbers that are looked at together
_CHANNELS = (1, 3, 4)


class Header(NamedTuple):
    """What is known of an array before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Loaded(NamedTuple):
    """A user's samples, with labels and tasks as positions."""

    images: Images
    train_tasks: np.ndarray  # [N] int64
    test_tasks: np.ndarray


def problem_of_images(name: str, header: Header) -> str | None:
    """Why an array can be no images and no vectors."""
    shape, dtype = header
    if shape[:1] == (0,):
        return f"{name} has no samples: add some"
    if len(shape) not in (2, 3, 4) or 0 in shape:
        return f"{name} has shape {list(shape)}, not [N, H, W], [N, H, W, C] or [N, D]"
    if dtype.kind != "f" and (dtype != np.uint8 or len(shape) == 2):
        kinds = "floats" if len(shape) == 2 else "uint8 or floats"
        return f"{name} is {dtype}, not {kinds}: convert it"
    if len(shape) == 4 and has_channels_first(shape[1:]):
        return f"{name} has shape {list(shape)}, which looks like [N, C, H, W]: give [N, H, W, C]"
    return None


def has_channels_first(shape: Sequence[int]) -> bool:
    """Whether a shape of three looks like (C, H, W) where it should be (H, W, C)."""
    return shape[0] in _CHANNELS and shape[2] not in _CHANNELS


def usable(pixels: np.ndarray, title: str) -> np.ndarray:
    """Images as tasks have them: bytes as they are, floats as float32.

    Raises:
        InputError: One of the floats is not finite, or too large for a float32.
    """
    if pixels.dtype == np.uint8:
        return pixels
    with np.errstate(over="ignore"):
        floats = np.ascontiguousarray(pixels, dtype=np.float32)
    some = floats[:1000]
    if some.ndim > 2 and 100 < some.max() <= 255 and (some == np.rint(some)).all():
        warnings.warn(
            f"{title} has images of floats from {some.min():g} to {some.max():g}, which are taken "
            "as they are: --normalize=0,255 divides by 255, and so does uint8",
            stacklevel=2,
        )
    flat = floats.reshape(-1)
    for start in range(0, len(flat), _AT_ONCE):
        is_bad = ~np.isfinite(flat[start : start + _AT_ONCE])
        if is_bad.any():
            sample = (start + int(is_bad.argmax())) // (floats.size // len(floats))
            raise InputError(
                f"{title}: sample {sample} has a number that is not finite: mend it, or take it "
                "away"
            )
    return floats
