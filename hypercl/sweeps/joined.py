"""Several runs as members of one step: their options, their positions, and these apart again.

A run's members are its seeds. Where runs train together, a member is a seed of one of them, and is
known by its number among all, as two runs may have the same seed. Numbers in which they differ,
like the learning rate, become one of each member: in ``TrainOptions`` a tuple, in a method's entry
a tensor [members] on the device. What they share stays as it is.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from hypercl.engine.members import Params, select_members
from hypercl.experiment import Experiment
from hypercl.options import Options, options_of
from hypercl.rundir.checkpoint import Position, of_all

_Group = TypeVar("_Group")
# Of what a task's steps change (train.TaskState), what all members have in common.
_SHARED = ("step", "optimizer.step")


class Member(NamedTuple):
    """A seed of a run."""

    run: Experiment
    seed: int


@dataclass(frozen=True)
class JoinedExperiment(Experiment):
    """The experiments of several runs, as one that takes steps with all their members.

    Attributes:
        members: By number. The method has numbers for these, in their order.
    """

    members: Mapping[int, Member]

    @classmethod
    def join(cls, members: Mapping[int, Member]) -> "JoinedExperiment":
        """Of members of runs that may share a step; see together.py."""
        first = next(iter(members.values())).run
        options = joined_options([m.run.options for m in members.values()], first.device)
        return cls(**vars(Experiment.of(options, first.tasks, first.device)), members=members)

    def seeds_of(self, members: Sequence[int]) -> Sequence[int]:
        """Each member's own."""
        return [self.members[member].seed for member in members]

    def init(self, members: Sequence[int]) -> Params:
        """As each member's run has them, with its own standard deviations."""
        own = [self.members[member] for member in members]
        return _joined([member.run.init([member.seed]) for member in own])

    def of_members(self, members: Sequence[int]) -> "Experiment":
        """With a method that has numbers for these alone."""
        if list(members) == list(self.members):
            return self
        return self.join({member: self.members[member] for member in members})


def joined_options(of_members: Sequence[Options], device: torch.device) -> Options:
    """The first member's options, with a number of each member where they differ in one.

    What is read at initialization alone, as standard deviations are, stays the first one's.
    """

    def to_device(numbers: Sequence[float]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float32, device=device)

    first = of_members[0]
    train = _with_own([options.train for options in of_members], tuple)
    kind = _with_own([options.method.kind for options in of_members], to_device)
    return replace(first, train=train, method=replace(first.method, kind=kind))


def _with_own(groups: Sequence[_Group], make: Callable[[Sequence[float]], Any]) -> _Group:
    own: dict[str, Any] = {}
    for field in options_of(type(groups[0])):
        numbers = [getattr(group, field.name) for group in groups]
        if field.metadata["member"] and len(set(numbers)) > 1:
            own[field.name] = make(numbers)
    return replace(groups[0], **own)  # type: ignore[type-var]


def join_positions(positions: Sequence[Position]) -> Position:
    """Where runs are together that are at the same step of the same task, each with its parameters
    on the device.

    Members are numbered in the order of the runs, and of the seeds of each.
    """
    first, numbers = positions[0], numbers_of(positions)
    training: dict[str, Any] | None = None
    if first.training is not None:
        states: list[Any] = [position.training for position in positions]
        failed = {
            number: state["failed"][seed]
            for state, position, own in zip(states, positions, numbers, strict=True)
            for seed, number in zip(position.seeds, own, strict=True)
            if seed in state["failed"]
        }
        training = {
            **first.training,
            "flat": torch.cat([state["flat"] for state in states]),
            "changed": _joined([state["changed"] for state in states], _SHARED),
            "rates": [rate for state in states for rate in state["rates"]],
            "history": torch.cat([state["history"] for state in states], dim=2),
            "failed": failed,
        }
    members = [number for own in numbers for number in own]
    return Position(
        [members],
        0,
        members,
        first.task_id,
        _joined([position.ready_params for position in positions]),
        _joined([position.memory for position in positions]),
        [_joined(in_task) for in_task in zip(*(p.stats for p in positions), strict=True)],
        _joined(of_all([position.scales for position in positions])),
        training,
    )


def part_position(together: Position, positions: Sequence[Position]) -> list[Position]:
    """Each run's own position, of the one in which they are together.

    Args:
        positions: As :func:`join_positions` was given them. Members may have failed since.
    """
    return [
        _part(together, position, own)
        for position, own in zip(positions, numbers_of(positions), strict=True)
    ]


def numbers_of(positions: Sequence[Position]) -> list[range]:
    """The numbers of each run's members."""
    numbers, start = [], 0
    for position in positions:
        numbers.append(range(start, start + len(position.seeds)))
        start = numbers[-1].stop
    return numbers


def _part(together: Position, position: Position, own: range) -> Position:
    rows = [i for i, member in enumerate(together.seeds) if member in own]
    seeds = [position.seeds[together.seeds[i] - own.start] for i in rows]
    training = None
    if (state := together.training) is not None:
        changed = {
            name: value if name in _SHARED else value[rows]
            for name, value in state["changed"].items()
        }
        training = {
            **state,
            "flat": state["flat"][rows],
            "changed": changed,
            "rates": [state["rates"][i] for i in rows] if state["rates"] else [],
            "history": state["history"][..., rows],
            "failed": {
                position.seeds[member - own.start]: reason
                for member, reason in state["failed"].items()
                if member in own
            },
        }
    return replace(
        position,
        seeds=seeds,
        task_id=together.task_id,
        params=select_members(together.ready_params, rows),
        memory=select_members(together.memory, rows),
        stats=[select_members(in_task, rows) for in_task in together.stats],
        scales=select_members(together.scales, rows),
        training=training,
    )


def _joined(values: Sequence[Params], shared: Collection[str] = ()) -> Params:
    return {
        name: value if name in shared else torch.cat([each[name] for each in values])
        for name, value in values[0].items()
    }
