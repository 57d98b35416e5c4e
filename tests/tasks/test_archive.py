"""What an .npz of the user's says before it is read, and every way in which it can be bad."""

import zipfile

import numpy as np
import pytest

from hypercl.errors import InputError
from hypercl.tasks import archive
from hypercl.tasks.archive import open_archive


def arrays(n=6, shape=(4, 4), dtype=np.uint8):
    """Two classes, 0 and 1."""
    labels = np.arange(n) % 2
    images = (np.arange(n).reshape(-1, *[1] * len(shape)) + np.zeros(shape)).astype(dtype)
    return {
        "train_images": images, "train_labels": labels,
        "test_images": images[:4], "test_labels": labels[:4],
    }  # fmt: skip


def saved(tmp_path, **changed):
    path = tmp_path / "data.npz"
    there = {name: value for name, value in {**arrays(), **changed}.items() if value is not None}
    np.savez(path, **there)
    return path


@pytest.mark.parametrize(
    ("shape", "dtype", "image_shape"),
    [
        ((4, 5), np.uint8, (4, 5, 1)),
        ((4, 5, 3), np.uint8, (4, 5, 3)),
        ((4, 5, 3), np.float32, (4, 5, 3)),
        ((7,), np.float64, (7,)),
        ((7,), np.float16, (7,)),
        ((7,), ">f4", (7,)),
    ],
)
def test_shapes_are_known_before_images_are_read(shape, dtype, image_shape, tmp_path, monkeypatch):
    made = arrays(shape=shape, dtype=dtype)
    path = saved(tmp_path, **made)
    with monkeypatch.context() as patch:
        patch.setattr(np, "load", None)
        known = open_archive(path)
        assert known.image_shape == image_shape
        assert known.classes == [["0", "1"]]
        assert known.num_bytes == 10 * np.prod(shape) * (1 if dtype == np.uint8 else 4)
    loaded = known.load("unused").images
    assert loaded.train_images.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    assert np.array_equal(loaded.test_images, made["test_images"])


def test_a_compressed_archive_is_the_same(tmp_path):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, **arrays())
    assert open_archive(path).image_shape == (4, 4, 1)


def test_tasks_that_the_archive_says(tmp_path):
    tasks = np.array([3, 3, 8, 8, 8, 8])
    labels = np.array([5, 9, 9, 5, 6, 6])
    made = {"train_labels": labels, "test_labels": labels, "test_images": arrays()["train_images"]}
    known = open_archive(saved(tmp_path, **made, train_tasks=tasks, test_tasks=tasks))
    assert known.has_tasks
    assert known.task_names == ["task 3", "task 8"]
    assert known.classes == [["5", "9"], ["5", "6", "9"]]
    loaded = known.load("unused")
    assert loaded.train_tasks.tolist() == [0, 0, 1, 1, 1, 1]
    assert loaded.images.train_labels.tolist() == [0, 1, 2, 0, 1, 1]


def no_images(dtype):
    return {name: arrays()[name].astype(dtype) for name in ("train_images", "test_images")}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"train_labels": None}, "lacks train_labels: add"),
        ({"train_images": None, "test_labels": None}, "lacks train_images, test_labels"),
        ({"train_tasks": np.zeros(6, int)}, "lacks test_tasks"),
        ({"train_labels": np.arange(6) / 2}, "train_labels is float64 of shape [6]: give one"),
        ({"train_labels": np.zeros((6, 1), int)}, "train_labels is int64 of shape [6, 1]"),
        ({"train_labels": np.zeros(5, int)}, "has 6 train_images and 5 train_labels: give one"),
        ({"train_labels": np.array(list("ababab"))}, "train_labels is <U1"),
        ({"train_labels": np.array(["a"] * 6, object)}, "has Python objects in train_labels"),
        ({"train_images": np.array([{}] * 6, object)}, "has Python objects in train_images"),
        ({"test_labels": np.array([0, 1, 2, 1])}, "test samples of class 2, and no training"),
        ({"test_labels": np.zeros(4, int)}, "training samples of class 1, and no test samples"),
        ({"test_images": np.zeros((4, 4, 5), np.uint8)}, "[4, 4] uint8 and test_images [4, 5]"),
        (no_images(np.int32), "train_images is int32, not uint8 or floats"),
        ({"train_images": arrays(dtype=np.float32)["train_images"]}, "float32 and test_images"),
        (arrays(shape=(3,)), "train_images is uint8, not floats"),
        (arrays(shape=(3, 0)), "has shape [6, 3, 0], not [N, H, W], [N, H, W, C] or [N, D]"),
        (arrays(shape=()), "has shape [6], not"),
        (arrays(n=0), "cannot be used: train_images has no samples: add some"),
        (arrays(shape=(3, 8, 8)), "shape [6, 3, 8, 8], which looks like [N, C, H, W]: give [N, H"),
        ({"test_labels": None, "y_test": np.zeros(3)}, "lacks test_labels, and has y_test: add"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(changed, said, tmp_path):
    path = saved(tmp_path, **changed)
    with pytest.raises(InputError) as error:
        open_archive(path)
    message = str(error.value)
    assert message.startswith(f"{path} ")
    assert said in message
    assert "\n" not in message


def test_numbers_that_are_not_finite_are_found_with_their_sample(tmp_path):
    for value in (np.nan, np.inf, 1e300):  # the last: as a float32
        made = arrays(shape=(3,), dtype=np.float64)
        made["test_images"] = made["test_images"].copy()
        made["test_images"][2, 1] = value
        known = open_archive(saved(tmp_path, **made))
        with pytest.raises(InputError, match="sample 2 has a number that is not finite"):
            known.load("unused")


def test_floats_that_are_bytes_are_warned_of(tmp_path):
    images = {name: np.full((6, 4, 4), 255.0) for name in ("train_images", "test_images")}
    made = {**images, "test_labels": arrays()["train_labels"]}
    with pytest.warns(UserWarning, match=r"floats from 255 to 255, which .* --normalize=0,255"):
        assert open_archive(saved(tmp_path, **made)).load("unused").images.test_images.max() == 255


def test_objects_are_never_unpickled(tmp_path, capsys):
    class Loud:
        def __reduce__(self):
            return print, ("executed",)

    path = saved(tmp_path, test_labels=np.array([Loud()] * 4, object))
    with pytest.raises(InputError, match="Python objects in test_labels"):
        open_archive(path)
    assert capsys.readouterr().out == ""


def test_an_array_that_is_shorter_than_it_says(tmp_path):
    """As of an archive that would unpack to more than there is memory."""
    path = saved(tmp_path)
    with zipfile.ZipFile(path) as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    parts["train_images.npy"] = parts["train_images.npy"].replace(b"(6, 4, 4)", b"(9, 4, 4)")
    with zipfile.ZipFile(path, "w") as other:
        for name, data in parts.items():
            other.writestr(name, data)
    with pytest.raises(InputError, match=r"train_images\.npy is not as long as it says"):
        open_archive(path)


def test_more_labels_than_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "total_memory", lambda: 20)
    with pytest.raises(InputError, match="more labels than this machine has memory"):
        open_archive(saved(tmp_path))


def test_whatever_is_damaged_is_one_line(tmp_path):
    path = saved(tmp_path)
    data, random = path.read_bytes(), np.random.default_rng(0)
    damaged = [data[:n] for n in random.integers(0, len(data), 20)]
    for position in random.integers(0, len(data), 60):
        flipped = bytearray(data)
        flipped[position] ^= 1 << random.integers(8)
        damaged.append(bytes(flipped))
    said = []
    for content in damaged:
        path.write_bytes(content)
        try:
            open_archive(path).load("unused")
        except InputError as error:
            said.append(str(error))
    assert len(said) > 40
    assert all(str(path) in message and "\n" not in message for message in said)
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(InputError, match=r"text\.npz is damaged or no \.npz file .*: write it"):
        open_archive(tmp_path / "text.npz")
    with pytest.raises(InputError, match=r"none\.npz does not exist"):
        open_archive(tmp_path / "none.npz")


def test_an_archive_that_changes_before_it_is_read(tmp_path):
    known = open_archive(saved(tmp_path))
    saved(tmp_path, **arrays(n=8))
    with pytest.raises(InputError, match="has changed since it was looked at"):
        known.load("unused")
