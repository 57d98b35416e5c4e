"""What the user sees: live on a terminal, plain lines elsewhere, and the same lines in the log."""

import os
import sys
import time
from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from hypercl import presets


class _Console(Console):
    """Goes on silently where the reader of a pipe has gone (``python run.py | head``).

    The same where the output is a file on a full disk: the run has files of its own to fail on.
    """

    def on_broken_pipe(self) -> None:
        self.quiet = True
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - Python flushes it at exit

    def print(self, *objects, **options) -> None:
        try:
            super().print(*objects, **options)
        except OSError:
            self.on_broken_pipe()


class Screen:
    """Says lines, tables and progress on the console, and hands plain lines to ``write_log``.

    Args:
        write_log: Receives each line, debug lines included, as plain text.
        show_debug: Whether debug lines appear on the console.
        console: Where to write; by default stdout, live only if that is a terminal.
    """

    def __init__(
        self,
        write_log: Callable[[str], None],
        *,
        show_debug: bool = True,
        console: Console | None = None,
    ) -> None:
        self._write_log = write_log
        self._show_debug = show_debug
        self._console = console or _Console(highlight=False)
        self._bar: Progress | None = None
        self._bar_started = 0.0
        self._bar_start = 0

    def say(self, text: str) -> None:
        """A line that matters."""
        self._console.print(text, markup=False, soft_wrap=True)
        self._log("INFO", text)

    def debug(self, text: str) -> None:
        """A line that --loglevel_info hides."""
        if self._show_debug:
            self._console.print(text, markup=False, soft_wrap=True, style="dim")
        self._log("DEBUG", text)

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table, the first column flush left and the others right."""
        plain = [title, *(f"  {line}" for line in _columns([header, *rows]))]
        for line in plain:
            self._log("INFO", line)
        if not self._console.is_terminal:
            self._console.print("\n".join(plain), markup=False, soft_wrap=True)
            return
        self._console.print(title, markup=False, soft_wrap=True)  # a table would break it
        table = Table(box=box.SIMPLE_HEAD)
        for i, name in enumerate(header):
            table.add_column(name, justify="right" if i else "left")
        for row in rows:
            table.add_row(*row)
        self._console.print(table)

    def start_progress(self, title: str, num_steps: int, steps_done: int = 0) -> None:
        """Begin a task: one live bar on a terminal, lines for its milestones elsewhere.

        Args:
            steps_done: In an earlier process; the time left is reckoned from the others.
        """
        self._bar_started = time.monotonic()
        self._bar_start = steps_done
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._bar.add_task(title, total=num_steps, completed=steps_done, text="")
        self._bar.start()

    def show_progress(self, step: int, text: str, *, milestone: bool) -> None:
        """Move the bar; a milestone is also a debug line, on the console where there is no bar."""
        assert self._bar is not None  # start_progress() has made it
        row = self._bar.tasks[0]
        assert row.total is not None
        self._bar.update(row.id, completed=step, text=text)
        if milestone:
            per_step = (time.monotonic() - self._bar_started) / max(1, step - self._bar_start)
            left = per_step * (row.total - step)
            line = f"{row.description}: step {step}/{row.total}, {text}, {_duration(left)} left"
            if self._console.is_terminal:
                self._log("DEBUG", line)
            else:
                self.debug(line)

    def stop_progress(self) -> None:
        """Take the bar away, if there is one."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _log(self, level: str, text: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        for line in text.splitlines() or [""]:
            self._write_log(f"{stamp} {level:5} {line}")


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def show_presets(console: Console | None = None) -> None:
    """A table of the presets: what was published, what was measured here, and how long it took."""
    if console is None:
        console = _Console(highlight=False, soft_wrap=True)
        console.width = max(console.width, 180)  # a line a preset, on any terminal
    title = "accuracy (%), task known / inferred by entropy, ± standard deviation over n seeds"
    table = Table(box=box.SIMPLE, title=title)
    for heading in ("preset", "experiment", "networks", "published", "measured here", "minutes"):
        table.add_column(heading, no_wrap=True)
    for name in presets.names():
        preset, results = presets.load(name), presets.measured(name)
        values = [
            f"{v.value:.2f}" + (f" ± {v.spread:.2f}" if v.spread else "") for v in preset.published
        ]
        measured, minutes = "", ""
        if results is not None:
            rows = presets.compare(preset, results["summary"])
            measured = " / ".join(
                f"{row['measured']:.2f}" + (f" ± {row['std']:.2f}" if row["n"] > 1 else "")
                for row in rows
            )
            measured += f" (n = {results['summary']['final_accuracy']['n']})"
            minutes = f"{results['seconds']['total'] / 60:.1f}"
        table.add_row(
            name, preset.experiment, preset.networks, " / ".join(values), measured, minutes
        )  # fmt: skip
    console.print(table)
