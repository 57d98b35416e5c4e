"""Members: seeds trained together, all their tensors stacked along a leading dimension."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Params = dict[str, Tensor]


def each_member(function: Callable, *, shared: tuple[int, ...] = ()) -> Callable:
    """Let a function of one member work on all members at once.

    Args:
        function: Takes and returns tensors, or dicts of them; may return a tuple.
        shared: Positions of the arguments that all members have in common.

    Returns:
        The function over arguments with a leading dimension of members, but for the shared ones.
    """

    def over_members(*args):
        own = next(arg for i, arg in enumerate(args) if i not in shared)
        if _num_members(own) > 1:
            in_dims = tuple(None if i in shared else 0 for i in range(len(args)))
            return torch.func.vmap(function, in_dims=in_dims, randomness="different")(*args)
        result = function(*(arg if i in shared else alone(arg) for i, arg in enumerate(args)))
        if isinstance(result, tuple):
            return tuple(item.unsqueeze(0) for item in result)
        return result.unsqueeze(0)

    return over_members


def alone(value: Any) -> Any:
    """Take the dimension of members from a tensor, or a dict of tensors, of a single member."""
    if isinstance(value, dict):
        return {name: alone(item) for name, item in value.items()}
    return value.squeeze(0)


def stack_members(values: Sequence[Params]) -> Params:
    """One dictionary of tensors [members, …] from one dictionary a member."""
    return {name: torch.stack([value[name] for value in values]) for name in values[0]}


def select_members(values: Params, which: int | list[int]) -> Params:
    """Some members, or with an int the dictionary of one."""
    return {name: value[which] for name, value in values.items()}


def to_device(values: Params, device: torch.device | str) -> Params:
    """All tensors on a device."""
    return {name: value.to(device) for name, value in values.items()}


def _num_members(value: Tensor | Params) -> int:
    return len(next(iter(value.values())) if isinstance(value, dict) else value)
