"""What a run has learned: weights.pt at its end, weights/ after every task; written and read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hypnettorch.mnets import MainNetInterface
from torch import Tensor

from hypercl.engine.members import Params, select_members, stack_members, to_device
from hypercl.errors import InputError
from hypercl.evaluation import Learned
from hypercl.experiment import Experiment
from hypercl.options import Options, defaults, differing, require_known
from hypercl.rundir import saving
from hypercl.rundir.checkpoint import Position
from hypercl.rundir.directory import RunDir
from hypercl.rundir.forms import fits
from hypercl.rundir.sources import with_copies
from hypercl.rundir.stored import mend_by_resuming, read_config, read_finished, refused

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
    data = _encode(experiment, position.learned, stats, groups, config)
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
        "groups": groups,
        "options": dict(config),
    }
    return saving.encode(content)


@dataclass(frozen=True, repr=False)
class Run:
    """What a run has learned, ready for use."""

    experiment: Experiment  # its options, tasks, main network and method
    params: dict[int, Params]  # by seed
    stats: dict[int, list[Params]]  # running statistics by seed and task, empty dicts without them
    groups: list[list[int]]  # of seeds that were trained and tested together

    def __repr__(self) -> str:
        return f"<run of {self.num_tasks} tasks with the seeds {list(self.params)}>"

    @property
    def num_tasks(self) -> int:
        """How many have been learned."""
        return len(next(iter(self.stats.values())))

    @property
    def main_net(self) -> MainNetInterface:
        """hypnettorch's main network; its ``forward(x, weights)`` takes a task's inputs."""
        return self.experiment.net.module

    def weights(self, task: int, seed: int) -> list[Tensor]:
        """The main network's tensors for a task, counted from 0.

        Raises:
            InputError: There is no such task or seed.
        """
        last = self.num_tasks - 1
        if not 0 <= task <= last:
            raise InputError(f"there is no task {task}, the last is {last}")
        if seed not in self.params:
            seeds = ", ".join(map(str, self.params))
            raise InputError(f"there is no seed {seed}, there are {seeds}")
        task_ids = torch.tensor([task], device=self.experiment.device)
        return self.experiment.net.split(self.of([seed]).weights(task_ids)[0, 0])

    def of(self, seeds: list[int]) -> Learned:
        """The networks of some seeds, together."""
        stats = [
            stack_members([self.stats[seed][task_id] for seed in seeds])
            for task_id in range(self.num_tasks)
        ]
        params = stack_members([self.params[seed] for seed in seeds])
        return Learned(self.experiment.net, self.experiment.method, params, stats)


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
    return Run(experiment, params, stats, [group for part in parts for group in part["groups"]])


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
    if not fits(saved, {method: {int: _TENSORS}, "stats": {int: [_TENSORS]}, "groups": [[int]]}):
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
