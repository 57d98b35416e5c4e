"""What is tried next, and which points stop; Optuna chooses, its journal keeps.

What point k is follows from the file, k and the values of the points that it is told: those up to
k - at_once, in blocks where points train together. So it does not depend on which of them ends
first, on how many workers there are, or on kills. For the same reason no sampler lives from point
to point: each choice is made by a fresh one, with a seed of its own, in a study made for it.
"""

import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypercl.errors import InputErrors
from hypercl.sweeps.changes import FORMAT, contradictions, described
from hypercl.sweeps.space import Domain, Plain, Space, frozen
from hypercl.sweeps.spec import Point, Sweep
from hypercl.sweeps.values import Value

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

STATES = ("running", "finished", "stopped", "diverged", "failed")
_DIGITS = 4  # of numbers from a range: what is printed is what was run
_REDRAWN = 20  # times, a point that was there before
_MOST_COUNTED = 100_000  # points of a space of choices
_SWEEP, _POINT, _OPTIONS, _NAME = "sweep", "point", "options", "name"  # names in the journal
_ATTEMPT, _SEM, _SEEDS, _DIVERGED, _MESSAGE = "attempt", "sem", "seeds", "diverged", "message"
_AFTER = "after "  # so many tasks: what was decided


@dataclass(frozen=True)
class Entry:
    """What the journal has of a point."""

    point: Point
    state: str  # one of STATES
    value: float | None  # at the end, or where it stopped; the worst where it diverged
    sem: float | None  # standard error over the seeds
    rungs: Mapping[int, float]  # after so many tasks, the value
    message: str  # why it failed or diverged; else empty
    attempt: int  # from 1
    decisions: Mapping[int, str]  # after so many tasks: "go on" or "stop"
    trial: int  # Optuna's number of it in storage

    @property
    def is_told(self) -> bool:
        """Whether it has ended."""
        return self.state != "running"


class Search:
    """The points of a sweep; one process at a time has it open for writing.

    Where a write fails (OSError), the journal is as it was before, and the object is not to be used
    any more.
    """

    def __init__(self, journal: Path, sweep: Sweep, *, to_read: bool) -> None:
        from hypercl.sweeps.journal import open_journal

        self.path, self.sweep = journal, sweep
        self.at_once = self.block = 1
        self._storage: Any = open_journal(journal, to_read=to_read)
        self._studies = {s.study_name: s._study_id for s in self._storage.get_all_studies()}
        self._entries: dict[str, list[Entry]] = {label: [] for label in sweep.labels}
        self._rungs: dict[tuple[str, int], _Rung] = {}
        for label in self._studies.keys() & self._entries.keys():
            for trial in self._storage.get_all_trials(self._studies[label], deepcopy=False):
                self._note(_entry_of(label, trial))
            noted = self._noted(label)
            self.at_once = noted.get("at_once", self.at_once)
            self.block = noted.get("block", self.block)

    @classmethod
    def open(cls, journal: Path, sweep: Sweep, *, at_once: int, block: int = 1) -> "Search":
        """Begin a sweep, or go on with it; a torn last line is cut off.

        Args:
            journal: The file; made where it is missing.
            at_once: Points at work at a time, where the file does not say it; counts when the sweep
                begins, and is kept.
            block: Points that are asked for together, as they train together; the same.

        Raises:
            InputErrors: The journal is of a sweep that this one contradicts.
            InputError: The journal is damaged.
            OSError: It cannot be written.
        """
        search = cls(journal, sweep, to_read=False)
        if not search._is_begun:
            search.at_once, search.block = max(sweep.at_once or at_once, block), block
        problems = list(search._contradictions())
        if problems:
            raise InputErrors([f"{sweep.path}: {problem}" for problem in problems])
        search._begin()
        return search

    @classmethod
    def has_begun(cls, journal: Path, sweep: Sweep) -> bool:
        """Whether a journal says how a sweep works: one that was killed at once has none, or an
        empty one.

        Raises:
            InputError: The journal is damaged.
        """
        if not journal.exists() or not journal.stat().st_size:
            return False
        return cls.look(journal, sweep)._is_begun

    @classmethod
    def look(cls, journal: Path, sweep: Sweep) -> "Search":
        """The same to read alone, also while another process writes.

        Raises:
            InputError: The journal is damaged, or not there.
        """
        return cls(journal, sweep, to_read=True)

    # Asking.

    def num_points(self, label: str) -> int:
        """How many points there will be; of a space of choices no more than it has."""
        searched = self.sweep.of(label)
        if self.sweep.search == "list":
            return len(searched.named)
        known = self._all_points[label]
        if self.sweep.search == "grid":
            assert known is not None
            return len(known)
        assert searched.points is not None
        return searched.points if known is None else min(searched.points, len(known))

    def next(self, label: str) -> Point | None:
        """Enter the next point in the journal; None where it waits for others, or all are there."""
        entries, number = self._entries[label], len(self._entries[label])
        if number >= self.num_points(label):
            return None
        num_told = 0
        if self.sweep.search == "tpe":
            num_told = self.block * (number // self.block - self.at_once // self.block + 1)
            num_told = max(0, num_told)
            if not all(entry.is_told for entry in entries[:num_told]):
                return None
        elif sum(not entry.is_told for entry in entries) >= self.at_once:
            return None
        options, name = self._choose(label, number, num_told)
        point = Point(label, number, options, name)
        self._enter(point)
        return point

    def pending(self, label: str) -> list[Point]:
        """Points that are to run or to go on, in order."""
        return [entry.point for entry in self._entries[label] if not entry.is_told]

    def done(self, label: str) -> bool:
        """Whether all points have been asked for and told."""
        entries = self._entries[label]
        return len(entries) >= self.num_points(label) and all(entry.is_told for entry in entries)

    def retry_failed(self, label: str) -> list[Point]:
        """Make the failed points pending again, and return them."""
        failed = [entry for entry in self._entries[label] if entry.state == "failed"]
        for entry in failed:
            self._enter(entry.point, entry)
        return [entry.point for entry in failed]

    # Telling.

    def report(self, point: Point, num_tasks: int, value: Value) -> None:
        """Enter the value after so many tasks, one of ``Sweep.rungs``; again: no change."""
        entry = self._entry(point)
        if entry.is_told or num_tasks in entry.rungs:
            return
        self._storage.set_trial_intermediate_value(entry.trial, num_tasks, value.mean)
        self._note(replace(entry, rungs={**entry.rungs, num_tasks: value.mean}))

    def decide(self, point: Point) -> str | None:
        """What becomes of a point after its last report: "go on" or "stop" (then tell it so);
        None: earlier points must get there first. Written down.
        """
        entry = self._entry(point)
        if not entry.rungs:
            return None
        rung = max(entry.rungs)
        if rung in entry.decisions:
            return entry.decisions[rung]
        before = self._entries[point.label][: point.number]
        if not all(earlier.is_told or rung in earlier.rungs for earlier in before):
            return None
        kept = self._rung(point.label, rung)
        for other in (*before, entry):
            if other.point.number not in kept.decisions and self._has_reached(other, rung):
                kept.decide(other.point.number, other.rungs.get(rung, self._worst))
        decision = kept.decisions[point.number]
        if not entry.is_told:
            self._storage.set_trial_user_attr(entry.trial, f"{_AFTER}{rung}", decision)
            self._note(replace(entry, decisions={**entry.decisions, rung: decision}))
        return decision

    def tell(self, point: Point, state: str, value: Value | None = None, message: str = "") -> None:
        """End a point: "finished" or "diverged" with a value, "stopped" (after :meth:`decide`), or
        "failed" with a message. Again: no change.
        """
        from optuna.trial import TrialState

        entry = self._entry(point)
        if entry.is_told:
            return
        if state == "finished" and value is not None and value.diverged:
            state = "diverged"
        optuna_state, number = TrialState.COMPLETE, None
        attributes: dict[str, Any] = {_MESSAGE: message} if message else {}
        if state == "failed":
            optuna_state = TrialState.FAIL
        elif state == "stopped":
            optuna_state, number = TrialState.PRUNED, entry.rungs[max(entry.rungs)]
        elif state == "diverged":
            attributes[_DIVERGED], number = True, self._worst
        elif state == "finished" and value is not None:
            attributes |= {_SEM: value.sem, _SEEDS: value.n}
            number = value.mean
        else:
            raise ValueError(f"a point cannot end as {state} with {value}")
        for name, attribute in attributes.items():
            self._storage.set_trial_user_attr(entry.trial, name, attribute)
        values = None if number is None else [number]
        self._storage.set_trial_state_values(entry.trial, optuna_state, values)
        self._note(
            replace(entry, state=state, value=number, sem=attributes.get(_SEM), message=message)
        )

    # Looking.

    def entries(self, label: str) -> list[Entry]:
        """All points asked for, by number."""
        return list(self._entries[label])

    def ranked(self, label: str) -> list[Entry]:
        """The finished points, the best first; of equals the one with the lower number."""
        finished = [entry for entry in self._entries[label] if entry.state == "finished"]
        sign = self.sweep.metric.sign
        return sorted(
            finished, key=lambda entry: (-sign * (entry.value or 0.0), entry.point.number)
        )

    def chosen(self, label: str) -> list[Entry]:
        """The best, and the runners-up within its standard error, at most ``sweep.retest``. Of one
        seed the error is not known, and excludes none.
        """
        ranked = self.ranked(label)[: self.sweep.retest]
        if not ranked or ranked[0].sem is None:
            return ranked
        best, sem = ranked[0].value or 0.0, ranked[0].sem
        return [entry for entry in ranked if abs((entry.value or 0.0) - best) <= sem]

    def study(self, label: str) -> "optuna.Study":
        """The points as a study in memory, for Optuna's evaluators: parameters are options, which
        have the domains that the file gives them now.
        """
        study = _in_memory(self.sweep)
        entries = self._entries[label]
        study.add_trials([self._trial(entry, told=entry.is_told) for entry in entries])
        return study

    # Choosing.

    @cached_property
    def _all_points(self) -> dict[str, list[dict[str, Plain]] | None]:
        """By label, all points of a space of choices, if they are not too many; of others None."""
        return {searched.label: _all_points(searched.space) for searched in self.sweep.searched}

    def _choose(
        self, label: str, number: int, num_told: int
    ) -> tuple[dict[str, Plain], str | None]:
        """The options of a point, and in a list its name."""
        search, searched = self.sweep.search, self.sweep.of(label)
        entries = self._entries[label]
        if search == "list":
            asked = {entry.point.name for entry in entries}
            name = next(name for name in searched.named if name not in asked)
            return dict(searched.named[name]), name
        there = {frozen(entry.point.options) for entry in entries}
        known = self._all_points[label] or []
        if search == "grid":
            return next(options for options in known if frozen(options) not in there), None
        options = {}
        for attempt in range(_REDRAWN):
            if search == "qmc":
                options = self._from_sequence(label, number + attempt * (searched.points or 1))
            else:
                options = self._from_sampler(label, number, attempt, num_told)
            if frozen(options) not in there:
                return options, None
        # Of a space of choices, most of which have been tried; else a double does no harm.
        return next((point for point in known if frozen(point) not in there), options), None

    def _from_sampler(
        self, label: str, number: int, attempt: int, num_told: int
    ) -> dict[str, Plain]:
        """As Optuna's TPE chooses, or at random."""
        import optuna

        seed = _seed(self.sweep.seed, label, number, attempt)
        with _quiet():
            sampler: optuna.samplers.BaseSampler
            if self.sweep.search == "tpe":
                sampler = optuna.samplers.TPESampler(
                    seed=seed, multivariate=True, constant_liar=True
                )
            else:
                sampler = optuna.samplers.RandomSampler(seed=seed)
            study = _in_memory(self.sweep, sampler)
            if self.sweep.search == "tpe":
                entries = self._entries[label]
                study.add_trials([self._trial(e, told=e.point.number < num_told) for e in entries])
            trial = study.ask()

            def choose(name: str, key: str, domain: Domain) -> Plain:
                if domain.choices is not None:
                    chosen: Any = trial.suggest_categorical(key, domain.choices)
                    return chosen
                low, high = domain.ends
                if domain.is_int:
                    return trial.suggest_int(key, int(low), int(high), log=domain.log)
                return _rounded(
                    trial.suggest_float(key, float(low), float(high), log=domain.log), domain
                )

            return self.sweep.of(label).space.point(choose)

    def _from_sequence(self, label: str, number: int) -> dict[str, Plain]:
        """A point of a scrambled Sobol sequence, with a dimension for each domain."""
        from scipy.stats import qmc

        space = self.sweep.of(label).space
        keys = list(space.keyed())
        sequence = qmc.Sobol(len(keys), scramble=True, seed=_seed(self.sweep.seed, label))
        if number > 0:
            sequence.fast_forward(number)
        shares = dict(zip(keys, sequence.random(1)[0].tolist(), strict=True))
        return space.point(lambda name, key, domain: _at_share(domain, shares[key]))

    def _trial(self, entry: Entry, *, told: bool) -> "FrozenTrial":
        """A point as Optuna has it.

        Args:
            told: Whether how it ended is looked at; else it is at work.
        """
        from optuna.trial import TrialState, create_trial

        state, value, rungs = TrialState.RUNNING, None, {}
        if told:
            rungs = dict(entry.rungs)
            state = {
                "stopped": TrialState.PRUNED, "failed": TrialState.FAIL
            }.get(entry.state, TrialState.COMPLETE)  # fmt: skip
            value = None if state == TrialState.FAIL else entry.value
        params, distributions = {}, {}
        for key, domain, option in self._keyed(entry.point):
            params[key], distributions[key] = option, _distribution(domain)
        return create_trial(
            state=state, value=value, params=params, distributions=distributions,
            intermediate_values=rungs, user_attrs={_POINT: entry.point.number},
        )  # fmt: skip

    def _keyed(self, point: Point) -> Iterator[tuple[str, Domain, Plain]]:
        """A point's options, with what Optuna calls them."""
        searched = self.sweep.of(point.label)
        for name, value in point.options.items():
            found = searched.space.domain(name, point.options)
            if found is None:  # in a list
                values = {
                    frozen({name: p[name]}): p[name] for p in searched.named.values() if name in p
                }
                found = name, Domain(tuple(values.values()))
            yield *found, value

    # Halving.

    @property
    def _worst(self) -> float:
        return self.sweep.metric.worst

    def _rung(self, label: str, num_tasks: int) -> "_Rung":
        if (label, num_tasks) not in self._rungs:
            self._rungs[label, num_tasks] = _Rung(num_tasks, _in_memory(self.sweep))
        return self._rungs[label, num_tasks]

    def _has_reached(self, entry: Entry, rung: int) -> bool:
        """Whether a point counts among those that are compared after so many tasks; one that has
        diverged does so, with the worst value, at the first rung that it has not come to.
        """
        if rung in entry.rungs or entry.state != "diverged":
            return rung in entry.rungs
        rungs = self.sweep.rungs(entry.point.label)
        return rung == next((r for r in rungs if r not in entry.rungs), None)

    # The journal.

    def _entry(self, point: Point) -> Entry:
        return self._entries[point.label][point.number]

    def _note(self, entry: Entry) -> None:
        """Keep what is now in the journal; a later attempt at a point counts."""
        entries, number = self._entries[entry.point.label], entry.point.number
        entries[number : number + 1] = [entry]

    @property
    def _is_begun(self) -> bool:
        return any(map(self._noted, self._studies))

    def _noted(self, label: str) -> dict[str, Any]:
        """What was searched, as the journal has it; empty where a kill came before it."""
        attributes = self._storage.get_study_user_attrs(self._studies[label])
        return attributes.get(_SWEEP, {})

    def _enter(self, point: Point, failed: Entry | None = None) -> None:
        """Write a point down in one line.

        Args:
            failed: The attempt that is made again; how far it came still counts.
        """
        from optuna.trial import TrialState, create_trial

        entry = Entry(point, "running", None, None, {}, "", 1, {}, -1)
        if failed is not None:
            entry = replace(
                entry, rungs=failed.rungs, decisions=failed.decisions, attempt=failed.attempt + 1
            )
        params, distributions = {}, {}
        for key, domain, value in self._keyed(point):
            params[key], distributions[key] = value, _distribution(domain)
        attributes = {
            _POINT: point.number,
            _OPTIONS: dict(point.options),
            _ATTEMPT: entry.attempt,
            **({} if point.name is None else {_NAME: point.name}),
            **{f"{_AFTER}{rung}": decision for rung, decision in entry.decisions.items()},
        }
        trial = create_trial(
            state=TrialState.RUNNING, params=params, distributions=distributions,
            user_attrs=attributes, intermediate_values=dict(entry.rungs),
        )  # fmt: skip
        number = self._storage.create_new_trial(self._studies[point.label], trial)
        self._note(replace(entry, trial=number))

    def _begin(self) -> None:
        """Write down what is searched, where that is new."""
        for searched in self.sweep.searched:
            label = searched.label
            if label not in self._studies:
                with _quiet():
                    new = self._storage.create_new_study([_direction(self.sweep)], label)
                self._studies[label] = new
            now = described(self.sweep, searched, self.at_once, self.block)
            if self._noted(label) != now:
                self._storage.set_study_user_attr(self._studies[label], _SWEEP, now)

    def _contradictions(self) -> Iterator[str]:
        """What of the file is not as it was when the points in the journal were made."""
        for label in self._studies:
            noted = self._noted(label)
            if not noted:
                continue
            if noted.get("format") != FORMAT:
                yield f"{self.path} is of another version: choose another --out_dir"
                return
            tried = [entry.point for entry in self._entries.get(label, ())]
            all_points = self._all_points.get(label) or []
            yield from contradictions(noted, self.sweep, label, tried, all_points)


class _Rung:
    """The points compared after so many tasks: of those so far, the better half goes on."""

    def __init__(self, num_tasks: int, study: "optuna.Study") -> None:
        from optuna.pruners import SuccessiveHalvingPruner

        self._num_tasks, self._study = num_tasks, study
        study.pruner = SuccessiveHalvingPruner(min_resource=num_tasks, reduction_factor=2)
        self.decisions: dict[int, str] = {}  # by number

    def decide(self, number: int, value: float) -> None:
        """Enter what becomes of a point with this value, after those that were entered before."""
        trial = self._study.ask()
        trial.report(value, self._num_tasks)
        self.decisions[number] = "stop" if trial.should_prune() else "go on"


def _all_points(space: Space) -> list[dict[str, Plain]] | None:
    if any(domain.choices is None for _, domain in space.keyed().values()):
        return None
    points: list[dict[str, Plain]] = []
    for options in space.combinations():
        if len(points) == _MOST_COUNTED:
            return None
        points.append(options)
    return points


def _entry_of(label: str, trial: "FrozenTrial") -> Entry:
    """A point from its trial in the journal."""
    attributes = trial.user_attrs
    point = Point(label, attributes[_POINT], attributes[_OPTIONS], attributes.get(_NAME))
    state = {"COMPLETE": "finished", "PRUNED": "stopped", "FAIL": "failed"}.get(
        trial.state.name, "running"
    )
    if state == "finished" and attributes.get(_DIVERGED):
        state = "diverged"
    told = state not in ("running", "failed")
    decisions = {
        int(name.removeprefix(_AFTER)): decision
        for name, decision in attributes.items()
        if name.startswith(_AFTER)
    }
    return Entry(
        point, state, trial.value if told else None, attributes.get(_SEM) if told else None,
        dict(trial.intermediate_values), attributes.get(_MESSAGE, ""), attributes[_ATTEMPT],
        decisions, trial._trial_id,
    )  # fmt: skip


def _in_memory(
    sweep: Sweep, sampler: "optuna.samplers.BaseSampler | None" = None
) -> "optuna.Study":
    import optuna

    with _quiet():
        sampler = sampler or optuna.samplers.RandomSampler(seed=0)
        return optuna.create_study(direction=_direction(sweep), sampler=sampler)


@contextmanager
def _quiet() -> Iterator[None]:
    """A context without Optuna's remarks on new studies and on what it may change later."""
    import optuna
    from optuna.exceptions import ExperimentalWarning

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _direction(sweep: Sweep) -> "optuna.study.StudyDirection":
    from optuna.study import StudyDirection

    higher = sweep.metric.higher_is_better
    return StudyDirection.MAXIMIZE if higher else StudyDirection.MINIMIZE


def _distribution(domain: Domain) -> "BaseDistribution":
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if domain.choices is not None:
        return CategoricalDistribution(domain.choices)
    low, high = domain.ends
    if domain.is_int:
        return IntDistribution(int(low), int(high), log=domain.log)
    return FloatDistribution(float(low), float(high), log=domain.log)


def _rounded(value: float, domain: Domain) -> float:
    low, high = map(float, domain.ends)
    return min(max(float(f"{value:.{_DIGITS}g}"), low), high)


def _at_share(domain: Domain, share: float) -> Plain:
    """The value behind a share, in [0, 1), of a domain."""
    if domain.choices is not None:
        return domain.choices[int(share * len(domain.choices))]
    low, high = map(float, domain.ends)
    if domain.is_int:  # each number has the same share, but for logarithms
        low, high = low - 0.5, high + 0.5
    value = low + share * (high - low)
    if domain.log:
        value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    if domain.is_int:
        first, last = map(int, domain.ends)
        return min(max(round(value), first), last)
    return _rounded(value, domain)


def _seed(*parts: object) -> int:
    """A seed of 32 bits that follows from these."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:4])
