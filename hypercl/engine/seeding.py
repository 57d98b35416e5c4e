"""Independent generators of random numbers, all derived from the one seed of a run."""

import zlib

import numpy as np
import torch


def derive_seed(seed: int, purpose: str, task_id: int = 0) -> int:
    """A 63-bit seed for one consumer of randomness in one task.

    Different seeds, purposes and tasks give independent streams (numpy's SeedSequence), so that one
    consumer drawing more or less leaves all others as they were.
    """
    sequence = np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), task_id])
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)


def generator(seed: int, purpose: str, task_id: int = 0) -> torch.Generator:
    """A generator on the CPU, whatever the device: the same numbers on every machine."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, task_id))


def global_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The state of torch's global generators, from which dropout draws."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_global_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Put torch's global generators where :func:`global_state` found them."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
