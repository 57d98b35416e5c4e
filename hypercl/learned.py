"""What a run has learned: weights.pt at its end, weights/ after every task; written and read."""

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from hypercl.engine.members import Params, select_members, stack_members, to_device
from hypercl.errors import InputError
from hypercl.evaluation import Learned, answers_of_all
from hypercl.experiment import Experiment
from hypercl.inference import OF_METHODS, RULES
from hypercl.measure import ACCURACY, ERROR, Measure
from hypercl.networks.task_net import TaskNet, require_shape
from hypercl.options import Options, defaults, differing, require_known
from hypercl.rundir import saving
from hypercl.rundir.checkpoint import Position
from hypercl.rundir.directory import RunDir
from hypercl.rundir.forms import fits
from hypercl.rundir.sources import with_copies
from hypercl.rundir.stored import (
    RESULTS,
    mend_by_resuming,
    read_config,
    read_finished,
    read_results,
    refused,
)
from hypercl.tasks.task import Split, Task

if TYPE_CHECKING:
    import numpy as np

_AT_END = "weights.pt"


def save_weights(
    run_dir: RunDir, experiment: Experiment, position: Position, config: Mapping[str, Any]
) -> None:
    """weights.pt: by seed, what the method has learned, under its name; the options.

    Args:
        config: The options with which the run began, by name.
    """
    stats = {seed: list(position.learned_stats[seed]) for seed in position.learned}
    tested_together = [[s for s in group if s in stats] for group in position.groups]
    groups = [group for group in tested_together if group]
    scales = position.learned_scales
    data = _encode(experiment, position.learned, stats, scales, groups, config)
    run_dir.write_bytes(_AT_END, data)


def keep_weights(
    run_dir: RunDir, experiment: Experiment, position: Position, config: Mapping[str, Any]
) -> None:
    """The same after a task that a group of seeds has learned, as a file of their own in weights/.

    Args:
        position: After that task.
    """
    by_seed = position.by_seed()
    data = _encode(
        experiment,
        {seed: of_seed.params for seed, of_seed in by_seed.items()},
        {seed: of_seed.stats for seed, of_seed in by_seed.items()},
        {seed: of_seed.scales for seed, of_seed in by_seed.items()},
        [list(position.seeds)],
        config,
    )
    group = f"_group_{position.group + 1:02d}" if len(position.groups) > 1 else ""
    run_dir.write_weights_by_task(f"{_name_of(position.task_id - 1)}{group}.pt", data)


def _name_of(task: int) -> str:
    return f"task_{task + 1:02d}"


def _encode(
    experiment: Experiment,
    learned: Mapping[int, Params],
    stats: Mapping[int, list[Params]],
    scales: Mapping[int, Params],
    groups: list[list[int]],
    config: Mapping[str, Any],
) -> bytes:
    """A file of what some seeds have learned."""
    method = experiment.method
    content = {
        experiment.options.method.method: {
            seed: method.state_dict(params) for seed, params in learned.items()
        },
        "stats": dict(stats),
        "scales": {seed: scales.get(seed, {}) for seed in learned},
        "groups": groups,
        "options": dict(config),
    }
    return saving.encode(content)


class Predictions(NamedTuple):
    """Of N images, on the CPU."""

    tasks: Tensor  # [N] int64, counted from 0
    classes: Tensor  # [N] int64, within the task; in scenario 3 among those of all tasks


class PredictedNumbers(NamedTuple):
    """Of N samples of tasks of regression, on the CPU."""

    tasks: Tensor  # [N] int64, counted from 0
    values: Tensor  # [N, K] float32


@dataclass(frozen=True, repr=False)
class Run:
    """What a run has learned, ready for use."""

    path: Path  # the run directory
    experiment: Experiment  # its options, tasks, main network and method
    params: dict[int, Params]  # by seed
    stats: dict[int, list[Params]]  # running statistics by seed and task, empty dicts without them
    groups: list[list[int]]  # of seeds that were trained and tested together
    scales: dict[int, Params]  # by seed, [tasks] each; empty of a run of an earlier version

    def __repr__(self) -> str:
        return f"<run of {self.num_tasks} tasks with the seeds {list(self.params)}>"

    @property
    def num_tasks(self) -> int:
        """How many have been learned."""
        return len(next(iter(self.stats.values())))

    @property
    def tasks(self) -> list[Task]:
        """Those that have been learned, with the outputs among which their samples are classified
        now.
        """
        return self.experiment.tasks_to_test(self.num_tasks)[: self.num_tasks]

    def classes(self, task: int) -> list[str]:
        """The names of the classes that a task's network tells apart, in the order of its logits.

        Raises:
            InputError: There is no such task, or it is one of regression.
        """
        tasks = self.tasks
        if self.experiment.options.task.is_regression:
            raise InputError("tasks of regression have no classes: their networks return numbers")
        if tasks[self._task(task)].outputs_grow:
            return [f"{each.name}: {name}" for each in tasks for name in _class_names(each)]
        return _class_names(tasks[task])

    def main_net(self, task: int, seed: int | None = None) -> TaskNet:
        """The main network for a task, as a module of its own: images in, the task's logits out.

        In scenario 3 the logits are those of the classes of all tasks learned. Of regression they
        are the numbers themselves.

        Args:
            task: Counted from 0.
            seed: None: the first.

        Raises:
            InputError: There is no such task or seed.
        """
        seed = self._seed(seed)
        weights = self.weights(task, seed)
        return TaskNet(self.experiment.net, weights, self.stats[seed][task], self.tasks[task])

    def weights(self, task: int, seed: int) -> list[Tensor]:
        """The main network's tensors for a task, counted from 0.

        Raises:
            InputError: There is no such task or seed.
        """
        task, seed = self._task(task), self._seed(seed)
        task_ids = torch.tensor([task], device=self.experiment.device)
        return self.experiment.net.split(self.of([seed]).weights(task_ids)[0, 0])

    @torch.no_grad()
    def predict(
        self,
        images: "Tensor | np.ndarray",
        *,
        task: int | None = None,
        rule: str = "entropy",
        inputs_of: int | None = None,
        seed: int | None = None,
    ) -> Predictions | PredictedNumbers:
        """Classify images, with their task known or inferred. Of regression, the numbers that the
        network of the task given has for them.

        Args:
            images: [N, H, W, C], as the data set has them; grey ones may lack C.
            task: Of all of them, counted from 0. None: inferred for each, as ``evaluation`` has it;
                in scenario 3 it is the one that has the class.
            rule: By which a task is inferred: "entropy", "confidence", "scaled", or with a method
                that has it "tir"; see inference.py.
            inputs_of: Where tasks prepare their images each in its own way, as permuted ones do,
                and the task is to be inferred: the task whose way it is.
            seed: None: the first.

        Raises:
            InputError: The method has neither a network nor outputs of its own for each task, or
                tasks are of regression, so that tasks cannot be inferred; or an argument cannot be.
        """
        if rule not in RULES:
            raise InputError(f"rule={rule!r} is none of {', '.join(RULES)}")
        seed = self._seed(seed)
        images = self._images(images)
        labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)  # not looked at
        split = Split(images, labels)
        if task is not None:
            if inputs_of is not None:
                raise InputError(
                    "inputs_of goes with tasks that are inferred: leave it or task out"
                )
            if self.experiment.options.task.is_regression:
                values = self._logits(split, self._task(task), task, seed)
                return PredictedNumbers(torch.full((len(values),), task), values)
            classes = self._classify(split, self._task(task), task, seed)
            return Predictions(torch.full_like(classes, task), classes)
        if self.experiment.options.task.is_regression:
            raise InputError(
                "the task of a sample cannot be inferred in regression, where a network does not "
                "say how sure it is: give task"
            )
        tasks = self.tasks
        prepared_as = self._prepared_as(inputs_of)
        if tasks[-1].outputs_grow:
            self._require_one_network(seed)
            classes = self._classify(split, self.num_tasks - 1, prepared_as, seed)
            ends = torch.tensor([each.num_classes for each in tasks]).cumsum(0)
            return Predictions(torch.searchsorted(ends, classes, right=True), classes)
        if not self.experiment.tells_tasks_apart:
            raise InputError(
                f"the task of an image cannot be inferred: --method="
                f"{self.experiment.options.method.method} has one network, with the same outputs, "
                "for all tasks: give task"
            )
        learned = self.of([seed])
        rules = {name: own for name, own in learned.rules.items() if name == rule}
        if not rules and rule in OF_METHODS:
            raise InputError(
                f"rule={rule!r} needs a method that infers tasks by a network of its own, and "
                f"--method={self.experiment.options.method.method} has none: take another rule"
            )
        if not rules:
            raise InputError(
                f"rule={rule!r} needs the scale of each task's network, which this run does not "
                "have: an earlier version learned it, or a task has one class; take another rule"
            )
        answers = answers_of_all(learned, tasks, tasks[prepared_as], split, self._batch_size, rules)
        task_ids = answers.tasks(rule)
        return Predictions(task_ids[0].cpu(), answers.classes(task_ids)[0].cpu())

    def accuracy(self, seed: int | None = None) -> Any:
        """The accuracy matrix that results.json has, in percent, up to the last task learned; of
        regression that of errors is :meth:`error`.

        ``accuracy()[task][after]`` is the accuracy on a task after learning another; both are names
        of tasks, and it is NaN where there is none.

        Args:
            seed: None: the mean over all seeds that did not fail.

        Returns:
            A pandas DataFrame with one row for each task learned and one column for each tested;
            without pandas, a dict of dicts that is indexed in the same way.

        Raises:
            InputError: There is no such seed, or results.json cannot be used, or has errors.
        """
        return self._matrix(ACCURACY, seed)

    def error(self, seed: int | None = None) -> Any:
        """The matrix of mean squared errors of a run of regression; see :meth:`accuracy`.

        Raises:
            InputError: There is no such seed, or results.json cannot be used, or has accuracies.
        """
        return self._matrix(ERROR, seed)

    def _matrix(self, measure: Measure, seed: int | None) -> Any:
        if (measured := self.experiment.measure) != measure:
            raise InputError(f"the run has no {measure.name}: call {measured.name}()")
        results = read_results(self.path)
        if results is None:
            raise InputError(f"{self.path / RESULTS} is missing: {mend_by_resuming(self.path)}")
        chosen = list(self.params) if seed is None else [self._seed(seed)]
        matrices = [s[measure.name] for s in results["seeds"] if s["seed"] in chosen]
        names = results["tasks"][: self.num_tasks]
        if len(set(names)) < len(names):
            names = [f"{i}: {name}" for i, name in enumerate(names)]
        table = {
            tested: {
                learned: _mean_entry(matrices, row, column) for row, learned in enumerate(names)
            }
            for column, tested in enumerate(names)
        }
        try:
            import pandas as pd
        except ModuleNotFoundError:
            return table
        frame = pd.DataFrame(table)
        return frame.rename_axis(index="after", columns="task")

    def of(self, seeds: list[int]) -> Learned:
        """The networks of some seeds, together."""
        stats = [
            stack_members([self.stats[seed][task_id] for seed in seeds])
            for task_id in range(self.num_tasks)
        ]
        params = stack_members([self.params[seed] for seed in seeds])
        scales = stack_members([self.scales[seed] for seed in seeds])
        return Learned(self.experiment.net, self.experiment.method, params, stats, scales)

    @property
    def _batch_size(self) -> int:
        return self.experiment.options.evaluation.val_batch_size

    def _task(self, task: int) -> int:
        """A task that there is."""
        last = self.num_tasks - 1
        if not 0 <= task <= last:
            raise InputError(f"there is no task {task}, the last is {last}")
        return task

    def _seed(self, seed: int | None) -> int:
        """A seed that there is; of None, the first."""
        if seed is None:
            return next(iter(self.params))
        if seed not in self.params:
            seeds = ", ".join(map(str, self.params))
            raise InputError(f"there is no seed {seed}, there are {seeds}")
        return seed

    def _images(self, images: "Tensor | np.ndarray") -> Tensor:
        """On the device, [N, H, W, C] of the type that the data set has."""
        like = self.experiment.tasks[0]
        given = torch.as_tensor(images)
        require_shape(given, like.in_shape)
        wanted = like.train.images.dtype
        converted = given.to(wanted)
        if len(given) == 0 or not torch.equal(converted.to(given.dtype), given):
            raise InputError(
                f"{len(given)} images of {given.dtype}: give at least one, with numbers as the "
                f"data set has them, which are {wanted}"
            )
        return converted.reshape(-1, *like.in_shape).to(self.experiment.device)

    def _classify(self, split: Split, task: int, prepared_as: int, seed: int) -> Tensor:
        """Classes by a task's network, [N] int64 on the CPU, of images that are prepared as another
        task prepares them.
        """
        return self._logits(split, task, prepared_as, seed).argmax(1)

    def _logits(self, split: Split, task: int, prepared_as: int, seed: int) -> Tensor:
        """The same before a class is chosen, [N, outputs]."""
        as_there = replace(self.tasks[prepared_as], outputs=self.tasks[task].outputs)
        weights, stats = self.weights(task, seed), self.stats[seed][task]
        net = TaskNet(self.experiment.net, weights, stats, as_there)
        parts = [net(images) for images, _ in split.batches(self._batch_size)]
        return torch.cat(parts).cpu()

    def _prepared_as(self, inputs_of: int | None) -> int:
        """The task that says how images become inputs, where it is not known which theirs is."""
        if inputs_of is not None:
            return self._task(inputs_of)
        first, *others = self.tasks
        for name in ("permutation", "mean", "std"):
            value = getattr(first, name)
            if not all(_same(value, getattr(other, name)) for other in others):
                raise InputError(
                    f"the tasks differ in their images' {name}, so that an image alone does not "
                    "tell its task: give task, or inputs_of, the task whose images these are"
                )
        return 0

    def _require_one_network(self, seed: int) -> None:
        """Refuse running statistics that differ from task to task, of an earlier version."""
        first, *others = self.stats[seed]
        if not all(_same(value, other[name]) for other in others for name, value in first.items()):
            raise InputError(
                "an earlier version has learned this run, with running statistics of each task, so "
                "that its network is known where the task is: give task"
            )


def _class_names(task: Task) -> list[str]:
    return list(task.class_names or map(str, range(task.num_classes)))


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))


def _mean_entry(matrices: list[list[list[float | None]]], row: int, column: int) -> float:
    """Over seeds; NaN where there is none."""
    entries = [m[row][column] for m in matrices if row < len(m) and column < len(m[row])]
    known = [entry for entry in entries if entry is not None]
    return statistics.fmean(known) if known else math.nan


def load_run(path: str | Path, *, after_task: int | None = None, **options: Any) -> Run:
    """Rebuild the networks of a finished run from its weights.pt, or of one with --keep_weights
    from what it had learned after a task.

    Sets torch's number of threads and its switches for the whole process, as a run does.

    Args:
        path: The run directory.
        after_task: Counted from 0: the networks for the tasks 0 … after_task, as they were then;
            the run need not be finished.
        options: Those that may differ, like ``data_dir="…"`` and ``no_cuda=True``.

    Raises:
        InputError: A file of weights is missing or damaged, or an option does not fit.
    """
    return load(path, lambda stored: Options.of(stored).having(**options), after_task)


def load(
    path: str | Path,
    choose: Callable[[Mapping[str, Any]], Options],
    after_task: int | None = None,
) -> Run:
    """:func:`load_run`, with options that are chosen when the run's are known.

    Args:
        choose: From the run's options by name, those to load it with.
    """
    folder = Path(path)
    files = _files(folder, after_task)
    parts = [_read(folder, file, after_task) for file in files]
    stored = parts[0]["options"]
    method = stored.get("method", defaults()["method"])
    chosen = choose(stored)
    there = {**stored, "no_cuda": chosen.run.no_cuda}
    if differences := differing(there, chosen.recorded):
        raise InputError(f"{files[0]} was learned with other options: {', '.join(differences)}")
    experiment = Experiment.build(chosen)
    experiment.net.module.eval()
    num_tasks = len(experiment.tasks) if after_task is None else after_task + 1
    for file, part in zip(files, parts, strict=True):
        if not _fit(experiment, part[method], part["stats"], part["groups"], num_tasks):
            raise refused(file)
        if any(
            len(scale) != num_tasks for own in part["scales"].values() for scale in own.values()
        ):
            raise refused(file)
    params = {
        seed: experiment.method.load_state_dict(state)
        for part in parts
        for seed, state in part[method].items()
    }
    stats = {
        seed: [to_device(in_task, experiment.device) for in_task in by_task]
        for part in parts
        for seed, by_task in part["stats"].items()
    }
    groups = [group for part in parts for group in part["groups"]]
    scales = {
        seed: to_device(part["scales"].get(seed, {}), experiment.device)
        for part in parts
        for seed in part["stats"]
    }
    return Run(folder, experiment, params, stats, groups, scales)


def _files(run: Path, after_task: int | None) -> list[Path]:
    """The run's files of weights: one, or one a group of seeds."""
    if after_task is None:
        return [run / _AT_END]
    name = _name_of(after_task)
    return sorted(run.glob(f"weights/{name}_group_*.pt")) or [run / "weights" / f"{name}.pt"]


def _read(folder: Path, path: Path, after_task: int | None) -> dict[str, Any]:
    """What is in a file of weights of a run directory, "options" among it."""
    at_end = path.name == _AT_END
    if not path.exists():
        if at_end:
            read_finished(folder)  # says so where that is why
            raise InputError(f"{path} is missing: {mend_by_resuming(folder)}")
        num_tasks = read_config(folder)["options"].get("num_tasks", 0)
        if after_task is not None and 0 < num_tasks <= after_task:
            raise InputError(
                f"after_task={after_task}: the last task of {folder} is {num_tasks - 1}"
            )
        raise InputError(
            f"{path} is missing: a run with --keep_weights writes it when it has learned that task"
        )
    try:
        saved = saving.decode(path.read_bytes())
    except saving.Damaged:
        mend = mend_by_resuming(folder) if at_end else "put a good copy there"
        raise InputError(f"{path} is damaged: {mend}") from None
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}): make it readable"
        ) from None
    original = saved.setdefault("options", {})
    if not fits(original, {str: object}):
        raise refused(path)
    stored = saved["options"] = with_copies(folder, original)
    if stored.get("method") != original.get("method"):
        saved[stored["method"]] = saved.pop(original["method"], None)
    require_known(path, stored)
    method = stored.get("method", defaults()["method"])
    if method not in saved:
        raise InputError(f"{path} holds no weights: put a good copy there")
    saved.setdefault("scales", {})  # an earlier version's has none
    by_seed = {method: {int: _TENSORS}, "stats": {int: [_TENSORS]}, "scales": {int: _TENSORS}}
    if not fits(saved, {**by_seed, "groups": [[int]]}):
        raise refused(path)
    return saved


def _fit(
    experiment: Experiment,
    states: Mapping[int, Params],
    stats: Mapping[int, list[Params]],
    groups: list[list[int]],
    num_tasks: int,
) -> bool:
    """Whether names, shapes and types of tensors are those of this experiment.

    Args:
        num_tasks: Learned.
    """
    seeds = [seed for group in groups for seed in group]
    if not seeds or sorted(seeds) != sorted(states) or sorted(seeds) != sorted(stats):
        return False
    method = experiment.method
    fresh = method.init(seeds[:1])
    state = method.state_dict(select_members(fresh, 0))
    in_task = select_members(experiment.net.fresh_stats(1, experiment.device), 0)
    return all(
        _alike(states[seed], state)
        and len(stats[seed]) == num_tasks
        and all(_alike(of_task, in_task) for of_task in stats[seed])
        for seed in seeds
    )


def _alike(values: Params, like: Params) -> bool:
    return values.keys() == like.keys() and all(
        value.shape == like[name].shape and value.dtype == like[name].dtype
        for name, value in values.items()
    )


_TENSORS = {str: Tensor}
