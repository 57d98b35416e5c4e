import numpy as np
import pytest

from hypercl.errors import InputError
from hypercl.tasks.labels import Labels, group


def of(*values):
    return np.array(values)


def test_classes_are_numbered_in_the_order_of_their_labels():
    grouped = group(Labels(of(7, -3, 100, 7)), Labels(of(100, -3, 7)), "X")
    assert grouped.tasks == [0]
    assert grouped.classes == [[-3, 7, 100]]
    assert grouped.train.classes.tolist() == [1, 0, 2, 1]
    assert grouped.test.classes.tolist() == [2, 0, 1]


def test_labels_count_within_each_task():
    train = Labels(of(5, 6, 5, 9, 2), of(30, 30, 10, 10, 10))
    test = Labels(of(2, 5, 9, 6, 5), of(10, 10, 10, 30, 30))
    grouped = group(train, test, "X")
    assert grouped.tasks == [10, 30]
    assert grouped.classes == [[2, 5, 9], [5, 6]]
    assert grouped.train.tasks.tolist() == [1, 1, 0, 0, 0]
    assert grouped.train.classes.tolist() == [0, 1, 1, 2, 0]
    assert grouped.test.classes.tolist() == [0, 1, 2, 1, 0]


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (of(0, 1), of(0, 1, 4), "X has test samples of class 4, and no training samples: add"),
        (of(0, 1), of(0, 0), "X has training samples of class 1, and no test samples"),
        (of(0.0, 1.0), of(0, 1), "X has labels or tasks of shape [2] and type float64: give one"),
        (of(True, False), of(0, 1), "type bool"),
        (of([0, 1], [1, 0]), of(0, 1), "shape [2, 2]"),
    ],
)
def test_labels_that_do_not_fit_are_named(train, test, said):
    with pytest.raises(InputError) as error:
        group(Labels(train), Labels(test), "X")
    assert said in str(error.value)


def test_a_task_without_test_samples_is_named():
    with pytest.raises(InputError, match="training samples of class 5 of task 1, and no test"):
        group(Labels(of(5, 5), of(0, 1)), Labels(of(5), of(0)), "X")
