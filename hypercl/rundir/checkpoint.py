"""Checkpoints: what they hold, when they are due, how a run goes on from one."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hypercl.engine.members import Params, select_members, stack_members, to_device
from hypercl.errors import InputError
from hypercl.interruption import Interruption
from hypercl.options import require_same
from hypercl.rundir import saving
from hypercl.rundir.directory import RunDir
from hypercl.rundir.forms import CONFIG, MADE_BY, PROGRESS, fits
from hypercl.rundir.growing import Grown
from hypercl.rundir.stored import ANEW, CHECKPOINTS, refused

FORMAT = 2  # of checkpoint.pt
OF_OPTIMIZER = "optimizer."  # begins the names of an optimizer's state in a memory

_TENSORS = {str: torch.Tensor}
_FORM = {
    "made_by": str,  # JSON, what config.json would say of the process that wrote it
    "data": str,
    "groups": [[int]],
    "group": int,
    "seeds": [int],
    "task_id": int,
    "params": (None, _TENSORS),
    "memory": _TENSORS,
    "stats": [_TENSORS],
    "training": (None, {str: object}),
    "learned": {int: _TENSORS},
    "learned_stats": {int: [_TENSORS]},
    "report": str,  # JSON
    "lengths": {str: int},  # of the files that grow
}
_NO_SCALES: Params = {}  # of an earlier version's
_SUMS = {str: (str, None)}
_REPORT = {"results": PROGRESS, "task_seconds": float}


@dataclass(frozen=True)
class Position:
    """Where a run is, with all tensors that the rest of it depends on.

    What a task's steps draw at random follows from the seeds, the task and the step; only dropout
    has a state, which ``training`` holds.
    """

    groups: Sequence[Sequence[int]]  # of seeds trained together, fixed for the whole run
    group: int  # the one being trained; len(groups) when all are done
    seeds: Sequence[int]  # of this group, without those that failed
    task_id: int  # being learned, or to be learned next
    params: Params | None = None  # [members, …] before this task; None: as initialized
    # What the method keeps, [members, …] each, and with --keep_optimizer the optimizer's state.
    memory: Params = field(default_factory=dict)
    stats: Sequence[Params] = ()  # running statistics by task learned, [members, …] each
    # What rules that infer tasks keep of each task learned, [members, tasks] each.
    scales: Params = field(default_factory=dict)
    training: Mapping[str, Any] | None = None  # train.TaskState as a dict; None: at the first step
    learned: Mapping[int, Params] = field(default_factory=dict)  # of the groups done, by seed
    learned_stats: Mapping[int, Sequence[Params]] = field(default_factory=dict)  # by seed and task
    learned_memory: Mapping[int, Params] = field(default_factory=dict)  # the same, by seed
    learned_scales: Mapping[int, Params] = field(default_factory=dict)  # by seed, [tasks] each
    # Of the groups to come, where an earlier run is continued: by seed, OfSeed as a dict.
    waiting: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def start(
        cls,
        groups: Sequence[Sequence[int]],
        group: int = 0,
        *,
        waiting: Mapping[int, Mapping[str, Any]] | None = None,
        **learned: Any,
    ) -> "Position":
        """Before the first task of a group, or behind the last group.

        Args:
            waiting: :class:`OfSeed` as a dictionary, by seed, of this group and those to come,
                where an earlier run is continued; the first task is then the one behind its last.
        """
        seeds, waiting = groups[group] if group < len(groups) else [], waiting or {}
        if waiting.keys().isdisjoint(seeds):
            return cls(groups, group, seeds, 0, **learned)
        seeds = [seed for seed in seeds if seed in waiting]  # without those that failed there
        own = [OfSeed(**waiting[seed]) for seed in seeds]
        return cls(
            groups,
            group,
            seeds,
            len(own[0].stats),
            stack_members([of_seed.params for of_seed in own]),
            stack_members([of_seed.memory for of_seed in own]),
            [stack_members(in_task) for in_task in zip(*(w.stats for w in own), strict=True)],
            stack_members(of_all([of_seed.scales for of_seed in own])),
            waiting={seed: w for seed, w in waiting.items() if seed not in seeds},
            **learned,
        )

    @property
    def ready_params(self) -> Params:
        """``params``, which are there from :meth:`on_device` on."""
        assert self.params is not None
        return self.params

    def on_device(
        self, device: torch.device, init: Callable[[Sequence[int]], Params]
    ) -> "Position":
        """The same with its tensors on a device, and with parameters.

        Args:
            init: Makes those of the seeds, where there are none yet.
        """
        return replace(
            self,
            params=init(self.seeds) if self.params is None else to_device(self.params, device),
            memory=to_device(self.memory, device),
            stats=[to_device(in_task, device) for in_task in self.stats],
            scales=to_device(self.scales, device),
        )

    def by_seed(self) -> dict[int, "OfSeed"]:
        """What this group has learned so far, on the CPU."""
        params, memory = to_device(self.params or {}, "cpu"), to_device(self.memory, "cpu")
        stats = [to_device(in_task, "cpu") for in_task in self.stats]
        scales = to_device(self.scales, "cpu")
        return {
            seed: OfSeed(
                select_members(params, i),
                select_members(memory, i),
                [select_members(in_task, i) for in_task in stats],
                select_members(scales, i),
            )
            for i, seed in enumerate(self.seeds)
        }

    def of_next_group(self) -> "Position":
        """Before the next group of seeds, with what this one has learned.

        That lies on the CPU, so that the next one has the device to itself.
        """
        by_seed = self.by_seed().items()
        return self.start(
            self.groups,
            self.group + 1,
            waiting=self.waiting,
            learned={**self.learned, **{seed: of.params for seed, of in by_seed}},
            learned_stats={**self.learned_stats, **{seed: of.stats for seed, of in by_seed}},
            learned_memory={**self.learned_memory, **{seed: of.memory for seed, of in by_seed}},
            learned_scales={**self.learned_scales, **{seed: of.scales for seed, of in by_seed}},
        )

    def describe(self, num_tasks: int) -> str:
        """Where a run goes on, in words."""
        if self.group == len(self.groups):
            return "its end"
        step = 0 if self.training is None else self.training["step"]
        group = f" of group {self.group + 1}" if len(self.groups) > 1 else ""
        return f"task {self.task_id + 1}/{num_tasks}{group}, step {step}"


def of_all(scales: Sequence[Params]) -> list[Params]:
    """What all have: of a run that an earlier version began, a part has no scales."""
    names = [name for name in scales[0] if all(name in own for own in scales)]
    return [{name: own[name] for name in names} for own in scales]


def parted(memory: Params) -> tuple[Params, Params]:
    """The optimizer's state in a memory, and what the method keeps."""
    of_optimizer = {
        name.removeprefix(OF_OPTIMIZER): value
        for name, value in memory.items()
        if name.startswith(OF_OPTIMIZER)
    }
    return of_optimizer, {n: v for n, v in memory.items() if not n.startswith(OF_OPTIMIZER)}


class OfSeed(NamedTuple):
    """What one seed has learned, without a dimension of members."""

    params: Params
    memory: Params
    stats: list[Params]  # running statistics by task
    scales: Params = _NO_SCALES  # [tasks] each


class Checkpoints:
    """Saves the positions of a run in its directory.

    Args:
        described: What config.json would say of this process.
        data: A checksum of the samples.
        report_state: Returns what the report needs to go on.
        every: Steps from one checkpoint to the next; 0: after tasks alone.
        interruption: A signal that is pending makes one due, and ends the run after it.
        pause_after: Tasks, of the first group of seeds, after which the run pauses; None: never.
    """

    def __init__(
        self,
        run_dir: RunDir,
        described: Mapping[str, Any],
        data: str,
        report_state: Callable[[], Mapping[str, Any]],
        every: int,
        interruption: Interruption,
        pause_after: int | None = None,
    ) -> None:
        self._pause_after = pause_after
        self._run_dir, self._data, self._report_state = run_dir, data, report_state
        self._made_by = json.dumps({name: described[name] for name in MADE_BY})
        self._every, self._interruption = every, interruption

    def due(self, step: int) -> bool:
        """Whether the run is to be saved after a step of a task."""
        at_interval = self._every > 0 and step % self._every == 0
        return at_interval or self._interruption.pending is not None

    def save(self, position: Position) -> None:
        """Write checkpoint.pt, and leave where a signal asks for that."""
        self.write(position)
        self._interruption.leave_if_pending()

    def write(self, position: Position) -> None:
        """Write checkpoint.pt."""
        grown = self._run_dir.grown()
        content = {
            "format": FORMAT,
            "made_by": self._made_by,
            "config": json.dumps(self._run_dir.config),
            "data": self._data,
            **vars(position),
            "report": json.dumps(self._report_state()),
            "lengths": {name: file.length for name, file in grown.items()},
            "sums": {name: file.sha256 for name, file in grown.items()},
        }
        self._run_dir.write_checkpoint(saving.encode(content))

    def pauses_at(self, position: Position) -> bool:
        """Whether the run is to be left at a position between two tasks, or two groups of seeds."""
        if self._pause_after is None or position.group == len(position.groups):
            return False
        return position.group > 0 or position.task_id >= self._pause_after

    def leave_at(self, position: Position) -> None:
        """Save and leave where a signal asks for that."""
        if self._interruption.pending is not None:
            self.save(position)


def load_checkpoint(
    run_dir: RunDir, options: Mapping[str, Any], described: Mapping[str, Any], data: str
) -> tuple[Position, dict[str, Any], dict[str, Grown]] | None:
    """Where the run that lies in a directory is to go on.

    Args:
        options: The run's, by name; ``described`` and ``data`` as :class:`Checkpoints` has them.

    Returns:
        Position, state of the report, what the files that grow held; None where nothing has been
        learned yet.

    Raises:
        InputError: The checkpoint is damaged, of another run, or there is none where one should be.
    """
    if run_dir.config is None:
        return None
    path = run_dir.checkpoints[0]
    content = saving.load_newest(run_dir.checkpoints)
    if content is None:
        for name, what in run_dir.lost.items():
            raise InputError(
                f"{run_dir.path / name} {what}, as is the checkpoint from which it would be "
                f"written anew: put a good copy of either there, or {ANEW}"
            )
        learned = run_dir.results is not None and run_dir.results["summary"]
        if learned or run_dir.has_learned:
            raise InputError(f"{path} is missing: put it there, or {ANEW}")
        return None
    made_by = require_form(path, content)
    require_same(path, made_by["options"], options)
    if content["data"] != data:
        raise InputError(
            f"the data are not those with which {run_dir.path} began: give their --data_dir, or "
            f"{ANEW}"
        )
    warn_of_changes(made_by, described)
    sums = content.get("sums", {})
    grown = {name: Grown(length, sums.get(name)) for name, length in content["lengths"].items()}
    return position_in(content), json.loads(content["report"]), grown


def position_in(content: Mapping[str, Any]) -> Position:
    """The position that a checkpoint holds; what an earlier version did not save is empty."""
    return Position(**{f.name: content[f.name] for f in fields(Position) if f.name in content})


def warn_of_changes(made_by: Mapping[str, Any], described: Mapping[str, Any]) -> None:
    """Say which versions, which device and which commit are others than a run was left with."""
    there, here = ({**by, **by["versions"]} for by in (made_by, described))
    for name in (*here["versions"], "device", "git_commit"):
        if there.get(name) != here[name]:
            warnings.warn(
                f"the run was left with {name} {there.get(name)} and goes on with {here[name]}: "
                "it may differ from one without a break",
                stacklevel=3,
            )


def restore_config(run_dir: RunDir) -> None:
    """Where config.json is lost, take its content from the checkpoint.

    Raises:
        InputError: The checkpoint is damaged, or lost too.
    """
    if run_dir.config is not None or not run_dir.lost:
        return
    content = saving.load_newest(run_dir.checkpoints)
    if content is not None:
        run_dir.restore(_config_in(run_dir.checkpoints[0], content))


def stored_config(folder: Path) -> tuple[dict[str, Any], Path]:
    """What config.json of a run directory held, from its checkpoint; where that lies.

    Raises:
        InputError: The checkpoint is damaged.
    """
    paths = [folder / name for name in CHECKPOINTS]
    content = saving.load_newest(paths)
    if content is None:  # removed at this moment
        raise InputError(f"{paths[0]} is missing: put it there, or {ANEW}")
    return _config_in(paths[0], content), paths[0]


def _config_in(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json held, from the content of a checkpoint.

    Args:
        path: Of the checkpoint.
    """
    made_by = require_form(path, content)
    with suppress(KeyError, TypeError, ValueError, RecursionError):
        config = json.loads(content["config"])
        if fits(config, CONFIG):
            return config
    # An earlier version's has no more than this.
    return {**made_by, "command": "python run.py (lost)", "started": "at a time that is lost"}


def require_form(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse content that no run of this version has written, though its checksum is right.

    Returns:
        What made it.
    """
    if content.get("format") != FORMAT:
        raise InputError(
            f"{path} is not of this version of the program: continue with the one that began the "
            f"run, or {ANEW}"
        )
    with suppress(ValueError, RecursionError):
        if fits(content, _FORM) and min(content["lengths"].values(), default=0) >= 0:
            made_by, report = json.loads(content["made_by"]), json.loads(content["report"])
            sums = content.get("sums", {})
            scales, by_seed = (content.get(n, {}) for n in ("scales", "learned_scales"))
            kept = fits(scales, _TENSORS) and fits(by_seed, {int: _TENSORS})
            if fits(made_by, MADE_BY) and fits(report, _REPORT) and fits(sums, _SUMS) and kept:
                return made_by
    raise refused(path)
