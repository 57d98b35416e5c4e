"""How a sweep goes: a table in place on a terminal, lines elsewhere."""

import math
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hypercl.report.screen import Screen, duration
from hypercl.sweeps.search import Search
from hypercl.sweeps.space import options_text
from hypercl.sweeps.spec import Sweep

_TABLE_SECONDS, _LINE_SECONDS = 0.5, 10.0  # at least, from one table, or line, to the next


class State(NamedTuple):
    """How far a method is."""

    label: str
    num_points: int
    ended: int
    counts: Mapping[str, int]  # by state
    best: float | None
    options: str  # of the best point
    per_minute: float | None  # points that have ended in this process; None: none has, or all have
    seconds_left: float | None


def states_of(
    search: Search, sweep: Sweep, before: Mapping[str, int], seconds: float
) -> list[State]:
    """How far each method is.

    Args:
        before: By label, how many points had ended when this process began, ``seconds`` ago.
    """
    states = []
    for label in sweep.labels:
        entries, num_points = search.entries(label), search.num_points(label)
        counts = Counter(entry.state for entry in entries)
        ended = len(entries) - counts["running"]
        new = ended - before[label]
        goes_on = ended < num_points
        rate = 60 * new / seconds if goes_on and new > 0 and seconds > 0 else None
        left = None if rate is None else 60 * (num_points - ended) / rate
        best, options = None, ""
        if ranked := search.ranked(label):
            best, options = ranked[0].value, options_text(ranked[0].point.options)
            name = ranked[0].point.name
            options = f"{name}: {options}" if name and options else name or options
        states.append(State(label, num_points, ended, counts, best, options, rate, left))
    return states


class Watch:
    """Tells how a sweep goes; a context.

    Args:
        search: Of the sweep, as it begins in this process.
        dashboard: Dask's; None: there is none.
        console: Where to write; by default stdout, live only if that is a terminal.
    """

    def __init__(
        self,
        sweep: Sweep,
        search: Search,
        dashboard: str | None = None,
        console: Console | None = None,
    ) -> None:
        self._sweep, self._dashboard = sweep, dashboard
        self._console = console or Console(highlight=False)
        self._screen = Screen(lambda line: None, console=self._console)
        self._before = {s: _num_ended(search, s) for s in sweep.labels}
        self._started = self._told = time.monotonic()
        self._ended = -1
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> "Watch":
        if self._live is not None:
            self._live.start()
        if self._dashboard is not None:
            self.say(f"the workers can be looked at under {self._dashboard}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """A line that matters, above the table."""
        self._screen.say(text)

    def changed(self, search: Search, at_work: int) -> None:
        """Show how far the sweep is, if that is due.

        Args:
            at_work: Points that are handed out.
        """
        now = time.monotonic()
        if now - self._told < (_LINE_SECONDS if self._live is None else _TABLE_SECONDS):
            return
        states = states_of(search, self._sweep, self._before, now - self._started)
        self._told = now
        if self._live is not None:
            self._live.update(
                table_of(states, self._sweep, at_work, now - self._started), refresh=True
            )
            return
        ended = sum(state.ended for state in states)
        if ended != self._ended:
            self._ended = ended
            for state in states:
                self.say(line_of(state))
            sys.stdout.flush()


def _num_ended(search: Search, label: str) -> int:
    return sum(entry.state != "running" for entry in search.entries(label))


def line_of(state: State) -> str:
    """How far a method is, in a line."""
    parts = [f"{state.label}: {state.ended} of {state.num_points} points"]
    parts += [
        f"{state.counts[name]} {name}"
        for name in ("stopped", "diverged", "failed")
        if state.counts.get(name)
    ]
    if state.best is not None:
        options = f" ({state.options})" if state.options else ""
        parts.append(f"best {_number(state.best)}{options}")
    if state.per_minute is not None:
        parts.append(f"{state.per_minute:.3g} a minute")
    if state.seconds_left:
        parts.append(f"{duration(state.seconds_left)} left")
    return ", ".join(parts)


def table_of(states: Sequence[State], sweep: Sweep, at_work: int, seconds: float) -> Group:
    """How far a sweep is, for a terminal of 80 columns or more."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for title in ("points", "stopped", "diverged", "failed", "best", "a minute", "left"):
        table.add_column(title, justify="right", no_wrap=True)
    for state in states:
        left, rate = state.seconds_left, state.per_minute
        table.add_row(
            Text(state.label, overflow="ellipsis", no_wrap=True),
            f"{state.ended}/{state.num_points}",
            *(str(state.counts.get(name) or "-") for name in ("stopped", "diverged", "failed")),
            "-" if state.best is None else _number(state.best),
            "-" if rate is None else f"{rate:.3g}",
            "-" if left is None else duration(left),
        )
    best = [
        Text(f"{state.label}: {state.options}", style="dim", overflow="ellipsis", no_wrap=True)
        for state in states
        if state.options
    ]
    points = "point" if at_work == 1 else "points"
    title = f"{sweep.name}, {sweep.metric.name}: {at_work} {points} under way, {duration(seconds)}"
    return Group(Text(title), table, *best)


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "diverged"
