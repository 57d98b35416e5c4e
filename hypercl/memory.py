"""How many members fit into memory together."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from hypnettorch.mnets import MainNetInterface
from torch.utils._python_dispatch import TorchDispatchMode

from hypercl.heads import Heads
from hypercl.hypernet import Hypernet
from hypercl.members import Params
from hypercl.networks import fresh_stats, logits_of
from hypercl.regularizer import choose_factored

_FLOAT = 4  # bytes
_SHARE = 0.6  # of the memory that is free; the estimate is rough


def split_into_groups(
    seeds: Sequence[int], bytes_per_member: int, available: int, most: float = math.inf
) -> list[Sequence[int]]:
    """Cut the seeds into groups of nearly equal size, each of which fits into memory.

    Args:
        most: Members in a group, at most.
    """
    at_once = max(1, int(min(most, _SHARE * available // bytes_per_member)))
    num_groups = math.ceil(len(seeds) / at_once)
    bounds = [round(i * len(seeds) / num_groups) for i in range(num_groups + 1)]
    return [seeds[a:b] for a, b in pairwise(bounds)]


def estimate_member(
    hnet: Hypernet,
    params: Params,
    mnet: MainNetInterface,
    *,
    num_tasks: int,
    subset_size: int,
    store_targets: bool,
    heads: Heads | None,
    num_inputs: int,
    batch_size: int,
    num_steps: int,
    lookahead: bool = False,
) -> int:
    """Roughly the bytes that one more member takes in the last task, the most demanding one.

    Args:
        params: Of one member.
        num_inputs: Numbers in one input of the main network.
        batch_size: The larger of those in training and in evaluation.
        num_steps: Of a task; each has indices for a batch drawn beforehand.
        lookahead: Whether the optimizer takes a step in advance, on copies of what it changes.
    """
    parameters = sum(value.numel() for value in params.values())
    earlier = max(0, num_tasks - 1)
    taken = 1 + (min(subset_size, earlier) if subset_size > 0 else earlier)
    weight = hnet.last_layer(params)[0]
    rows = math.ceil(hnet.num_weights / len(weight))  # chunks
    widths = [params[f"weight{i}"].shape[1] for i in range(hnet.num_layers)]
    # A row's features in every layer and as much again for gradients; kept and moved ones.
    hypernet = taken * rows * (3 * sum(widths) + 3 * weight.shape[1])
    if earlier and choose_factored(
        hnet, params, earlier, subset_size, heads, store_targets=store_targets
    ):
        d = weight.shape[1]
        kept = earlier * rows * d + (earlier if subset_size > 0 else 1) * (d + 1) ** 2
        generated = 3 * hnet.num_weights
    else:
        kept = earlier * hnet.num_weights if store_targets else parameters
        generated = 3 * taken * hnet.num_weights
    activations = 2 * _count_activations(mnet, batch_size, num_inputs)
    drawn = 3 * num_steps * batch_size  # indices are int64; crops and flips are smaller
    # parameters, gradients, Adam's two means, the checkpoint
    copies = 10 if lookahead else 5
    return _FLOAT * (copies * parameters + hypernet + kept + generated + activations + drawn)


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


class _CountOutputs(TorchDispatchMode):
    """Adds up the sizes of all tensors that operations make."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numbers += result.numel()
        return result


def _count_activations(mnet: MainNetInterface, batch_size: int, num_inputs: int) -> int:
    """Numbers that a forward pass of the main network makes; computed without any data."""
    weights = [torch.empty(shape, device="meta") for shape in mnet.param_shapes]
    counter = _CountOutputs()
    stats = {name: value[0] for name, value in fresh_stats(mnet, 1, torch.device("meta")).items()}
    with torch.no_grad(), counter:
        logits_of(mnet, weights, torch.empty(batch_size, num_inputs, device="meta"), stats)
    return counter.numbers
