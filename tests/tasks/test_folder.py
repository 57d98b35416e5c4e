"""Folders of images: what is found there, how images are read, and a cache that notices changes."""

import os

import numpy as np
import pytest
from PIL import Image

from hypercl.errors import InputError
from hypercl.tasks import folder as folders
from hypercl.tasks.folder import open_folder


def picture(path, value=0, size=(6, 4), mode="RGB"):
    """One color; ``size``: width, height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = len(Image.new(mode, (1, 1)).getbands())
    Image.new(mode, size, value if bands == 1 else (value,) * bands).save(path)
    return path


def fill(top, classes=("cat", "dog"), number=3, **how):
    for part in ("train", "test"):
        for i in range(number):
            for label, name in enumerate(classes):
                picture(top / part / name / f"{i}.png", 40 * label + i, **how)
    return top


@pytest.fixture
def decoded(monkeypatch):
    """How often an image has been decoded."""
    calls = []
    decode = folders._decode
    monkeypatch.setattr(folders, "_decode", lambda *args: (calls.append(args[0]), decode(*args))[1])
    return calls


def test_images_are_read_in_order_of_classes_and_names(tmp_path):
    known = open_folder(fill(tmp_path / "pets"))
    assert known.classes == [["cat", "dog"]]
    assert known.image_shape == (4, 6, 3)
    assert known.num_bytes == 12 * 4 * 6 * 3
    assert not known.has_tasks
    loaded = known.load(str(tmp_path / "cache")).images
    assert loaded.train_images.shape == (6, 4, 6, 3)
    assert loaded.train_images[:, 0, 0, 0].tolist() == [0, 1, 2, 40, 41, 42]
    assert loaded.train_labels.tolist() == loaded.test_labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_folder_of_tasks_each_with_classes_of_its_own(tmp_path):
    for number in (10, 2):
        fill(tmp_path / f"task{number}", [f"a{number}", "b"][: 1 + (number == 2)])
    known = open_folder(tmp_path)
    assert known.has_tasks
    assert known.task_names == ["task2", "task10"]
    assert known.classes == [["a2", "b"], ["a10"]]
    loaded = known.load(str(tmp_path / "cache"))
    assert loaded.train_tasks.tolist() == [0] * 6 + [1] * 3
    assert loaded.images.train_labels.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0]


def test_six_hundred_images_are_decoded_once(tmp_path, decoded):
    fill(tmp_path / "many", ["a", "b", "c"], number=100, size=(2, 2))
    first = open_folder(tmp_path / "many").load(str(tmp_path / "cache"))
    assert len(decoded) == 600
    again = open_folder(tmp_path / "many").load(str(tmp_path / "cache"))
    assert len(decoded) == 600
    for one, other in zip(first.images, again.images, strict=True):
        assert np.array_equal(one, other)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npz"]


CHANGES = {
    "another image": lambda top: picture(top / "train" / "cat" / "0.png", 99),
    "a new one": lambda top: picture(top / "train" / "cat" / "new.jpg", 7),
    "one less": lambda top: (top / "test" / "dog" / "2.png").unlink(),
    "another name": lambda top: (top / "test/dog/2.png").rename(top / "test/dog/9.png"),
    "another class": lambda top: fill(top, ["eel"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_cache_notices(change, tmp_path, decoded):
    top, cache = fill(tmp_path / "pets"), tmp_path / "cache"
    before = open_folder(top).load(str(cache))
    number = len(decoded)
    CHANGES[change](top)
    after = open_folder(top).load(str(cache))
    assert len(decoded) > number
    same = [np.array_equal(*pair) for pair in zip(before.images, after.images, strict=True)]
    assert all(same) == (change == "another name")
    assert len(list(cache.iterdir())) == 1


def test_a_touched_image_and_a_damaged_cache_are_decoded_anew(tmp_path, decoded):
    top, cache = fill(tmp_path / "pets"), tmp_path / "cache"
    open_folder(top).load(str(cache))
    os.utime(top / "train" / "cat" / "0.png", ns=(1, 1))
    open_folder(top).load(str(cache))
    assert len(decoded) == 24
    (file,) = cache.iterdir()
    data = file.read_bytes()
    for damaged in (data[: len(data) // 2], b"", data[:300] + bytes(40) + data[340:]):
        file.write_bytes(damaged)
        number = len(decoded)
        loaded = open_folder(top).load(str(cache))
        assert len(decoded) == number + 12
        assert loaded.images.train_images[0].max() == 0


def test_sizes_have_caches_of_their_own(tmp_path):
    known = open_folder(fill(tmp_path / "pets"))
    small, large = (known._replace(image_size=size) for size in (2, 5))
    for of_size in (small, large):
        size = of_size.image_size
        assert of_size.image_shape == (size, size, 3)
        loaded = of_size.load(str(tmp_path / "cache"))
        assert loaded.images.test_images.shape == (6, size, size, 3)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_images_are_resized_as_torchvision_does(tmp_path):
    from torchvision.transforms import CenterCrop, Compose, Resize

    top = fill(tmp_path / "pets", number=1)
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (37, 61, 3), dtype=np.uint8))
    image.save(top / "train" / "cat" / "0.png")
    loaded = open_folder(top)._replace(image_size=16).load(str(tmp_path / "cache"))
    expected = np.asarray(Compose([Resize(16), CenterCrop(16)])(image))
    assert np.array_equal(loaded.images.train_images[0], expected)


def test_the_first_image_says_whether_there_are_colors(tmp_path):
    top = fill(tmp_path / "gray", mode="L")
    assert open_folder(top).image_shape == (4, 6, 1)
    picture(top / "test" / "dog" / "1.png", 5, mode="RGB")
    with pytest.raises(InputError, match=r"test/dog/1\.png has colors, and the first image has n"):
        open_folder(top).load(str(tmp_path / "cache"))
    top = fill(tmp_path / "colored")
    for number, mode in enumerate(("L", "RGBA", "P")):
        picture(top / "test" / "dog" / f"{number}.png", 5, mode=mode)
    loaded = open_folder(top).load(str(tmp_path / "cache"))
    assert loaded.images.test_images[3:5].max() == 5


def test_of_images_that_differ_the_first_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "_AT_ONCE", 1)
    top = fill(tmp_path / "pets", number=5)
    for name in ("cat/3.png", "dog/0.png"):
        picture(top / "train" / name, size=(6, 5))
    with pytest.raises(InputError) as error:
        open_folder(top).load(str(tmp_path / "cache"))
    path = top / "train" / "cat" / "3.png"
    assert str(error.value) == (
        f"{path} has 5x6 pixels, and the first image has 4x6: give --image_size, to which all are "
        "resized"
    )
    assert not list((tmp_path / "cache").glob("*.npz"))


def broken(top):
    path = top / "train" / "dog" / "1.png"
    return {
        "no image": (lambda: path.write_text("text"), path, "cannot be read (cannot identify"),
        "cut": (lambda: path.write_bytes(path.read_bytes()[:50]), path, "cannot be read ("),
        "16 bits": (
            lambda: Image.fromarray(np.zeros((4, 6), np.uint16)).save(path), path, "8 bits",
        ),
        "gone": (lambda: (path.unlink(), path.symlink_to("nowhere")), path, "cannot be read (No"),
    }  # fmt: skip


@pytest.mark.parametrize("what", ["no image", "cut", "16 bits", "gone"])
def test_an_image_that_cannot_be_read_is_named(what, tmp_path):
    top = fill(tmp_path / "pets")
    make, path, said = broken(top)[what]
    make()
    with pytest.raises(InputError) as error:
        open_folder(top).load(str(tmp_path / "cache"))
    message = str(error.value)
    assert message.startswith(str(path))
    assert said in message
    assert "\n" not in message


def test_folders_that_are_not_as_they_should_be(tmp_path):
    def refused(said):
        with pytest.raises(InputError) as error:
            open_folder(tmp_path / "top")
        assert said in str(error.value)
        assert "\n" not in str(error.value)

    top = tmp_path / "top"
    top.mkdir()
    refused("has no images as they are looked for: give it train/<class>/*.png")
    for part in ("train", "test"):
        (top / part).mkdir()
    refused("train has no folder for a class")
    (top / "train" / "cat").mkdir()
    refused(f"train/cat has no counterpart in {top / 'test'}")
    (top / "test" / "cat").mkdir()
    refused("train/cat has no images (.jpg")
    picture(top / "train" / "cat" / "a.PNG")
    (top / "test" / "cat" / "notes.txt").write_text("")
    refused("test/cat has no images")


def test_without_a_place_for_the_cache_images_are_decoded_and_that_is_said(tmp_path, monkeypatch):
    def refuse(path, *, wait):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(folders, "Lock", refuse)
    known = open_folder(fill(tmp_path / "pets"))
    with pytest.warns(UserWarning, match=r"decoded anew in each run, .*\(Permission denied\)"):
        loaded = known.load(str(tmp_path / "cache"))
    assert len(loaded.images.train_labels) == 6


def test_progress_is_said_where_it_takes_a_while(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(folders, "_SAY_EVERY", -1)
    open_folder(fill(tmp_path / "pets")).load(str(tmp_path / "cache"))
    assert "12 of 12 images of" in capsys.readouterr().err
