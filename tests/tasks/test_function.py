"""What a function of the user's may return, and everything else."""

import numpy as np
import pytest
import torch
from helpers import CPU
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from hypercl.errors import InputError
from hypercl.options import Options
from hypercl.tasks.function import as_arrays, make_task

LABELS = np.array([0, 1, 0, 1])


def task(shape=(3,), dtype=np.float32, labels=LABELS):
    inputs = np.arange(len(labels)).reshape(-1, *[1] * len(shape)) + np.zeros(shape)
    return inputs.astype(dtype), labels, inputs.astype(dtype), labels


def built(returned, number=0, **values):
    options = Options.of({"val_set_size": 0, **values}).task
    return make_task(as_arrays(returned, "f")[number], number, "f", options, CPU)


def test_arrays_tensors_and_lists():
    inputs, labels, *_ = task()
    tensors = torch.tensor(inputs, requires_grad=True), torch.tensor(labels)
    lists = inputs.tolist(), labels.tolist()
    for part in ((inputs, labels), tensors, lists):
        made = built([(*part, *part)])
        assert made.name == "task 0"
        assert torch.equal(made.train.images, torch.tensor(inputs))
        assert made.test.labels.tolist() == [0, 1, 0, 1]
        assert made.in_shape == (3,)


def test_labels_count_within_the_task():
    made = built([task(labels=np.array([7, -1, 7, 30]))])
    assert made.num_classes == 3
    assert made.train.labels.tolist() == [1, 0, 1, 2]
    assert made.class_names == ("-1", "7", "30")


def test_images_keep_their_bytes_and_other_arrays_are_made_usable():
    assert built([task((4, 4), np.uint8)]).in_shape == (4, 4, 1)
    assert built([task((4, 4, 3), np.uint8)]).train.images.dtype == torch.uint8
    inputs, labels, *_ = task(dtype=np.float64)
    reversed_ = inputs[::-1]
    reversed_.flags.writeable = False
    made = built([(reversed_, labels, reversed_, labels)])
    assert made.train.images.dtype == torch.float32
    assert made.train.images[:, 0].tolist() == [3, 2, 1, 0]
    half = torch.ones(4, 2, dtype=torch.bfloat16)
    assert built([(half, LABELS, half, LABELS)]).train.images.dtype == torch.float32


class Pictures(Dataset):
    """As torchvision's data sets are: images of PIL, before any transform."""

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return Image.new("RGB", (5, 4), (i, 50, 100)), i % 2


def test_datasets():
    chw = torch.zeros(4, 3, 6, 5)
    chw[:, 1] = 0.5
    made = built([(TensorDataset(chw, torch.tensor(LABELS)),) * 2])
    assert made.in_shape == (6, 5, 3)
    assert made.train.images[0, 0, 0].tolist() == [0, 0.5, 0]
    hwc = TensorDataset(chw.permute(0, 2, 3, 1).contiguous(), torch.tensor(LABELS))
    assert torch.equal(built([(hwc, hwc)]).train.images, made.train.images)
    made = built([(Pictures(), Pictures())])
    assert made.train.images.dtype == torch.uint8
    assert made.train.images[3, 0, 0].tolist() == [3, 50, 100]
    assert made.train.labels.tolist() == [0, 1, 0, 1]


ONE = torch.zeros(2, 3), torch.tensor([0, 1])
BAD = {
    "nothing": (None, "f returns None: let it return a list of tasks"),
    "an empty list": ([], "f returns a list of 0"),
    "a text": ("tasks", "f returns a str"),
    "a number for a task": ([3], "task 0 of f is an int"),
    "three parts": ([task()[:3]], "task 0 of f is a tuple of 3"),
    "two arrays": ([task()[:2]], "an item of a Dataset is a"),
    "no Datasets": ([(iter(()), iter(()))], "let a pair be Datasets with a length"),
    "an empty Dataset": ([(TensorDataset(ONE[0][:0], ONE[1][:0]),) * 2], "without items"),
    "items of one part": ([(TensorDataset(ONE[0]),) * 2], "is a tuple of 1: let it be (input"),
    "a Dataset among arrays": ([(TensorDataset(*ONE), LABELS, *task()[2:])], "a pair of Datasets"),
    "integers": ([task(dtype=np.int64)], "train_inputs is int64, not floats"),
    "bytes in a table": ([task(dtype=np.uint8)], "train_inputs is uint8, not floats"),
    "too many dimensions": ([task((2, 2, 2, 2))], "has shape [4, 2, 2, 2, 2]"),
    "channels first": ([task((3, 8, 8), np.uint8)], "looks like [N, C, H, W]"),
    "other shapes": ([task(), task((4,))], "task 1 of f has inputs [4] float32, and the first"),
    "other types": ([task((4, 4)), task((4, 4), np.uint8)], "[4, 4] uint8, and the first"),
    "test of another shape": ([(*task()[:2], *task((4,))[2:])], "task 0 of f has inputs [4]"),
    "too few labels": ([(task()[0], LABELS[:3], *task()[2:])], "4 train_inputs and labels of sha"),
    "labels in rows": ([(task()[0], LABELS[:, None], *task()[2:])], "shape [4, 1]"),
    "labels as floats": ([task(labels=LABELS / 2)], "type float64: give one whole number"),
    "an unknown test label": ([(*task()[:3], LABELS + 1)], "test samples of class 2, and no tr"),
    "not a number": ([(task()[0] * np.nan, *task()[1:])], "task 0 of f: sample 0 has a number"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_sequence_of_tasks_is_refused_in_one_line(what):
    returned, said = BAD[what]
    with pytest.raises(InputError) as error:
        built(returned)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_items_of_different_shapes():
    class Growing(Pictures):
        def __getitem__(self, i):
            return torch.zeros(3 + i), 0

    with pytest.raises(InputError, match=r"item 1 of a Dataset has shape \[4\], and the first"):
        built([(Growing(), Growing())])
