"""Data of the user's: ``--cl_exp=`` an .npz, a folder of images, ``torchvision:NAME``, a function.

Without --num_tasks and --num_classes_per_task there are as many tasks as the data give; docs/data.rst
has the forms.
"""

import math
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from hypercl.errors import InputError, NotThere
from hypercl.ranges import as_argument, count, option, or_unset
from hypercl.registry import Part
from hypercl.tasks.sequences.base import ClassSplit, Sequence, Source

if TYPE_CHECKING:
    from hypercl.code import Code
    from hypercl.options import TaskOptions
    from hypercl.tasks.images import Dataset
    from hypercl.tasks.samples import Loaded

_CLASSES = 2  # of a task of a split, where the number is not given
_FORMS = "an .npz file, a folder of images, torchvision:NAME or path/to/my.py:function"


def bring(reference: str) -> type[Sequence]:
    """The entry of a reference, made from what can be known of the data without reading all.

    Raises:
        InputError: There is no such data, or none that can be used.
    """
    library, _, name = reference.partition(":")
    if library == "torchvision":
        return _of_torchvision(reference, name)
    path = Path(os.path.expanduser(reference))
    if path.suffix == ".npz":
        from hypercl.tasks.archive import open_archive

        archive = open_archive(path)
        return _entry(OwnTasks if archive.has_tasks else OwnSplit, reference, archive)
    if path.is_dir():
        from hypercl.tasks.folder import open_folder

        folder = open_folder(path)
        return _entry(FolderTasks if folder.has_tasks else FolderSplit, reference, folder)
    if name:
        return _of_code(reference)
    if path.exists():
        raise InputError(f"--cl_exp={reference} is none of these: give {_FORMS}")
    raise NotThere(f"--cl_exp={reference} does not exist: give {_FORMS}")


class Data(Protocol):
    """What is known of a user's data before they are read, and their reader."""

    @property
    def title(self) -> str:
        """As messages have it."""
        ...

    @property
    def classes(self) -> list[list[str]]:
        """The names of the classes of each task; of one task, where they are to be split."""
        ...

    @property
    def task_names(self) -> list[str]:
        """Of each task."""
        ...

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C), or (D,) of vectors."""
        ...

    @property
    def num_bytes(self) -> int:
        """Of the images in memory."""
        ...

    def load(self, data_dir: str) -> "Loaded":
        """Read the samples, with labels and tasks as positions in the lists above."""
        ...


@dataclass(frozen=True)
class _OfData(Sequence):
    """What all have that are made from :class:`Data`."""

    known: ClassVar[Data]

    @property
    def data(self) -> Data:
        """The data, with the options that concern them."""
        return self.known

    @property
    def image_shape(self):
        return self.data.image_shape

    def takes(self, options):
        yield part_of(self.data)


@dataclass(frozen=True)
class OwnSplit(_OfData, ClassSplit):
    """The classes of one data set, dealt out to the tasks."""

    def resolved(self, task):
        """With two classes a task, and as many tasks as that gives, where nothing else is given."""
        sizes = _CLASSES if task.num_classes_per_task is None else task.num_classes_per_task
        number, (source,) = task.num_tasks, self.sources
        if number is None and isinstance(sizes, tuple):
            number = len(sizes) - task.skip_tasks
        elif number is None:
            number = max(1, source.num_classes // sizes - task.skip_tasks)
        return replace(task, num_tasks=number, num_classes_per_task=sizes)

    def build(self, options, device):
        from hypercl.tasks.split import class_task

        self._warn_of_classes_left_out(options)
        data, options = self.data, stratified(options)
        images = data.load(options.data_dir).images
        (names,) = data.classes
        shown = None if names == [str(i) for i in range(len(names))] else names
        return [
            class_task(images, "classes", classes, options, device, names=shown)
            for _, classes in self.deal(options)
        ]

    def _warn_of_classes_left_out(self, options: "TaskOptions") -> None:
        """Where all tasks that there are do not take all classes that there are."""
        (source,), size = self.sources, self.resolved(options).num_classes_per_task
        if options.num_tasks is None and isinstance(size, int) and source.num_classes % size:
            warnings.warn(
                f"{source.title} has {source.num_classes} classes, and tasks of {size} leave out "
                f"{source.num_classes % size} of them: --num_classes_per_task takes a list, too",
                stacklevel=2,
            )


@dataclass(frozen=True)
class OwnTasks(_OfData):
    """Tasks that the data say themselves; labels count within each."""

    def problems(self, options):
        sizes = [len(classes) for classes in self.data.classes]
        yield from problems_of_tasks(options.task, sizes, self.data.title)

    def build(self, options, device):
        from hypercl.tasks.split import as_split, held_out_task

        data, options = self.data, stratified(options)
        images, train_tasks, test_tasks = data.load(options.data_dir)
        tasks = []
        for task_id in chosen(options, len(data.classes)):
            of_train, of_test = train_tasks == task_id, test_tasks == task_id
            train = as_split(images.train_images[of_train], images.train_labels[of_train], device)
            test = as_split(images.test_images[of_test], images.test_labels[of_test], device)
            name, classes = data.task_names[task_id], tuple(data.classes[task_id])
            tasks.append(
                held_out_task(name, len(classes), train, test, options, class_names=classes)
            )
        return tasks


@dataclass(frozen=True)
class _OfFolder(_OfData):
    """What folders of images have beside others."""

    image_size: int | None = option(
        None,
        or_unset(count),
        "pixels that the shorter side of the images in a folder is resized to, before the square in the middle is taken; -1: as they are, of one size",
    )

    @property
    def data(self) -> Data:
        """The images, of that size."""
        return self.known._replace(image_size=self.image_size)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class FolderSplit(_OfFolder, OwnSplit):
    """Classes of images in folders."""


@dataclass(frozen=True)
class FolderTasks(_OfFolder, OwnTasks):
    """Tasks in folders."""


class Published:
    """A data set that torchvision has; a :class:`Data`."""

    task_names: ClassVar = [""]

    def __init__(self, dataset: "Dataset") -> None:
        self.dataset = dataset
        self.title = dataset.torchvision_name
        self.classes = [[str(label) for label in range(dataset.num_classes)]]
        shape = dataset.image_shape
        self.image_shape = (*shape, 1) if len(shape) == 2 else shape
        self.num_bytes = (dataset.num_train + dataset.num_test) * math.prod(shape)

    def load(self, data_dir: str) -> "Loaded":
        """From its cache, which is made of torchvision's files."""
        import numpy as np

        from hypercl.tasks.images import load_images
        from hypercl.tasks.samples import Loaded

        images = load_images(self.dataset, data_dir)
        tasks = (np.zeros(len(x), np.int64) for x in (images.train_labels, images.test_labels))
        return Loaded(images, *tasks)


@dataclass(frozen=True)
class FunctionTasks(Sequence):
    """What a function returns; its parameters are options."""

    code: ClassVar["Code"]
    task_types: ClassVar = ("classification", "regression")
    image_shape = None  # known when it has run

    def arguments(self) -> Mapping[str, Any]:
        """The options; see :func:`~hypercl.code.entry_of`."""
        raise NotImplementedError

    def build(self, options, device):
        import inspect

        from hypercl.code import calling
        from hypercl.tasks.function import as_arrays, make_task

        title = self.name
        if not options.is_regression:
            options = stratified(options)
        given = {"data_dir": options.data_dir}
        if options.num_tasks is not None:
            given["num_tasks"] = options.skip_tasks + options.num_tasks
        takes = inspect.signature(self.code.what).parameters
        given = {name: value for name, value in given.items() if name in takes}
        with calling(self.code, title):
            returned = self.code.what(**given, **self.arguments())
            tasks = as_arrays(returned, title)  # runs the user's Datasets
        known = replace(options, num_classes_per_task=None)
        for problem in problems_of_tasks(known, [0] * len(tasks), title):
            raise InputError(problem)
        made = [
            make_task(tasks[task_id], task_id, title, options, device)
            for task_id in chosen(options, len(tasks))
        ]
        sizes = [0] * options.skip_tasks + [task.num_classes for task in made]
        for problem in problems_of_tasks(options, sizes, title):
            raise InputError(problem)
        return made


def problems_of_tasks(task: "TaskOptions", sizes: list[int], title: str) -> Iterator[str]:
    """Whether given numbers of tasks and of classes are other ones than there are.

    Args:
        sizes: Of each task, its classes; 0: not known, and none are given.
    """
    total, first = len(sizes), task.skip_tasks
    if first >= total:
        yield f"--skip_tasks={first} leaves none of the {total} tasks of {title}: lower it"
        return
    number = total - first if task.num_tasks is None else task.num_tasks
    if first + number > total:
        skipped = f" after --skip_tasks={first}" if first else ""
        yield (
            f"--num_tasks={number}{skipped} is more than the {total} tasks of {title}: lower it, "
            "or leave it out"
        )
        return
    given = task.num_classes_per_task
    if given is None:
        return
    each = [given] * total if isinstance(given, int) else list(given)
    if len(each) < first + number:
        each += [0] * (first + number - len(each))
    for task_id in range(first, first + number):
        if each[task_id] != sizes[task_id]:
            yield (
                f"--num_classes_per_task={as_argument(given)} is not what {title} has: task "
                f"{task_id} has {sizes[task_id]} classes; leave it out"
            )
            return


def chosen(task: "TaskOptions", total: int) -> range:
    """Which of the tasks of the data are learned."""
    end = total if task.num_tasks is None else task.skip_tasks + task.num_tasks
    return range(task.skip_tasks, end)


def stratified(task: "TaskOptions") -> "TaskOptions":
    """The options, with validation samples by class unless something else is asked for: a user's
    samples may be in the order of their classes.
    """
    return replace(task, val_split="stratified") if task.val_split is None else task


def part_of(data: Data) -> Part:
    """The memory of the images."""
    mend = "take a part of it, or a smaller --image_size for a folder"
    return Part(data.num_bytes, "the images", ("cl_exp",), mend)


def _entry(base: type[Sequence], reference: str, data: Data) -> type[Sequence]:
    """An entry of data."""
    known: dict[str, Any] = {"known": data, "name": reference, "__module__": __name__}
    if issubclass(base, ClassSplit):
        known["sources"] = (Source(reference, data.title, len(data.classes[0])),)
    return dataclass(frozen=True)(type(base.__name__, (base,), known))


def _of_torchvision(reference: str, name: str) -> type[Sequence]:
    from hypercl.tasks.images import TORCHVISION

    if name not in TORCHVISION:
        raise InputError(
            f"--cl_exp={reference} is not known: give one of torchvision:"
            f"{', torchvision:'.join(sorted(TORCHVISION))}, or a function that returns its tasks"
        )
    return _entry(OwnSplit, reference, Published(TORCHVISION[name]))


def _of_code(reference: str) -> type[Sequence]:
    from hypercl.code import entry_of, load, own_entry

    code = load(reference)
    own = own_entry(Sequence, reference, code)
    return own or entry_of(FunctionTasks, reference, code, ("num_tasks", "data_dir"))
