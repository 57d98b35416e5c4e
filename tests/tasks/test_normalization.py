import pytest
import torch
from helpers import make_sequence, make_task

from hypercl.errors import InputError
from hypercl.options import Options
from hypercl.ranges import normalization
from hypercl.tasks.normalization import normalized, statistics
from hypercl.tasks.sequences.splitcifar import MEAN, STD
from hypercl.tasks.task import Split, Task


def vectors(values):
    split = Split(values, torch.arange(len(values)) % 2)
    return Task("vectors", 2, split, split, split)


def test_statistics_are_of_each_channel():
    images = make_task((5, 4, 3), n=30).train.images
    mean, std = statistics(images)
    pixels = (images.double() / 255).reshape(-1, 3)
    assert torch.allclose(mean, pixels.mean(0).float(), atol=1e-7)
    assert torch.allclose(std, pixels.std(0, unbiased=False).float(), atol=1e-7)


def test_inputs_have_mean_0_and_variance_1_but_for_what_never_varies():
    values = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 3 + 7
    values[:, 2] = 5
    (task,) = normalized([vectors(values)], "dataset")
    inputs = task.inputs(values)
    assert torch.allclose(inputs.mean(0), torch.zeros(4), atol=1e-5)
    assert torch.allclose(inputs.std(0, unbiased=False), torch.tensor([1.0, 1, 0, 1]), atol=1e-5)


def test_later_tasks_are_normalized_by_the_first():
    tasks = make_sequence(2)
    made = normalized(tasks, "dataset")
    assert torch.equal(made[2].mean, statistics(tasks[0].train.images)[0])
    assert not torch.equal(made[2].mean, statistics(tasks[2].train.images)[0])


def test_numbers_and_imagenet():
    task = make_task((4, 4, 3))
    (given,) = normalized([task], (*MEAN, *STD))
    (imagenet,) = normalized([task], "imagenet")
    assert torch.equal(given.mean, imagenet.mean)
    assert torch.equal(given.std, torch.tensor(STD))
    (none,) = normalized([imagenet], "none")
    assert none.mean is None is none.std
    (same,) = normalized([task], (0.5, 0.25))
    assert same.mean.tolist() == [0.5] * 3
    with pytest.raises(InputError, match="has 2 means, and these inputs have 3 channels: give 1"):
        normalized([task], (0.5, 0.5, 1.0, 1.0))
    with pytest.raises(InputError, match=r"imagenet is for images of 3 channels, .* 3 features"):
        normalized([vectors(torch.zeros(4, 3))], "imagenet")


@pytest.mark.parametrize("text", ["mean", "", "0.5", "1,2,3", "0.5,0", "nan,1", "1,-1"])
def test_what_is_no_normalization(text):
    with pytest.raises(InputError, match="--normalize"):
        Options.of({"normalize": text})


def test_numbers_are_read_as_a_list():
    assert normalization().read("0.5,0.25") == (0.5, 0.25)
    assert Options.of({"normalize": [0.5, 0.25]}).task.normalize == (0.5, 0.25)
    assert Options.of({}).task.normalize is None
