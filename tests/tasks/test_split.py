import pytest
import torch

from hypercl.errors import InputError
from hypercl.options import Options
from hypercl.tasks.split import held_out_task, list_of, stratified
from hypercl.tasks.task import Split


def in_order(*sizes):
    """Labels of so many samples of each class, one class after the other."""
    return torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))


@pytest.mark.parametrize(
    ("sizes", "number", "held"),
    [
        ((50, 50), 10, [5, 5]),
        ((60, 30, 10), 10, [6, 3, 1]),
        ((5, 5, 5), 4, [2, 1, 1]),
        ((1, 9), 5, [0, 5]),  # one of each class is trained on
        ((2, 2, 6), 7, [1, 1, 5]),
        ((3, 4), 0, [0, 0]),
        ((2, 2), 2, [1, 1]),
    ],
)
def test_validation_samples_are_in_proportion_to_the_classes(sizes, number, held):
    labels = in_order(*sizes)
    is_held = stratified(labels, number)
    assert torch.bincount(labels[is_held], minlength=len(sizes)).tolist() == held
    for label, count in enumerate(held):
        of_class = is_held[labels == label].tolist()
        assert of_class == [True] * count + [False] * (len(of_class) - count)


def test_something_of_each_class_is_left_to_train_on():
    samples = Split(torch.zeros(4, 1), in_order(2, 2))

    def make(**values):
        options = Options.of({"val_split": "stratified", **values}).task
        return held_out_task("a task", 2, samples, samples, options)

    assert make(val_set_size=2).train.labels.tolist() == [0, 1]
    with pytest.raises(InputError, match=r"--val_set_size=3 leaves 1 of 4 training samples of"):
        make(val_set_size=3)
    with pytest.raises(InputError, match=r"--val_set_size=1 leaves 1 of 2 training samples"):
        make(val_set_size=1, num_train_samples=1)


def test_a_task_keeps_the_order_of_the_samples_it_trains_on():
    labels = in_order(6, 4)
    samples = Split(torch.arange(10.0)[:, None], labels)

    def held(**values):
        return held_out_task("a task", 2, samples, samples, Options.of(values).task)

    task = held(val_set_size=5, val_split="stratified", num_train_samples=3)
    assert task.validation.images.flatten().tolist() == [0, 1, 2, 6, 7]
    assert task.train.images.flatten().tolist() == [3, 4, 8]
    assert held(val_set_size=5, val_split="stratified").train.images.numel() == 5
    shared = held(val_set_size=0, val_split="stratified")
    assert shared.train.images is samples.images
    first = held(val_set_size=5)
    assert first.validation.images.flatten().tolist() == [0, 1, 2, 3, 4]


def test_many_names_are_shown_as_the_first_and_the_last():
    assert list_of(["cat", "dog"]) == "cat, dog"
    assert list_of([f"class{i}" for i in range(100)]) == "class0 to class99 (100)"
