"""How many members fit into memory together."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch

from hypercl.machine import free_memory

_SHARE = 0.6  # of the memory that is free; the estimate is rough


def split_into_groups(
    seeds: Sequence[int], bytes_per_member: int, available: int, most: float = math.inf
) -> list[list[int]]:
    """Cut the seeds into groups of nearly equal size, each of which fits into memory.

    Args:
        most: Members in a group, at most.
    """
    at_once = max(1, int(min(most, _SHARE * available // bytes_per_member)))
    num_groups = math.ceil(len(seeds) / at_once)
    bounds = [round(i * len(seeds) / num_groups) for i in range(num_groups + 1)]
    return [list(seeds[a:b]) for a, b in pairwise(bounds)]


def available_bytes(device: torch.device) -> int:
    """Free memory of the device, which for a CPU is the machine's or the container's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = free_memory()
    return 8 << 30 if free is None else free  # a modest machine, where it is not known
