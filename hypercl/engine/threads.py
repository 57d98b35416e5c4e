"""How many threads a run on a CPU computes with.

torch takes all processors. Where others work on these, too, a thread that has done its part of an
operation waits, in every operation, until the other one gets its turn. benchmarks/threads.py
measures what that costs, and what threads gain on processors of their own: at most their number.
What is chosen depends on the work alone, not on the load, as sums round by the threads.
"""

import os
from functools import cache

import torch

from hypercl.machine import processor_quota

# Multiplications of the main network's forward pass, for one batch, from which more than one thread
# is worth it: between those of a ResNet-32 on 4 images and those of a ConvNet of Zenke's on 32.
_WORTH_IT = 500_000_000
_GIVEN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # torch has read them


def use_threads(wanted: int | None, multiplications: int) -> None:
    """Set the number of threads of the process.

    Args:
        wanted: None leaves what the environment says, and without that chooses.
        multiplications: Of the main network's forward pass, for one batch.
    """
    processors = _processors()
    if wanted is None:
        if any(name in os.environ for name in _GIVEN):
            return
        wanted = processors if multiplications >= _WORTH_IT else 1
    torch.set_num_threads(wanted)


def processor(device: torch.device) -> str:
    """Where a run computes, in words: ``cpu with 1 thread``, ``cuda``."""
    if device.type != "cpu":
        return str(device)
    number = torch.get_num_threads()
    return f"cpu with {number} thread{'s' if number > 1 else ''}"


@cache
def _processors() -> int:
    """Those that torch would take, or fewer where the process may not have as many."""
    processors = torch.get_num_threads()
    if hasattr(os, "sched_getaffinity"):
        processors = min(processors, len(os.sched_getaffinity(0)))
    return int(max(1, min(processors, processor_quota())))
