"""What a finished run has learned: its file weights.pt, written and read."""

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
from hypercl.rundir.directory import RunDir, mend_by_resuming, read_finished, refused
from hypercl.rundir.forms import fits


def save_weights(
    run_dir: RunDir, experiment: Experiment, position: Position, config: Mapping[str, Any]
) -> None:
    """weights.pt: by seed, what the method has learned, under its name; the options.

    Args:
        config: The options with which the run began, by name.
    """
    method = experiment.method
    states = {seed: method.state_dict(params) for seed, params in position.learned.items()}
    tested_together = [[seed for seed in group if seed in states] for group in position.groups]
    content = {
        experiment.options.method.method: states,
        "stats": {seed: list(position.learned_stats[seed]) for seed in states},
        "groups": [group for group in tested_together if group],
        "options": dict(config),
    }
    run_dir.write_bytes("weights.pt", saving.encode(content))


@dataclass(frozen=True, repr=False)
class Run:
    """What a finished run has learned, ready for use."""

    experiment: Experiment  # its options, tasks, main network and method
    params: dict[int, Params]  # by seed
    stats: dict[int, list[Params]]  # running statistics by seed and task, empty dicts without them
    groups: list[list[int]]  # of seeds that were trained and tested together

    def __repr__(self) -> str:
        tasks, seeds = len(self.experiment.tasks), list(self.params)
        return f"<run of {tasks} tasks with the seeds {seeds}>"

    @property
    def main_net(self) -> MainNetInterface:
        """hypnettorch's main network; its ``forward(x, weights)`` takes a task's inputs."""
        return self.experiment.net.module

    def weights(self, task: int, seed: int) -> list[Tensor]:
        """The main network's tensors for a task, counted from 0.

        Raises:
            InputError: There is no such task or seed.
        """
        last = len(self.experiment.tasks) - 1
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
            for task_id in range(len(self.experiment.tasks))
        ]
        params = stack_members([self.params[seed] for seed in seeds])
        return Learned(self.experiment.net, self.experiment.method, params, stats)


def load_run(path: str | Path, **options: Any) -> Run:
    """Rebuild the networks of a finished run from its weights.pt.

    Args:
        path: The run directory.
        options: Those that may differ, like ``data_dir="…"`` and ``no_cuda=True``.

    Raises:
        InputError: weights.pt is missing or damaged, or an option does not fit.
    """
    return load(path, lambda stored: Options.of(stored).having(**options))


def load(path: str | Path, choose: Callable[[Mapping[str, Any]], Options]) -> Run:
    """:func:`load_run`, with options that are chosen when the run's are known.

    Args:
        choose: From the run's options by name, those to load it with.
    """
    folder, path = Path(path), Path(path, "weights.pt")
    saved, stored, method = _read_weights(folder, path)
    chosen = choose(stored)
    there = {**stored, "no_cuda": chosen.run.no_cuda}
    if differences := differing(there, chosen.recorded):
        raise InputError(f"{path} was learned with other options: {', '.join(differences)}")
    experiment = Experiment.build(chosen)
    experiment.net.module.eval()
    states = saved[method]
    if not _fit(experiment, states, saved["stats"], saved["groups"]):
        raise refused(path)
    params = {seed: experiment.method.load_state_dict(state) for seed, state in states.items()}
    stats = {
        seed: [to_device(in_task, experiment.device) for in_task in by_task]
        for seed, by_task in saved["stats"].items()
    }
    return Run(experiment, params, stats, saved["groups"])


def _read_weights(folder: Path, path: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """What is in weights.pt of a run directory, the run's options, and its method."""
    if not path.exists():
        read_finished(folder)  # says so where that is why
        raise InputError(f"{path} is missing: {mend_by_resuming(folder)}")
    try:
        saved = saving.decode(path.read_bytes())
    except saving.Damaged:
        raise InputError(f"{path} is damaged: {mend_by_resuming(folder)}") from None
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}): make it readable"
        ) from None
    stored = saved.get("options", {})
    if not fits(stored, {str: object}):
        raise refused(path)
    require_known(path, stored)
    method = stored.get("method", defaults()["method"])
    if method not in saved:
        raise InputError(f"{path} holds no weights: put a good copy there")
    form = {method: {int: _TENSORS}, "stats": {int: [_TENSORS]}, "groups": [[int]]}
    if not fits(saved, form):
        raise refused(path)
    return saved, stored, method


def _fit(
    experiment: Experiment,
    states: Mapping[int, Params],
    stats: Mapping[int, list[Params]],
    groups: list[list[int]],
) -> bool:
    """Whether names, shapes and types of tensors are those of this experiment."""
    seeds = [seed for group in groups for seed in group]
    if not seeds or sorted(seeds) != sorted(states) or sorted(seeds) != sorted(stats):
        return False
    method, num_tasks = experiment.method, len(experiment.tasks)
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
