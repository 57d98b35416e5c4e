import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import CPU, fake_images

from hypercl.errors import InputError
from hypercl.experiment import build_tasks
from hypercl.options import Options
from hypercl.tasks import images
from hypercl.tasks.images import load_images
from hypercl.tasks.task import (
    augment,
    describe,
    draw_batches,
    draw_flips,
    draw_offsets,
    with_heads,
)


def build(cl_exp, **values):
    """A sequence of tasks, without validation sets unless they are asked for."""
    values = {"cl_exp": cl_exp, "val_set_size": 0, **values}
    options = Options.of(values)
    return build_tasks(options.task, CPU, options.run.random_seed)


@pytest.fixture
def fake_mnist(monkeypatch):
    made = fake_images(10, 30, (28, 28))
    monkeypatch.setattr(images, "load_images", lambda name, data_dir: made)
    return made


def test_split_mnist_is_the_published_split(tmp_path):
    made = build("splitmnist", num_tasks=5, val_set_size=100, data_dir=str(tmp_path))
    real = load_images("mnist", tmp_path)
    assert [task.name for task in made] == [f"digits {i}-{i + 1}" for i in range(0, 10, 2)]
    for i, task in enumerate(made):
        of_task = np.isin(real.train_labels, [2 * i, 2 * i + 1])
        assert len(task.validation.labels) == 100
        assert len(task.train.labels) == of_task.sum() - 100
        pixels = torch.cat([task.validation.images, task.train.images])  # the first are held out
        labels = torch.cat([task.validation.labels, task.train.labels])
        assert np.array_equal(pixels[..., 0].numpy(), real.train_images[of_task])
        assert np.array_equal(labels.numpy() + 2 * i, real.train_labels[of_task])
        assert len(task.test.labels) == np.isin(real.test_labels, [2 * i, 2 * i + 1]).sum()
        assert task.num_classes == 2
        assert task.in_shape == (28, 28, 1)
        assert set(task.test.labels.tolist()) == {0, 1}


@pytest.mark.parametrize(("num_tasks", "num_classes"), [(3, 3), (10, 1), (1, 10), (2, 4)])
def test_split_mnist_any_number_of_classes(fake_mnist, num_tasks, num_classes):
    made = build("splitmnist", num_tasks=num_tasks, num_classes_per_task=num_classes)
    assert len(made) == num_tasks
    for task in made:
        assert torch.bincount(task.train.labels).tolist() == [30] * num_classes
        assert len(task.validation.labels) == 0


def test_inputs_are_pixels_between_0_and_1(fake_mnist):
    (task,) = build("splitmnist", num_tasks=1)
    inputs = task.inputs(task.train.images[:4])
    assert inputs.shape == (4, 784)
    assert inputs.dtype == torch.float32
    assert torch.equal(inputs * 255, task.train.images[:4].flatten(1).float())


def test_validation_set_as_large_as_the_task(fake_mnist):
    build("splitmnist", num_tasks=1, val_set_size=59)
    with pytest.raises(InputError, match=r"--val_set_size=60 .* 60 training samples"):
        build("splitmnist", num_tasks=1, val_set_size=60)


def test_permuted_mnist(fake_mnist):
    made = build("permmnist", num_tasks=4, val_set_size=10)
    again = build("permmnist", num_tasks=3, val_set_size=10)
    assert made[0].permutation is None
    # the seed and the order of draws of the script this project replaces
    random_state = np.random.RandomState(42)
    for i in (1, 2, 3):
        expected = random_state.permutation(1024)
        assert np.array_equal(made[i].permutation.numpy(), expected)
        if i < 3:
            assert torch.equal(again[i].permutation, made[i].permutation)
    assert made[0].in_shape == (32, 32, 1)
    assert made[0].num_classes == 10
    assert made[2].train.images.data_ptr() == made[0].train.images.data_ptr()  # one copy

    image = made[0].test.images[:1]
    inner = image[0, 2:-2, 2:-2, 0].numpy()
    assert np.array_equal(inner, fake_mnist.test_images[0])
    assert image.sum() == inner.sum()
    plain = made[0].inputs(image)
    assert torch.equal(made[3].inputs(image)[0], plain[0, made[3].permutation])


def build_cifar(cifar_dir, **values):
    return build("splitcifar", data_dir=str(cifar_dir), **values)


def test_split_cifar_with_10_classes_starts_with_cifar10(cifar_dir):
    made = build_cifar(cifar_dir, num_tasks=3, num_classes_per_task=10, val_set_size=7)
    assert [task.name for task in made] == [
        "cifar10 classes 0-9",
        "cifar100 classes 0-9",
        "cifar100 classes 10-19",
    ]
    hundred = load_images("cifar100", cifar_dir)
    third = (hundred.test_labels >= 10) & (hundred.test_labels < 20)
    assert np.array_equal(made[2].test.images.numpy(), hundred.test_images[third])
    assert np.array_equal(made[2].test.labels.numpy() + 10, hundred.test_labels[third])
    assert all(task.augmented for task in made)


@pytest.mark.parametrize("num_classes", [1, 2, 5])
def test_split_cifar_touches_cifar100_only_when_reached(num_classes, cifar_dir):
    values = {"num_classes_per_task": num_classes, "val_set_size": 2}
    from_10 = 10 // num_classes
    made = build_cifar(cifar_dir, num_tasks=from_10 + 1, **values)
    assert [task.name.split()[0] for task in made] == ["cifar10"] * from_10 + ["cifar100"]
    (cifar_dir / "cifar100.npz").unlink()
    assert len(build_cifar(cifar_dir, num_tasks=from_10, **values)) == from_10


def test_cifar_is_normalized(cifar_dir):
    (task,) = build_cifar(cifar_dir, num_tasks=1, num_classes_per_task=10, val_set_size=2)
    pixels = task.train.images[:3]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (pixels.numpy() / 255 - mean) / std
    inputs = task.inputs(pixels)
    assert inputs.shape == (3, 32 * 32 * 3)
    np.testing.assert_allclose(inputs.view(3, 32, 32, 3).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_every_sample_once_an_epoch_in_a_fresh_order():
    generator = torch.Generator().manual_seed(0)
    batches = draw_batches(50, 20, 7, generator)  # 140 draws: two epochs and 40 of the third
    assert batches.shape == (20, 7)
    stream = batches.flatten()
    epochs = [stream[:50], stream[50:100]]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(50))
    assert not torch.equal(*epochs)
    assert len(set(stream[100:].tolist())) == 40


def test_batch_larger_than_the_task():
    batches = draw_batches(3, 2, 8, torch.Generator().manual_seed(0))
    assert torch.bincount(batches.flatten()).tolist() in ([6, 5, 5], [5, 6, 5], [5, 5, 6])


def test_augmentation_equals_the_slow_way():
    """Against one image at a time: pad, cut the window, flip it."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (40, 32, 32, 3), generator=generator, dtype=torch.uint8)
    offsets, flips = draw_offsets(1, 40, generator)[0], draw_flips(1, 40, generator)[0]
    augmented = augment(pixels, offsets, flips)
    assert augmented.dtype == torch.uint8
    for i in range(40):
        top, left = offsets[i].tolist()
        expected = F.pad(pixels[i], (0, 0, 4, 4, 4, 4))[top : top + 32, left : left + 32]
        expected = expected.flip(1) if flips[i] else expected
        assert torch.equal(augmented[i], expected)


def test_augmentation_is_drawn_for_each_image_over_the_whole_range():
    offsets = draw_offsets(50, 32, torch.Generator().manual_seed(0))
    flips = draw_flips(50, 32, torch.Generator().manual_seed(0))
    assert offsets.shape == (50, 32, 2)
    assert set(offsets.flatten().tolist()) == set(range(9))
    assert 0.4 < flips.float().mean() < 0.6
    assert len({tuple(offset) for offset in offsets[0].tolist()}) > 10


def test_a_sequence_may_start_later(fake_mnist):
    late = build("splitmnist", num_tasks=2, skip_tasks=3)
    assert [task.name for task in late] == ["digits 6-7", "digits 8-9"]
    every = build("permmnist", num_tasks=4)
    late = build("permmnist", num_tasks=2, skip_tasks=2)
    for task, same in zip(late, every[2:], strict=True):
        assert task.name == same.name
        assert torch.equal(task.permutation, same.permutation)


def test_split_cifar_may_start_with_cifar100(cifar_dir):
    (cifar_dir / "cifar10.npz").unlink()  # not needed
    late = build_cifar(
        cifar_dir, num_tasks=2, num_classes_per_task=10, skip_tasks=1, no_augmentation=True
    )
    assert [task.name for task in late] == ["cifar100 classes 0-9", "cifar100 classes 10-19"]
    assert not late[0].augmented


def test_fewer_training_samples(fake_mnist):
    values = {"num_tasks": 1, "val_set_size": 5}
    (every,) = build("splitmnist", **values)
    (few,) = build("splitmnist", num_train_samples=7, **values)
    assert torch.equal(few.train.images, every.train.images[:7])
    assert torch.equal(few.test.images, every.test.images)
    with pytest.raises(InputError, match="--num_train_samples=56 with --val_set_size=5"):
        build("splitmnist", num_train_samples=56, **values)


def test_padding_of_permuted_mnist(fake_mnist):
    (task,) = build("permmnist", num_tasks=1, padding=0)
    assert task.in_shape == (28, 28, 1)


def test_heads_of_its_own_for_each_task(fake_mnist):
    made = build("splitmnist", num_tasks=3, num_classes_per_task=3)
    assert all(task.outputs == slice(None) for task in made)
    heads = [slice(0, 3), slice(3, 6), slice(6, 9)]
    assert [task.outputs for task in with_heads(made)] == heads
    made = build("splitmnist", num_tasks=3, num_classes_per_task=3, multi_head=True)
    assert [task.outputs for task in made] == heads


REVERSED = list(range(9, -1, -1))


def test_classes_are_dealt_out_in_an_order_that_is_given(fake_mnist):
    made = build("splitmnist", class_order=REVERSED, num_tasks=2, skip_tasks=1)
    assert [task.name for task in made] == ["digits 7, 6", "digits 5, 4"]
    images, labels = fake_mnist.train_images, fake_mnist.train_labels
    chosen = np.isin(labels, [6, 7])
    assert np.array_equal(made[0].train.images[..., 0].numpy(), images[chosen])
    assert np.array_equal(made[0].train.labels.numpy(), 7 - labels[chosen].astype(int))
    natural = build("splitmnist", class_order=list(range(10)))
    assert [task.name for task in natural] == [task.name for task in build("splitmnist")]


def test_a_random_order_follows_from_the_seed_alone(fake_mnist):
    def names(seed, **values):
        made = build("splitmnist", class_order="random", random_seed=seed, **values)
        return [task.name for task in made]

    assert names(3) == names(3, num_seeds=4) != names(4)
    digits = [int(word) for name in names(3) for word in re.findall(r"\d+", name)]
    assert sorted(digits) == list(range(10)) != digits


def test_split_cifar_keeps_its_data_sets_apart_in_any_order(cifar_dir):
    values = {"num_tasks": 4, "num_classes_per_task": 5, "val_set_size": 2}
    order = [*REVERSED, *range(109, 9, -1)]
    made = build_cifar(cifar_dir, class_order=order, **values)
    assert [task.name for task in made] == [
        "cifar10 classes 9, 8, 7, 6, 5",
        "cifar10 classes 4, 3, 2, 1, 0",
        "cifar100 classes 99, 98, 97, 96, 95",
        "cifar100 classes 94, 93, 92, 91, 90",
    ]
    assert made[2].test.labels.tolist()[:5] == [4, 3, 2, 1, 0]  # of the classes 95 … 99
    made = build_cifar(cifar_dir, class_order=REVERSED, **values)  # of CIFAR-10 alone
    assert made[2].name == "cifar100 classes 0-4"
    made = build_cifar(cifar_dir, class_order="random", **values)
    assert [task.name.split()[0] for task in made] == ["cifar10"] * 2 + ["cifar100"] * 2


def test_tasks_of_unequal_sizes(fake_mnist):
    sizes = {"num_classes_per_task": [4, 3, 1]}
    made = build("splitmnist", **sizes)
    assert [task.name for task in made] == ["digits 0-3", "digits 4-6", "digits 7"]
    assert [task.num_classes for task in made] == [4, 3, 1]
    assert [task.outputs for task in made] == [slice(None), slice(3), slice(1)]
    assert describe(made) == "3 tasks of 4, 3, 1 classes"
    assert describe(made[1:2]) == "1 task of 3 classes"
    heads = [task.outputs for task in build("splitmnist", multi_head=True, **sizes)]
    assert heads == [slice(0, 4), slice(4, 7), slice(7, 8)]
    late = build("splitmnist", skip_tasks=1, **sizes)
    assert [task.name for task in late] == ["digits 4-6", "digits 7"]
    assert [task.outputs for task in late] == [slice(None), slice(1)]


def test_tasks_of_unequal_sizes_reach_cifar100(cifar_dir):
    made = build_cifar(cifar_dir, num_classes_per_task=[7, 3, 20], val_set_size=2)
    assert [task.name for task in made] == [
        "cifar10 classes 0-6", "cifar10 classes 7-9", "cifar100 classes 0-19",
    ]  # fmt: skip


@pytest.mark.parametrize(("split", "field"), [("training", "train"), ("test", "test")])
def test_a_task_without_samples_is_named(split, field, fake_mnist, monkeypatch):
    pixels, labels = (getattr(fake_mnist, f"{field}_{kind}") for kind in ("images", "labels"))
    kept = ~np.isin(labels, [2, 3])
    less = {f"{field}_images": pixels[kept], f"{field}_labels": labels[kept]}
    monkeypatch.setattr(images, "load_images", lambda *_: fake_mnist._replace(**less))
    with pytest.raises(InputError, match=f"no {split} samples for 'digits 2-3'"):
        build("splitmnist", num_tasks=5)


@pytest.mark.parametrize(
    ("cl_exp", "values"),
    [("splitmnist", {}), ("permmnist", {}), ("permmnist", {"padding": 0}), ("splitcifar", {})],
)
def test_the_shape_of_the_images_is_known_before_they_are_loaded(cl_exp, values, monkeypatch):
    made = fake_images(10, 3, (32, 32, 3) if cl_exp == "splitcifar" else (28, 28))
    monkeypatch.setattr(images, "load_images", lambda *_: made)
    known = Options.of({"cl_exp": cl_exp, **values}).task.kind.image_shape
    assert known == build(cl_exp, num_tasks=1, **values)[0].in_shape
