"""The files of a report: report.html, the table as CSV, LaTeX and Markdown, the figures."""

import base64
import io
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from hypercl.errors import InputError
from hypercl.measure import Measure
from hypercl.report import plots
from hypercl.report.comparison.figures import FIGURES
from hypercl.report.comparison.results import Comparison
from hypercl.report.comparison.table import (
    as_csv,
    as_latex,
    as_markdown,
    main_table,
    meanings,
    statistics_table,
)
from hypercl.rundir.stored import is_run_dir
from hypercl.whole import replace_file

_GENERATOR = "hypercl, run.py --compare"
_PAGE = "report.html"
_TABLES = ("table.csv", "table.tex", "table.md")
_FIGURES = tuple(f"{name}.{kind}" for name in FIGURES for kind in ("png", "pdf"))
_OPTIONS: Mapping[str, dict[str, Any]] = {
    "png": {"dpi": 150},
    "pdf": {"metadata": {"CreationDate": None}},
}


def require_report_dir(folder: Path) -> None:
    """Refuse a folder in which a report would replace something else, or come into a run.

    Raises:
        InputError: It is, or lies in, a run directory; it is a file; or it has files with the names
            of a report's that are none.
    """
    try:
        for place in (folder.absolute(), *folder.absolute().parents):
            if place.is_dir() and is_run_dir(place):
                raise InputError(
                    f"--report={folder} lies in {place}, which is a run directory: choose another"
                )
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--report={folder} is a file: choose another directory")
        there = [name for name in (_PAGE, *_TABLES, *_FIGURES) if (folder / name).exists()]
        if there and _GENERATOR.encode() not in _beginning(folder / _PAGE):
            raise InputError(
                f"--report={folder} has a {there[0]} that is no report's: choose another directory"
            )
    except OSError as error:
        raise _refusal(folder, error) from None


def write_report(folder: Path, comparison: Comparison) -> list[Path]:
    """Write all files, each whole or not at all; those of an earlier report are replaced.

    Returns:
        The files.

    Raises:
        InputError: The folder cannot be made.
        RunFailed: A file cannot be written.
    """
    pictures = draw_pictures({name: draw for name, (draw, _) in FIGURES.items()}, comparison)
    main = main_table(comparison)
    tests = [statistics_table(comparison, column) for column in comparison.columns]
    contents = {
        _PAGE: _page(comparison, pictures).encode(),  # the first: it tells a report's folder
        "table.csv": as_csv(comparison).encode(),
        "table.tex": as_latex([main, *tests]).encode(),
        "table.md": as_markdown([main, *tests]).encode(),
        **pictures,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refusal(folder, error) from None
    for name, content in contents.items():
        replace_file(folder / name, content)
    for name in set(_FIGURES) - contents.keys():  # an earlier report's would show something else
        with suppress(OSError):
            (folder / name).unlink(missing_ok=True)
    return [folder / name for name in contents]


def _refusal(folder: Path, error: OSError) -> InputError:
    reason = error.strerror or error
    return InputError(f"--report={folder} cannot be used ({reason}): choose another directory")


def draw_pictures(
    draw: Mapping[str, Callable[[Any], Figure | None]], subject: Any
) -> dict[str, bytes]:
    """The files of figures by their names, PNG and PDF.

    Args:
        draw: By name, what makes a figure of the subject, or None.
    """
    pictures: dict[str, bytes] = {}
    with plots.own_defaults():
        for name, make in draw.items():
            if (figure := make(subject)) is None:
                continue
            for kind, options in _OPTIONS.items():
                data = io.BytesIO()
                figure.savefig(data, format=kind, **options)
                pictures[f"{name}.{kind}"] = data.getvalue()
    return pictures


def shown_figures(
    captions: Mapping[str, tuple[str, str]], pictures: Mapping[str, bytes]
) -> list[tuple[str, str, str, str]]:
    """The figures that there are, for a page: name, caption, what is to be said, PNG as base64.

    Args:
        captions: By name, both texts.
    """
    return [
        (name, *texts, base64.b64encode(pictures[f"{name}.png"]).decode())
        for name, texts in captions.items()
        if f"{name}.png" in pictures
    ]


def render(package: str, **content: Any) -> str:
    """The page.html of a package, which may use parts.html of this one, as text."""

    def source(package: str, name: str) -> str:
        return resources.files(package).joinpath(name).read_text(encoding="utf-8")

    assert __package__ is not None
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({"parts.html": source(__package__, "parts.html")}),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.from_string(source(package, "page.html")).render(content)


def _page(comparison: Comparison, pictures: Mapping[str, bytes]) -> str:
    """The report as one page that refers to no other file."""
    captions = {
        name: (caption(title, comparison.measure), "") for name, (_, title) in FIGURES.items()
    }
    main = main_table(comparison)
    assert __package__ is not None
    return render(
        __package__,
        generator=_GENERATOR,
        comparison=comparison,
        main=main,
        terms=meanings(main.header, comparison.measure),
        tests=[statistics_table(comparison, column) for column in comparison.columns],
        figures=shown_figures(captions, pictures),
    )


def caption(title: str, measure: Measure) -> str:
    """A figure's title, of errors where these are compared."""
    if measure.higher_is_better:
        return title
    for word, other in (("ccuracy", "rror"), ("ccuracies", "rrors")):
        title = title.replace(f"A{word}", f"E{other}").replace(f"a{word}", f"e{other}")
    return title


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1000)
    except FileNotFoundError:
        return b""
