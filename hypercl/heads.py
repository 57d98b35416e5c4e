"""Which of the generated weights matter to which task.

With one head for all tasks, all do. With a head for each task, the rows of the output layer that
belong to other tasks are generated as well, but a task neither uses them nor is regularized in
them: ``calc_fix_target_reg`` of hypnettorch does so with ``inds_of_out_heads``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

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

    def of_task(self, task_id: int) -> list[range]:
        """Ranges of the weights that matter to a task, without overlap."""
        own = self.own[task_id] if self.own else ()
        return [range(self.shared), *own]

    def mask(self, task_id: int) -> Tensor:
        """1 for the weights that matter to a task, 0 for the others: [num_weights] float32."""
        mask = torch.zeros(self.num_weights)
        for weights in self.of_task(task_id):
            mask[weights.start : weights.stop] = 1
        return mask


def one_head(shapes: Sequence[Sequence[int]]) -> Heads:
    """All tasks use all weights of a network with tensors of these shapes."""
    num_weights = sum(math.prod(shape) for shape in shapes)
    return Heads(num_weights, num_weights)


def head_of_each_task(shapes: Sequence[Sequence[int]], outputs: Sequence[range]) -> Heads:
    """Each task has outputs of its own.

    Args:
        shapes: Of the network's tensors; the output layer comes last, its weight [outputs, inputs]
            and then its bias [outputs], if it has one.
        outputs: By task.
    """
    sizes = [math.prod(shape) for shape in shapes]
    num_weights = sum(sizes)
    has_bias = len(shapes[-1]) == 1
    end_of_weight = num_weights - (sizes[-1] if has_bias else 0)
    weight_shape = shapes[-2 if has_bias else -1]
    start, width = end_of_weight - math.prod(weight_shape), math.prod(weight_shape[1:])
    own = []
    for of_task in outputs:
        ranges = [range(start + of_task.start * width, start + of_task.stop * width)]
        if has_bias:
            ranges.append(range(end_of_weight + of_task.start, end_of_weight + of_task.stop))
        own.append(tuple(ranges))
    return Heads(num_weights, start, tuple(own))
