"""--compare: finished runs beside each other, from their results.json; config.json tells apart
those of different versions of a user's file.
"""

import json
import os
import shlex
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hypercl.errors import InputError
from hypercl.measure import measure_of
from hypercl.options import RunOptions
from hypercl.report.comparison.results import Comparison, compare_rows
from hypercl.report.comparison.rows import FORMATS, StoredRun, is_comparable, make_rows, pool
from hypercl.report.comparison.table import Table, main_table, statistics_table
from hypercl.report.screen import Screen
from hypercl.rundir.stored import CONFIG, RESULTS, failed_for_good, is_run_dir, read_sealed
from hypercl.shell import importing

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def compare(options: RunOptions, argv: Sequence[str]) -> dict[str, Any]:
    """Compare finished runs: a table, statistics, and the report that is asked for.

    Args:
        argv: The command line, which the report repeats.

    Returns:
        ``rows``, ``statistics``, ``warnings``, ``compared`` and ``command``.

    Raises:
        InputError: No run can be compared, a label fits none of them or several that cannot share
            it, or the report's folder cannot be used.
        RunFailed: A file of the report cannot be written.
    """
    report = None if options.report is None else Path(options.report)
    if report is not None:
        with importing():  # matplotlib
            from hypercl.report.comparison.files import require_report_dir, write_report
        require_report_dir(report)
    assert options.compare is not None
    files = find_runs([Path(path) for path in options.compare])
    names = _names(options.label or (), files)
    runs, problems = read_runs(files, names)
    variants, more = pool(runs)
    rows = make_rows(variants)
    command = shlex.join(["python", "run.py", *argv])
    comparison = compare_rows(rows, [*problems, *more], command)
    for warning in comparison.warnings:
        warnings.warn(warning, stacklevel=2)
    screen = Screen(lambda line: None)
    show(screen, comparison)
    if report is not None:
        write_report(report, comparison)
        screen.say(f"the report is {report / 'report.html'}, with tables and figures beside it")
    return comparison.as_json()


def find_runs(paths: Iterable[Path], option: str = "compare") -> list[Path]:
    """The results.json of every run, in the order of the paths and then of their names, each once.

    Args:
        paths: Of run directories, of folders in which such lie at any depth, and of files. Where a
            folder has none, the file that it lacks is named.
        option: That has the paths.

    Raises:
        InputError: A path does not exist, or a folder cannot be read.
    """
    files: dict[str, Path] = {}
    for path in paths:
        try:
            if not path.exists():
                raise InputError(f"--{option}: {path} does not exist: give a finished run")
            for file in _files_of(path):
                files.setdefault(os.path.realpath(file), file)
        except OSError as error:
            where = error.filename or path
            raise InputError(
                f"--{option}: {os.fspath(where)} cannot be read ({error.strerror or error}): make "
                "it readable, or leave it out"
            ) from None
    return list(files.values())


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if is_run_dir(path) or (path / RESULTS).exists():
        return [path / RESULTS]
    found, seen = [], set()
    for place, folders, names in os.walk(path, onerror=_raise, followlinks=True):
        folder = Path(place)
        if (real := os.path.realpath(folder)) in seen:  # links may lead in a circle
            folders.clear()
            continue
        seen.add(real)
        if RESULTS in names or is_run_dir(folder):
            found.append(folder / RESULTS)
            folders.clear()  # a run has no run in it
    return sorted(found) or [path / RESULTS]


def _raise(error: OSError) -> None:
    raise error


def _names(labels: Sequence[str], files: Sequence[Path]) -> dict[Path, str]:
    """The name of each file that has been given one.

    Args:
        labels: NAME=RUN each; RUN is a run, or a folder with some.

    Raises:
        InputError: RUN is none of those compared, or has two names.
    """
    compared = {os.path.realpath(file): file for file in files}
    names: dict[Path, str] = {}
    for label in labels:
        name, _, path = label.partition("=")
        named = [compared.get(os.path.realpath(f)) for f in find_runs([Path(path)], "label")]
        if None in named:
            raise InputError(
                f"--label={label} names a run that is not compared: give {path} to --compare too"
            )
        for file in filter(None, named):
            if names.setdefault(file, name) != name:
                raise InputError(f"{file} has two labels, {names[file]} and {name}: leave one out")
    return names


def read_runs(
    files: Sequence[Path], names: Mapping[Path, str]
) -> tuple[list[StoredRun], list[str]]:
    """What can be compared, and of the others why not.

    Raises:
        InputError: Nothing can.
    """
    runs: list[StoredRun] = []
    problems = []
    for file in files:
        path = file.parent if file.name == RESULTS else file
        results = _read(file)
        if isinstance(results, str):
            problems.append(f"{path} is left out: {results}")
        elif runs and (measure := measure_of(results)) != measure_of(runs[0].results):
            first = measure_of(runs[0].results)
            problems.append(
                f"{path} is left out: its tasks' {measure.title} is no {first.title}, which the "
                "first run has; compare them apart"
            )
        else:
            runs.append(StoredRun(path, results, names.get(file)))
    if not runs:
        raise InputError(f"nothing to compare: {'; '.join(problems)}: give finished runs")
    return with_versions_of_code(runs), problems


def with_versions_of_code(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """The runs; where they have several versions of a file of the user's, which one each has is
    among its options, as ``code``.
    """
    codes = [_code_of(run.path) for run in runs]
    versions: dict[str, set[str]] = {}
    for code in codes:
        for reference, version in code.items():
            versions.setdefault(reference, set()).add(version)
    told_apart = []
    for run, code in zip(runs, codes, strict=True):
        of_several = {v: None for name, v in code.items() if len(versions[name]) > 1}
        if of_several:
            config = {**run.results["config"], "code": " ".join(of_several)}
            run = run._replace(results={**run.results, "config": config})
        told_apart.append(run)
    return told_apart


def _code_of(path: Path) -> dict[str, str]:
    """The version of each reference's file: how its copy in code/ ends. Empty where unknown."""
    try:
        config = read_sealed(path / CONFIG) or {}
        return {name: of["sha256"][:8] for name, of in config.get("code", {}).items()}
    except (ValueError, OSError, TypeError, KeyError, AttributeError):
        return {}


def _read(file: Path) -> dict[str, Any] | str:
    """The results of a finished run, or what is wrong with them."""
    try:
        if (reason := _foreign(file)) is not None:
            return reason
        results = read_sealed(file)
    except ValueError:
        return f"its {file.name} is damaged"
    except OSError as error:
        return f"{file.name} cannot be read ({error.strerror or error})"
    assert results is not None  # _foreign() has read it
    if failed_for_good(results):
        return f"the run failed ({results['seeds'][0]['failed']})"
    if results["status"] != "finished":
        return f"the run is not finished, its status is {results['status']}"
    return results if is_comparable(results) else "no run of this version has written it"


def _foreign(file: Path) -> str | None:
    """Why a file is no run's, or one of another version's; ValueError where it is no JSON."""
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        is_run = is_run_dir(file.parent)
        return f"it has no {RESULTS}, the run has not begun" if is_run else "there is no run"
    except RecursionError:
        raise ValueError from None
    if not isinstance(content, dict) or not {"status", "config", "seeds"} <= content.keys():
        return f"{file.name} is no run's"
    if content.get("format") not in FORMATS:
        known = " and ".join(map(str, FORMATS))
        return f"its format is {content.get('format')}, and {known} are known"
    return None


def show(screen: Screen, comparison: Comparison) -> None:
    """Say what is compared and found."""
    screen.say(comparison.sentence)
    main = main_table(comparison)
    tables = [main, *(statistics_table(comparison, column) for column in comparison.columns)]
    if not all(_fits(screen, table) for table in tables):
        letters = {row.label: _letter(i) for i, row in enumerate(comparison.rows)}
        for label, letter in letters.items():
            screen.say(f"{letter}: {label}")
        first = _letter(0)
        tables = [main, *(statistics_table(comparison, c, first) for c in comparison.columns)]
        tables = [
            table._replace(rows=[[letters[row[0]], *row[1:]] for row in table.rows])
            for table in tables
        ]
    for table in tables:
        screen.table(table.title, table.header, table.rows)
        for note in table.notes:
            screen.say(note)


def _fits(screen: Screen, table: Table) -> bool:
    """Whether each column has room beside the labels."""
    whole = [table.header, *table.rows]
    return all(
        screen.fits([[row[0], row[i]] for row in whole]) for i in range(1, len(table.header))
    )


def _letter(i: int) -> str:
    return _LETTERS[i] if i < len(_LETTERS) else str(i + 1)
