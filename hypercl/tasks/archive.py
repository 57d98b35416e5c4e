"""An .npz of the user's: what its headers say, before anything is read, and its arrays, checked.

train_images [N, H, W] or [N, H, W, C] uint8 or floats, or [N, D] floats; train_labels [N] integers;
test_images, test_labels; and where these say the tasks, train_tasks and test_tasks [N] integers.
"""

import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hypercl.errors import InputError, NotThere, reason
from hypercl.machine import FLOAT, total_memory
from hypercl.tasks.images import Images
from hypercl.tasks.labels import Grouped, Labels, group
from hypercl.tasks.samples import Header, Loaded, problem_of_images, usable

_FIELDS = Images._fields
_TASKS = ("train_tasks", "test_tasks")
_MEND = "write it with numpy.savez"


class Archive(NamedTuple):
    """An .npz, before its images are read."""

    path: Path
    headers: dict[str, Header]
    grouped: Grouped

    @property
    def title(self) -> str:
        """As messages have it."""
        return str(self.path)

    @property
    def has_tasks(self) -> bool:
        """Whether it says which tasks there are."""
        return _TASKS[0] in self.headers

    @property
    def classes(self) -> list[list[str]]:
        """The names of the classes, of each task; of one where it does not say the tasks."""
        return [[str(label) for label in labels] for labels in self.grouped.classes]

    @property
    def task_names(self) -> list[str]:
        """Of each task."""
        return [f"task {number}" for number in self.grouped.tasks]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C), or (D,) of vectors."""
        shape = self.headers["train_images"].shape[1:]
        return (*shape, 1) if len(shape) == 2 else shape

    @property
    def num_bytes(self) -> int:
        """Of the images in memory."""
        arrays = [self.headers[name] for name in ("train_images", "test_images")]
        return sum(math.prod(a.shape) * (1 if a.dtype == np.uint8 else FLOAT) for a in arrays)

    def load(self, data_dir: str) -> Loaded:
        """Read it.

        Raises:
            InputError: It is damaged, or has a number that is not finite.
        """

        def read() -> list[np.ndarray]:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return [np.asarray(arrays[name]) for name in ("train_images", "test_images")]

        train, test = _reading(self.path, read)
        for pixels, name in ((train, "train_images"), (test, "test_images")):
            if (pixels.shape, pixels.dtype) != self.headers[name]:
                raise InputError(f"{self.path} has changed since it was looked at: run again")
        train, test = (usable(pixels, self.title) for pixels in (train, test))
        of_train, of_test = self.grouped.train, self.grouped.test
        assert of_train.tasks is not None
        assert of_test.tasks is not None
        images = Images(train, of_train.classes, test, of_test.classes)
        return Loaded(images, of_train.tasks, of_test.tasks)


def open_archive(path: Path) -> Archive:
    """Read an archive's headers, and its labels.

    Raises:
        InputError: There is none, it lacks an array, or has one of another shape or type; the
            labels are such that :func:`~hypercl.tasks.labels.group` refuses them.
    """

    def read_headers() -> tuple[dict[str, Header], list[str]]:
        with zipfile.ZipFile(path) as archive:
            there = [name.removesuffix(".npy") for name in archive.namelist()]
            names = [name for name in (*_FIELDS, *_TASKS) if name in there]
            headers = {name: _header(archive, f"{name}.npy") for name in names}
        return headers, [name for name in there if name not in names and name.isprintable()][:8]

    def read_labels(name: str) -> np.ndarray:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))

    headers, others = _reading(path, read_headers)
    _require_fitting(path, headers, others)
    label = {
        name: _reading(path, partial(read_labels, name))
        for name in headers
        if not name.endswith("images")
    }
    train = Labels(label["train_labels"], label.get("train_tasks"))
    test = Labels(label["test_labels"], label.get("test_tasks"))
    return Archive(path, headers, group(train, test, str(path)))


def _header(archive: zipfile.ZipFile, name: str) -> Header:
    """Read an array's header, and require that the array is as long as it says."""
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = read(file)
        num_bytes = file.tell() + math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and archive.getinfo(name).file_size != num_bytes:
        raise ValueError(f"{name} is not as long as it says")
    return Header(shape, dtype)


def _require_fitting(path: Path, headers: dict[str, Header], names: Sequence[str]) -> None:
    """Refuse arrays that are missing, or are not such as the module says.

    Args:
        names: Of other arrays that are there.
    """

    def problems() -> Iterator[str]:
        missing = [name for name in _FIELDS if name not in headers]
        if len([name for name in _TASKS if name in headers]) == 1:
            missing += [name for name in _TASKS if name not in headers]
        if missing:
            others = f", and has {', '.join(names)}" if names else ""
            yield f"lacks {', '.join(missing)}{others}: add what is missing, under these names"
            return
        for name, (shape, dtype) in headers.items():
            if dtype.hasobject:
                yield f"has Python objects in {name}, which are not read: write plain arrays"
            elif name.endswith("images"):
                if problem := problem_of_images(name, headers[name]):
                    yield f"cannot be used: {problem}"
            elif len(shape) != 1 or dtype.kind not in "iu":
                yield (
                    f"cannot be used: {name} is {dtype} of shape {list(shape)}: give one whole "
                    "number a sample"
                )
        for part in ("train", "test"):
            number = headers[f"{part}_images"].shape[0]
            for name in (f"{part}_labels", f"{part}_tasks"):
                if name in headers and headers[name].shape != (number,):
                    yield (
                        f"has {number} {part}_images and {headers[name].shape[0]} {name}: give "
                        "one each"
                    )
        (train, train_type), (test, test_type) = headers["train_images"], headers["test_images"]
        if train[1:] != test[1:] or (train_type == np.uint8) != (test_type == np.uint8):
            yield (
                f"has train_images {list(train[1:])} {train_type} and test_images "
                f"{list(test[1:])} {test_type}: give both the same shape and type"
            )
        limit = total_memory()
        labels = [h for name, h in headers.items() if not name.endswith("images")]
        of_labels = sum(math.prod(shape) * dtype.itemsize for shape, dtype in labels)
        if limit is not None and of_labels > limit:
            yield "has more labels than this machine has memory: take fewer"

    for problem in problems():
        raise InputError(f"{path} {problem}")


def _reading(path: Path, read: Callable[[], Any]) -> Any:
    """What reading a file gives.

    Raises:
        InputError: It raises anything; readers of damaged files do not keep to a list.
    """
    try:
        return read()
    except (InputError, MemoryError):
        raise
    except FileNotFoundError:
        raise NotThere(f"{path} does not exist: give the path of an .npz file") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}): mend that") from error
    except Exception as error:
        raise InputError(f"{path} is damaged or no .npz file ({reason(error)}): {_MEND}") from error
