"""What the user sees: live on a terminal, plain lines elsewhere, and the same lines in the log."""

import os
import re
import shlex
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from hypercl import presets
from hypercl.measure import measure_of

Row = Sequence[str]
_SHORTEST_BAR = 4
_NARROWEST = 20
_INDENT = "  "  # of a table, and of a sentence from its second line on
_QUIET = 0.9  # of a processor: what a run gets where nothing is in its way, at least


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

    On the console no line is wider than the terminal but for a single long word, as a path is one;
    elsewhere a line has 80 columns, or as many as COLUMNS says. The log has sentences whole.

    Args:
        write_log: Receives each line, debug lines included, as plain text.
        show_debug: Whether debug lines appear on the console.
        console: Where to write; by default stdout, live only if that is a terminal.
        silent: Write nowhere but to the log.
    """

    def __init__(
        self,
        write_log: Callable[[str], None],
        *,
        show_debug: bool = True,
        console: Console | None = None,
        silent: bool = False,
    ) -> None:
        self._write_log = write_log
        self._show_debug = show_debug
        if silent:
            console = _Console(quiet=True, force_terminal=False)
        self._console = console or _Console(highlight=False)
        if self._console.width < _NARROWEST:  # or rich prints nothing at all
            self._console.width = _NARROWEST
        self._bar: Progress | None = None
        self._bar_started = 0.0
        self._bar_start = 0

    def say(self, text: str) -> None:
        """A line that matters."""
        self._print(_wrapped(text, self._console.width))
        self._log("INFO", text)

    def debug(self, text: str) -> None:
        """A line that --loglevel_info hides."""
        if self._show_debug:
            self._print(_wrapped(text, self._console.width), style="dim")
        self._log("DEBUG", text)

    def log(self, text: str) -> None:
        """Lines that are not shown."""
        self._log("DEBUG", text)

    def say_command(self, text: str, command: str) -> None:
        """A command after what it is, in lines that can be copied to a shell as they are."""
        line = f"{text}: {command}"
        lines = [line]
        if len(line) > self._console.width:
            words = [shlex.quote(word) for word in shlex.split(command)]
            lines = [f"{text}:", *_continued(words, self._console.width)]
        self._print(lines)
        self._log("INFO", line)

    def table(self, title: str, header: Row, rows: Sequence[Row]) -> None:
        """A table, the first column flush left and the others right.

        What is wider than the terminal has its columns in several blocks below each other, each
        with the first column, and without the rows that have nothing in it.
        """
        self.say(title)
        for block in _blocks([header, *rows], self._console.width - len(_INDENT)):
            head, *body = (_INDENT + line for line in _columns(block))
            for line in (head, *body):
                self._log("INFO", line)
            if self._console.is_terminal:
                self._print([head], style="bold")
                self._print([_INDENT + "─" * (max(map(len, (head, *body))) - len(_INDENT))])
            else:
                self._print([head])
            self._print(body)

    def fits(self, rows: Sequence[Row]) -> bool:
        """Whether the rows of a table, its header among them, need one block."""
        return max(map(len, _columns(rows))) <= self._console.width - len(_INDENT)

    def _print(self, lines: Sequence[str], style: str | None = None) -> None:
        for line in lines:
            self._console.print(line, markup=False, emoji=False, soft_wrap=True, style=style)

    def start_progress(self, title: str, num_steps: int, steps_done: int = 0) -> None:
        """Begin a task: one live bar on a terminal, lines for its milestones elsewhere.

        Args:
            steps_done: In an earlier process; the time left is reckoned from the others.
        """
        self._bar_started = time.monotonic()
        self._bar_start = steps_done
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[text]}", markup=False),
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
        taken = len(f"{row.description}  {row.total:g}/{row.total:g}  -:--:-- ") + _SHORTEST_BAR
        shown = text
        while shown and len(shown) > self._console.width - taken:
            shown = shown.rpartition(", ")[0]  # the last part first, no number cut
        self._bar.update(row.id, completed=step, text=shown)
        if milestone:
            per_step = (time.monotonic() - self._bar_started) / max(1, step - self._bar_start)
            left = per_step * (row.total - step)
            line = f"{row.description}: step {step}/{row.total}, {text}, {duration(left)} left"
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


def _columns(rows: Sequence[Row]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _blocks(rows: Sequence[Row], width: int) -> Iterator[list[list[str]]]:
    """The rows, the header first, by as many of their columns at a time as a line has room for."""
    first, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    start = 1
    while start <= len(widths):
        end, used = start, first
        while end <= len(widths) and (end == start or used + 2 + widths[end - 1] <= width):
            used += 2 + widths[end - 1]
            end += 1
        header, *others = ([row[0], *row[start:end]] for row in rows)
        whole = end - start == len(widths)
        yield [header, *(row for row in others if whole or any(row[1:]))]
        start = end


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of whole words; a number stays with its ± and its unit."""
    lines = []
    for line in text.splitlines() or [""]:
        indent = line[: len(line) - len(line.lstrip())]
        lines += textwrap.wrap(
            re.sub(" (?=[±=%])|(?<=[±=]) ", "\0", line),
            width,
            subsequent_indent=indent + _INDENT,
            expand_tabs=False,
            replace_whitespace=False,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
    return [line.replace("\0", " ") for line in lines]


def _continued(words: Sequence[str], width: int) -> list[str]:
    """A command's words on lines with a backslash at the end of all but the last."""
    lines = [_INDENT + words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) + 3 <= width:
            lines[-1] += f" {word}"
        else:
            lines[-1] += " \\"
            lines.append(2 * _INDENT + word)
    return lines


def duration(seconds: float) -> str:
    """Hours, minutes and seconds: ``0:04:20``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def spoken_time(seconds: float) -> str:
    """``8 seconds``, ``2.5 minutes``, ``3.0 hours``."""
    if seconds < 100:
        whole = max(1, round(seconds))
        return f"{whole} second{'s' if whole > 1 else ''}"
    if seconds < 100 * 60:
        return f"{seconds / 60:.1f} minutes"
    return f"{seconds / 3600:.1f} hours"


def spoken_time_at(seconds: float, share: float) -> str:
    """How long a run takes with a processor of its own and, where it gets less, how long then.

    Args:
        seconds: Of a processor.
        share: Of a processor, that the machine gives.
    """
    alone = spoken_time(seconds)
    if share >= _QUIET:
        return alone
    return (
        f"{alone} alone; this machine seems to give it {share:.1f} of a processor now, which makes "
        f"{spoken_time(seconds / share)}"
    )


def show_presets(console: Console | None = None) -> None:
    """The presets: what was published, what was measured here, and how long it took.

    A row each where the terminal is wide enough, else a few lines each.
    """
    screen = Screen(lambda line: None, console=console)
    title = (
        "accuracy (%), of two numbers task known / inferred (of HNET+TIR by tir, else by entropy), "
        "or mean squared error; "
        "± standard deviation over n seeds; off by so many standard errors of the difference"
    )
    header = (
        "preset", "experiment", "networks", "published", "measured here", "off by", "minutes"
    )  # fmt: skip
    rows = [_preset_row(name) for name in presets.names()]
    if screen.fits([header, *rows]):
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        table = [list(map(str.ljust, row, widths)) for row in (header, *rows)]  # all flush left
        screen.table(title, table[0], table[1:])
        return
    screen.say(title)
    for name, experiment, networks, published, measured, off_by, minutes in rows:
        screen.say(f"{name}  {experiment}, {networks}")
        if published:
            screen.say(f"    published  {published}")
        if measured:
            screen.say(f"    measured   {measured}, off by {off_by}, {minutes} minutes")


def _preset_row(name: str) -> tuple[str, str, str, str, str, str, str]:
    preset, results = presets.load(name), presets.measured(name)
    measure = measure_of({"measure": preset.measure})
    published = " / ".join(measure.text(v.value) for v in preset.published)
    if preset.published:
        first, *others = preset.published
        scenario = first.metric[:3].upper()  # cl1, cl2_entropy
        if not others and scenario in ("CL1", "CL2", "CL3"):
            published = f"{scenario} {published}"
        published += f", {presets.kind(first.n, best_of_search=first.best_of_search)}"
    if results is None:
        return name, preset.experiment, preset.networks, published, "", "", ""
    compared = presets.compare(preset, results["summary"])
    measured = " / ".join(
        measure.text(row["measured"]) + (f" ± {measure.text(row['std'])}" if row["n"] > 1 else "")
        for row in compared
    )
    off_by = " / ".join(
        "?" if (off := row["standard_errors"]) is None else f"{off:+.1f}" for row in compared
    )
    measured += f", n = {results['summary'][f'final_{measure.name}']['n']}"
    minutes = f"{results['seconds']['total'] / 60:.1f}"
    return name, preset.experiment, preset.networks, published, measured, off_by, minutes
