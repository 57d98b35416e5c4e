import base64
import os
import re
from pathlib import Path

import pytest
from stored_sweeps import StoredSearch, sweep_of, write_point

from hypercl.errors import RunFailed
from hypercl.options import OF_THE_PROCESS
from hypercl.report.comparison import files as comparison_files
from hypercl.report.sweep import files
from hypercl.report.sweep.files import write_sweep_report
from hypercl.sweeps.reading import read
from hypercl.sweeps.search import Search
from hypercl.sweeps.values import Value
from train_args import parse_args

_OF_SEARCH = ("random_seed", "num_seeds", "test_with_val_set", "preset")


@pytest.fixture(autouse=True, scope="module")
def _coarse():
    """Few pixels, which are most of the time that a report takes; and no PDF."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison_files, "_OPTIONS", {"png": {"dpi": 20}})
        yield


@pytest.fixture
def _no_figures(monkeypatch):
    """For tests of what else is written."""
    monkeypatch.setattr(files, "FIGURES", {})
    monkeypatch.setattr(files, "OF_TESTS", {})


def begun(out_dir, text):
    """A sweep of a file, and its search."""
    (out_dir / "sweep.toml").write_text(text)
    sweep = read(out_dir / "sweep.toml", parse_args)
    return sweep, Search.open(out_dir / "journal.log", sweep, at_once=2)


TWO = """
options = ["--cl_exp=splitmnist", "--num_tasks=3", "--n_iter=7"]
seeds = 3
metric = "cl1"
search = "random"
points = 5
retest = 1
[[methods]]
method = "ewc"
options = ["--cl_scenario=1"]
[methods.space]
ewc_lambda = {log = [1, 1e6]}
lr = [0.1, 0.01, 0.001]
[[methods]]
method = "si"
options = ["--cl_scenario=1"]
[methods.space]
si_c = {uniform = [0.1, 0.9]}
"""


def learn(out_dir, sweep, search, num_points, tested=()):
    """Points of each method that find 90 %, 91 %, ...; the search is told."""
    for label in (searched.label for searched in sweep.searched):
        for k in range(num_points):
            point = search.next(label)
            options = {**point.options, "n_iter": 7, "method": label}
            test = 80.0 if (label, k) in tested else None
            write_point(out_dir, label, k, 90.0 + k, test=test, **options)
            search.tell(point, "finished", Value(90.0 + k, 0.3, 3, diverged=False))


@pytest.mark.usefixtures("_no_figures")
def test_a_sweep_is_reported_while_it_goes_and_at_its_end(tmp_path):
    sweep, search = begun(tmp_path, TWO)
    findings = write_sweep_report(tmp_path, sweep, search)
    assert [method.num_points for method in findings.methods] == [5, 5]
    assert not (tmp_path / "best.toml").exists()
    assert "No point is finished yet" in (tmp_path / "report" / "report.html").read_text()
    learn(tmp_path, sweep, search, 4)
    search.next("ewc")
    looked = Search.look(tmp_path / "journal.log", sweep)  # while another process has it open
    findings = write_sweep_report(tmp_path, sweep, looked)
    page = (tmp_path / "report" / "report.html").read_text()
    assert "under way" in page
    assert "# The best so far of 4 points of" in (tmp_path / "best.toml").read_text()
    assert findings.comparison is None


def test_the_end_of_a_sweep(tmp_path, monkeypatch):
    some = {name: files.FIGURES[name] for name in ("history", "importance")}
    monkeypatch.setattr(files, "FIGURES", some)
    tests = {name: files.OF_TESTS[name] for name in ("accuracy_over_time", "final_accuracies")}
    monkeypatch.setattr(files, "OF_TESTS", tests)
    sweep, search = begun(tmp_path, TWO)
    learn(tmp_path, sweep, search, 5, tested=[("ewc", 4), ("si", 4)])
    findings = write_sweep_report(tmp_path, sweep, search, "python run.py --sweep <x>")
    assert findings.is_done
    assert findings.warnings == ()
    page = (tmp_path / "report" / "report.html").read_text()
    text = re.sub(r"base64,[^\"]*", "", page)
    assert "under way" not in text
    assert "python run.py --sweep &lt;x&gt;" in text
    assert "10 of 10 points of 2 methods have been tried, each with 3 seeds from 42, by cl1" in text
    assert "(%) on validation samples (higher is better); the search is random, seed 0." in text
    assert "ewc_lambda = {log = [1, 1e6]}" in text  # the file
    for label in ("ewc", "si"):
        assert f">{label}</th>" in text
    assert not re.search(r"https?://|url\(|@import|<script|<link", text)
    pictures = re.findall(r'src="data:image/png;base64,([^"]*)"', page)
    there = {path.read_bytes() for path in (tmp_path / "report").glob("*.png")}
    assert {base64.b64decode(picture) for picture in pictures} == there
    assert len(there) == 4


@pytest.mark.usefixtures("_no_figures")
def test_the_best_is_what_config_takes(tmp_path):
    sweep, search = begun(tmp_path, TWO)
    learn(tmp_path, sweep, search, 3)
    write_sweep_report(tmp_path, sweep, search)
    for label in ("ewc", "si"):
        best = search.ranked(label)[0].point
        taken = parse_args([f"--config={tmp_path / f'best_{label}.toml'}"]).recorded
        asked = parse_args(best.argv("x", sweep)).recorded
        left_out = {*_OF_SEARCH, *OF_THE_PROCESS, "num_tasks"}  # that the stored runs lack
        assert {n: v for n, v in taken.items() if n not in left_out} == {
            n: v for n, v in asked.items() if n not in left_out
        }
        assert not taken["test_with_val_set"]
    assert (tmp_path / "best.toml").read_text() == (tmp_path / "best_ewc.toml").read_text()


@pytest.mark.usefixtures("_no_figures")
def test_options_of_every_kind_survive_in_the_best(tmp_path):
    options = {"mlp_arch": "30,20", "batchnorm": True, "lr": 1e-05, "epochs": 2, "beta": 0.5,
               "net_act": "tanh"}  # fmt: skip
    points = [write_point(tmp_path, "a", 0, 90.0, **options)]
    write_sweep_report(tmp_path, sweep_of("a"), StoredSearch({"a": points}))
    taken = parse_args([f"--config={tmp_path / 'best.toml'}"]).recorded
    assert {name: taken[name] for name in options} == {**options, "mlp_arch": [30, 20]}


def test_an_earlier_report_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "FIGURES", {})
    over_time = {"accuracy_over_time": files.OF_TESTS["accuracy_over_time"]}
    monkeypatch.setattr(files, "OF_TESTS", over_time)
    points = [write_point(tmp_path, "a", 0, 90.0, lr=0.1, test=88.0)]
    write_sweep_report(tmp_path, sweep_of("a"), StoredSearch({"a": points}))
    assert (tmp_path / "report" / "test_accuracy_over_time.png").exists()
    (tmp_path / "retest" / "a" / "00000" / "results.json").unlink()
    (tmp_path / "report" / "mine.txt").write_text("mine")
    write_sweep_report(tmp_path, sweep_of("a"), StoredSearch({"a": points}))
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert not [name for name in names if name.startswith("test_")]
    assert {"mine.txt", "report.html"} <= names


def test_what_cannot_be_drawn_is_a_warning(tmp_path, monkeypatch):
    def draw(findings):
        raise ValueError("no such font")

    monkeypatch.setattr(files, "FIGURES", {"history": (draw, "Points", "")})
    points = [write_point(tmp_path, "a", 0, 90.0, lr=0.1)]
    with pytest.warns(UserWarning, match=r"history could not be drawn \(no such font\)"):
        write_sweep_report(tmp_path, sweep_of("a"), StoredSearch({"a": points}))
    assert (tmp_path / "report" / "report.html").exists()


@pytest.mark.usefixtures("_no_figures")
def test_a_file_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    points = [write_point(tmp_path, "a", 0, 90.0, lr=0.1)]

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunFailed, match=r"sweep\.csv cannot be written \(No space left on dev"):
            write_sweep_report(tmp_path, sweep_of("a"), StoredSearch({"a": points}))
    (tmp_path / "report").write_text("")
    with pytest.raises(RunFailed, match="report cannot be made"):
        write_sweep_report(tmp_path, sweep_of("a"), StoredSearch({"a": points}))


def test_the_page_is_installed_with_the_package():
    assert Path(files.__file__).with_name("page.html").exists()
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert 'package-data."hypercl.report.sweep" = ["*.html"]' in text
