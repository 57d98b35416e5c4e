"""A folder of images of the user's: decoded once, into an .npz in --data_dir that notices changes.

``train/<class>/*.png`` and ``test/<class>/*.png``, as torchvision's ImageFolder has them; or
several such folders, each a task.
"""

import hashlib
import os
import re
import sys
import time
import warnings
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from hypercl.errors import InputError, reason
from hypercl.lock import Lock
from hypercl.tasks.images import Images, write_npz
from hypercl.tasks.samples import Loaded

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_GRAY, _COLOR = ("1", "L", "LA"), ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")
_MEND = "replace it, or take it away"
_AT_ONCE = 32  # images that a thread decodes before it is asked again
_SAY_EVERY = 5  # seconds
_FORM = 1  # of the cache; raised when what it holds changes


class File(NamedTuple):
    """An image, before it is read."""

    name: str  # its path in the folder
    task: int
    label: int
    size: int  # bytes
    changed: int  # nanoseconds


class Folder(NamedTuple):
    """A folder, before its images are read."""

    path: Path
    task_names: list[str]  # of its folders; [""] where it has classes itself
    classes: list[list[str]]  # of each task, in alphabetical order
    image_size: int | None = None  # to which images are resized and cropped

    @property
    def title(self) -> str:
        """As messages have it."""
        return str(self.path)

    @property
    def has_tasks(self) -> bool:
        """Whether it says which tasks there are."""
        return self.task_names != [""]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C), as the first image has it: the others are to be like it.

        Raises:
            InputError: It cannot be read.
        """
        top, _, _ = next(_tops(self, "train"))
        with _opened(Path(next(_paths(top)))) as image:
            width, height = image.size
            channels = 1 if image.mode in _GRAY else 3
        size = self.image_size
        return (height, width, channels) if size is None else (size, size, channels)

    @property
    def num_bytes(self) -> int:
        """Of the images in memory."""
        tops = (top for part in ("train", "test") for top, _, _ in _tops(self, part))
        number = sum(1 for top in tops for _ in _paths(top))
        return number * int(np.prod(self.image_shape))

    def load(self, data_dir: str) -> Loaded:
        """Read the images from the cache, which is made or made anew where it is not of these.

        Raises:
            InputError: An image cannot be read or differs from the others in size, or the cache
                cannot be written.
        """
        files = {part: list(_files(self, part)) for part in ("train", "test")}
        stamp = self._stamp(files)
        path = self._cache(data_dir)
        if (loaded := _cached(path, stamp)) is not None:
            return loaded
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = Lock(path.with_name(f".{path.name}.lock"), wait=True)
        except OSError as error:
            warnings.warn(
                f"the images of {self.title} are decoded anew in each run, as {path} cannot be "
                f"written ({error.strerror or error}): choose another --data_dir",
                stacklevel=2,
            )
            return self._decoded(files)
        try:
            if (loaded := _cached(path, stamp)) is not None:  # by another process meanwhile
                return loaded
            loaded = self._decoded(files)
            write_npz({**_arrays(loaded), "stamp": np.array(stamp)}, path)
        finally:
            lock.release()
        return loaded

    def _cache(self, data_dir: str) -> Path:
        where = os.path.realpath(self.path)
        key = hashlib.sha256(os.fsencode(where)).hexdigest()[:8]
        size = "" if self.image_size is None else f"-{self.image_size}"
        return Path(data_dir, f"{os.path.basename(where)}-{key}{size}.npz")

    def _stamp(self, files: dict[str, list[File]]) -> str:
        """What changes with any of the images, or with how they are read."""
        digest = hashlib.sha256(repr((_FORM, self.image_size)).encode())
        for part in files.values():
            for file in part:
                digest.update(os.fsencode(repr(tuple(file))))
        return digest.hexdigest()

    def _decoded(self, files: dict[str, list[File]]) -> Loaded:
        shape, parts = self.image_shape, {}
        progress = _Progress(self.title, sum(map(len, files.values())))
        for part, of_part in files.items():
            pixels = np.empty((len(of_part), *shape), dtype=np.uint8)
            _decode_all(self, of_part, pixels, progress)
            labels = np.array([file.label for file in of_part], dtype=np.int64)
            parts[part] = pixels, labels, np.array([file.task for file in of_part], dtype=np.int64)
        (train, train_labels, train_tasks), (test, test_labels, test_tasks) = parts.values()
        return Loaded(Images(train, train_labels, test, test_labels), train_tasks, test_tasks)


def open_folder(path: Path) -> Folder:
    """Look for the tasks and classes in a folder.

    Raises:
        InputError: It has no such folders, or a class has no images for training or for testing.
    """
    tasks = [""] if _is_task(path) else [name for name in _folders(path) if _is_task(path / name)]
    if not tasks:
        raise InputError(
            f"{path} has no images as they are looked for: give it train/<class>/*.png and "
            "test/<class>/*.png, or task0/train/<class>/*.png and so on"
        )
    classes = []
    for task in tasks:
        of_task, tested = (_folders(path / task / part) for part in ("train", "test"))
        if not of_task:
            raise InputError(f"{path / task / 'train'} has no folder for a class: add them")
        if alone := sorted(set(of_task) ^ set(tested)):
            there, missing = ("train", "test") if alone[0] in of_task else ("test", "train")
            raise InputError(
                f"{path / task / there / alone[0]} has no counterpart in {path / task / missing}: "
                "add images of that class, or take it away"
            )
        classes.append(of_task)
    folder = Folder(path, tasks, classes)
    for top, _, _ in (top for part in ("train", "test") for top in _tops(folder, part)):
        if next(_paths(top), None) is None:
            raise InputError(f"{top} has no images ({', '.join(SUFFIXES)}): add some")
    return folder


def _is_task(path: Path) -> bool:
    return (path / "train").is_dir() and (path / "test").is_dir()


def _folders(path: Path) -> list[str]:
    """Names of the folders in a folder, in order, task2 before task10."""
    try:
        with os.scandir(path) as there:
            names = [e.name for e in there if e.is_dir() and not e.name.startswith(".")]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): make it readable") from error

    def key(name: str) -> list[tuple[int, str]]:
        return [(int(p or 0), "") if p.isdecimal() else (0, p) for p in re.split(r"(\d+)", name)]

    return sorted(names, key=lambda name: (key(name), name))


def _tops(folder: Folder, part: str) -> Iterator[tuple[Path, int, int]]:
    """The folder of each class, for training or for testing, with its task and label."""
    for task_id, (task, names) in enumerate(zip(folder.task_names, folder.classes, strict=True)):
        for label, name in enumerate(names):
            yield folder.path / task / part / name, task_id, label


def _paths(top: Path) -> Iterator[str]:
    """The images below a folder, in order."""
    for inside, folders, files in os.walk(top, followlinks=True):
        folders.sort()
        yield from (os.path.join(inside, f) for f in sorted(files) if f.lower().endswith(SUFFIXES))


def _files(folder: Folder, part: str) -> Iterator[File]:
    """The images for training or for testing, one class after the other, each in order of names."""
    for top, task_id, label in _tops(folder, part):
        for path in _paths(top):
            try:
                status = os.stat(path)
            except OSError as error:
                raise InputError(f"{path} cannot be read ({error.strerror}): {_MEND}") from error
            name = os.path.relpath(path, folder.path)
            yield File(name, task_id, label, status.st_size, status.st_mtime_ns)


def _arrays(loaded: Loaded) -> dict[str, np.ndarray]:
    """As the cache has them."""
    tasks = {"train_tasks": loaded.train_tasks, "test_tasks": loaded.test_tasks}
    return {**loaded.images._asdict(), **tasks}


def _cached(path: Path, stamp: str) -> Loaded | None:
    """What the cache holds, where it is of these images and whole."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if str(arrays["stamp"]) != stamp:
                return None
            images = Images(*(np.asarray(arrays[field]) for field in Images._fields))
            return Loaded(images, arrays["train_tasks"], arrays["test_tasks"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError):
        return None


def _decode_all(
    folder: Folder, files: list[File], pixels: np.ndarray, progress: "_Progress"
) -> None:
    """Decode images in threads; fills ``pixels`` [N, H, W, C] uint8.

    Raises:
        InputError: One cannot be read, or differs; the first of these in order.
    """

    def decode(start: int) -> int:
        for i, file in enumerate(files[start : start + _AT_ONCE], start):
            pixels[i] = _decode(folder.path / file.name, pixels.shape[1:], folder.image_size)
        return len(files[start : start + _AT_ONCE])

    pool = ThreadPoolExecutor(min(32, os.cpu_count() or 1))
    try:
        for number in pool.map(decode, range(0, len(files), _AT_ONCE)):
            progress.add(number)
    finally:
        pool.shutdown(cancel_futures=True)


def _decode(path: Path, shape: tuple[int, ...], size: int | None) -> np.ndarray:
    """An image [H, W, C] uint8, resized and cropped where a size is given.

    Raises:
        InputError: It cannot be read, or has another size, or colors where the first has none.
    """
    height, width, channels = shape
    with _opened(path) as image:
        if channels == 1 and image.mode not in _GRAY:
            raise InputError(f"{path} has colors, and the first image has none: make them alike")
        if size is None and image.size != (width, height):
            raise InputError(
                f"{path} has {image.size[1]}x{image.size[0]} pixels, and the first image has "
                f"{height}x{width}: give --image_size, to which all are resized"
            )
        try:
            if image.mode in ("P", "PA"):  # whose transparency is warned of otherwise
                image = image.convert("RGBA")
            image = image.convert("L" if channels == 1 else "RGB")
            if size is not None:
                image = _resized(image, size)
            return np.asarray(image).reshape(shape)
        except (MemoryError, InputError):
            raise
        except Exception as error:  # readers of damaged files do not keep to a list
            raise InputError(f"{path} cannot be read ({reason(error)}): {_MEND}") from error


def _opened(path: Path) -> Image.Image:
    """An image of a kind that is read, whose pixels are yet to be decoded."""
    try:
        image: Image.Image = Image.open(path)
    except MemoryError:
        raise
    except Exception as error:
        raise InputError(f"{path} cannot be read ({reason(error)}): {_MEND}") from error
    if image.mode not in (*_GRAY, *_COLOR):
        image.close()
        raise InputError(
            f"{path} has pixels of the kind {image.mode}: convert it to 8 bits a channel"
        )
    return image


def _resized(image: Image.Image, size: int) -> Image.Image:
    """The shorter side at a size, and the square in the middle, as torchvision's Resize and
    CenterCrop make it.
    """
    width, height = image.size
    shorter = min(width, height)
    width, height = (int(size * side / shorter) for side in (width, height))
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


class _Progress:
    """Says how many images have been decoded, where that takes a while."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.done = title, total, 0
        self._said = time.monotonic()

    def add(self, number: int) -> None:
        """So many more."""
        self.done += number
        if time.monotonic() - self._said > _SAY_EVERY:
            self._said = time.monotonic()
            print(
                f"run.py: {self.done:,} of {self.total:,} images of {self.title} decoded",
                file=sys.stderr,
            )
