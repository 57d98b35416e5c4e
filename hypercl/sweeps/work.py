"""What a worker does: learn points, each by the program's own command line. No torch before that.

A worker is a process that takes one job at a time. It may be started by hand, anywhere where the
same files are seen.
"""

import contextlib
import errno
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hypercl.errors import InputError, InUse, RunFailed
from hypercl.interruption import Interrupted, ask_to_leave
from hypercl.rundir.stored import failed_for_good, read_results
from hypercl.shell import one_line

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Job(NamedTuple):
    """Points that are learned in one go; plain, as it goes from process to process."""

    argvs: tuple[tuple[str, ...], ...]  # a command line each, with its --out_dir
    until: int | None  # tasks after which they pause; None: to the end


class Outcome(NamedTuple):
    """What has become of a point.

    ``status`` is

    - "finished", "paused": as results.json says;
    - "diverged": all seeds have failed;
    - "failed": by an error that ``message`` names;
    - "interrupted": saved, as the worker was asked to leave;
    - "busy": another process, which lives, works on it;
    - "no space": the disk is full.
    """

    status: str
    results: dict[str, Any] | None  # the content of results.json; None where it is not known
    message: str
    seconds: float  # that the worker took, for all points of the job
    warnings: tuple[str, ...]


_stopped: set[str] = set()  # drivers that have asked this process to leave their points


def work_for(session: str, job: Job) -> list[Outcome]:
    """:func:`work`, unless its driver has asked to leave.

    Args:
        session: Of the driver.
    """
    ask_to_leave(leave=session in _stopped)
    if session in _stopped:
        return [Outcome("interrupted", None, "", 0.0, ()) for _ in job.argvs]
    return work(job)


def stop_for(session: str) -> None:
    """Have what is learned saved and left, and do nothing more for a driver."""
    _stopped.add(session)
    ask_to_leave()


def work(job: Job) -> list[Outcome]:
    """Learn the points of a job, or what is left of them; those that are finished stand.

    Points that cannot be learned together are learned one by one. What a run shows goes nowhere but
    into its logfile.txt.
    """
    started = time.monotonic()
    with _silence() as said:
        found = _together(job) if len(job.argvs) > 1 else None
        if found is None:
            found = [_alone(argv, job.until) for argv in job.argvs]
    seconds, texts = time.monotonic() - started, tuple(dict.fromkeys(said))
    return [Outcome(*one, seconds=seconds, warnings=texts) for one in found]


def _alone(argv: Sequence[str], until: int | None) -> tuple[str, dict[str, Any] | None, str]:
    """Status, results and message of one point."""
    from hypercl.program import run

    try:
        results = run(*argv, *([] if until is None else [f"--pause_after={until}"]))
        return results["status"], results, ""
    except (Exception, Interrupted) as error:
        return _described(error, argv)


def _described(error: BaseException, argv: Sequence[str]) -> tuple[str, dict[str, Any] | None, str]:
    """What an error that ends a run makes of its point."""
    message = one_line(error) or type(error).__name__
    if isinstance(error, Interrupted):
        return "interrupted", None, message
    if isinstance(error, InUse):
        return "busy", None, message
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, OSError) and cause.errno in _NO_SPACE:
        return "no space", None, message
    if not isinstance(error, InputError | RunFailed):
        return "failed", None, f"{type(error).__name__}: {message}"
    results = None
    with contextlib.suppress(InputError):
        results = read_results(place_of(argv))
    if isinstance(error, RunFailed) and results is not None and failed_for_good(results):
        return "diverged", results, message
    return "failed", results, message


def _together(job: Job) -> list[tuple[str, dict[str, Any] | None, str]] | None:
    """The same of several points in one step; None where they are to be learned one by one, be it
    that an error has ended all of them, which then ends those alone that it concerns.
    """
    from hypercl.sweeps.together import learn_together

    try:
        learned = learn_together([list(argv) for argv in job.argvs], job.until)
    except (Exception, Interrupted) as error:
        found = [_described(error, argv) for argv in job.argvs]
        if found[0][0] in ("busy", "interrupted", "no space"):
            return found
        if not isinstance(error, InputError | RunFailed):
            warnings.warn(
                f"points that are now learned one by one ended together with {found[0][2]}",
                stacklevel=2,
            )
        return None
    return [
        ("diverged" if failed_for_good(results) else results["status"], results, "")
        for results in learned
    ]


def points_together(argv: Sequence[str]) -> int:
    """How many points like one are learned in one step, on this machine."""
    from hypercl.program import scripts

    with scripts() as run:
        options = run.parse_args(list(argv))
        from hypercl.sweeps.pack import points_together

        return points_together(options)


def place_of(argv: Sequence[str]) -> Path:
    """The run directory that a command line names."""
    return Path(next(a for a in argv if a.startswith("--out_dir=")).partition("=")[2])


@contextlib.contextmanager
def _silence() -> Iterator[list[str]]:
    """A context in which nothing is shown; the warnings are collected."""
    said: list[str] = []

    def note(message, *_, **__) -> None:
        said.append(one_line(message))

    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")
        warnings.showwarning = note
        yield said
