"""What a sequence of tasks has to say of itself."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

from hypercl.ranges import as_argument, option, order_of_numbers
from hypercl.registry import Entry

if TYPE_CHECKING:
    import torch

    from hypercl.options import Options, TaskOptions
    from hypercl.tasks.task import Task


@dataclass(frozen=True)
class Sequence(Entry):
    """A way to make tasks; its fields are the options that concern it alone."""

    chosen_by: ClassVar[str] = "cl_exp"
    # What its labels can be taken for, the default first: "classification", "regression".
    task_types: ClassVar[tuple[str, ...]] = ("classification",)
    # Whether the numbers of tasks and of classes are its own, unless they are given.
    says_tasks: ClassVar[bool] = False

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """(H, W, C) of the images, known before they are loaded, or (D,) of vectors; None where the
        tasks have to be built first.
        """
        raise NotImplementedError

    def drawn(self, seed: int) -> Self:
        """The same, with all drawn that is random in the tasks.

        Args:
            seed: The run's first; all its seeds learn the same tasks.
        """
        return self

    def resolved(self, task: "TaskOptions") -> "TaskOptions":
        """The options with the numbers of tasks and of classes that are there, where they are not
        given and known before the tasks are built.
        """
        return task

    def build(self, options: "TaskOptions", device: "torch.device") -> "list[Task]":
        """Make the tasks, on the device. Called on what :meth:`drawn` returned.

        Raises:
            InputError: The data cannot be had, or a task would have nothing to train or test on.
        """
        raise NotImplementedError


class Source(NamedTuple):
    """A data set whose classes are dealt out."""

    name: str  # of its file
    title: str  # as messages have it
    num_classes: int


class TaskClasses(NamedTuple):
    """Which classes a task tells apart."""

    source: Source
    classes: list[int]  # counted within the source; the labels of the task are positions here


@dataclass(frozen=True)
class ClassSplit(Sequence):
    """Deals the classes of data sets out to tasks; a task has classes of one data set."""

    sources: ClassVar[tuple[Source, ...]]

    # fmt: off
    class_order: str | tuple[int, ...] = option("natural", order_of_numbers(), "order in which the classes of splitmnist, splitcifar or your own data are dealt out to the tasks: natural, random (drawn from --random_seed, the same for all of --num_seeds), or all class numbers, like 3,1,0,2,4,5,6,7,8,9 (CIFAR-10's are 0 to 9, CIFAR-100's 10 to 109)")
    # fmt: on

    def problems(self, options: "Options") -> Iterator[str]:
        """What is wrong with the sizes of the tasks and with the order of the classes."""
        task = self.resolved(options.task)
        problem = number_disagrees(task) or self._problem_of_sizes(task) or self._problem_of_order()
        if problem is not None:
            yield problem

    def drawn(self, seed: int) -> Self:
        """The same, with the order as a list."""
        if self.class_order != "random":
            return self
        import torch

        from hypercl.engine.seeding import generator

        order: list[int] = []
        for i, source in enumerate(self.sources):
            shuffled = torch.randperm(source.num_classes, generator=generator(seed, "classes", i))
            order += (len(order) + shuffled).tolist()
        return replace(self, class_order=tuple(order))

    def deal(self, options: "TaskOptions") -> list[TaskClasses]:
        """The classes of each task that a run learns."""
        options = self.resolved(options)
        assert self.class_order != "random", "the order has not been drawn"
        total = sum(source.num_classes for source in self.sources)
        order = list(range(total))
        if isinstance(self.class_order, tuple):
            order[: len(self.class_order)] = self.class_order
        bounds = [0, *accumulate(sizes_of_tasks(options))]
        dealt = []
        for start, end in list(pairwise(bounds))[options.skip_tasks :]:
            source, first = self._source_of(start)
            dealt.append(TaskClasses(source, [c - first for c in order[start:end]]))
        return dealt

    def _source_of(self, position: int) -> tuple[Source, int]:
        """To which data set a class belongs, and the number of that data set's first class."""
        first = 0
        for source in self.sources:
            if position < first + source.num_classes:
                return source, first
            first += source.num_classes
        raise ValueError(f"there is no class {position}")

    def _problem_of_sizes(self, task: "TaskOptions") -> str | None:
        titles = " and ".join(source.title for source in self.sources)
        total = sum(source.num_classes for source in self.sources)
        owner = f"{titles} {'has' if len(self.sources) == 1 else 'have'} {total}"
        if problem := classes_missing(task, total, owner):
            return problem
        bounds = [0, *accumulate(sizes_of_tasks(task))]
        for number, (start, end) in enumerate(pairwise(bounds), start=1):
            source, first = self._source_of(start)
            border = first + source.num_classes
            if end > border:
                return (
                    f"--num_classes_per_task={as_argument(task.num_classes_per_task)}: task "
                    f"{number} would have {border - start} classes of {source.title} and "
                    f"{end - border} of the next data set: let a task end after {border} classes"
                )
        return None

    def _problem_of_order(self) -> str | None:
        order, first = self.class_order, 0
        if isinstance(order, str):
            return None
        for source in self.sources:
            end = first + source.num_classes
            part = order[first:end]
            if part and sorted(part) != list(range(first, end)):
                return (
                    f"--class_order must have the classes of {source.title}, {first} to {end - 1}, "
                    f"each once, at its places {first + 1} to {end}: give all of them, or random"
                )
            first = end
        if len(order) > first:
            return f"--class_order has {len(order)} numbers for {first} classes: leave some out"
        return None


def sizes_of_tasks(task: "TaskOptions") -> list[int]:
    """How many classes each task of the sequence has, those that --skip_tasks leaves out too."""
    sizes = task.num_classes_per_task
    if isinstance(sizes, tuple):
        return list(sizes)
    assert sizes is not None
    assert task.num_tasks is not None
    return [sizes] * (task.skip_tasks + task.num_tasks)


def number_disagrees(task: "TaskOptions") -> str | None:
    """Whether --num_tasks is another number of tasks than a list of their sizes is for."""
    if not isinstance(task.num_classes_per_task, tuple):
        return None
    sizes, left = task.num_classes_per_task, len(task.num_classes_per_task) - task.skip_tasks
    named = f"--num_classes_per_task={as_argument(sizes)}"
    if left <= 0:
        return f"--skip_tasks={task.skip_tasks} leaves none of the tasks of {named}: lower it"
    if task.num_tasks == left:
        return None
    skipped = f" after --skip_tasks={task.skip_tasks}" if task.skip_tasks else ""
    return f"--num_tasks={task.num_tasks} is not the {left} of {named}{skipped}: leave it out"


def classes_missing(task: "TaskOptions", available: int, owner: str) -> str | None:
    """What is wrong with a sequence that takes more classes than there are; None if nothing is.

    Args:
        owner: ``"MNIST has 10"``.
    """
    number = task.num_classes_per_task
    named = f"--num_classes_per_task={as_argument(number)}"
    if isinstance(number, tuple):
        if (classes := sum(number)) > available:
            return f"{named} takes {classes} classes, and {owner}: lower one of the numbers"
        return None
    assert number is not None
    assert task.num_tasks is not None
    classes = (task.skip_tasks + task.num_tasks) * number
    if classes <= available:
        return None
    skipped = f" after --skip_tasks={task.skip_tasks}" if task.skip_tasks else ""
    return (
        f"--num_tasks={task.num_tasks}{skipped} with {named} takes {classes} classes, and "
        f"{owner}: lower one of them"
    )
