"""Members: seeds trained together, all their tensors stacked along a leading dimension."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Params = dict[str, Tensor]
Numbers = float | Sequence[float] | Tensor  # one that all members share, or one of each


def of_each(number: Numbers, num_members: int) -> Sequence[float]:
    """The number of each member; of a tensor, its items."""
    if isinstance(number, int | float):
        return [number] * num_members
    return number  # type: ignore[return-value]


def as_tensor(number: Numbers, like: Tensor) -> float | Tensor:
    """Numbers of each member as a tensor [members], of the type and on the device of another; a
    number that they share, and a tensor, as they are.
    """
    if isinstance(number, int | float | Tensor):
        return number
    return torch.tensor(number, dtype=like.dtype, device=like.device)


def by_member(value: float | Tensor, like: Tensor) -> float | Tensor:
    """What multiplies or is added to ``like`` [members, …]: a number that all members share as it
    is, numbers [members] with as many dimensions as that.
    """
    if isinstance(value, Tensor) and value.ndim == 1:
        return value.view(-1, *[1] * (like.ndim - 1))
    return value


def is_positive(value: float | Tensor) -> bool:
    """Whether a number that is 0 or more is above it. Of numbers [members], all are: members among
    which one is 0 do not train together.
    """
    return isinstance(value, Tensor) or value > 0


def each_member(
    function: Callable,
    *,
    shared: tuple[int, ...] = (),
    together: Callable[[], bool] = lambda: True,
) -> Callable:
    """Let a function of one member work on all members at once.

    Args:
        function: Takes and returns tensors, or dicts of them; may return a tuple.
        shared: Positions of the arguments that all members have in common.
        together: Says whether several are computed as one, rather than one after the other.

    Returns:
        The function over arguments with a leading dimension of members, but for the shared ones.
    """

    def over_members(*args):
        own = next(arg for i, arg in enumerate(args) if i not in shared)
        members = _num_members(own)
        if members > 1 and not together():
            return _one_by_one(function, args, shared, members)
        if members > 1:
            in_dims = tuple(None if i in shared else 0 for i in range(len(args)))
            return torch.func.vmap(function, in_dims=in_dims, randomness="different")(*args)
        result = function(*(arg if i in shared else alone(arg) for i, arg in enumerate(args)))
        if isinstance(result, tuple):
            return tuple(item.unsqueeze(0) for item in result)
        return result.unsqueeze(0)

    return over_members


def _one_by_one(function: Callable, args: tuple, shared: tuple[int, ...], members: int) -> Any:
    def of(member: int, value: Any) -> Any:
        return select_members(value, member) if isinstance(value, dict) else value[member]

    results = [
        function(*(arg if i in shared else of(member, arg) for i, arg in enumerate(args)))
        for member in range(members)
    ]
    if isinstance(results[0], tuple):
        return tuple(torch.stack(items) for items in zip(*results, strict=True))
    return torch.stack(results)


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


def rows_of(values: Tensor, index: Tensor) -> Tensor:
    """Rows of values [N, …] that all members have in common, by an index [members, number]."""
    return values.index_select(0, index.flatten()).view(*index.shape, *values.shape[1:])


def own_rows(values: Tensor, index: Tensor) -> Tensor:
    """Rows of the members' own values [members, N, …], by an index [members, number]."""
    if len(values) == 1:
        return values[0].index_select(0, index[0])[None]
    index = index.view(*index.shape, *[1] * (values.ndim - 2))
    return values.gather(1, index.expand(-1, -1, *values.shape[2:]))


def flatten(values: Params) -> Tensor:
    """A copy of all numbers in one tensor, [members, numbers]."""
    return torch.cat([value.flatten(1) for value in values.values()], 1)


def views_of(flat: Tensor, like: Params) -> Params:
    """Views of ``flat`` [members, numbers] with names and shapes of ``like``."""
    pieces = flat.split([value[0].numel() for value in like.values()], dim=1)
    return {
        name: piece.view(value.shape)
        for (name, value), piece in zip(like.items(), pieces, strict=True)
    }


def from_parts(**parts: Params) -> Params:
    """One dictionary of those of several parts, each under its part's name: ``part.name``."""
    return {f"{part}.{name}": v for part, values in parts.items() for name, v in values.items()}


def part_of(values: Params, part: str) -> Params:
    """The reverse of :func:`from_parts`, for one part."""
    start = f"{part}."
    return {name.removeprefix(start): v for name, v in values.items() if name.startswith(start)}


def num_members(values: Params) -> int:
    """How many members parameters are of."""
    return len(next(iter(values.values())))


def add_into(sums: Params, values: Params) -> None:
    """Add to each entry of ``sums``, in place, that of the same name; a new name is entered."""
    for name, value in values.items():
        if name in sums:
            sums[name] += value
        else:
            sums[name] = value


def _num_members(value: Tensor | Params) -> int:
    return num_members(value) if isinstance(value, dict) else len(value)
