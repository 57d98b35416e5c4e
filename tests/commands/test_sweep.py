"""--sweep: as a command, with workers that are processes, and what it refuses."""

import os
import re
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from helpers import FEW_STEPS, read_json

import run
from hypercl.commands import sweep as command
from hypercl.errors import InputError, RunFailed
from hypercl.lock import Lock, is_held
from hypercl.report.results import Report
from hypercl.report.sweep.points import collect
from hypercl.sweeps import cluster
from hypercl.sweeps.reading import read
from hypercl.tasks import images
from train_args import parse_args

ROOT = Path(__file__).parents[2]
TINY = [*(option for option in FEW_STEPS if "--lr" not in option), "--num_tasks=2"]
SWEEP = f"""
name = "tiny"
options = {TINY}
metric = "cl1"
search = "grid"
together = 1
[space]
lr = [1e-3, 1e-2, 1e30]
"""


class Inline:
    """Workers in this process."""

    number, dashboard = 2, None

    def __init__(self):
        from queue import Queue

        self.come_back, self.number_of_jobs = Queue(), 0

    def hand_out(self, job):
        from hypercl.sweeps.work import work

        ticket = self.number_of_jobs
        self.number_of_jobs += 1
        self.come_back.put(cluster.Done(ticket, work(job)))
        return ticket

    def require_there(self):
        pass

    def points_together(self, argv):
        return 3


@pytest.fixture
def inline(monkeypatch, few_digits):
    """Workers in this process, and the file tiny.toml; how often workers were asked for."""
    opened = []

    def open_workers(options):
        opened.append(options)
        return nullcontext(Inline())

    monkeypatch.setattr(cluster, "open_workers", open_workers)
    monkeypatch.setattr(command, "_reported", collect)  # figures would take seconds
    Path("tiny.toml").write_text(SWEEP)
    return opened


def test_a_sweep_from_its_file_to_the_test_of_the_best(inline, capsys):
    found = run.main(["--sweep=tiny.toml"])
    shown = capsys.readouterr().out
    assert [point["status"] for point in found["points"]] == ["finished", "finished", "diverged"]
    [chosen] = [point for point in found["points"] if point["chosen"]]
    folder = Path("out", "sweep_tiny")
    test = read_json(folder / "retest" / "tiny" / f"{chosen['number']:05}" / "results.json")
    assert chosen["test_value"] == test["summary"]["cl1"]["mean"]
    assert f"lr={chosen['lr']:g}" in shown
    assert all(len(line) <= 80 or "/" in line for line in shown.splitlines())
    assert (folder / "sweep.toml").read_text() == SWEEP
    assert len(inline) == 1
    again = run.main(["--sweep=tiny.toml"])
    assert again["points"] == found["points"]
    assert len(inline) == 1  # nothing is left that workers could do
    more = SWEEP.replace("[1e-3, ", "[1e-3, 3e-3, ")
    Path("tiny.toml").write_text(more)
    assert len(run.main(["--sweep=tiny.toml", "--retest=2"])["points"]) == 4


def test_tests_are_made_anew_where_their_number_of_seeds_is_another(inline):
    assert {p["test_seeds"] for p in run.main(["--sweep=tiny.toml"])["points"]} == {1, None}
    Path("tiny.toml").write_text("retest_seeds = 2\n" + SWEEP)
    again = run.main(["--sweep=tiny.toml"])
    assert {point["test_seeds"] for point in again["points"]} == {2, None}
    assert len(inline) == 2


def test_a_journal_without_a_line_is_none(inline):
    """As a kill at the very beginning leaves it: the workers there are count."""
    folder = Path("out", "sweep_tiny")
    folder.mkdir(parents=True)
    for name in ("lock", "journal.log"):
        Path(folder, name).touch()
    run.main(["--sweep=tiny.toml"])
    journal = Path(folder, "journal.log").read_text()
    assert re.findall(r'"at_once": ?(\d+)', journal) == ["4"]


def test_points_that_are_refused_share_no_step(inline):
    spec = read("tiny.toml", parse_args)
    first, other, *_ = command.tried_points(spec, "tiny", most=1)
    share = command._sharing(spec, "tiny", parse_args)
    assert share(first, other)
    assert not share(first, replace(other, number=9, options={"momentum": 0.5}))


def test_where_no_point_finishes_the_sweep_has_failed(inline):
    Path("tiny.toml").write_text(SWEEP.replace("1e-3, 1e-2, ", ""))
    with pytest.raises(RunFailed, match=r"no point of tiny has finished: see sweep\.csv"):
        run.main(["--sweep=tiny.toml"])


def test_a_dry_run_says_what_a_sweep_takes(inline, capsys):
    said = run.main(["--sweep=tiny.toml", "--dry_run", "--workers=2"])
    assert (said["points"], said["workers"]) == (3, 2)
    assert said["seconds"] > 0
    assert said["bytes"] == 2 * said["methods"]["tiny"]["bytes"] > 0
    assert "3 points on 2 workers, and the tests: about" in capsys.readouterr().out
    assert not Path("out").exists()
    assert inline == []


def test_a_sweep_that_chooses_nothing_tests_its_points_and_no_other(inline):
    all_tested = SWEEP.replace("together = 1", "together = 1\nchooses = false")
    Path("tiny.toml").write_text(all_tested)
    found = run.main(["--sweep=tiny.toml"])
    assert {point["tested_on"] for point in found["points"]} == {"test"}
    assert not Path("out", "sweep_tiny", "retest").exists()
    with pytest.raises(InputError, match=r"--retest=2 tests chosen points, and .* chooses none"):
        run.main(["--sweep=tiny.toml", "--retest=2"])


def test_folders_that_are_refused(inline):
    Path("file").touch()
    Path("other").mkdir()
    Path("other", "thing.txt").touch()
    Path("held").mkdir()
    lock = Lock(Path("held", "lock"))
    for out_dir, words in {
        "file": "is a file: choose a directory",
        "other": "has thing.txt and is no sweep's",
        "held": "is in use by process",
        "file/below": "cannot be used",
    }.items():
        with pytest.raises(InputError, match=words):
            run.main(["--sweep=tiny.toml", f"--out_dir={out_dir}"])
    lock.release()
    run.main(["--sweep=tiny.toml", "--out_dir=held"])
    Path("tiny.toml").write_text(SWEEP.replace("--num_tasks=2", "--num_tasks=3"))
    with pytest.raises(InputError, match="options"):
        run.main(["--sweep=tiny.toml", "--out_dir=held"])
    assert Path("held", "sweep.toml").read_text() == SWEEP
    assert not is_held(Path("held", "lock"))


def test_a_full_disk_is_one_line(inline, monkeypatch):
    from hypercl.sweeps.search import Search

    def full(*args, **options):
        raise OSError(28, "No space left on device", "out/sweep_tiny/journal.log")

    monkeypatch.setattr(Search, "tell", full)
    with pytest.raises(RunFailed, match=r"journal\.log cannot be written \(No space .*same comm"):
        run.main(["--sweep=tiny.toml"])


def test_workers_that_cannot_be_reached_are_no_full_disk(inline, monkeypatch):
    def late(options):
        raise TimeoutError

    monkeypatch.setattr(cluster, "open_workers", late)
    with pytest.raises(RunFailed, match=r"^the workers cannot be reached \(TimeoutError\): mend"):
        run.main(["--sweep=tiny.toml"])


def test_the_sweeps_that_come_with_the_project_are_listed(monkeypatch, tmp_path, capsys):
    from hypercl import sweeps

    monkeypatch.setattr(sweeps, "FOLDER", tmp_path)
    Path(tmp_path, "mine.toml").write_text("# What it is\nname = 'mine'\n")
    with pytest.raises(SystemExit) as left:
        run.main(["--list_sweeps"])
    assert left.value.code == 0
    assert capsys.readouterr().out == "mine  What it is\n"


def test_blocks_keep_workers_busy_and_tpe_learning(inline, monkeypatch):
    from hypercl.sweeps.reading import read
    from train_args import parse_args

    def block(text, number=2):
        Path("tiny.toml").write_text(text)
        spec = read("tiny.toml", parse_args)
        workers = Inline()
        workers.number = number
        shares = {label: command._sharing(spec, label, parse_args) for label in spec.labels}
        found = command._block(spec, workers, shares)
        return found, command._at_once(spec, number, found)

    alike = SWEEP.replace("together = 1\n", "")
    assert block(SWEEP) == (1, 4)
    assert block(alike) == (2, 8)
    assert block(alike, number=1) == (3, 6)
    tpe = alike.replace("grid", "tpe").replace("[space]", "points = 30\n[space]")
    tpe = tpe.replace("[1e-3, 1e-2, 1e30]", "{log = [1e-4, 1e-1]}")
    assert block(tpe) == (3, 6)
    assert block(tpe, number=30) == (1, 60)
    assert block(alike.replace("[space]", "[space]\nuse_sgd = [true, false]")) == (1, 4)


WITHOUT_FIGURES = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import run
from hypercl.commands import sweep
from hypercl.report.sweep.points import collect
if __name__ == "__main__":
    sweep._reported = collect
    run.main()
"""


def start(*options):
    return subprocess.Popen(
        [sys.executable, "-c", WITHOUT_FIGURES, ROOT, "--sweep=tiny.toml", "--workers=1", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def worker_at(place, process, seconds=120):
    """The worker that learns a point, once it has come so far that it has logged a step."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        steps = Path(place, "metrics.jsonl")
        if steps.exists() and steps.stat().st_size > 0 and is_held(Path(place, "run.lock")):
            return int(Path(place, "run.lock").read_text().split()[1])
        time.sleep(0.01)
    raise AssertionError(process.communicate()[0])


def rows(found):
    """What a sweep has found, but for times."""
    return [{k: v for k, v in row.items() if k not in ("seconds", "run")} for row in found]


def test_a_driver_is_killed_and_the_sweep_finds_the_same(tmp_path, monkeypatch):
    """With a worker in mid-run, which dies with it; what is left is learned in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "_reported", collect)
    monkeypatch.setattr(Report, "_write_plots", lambda self: None)
    monkeypatch.setattr(images, "load_images", cache(images.load_images))  # they take a second
    text = SWEEP.replace("1e-2, 1e30]", "1e-2]").replace("--n_iter=6", "--n_iter=100")
    for often in ("--ckpt_iter=4", "--val_iter=3"):
        text = text.replace(often, often[:-1] + "20")
    Path("tiny.toml").write_text(text)
    process = start("--out_dir=killed")
    worker = worker_at("killed/points/tiny/00000", process)
    process.kill()
    shown = process.communicate()[0]
    assert "the workers can be looked at under http://127.0.0.1:" in shown
    until = time.monotonic() + 10
    while Path("/proc", str(worker)).exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert not Path("/proc", str(worker)).exists()
    assert not Path("killed/points/tiny/00000/weights.pt").exists()
    monkeypatch.setattr(cluster, "open_workers", lambda options: nullcontext(Inline()))
    found = run.main(["--sweep=tiny.toml", "--out_dir=killed"])
    expected = run.main(["--sweep=tiny.toml", "--out_dir=alone"])
    assert rows(found["points"]) == rows(expected["points"])
    for name in ("points/tiny/00000", "points/tiny/00001", "retest/tiny/00001"):
        killed, alone = (Path(way, name, "metrics.jsonl") for way in ("killed", "alone"))
        assert killed.read_text() == alone.read_text()
