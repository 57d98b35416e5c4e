import base64
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from stored_runs import compared, results_of, write_run

from hypercl.errors import InputError, RunFailed
from hypercl.report.comparison import files
from hypercl.report.comparison.files import require_report_dir, write_report

NAMES = {"report.html", "table.csv", "table.tex", "table.md"} | {
    f"{name}.{kind}"
    for name in (
        "accuracy_over_time", "final_accuracies", "accuracy_against_memory", "accuracy_matrices",
    )
    for kind in ("png", "pdf")
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _coarse():
    """Few pixels, which are most of the time that a report takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(files._OPTIONS, "png", {"dpi": 20})
        yield


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A report's folder, and what it is of."""
    folder = tmp_path_factory.mktemp("comparison") / "new" / "report"
    comparison = compared(
        results_of(inferred=70.0, seeds=[1, 2]), results_of("a", 3), names=["<b>&\"bold'</b>", "A"]
    )
    require_report_dir(folder)
    assert {*write_report(folder, comparison)} == {*folder.iterdir()}
    return folder, comparison


class Page(HTMLParser):
    """What a page refers to, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.references, self.words = [], [], []
        self.feed(text)
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [v for k, v in attributes if k in ("src", "href", "data", "action")]

    def handle_data(self, data):
        self.words.append(data)


def test_all_files_are_there(written):
    folder, _ = written
    assert {path.name for path in folder.iterdir()} == NAMES
    for path in folder.iterdir():
        begins = {".png": b"\x89PNG", ".pdf": b"%PDF"}.get(path.suffix, b"")
        assert path.read_bytes().startswith(begins)
        assert path.stat().st_size > 100


def test_the_page_refers_to_nothing_and_has_its_pictures(written):
    folder, _ = written
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert len(page.references) == 4
    for name, source in zip(files.FIGURES, page.references, strict=True):
        head, data = source.split(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(data) == (folder / f"{name}.png").read_bytes()
    assert not {"script", "link", "iframe", "object"} & {*page.tags}
    assert not re.search(r"https?://|url\(|@import", re.sub(r"base64,[^\"]*", "", text))


def test_the_page_says_all(written):
    folder, comparison = written
    page = Page((folder / "report.html").read_text())
    assert comparison.sentence in page.text
    assert comparison.command in page.text
    for warning in comparison.warnings:
        assert warning in page.text
    assert "<b>&\"bold'</b> (n = 2, seeds 1, 2)" in page.text  # as text
    assert "b" not in page.tags
    main = files.main_table(comparison)
    terms = files.meanings(main.header, comparison.measure)
    assert [*terms] == main.header[1:]
    assert "accuracy" in terms["CL1"]
    for term, meaning in terms.items():
        assert f"{term}: {meaning}" in page.text
    for table in (main, files.statistics_table(comparison, "cl3")):
        for cell in (cell for row in table.rows for cell in row):
            assert cell in page.text


def test_an_earlier_report_is_replaced_and_nothing_else(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    require_report_dir(tmp_path)
    write_report(tmp_path, compared(results_of("a")))
    require_report_dir(tmp_path)
    write_report(tmp_path, compared(results_of(form=1)))
    there = {path.name for path in tmp_path.iterdir()}
    gone = {"accuracy_against_memory.png", "accuracy_against_memory.pdf"}  # nothing is known
    assert there == (NAMES - gone) | {"mine.txt"}
    assert "hnet" in (tmp_path / "table.md").read_text()


def test_no_report_is_written_into_a_run_or_over_other_files(tmp_path):
    run = write_run(tmp_path / "run")
    for folder in (run, run / "report"):
        with pytest.raises(InputError, match="is a run directory: choose another"):
            require_report_dir(folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file: choose another directory"):
        require_report_dir(tmp_path / "file")
    with pytest.raises(InputError, match=r"file/x cannot be used .*: choose another directory"):
        write_report(tmp_path / "file" / "x", compared(results_of()))
    (tmp_path / "table.csv").write_text("mine")
    with pytest.raises(InputError, match=r"has a table\.csv that is no report's"):
        require_report_dir(tmp_path)


def test_a_file_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "FIGURES", {})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFailed, match=r"report\.html cannot be written \(No space left on dev"):
        write_report(tmp_path / "new", compared(results_of()))
    assert [*(tmp_path / "new").iterdir()] == []


def test_the_page_is_installed_with_the_package():
    assert Path(files.__file__).with_name("page.html").exists()
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert 'package-data."hypercl.report.comparison" = ["*.html"]' in text
