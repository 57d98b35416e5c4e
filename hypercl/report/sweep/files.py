"""The files of a sweep: sweep.csv, best.toml, report/."""

import json
import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from hypercl.errors import RunFailed
from hypercl.options import OF_THE_PROCESS, bearing_on_results, defaults
from hypercl.report.comparison.figures import FIGURES as OF_TESTS
from hypercl.report.comparison.files import caption, draw_pictures, render, shown_figures
from hypercl.report.comparison.table import main_table, statistics_table
from hypercl.report.sweep.figures import FIGURES
from hypercl.report.sweep.points import Findings, Searching, Tried, collect
from hypercl.report.sweep.tables import (
    as_csv,
    chosen_table,
    points_table,
    samples,
    tried_table,
)
from hypercl.rundir.stored import CONFIG, read_sealed
from hypercl.sweeps.space import options_text
from hypercl.sweeps.spec import Sweep
from hypercl.whole import replace_file

_GENERATOR = "hypercl, run.py --sweep"
_REPORT, _PAGE = "report", "report.html"
_FIGURES = (*FIGURES, *(f"test_{name}" for name in OF_TESTS))
# Not what was found: the seeds, on what it was tested; a preset's options are all there.
_NOT_BEST = ("random_seed", "num_seeds", "test_with_val_set", "preset", "continue_from")


def write_sweep_report(
    out_dir: Path, sweep: Sweep, search: Searching, command: str = ""
) -> Findings:
    """Write what a sweep has found so far; each file is replaced, as a whole or not at all.

    Args:
        out_dir: The folder of the sweep.
        search: Of the same sweep; :meth:`Search.look` reads one that is under way.
        command: That the report repeats.

    Raises:
        RunFailed: A file cannot be written.
    """
    findings = collect(out_dir, sweep, search, command)
    replace_file(out_dir / "sweep.csv", as_csv(findings).encode())
    best = _best_files(findings)
    for name, text in best.items():
        replace_file(out_dir / name, text.encode())
    _write_report(out_dir, findings, command)
    return findings


def _best_files(findings: Findings) -> dict[str, str]:
    """By name, the options of the best point, and of several methods those of each one's best."""
    chosen = {"best.toml": findings.best}
    if len(findings.methods) > 1:
        chosen |= {f"best_{method.label}.toml": method.best for method in findings.methods}
    files = {}
    for name, one in chosen.items():
        recorded = None if one is None else _recorded(one)
        if one is not None and recorded is not None:
            files[name] = _as_toml(one, recorded, findings)
    return files


def _recorded(one: Tried) -> Mapping[str, Any] | None:
    """The options of a point's run; None where its config.json is lost."""
    with suppress(ValueError, OSError):
        config = read_sealed(one.place / CONFIG)
        return None if config is None else config["options"]
    return None


def _as_toml(one: Tried, recorded: Mapping[str, Any], findings: Findings) -> str:
    """What ``--config`` takes: the options that differ from the defaults, those of the point at the
    end.
    """
    method = next(method for method in findings.methods if method.label == one.label)
    bearing = bearing_on_results(dict(recorded))
    options = {
        name: value
        for name, value in bearing.items()
        if value is not None
        and name not in (*_NOT_BEST, *OF_THE_PROCESS)
        and (name in one.options or name not in defaults() or value != defaults()[name])
    }
    if "epochs" in options:
        options.pop("n_iter", None)  # which it replaces
    of_point = [name for name in one.options if name in options]
    names = [*(name for name in options if name not in of_point), *of_point]
    so_far = "" if method.is_done else " so far"
    lines = [
        f"The best{so_far} of {method.num_ended} points of {one.label} in the sweep "
        f"{findings.sweep.name}: point {one.title},",
        f"{samples(findings)}: {findings.text(one.value, one.sem)}",
        f"searched: {options_text(one.options)}",
    ]
    comment = "\n".join(f"# {' '.join(line.split())}" for line in lines)
    return comment + "\n\n" + "".join(f"{name} = {_toml(options[name])}\n" for name in names)


def _toml(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value)  # strings, numbers, booleans and lists are written alike in TOML


def _write_report(out_dir: Path, findings: Findings, command: str) -> None:
    folder = out_dir / _REPORT
    file = _text_of(out_dir / "sweep.toml") or _text_of(findings.sweep.path)
    pictures = _drawn({name: draw for name, (draw, *_) in FIGURES.items()}, findings)
    if findings.comparison is not None:
        of_tests = {f"test_{name}": draw for name, (draw, _) in OF_TESTS.items()}
        pictures |= _drawn(of_tests, findings.comparison)
    contents = {_PAGE: _page(findings, pictures, file, command).encode(), **pictures}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFailed(f"{folder} cannot be made ({error.strerror or error})") from None
    for name, content in contents.items():
        replace_file(folder / name, content)
    for name in _FIGURES:  # an earlier report's would show something else
        for kind in ("png", "pdf"):
            if f"{name}.{kind}" not in contents:
                with suppress(OSError):
                    (folder / f"{name}.{kind}").unlink(missing_ok=True)


def _drawn(figures: Mapping[str, Callable[[Any], Figure | None]], subject: Any) -> dict[str, bytes]:
    """The files of figures; what cannot be drawn costs a warning, never a sweep."""
    pictures: dict[str, bytes] = {}
    for name, draw in figures.items():
        try:
            pictures |= draw_pictures({name: draw}, subject)
        except Exception as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            warnings.warn(f"{name} could not be drawn ({reason[0]})", stacklevel=4)
    return pictures


def _page(findings: Findings, pictures: Mapping[str, bytes], file: str, command: str) -> str:
    """The report as one page that refers to no other file."""
    measure, comparison = findings.measure, findings.comparison
    tests = []
    if comparison is not None:
        columns = comparison.columns
        tests = [main_table(comparison), *(statistics_table(comparison, c) for c in columns)]
    captions = {name: texts for name, (_, *texts) in FIGURES.items()}
    of_tests = {f"test_{name}": (caption(title, measure), "") for name, (_, title) in
                OF_TESTS.items()}  # fmt: skip
    assert __package__ is not None
    return render(
        __package__,
        generator=_GENERATOR,
        findings=findings,
        sentence=_sentence(findings),
        tried=tried_table(findings),
        chosen=chosen_table(findings),
        tests=tests,
        test_figures=shown_figures(of_tests, pictures),
        figures=shown_figures({name: (a, b) for name, (a, b) in captions.items()}, pictures),
        points=[points_table(method, findings) for method in findings.methods],
        file=file,
        command=command,
    )


def _sentence(findings: Findings) -> str:
    sweep = findings.sweep
    tried = sum(method.num_ended for method in findings.methods)
    whole = sum(method.num_points for method in findings.methods)
    of_methods = f" of {len(sweep.searched)} methods" if len(sweep.searched) > 1 else ""
    if not sweep.chooses:
        return f"{tried} of {whole} points{of_methods} have been tested; nothing is chosen."
    seeds = f"{sweep.seeds} seed{'s' if sweep.seeds > 1 else ''} from {sweep.first_seed}"
    better = "higher" if sweep.metric.higher_is_better else "lower"
    stop = "" if sweep.stop == "none" else f"; weak points stop early ({sweep.stop})"
    return (
        f"{tried} of {whole} points{of_methods} have been tried, each with {seeds}, by "
        f"{samples(findings)} ({better} is better); the search is {sweep.search}, "
        f"seed {sweep.seed}{stop}."
    )


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
