"""Dropout that draws from the generator of a step; torch's own draws from the global one."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from hypercl.engine.seeding import current

_is_off: ContextVar[bool] = ContextVar("is_off", default=False)


@contextmanager
def without_dropout() -> Iterator[None]:
    """A context in which, in this thread, networks that are only asked drop nothing."""
    token = _is_off.set(True)
    try:
        yield
    finally:
        _is_off.reset(token)


def dropout_mask(like: Tensor, rate: float) -> Tensor:
    """0 with the probability ``rate``, else 1 / (1 - rate), for each number of ``like``.

    On a CPU the numbers are those that torch.nn.functional.dropout would draw.
    """
    keep = 1 - rate
    if like.ndim > 2:  # drawn in the order of the memory: convolutions may return channels last
        return torch.empty_like(like).bernoulli_(keep, generator=current()).div_(keep)
    return torch.bernoulli(like.detach(), keep, generator=current()).div_(keep)


class Dropout(nn.Module):
    """In training, zeroes numbers, or whole features, at random, and scales up the others.

    Args:
        rate: Share that is zeroed, in [0, 1].
        whole_features: A feature [H, W] of a sample stays or goes as one, as in nn.Dropout2d.
    """

    def __init__(self, rate: float, *, whole_features: bool = False) -> None:
        super().__init__()
        self.rate, self.whole_features = rate, whole_features

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, …], [B, features, …] for whole features."""
        if not self.training or self.rate == 0 or _is_off.get():
            return x
        if self.rate == 1:
            return x * 0
        drawn_for = x[:, :, *[slice(1)] * (x.ndim - 2)] if self.whole_features else x
        return x * dropout_mask(drawn_for, self.rate)


def replace_dropout(module: nn.Module) -> None:
    """Put a :class:`Dropout` in the place of each nn.Dropout of a network, and of those of whole
    features: nn.Dropout1d, nn.Dropout2d, nn.Dropout3d.
    """
    of_features = nn.Dropout1d | nn.Dropout2d | nn.Dropout3d
    for parent in [*module.modules()]:
        for name, child in parent._modules.items():  # a layer that stands in two places, twice
            if isinstance(child, nn.Dropout | of_features):
                whole_features = isinstance(child, of_features)
                parent._modules[name] = Dropout(child.p, whole_features=whole_features)
