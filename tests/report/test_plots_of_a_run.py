"""When the plots of a run are drawn, and that its training does not wait for them."""

import re
import warnings
from concurrent.futures import Future
from pathlib import Path

import pytest

import run
from hypercl.begun import Begun
from hypercl.report import drawer
from hypercl.report.drawing import Drawn, Plot, draw
from hypercl.report.results import Report
from hypercl.rundir.directory import RunDir

TINY = ["--no_cuda", "--n_iter=60", "--num_tasks=3", "--val_set_size=0", "--mlp_arch=5",
        "--hmlp_arch=5", "--out_dir=run"]  # fmt: skip
WRITE_PLOTS = Report._write_plots


class Slow:
    """In place of the process that draws: drawings end when they are told to."""

    def __init__(self):
        self.drawings, self.futures = [], []

    def submit(self, drawing):
        self.drawings.append(drawing._replace(results=dict(drawing.results)))
        self.futures.append(Future())
        if all(future.done() for future in self.futures[:-1]):
            self.begin(len(self.futures) - 1)
        return self.futures[-1]

    def begin(self, number):
        self.futures[number].set_running_or_notify_cancel()

    def end(self, number, **changes):
        drawn = Drawn([Plot("losses", {"png": f"drawing {number}".encode()})], None, [], 0.0)
        self.futures[number].set_result(drawn._replace(**changes))


@pytest.fixture
def slow(few_digits, monkeypatch):
    """Plots that are due after each task, and take until they are told to end."""
    slow = Slow()
    monkeypatch.setattr(drawer, "submit", slow.submit)
    monkeypatch.setattr(Report, "_write_plots", WRITE_PLOTS)
    monkeypatch.setattr("hypercl.report.results.PLOT_SECONDS", -1e9)
    return slow


def after_task(monkeypatch, number, action):
    """Have something happen when a task has been learned and tested."""
    end_task = Report.end_task

    def acting(self, task_id, *more):
        end_task(self, task_id, *more)
        if task_id == number:
            action()

    monkeypatch.setattr(Report, "end_task", acting)


def plot():
    return Path("run/plots/losses.png").read_bytes()


def test_while_a_drawing_is_under_way_the_training_goes_on(slow, monkeypatch):
    def end_all():
        assert len(slow.drawings) == 2  # after the second task, none: the first is under way
        slow.end(0)
        slow.begin(1)
        slow.end(1)

    after_task(monkeypatch, 2, end_all)
    run.main(TINY)
    assert [len(d.results["seeds"][0]["accuracy"]) for d in slow.drawings] == [3, 3]
    lengths = [drawing.metrics_length for drawing in slow.drawings]
    assert lengths[0] < lengths[1] == Path("run/metrics.jsonl").stat().st_size
    assert plot() == b"drawing 1"


def test_what_was_drawn_is_written_while_the_next_task_is_learned(slow, monkeypatch):
    after_task(monkeypatch, 0, lambda: slow.end(0))
    written = []
    after_task(monkeypatch, 1, lambda: written.append(plot()))
    after_task(monkeypatch, 2, lambda: (slow.end(1), slow.begin(2), slow.end(2)))
    run.main(TINY)
    assert written == [b"drawing 0"]
    assert len(slow.drawings) == 3
    assert plot() == b"drawing 2"


def test_an_older_drawing_that_has_not_begun_is_not_made(slow, monkeypatch):
    """As when other runs of the process have drawings before it."""
    slow.begin = lambda number: None
    after_task(monkeypatch, 2, lambda: slow.end(1))
    run.main(TINY)
    assert slow.futures[0].cancelled()
    assert plot() == b"drawing 1"


def test_a_run_that_fails_or_is_stopped_waits_for_no_drawing(slow, monkeypatch):
    def fail():
        raise KeyboardInterrupt

    after_task(monkeypatch, 1, fail)
    with pytest.raises(KeyboardInterrupt):
        run.main(TINY)
    assert len(slow.drawings) == 1
    assert not Path("run/plots/losses.png").exists()


def test_a_run_that_was_killed_before_its_last_plots_has_them_when_it_has_gone_on(
    slow, monkeypatch
):
    def kill(*_):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Report, "__exit__", lambda *_: None)
        patch.setattr(Begun, "end", kill)
        with pytest.raises(SystemExit):
            run.main(TINY)
    assert not list(Path("run/plots").iterdir())
    monkeypatch.setattr(drawer, "submit", lambda drawing: at_once(draw(drawing)))
    results = run.main(TINY)
    assert results["status"] == "finished"
    assert plot().startswith(b"\x89PNG")


def at_once(drawn):
    future = Future()
    future.set_result(drawn)
    return future


def test_what_cannot_be_drawn_and_what_matplotlib_says_are_warnings(slow, monkeypatch):
    problem = {"error": "no such font", "warnings": ["a glyph is missing"]}
    after_task(monkeypatch, 0, lambda: slow.end(0, **problem))
    after_task(monkeypatch, 2, lambda: (slow.end(1), slow.begin(2), slow.end(2)))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert run.main(TINY)["status"] == "finished"
    texts = [str(w.message) for w in said if w.category is UserWarning]
    assert texts == ["a glyph is missing", "the plots could not be drawn (no such font)"]


def test_a_plot_that_cannot_be_written_fails_the_run(slow, monkeypatch):
    def fail(self, name, data):
        raise run.RunFailed("no space")

    monkeypatch.setattr(RunDir, "write_plot", fail)
    after_task(monkeypatch, 2, lambda: slow.end(0))
    with pytest.raises(run.RunFailed, match="no space"):
        run.main(TINY)
    assert re.search('"status": "failed"', Path("run/results.json").read_text())
