from dataclasses import replace

import torch
from helpers import make_experiment, make_task

from hypercl.networks.heads import head_of_each_task, one_head, partial_chunks
from hypercl.tasks.task import with_heads, with_shared_outputs

SHAPES = [[3, 4], [3], [6, 3], [6]]  # the output layer has weights 15 … 32 and biases 33 … 38
OUTPUTS = [slice(0, 2), slice(2, 4), slice(4, 6)]


def test_one_head_uses_all():
    heads = one_head(39)
    assert heads.num_weights == heads.shared == 39
    assert heads.ranges(5) == [range(39)]
    assert heads.mask(5).sum() == 39


def test_a_head_of_each_task():
    heads = head_of_each_task(SHAPES, OUTPUTS, num_output_tensors=2)
    assert heads.shared == 15
    assert heads.ranges(1) == [range(15), range(21, 27), range(35, 37)]
    assert heads.mask(1).nonzero().flatten().tolist() == [*range(15), *range(21, 27), 35, 36]


def test_an_output_layer_without_bias():
    heads = head_of_each_task([[3, 4], [6, 3]], OUTPUTS, num_output_tensors=1)
    assert heads.ranges(2) == [range(12), range(24, 30)]


def test_tasks_of_unequal_sizes_are_regularized_in_all_that_they_use():
    task = make_task((4, 4, 1))
    tasks = [replace(task, num_classes=size) for size in (2, 3, 1)]
    shared = make_experiment(with_shared_outputs(tasks))
    assert shared.net.shapes[-1] == (3,)
    assert shared.method.heads == one_head(shared.net.num_weights)
    own = make_experiment(with_heads(tasks), multi_head=True)
    assert own.net.shapes[-2:] == ((6, 10), (6,))
    masks = torch.stack([own.method.heads.mask(task_id) for task_id in range(3)])
    *_, weight, bias = own.net.split(masks)
    assert bias.tolist() == [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1]]
    assert torch.equal(weight, bias[..., None].expand_as(weight))


def test_chunks_that_one_head_uses_in_part():
    assert partial_chunks(one_head(40), 5, 8) is None
    chunks, masks = partial_chunks(one_head(39), 5, 8)  # the same one for all tasks
    assert chunks.tolist() == [[4]]
    assert masks.tolist() == [[[1] * 7 + [0]]]


def test_chunks_that_heads_use_in_part():
    """Chunks of 8, of which only the first is shared as a whole, by hand."""
    heads = head_of_each_task(SHAPES, OUTPUTS, num_output_tensors=2)
    used = {
        # 8 … 14, then the weights and the biases of the head
        0: {1: range(8, 16), 2: range(16, 21), 4: range(33, 35)},
        1: {1: range(8, 15), 2: range(21, 24), 3: range(24, 27), 4: range(35, 37)},
        2: {1: range(8, 15), 3: range(27, 32), 4: [32, 37, 38]},
    }
    chunks, masks = partial_chunks(heads, 3, 8)
    assert chunks.shape == (3, 4)
    assert masks.shape == (3, 4, 8)
    for task_id, expected in used.items():
        found = {
            chunk: [8 * chunk + i for i in mask.nonzero().flatten().tolist()]
            for chunk, mask in zip(chunks[task_id].tolist(), masks[task_id], strict=True)
            if mask.any()
        }
        assert found == {chunk: list(weights) for chunk, weights in expected.items()}
        of_task = torch.cat([torch.ones(8), heads.mask(task_id)[8:]])
        assert of_task.sum() == 8 + masks[task_id].sum()
    assert partial_chunks(heads, 1, 8).chunks.tolist() == [[1, 2, 4]]
