"""What the options of a run describe: its device, tasks, networks, method and groups of seeds."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import NamedTuple

import torch

from hypercl.engine import groups
from hypercl.engine.allocator import keep_freed_memory
from hypercl.engine.members import Params
from hypercl.engine.precision import forbid_tf32
from hypercl.engine.threads import use_threads
from hypercl.errors import InputError
from hypercl.machine import FLOAT
from hypercl.measure import Measure
from hypercl.methods.base import Method, Setting
from hypercl.networks.main_net import MainNetwork, TaskLoss, main_network
from hypercl.options import MainNetOptions, Options, RunOptions, TaskOptions, TrainOptions
from hypercl.tasks.normalization import normalized
from hypercl.tasks.task import (
    Split,
    Task,
    outputs_after,
    with_growing_outputs,
    with_heads,
    with_shared_outputs,
)


class Length(NamedTuple):
    """How long a task is learned."""

    num_steps: int
    steps_per_epoch: int


@dataclass(frozen=True)
class Experiment:
    """All that a run is made of, but for what it has learned."""

    options: Options
    device: torch.device
    tasks: Sequence[Task]
    net: MainNetwork
    method: Method

    @classmethod
    def build(cls, options: Options, tasks: Sequence[Task] | None = None) -> "Experiment":
        """Make what the options describe, and set the number of threads of the process.

        Args:
            tasks: Where they have been built before, from the same options.

        Raises:
            InputError: Data or a compression ratio cannot be had.
        """
        device = pick_device(options.run)
        if tasks is None:
            tasks = build_tasks(options.task, device, options.run.random_seed)
        if options.task.num_tasks is None:
            options = options.having(num_tasks=len(tasks))
        experiment = cls.of(options, tasks, device)
        if device.type == "cpu":
            of_sample = experiment.net.count_multiplications(prod(tasks[0].in_shape))
            use_threads(options.run.num_threads, options.train.batch_size * of_sample)
        return experiment

    @classmethod
    def of(cls, options: Options, tasks: Sequence[Task], device: torch.device) -> "Experiment":
        """The same with tasks that are given.

        Raises:
            InputError: The main network does not take their inputs.
        """
        net_type, cl_exp = options.main_net.kind, options.task.cl_exp
        for problem in net_type.problems_of_shape(tasks[0].in_shape, cl_exp):
            raise InputError(problem)  # of a shape that was not known before
        num_outputs = outputs_for(tasks, options.task.shares_outputs)

        def build(main_net: MainNetOptions) -> MainNetwork:
            return main_network(main_net.kind.build(main_net, tasks[0].in_shape, num_outputs))

        net = options.method.kind.main_net(options, build)
        setting = Setting(net, tasks, options.train, options.hypernet, device)
        kind = options.method.kind
        method = kind.build(setting)
        if method.network_by_task != kind.network_by_task:
            raise InputError(
                f"--method={kind.name}: network_by_task is {method.network_by_task} of the method "
                f"and {kind.network_by_task} of its entry, or its class: let them be the same"
            )
        return cls(options, device, tasks, net, method)

    @property
    def seeds(self) -> Sequence[int]:
        """All seeds of the run."""
        first = self.options.run.random_seed
        return range(first, first + self.options.run.num_seeds)

    def seeds_of(self, members: Sequence[int]) -> Sequence[int]:
        """The seeds from which members draw; the members of a run are known by their seeds."""
        return members

    def init(self, members: Sequence[int]) -> Params:
        """Fresh parameters of members, [members, …] each, on the device."""
        return self.method.init(members)

    def of_members(self, members: Sequence[int]) -> "Experiment":
        """The same for some of its members alone."""
        return self

    @property
    def measure(self) -> Measure:
        """What is measured of the tasks."""
        return self.options.task.measure

    @property
    def tells_tasks_apart(self) -> bool:
        """See :attr:`Options.tells_tasks_apart`."""
        return self.options.tells_tasks_apart

    @property
    def keeps_scales(self) -> bool:
        """Whether the margin of each task's networks is kept, by which tasks are inferred: a
        network of one class has none.
        """
        return self.tells_tasks_apart and all(task.num_classes > 1 for task in self.tasks)

    @property
    def has_one_set_of_stats(self) -> bool:
        """Whether running statistics go on from task to task, and are the same in all tests.

        Those of an earlier task would be of other weights where all tasks have one network, and
        would tell the task of a sample.
        """
        one_network = not self.method.network_by_task
        return one_network or self.options.main_net.bn_no_stats_checkpointing

    def length(self, task: Task) -> Length:
        """How long a task is learned."""
        return length_of_task(self.options.train, len(task.train.labels))

    def task_loss(self, task: Task) -> TaskLoss:
        """The main network's half of a step."""
        total = self.options.method.task_loss == "total"
        weight = len(task.train.labels) if total else 1
        return TaskLoss(self.net, weight, self.options.run.amp, self.options.run.tf32)

    def stats_to_begin_with(self, stats: Sequence[Params], num_members: int) -> Params:
        """The running statistics with which a task begins.

        Args:
            stats: Of the tasks before it.
        """
        if self.has_one_set_of_stats and stats:
            return stats[-1]
        return self.net.fresh_stats(num_members, self.device)

    def tasks_to_test(self, num_learned: int) -> list[Task]:
        """The tasks with the outputs among which their samples are classified once so many have
        been learned.
        """
        return [
            replace(task, outputs=outputs_after(self.tasks, task_id, num_learned))
            for task_id, task in enumerate(self.tasks)
        ]

    def splits_to_test(self, num_tasks: int) -> list[Split]:
        """What the accuracies, or errors, on the first tasks are measured on."""
        validation = self.options.evaluation.test_with_val_set
        return [task.validation if validation else task.test for task in self.tasks[:num_tasks]]

    def groups_of_seeds(self) -> list[list[int]]:
        """The seeds that are trained together."""
        most = self.net.most_together(self.device)
        if len(self.seeds) > 1 and self.device.type != "cpu" and self.net.why_alone is not None:
            warnings.warn(
                f"the seeds are trained one after the other, as networks of "
                f"--net_type={self.options.main_net.net_type} cannot run together: "
                f"{self.net.why_alone}",
                stacklevel=2,
            )
        if len(self.seeds) == 1 or most == 1:
            return [[seed] for seed in self.seeds]
        return groups.split_into_groups(
            self.seeds, self.bytes_per_member(), groups.available_bytes(self.device), most
        )

    def bytes_per_member(self) -> int:
        """Roughly the memory that one more seed takes in the last task, the most demanding one."""
        options, task = self.options, self.tasks[0]
        batch_size = max(options.train.batch_size, options.evaluation.val_batch_size)
        activations = 2 * self.net.count_activations(batch_size, prod(task.in_shape))
        num_steps = max(self.length(task).num_steps for task in self.tasks)
        drawn = 3 * num_steps * batch_size  # int64; crops and flips are smaller
        return FLOAT * (self.method.numbers_per_member() + activations + drawn)


def outputs_for(tasks: Sequence[Task], shared: bool) -> int:
    """How many outputs a main network has for tasks: for the largest of them, if they share them,
    or for all.
    """
    sizes = [task.num_classes for task in tasks]
    return max(sizes) if shared else sum(sizes)


def pick_device(options: RunOptions) -> torch.device:
    """The GPU where there is one and it is wanted, else the CPU; sets what is global in a process:
    torch's switches, and what malloc keeps.
    """
    keep_freed_memory()
    if options.deterministic_run:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it once
        torch.use_deterministic_algorithms(True)
    forbid_tf32()
    device = torch.device("cuda" if not options.no_cuda and torch.cuda.is_available() else "cpu")
    if options.tf32 and device.type != "cuda":
        warnings.warn("--tf32 has no effect on a CPU", stacklevel=2)
    return device


def build_tasks(options: TaskOptions, device: torch.device, seed: int) -> list[Task]:
    """The sequence of tasks, on the device.

    Args:
        seed: From which is drawn what is random in the tasks; the run's first.

    Raises:
        InputError: The data cannot be had, or a task would have nothing to train or test on.
    """
    tasks = options.kind.drawn(seed).build(options, device)
    kinds = {task.is_regression for task in tasks}
    if kinds != {options.is_regression}:
        found = "numbers" if True in kinds else "classes"
        raise InputError(
            f"--cl_exp={options.cl_exp} makes tasks whose labels are {found}, and is said to make "
            'others: let the entry have task_types, ("classification",) or ("regression",)'
        )
    if options.normalize is not None:
        tasks = normalized(tasks, options.normalize)
    if options.has_heads:
        return with_heads(tasks)
    return (
        with_growing_outputs(tasks) if options.has_growing_outputs else with_shared_outputs(tasks)
    )


def length_of_task(options: TrainOptions, num_samples: int) -> Length:
    """How long a task with so many training samples is learned."""
    return Length(options.num_steps(num_samples), ceil(num_samples / options.batch_size))
