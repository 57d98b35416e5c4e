"""Sweeps that are driven, in this process: points in any order, stops, errors, and the tests."""

import errno
import os
import queue
import random
import signal
from pathlib import Path

import pytest
from helpers import FEW_STEPS, read_json

from hypercl.errors import RunFailed
from hypercl.interruption import Interrupted, Interruption
from hypercl.lock import Lock
from hypercl.sweeps import driver, work
from hypercl.sweeps.cluster import Done
from hypercl.sweeps.driver import Driver
from hypercl.sweeps.reading import read
from hypercl.sweeps.search import Search
from hypercl.sweeps.work import Job, Outcome
from train_args import parse_args

TINY = [*(option for option in FEW_STEPS if "--lr" not in option), "--num_tasks=3"]
SWEEP = f"""
name = "tiny"
options = {TINY}
metric = "cl1"
search = "random"
points = 4
retest = 1
[space]
beta = {{log = [1e-3, 10]}}
lr = {{log = [1e-4, 1e-1]}}
"""


class Inline:
    """Workers in this process, whose jobs end in any order."""

    number = 2

    def __init__(self, order=0, do=work.work):
        self.random, self.do = random.Random(order), do
        self.jobs, self.done = {}, 0
        self.come_back, self.left = self, False

    def hand_out(self, job):
        ticket = self.done + len(self.jobs)
        self.jobs[ticket] = job
        return ticket

    def get(self, timeout=None):
        if not self.jobs:
            raise queue.Empty
        ticket = self.random.choice(list(self.jobs))
        outcomes = self.do(self.jobs.pop(ticket))
        self.done += 1
        if isinstance(outcomes, str):  # why there are none
            return Done(ticket, None, outcomes, lost=outcomes == "died")
        return Done(ticket, outcomes)

    def get_nowait(self):
        raise queue.Empty

    def require_there(self):
        pass

    def leave(self):
        self.left = True
        return True


class Heard:
    """A watcher that keeps what is said."""

    def __init__(self):
        self.said = []

    def changed(self, search, at_work):
        self.at_work = at_work

    def say(self, text):
        self.said.append(text)


def drive(text=SWEEP, hands=None, out_dir="sweep", retry=False, at_once=2):
    """Run a sweep, or what is left of it; the search and what was said."""
    Path("tiny.toml").write_text(text)
    sweep = read("tiny.toml", parse_args)
    Path(out_dir).mkdir(exist_ok=True)
    search = Search.open(Path(out_dir, "journal.log"), sweep, at_once=at_once)
    if retry:
        search.retry_failed("tiny")
    heard = Heard()
    hands = hands or Inline()
    with Interruption() as interruption:
        Driver(sweep, search, Path(out_dir).absolute(), hands, heard).run(interruption)
    return search, [text for text in heard.said if "is chosen, and tested" not in text]


def table(search):
    return [(e.point, e.state, e.value, e.rungs) for e in search.entries("tiny")]


def learned(job):
    """What a worker would say of points, which it does not learn: their accuracy is their lr."""
    return [
        Outcome("finished" if job.until is None else "paused", results_of(argv, job), "", 0.1, ())
        for argv in job.argvs
    ]


def results_of(argv, job):
    accuracy = 100 * next(float(a.partition("=")[2]) for a in argv if a.startswith("--lr="))
    matrix = [[accuracy] * (t + 1) for t in range(job.until or 3)]
    seed = {"seed": 42, "accuracy": matrix, "final_accuracy": accuracy, "cl1": accuracy}
    tested_on = "validation" if "--test_with_val_set" in argv else "test"
    return {"seeds": [seed], "scenario": 1, "tasks": ["one"] * 3, "tested_on": tested_on}


@pytest.mark.usefixtures("few_digits")
def test_a_sweep_finds_the_same_in_whatever_order_its_points_end():
    few = SWEEP.replace("points = 4", "points = 3")
    found, said = drive(few)
    assert said == []
    assert [entry.state for entry in found.entries("tiny")] == ["finished"] * 3
    [best] = found.chosen("tiny")
    test = read_json(Path("sweep", "retest", best.point.folder, "results.json"))
    assert (test["status"], test["tested_on"]) == ("finished", "test")
    assert [seed["seed"] for seed in test["seeds"]] == [1042]
    point = read_json(Path("sweep", "points", best.point.folder, "results.json"))
    assert (point["tested_on"], point["summary"]["cl1"]["mean"]) == ("validation", best.value)
    other, _ = drive(few, hands=Inline(order=7), out_dir="other")
    assert table(other) == table(found)


HALVING = SWEEP.replace("points = 4", 'points = 8\nstop = "halving"')


def test_weak_points_stop_and_a_driver_that_is_killed_goes_on_to_the_same_points(
    tmp_path, monkeypatch
):
    """It is killed whenever a job comes back, before or after that is known."""
    monkeypatch.chdir(tmp_path)
    found, _ = drive(HALVING, Inline(do=learned))
    states = [entry.state for entry in found.entries("tiny")]
    assert {"finished", "stopped"} == set(states)
    for entry in found.entries("tiny"):
        value = 100 * entry.point.options["lr"]
        assert entry.value == pytest.approx(value)
        assert list(entry.rungs.values()) == pytest.approx([value] * len(entry.rungs))
    assert states[0] == "finished"  # there was nothing to compare it with

    class Killed(BaseException):
        pass

    num_kills = 0
    while True:
        jobs = []

        def one_then_kill(job, jobs=jobs):
            jobs.append(job)
            if len(jobs) == 2:
                raise Killed
            return learned(job)

        try:
            again, _ = drive(HALVING, Inline(order=num_kills, do=one_then_kill), "killed")
        except Killed:
            num_kills += 1
            continue
        break
    assert num_kills > 8
    assert table(again) == table(found)
    assert again.chosen("tiny") == found.chosen("tiny")


def test_a_point_that_stops_makes_room_for_the_next_where_no_other_is_at_work(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    found, _ = drive(HALVING, Inline(do=learned), at_once=1)
    assert len(found.entries("tiny")) == 8
    assert found.done("tiny")


def outcome_of(status, message=""):
    return lambda job: [Outcome(status, None, message, 0.1, ()) for _ in job.argvs]


def test_a_point_that_fails_is_named_and_tried_again_where_that_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failing = ["tiny/00001", "tiny/00002"]

    def do(job):
        place = str(work.place_of(job.argvs[0]))
        return (outcome_of("failed", "no luck") if place.endswith(tuple(failing)) else learned)(job)

    found, said = drive(hands=Inline(do=do))
    assert sorted(said) == [f"point tiny/0000{k} failed: no luck" for k in (1, 2)]
    assert [e.state for e in found.entries("tiny")] == ["finished", "failed", "failed", "finished"]
    assert [e.message for e in found.entries("tiny")] == ["", "no luck", "no luck", ""]
    failing.pop()
    found, said = drive(hands=Inline(do=do))
    assert said == []  # nothing is left to do but the test
    found, said = drive(hands=Inline(do=do), retry=True)
    assert said == ["point tiny/00001 failed: no luck"]
    assert [e.state for e in found.entries("tiny")] == ["finished", "failed", *["finished"] * 2]


def test_a_point_that_another_process_learns_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(driver, "_BUSY", 0.0)
    busy = [3]

    def do(job):
        if busy[0] > 0:
            busy[0] -= 1
            return outcome_of("busy", "--out_dir=x is in use by process 7: wait for it")(job)
        return learned(job)

    found, said = drive(hands=Inline(do=do))
    assert [entry.state for entry in found.entries("tiny")] == ["finished"] * 4
    assert all(line.endswith("waits: --out_dir=x is in use by process 7") for line in said)
    assert said


def test_a_full_disk_ends_the_sweep_which_goes_on_later(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    full = Inline(do=outcome_of("no space", "x cannot be written (No space left on device)"))
    with pytest.raises(RunFailed, match=r"No space left on device\): make room, and give the same"):
        drive(hands=full)
    found, _ = drive(hands=Inline(do=learned))
    assert [entry.state for entry in found.entries("tiny")] == ["finished"] * 4


def test_workers_that_cannot_work_end_the_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunFailed, match=r"a worker cannot work \(No such directory\): mend that"):
        drive(hands=Inline(do=lambda job: "No such directory"))


def test_a_point_whose_workers_die_goes_on_as_long_as_it_comes_further(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lives = []

    def do(job):
        place = work.place_of(job.argvs[0])
        if not str(place).endswith("points/tiny/00002"):
            return learned(job)
        lives.append(place)
        if len(lives) < 4:  # it has saved something, but not in its last life
            place.mkdir(parents=True, exist_ok=True)
            (place / "checkpoint.pt").write_bytes(b"x")
            os.utime(place / "checkpoint.pt", ns=(len(lives), len(lives)))
        return "died"

    found, said = drive(hands=Inline(do=do))
    assert len(lives) == 4
    states = [entry.state for entry in found.entries("tiny")]
    assert states == ["finished", "finished", "failed", "finished"]
    assert len(said) == 1
    assert said[0].startswith("point tiny/00002 failed: the workers that had it died, each time")


def test_a_signal_has_the_points_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(driver, "_BUSY", 0.0)

    def do(job):
        if not hands.left:
            os.kill(os.getpid(), signal.SIGTERM)
        return outcome_of("interrupted")(job)

    hands = Inline(do=do)
    with pytest.raises(Interrupted) as error:
        drive(hands=hands)
    assert error.value.exit_code == 143
    assert hands.left
    assert hands.jobs == {}
    found, _ = drive(hands=Inline(do=learned))
    assert [entry.state for entry in found.entries("tiny")] == ["finished"] * 4


# What a worker makes of a run.


def job_of(*options, place="run", until=None):
    return Job(((*TINY, *options, f"--out_dir={place}"),), until)


@pytest.mark.usefixtures("few_digits")
def test_what_becomes_of_a_point(capfd):
    [paused] = work.work(job_of(until=1))
    assert (paused.status, paused.results["status"]) == ("paused", "paused")
    [done] = work.work(job_of())
    assert done.status == "finished"
    assert done.results == read_json(Path("run", "results.json"))
    [again] = work.work(job_of())
    assert again.results == done.results
    [other] = work.work(job_of("--beta=3"))
    assert (other.status, "--beta (0.01 there" in other.message) == ("failed", True)
    [refused] = work.work(job_of("--beta=x", place="refused"))
    assert (refused.status, refused.results) == ("failed", None)
    assert "--beta" in refused.message
    [diverged] = work.work(job_of("--lr=1e30", place="diverged"))
    assert (diverged.status, diverged.results["status"]) == ("diverged", "failed")
    assert capfd.readouterr().out == ""


@pytest.mark.usefixtures("few_digits")
def test_a_point_in_another_process_hands_is_busy():
    work.work(job_of(until=1))
    lock = Lock(Path("run", "run.lock"))
    [busy] = work.work(job_of())
    assert (busy.status, "is in use by process" in busy.message) == ("busy", True)
    lock.release()
    assert work.work(job_of())[0].status == "finished"


@pytest.mark.usefixtures("few_digits")
def test_errors_of_a_point(monkeypatch):
    from hypercl.rundir.directory import RunDir

    def full(self, name, content):
        raise RunFailed("results.json cannot be written (No space left on device)") from OSError(
            errno.ENOSPC, "No space left on device"
        )

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "write_json", full)
        [outcome] = work.work(job_of())
    assert (outcome.status, outcome.results) == ("no space", None)
    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "grown", lambda self: {}["metrics"])
        [outcome] = work.work(job_of())
    assert (outcome.status, outcome.message) == ("failed", "KeyError: 'metrics'")
    assert work.work(job_of())[0].status == "finished"


@pytest.mark.usefixtures("few_digits")
def test_a_worker_that_is_asked_to_leave_saves_its_point_and_begins_no_other(monkeypatch):
    from hypercl.rundir.checkpoint import Checkpoints

    due = Checkpoints.due

    def due_and_stopped(self, step):
        if step == 3:
            work.stop_for("driver 1")
        return due(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "due", due_and_stopped)
        [left] = work.work_for("driver 1", job_of())
    assert left.status == "interrupted"
    assert read_json(Path("run", "results.json"))["status"] == "interrupted"
    [other] = work.work_for("driver 1", job_of(place="other"))
    assert (other.status, Path("other").exists()) == ("interrupted", False)
    [done] = work.work_for("driver 2", job_of())
    assert done.status == "finished"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--workers=2", ["--workers goes with --sweep"]),
        ("--retry_failed", ["--retry_failed goes with --sweep"]),
        ("--sweep=", ["--sweep is empty"]),
        ("--sweep=x --lr=1", ["--lr cannot be given beside --sweep", "file"]),
        ("--sweep=x --slurm --pbs", ["--slurm and --pbs", "leave one out"]),
        ("--sweep=x --scheduler=tcp://h:1 --workers=2", ["leave --workers out"]),
        ("--sweep=x --resume", ["--resume cannot be given beside --sweep"]),
        ("--sweep=x --workers=0", ["--workers"]),
    ],
)
def test_command_lines_that_are_refused(line, words, capsys):
    with pytest.raises(SystemExit):
        parse_args(line.split())
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for word in words:
        assert word in error
