"""Independent generators of random numbers, all derived from the one seed of a run.

Nothing here draws from torch's global generator, so that several runs in the threads of a process
learn what each would alone.
"""

import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch

_of_this_step: ContextVar[torch.Generator | None] = ContextVar("generator", default=None)
_global_generator = threading.Lock()


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


def step_generator(seed: int, task_id: int, device: torch.device) -> torch.Generator:
    """The one from which the steps of a task draw what cannot be drawn before them: dropout."""
    where = device if device.type == "cuda" else "cpu"  # "meta" has no generators
    return torch.Generator(where).manual_seed(derive_seed(seed, "dropout", task_id))


@contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """A context in which, in this thread, :func:`current` is ``generator``."""
    token = _of_this_step.set(generator)
    try:
        yield
    finally:
        _of_this_step.reset(token)


def current() -> torch.Generator | None:
    """What is random in a step draws from it; None, torch's global one, outside of steps."""
    return _of_this_step.get()


@contextmanager
def seeded_globally(seed: int) -> Iterator[None]:
    """A context for libraries that know torch's global CPU generator alone; leaves no trace in it.

    One thread at a time.
    """
    with _global_generator:
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_rng_state(before)
