"""Samples of several tasks in one batch, and the outputs among which they are classified."""

from dataclasses import replace

import pytest
import torch
from helpers import CIFAR_SHAPE, MNIST_SHAPE, make_sequence, make_task

from hypercl.tasks.mixture import (
    Mixture,
    augmented_images,
    draw_samples,
    network_labels,
    training_samples,
)
from hypercl.tasks.task import augment, outputs_after, with_growing_outputs, with_heads


def permuted(task, seed):
    size = task.train.images[0].numel()
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    return replace(task, permutation=order)


def normalized(task, seed):
    generator = torch.Generator().manual_seed(seed)
    channels = task.train.images.shape[-1]
    mean, std = torch.rand(2, channels, generator=generator)
    return replace(task, mean=mean, std=std + 0.5)


def padded(task, seed):
    """As PermutedMNIST's: black around the image, and a permutation of all pixels."""
    images = torch.nn.functional.pad(task.train.images, (0, 0, 2, 2, 2, 2))
    return permuted(replace(task, train=task.train._replace(images=images)), seed)


def as_vectors(task, seed):
    images = task.train.images.flatten(1) / 255
    return normalized(replace(task, train=task.train._replace(images=images)), seed)


def but_the_first(change):
    return lambda task, seed: change(task, seed) if seed > 0 else task


CHANGES = {
    "plain": lambda task, seed: task,
    "permuted": permuted,
    "padded": padded,
    "normalized": normalized,
    "permuted but the first": but_the_first(permuted),  # as PermutedMNIST is
    "normalized but the first": but_the_first(normalized),
    "vectors": as_vectors,
    "both": lambda task, seed: permuted(normalized(task, seed), seed),
}


@pytest.mark.parametrize("shape", [MNIST_SHAPE, CIFAR_SHAPE])
@pytest.mark.parametrize("change", CHANGES)
def test_inputs_are_those_of_the_tasks(change, shape):
    tasks = [CHANGES[change](make_task(shape, 8, seed=seed), seed) for seed in range(3)]
    mixture = Mixture.of(tasks, 3, 2)
    task_ids = torch.tensor([[0, 2, 1, 1], [2, 2, 0, 1]])
    rows = torch.tensor([[3, 1, 4, 1], [5, 2, 6, 5]])
    images = torch.stack(
        [
            torch.stack([tasks[k].train.images[i] for k, i in zip(*pair, strict=True)])
            for pair in zip(task_ids, rows, strict=True)
        ]
    )
    inputs = mixture.inputs(images, task_ids)
    for member in range(2):
        for i, task_id in enumerate(task_ids[member]):
            expected = tasks[task_id].inputs(images[member, i][None])[0]
            assert torch.equal(inputs[member, i], expected)


def test_augmented_images_are_those_of_augment():
    images = torch.randint(256, (2, 5, 8, 8, 3), dtype=torch.uint8)
    drawn = torch.stack(
        [draw_samples(20, 3, 5, True, torch.Generator().manual_seed(s)) for s in range(2)], dim=1
    )[1]
    assert drawn.shape == (2, 5, 4)
    found = augmented_images(images, drawn)
    for member in range(2):
        offsets, flips = drawn[member, :, 1:3], drawn[member, :, 3].bool()
        assert torch.equal(found[member], augment(images[member], offsets, flips))
    plain = draw_samples(20, 3, 5, False, torch.Generator().manual_seed(0))
    assert plain.shape == (3, 5, 1)
    assert augmented_images(images, plain[:2]) is images


def test_all_training_samples_with_the_networks_labels():
    tasks = make_sequence(1, (2, 3, 2), n=6)
    images, image_ids, labels, task_ids = training_samples(tasks, 2, 7)
    assert torch.equal(images[image_ids], torch.cat([task.train.images for task in tasks[:2]]))
    assert labels.tolist() == [0, 1, 0, 1, 0, 1, 2, 3, 4, 2, 3, 4]
    assert task_ids.tolist() == [0] * 6 + [1] * 6


# By scenario: the outputs of the tasks after one, two and all of three tasks.
OUTPUTS = {
    1: [[slice(0, 2)], [slice(0, 2), slice(2, 5)], [slice(0, 2), slice(2, 5), slice(5, 7)]],
    2: [[slice(2)], [slice(2), slice(None)], [slice(2), slice(None), slice(2)]],
    3: [[slice(2)], [slice(5)] * 2, [slice(7)] * 3],
}


@pytest.mark.parametrize("scenario", OUTPUTS)
def test_among_which_outputs_a_sample_is_classified(scenario):
    tasks, num_outputs = make_sequence(scenario, (2, 3, 2)), 3 if scenario == 2 else 7
    for num_learned, expected in enumerate(OUTPUTS[scenario], start=1):
        assert [outputs_after(tasks, k, num_learned) for k in range(num_learned)] == expected
        mixture = Mixture.of(tasks, num_learned, num_outputs)
        numbers = torch.arange(num_outputs)
        for task_id, outputs in enumerate(expected):
            allowed = mixture.allowed_to(torch.tensor([[task_id]]))
            among = numbers[mixture.outputs]
            among = among if allowed is None else among[allowed[0, 0]]
            assert among.tolist() == numbers[outputs].tolist()
    # A task that is yet to be learned is tested among its own classes at least.
    assert outputs_after(tasks, 2, 1) == tasks[2].outputs
    assert outputs_after(tasks, 1, 0) == tasks[1].outputs


def test_growing_outputs():
    plain = [make_task(seed=seed) for seed in range(3)]
    tasks = with_growing_outputs(plain)
    assert [task.outputs for task in tasks] == [slice(2), slice(4), slice(6)]
    for k, (task, before) in enumerate(zip(tasks, plain, strict=True)):
        assert task.outputs_grow
        assert not task.has_own_outputs
        for name in ("train", "validation", "test"):
            split, own = getattr(task, name), getattr(before, name)
            assert torch.equal(split.labels, own.labels + 2 * k)
            assert split.images is own.images
        assert torch.equal(network_labels(task, task.test.labels, 6), task.test.labels)
    heads = with_heads(plain)
    for grown, own in zip(tasks, heads, strict=True):
        assert own.has_own_outputs
        assert not own.outputs_grow
        assert torch.equal(network_labels(own, own.test.labels, 6), grown.test.labels)


def test_images_that_tasks_share_are_there_once():
    one = make_task(seed=1)
    shared = [replace(one, name=name) for name in "ab"]
    other = make_task(n=20, seed=2)
    tasks = [shared[0], other, shared[1]]
    samples = training_samples(tasks, 3, 2)
    assert len(samples.images) == 64 + 20
    for task_id, task in enumerate(tasks):
        own = samples.image_ids[samples.task_ids == task_id]
        assert torch.equal(samples.images[own], task.train.images)
