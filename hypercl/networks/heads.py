"""Which of the generated weights matter to which task.

With one head for all tasks, all do. With a head for each task, the rows of the output layer that
belong to other tasks are generated as well, but a task neither uses them nor is regularized in
them: ``calc_fix_target_reg`` of hypnettorch does so with ``inds_of_out_heads``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Heads:
    """Ranges of weights, counted over the main network's tensors one after the other.

    ``own`` has what a task does not share with the others, by task; empty where all is shared.
    """

    num_weights: int
    shared: int  # weights 0 … shared - 1 matter to all tasks
    own: tuple[tuple[range, ...], ...] = ()

    def ranges(self, task_id: int) -> list[range]:
        """Ranges of the weights that matter to a task, without overlap."""
        own = self.own[task_id] if self.own else ()
        return [range(self.shared), *own]

    def mask(self, task_id: int) -> Tensor:
        """1 for the weights that matter to a task, 0 for the others: [num_weights] float32."""
        mask = torch.zeros(self.num_weights)
        for weights in self.ranges(task_id):
            mask[weights.start : weights.stop] = 1
        return mask


def one_head(num_weights: int) -> Heads:
    """All tasks use all weights of a network."""
    return Heads(num_weights, num_weights)


def head_of_each_task(
    shapes: Sequence[Sequence[int]], outputs: Sequence[slice], num_output_tensors: int
) -> Heads:
    """Each task has outputs of its own.

    Args:
        shapes: Of the network's tensors.
        outputs: By task.
        num_output_tensors: How many of the tensors are the output layer's. They come last, and have
            a row for each output: its weight [outputs, inputs] and its bias [outputs], if it has
            one.
    """
    sizes = [math.prod(shape) for shape in shapes]
    starts = [sum(sizes[:i]) for i in range(len(sizes))][-num_output_tensors:]
    widths = [math.prod(shape[1:]) for shape in shapes[-num_output_tensors:]]
    own = tuple(
        tuple(
            range(start + mine.start * width, start + mine.stop * width)
            for start, width in zip(starts, widths, strict=True)
        )
        for mine in outputs
    )
    return Heads(sum(sizes), starts[0], own)


class Partial(NamedTuple):
    """The chunks that the earlier tasks use in part; the same number for each, some unused."""

    chunks: Tensor  # [tasks, number] int64, which
    masks: Tensor  # [tasks, number, C], 1 for the weights used, 0 for the others


def partial_chunks(heads: Heads, num_tasks: int, chunk_size: int) -> Partial | None:
    """The chunks that tasks 0 … num_tasks - 1 use in part; None if there are none.

    Where all tasks use the same ones, they are there once.
    """
    full = heads.shared // chunk_size
    num_tasks = num_tasks if heads.own else 1
    by_task: list[dict[int, Tensor]] = []  # by task, by chunk: the mask
    for task_id in range(num_tasks):
        masks: dict[int, Tensor] = {}
        for weights in heads.ranges(task_id):
            for chunk in range(max(full, weights.start // chunk_size), heads.num_weights):
                begin, end = (
                    min(max(edge - chunk * chunk_size, 0), chunk_size)
                    for edge in (weights.start, weights.stop)
                )
                if begin == end:
                    break
                masks.setdefault(chunk, torch.zeros(chunk_size))[begin:end] = 1
        by_task.append(masks)
    number = max(map(len, by_task), default=0)
    if number == 0:
        return None
    chunks = torch.full((num_tasks, number), full)
    all_masks = torch.zeros(num_tasks, number, chunk_size)
    for task_id, masks in enumerate(by_task):
        for i, (chunk, mask) in enumerate(masks.items()):
            chunks[task_id, i], all_masks[task_id, i] = chunk, mask
    return Partial(chunks, all_masks)
