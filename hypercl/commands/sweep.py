"""--sweep: points are searched, the best are tested with fresh seeds, and all of it is reported.

The folder of a sweep has sweep.toml (the file as it was given), journal.log (the points, in
Optuna's form), points/ and retest/ (run directories), and at the end sweep.csv, best.toml and
report/. One process at a time works on it.
"""

import contextlib
import io
import math
import os
import shlex
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypercl import sweeps
from hypercl.errors import InputError, RunFailed
from hypercl.interruption import Interrupted, Interruption
from hypercl.lock import Held, Lock
from hypercl.options import Options, RunOptions
from hypercl.report.screen import Screen, spoken_time_at
from hypercl.shell import one_line
from hypercl.whole import replace_file

if TYPE_CHECKING:
    from hypercl.report.sweep.points import Findings
    from hypercl.sweeps.cluster import Workers
    from hypercl.sweeps.search import Search
    from hypercl.sweeps.spec import Point, Sweep

ParseArgs = Callable[[list[str]], Options]
_ROUNDS = 5  # of packs, at least, in which TPE learns from those before
FILE, JOURNAL, LOCK = "sweep.toml", "journal.log", "lock"


def sweep(
    options: RunOptions, argv: Sequence[str], parse_args: ParseArgs, interruption: Interruption
) -> dict[str, Any]:
    """Run a sweep, or what is left of it.

    Args:
        argv: The command line, which goes on with it.
        parse_args: Of the command line.

    Returns:
        What has been found; of a dry run, what it says.

    Raises:
        InputError: The file, the folder or the workers cannot be used.
        RunFailed: A disk is full, the workers are gone, or no point of a method has finished.
        Interrupted: By a signal; what was learned has been saved.
    """
    from hypercl.sweeps.driver import with_retest
    from hypercl.sweeps.reading import read

    assert options.sweep is not None
    spec = with_retest(read(options.sweep, parse_args), options.retest)
    if options.dry_run:
        return try_out(spec, options)
    out_dir = Path(options.out_dir or Path("out", f"sweep_{spec.name}")).absolute()
    command = shlex.join(["python", "run.py", *argv])
    screen = Screen(lambda line: None)
    try:
        with _folder(out_dir):
            found = _go_on(spec, out_dir, options, command, parse_args, interruption)
            show(screen, found, out_dir)
    except Interrupted:
        screen.say_command("continue with", command)
        raise
    except OSError as error:
        what = f"{error.filename or out_dir} cannot be written"
        is_dasks = type(error).__module__.startswith("distributed.")
        if is_dasks or isinstance(error, TimeoutError | ConnectionError):
            what = "the workers cannot be reached"
        raise RunFailed(
            f"{what} ({error.strerror or one_line(error) or type(error).__name__}): mend that, and "
            "give the same command again"
        ) from error
    if missing := [method.label for method in found.methods if not method.counts["finished"]]:
        raise RunFailed(f"no point of {', '.join(missing)} has finished: see sweep.csv")
    return found.as_json()


def _go_on(
    spec: "Sweep",
    out_dir: Path,
    options: RunOptions,
    command: str,
    parse_args: ParseArgs,
    interruption: Interruption,
) -> "Findings":
    """Do what is left, and report."""
    from hypercl.report.sweep.points import collect
    from hypercl.sweeps.cluster import open_workers
    from hypercl.sweeps.driver import Driver
    from hypercl.sweeps.live import Watch
    from hypercl.sweeps.search import Search

    shares = {label: _sharing(spec, label, parse_args) for label in spec.labels}
    search = None
    if Search.has_begun(out_dir / JOURNAL, spec):  # what it says of workers counts
        search = _opened(spec, out_dir, options, Search.open, 1, 1)
    if search is None or not collect(out_dir, spec, search, command).is_done:
        with open_workers(options) as workers:
            if search is None:
                block = _block(spec, workers, shares)
                at_once = _at_once(spec, workers.number, block)
                search = _opened(spec, out_dir, options, Search.open, at_once, block)
            with Watch(spec, search, workers.dashboard) as watch:

                def may_share(one: "Point", other: "Point") -> bool:
                    return shares[one.label](one, other)

                Driver(spec, search, out_dir, workers, watch, may_share).run(interruption)
    return _reported(out_dir, spec, search, command)


def _opened(
    spec: "Sweep", out_dir: Path, options: RunOptions, open_search: Callable[..., "Search"],
    at_once: int, block: int,
) -> "Search":  # fmt: skip
    """The search; the file is kept once the journal has taken it."""
    search = open_search(out_dir / JOURNAL, spec, at_once=at_once, block=block)
    replace_file(out_dir / FILE, spec.path.read_bytes())
    if options.retry_failed:
        for label in spec.labels:
            search.retry_failed(label)
    return search


def _reported(out_dir: Path, spec: "Sweep", search: "Search", command: str) -> "Findings":
    from hypercl.shell import importing

    Screen(lambda line: None).say("the report is made, which takes some seconds")
    with importing():  # matplotlib
        from hypercl.report.sweep.files import write_sweep_report

    return write_sweep_report(out_dir, spec, search, command)


def show(screen: Screen, found: "Findings", out_dir: Path) -> None:
    """Say what was tried, what was chosen, and how it does with fresh seeds."""
    from hypercl.report.sweep.tables import chosen_table, tried_table

    tables = [tried_table(found)]
    if found.sweep.chooses:
        tables.append(chosen_table(found))
    for table in tables:
        if table.rows:
            screen.table(table.title, table.header, table.rows)
            for note in table.notes:
                screen.say(note)
    for warning in found.warnings:
        screen.say(warning)
    if any(method.counts["failed"] for method in found.methods):
        screen.say("--retry_failed tries the points again that failed")
    screen.say(f"the report is {out_dir / 'report' / 'report.html'}, with sweep.csv beside it")


@contextlib.contextmanager
def _folder(out_dir: Path) -> Iterator[None]:
    """The folder of a sweep, made where it is missing, for this process alone.

    Raises:
        InputError: It is something else, or another process works on it.
    """
    option = f"--out_dir={out_dir}"
    try:
        if out_dir.exists() and not out_dir.is_dir():
            raise InputError(f"{option} is a file: choose a directory")
        known = (FILE, JOURNAL, LOCK, f".{FILE}.part")
        names = sorted(os.listdir(out_dir)) if out_dir.exists() else []
        if names and not set(names) & set(known):
            raise InputError(f"{option} has {names[0]} and is no sweep's: choose a new directory")
        out_dir.mkdir(parents=True, exist_ok=True)
        lock = Lock(out_dir / LOCK)
    except Held as held:
        raise InputError(
            f"{option} is in use by {held.owner}: wait for it to end, or choose another directory"
        ) from None
    except OSError as error:
        raise InputError(
            f"{option} cannot be used ({error.strerror or error}): choose another directory"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _sharing(
    spec: "Sweep", label: str, parse_args: ParseArgs
) -> Callable[["Point", "Point"], bool]:
    """Whether two points of a method can be learned in one step."""
    from hypercl.sweeps.together import may_share

    parsed: dict[int, Options | None] = {}

    def options_of(point: "Point") -> Options | None:
        """None where they are refused: its own run says why."""
        if point.number not in parsed:
            try:
                with contextlib.redirect_stderr(io.StringIO()):
                    parsed[point.number] = parse_args(point.argv("somewhere", spec))
            except (SystemExit, InputError):
                parsed[point.number] = None
        return parsed[point.number]

    def share(one: "Point", other: "Point") -> bool:
        options, of_other = options_of(one), options_of(other)
        return options is not None and of_other is not None and may_share(options, of_other)

    return share


def _block(
    spec: "Sweep",
    workers: "Workers",
    shares: dict[str, Callable[["Point", "Point"], bool]],
) -> int:
    """How many points are learned in one step: as the file says, or as many as is fast, where all
    points of all methods can be; not so many that a worker has nothing to do, or that TPE learns
    from few others.
    """
    if spec.together is not None:
        return spec.together
    sizes: list[int] = []
    for label in spec.labels:
        first, *others = tried_points(spec, label)
        if not others or not all(shares[label](first, other) for other in others):
            return 1
        rounds = _ROUNDS if spec.search == "tpe" else 1
        packs = math.ceil(workers.number / len(spec.labels))
        sizes.append(math.ceil(_num_points(spec, label) / (rounds * packs)))
        if min(sizes) > 1:
            sizes.append(workers.points_together(first.argv("somewhere", spec)))
    return max(1, min(sizes))


def _num_points(spec: "Sweep", label: str) -> int:
    searched = spec.of(label)
    whole = len(searched.named) or searched.points
    return whole or sum(1 for _ in searched.space.combinations())


def _at_once(spec: "Sweep", num_workers: int, block: int) -> int:
    """How many points of a method are at work: what TPE learns from must wait for no more."""
    if block == 1:
        return 2 * num_workers
    packs = math.ceil(num_workers / len(spec.labels)) if spec.search == "tpe" else 2 * num_workers
    return block * max(2, packs)


def tried_points(spec: "Sweep", label: str, most: int = 20) -> list["Point"]:
    """Some points that a method may have, the first of each option and then others."""
    from hypercl.sweeps.spec import Point

    searched = spec.of(label)
    choices = list(searched.named.values()) or list(searched.space.tried(most))
    return [Point(label, number, options) for number, options in enumerate(choices)]


def try_out(spec: "Sweep", options: RunOptions) -> dict[str, Any]:
    """``--dry_run``: how many points there are, and what time and memory they take, judged by the
    dry run of one point of each method on this machine.
    """
    from hypercl.program import run
    from hypercl.sweeps.cluster import processors
    from hypercl.sweeps.search import Search

    workers = options.workers or processors()
    screen = Screen(lambda line: None)
    methods: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        search = Search.open(Path(folder, JOURNAL), spec, at_once=1)
        for label in spec.labels:
            point = search.next(label)
            assert point is not None
            with contextlib.redirect_stdout(io.StringIO()):
                said = run(*point.argv(Path(folder, "run"), spec), "--dry_run")
            number = search.num_points(label)
            retests = min(spec.retest, number) * spec.retest_seeds / spec.seeds
            methods[label] = {
                "points": number,
                "seconds_a_point": said["seconds"],
                "bytes": said["bytes"],
                "seconds": said["seconds"] * (number + retests),
                "share": said["share"],
            }
            screen.say(
                f"{label}: {number} points, one takes about "
                f"{spoken_time_at(said['seconds'], said['share'])}; "
                f"{said['bytes'] / 2**20:,.0f} MiB beside the images, on this machine"
            )
    points = sum(method["points"] for method in methods.values())
    seconds = sum(method["seconds"] for method in methods.values()) / min(workers, points)
    share = min(method["share"] for method in methods.values())
    num_bytes = max(method["bytes"] for method in methods.values()) * min(workers, points)
    at_most = "at most " if spec.stop != "none" else ""
    screen.say(
        f"{points} points on {workers} worker{'s' if workers > 1 else ''}, and the tests: "
        f"{at_most}about {spoken_time_at(seconds, share)}; "
        f"{num_bytes / 2**20:,.0f} MiB at a time"
    )
    return {
        "points": points, "workers": workers, "seconds": seconds, "share": share,
        "bytes": num_bytes, "methods": methods,
    }  # fmt: skip


def show_sweeps() -> None:
    """The sweeps that come with the project."""
    screen = Screen(lambda line: None)
    for name in sweeps.names():
        screen.say(f"{name}  {one_line(sweeps.describe(name))}")
