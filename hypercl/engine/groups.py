"""How many members fit into memory together."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch

FLOAT = 4  # bytes
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
    """Free memory of the device; of the machine or of the container, whichever has less."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = [
        int(line.split()[1]) * 1024
        for line in _read("/proc/meminfo").splitlines()
        if line.startswith("MemAvailable")
    ]
    limit, used = (_read(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    if limit.isdecimal() and used.isdecimal():
        free.append(max(0, int(limit) - int(used)))
    return min(free, default=8 << 30)  # where neither is known, not a Linux: a modest machine


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
