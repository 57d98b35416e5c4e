"""The driver of a sweep: asks for points, hands them out, takes them back, decides, tests the best.

It keeps nothing of its own. What is to be done follows from the journal and the run directories, so
that a driver that was killed goes on where it was: each point is a run that continues by itself.
"""

import queue
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from hypercl.errors import InputError, RunFailed
from hypercl.interruption import Interruption
from hypercl.lock import is_held
from hypercl.rundir.stored import CHECKPOINTS, CONFIG, LOCK, read_sealed
from hypercl.sweeps.cluster import Done
from hypercl.sweeps.search import Search
from hypercl.sweeps.spec import POINTS, RETEST, Point, Sweep
from hypercl.sweeps.values import value_of
from hypercl.sweeps.work import Job, Outcome, place_of

_LOOK = 0.2  # seconds from one look at signals to the next
_BUSY = 2.0  # seconds until a point is tried again that another process works on
_LEAVING = 60.0  # seconds that points have to be saved in


class Hands(Protocol):
    """What is needed of hypercl.sweeps.cluster.Workers."""

    number: int
    come_back: "queue.Queue[Done]"

    def hand_out(self, job: Job) -> int:
        """Have a job done some time; its ticket comes back with what becomes of it."""

    def require_there(self) -> None:
        """Refuse to wait for workers that are gone."""

    def leave(self) -> bool:
        """Have the points that are learned saved and left; whether there is who does so."""


class Watcher(Protocol):
    """Who is told how the sweep goes; hypercl.sweeps.live has them."""

    def changed(self, search: Search, at_work: int) -> None:
        """Something has ended, or some time has passed."""

    def say(self, text: str) -> None:
        """A line that matters."""


@dataclass(frozen=True)
class Handout:
    """Points that are handed out in one job."""

    points: tuple[Point, ...]
    until: int | None  # tasks; None: to the end
    retested: bool = False

    def job(self, sweep: Sweep, out_dir: Path) -> Job:
        """What a worker is to do."""
        folder = out_dir / (RETEST if self.retested else POINTS)
        argvs = (
            (point.retest_argv if self.retested else point.argv)(folder / point.folder, sweep)
            for point in self.points
        )
        return Job(tuple(tuple(argv) for argv in argvs), self.until)


class Driver:
    """Runs a sweep to its end.

    Args:
        out_dir: Its folder, which is locked; absolute.
        hands: Who does the work.
        watcher: Who is told.
        may_share: Whether two points can be learned in one step.
    """

    def __init__(
        self,
        sweep: Sweep,
        search: Search,
        out_dir: Path,
        hands: Hands,
        watcher: Watcher,
        may_share: Callable[[Point, Point], bool] = lambda one, other: False,
    ) -> None:
        self._sweep, self._search, self._out_dir = sweep, search, out_dir
        self._hands, self._watcher, self._may_share = hands, watcher, may_share
        self._handed_out: dict[int, Handout] = {}  # handed out, by ticket
        self._later: list[tuple[float, Handout]] = []  # when they are handed out again
        self._tested: set[str] = set()  # methods whose chosen points are tested
        self._came_to: dict[Path, int] = {}  # where a point was when its workers had died
        self._said: set[str] = set()

    def run(self, interruption: Interruption) -> None:
        """Do all that is to be done.

        Raises:
            RunFailed: A disk is full, or the workers are gone. Everything goes on later.
            Interrupted: By a signal; the points that were learned have been saved.
            OSError: The journal cannot be written.
        """
        with interruption.grace():
            self._hand_out_all()
            while self._handed_out or self._later:
                if interruption.pending is not None:
                    self._leave()
                    interruption.leave()
                with suppress(queue.Empty):
                    self._take_back(self._hands.come_back.get(timeout=_LOOK))
                    while True:  # what else is there
                        self._take_back(self._hands.come_back.get_nowait())
                self._hands.require_there()
                self._hand_out_all()
                self._watcher.changed(self._search, self._at_work)
        assert all(map(self._search.done, self._sweep.labels)), "a point waits for nothing"

    @property
    def _at_work(self) -> int:
        return sum(len(handout.points) for handout in self._handed_out.values())

    def _hand_out_all(self) -> None:
        """Everything that can be done now."""
        now = time.monotonic()
        due = [handout for at, handout in self._later if at <= now]
        self._later = [(at, handout) for at, handout in self._later if at > now]
        for handout in due:
            self._hand_out(handout)
        for label in self._sweep.labels:
            num_ended = None
            while num_ended != (num_ended := self._num_ended(label)):  # a stop makes room for more
                while self._search.next(label) is not None:
                    pass
                for handout in list(self._next_handouts(label)):
                    self._hand_out(handout)

    def _num_ended(self, label: str) -> int:
        return sum(entry.state != "running" for entry in self._search.entries(label))

    def _hand_out(self, handout: Handout) -> None:
        self._handed_out[self._hands.hand_out(handout.job(self._sweep, self._out_dir))] = handout

    def _next_handouts(self, label: str) -> Iterator[Handout]:
        """What is to be done of a method's points, and is not yet."""
        busy = {
            (point.label, point.number)
            for handout in (*self._handed_out.values(), *(handout for _, handout in self._later))
            for point in handout.points
            if not handout.retested
        }
        num_asked, size = len(self._search.entries(label)), self._search.block
        blocks: dict[int, list[tuple[Point, int | None]]] = {}
        undecided = set()
        for point in self._search.pending(label):
            block = point.number // size
            if (label, point.number) in busy:
                undecided.add(block)
                continue
            decision, until = self._decide(point)
            if decision == "wait":
                undecided.add(block)
            elif decision == "go on":
                blocks.setdefault(block, []).append((point, until))
        for block, points in blocks.items():
            # Which points share a step must not depend on when they get there: all numbers round
            # by it.
            whole = num_asked >= min((block + 1) * size, self._search.num_points(label))
            if whole and block not in undecided:
                yield from self._packs(points)
        if self._search.done(label) and self._sweep.chooses and label not in self._tested:
            self._tested.add(label)
            for entry in self._search.chosen(label):
                self._watcher.say(f"{_name(entry.point)} is chosen, and tested with fresh seeds")
                self._remove_other_test(entry.point)
                yield Handout((entry.point,), None, retested=True)

    def _remove_other_test(self, point: Point) -> None:
        """Remove a test with as many seeds as ``retest_seeds`` said before it was changed."""
        place = self._out_dir / RETEST / point.folder
        with suppress(ValueError, OSError):  # what is damaged, the run says
            config = read_sealed(place / CONFIG)
            number = None if config is None else config["options"]["num_seeds"]
            if number not in (None, self._sweep.retest_seeds) and not is_held(place / LOCK):
                self._watcher.say(f"its test with {number} seeds is removed: retest_seeds differs")
                shutil.rmtree(place)

    def _decide(self, point: Point) -> tuple[str, int | None]:
        """Whether a point goes on, and until after which task."""
        entry = self._search.entries(point.label)[point.number]
        rungs = self._sweep.rungs(point.label)
        if entry.rungs:
            decision = self._search.decide(point)
            if decision is None:
                return "wait", None
            if decision == "stop":
                self._search.tell(point, "stopped")
                return "stop", None
        return "go on", next((rung for rung in rungs if rung not in entry.rungs), None)

    def _packs(self, points: Sequence[tuple[Point, int | None]]) -> Iterator[Handout]:
        """The points of a block, in jobs: those that can share a step together."""
        packs: list[list[tuple[Point, int | None]]] = []
        for point, until in points:
            for pack in packs:
                first, its = pack[0]
                if its == until and self._may_share(first, point):
                    pack.append((point, until))
                    break
            else:
                packs.append([(point, until)])
        for pack in packs:
            yield Handout(tuple(point for point, _ in pack), pack[0][1])

    def _take_back(self, done: Done) -> None:
        """Enter what has become of a job."""
        handout = self._handed_out.pop(done.ticket)
        if done.outcomes is None:
            self._take_back_lost(handout, done)
            return
        if full := [one.message for one in done.outcomes if one.status == "no space"]:
            raise RunFailed(f"{full[0]}: make room, and give the same command again")
        waiting = []
        for point, outcome in zip(handout.points, done.outcomes, strict=True):
            for warning in outcome.warnings:
                self._say_once(f"warning: {warning}")
            if outcome.status == "busy":
                self._say_once(f"{_name(point)} waits: {outcome.message.partition(':')[0]}")
            if outcome.status in ("busy", "interrupted"):
                waiting.append(point)
            elif handout.retested:
                self._enter_retest(point, outcome)
            else:
                self._enter(point, handout.until, outcome)
        if waiting:
            again = replace(handout, points=tuple(waiting))
            self._later.append((time.monotonic() + _BUSY, again))

    def _take_back_lost(self, handout: Handout, done: Done) -> None:
        """A job whose workers have died, or whose client was told nothing."""
        if not done.lost:
            raise RunFailed(f"a worker cannot work ({done.error}): mend that, and start again")
        for point in handout.points:
            alone = Handout((point,), handout.until, handout.retested)
            place = place_of(alone.job(self._sweep, self._out_dir).argvs[0])
            if self._has_come_further(place):
                self._hand_out(alone)
                continue
            message = "the workers that had it died, each time: its memory may be too little"
            outcome = Outcome("failed", None, message, 0.0, ())
            if handout.retested:
                self._enter_retest(point, outcome)
            else:
                self._enter(point, handout.until, outcome)

    def _has_come_further(self, place: Path) -> bool:
        """Whether a point has saved something since its workers died the last time."""
        with suppress(OSError):
            saved = (place / CHECKPOINTS[0]).stat().st_mtime_ns
            before, self._came_to[place] = self._came_to.get(place), saved
            return saved != before
        return False

    def _enter(self, point: Point, until: int | None, outcome: Outcome) -> None:
        """Tell the search what a point has come to."""
        if outcome.results is None or outcome.status == "failed":
            self._say_once(f"{_name(point)} failed: {outcome.message}")
            self._search.tell(point, "failed", message=outcome.message)
            return
        num_tasks = until if outcome.status == "paused" else None
        metric, tested_on = self._sweep.metric, self._sweep.tested_on
        try:
            value = value_of(outcome.results, metric, num_tasks, tested_on)
        except InputError as error:
            self._say_once(f"{_name(point)} failed: {error}")
            self._search.tell(point, "failed", message=str(error))
            return
        if value.diverged:
            self._search.tell(point, "diverged", value, outcome.message)
        elif outcome.status == "paused":
            assert until is not None
            self._search.report(point, until, value)
        else:
            self._search.tell(point, "finished", value)

    def _enter_retest(self, point: Point, outcome: Outcome) -> None:
        if outcome.status != "finished":
            self._say_once(f"the test of {_name(point)} {outcome.status}: {outcome.message}")

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._watcher.say(text)

    def _leave(self) -> None:
        """Have the points saved that are learned, and enter what has ended meanwhile."""
        self._watcher.say(
            "the points at work are saved, which takes a moment; a second signal ends at once"
        )
        if not self._hands.leave():
            return
        until = time.monotonic() + _LEAVING
        while self._handed_out and time.monotonic() < until:
            with suppress(queue.Empty):
                done = self._hands.come_back.get(timeout=_LOOK)
                if done.outcomes is None:
                    self._handed_out.pop(done.ticket)
                else:
                    self._take_back(done)


def with_retest(sweep: Sweep, retest: int | None) -> Sweep:
    """The sweep, with another number of points that are tested; None: as its file says.

    Raises:
        InputError: It chooses none.
    """
    if retest is None:
        return sweep
    if not sweep.chooses:
        raise InputError(
            f"--retest={retest} tests chosen points, and {sweep.path} chooses none: leave it out"
        )
    return replace(sweep, retest=retest)


def _name(point: Point) -> str:
    """What a message calls a point."""
    return f"point {point.folder}" + (f" ({point.name})" if point.name else "")
