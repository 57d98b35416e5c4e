"""Runs that are stopped in every way, and go on as if nothing had been."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import fake_images, read_json

import run
import train
from hypercl import evaluation, learned
from hypercl.engine import groups, schedules
from hypercl.errors import InputError, RunFailed
from hypercl.experiment import Experiment
from hypercl.interruption import Interrupted
from hypercl.report.results import Report
from hypercl.rundir import directory as rundir
from hypercl.rundir import saving
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
    return run.main([*TINY, *small, *options, f"--out_dir={out_dir}"])


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
    "a test": (evaluation, "evaluate", 4),
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


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_without_its_options_is_left_alone(finished, monkeypatch):
    if finished:
        main()
    else:
        stopped(monkeypatch)
    Path("run", "config.json").unlink()
    left = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"run/config\.json is missing: .* --overwrite"):
        main()
    assert {path: path.read_bytes() for path in left} == left
    main("--overwrite")
    assert outcome("run") == expected("plain")


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

    def restore(self, state):  # all but the optimizer
        self.steps_done = self._logged = state.step
        self._flat.copy_(state.flat)
        self._counter.fill_(state.step)

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


def test_damaged_results_of_a_finished_run_are_written_anew(monkeypatch):
    main()
    Path("run", "results.json").write_text("{")
    monkeypatch.setattr(train.TaskTraining, "step", kill)  # nothing is trained
    with pytest.warns(UserWarning, match=r"results\.json is damaged"):
        main()
    assert outcome("run") == expected("plain")


def test_lost_weights_of_a_finished_run_are_written_anew(monkeypatch, capsys):
    main()
    Path("run", "weights.pt").unlink()
    monkeypatch.setattr(train.TaskTraining, "step", kill)  # nothing is trained
    main()
    assert "continues run at its end" in capsys.readouterr().out
    assert outcome("run") == expected("plain")


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
    with pytest.raises(InputError, match="is not a run directory"):
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


# TensorBoard's own thread may be the first to notice.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
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
    done = subprocess.run(
        [*command, "--jobs=plain"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kills: 4, losses: 0, differences: 0, other problems: 0" in done.stdout


def test_odd_command_lines_and_damaged_files():
    """A share of the fuzzing."""
    command = [sys.executable, "-m", "benchmarks.fuzz", "--cases=40", "--seed=3", "--no_save"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "│    40 │" in done.stdout
