"""A pack: points of a sweep that take their steps together, each with files of its own.

What a task needs is joined before it and taken apart behind it. So a point leaves the pack when its
seeds have failed, and points that are at different positions meet again: those that have come less
far go first.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from torch import Tensor

from hypercl.begun import Begun, Data
from hypercl.code import within_run
from hypercl.engine import groups
from hypercl.errors import RunFailed
from hypercl.evaluation import Inference
from hypercl.experiment import Experiment
from hypercl.interruption import Interruption
from hypercl.options import Options
from hypercl.report.results import MemberProgress
from hypercl.rundir import saving
from hypercl.rundir.checkpoint import Position
from hypercl.rundir.directory import RunDir
from hypercl.sweeps.joined import (
    JoinedExperiment,
    Member,
    join_positions,
    numbers_of,
    part_position,
)
from hypercl.tasks.task import fingerprint

_Value = TypeVar("_Value")
# train.learn_next_task: experiment, position, report, checkpoints.
_LearnNextTask = Callable[..., Position]
_Place = tuple[int, int, int]  # of a run: the group of seeds, the task, the step


def points_together(options: Options) -> int:
    """How many points with these options, but for members' numbers, are faster in one step than one
    by one, and fit into memory.

    Raises:
        InputError: The data cannot be had.
    """
    return max(map(len, _packs(Experiment.build(options), _MANY)))


_MANY = 10_000  # points, more than any machine takes at once


def _packs(experiment: Experiment, num_points: int) -> list[list[int]]:
    """The points, by number, that train together: by the rule that seeds have, as whole runs."""
    num_seeds = len(experiment.seeds)
    most = experiment.net.most_together(experiment.device) / num_seeds
    return groups.split_into_groups(
        range(num_points),
        num_seeds * experiment.bytes_per_member(),
        groups.available_bytes(experiment.device),
        most,
    )


def learn_in_packs(
    options: Options,
    run_dirs: Sequence[RunDir],
    begin: Callable[[int, Data], Begun],
    learn_next_task: _LearnNextTask,
    interruption: Interruption,
) -> list[dict[str, Any]]:
    """Learn points that may share a step.

    Args:
        options: Of one of them.
        run_dirs: Of each, open; finished ones stay as they are.
        begin: Begins the point of a number, or goes on with it.
        learn_next_task: train.learn_next_task.

    Returns:
        What results.json holds of each.

    Raises:
        InputError: Data or a run directory cannot be used.
        RunFailed: The results of a point cannot be written, or the user's code failed.
        Interrupted: By a signal; what was learned has been saved.
    """
    results = {i: run_dir.results for i, run_dir in enumerate(run_dirs) if run_dir.finished}
    if len(results) < len(run_dirs):
        experiment = Experiment.build(options)
        data = Data(experiment.tasks, fingerprint(experiment.tasks))
        for pack in _packs(experiment, len(run_dirs)):
            left = [i for i in pack if i not in results]
            go_back_to_meet([run_dirs[i] for i in left])
            runs = [begin(i, data) for i in left]
            _learn_pack(runs, learn_next_task, interruption)
            results |= {i: run.report.results for i, run in zip(left, runs, strict=True)}
    return [dict(results[i] or {}) for i in range(len(run_dirs))]


def go_back_to_meet(run_dirs: Sequence[RunDir]) -> None:
    """Where a pack was killed between the checkpoints of two points, have those that are ahead go
    back by one, to the newest position that all have. Where there is none, all stay where they are.
    """
    places = [_places(run_dir) for run_dir in run_dirs]
    if not places or not all(places) or len({own[0] for own in places}) == 1:
        return
    common = set(places[0]).intersection(*places)
    if not common:
        return
    for run_dir, own in zip(run_dirs, places, strict=True):
        if own[0] != max(common):
            newest, before = run_dir.checkpoints
            before.replace(newest)


def _places(run_dir: RunDir) -> list[_Place]:
    """Where a run's checkpoints are that are whole, the newest first; none of a run that begins."""
    places: list[_Place] = []
    if run_dir.config is None and not run_dir.lost:
        return places
    for path in run_dir.checkpoints:
        with suppress(OSError, saving.Damaged, KeyError, TypeError):
            content = saving.decode(path.read_bytes())
            training = content["training"]
            step = 0 if training is None else training["step"]
            places.append((content["group"], content["task_id"], step))
    return places


def _learn_pack(
    runs: Sequence[Begun], learn_next_task: _LearnNextTask, interruption: Interruption
) -> None:
    """Learn until each has ended, by itself: finished, paused, or failed as all its seeds have."""
    if not runs:
        return
    kinds = runs[0].experiment.options.kinds[1:]
    with _Pack(runs, learn_next_task) as pack, interruption.grace(), within_run(kinds):
        for run in runs:
            run.report.__enter__()
        pack.save([i for i, run in enumerate(runs) if run.is_new], interruption)
        pack.end_what_has_come_far_enough()
        while pack.going:
            chosen = pack.furthest_behind()
            pack.learn_next_task(chosen, interruption)
            pack.save(chosen, interruption)
            pack.end_what_has_come_far_enough()


class _Pack:
    """Points under way; a context whose error ends those that have not ended.

    Attributes:
        going: By number, those that have not ended.
    """

    def __init__(self, runs: Sequence[Begun], learn_next_task: _LearnNextTask) -> None:
        self.going = dict(enumerate(runs))
        self._positions = {i: run.position for i, run in self.going.items()}
        self._groups: dict[int, int] = {}  # of seeds, that have been announced
        self._learn_next_task = learn_next_task

    def __enter__(self) -> "_Pack":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        for i in list(self.going):
            self._end(i, error)

    def _end(self, i: int, error: BaseException | None) -> None:
        report = self.going.pop(i).report
        report.__exit__(None if error is None else type(error), error, None)

    def furthest_behind(self) -> list[int]:
        """The points at the position that others have passed."""
        places = {i: _place(self._positions[i]) for i in self.going}
        return [i for i, place in places.items() if place == min(places.values())]

    def learn_next_task(self, chosen: Sequence[int], interruption: Interruption) -> None:
        """Have points that are at the same position learn their next task together."""
        runs = [self.going[i] for i in chosen]
        for i, run in zip(chosen, runs, strict=True):
            group = self._positions[i].group
            if self._groups.get(i) != group:
                self._groups[i] = group
                run.report.start_group(self._positions[i].groups[group])
        before = [
            self._positions[i].on_device(run.experiment.device, run.experiment.init)
            for i, run in zip(chosen, runs, strict=True)
        ]
        members = {
            number: Member(run.experiment, seed)
            for run, position, own in zip(runs, before, numbers_of(before), strict=True)
            for number, seed in zip(own, position.seeds, strict=True)
        }
        after = self._learn_next_task(
            JoinedExperiment.join(members),
            join_positions(before),
            _Reports(runs, before),
            _CheckpointsOfAll(runs, before, interruption),
        )
        for i, run, position in zip(chosen, runs, part_position(after, before), strict=True):
            if position.seeds:
                run.keep(position)
            if not position.seeds or position.task_id == len(run.experiment.tasks):
                position = position.of_next_group()
                run.save_weights(position)
            self._positions[i] = position

    def save(self, chosen: Sequence[int], interruption: Interruption) -> None:
        """Save all, and leave where a signal asks for that."""
        for i in chosen:
            self.going[i].checkpoints.write(self._positions[i])
        interruption.leave_if_pending()

    def end_what_has_come_far_enough(self) -> None:
        """End the points behind their last task, or at a pause."""
        for i, run in list(self.going.items()):
            position = self._positions[i]
            if position.group == len(position.groups) or run.checkpoints.pauses_at(position):
                reason = run.end(position)
                self._end(i, None if reason is None else RunFailed(reason))


def _place(position: Position) -> _Place:
    step = 0 if position.training is None else position.training["step"]
    return position.group, position.task_id, step


class _Reports:
    """The reports of all points, as one of all members: each hears of its own.

    The methods are those of :class:`~hypercl.report.results.Report`.
    """

    def __init__(self, runs: Sequence[Begun], positions: Sequence[Position]) -> None:
        self._reports = [run.report for run in runs]
        self._numbers = numbers_of(positions)
        self._seeds = [position.seeds for position in positions]

    def _parted(self, values: Mapping[int, _Value]) -> Iterator[tuple[Any, dict[int, _Value]]]:
        """Each report, and by seed what is there of its members."""
        for report, numbers, seeds in zip(self._reports, self._numbers, self._seeds, strict=True):
            by_member = zip(numbers, seeds, strict=True)
            yield report, {seed: values[n] for n, seed in by_member if n in values}

    def _with_some(self, values: Mapping[int, _Value]) -> Iterator[tuple[Any, dict[int, _Value]]]:
        return ((report, own) for report, own in self._parted(values) if own)

    def lacks_untrained(self, members: Sequence[int], task_ids: Sequence[int]) -> bool:
        asked = self._with_some(dict.fromkeys(members))
        return any(report.lacks_untrained(list(own), task_ids) for report, own in asked)

    def untrained(
        self, task_id: int, task_ids: Sequence[int], measured: Mapping[int, Sequence[float]]
    ) -> None:
        for report, own in self._with_some(measured):
            report.untrained(task_id, task_ids, own)

    def lacks_before(self, members: Sequence[int], task_id: int) -> bool:
        asked = self._with_some(dict.fromkeys(members))
        return any(report.lacks_before(list(own), task_id) for report, own in asked)

    def before(self, task_id: int, measured: Mapping[int, Sequence[float]]) -> None:
        for report, own in self._with_some(measured):
            report.before(task_id, own)

    def start_task(self, *task: Any) -> None:
        for report in self._reports:
            report.start_task(*task)

    def step(self, task_id: int, step: int, members: Mapping[int, MemberProgress]) -> None:
        for report, own in self._with_some(members):
            report.step(task_id, step, own)

    def end_training(self, task_id: int, failed: Mapping[int, str]) -> None:
        for report, own in self._parted(failed):
            report.end_training(task_id, own)

    def draw_fits(self, fits: Mapping[int, list[list[float]]]) -> None:
        for report, own in self._with_some(fits):
            report.draw_fits(own)

    def draw_generated(
        self, members: Sequence[int], images_of: Callable[[int], Tensor | None]
    ) -> None:
        positions = {member: i for i, member in enumerate(members)}
        for report, own in self._with_some(positions):
            of_report = list(own.values())
            report.draw_generated(list(own), lambda i, own=of_report: images_of(own[i]))

    def end_task(
        self,
        task_id: int,
        measured: Mapping[int, Sequence[float | None]],
        inferred: Mapping[int, Inference] | None = None,
        kept_bytes: int = 0,
    ) -> None:
        of_all = self._parted(inferred or {})
        for (report, own), (_, own_inferred) in zip(self._parted(measured), of_all, strict=True):
            if own:
                report.end_task(task_id, own, own_inferred or None, kept_bytes)


class _CheckpointsOfAll:
    """The checkpoints of all points, as one of all members: each saves its own part of a position.

    The methods are those of :class:`~hypercl.rundir.checkpoint.Checkpoints`.
    """

    def __init__(
        self, runs: Sequence[Begun], positions: Sequence[Position], interruption: Interruption
    ) -> None:
        self._checkpoints = [run.checkpoints for run in runs]
        self._positions, self._interruption = positions, interruption

    def due(self, step: int) -> bool:
        return self._checkpoints[0].due(step)

    def save(self, together: Position) -> None:
        parts = part_position(together, self._positions)
        for checkpoints, position in zip(self._checkpoints, parts, strict=True):
            checkpoints.write(position)
        self._interruption.leave_if_pending()

    def leave_at(self, together: Position) -> None:
        if self._interruption.pending is not None:
            self.save(together)
