"""Runs that are stopped in every way, and go on as if nothing had been."""

import copy
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import warnings
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import fake_images, read_json

import run
import train
from benchmarks.common import last_wins
from hypercl import evaluation, learned
from hypercl.engine import groups, schedules
from hypercl.errors import InputError, RunFailed
from hypercl.experiment import Experiment
from hypercl.interruption import Interrupted
from hypercl.learned import load_run
from hypercl.lock import Lock
from hypercl.report.results import Report
from hypercl.rundir import directory as rundir
from hypercl.rundir import saving, stored
from hypercl.rundir.directory import RunDir
from hypercl.shell import command_line
from hypercl.tasks import images as datasets

ROOT = Path(__file__).parent.parent
TINY = [
    "--no_cuda",
    "--loglevel_info",
    "--num_tasks=3",
    "--n_iter=12",
    "--ckpt_iter=5",
    "--val_iter=6",
    "--val_set_size=20",
    "--hmlp_arch=8",
    "--chmlp_chunk_size=500",
]
JOBS = {
    "plain": [],
    "seeds in groups, subset, dropout": [
        "--num_seeds=3",
        "--hnet_reg_batch_size=1",
        "--hnet_dropout_rate=0.2",
        "--dropout_rate=0.1",
    ],
    "augmented": [
        "--cl_exp=splitcifar",
        "--net_type=resnet",
        "--resnet_block_depth=1",
        "--resnet_channel_sizes=4,4,6,8",
    ],
    "preset": ["--preset=splitmnist-small", "--num_train_samples=200"],
    "statistics, schedulers, heads": [
        "--num_seeds=2",
        "--batchnorm",
        "--num_train_samples=128",
        "--batch_size=128",
        "--plateau_lr_scheduler",
        "--lambda_lr_scheduler",
        "--multi_head",
        "--lookahead",
        "--freeze_prev_embs",
        "--clip_grad_norm=1",
    ],
    "unequal tasks in random order, tested now and then": [
        "--num_seeds=2",
        "--num_classes_per_task=3,5,2",
        "--class_order=random",
        "--test_iter=2",
        "--batchnorm",
    ],
}


@pytest.fixture(scope="module")
def small_mnist():
    """Few real images: what is tested here does not depend on how many there are."""
    real = datasets.load_images("mnist", "nowhere")
    return datasets.Images(*(a[:2000] for a in real[:2]), *(a[:500] for a in real[2:]))


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch, small_mnist):
    """A working directory of its own, with data to hand; two seeds fit into memory together."""
    cifar = fake_images(10, 60, (32, 32, 3))
    images = {"mnist": small_mnist, "cifar10": cifar}
    monkeypatch.setattr(schedules, "_DROPS", {5: 0.1, 10: 0.01})  # of 12 epochs in a job
    monkeypatch.setattr(datasets, "load_images", lambda name, data_dir: images[name])
    monkeypatch.setattr(groups, "available_bytes", lambda device: 4 * _member_bytes)
    monkeypatch.setattr(Experiment, "bytes_per_member", lambda self: _member_bytes)
    monkeypatch.setattr(Report, "_write_plots", lambda self: None)  # most of such a run's time
    monkeypatch.chdir(tmp_path)
    return images


_member_bytes = 1000


def main(*options, out_dir="run"):
    small = [] if "--net_type=resnet" in options else ["--mlp_arch=8"]
    return run.main(last_wins([*TINY, *small, *options, f"--out_dir={out_dir}"]))


def outcome(path):
    """All that must be the same."""
    results = read_json(Path(path, "results.json"))
    weights = saving.decode(Path(path, "weights.pt").read_bytes())
    return {
        **{k: v for k, v in results.items() if k not in ("config", "seconds", "sha256")},
        "weights": {
            (seed, name): tensor.numpy().tobytes()
            for seed, state in weights["hnet"].items()
            for name, tensor in state.items()
        },
        "metrics": Path(path, "metrics.jsonl").read_text(),
        "scalars": scalars(path),
        "plots": {plot.name: plot.read_bytes() for plot in Path(path, "plots").iterdir()},
    }


def scalars(path):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return sorted(
        (value.tag, event.step, tuple(value.tensor.float_val))
        for file in Path(path, "summary").iterdir()
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
    )


_expected = {}


def expected(name):
    """What a job leaves behind that was never stopped."""
    if name not in _expected:
        main(*JOBS[name], out_dir="alone")
        _expected[name] = outcome("alone")
    return _expected[name]


class Killed(BaseException):
    """Stands for what ends a process at once."""


def stopping(monkeypatch, holder, name, count, stop):
    """Have ``stop`` called before the so-manieth call of a function."""
    original, calls = getattr(holder, name), []

    def wrapper(*args, **kwargs):
        calls.append(1)
        if len(calls) == count:
            stop()
        return original(*args, **kwargs)

    monkeypatch.setattr(holder, name, wrapper)


def kill():
    raise Killed


def send(number):
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("steps", [(1, 8), (7, 25)], ids=str)
def test_killed_twice_and_continued(job, steps, monkeypatch):
    """In a step of the first task, behind a checkpoint, and in a later task, group or the last."""
    expected(job)
    for count in steps:
        with monkeypatch.context() as patch:
            stopping(patch, train.TaskTraining, "step", count, kill)
            with pytest.raises(Killed):
                main(*JOBS[job])
    main(*JOBS[job])
    assert outcome("run") == expected(job)


PLACES = {
    "a checkpoint's write": (rundir.RunDir, "write_checkpoint", 4),
    "a flush to the disk": (rundir.os, "fsync", 30),
    "a rename": (Path, "replace", 9),
    "the report of a step": (Report, "step", 4),
    "a test before any training": (evaluation, "evaluate", 2),
    "a test of the next task": (evaluation, "evaluate", 4),
    "a test": (evaluation, "evaluate", 6),
    "task inference": (evaluation, "_predict", 2),
    "the end of a task": (Report, "end_task", 2),
    "the final weights": (learned, "save_weights", 1),
    "the end": (Report, "__exit__", 1),
}


@pytest.mark.parametrize("stop", [kill, send(signal.SIGTERM)], ids=["kill", "SIGTERM"])
@pytest.mark.parametrize("place", PLACES)
def test_stopped_anywhere(place, stop, monkeypatch):
    expected("plain")
    with monkeypatch.context() as patch:
        stopping(patch, *PLACES[place], stop)
        with pytest.raises((Killed, Interrupted)):
            main()
    main()
    assert outcome("run") == expected("plain")


@pytest.mark.parametrize("stop", [kill, send(signal.SIGTERM)], ids=["kill", "SIGTERM"])
def test_stopped_between_groups_of_seeds(stop, monkeypatch):
    job = "seeds in groups, subset, dropout"
    expected(job)
    with monkeypatch.context() as patch:
        stopping(patch, Report, "start_group", 2, stop)
        with pytest.raises((Killed, Interrupted)):
            main(*JOBS[job])
    main(*JOBS[job])
    assert outcome("run") == expected(job)


def test_a_signal_in_task_inference_is_followed_before_the_next_task(monkeypatch):
    predicted = []
    predict = evaluation._predict
    monkeypatch.setattr(evaluation, "_predict", lambda *args: predicted.append(1) or predict(*args))
    with monkeypatch.context() as patch:
        stopping(patch, evaluation, "_predict", 1, send(signal.SIGTERM))
        with pytest.raises(Interrupted):
            main()
    assert len(predicted) == 1
    assert read_json(Path("run", "results.json"))["status"] == "interrupted"


def test_the_grace_step_is_saved_and_the_status_says_interrupted(monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stopping(patch, train.TaskTraining, "step", 12 + 7, send(signal.SIGINT))
        with pytest.raises(Interrupted) as error:
            main()
    assert error.value.exit_code == 130
    results = read_json(Path("run", "results.json"))
    assert (results["status"], results["error"]) == ("interrupted", None)
    assert "continue with: python run.py --resume --out_dir=run" in capsys.readouterr().out
    saved = saving.decode(Path("run", "checkpoint.pt").read_bytes())
    assert (saved["task_id"], saved["training"]["step"]) == (1, 7)
    with monkeypatch.context() as patch:
        stopping(patch, train.TaskTraining, "step", 3 * 12 - (12 + 7) + 1, kill)  # one too many
        main()
    assert "continues run at task 2/3, step 7" in capsys.readouterr().out
    assert outcome("run") == expected("plain")


@pytest.mark.parametrize("job", ["plain", "seeds in groups, subset, dropout"])
def test_a_paused_run_goes_on_as_if_it_had_not_paused(job, monkeypatch, capsys):
    """Of seeds in groups, the first group comes so far, and the others wait."""
    for num_tasks in (1, 1, 2):  # the second time there is nothing to do
        results = main(*JOBS[job], f"--pause_after={num_tasks}")
        assert results == read_json(Path("run", "results.json"))
        assert results["status"] == "paused"
        num_rows = [len(seed["accuracy"]) for seed in results["seeds"]]
        assert num_rows == ([num_tasks] if job == "plain" else [num_tasks, num_tasks, 0])
    shown = capsys.readouterr().out
    assert "paused after 1 task, continue with: python run.py --resume --out_dir=run" in shown
    assert "pause_after" not in read_json(Path("run", "config.json"))["options"]
    with monkeypatch.context() as patch:
        stopping(patch, train.TaskTraining, "step", 8, kill)  # in the third task
        with pytest.raises(Killed):
            main(*JOBS[job])
    run.main(["--resume", "--out_dir=run"])
    assert outcome("run") == expected(job)
    assert main(*JOBS[job], "--pause_after=1")["status"] == "finished"


def test_a_run_does_not_pause_at_its_end():
    main("--pause_after=3")
    assert outcome("run") == expected("plain")


def test_a_second_signal_ends_at_once_and_leaves_the_last_checkpoint(monkeypatch):
    def twice():
        send(signal.SIGTERM)()
        send(signal.SIGTERM)()

    stopping(monkeypatch, train.TaskTraining, "step", 8, twice)
    with pytest.raises(Interrupted):
        main()
    saved = saving.decode(Path("run", "checkpoint.pt").read_bytes())
    assert saved["training"]["step"] == 5


def test_without_what_is_restored_there_would_be_a_difference(monkeypatch):
    """The comparison would notice a state that is not put back."""

    restore_all = train.TaskTraining.restore

    def restore(self, state):  # all but the optimizer
        restore_all(self, state)
        for value in self._optimizer.state.values():
            value.zero_()

    expected("plain")
    monkeypatch.setattr(train.TaskTraining, "restore", restore)
    with monkeypatch.context() as patch:
        stopping(patch, train.TaskTraining, "step", 7, kill)
        with pytest.raises(Killed):
            main()
    main()
    assert outcome("run")["weights"] != expected("plain")["weights"]


def stopped(monkeypatch, *options, count=20, out_dir="run"):
    with monkeypatch.context() as patch:
        stopping(patch, train.TaskTraining, "step", count, kill)
        with pytest.raises(Killed):
            main(*options, out_dir=out_dir)


def test_checkpoints_come_after_tasks_alone_where_that_is_asked_for(monkeypatch):
    stopped(monkeypatch, "--ckpt_iter=0")
    saved = saving.decode(Path("run", "checkpoint.pt").read_bytes())
    assert (saved["task_id"], saved["training"]) == (1, None)
    main("--ckpt_iter=3")  # may differ, as may where the data lie and what is shown
    assert outcome("run") == expected("plain")


def test_a_damaged_checkpoint_is_replaced_by_the_one_before(monkeypatch):
    stopped(monkeypatch)
    path = Path("run", "checkpoint.pt")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.warns(UserWarning, match=r"run/checkpoint\.pt is damaged: the one before"):
        main()
    assert outcome("run") == expected("plain")


def test_where_all_checkpoints_are_damaged_nothing_is_trained(monkeypatch):
    stopped(monkeypatch)
    for name in ("checkpoint.pt", "checkpoint.before.pt"):
        Path("run", name).write_bytes(b"")
    with pytest.raises(InputError, match=r"are damaged: put a good copy there, or start anew"):
        main()


def test_a_checkpoint_that_is_missing(monkeypatch):
    stopped(monkeypatch)
    for name in ("checkpoint.pt", "checkpoint.before.pt"):
        Path("run", name).unlink()
    with pytest.raises(InputError, match=r"checkpoint\.pt is missing"):
        main()


def test_a_checkpoint_of_another_run_or_version(monkeypatch):
    stopped(monkeypatch)
    stopped(monkeypatch, "--lr=0.5", out_dir="other")
    path = Path("run", "checkpoint.pt")
    content = saving.decode(path.read_bytes())
    shutil.copy("other/checkpoint.pt", path)
    with pytest.raises(InputError, match=r"checkpoint\.pt belongs to .*--lr \(0\.5 there, 0\.0001"):
        main()
    path.write_bytes(saving.encode({**content, "format": 99}))
    with pytest.raises(InputError, match="not of this version of the program"):
        main()


def test_other_versions_are_named(monkeypatch):
    stopped(monkeypatch)
    path = Path("run", "checkpoint.pt")
    content = saving.decode(path.read_bytes())
    made_by = json.loads(content["made_by"])
    made_by["versions"]["torch"] = "1.0"
    path.write_bytes(saving.encode({**content, "made_by": json.dumps(made_by)}))
    with pytest.warns(UserWarning, match=r"left with torch 1\.0 and goes on with \d"):
        main()


def test_other_data_are_noticed(monkeypatch, data):
    stopped(monkeypatch)
    data["mnist"] = data["mnist"]._replace(test_images=data["mnist"].test_images ^ 1)
    with pytest.raises(InputError, match="the data are not those with which run began"):
        main()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Runs that several tests start from, made once."""
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture
def finished(shelf, data):
    """A finished run in ``run``."""
    if not (shelf / "finished").exists():
        main()
        shutil.copytree("run", shelf / "finished")
    else:
        shutil.copytree(shelf / "finished", "run")
    return Path("run")


@pytest.fixture
def unfinished(shelf, data, monkeypatch):
    """A run in ``run`` that was killed in its second task."""
    if not (shelf / "unfinished").exists():
        stopped(monkeypatch)
        shutil.copytree("run", shelf / "unfinished")
    else:
        shutil.copytree(shelf / "unfinished", "run")
    return Path("run")


def remove(path):
    path.unlink()


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def files_in(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


RESUME = ["--resume", "--out_dir=run"]


@pytest.mark.parametrize("name", ["config.json", "results.json", "weights.pt"])
@pytest.mark.parametrize("damage", [remove, flip_a_byte])
def test_what_is_lost_of_a_finished_run_is_written_anew(name, damage, finished, monkeypatch):
    config = read_json(finished / "config.json")
    damage(finished / name)
    monkeypatch.setattr(train.TaskTraining, "step", kill)  # nothing is trained
    what = "missing" if damage is remove else "damaged"
    with pytest.warns(UserWarning, match=rf"run/{name} is {what}: it is written anew from"):
        main()
    assert outcome("run") == expected("plain")
    assert read_json(finished / "config.json") == config
    main()  # and is shown without a warning, which would be an error


@pytest.mark.parametrize("name", ["config.json", "results.json"])
@pytest.mark.parametrize("damage", [remove, flip_a_byte])
@pytest.mark.parametrize("resume", [False, True])
def test_what_is_lost_of_a_run_under_way_is_written_anew(name, damage, resume, unfinished):
    config = read_json(unfinished / "config.json")
    damage(unfinished / name)
    with pytest.warns(UserWarning, match=rf"run/{name} is .*: it is written anew from the check"):
        run.main(RESUME) if resume else main()
    assert outcome("run") == expected("plain")
    assert read_json(unfinished / "config.json") == config


def test_the_newest_run_is_resumed_also_where_its_files_are_lost(unfinished, capsys):
    unfinished.rename("out")
    shutil.copytree("out", "out/one")
    remove(Path("out/one/config.json"))
    Path("out/results alone").mkdir()
    shutil.copy("out/one/results.json", "out/results alone")
    flip_a_byte(Path("out/one/results.json"))
    with (
        pytest.warns(UserWarning, match=r"config\.json is missing"),
        pytest.warns(UserWarning, match=r"results\.json is damaged"),
    ):
        run.main(["--resume"])
    assert "continues out/one" in capsys.readouterr().out


def test_other_options_are_refused_also_where_the_config_is_lost(unfinished):
    remove(unfinished / "config.json")
    remove(unfinished / "results.json")
    left = files_in(unfinished)
    with pytest.raises(InputError, match=r"checkpoint\.pt belongs to .*--lr \(0\.0001 there, 0\.5"):
        main("--lr=0.5")
    assert files_in(unfinished) == left


@pytest.mark.parametrize("name", ["config.json", "results.json", "weights.pt"])
@pytest.mark.parametrize("damage", [remove, flip_a_byte])
def test_without_a_checkpoint_what_is_lost_is_named_and_nothing_touched(name, damage, finished):
    damage(finished / name)
    for checkpoint in finished.glob("checkpoint*"):
        checkpoint.unlink()
    left = files_in(finished)
    what = "missing" if damage is remove else "damaged"
    said = rf"run/{name} is {what}\b.* start anew with the run's command and --overwrite"
    if name == "results.json" and damage is remove:
        said = r"checkpoint\.pt is missing: put it there, or start anew"
    with pytest.raises(InputError, match=said):
        main()
    assert files_in(finished) == left
    main("--overwrite")
    assert outcome("run") == expected("plain")


def test_a_run_without_its_options_is_replaced_where_that_is_asked_for(finished):
    remove(finished / "config.json")
    remove(finished / "results.json")
    main("--overwrite")
    assert outcome("run") == expected("plain")


@pytest.mark.parametrize("damage", [remove, flip_a_byte])
@pytest.mark.parametrize("name", ["config.json", "results.json", "weights.pt"])
def test_eval_says_what_writes_a_lost_file_anew(name, damage, finished):
    damage(finished / name)
    said = rf"run/{name} .*: python run\.py --resume --out_dir=run writes it anew"
    if name == "results.json" and damage is remove:
        said = "run is not a finished run: python run.py --resume --out_dir=run continues one"
    with pytest.raises(InputError, match=said):
        run.main(["--eval=run"])
    with pytest.warns(UserWarning, match="written anew"):
        run.main(RESUME)
    assert run.main(["--eval=run"])["status"] == "finished"
    if name == "weights.pt":
        damage(finished / name)
        with pytest.raises(InputError, match=said):
            load_run("run")


@pytest.mark.parametrize("name", ["metrics.jsonl", "logfile.txt", "plots", "summary"])
def test_logs_that_are_gone_cost_no_run(name, unfinished):
    path = unfinished / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if name == "plots":
        main()
    else:
        with pytest.warns(UserWarning, match=rf"run/{name}\S* is gone"):
            main()
    for what in ("seeds", "weights"):
        assert outcome("run")[what] == expected("plain")[what]
    assert path.exists()


def test_what_is_gone_of_a_finished_run_is_named(finished, capsys):
    shutil.rmtree(finished / "plots")
    remove(finished / "metrics.jsonl")
    with pytest.warns(UserWarning, match=r"of run somebody has removed metrics\.jsonl, plots"):
        main()
    assert "everything is in run" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["metrics.jsonl", "logfile.txt"])
def test_a_changed_byte_in_what_was_logged_is_noticed_once(name, unfinished, monkeypatch):
    flip_a_byte(unfinished / name)
    with pytest.warns(UserWarning, match=rf"run/{name} was changed since the checkpoint") as noted:
        stopped(monkeypatch, count=12)
    assert len(noted) == 1
    main()
    assert outcome("run")["weights"] == expected("plain")["weights"]


WHILE_RUNNING = {
    "plots": lambda: shutil.rmtree("run/plots"),
    "summary": lambda: shutil.rmtree("run/summary"),
    "metrics.jsonl": lambda: Path("run/metrics.jsonl").unlink(),
    "logfile.txt": lambda: Path("run/logfile.txt").write_text(""),
    "run.lock": lambda: Path("run/run.lock").unlink(),
    "config.json": lambda: Path("run/config.json").unlink(),
    "results.json": lambda: Path("run/results.json").unlink(),
    "checkpoint.pt": lambda: Path("run/checkpoint.pt").unlink(),
}


@pytest.mark.parametrize("name", WHILE_RUNNING)
def test_what_is_removed_while_the_run_is_running_costs_no_run(name, monkeypatch):
    with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        stopping(patch, train.TaskTraining, "step", 8, WHILE_RUNNING[name])
        patch.setattr(
            Report, "_write_plots", lambda self: self._run_dir.write_plot("empty", {"png": b""})
        )
        main()
    for what in ("seeds", "weights"):
        assert outcome("run")[what] == expected("plain")[what]
    of_the_run = [w for w in said if w.category is UserWarning]  # not the collector's
    named = [f"run/{name}" in str(warning.message) for warning in of_the_run]
    assert named == ([True] if name in ("summary", "metrics.jsonl", "logfile.txt") else [])
    if name != "config.json":
        main()
    else:
        with pytest.warns(UserWarning, match="config.json is missing"):
            main()
    assert Path("run", name).exists() == (name != "run.lock")


def test_a_run_whose_lock_was_removed_leaves_the_directory_to_its_next_owner(monkeypatch):
    def take_over():
        Path("run", "run.lock").unlink()
        shutil.copytree("run", "copy")
        other.append(Lock(Path("run", "run.lock")))

    other = []
    with monkeypatch.context() as patch:
        stopping(patch, train.TaskTraining, "step", 8, take_over)
        with pytest.raises(RunFailed, match=r"run is in use by .*, as its run\.lock was removed"):
            main()
    assert files_in(Path("run")).keys() - {Path("run/run.lock")} == {
        Path("run", path.relative_to("copy")) for path in files_in(Path("copy"))
    }
    other[0].release()


# What a checkpoint cannot hold, with a checksum that is right.
IMPOSSIBLE = {
    "no seeds": lambda c: c.pop("seeds"),
    "no report": lambda c: c.pop("report"),
    "groups that are no lists": lambda c: c.update(groups=[42]),
    "other seeds": lambda c: c.update(groups=[[43]], seeds=[43]),
    "a group that is none": lambda c: c.update(group=7),
    "a group before the first": lambda c: c.update(group=-1),
    "no seeds in the group": lambda c: c.update(seeds=[]),
    "a task that is none": lambda c: c.update(task_id=3),
    "a task before the first": lambda c: c.update(task_id=-1),
    "another task": lambda c: c.update(task_id=2),
    "a truth for a number": lambda c: c.update(task_id=True),
    "no parameters": lambda c: c.update(params=None),
    "parameters of no tensors": lambda c: c.update(params={"weight0": 1}),
    "parameters of other names": lambda c: c["params"].update(more=torch.zeros(1, 2)),
    "parameters of another shape": lambda c: change(c["params"], lambda v: v[:, :1]),
    "parameters of another type": lambda c: change(c["params"], torch.Tensor.double),
    "statistics of nothing": lambda c: c.update(stats=[]),
    "scales of other tasks": lambda c: c.update(scales={"margin": torch.zeros(1, 3)}),
    "scales that are none": lambda c: c.update(scales=[1]),
    "scales of seeds that are none": lambda c: c.update(learned_scales={"42": {}}),
    "a memory of other members": lambda c: c.update(memory={"kept": torch.zeros(3)}),
    "what is learned of others": lambda c: c.update(learned={7: {}}),
    "a training of no fields": lambda c: c.update(training={}),
    "a training of more fields": lambda c: c["training"].update(more=1),
    "a step that is none": lambda c: c["training"].update(step="5"),
    "a step behind the last": lambda c: c["training"].update(step=10**9),
    "a step that is not counted": lambda c: c["training"]["changed"].update(
        step=torch.tensor([10**6])
    ),
    "trained of another shape": lambda c: c["training"].update(flat=torch.zeros(1)),
    "trained of another type": lambda c: change(c["training"], torch.Tensor.double, "flat"),
    "no optimizer": lambda c: c["training"].update(changed={}),
    "no generators": lambda c: c["training"].update(generators={}),
    "rates that are none": lambda c: c["training"].update(rates=[1]),
    "failures that are none": lambda c: c["training"].update(failed={42: 1}),
    "lengths that are none": lambda c: c.update(lengths={"metrics.jsonl": -1}),
    "sums that are none": lambda c: c.update(sums=[1]),
    "made by nobody": lambda c: c.update(made_by="{}"),
    "made by no JSON": lambda c: c.update(made_by="{"),
    "a report that is no JSON": lambda c: c.update(report="[" * 100_000),
    "a report of nothing": lambda c: c.update(report="{}"),
    "a report of other seeds": lambda c: change_report(c, lambda r: r["seeds"][0].update(seed=1)),
    "a report without rows": lambda c: change_report(
        c, lambda r: r["seeds"][0].update(accuracy=[])
    ),
    "a row too long": lambda c: change_report(
        c, lambda r: r["seeds"][0].update(accuracy=[[1.0, 2.0]])
    ),
    "no seconds": lambda c: change_report(c, lambda r: r["seconds"].update(test=[])),
    "a summary of nothing": lambda c: change_report(c, lambda r: r.update(summary={"cl1": {}})),
}


def change(values, function, name=None):
    name = next(iter(values)) if name is None else name
    values[name] = function(values[name])


def change_report(content, function):
    report = json.loads(content["report"])
    function(report["results"])
    content["report"] = json.dumps(report)


def test_checkpoints_that_no_run_can_have_written(unfinished):
    path = unfinished / "checkpoint.pt"
    good = saving.decode(path.read_bytes())
    assert good["training"]["step"] == 5
    for name, damage in IMPOSSIBLE.items():
        content = copy.deepcopy(good)
        damage(content)
        path.write_bytes(saving.encode(content))
        left = files_in(unfinished)
        with pytest.raises(InputError) as error:
            main()
        assert "run/checkpoint.pt holds what no run of this version has written: " in str(
            error.value
        ), name
        assert files_in(unfinished) == left, name


def test_a_run_that_kept_no_scales_goes_on_without_their_rule(unfinished):
    """As an earlier version left it, in its second task."""
    path = unfinished / "checkpoint.pt"
    content = saving.decode(path.read_bytes())
    assert content["scales"]["margin"].shape == (1, 1)
    assert content.pop("scales")
    assert content.pop("learned_scales") == {}
    path.write_bytes(saving.encode(content))
    main()
    found, whole = outcome("run"), expected("plain")
    assert found["weights"] == whole["weights"]
    of_rule = [name for name in whole["summary"] if name.endswith("_scaled")]
    assert len(of_rule) == 3
    assert found["summary"] == {n: v for n, v in whole["summary"].items() if n not in of_rule}
    assert not any("scaled" in name for name in found["seeds"][0]["scenarios"])
    assert saving.decode(path.read_bytes())["learned_scales"] == {42: {}}


def test_weights_that_no_run_can_have_written(finished):
    path = finished / "weights.pt"
    good = saving.decode(path.read_bytes())
    damages = [
        lambda c: c.update(options=[]),
        lambda c: c["options"].update(lr="fast"),
        lambda c: c["options"].update(lr=None),
        lambda c: c["options"].update(num_tasks="3"),
        lambda c: c["options"].update(method=["hnet"]),
        lambda c: c["options"].update(unheard_of=1),
        lambda c: c.pop("hnet"),
        lambda c: c.update(hnet=[1]),
        lambda c: c.update(hnet={}),
        lambda c: c.pop("stats"),
        lambda c: c["stats"].update({42: []}),
        lambda c: c.update(groups=[[7]]),
        lambda c: c.update(groups=None),
        lambda c: change(c["hnet"][42], lambda v: v[:1]),
        lambda c: change(c["hnet"][42], torch.Tensor.double),
        lambda c: c["hnet"][42].popitem(),
    ]
    for damage in damages:
        content = copy.deepcopy(good)
        damage(content)
        path.write_bytes(saving.encode(content))
        for use in (lambda: load_run("run"), lambda: run.main(["--eval=run"])):
            with pytest.raises(InputError, match=r"^run/weights\.pt "):
                use()


RESULTS_OF_NOBODY = {
    "status": [None, 1],
    "seeds": [None, [], [1], [{"seed": 42}], [{"seed": 42, "accuracy": [[1, 2]]}], {}],
    "summary": [None, {}, {"cl1": None}, {"final_accuracy": {"n": 1}}],
    "config": [None, {}, {"preset": 3}],
    "tasks": [None, [], 5],
    "tested_on": [None],
    "published": [{"a": 1}, [1]],
    "altered": [3],
}


def test_results_that_no_run_can_have_written_are_written_anew(finished, monkeypatch):
    monkeypatch.setattr(train.TaskTraining, "step", kill)
    good = (finished / "results.json").read_bytes()
    for name, values in RESULTS_OF_NOBODY.items():
        for value in values:
            content = stored.seal({**json.loads(good), name: value})
            (finished / "results.json").write_text(json.dumps(content))
            with RunDir(finished) as run_dir:
                assert run_dir.lost == {"results.json": "is damaged"}, (name, value)
            with pytest.raises(InputError):
                run.main(["--eval=run"])
    with pytest.warns(UserWarning, match="damaged: it is written anew"):
        main()
    assert outcome("run") == expected("plain")


@pytest.mark.parametrize(
    "option", [{"unheard_of": 1}, {"lr": "fast"}, {"lr": None}, {"n_iter": {}}]
)
def test_options_that_this_version_cannot_have(option, unfinished):
    config = read_json(unfinished / "config.json")
    config["options"] |= option
    (unfinished / "config.json").write_text(json.dumps(stored.seal(config)))
    name = next(iter(option))
    with pytest.raises(InputError, match=rf"run/config\.json has .*{name}.*version"):
        run.main(RESUME)
    with pytest.raises(InputError, match=f"--{name}"):
        main()


def test_what_may_not_be_read_is_not_called_damaged(finished, monkeypatch):
    for name in ("config.json", "results.json", "weights.pt"):

        def refuse(path, *args, name=name, read=None, **options):
            if path.name == name:
                raise PermissionError(13, "Permission denied", str(path))
            return read(path, *args, **options)

        with monkeypatch.context() as patch:
            for method in ("read_bytes", "open"):
                read = getattr(Path, method)
                patch.setattr(Path, method, partialmethod(refuse, read=read))
            for command in (main, lambda: run.main(["--eval=run"])):
                with pytest.raises(InputError, match=rf"run/{name} cannot be read \(Permission d"):
                    command()


def test_files_and_folders_that_are_the_other_are_named(unfinished):
    for name in ("results.json", "metrics.jsonl", "weights.pt", "plots", "summary"):
        path, aside = unfinished / name, Path("aside")
        if path.exists():
            path.rename(aside)
        path.write_text("") if name in ("plots", "summary") else path.mkdir()
        with pytest.raises(InputError, match=rf"run/{name} is a .*: move it away"):
            main()
        path.unlink() if path.is_file() else path.rmdir()
        if aside.exists():
            aside.rename(path)


def test_resuming_with_another_option_does_not_advise_what_resuming_excludes(unfinished):
    with pytest.raises(InputError, match=r"--lr .*; --resume continues a run with its") as error:
        run.main([*RESUME, "--lr=0.5"])
    assert "--overwrite" not in str(error.value)


def test_a_run_that_failed_for_good_is_not_to_be_resumed():
    with pytest.raises(RunFailed):
        main("--lr=1e30")
    with pytest.raises(InputError, match=r"run is a run that failed \(the loss is not finite") as e:
        run.main(["--eval=run"])
    assert "--resume" not in str(e.value)
    with pytest.raises(InputError, match="run is a run that failed"):
        load_run("run")
    with pytest.raises(InputError, match="nowhere does not exist"):
        load_run("nowhere")
    with pytest.raises(InputError, match=r"config\.json is not a run directory"):
        load_run("run/config.json")


def test_resume_takes_the_newest_unfinished_run_and_its_options(monkeypatch, capsys):
    for name in ("older", "newer"):
        stopped(monkeypatch, "--lr=0.001", out_dir=f"out/{name}")
    os.utime("out/older/config.json", (1, 1))
    with pytest.raises(RunFailed):  # it would end in the same way again
        main("--lr=1e30", out_dir="out/diverged")
    main("--lr=0.002", out_dir="out/finished")
    capsys.readouterr()
    results = run.main(["--resume"])
    assert results["config"]["lr"] == 0.001
    assert results["config"] == read_json(Path("out/newer/config.json"))["options"]
    assert "continues out/newer at task 2/3, step 5" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"--lr \(0\.001 there, 0\.5 here\)"):
        run.main(["--resume", "--out_dir=out/older", "--lr=0.5"])
    run.main(["--resume", "--out_dir=out/older", "--loglevel_info"])
    with pytest.raises(InputError, match=r"no unfinished run in \./out"):
        run.main(["--resume"])
    assert run.main(["--resume", "--out_dir=out/older"])["status"] == "finished"
    with pytest.raises(InputError, match="missing does not exist"):
        run.main(["--resume", "--out_dir=missing"])


def test_a_run_in_the_hands_of_another_process_is_left_alone(monkeypatch):
    found = []

    def second():
        with pytest.raises(InputError) as error:
            main()
        found.append(str(error.value))

    stopping(monkeypatch, train.TaskTraining, "step", 5, second)
    main()
    assert f"--out_dir=run is in use by process {os.getpid()} on " in found[0]
    assert outcome("run") == expected("plain")


def test_no_space_fails_the_run_and_leaves_a_checkpoint_from_which_it_goes_on(monkeypatch):
    """A limit on the size of files stands for the end of the disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_the_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))

    take_step = train.TaskTraining.step
    stopping(monkeypatch, train.TaskTraining, "step", 20, fill_the_disk)
    try:
        with pytest.raises(RunFailed, match=r"run/checkpoint\.pt cannot be written \(File too l"):
            main()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    monkeypatch.setattr(train.TaskTraining, "step", take_step)
    results = read_json(Path("run", "results.json"))
    assert results["status"] == "failed"
    assert "checkpoint.pt cannot be written" in results["error"]
    assert saving.decode(Path("run", "checkpoint.pt").read_bytes())["training"]["step"] == 5
    main()
    assert outcome("run") == expected("plain")


def test_a_directory_that_is_removed_ends_the_run(monkeypatch):
    stopping(monkeypatch, train.TaskTraining, "step", 20, lambda: shutil.rmtree("run"))
    with pytest.raises(RunFailed, match="run was removed while the run was writing to it"):
        main()
    assert not Path("run").exists()


def test_memory_that_runs_out_is_a_failure_that_names_options(monkeypatch, capsys):
    def no_memory():
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    stopping(monkeypatch, train.TaskTraining, "step", 20, no_memory)
    monkeypatch.setattr(sys, "argv", ["run.py", *TINY, "--out_dir=run"])
    with warnings.catch_warnings():
        assert command_line(run.main) == 1
    assert "out of memory: lower --batch_size, --val_batch_size" in capsys.readouterr().err
    assert read_json(Path("run", "results.json"))["status"] == "failed"


def test_every_group_and_seed_is_tested_again_exactly(capsys):
    main(*JOBS["seeds in groups, subset, dropout"])
    saved = torch.load("run/weights.pt", weights_only=True)
    assert saved["groups"] == [[42, 43], [44]]
    results = run.main(["--eval=run"])
    row = [seed["accuracy"][-1] for seed in results["seeds"]]
    shown = capsys.readouterr().out
    assert f"{np.mean(row, axis=0)[0]:.2f}" in shown
    assert "± standard deviation, n = 3" in shown


def test_processes_that_are_really_killed():
    """A share of the harness, with signals that no Python code sees coming."""
    command = [sys.executable, "-m", "benchmarks.survive", "--kills=4", "--seed=11", "--no_save"]
    command.append("--jobs=plain,own tasks and network")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kills: 4, losses: 0, differences: 0, other problems: 0" in done.stdout


@pytest.mark.parametrize(("name", "cases"), [("fuzz", 40), ("fuzz_own", 12)])
def test_odd_command_lines_and_damaged_files(name, cases):
    """A share of the fuzzing."""
    command = [sys.executable, "-m", f"benchmarks.{name}", f"--cases={cases}", "--seed=3"]
    command.append("--no_save")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"│    {cases} │" in done.stdout
