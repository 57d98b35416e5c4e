"""The process that draws: what it draws, and that it ends with whoever it draws for."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from hypercl.report import drawer
from hypercl.report.drawing import Drawing, Generated, draw, files_of

ROOT = Path(__file__).parent.parent.parent
# Starts the process, has it draw what is in a file, if there is one, and says which it is.
KILLED = """
import pickle, sys, time
from pathlib import Path
sys.modules["torch"] = None  # an import of it fails
from hypercl.report import drawer
drawer.start()
if len(sys.argv) > 1:
    drawer.submit(pickle.loads(Path(sys.argv[1]).read_bytes()))
print(drawer._drawer._process.pid, flush=True)
time.sleep(600)
"""
NAMES = ["accuracy_matrix", "accuracy_over_time", "losses"]


@pytest.fixture
def drawing(tmp_path):
    """Of a run of two tasks and two seeds; a third line of metrics.jsonl came later."""
    rows = [
        f'{{"seed": {seed}, "task": 0, "step": {step}, "task_loss": 0.5, "penalty": 0.0}}\n'
        for step in (1, 2)
        for seed in (1, 2)
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(rows) + "half a li")
    accuracies = [[90.0], [80.0, 70.0]]
    results = {
        "experiment": "splitmnist",
        "tested_on": "test",
        "tasks": ["digits 0-1", "digits 2-3"],
        "seeds": [{"seed": seed, "accuracy": accuracies} for seed in (1, 2)],
    }
    return Drawing(results, path, len("".join(rows)), ("png",), ())


def test_another_process_draws_the_same(drawing):
    here, there = draw(drawing), drawer.submit(drawing).result()
    assert [plot.name for plot in there.plots] == NAMES
    assert there.plots == here.plots
    assert (there.error, there.warnings) == (None, [])
    assert there.seconds > 0


def test_images_that_were_generated_go_there_too(drawing):
    shades = np.arange(2 * 3 * 16, dtype=np.uint8).reshape(2, 3, 4, 4, 1)
    with_images = drawing._replace(generated=Generated(2, shades))
    drawn = drawer.submit(with_images).result()
    assert [plot.name for plot in drawn.plots] == [*NAMES[:2], "replay", NAMES[2]]
    assert drawn.plots == draw(with_images).plots


def test_what_was_drawn_before_an_error_is_there(drawing):
    drawing.metrics.unlink()
    drawn = drawer.submit(drawing).result()
    assert [plot.name for plot in drawn.plots] == NAMES[:2]
    assert "No such file" in drawn.error


def test_what_matplotlib_warns_of_comes_back(drawing):
    drawing.results["tasks"][0] = "\U000f0000"  # no font has it
    drawn = drawer.submit(drawing).result()
    assert "missing from font" in drawn.warnings[0]
    assert len(drawn.plots) == 3


def test_what_is_handed_in_may_change_afterwards(drawing):
    first = drawer.submit(drawing)
    second = drawer.submit(drawing)
    drawing.results["seeds"][0]["accuracy"][0][0] = 10.0
    assert first.result().plots == second.result().plots


def test_a_process_that_has_ended_is_followed_by_another(drawing):
    drawer.start()
    process = drawer._drawer._process
    drawer.start()
    assert drawer._drawer._process is process
    process.kill()
    process.wait()
    assert len(drawer.submit(drawing).result().plots) == 3
    waiting = drawer.submit(drawing)
    drawer._drawer._process.kill()
    assert waiting.result().error == "the process that draws has ended"


@pytest.fixture
def endless(drawing):
    """A drawing that takes forever, as it reads where nobody writes."""
    os.mkfifo(path := drawing.metrics.with_name("fifo"))
    return drawing._replace(metrics=path)


def test_stopping_does_not_wait_for_a_drawing(drawing, endless):
    waiting = drawer.submit(endless)
    drawer.stop()
    assert drawer._drawer is None
    assert waiting.result(timeout=0).error == "the process that draws has ended"
    assert len(drawer.submit(drawing).result().plots) == 3


def test_where_no_process_can_be_started_this_one_draws(drawing, monkeypatch):
    drawer.stop()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    drawn = drawer.submit(drawing)
    assert drawn.done()
    assert [plot.name for plot in drawn.result().plots] == NAMES


def test_a_fork_has_a_process_of_its_own(drawing):
    drawer.start()
    child = os.fork()
    if child == 0:
        try:
            forgotten = drawer._drawer is None
            drawn = drawer.submit(drawing).result()
            drawer.stop()
            os._exit(0 if forgotten and len(drawn.plots) == 3 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(drawer.submit(drawing).result().plots) == 3


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_the_process_that_it_draws_for(number, endless, tmp_path):
    (tmp_path / "drawing").write_bytes(pickle.dumps(endless))
    for given in ([], [tmp_path / "drawing"]):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, *given],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as parent:
            draws = int(parent.stdout.readline())
            os.kill(draws, 0)
            parent.send_signal(number)
        for _ in range(300):
            if not _runs(draws):
                break
            time.sleep(0.1)
        else:
            pytest.fail("it goes on")


def _runs(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # has ended, and nobody has asked how


def test_the_signals_of_a_terminal_do_not_reach_it():
    drawer.start()
    assert os.getpgid(drawer._drawer._process.pid) != os.getpgid(0)


def test_files_are_the_same_each_time():
    png, pdf = files_of(Figure(), ["png", "pdf"]).values()
    assert png.startswith(b"\x89PNG")
    assert pdf.startswith(b"%PDF")
    assert b"CreationDate" not in pdf
    assert files_of(Figure(), ["png", "pdf"]) == {"png": png, "pdf": pdf}
