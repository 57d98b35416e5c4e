"""Whole runs on real MNIST, and on small stand-ins for CIFAR; exit codes and messages."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import read_json, scalars

import run
from benchmarks.common import last_wins
from hypercl import load_run, testing
from hypercl.commands import cost, dry_run
from hypercl.commands import eval as eval_command
from hypercl.errors import InputError, RunFailed
from hypercl.evaluation import evaluate_tasks
from hypercl.experiment import Experiment
from hypercl.inference import OF_MAIN_NETS, confusion_of, names_by
from hypercl.options import EvaluationOptions, Options
from hypercl.report import metrics
from hypercl.rundir.checkpoint import Position
from hypercl.rundir.saving import encode
from train_args import parse_args

ROOT = Path(__file__).parent.parent
SHORT = ["--n_iter=60", "--num_tasks=3", "--no_cuda"]


def main(tmp_path, *options, name="run"):
    places = [f"--out_dir={tmp_path / name}", f"--data_dir={tmp_path}"]
    return run.main(last_wins([*SHORT, *places, *options]))


def without_times(results):
    config = {**results["config"], "out_dir": None}
    return {**results, "seconds": None, "sha256": None, "config": config}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One short run that several tests look at."""
    path = tmp_path_factory.mktemp("finished")
    results = main(path)
    return path / "run", results


def test_run_directory_is_complete(finished):
    path, _ = finished
    assert sorted(p.name for p in path.iterdir()) == [
        "checkpoint.before.pt",
        "checkpoint.pt",
        "config.json",
        "logfile.txt",
        "metrics.jsonl",
        "performance_overview.txt",
        "plots",
        "results.json",
        "summary",
        "weights.pt",
    ]
    assert sorted(p.name for p in (path / "plots").iterdir()) == [
        "accuracy_matrix.png",
        "accuracy_over_time.png",
        "losses.png",
        "task_confusion.png",
    ]
    assert len(list((path / "summary").iterdir())) == 1


def test_results_are_as_documented(finished):
    path, results = finished
    stored = read_json(path / "results.json")
    assert stored == json.loads(json.dumps(results))
    assert list(stored) == [
        "format",
        "status",
        "error",
        "experiment",
        "config",
        "method",
        "scenario",
        "tasks",
        "num_weights",
        "compression_ratio",
        "kept_bytes",
        "seeds",
        "tested_on",
        "summary",
        "seconds",
        "sha256",
    ]
    assert (stored["format"], stored["status"], stored["error"]) == (2, "finished", None)
    assert stored["experiment"] == "splitmnist"
    assert stored["tasks"] == ["digits 0-1", "digits 2-3", "digits 4-5"]
    assert stored["config"]["n_iter"] == 60
    assert stored["config"]["mlp_arch"] == [100, 100]
    assert stored["num_weights"]["main"] == 88_802
    assert stored["compression_ratio"] == stored["num_weights"]["trained"] / 88_802
    (seed,) = stored["seeds"]
    assert seed["seed"] == 42
    assert [len(row) for row in seed["accuracy"]] == [1, 2, 3]
    assert all(50 < value <= 100 for row in seed["accuracy"] for value in row)
    assert seed["accuracy"][2][0] > 90
    for name, metric in metrics.METRICS.items():
        assert seed[name] == metric(seed)
        assert stored["summary"][name] == {"mean": seed[name], "std": None, "sem": None, "n": 1}
    scenarios = seed["scenarios"]
    names = ["cl1", *names_by(OF_MAIN_NETS)]
    assert list(scenarios) == [*names, *map(confusion_of, OF_MAIN_NETS)]
    assert scenarios["cl1"]["tasks"] == pytest.approx(seed["accuracy"][-1], rel=1e-12)
    for name in names:
        assert len(scenarios[name]["tasks"]) == 3
        assert stored["summary"][name]["mean"] == scenarios[name]["mean"]
    for rule in OF_MAIN_NETS:
        inferred = [row[i] for i, row in enumerate(scenarios[confusion_of(rule)])]
        assert inferred == pytest.approx(scenarios[f"task_inference_{rule}"]["tasks"])
        assert scenarios[f"cl3_{rule}"]["mean"] <= scenarios[f"task_inference_{rule}"]["mean"]
    assert len(stored["seconds"]["train"]) == len(stored["seconds"]["test"]) == 3
    assert stored["seconds"]["total"] > sum(stored["seconds"]["train"])


def test_config_says_how_it_was_made(finished):
    path, _ = finished
    config = read_json(path / "config.json")
    assert list(config) == [
        "options",
        "command",
        "started",
        "versions",
        "device",
        "git_commit",
        "sha256",
    ]
    assert config["options"]["num_tasks"] == 3
    assert config["command"].startswith("python run.py --n_iter=60 --num_tasks=3")
    assert config["versions"]["torch"] == torch.__version__.split("+")[0]
    assert "CPU" in config["device"]


def test_metrics_hold_a_line_a_logged_step(tmp_path):
    main(tmp_path, "--val_iter=30")
    path = tmp_path / "run" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["task"], row["step"]) for row in rows] == [
        (task, step) for task in range(3) for step in (1, 30, 50, 60)
    ]
    for row in rows:
        assert list(row) == [
            "seed",
            "task",
            "step",
            "task_loss",
            "penalty",
            "loss",
            "train_accuracy",
            "validation_accuracy",
            "learning_rate",
        ]
        assert row["learning_rate"] == 1e-4
        assert row["loss"] == pytest.approx(row["task_loss"] + 0.01 * row["penalty"])
        assert (row["penalty"] > 1e-6) == (row["task"] > 0 and row["step"] > 1)
        assert (row["validation_accuracy"] is None) == (row["step"] in (1, 50))
        assert 0 <= row["train_accuracy"] <= 1


def test_curves_are_in_percent_of_one_seed_and_of_several(finished, tmp_path):
    path, results = finished
    found = scalars(path)
    seed = results["seeds"][0]
    assert found["test/task_1", 3] == pytest.approx(seed["accuracy"][2][0])
    assert found["test/mean", 3] == pytest.approx(seed["final_accuracy"])
    assert found["test/cl3_entropy", 3] == pytest.approx(seed["scenarios"]["cl3_entropy"]["mean"])
    assert found["final/final_accuracy", 3] == pytest.approx(seed["final_accuracy"])
    assert found["train/learning_rate", 60] == pytest.approx(1e-4)
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    last = rows[-1]
    assert found["train/train_accuracy", 180] == pytest.approx(100 * last["train_accuracy"])
    assert found["train/validation_accuracy", 180] == pytest.approx(
        100 * last["validation_accuracy"]
    )
    assert not any(tag.startswith("seed") for tag, _ in found)

    both = main(tmp_path, "--num_seeds=2", "--n_iter=3", "--num_tasks=2", "--plot_format=both")
    found = scalars(tmp_path / "run")
    of_seeds = [found[f"seed {seed}/test/task_1", 2] for seed in (42, 43)]
    assert of_seeds == pytest.approx([seed["accuracy"][1][0] for seed in both["seeds"]])
    assert found["test/task_1", 2] == pytest.approx(sum(of_seeds) / 2)
    assert found["train/task_loss", 6] == pytest.approx(
        sum(found[f"seed {seed}/train/task_loss", 6] for seed in (42, 43)) / 2
    )
    plots = {plot.name for plot in (tmp_path / "run" / "plots").iterdir()}
    names = ("accuracy_matrix", "accuracy_over_time", "losses", "task_confusion")
    assert plots == {f"{name}.{kind}" for name in names for kind in ("png", "pdf")}


def test_logfile_holds_what_the_screen_said(finished):
    text = (finished[0] / "logfile.txt").read_text()
    for words in (
        "88,802 weights from chunked_hmlp",
        "task 2/3 (digits 2-3): ",
        "task 3/3: step 60/60, task loss",
        "test accuracy (%) after task 3/3",
        "final accuracy: ",
        f"everything is in {finished[0]}",
    ):
        assert words in text


def test_saved_weights_rebuild_the_hypernetwork(finished, tmp_path):
    path, results = finished
    saved = torch.load(path / "weights.pt", weights_only=True)
    experiment = Experiment.build(parse_args(SHORT))
    module = experiment.method.fresh_module(seed=0)
    assert saved["options"]["hmlp_arch"] == [100, 100]
    module.load_state_dict(saved["hnet"][42])
    for task_id, task in enumerate(experiment.tasks):
        logits = experiment.net.module.forward(
            task.inputs(task.test.images), weights=module.forward(cond_id=task_id)
        )  # fmt: skip
        accuracy = 100 * (logits.argmax(1) == task.test.labels).double().mean().item()
        stored = results["seeds"][0]["accuracy"][-1][task_id]
        assert accuracy == pytest.approx(stored, abs=0.06)  # a sample or two at the border


def test_same_seed_same_results_other_seed_others(finished, tmp_path):
    results = without_times(finished[1])
    results["config"]["data_dir"] = str(tmp_path)
    again = main(tmp_path)
    assert without_times(again) == results
    other = main(tmp_path, "--random_seed=43", name="other")
    assert other["seeds"][0]["seed"] == 43
    assert other["seeds"][0]["accuracy"] != results["seeds"][0]["accuracy"]
    first, second = (
        (path / "metrics.jsonl").read_text() for path in (finished[0], tmp_path / "run")
    )
    assert first == second


@pytest.mark.parametrize(
    "options",
    [
        ["--hnet_reg_batch_size=1"],
        ["--calc_hnet_reg_targets_online"],
        ["--hnet_type=hmlp", "--hmlp_arch=20", "--mlp_arch=20"],
        ["--use_cond_chunk_embs", "--cond_emb_size=0"],
        ["--net_type=lenet", "--hnet_dropout_rate=0.1", "--dropout_rate=0.1"],
        ["--cl_exp=permmnist", "--num_classes_per_task=10", "--mlp_arch=20"],
        ["--test_with_val_set", "--val_set_size=50"],
        ["--val_set_size=0", "--beta=0", "--weight_decay=1e-4", "--hnet_dropout_rate=0"],
        ["--batchnorm", "--bn_no_running_stats", "--net_act=tanh"],
        ["--epochs=1", "--batch_size=4000", "--num_tasks=2"],
        ["--deterministic_run"],
    ],
    ids=lambda options: options[0],
)
def test_options_run(options, tmp_path):
    try:
        results = main(tmp_path, "--n_iter=12", *options)
    finally:
        torch.use_deterministic_algorithms(False)
    assert results["status"] == "finished"
    on_validation = "--test_with_val_set" in options
    assert results["tested_on"] == ("validation" if on_validation else "test")
    if "--epochs=1" in options:  # ceil(12565 / 4000) and ceil(11989 / 4000) steps
        rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(row)["step"] for row in rows] == [1, 4, 1, 3]


def test_online_targets_learn_the_same_as_stored_ones(finished, tmp_path):
    online = main(tmp_path, "--calc_hnet_reg_targets_online")
    for ours, theirs in zip(
        online["seeds"][0]["accuracy"], finished[1]["seeds"][0]["accuracy"], strict=True
    ):
        assert ours == pytest.approx(theirs, abs=0.5)


@pytest.mark.parametrize("net", ["resnet", "wrn", "lenet", "mlp"])
def test_cifar(net, cifar_dir):
    options = {
        "resnet": ["--resnet_block_depth=1"],
        "wrn": ["--wrn_block_depth=1", "--wrn_widening_factor=1"],
        "lenet": ["--lenet_type=cifar", "--chmlp_chunk_size=60000", "--hmlp_arch=10"],
        "mlp": ["--mlp_arch=10"],
    }[net]
    results = main(
        cifar_dir,
        "--cl_exp=splitcifar",
        "--num_classes_per_task=10",
        f"--net_type={net}",
        "--n_iter=3",
        "--val_set_size=20",
        "--num_tasks=2",
        *options,
    )
    assert results["status"] == "finished"


def shell(*options, cwd=ROOT, **kwargs):
    return subprocess.run(
        [sys.executable, ROOT / "run.py", "--no_cuda", *options],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        **kwargs,
    )


def test_bad_input_from_the_shell(tmp_path):
    """Exit code 2 and one line on stderr, for an option, for a directory and for a file."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("all of it")
    (tmp_path / "cifar10.npz").write_bytes(b"PK not really")
    for options, words in (
        (["--batch_size=0"], "--batch_size"),
        ([f"--out_dir={tmp_path / 'mine'}", "--overwrite"], "not a run directory"),
        (["--cl_exp=splitcifar", f"--data_dir={tmp_path}"], str(tmp_path / "cifar10.npz")),
    ):
        done = shell(*options, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stdout in ("", "loading torch, which takes some seconds\n")
        assert done.stderr.startswith("run.py: error: ")
        assert done.stderr.count("\n") == 1
        assert words in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cifar10.npz", "mine"]
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_bad_input_leaves_no_directory(tmp_path):
    with pytest.raises(InputError, match="--val_set_size=12665 leaves nothing"):
        main(tmp_path, "--val_set_size=12665")
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_is_shown_and_not_trained_again(finished, monkeypatch, capsys):
    path, results = finished
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    monkeypatch.setattr(run, "learn", None)
    options = results["config"]["data_dir"], f"--out_dir={path}", "--loglevel_info"
    again = run.main([*SHORT, f"--data_dir={options[0]}", *options[1:]])
    assert again == results
    shown = capsys.readouterr().out
    assert f"final accuracy: {results['seeds'][0]['final_accuracy']:.2f} %" in shown
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before


def test_other_options_are_refused_by_name(finished):
    path, _ = finished
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    words = r"--beta \(0\.01 there, 0\.5 here\), --mlp_arch \(100,100 there, 7 here\);"
    with pytest.raises(InputError, match=words):
        run.main([*SHORT, f"--out_dir={path}", "--beta=0.5", "--mlp_arch=7"])
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before


def test_a_run_that_is_resumed_keeps_its_own_options(finished):
    words = r"--beta \(0\.01 there, 0\.5 here\); --resume continues .* with its own: leave out what"
    with pytest.raises(InputError, match=words) as refused:
        run.main(["--resume", f"--out_dir={finished[0]}", "--beta=0.5"])
    assert "--overwrite" not in str(refused.value)


def test_a_run_with_the_options_of_another(finished, tmp_path, capsys):
    """Their directory stays as it is."""
    path, results = finished
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    new = run.main([f"--config={path}", f"--out_dir={tmp_path / 'new'}"])
    assert new["seeds"] == results["seeds"]
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before
    assert run.main(["--resume", f"--out_dir={tmp_path / 'new'}"]) == new
    with pytest.raises(InputError, match=r"--lr \(0\.0001 there, 0\.5 here\)"):
        run.main([f"--config={path}", f"--out_dir={tmp_path / 'new'}", "--lr=0.5"])


def test_overwrite_starts_anew(tmp_path):
    main(tmp_path, "--n_iter=2", "--num_tasks=1")
    results = main(tmp_path, "--n_iter=2", "--num_tasks=1", "--overwrite", "--random_seed=9")
    assert read_json(tmp_path / "run" / "results.json")["seeds"][0]["seed"] == 9
    assert results["seeds"][0]["backward_transfer"] is None


def test_a_finished_run_answers_without_torch(finished):
    path, _ = finished
    code = (
        "import sys\n"
        "import run\n"
        f"run.main({[*SHORT, f'--out_dir={path}']})\n"
        "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_eval_finds_the_stored_accuracies(finished, capsys):
    path, results = finished
    run.main([f"--eval={path}"])
    row = results["seeds"][0]["accuracy"][-1]
    lines = capsys.readouterr().out.splitlines()
    said, numbers = lines[-1], next(x for x in lines if x.split()[-1:] == [f"{sum(row) / 3:.2f}"])
    assert [f"{value:.2f}" for value in row] == numbers.split()[:-1]
    assert said == "the same as stored"


def with_more_inferred(results, percent):
    """The results with one of the accuracies with the task inferred changed."""
    changed = json.loads(json.dumps(results))
    changed["seeds"][0]["scenarios"]["cl3_scaled"]["tasks"][1] += percent
    return changed


def test_eval_finds_the_stored_accuracies_with_the_task_inferred(finished, monkeypatch, capsys):
    path, results = finished
    run.main([f"--eval={path}"])
    summary, printed = results["summary"], capsys.readouterr().out
    for name in ("entropy", "scaled"):
        (line,) = [line for line in printed.splitlines() if line.split()[:1] == [name]]
        expected = [summary[f"{x}_{name}"]["mean"] for x in ("task_inference", "cl2", "cl3")]
        assert [f"{value:.2f}" for value in expected] == line.split()[1:]
    changed = with_more_inferred(results, -1.25)
    monkeypatch.setattr(eval_command, "read_finished", lambda path: changed)
    with pytest.raises(RunFailed, match=r"other accuracies with the task inferred, .* 1\.25 % at"):
        run.main([f"--eval={path}"])
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(eval_command, "device_name", lambda device: "another")
        with pytest.warns(UserWarning, match=r"task inferred, .* 1\.25 % at .* this is another"):
            run.main([f"--eval={path}"])
    assert "as stored but for rounding" in capsys.readouterr().out
    changed = with_more_inferred(results, 0.25)  # as where it was tested beside other points
    with pytest.warns(UserWarning, match=r"task inferred, .* 0\.25 % at"):
        run.main([f"--eval={path}"])
    numbers = changed["seeds"][0]["scenarios"]
    numbers["cl3_lost"] = numbers.pop("cl3_scaled")
    with pytest.raises(RunFailed, match="no longer what cl3_lost was found by"):
        run.main([f"--eval={path}"])
    del numbers["cl3_lost"]  # an earlier version did not have it
    run.main([f"--eval={path}"])
    assert "the same as stored" in capsys.readouterr().out


def copy_of(finished, tmp_path):
    return Path(shutil.copytree(finished[0], tmp_path / "copy"))


def test_eval_says_where_weights_give_something_else(finished, tmp_path):
    path = copy_of(finished, tmp_path)
    saved = torch.load(path / "weights.pt", weights_only=True)
    for name, value in saved["hnet"][42].items():
        value += 0.1 * name.endswith("0")
    (path / "weights.pt").write_bytes(encode(saved))
    with pytest.raises(RunFailed, match=r"other accuracies .*: of seed 42 \[\d"):
        run.main([f"--eval={path}"])


def test_eval_on_another_device_allows_for_rounding_and_no_more(finished, monkeypatch):
    def found_off_by(samples):
        def evaluate(*args):
            return [[a - 100 * samples / 2115 for a in row] for row in evaluate_tasks(*args)]

        monkeypatch.setattr(eval_command, "evaluate_tasks", evaluate)

    found_off_by(1)  # of some 2,000 that a task has
    with pytest.raises(RunFailed, match="other accuracies"):
        run.main([f"--eval={finished[0]}"])
    monkeypatch.setattr(eval_command, "device_name", lambda device: "another")
    with pytest.warns(UserWarning, match=r"differ by rounding: .* this is another"):
        run.main([f"--eval={finished[0]}"])
    found_off_by(3)
    with pytest.raises(RunFailed, match="other accuracies"):
        run.main([f"--eval={finished[0]}"])


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: (path / "weights.pt").unlink(), r"weights\.pt is missing: .*--resume"),
        (lambda path: (path / "weights.pt").write_bytes(b"PK"), r"weights\.pt is damaged"),
        (
            lambda path: (path / "weights.pt").write_bytes((path / "checkpoint.pt").read_bytes()),
            r"weights\.pt holds no weights",
        ),
        (lambda path: (path / "results.json").unlink(), "is not a finished run: .*--resume"),
        (lambda path: (path / "results.json").write_text("{}"), r"results\.json is damaged"),
    ],
    ids=["no weights", "damaged weights", "other file", "no results", "damaged results"],
)
def test_eval_of_what_cannot_be_tested(harm, words, finished, tmp_path):
    path = copy_of(finished, tmp_path)
    harm(path)
    with pytest.raises(InputError, match=words):
        run.main([f"--eval={path}"])


def test_eval_of_what_is_no_run(tmp_path):
    (tmp_path / "folder").mkdir()
    for name, words in (("nowhere", "nowhere does not exist"), ("folder", "not a run directory")):
        with pytest.raises(InputError, match=words):
            run.main([f"--eval={tmp_path / name}"])


def test_a_run_says_which_seeds_and_tasks_it_has(finished):
    loaded = load_run(finished[0], no_cuda=True)
    assert repr(loaded) == "<run of 3 tasks with the seeds [42]>"
    with pytest.raises(InputError, match="no seed 1, there are 42"):
        loaded.weights(task=0, seed=1)
    with pytest.raises(InputError, match="no task 3, the last is 2"):
        loaded.weights(task=3, seed=42)
    with pytest.raises(InputError, match="no option no_cuad"):
        load_run(finished[0], no_cuad=True)


def test_eval_with_other_options(finished):
    with pytest.raises(InputError, match=r"other options: --num_tasks \(3 there, 2 here\)"):
        run.main([f"--eval={finished[0]}", "--num_tasks=2"])


def test_default_directory_is_below_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run.main(["--n_iter=2", "--num_tasks=1", "--no_cuda"])
    (path,) = (tmp_path / "out").iterdir()
    assert path.name.startswith("run_")
    assert read_json(path / "results.json")["status"] == "finished"


def test_divergence(tmp_path, capsys):
    with pytest.raises(RunFailed, match=r"not finite in task 1 at step \d+"):
        main(tmp_path, "--lr=1e30", name="diverged")
    assert not (tmp_path / "diverged" / "weights.pt").exists()
    results = read_json(tmp_path / "diverged" / "results.json")
    assert results["status"] == "failed"
    assert "not finite in task 1 at step" in results["error"]
    overview = (tmp_path / "diverged" / "performance_overview.txt").read_text()
    assert overview.endswith("\nfinished 0\n")
    done = shell("--lr=1e30", "--n_iter=9", f"--out_dir={tmp_path / 'shell'}")
    assert done.returncode == 1
    assert done.stderr.startswith("run.py: failed: the loss is not finite in task 1 at step ")
    assert done.stderr.count("\n") == 1


def test_no_memory(tmp_path):
    """What no estimate has foreseen."""
    code = (
        "import sys, run, train\n"
        "from hypercl.shell import command_line\n"
        "train.draw_steps = lambda *_: train.torch.empty(1 << 50)\n"
        f"sys.exit(command_line(lambda: run.main(['--no_cuda', '--out_dir={tmp_path / 'run'}'])))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("run.py: failed: out of memory: lower --batch_size")
    assert done.stderr.count("\n") == 1
    assert read_json(tmp_path / "run" / "results.json")["status"] == "failed"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruption(number, code, tmp_path):
    path = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, ROOT / "run.py", "--no_cuda", "--n_iter=100000", f"--out_dir={path}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    with process:
        deadline = time.monotonic() + 60
        metrics_file = path / "metrics.jsonl"
        while not (metrics_file.exists() and metrics_file.read_text().count("\n") > 1):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode in (code, -number)  # the latter in a terminal, see shell.end_process
    assert errors == "run.py: interrupted\n"
    results = read_json(path / "results.json")
    assert (results["status"], results["error"]) == ("interrupted", None)
    last = (path / "logfile.txt").read_text().splitlines()[-1]
    assert last.endswith(f"continue with: python run.py --resume --out_dir={path}")
    checkpoint = torch.load(path / "checkpoint.pt", weights_only=True)
    assert checkpoint["training"]["step"] > 1


def test_ctrl_c_ends_a_shells_loop(tmp_path):
    """A loop goes on with the next seed where a program just exits."""
    (tmp_path / "program.py").write_text(
        "import time\n"
        "from hypercl.shell import end_process\n"
        "try:\n"
        "    print('running', flush=True)\n"
        "    time.sleep(20)\n"
        "except KeyboardInterrupt:\n"
        "    end_process(130)\n"
    )
    (tmp_path / "terminal.py").write_text(
        "import os, pty, sys, time\n"
        "child, terminal = pty.fork()\n"
        "if child == 0:\n"
        "    os.execvp('bash', ['bash', '-c', sys.argv[1]])\n"
        "shown = b''\n"
        "while b'running' not in shown:\n"
        "    shown += os.read(terminal, 100)\n"
        "time.sleep(0.5)  # until both shell and program have come to wait\n"
        "os.write(terminal, b'\\x03')\n"
        "try:\n"
        "    while more := os.read(terminal, 100):\n"
        "        shown += more\n"
        "except OSError:\n"
        "    pass\n"
        "print(shown.decode())\n"
    )
    loop = f"for i in 1 2 3; do {sys.executable} {tmp_path}/program.py; echo went on; done"
    done = subprocess.run(
        [sys.executable, tmp_path / "terminal.py", loop],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.count("running") == 1
    assert "went on" not in done.stdout


def test_many_seeds_in_one_process(finished, tmp_path):
    """Each is as if it had run alone; results, screen and weights name them all."""
    results = main(tmp_path, "--num_seeds=3")
    seeds = results["seeds"]
    assert [seed["seed"] for seed in seeds] == [42, 43, 44]
    alone = main(tmp_path, "--random_seed=44", name="alone")
    for member, single in ((0, finished[1]), (2, alone)):
        for row, expected in zip(
            seeds[member]["accuracy"], single["seeds"][0]["accuracy"], strict=True
        ):
            assert row == pytest.approx(expected, abs=0.5)
    final = [seed["final_accuracy"] for seed in seeds]
    assert results["summary"]["final_accuracy"] == metrics.summarize(final)
    assert results["summary"]["final_accuracy"]["n"] == 3
    saved = torch.load(tmp_path / "run" / "weights.pt", weights_only=True)
    assert sorted(saved["hnet"]) == [42, 43, 44]
    log = (tmp_path / "run" / "logfile.txt").read_text()
    assert "3 seeds, trained together" in log
    assert " ± " in log
    rows = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {row["seed"] for row in rows} == {42, 43, 44}

    first = [row for row in rows if row["seed"] == 44 and row["task"] == 0]
    expected = (tmp_path / "alone" / "metrics.jsonl").read_text().splitlines()
    for row, line in zip(first, expected, strict=False):
        assert row["task_loss"] == pytest.approx(json.loads(line)["task_loss"], rel=1e-4)


def test_seeds_that_do_not_fit_run_in_groups(tmp_path, monkeypatch):
    together = main(tmp_path, "--num_seeds=3", "--n_iter=10", name="together")
    from hypercl.engine import groups

    monkeypatch.setattr(groups, "available_bytes", lambda device: 1)
    results = main(tmp_path, "--num_seeds=3", "--n_iter=10", name="groups")
    assert "3 seeds, trained one by one" in (tmp_path / "groups" / "logfile.txt").read_text()
    assert len(results["seconds"]["train"]) == 3
    for ours, theirs in zip(results["seeds"], together["seeds"], strict=True):
        assert ours["seed"] == theirs["seed"]
        assert ours["accuracy"][-1] == pytest.approx(theirs["accuracy"][-1], abs=0.5)
    assert results["summary"]["final_accuracy"]["n"] == 3


def test_no_output_is_made_of_numpy_numbers(finished):
    def check(value):
        assert not isinstance(value, np.generic)
        if isinstance(value, dict):
            value = list(value.values())
        for item in value if isinstance(value, list) else []:
            check(item)

    check(finished[1])


def test_a_run_under_a_preset_ends_with_what_was_published(tmp_path, capsys):
    options = ["--preset=paper-splitmnist", "--n_iter=3", "--mlp_arch=10", "--num_train_samples=50"]
    results = main(tmp_path, *options)
    first, second = results["published"]
    assert (first["metric"], first["published"]) == ("cl1", 99.79)
    assert first["measured"] == results["summary"]["cl1"]["mean"]
    assert second["metric"] == "cl3_entropy"
    assert not second["within"]
    shown = capsys.readouterr().out
    assert "paper-splitmnist: published and measured" in shown
    assert "--n_iter (2000 there, 3 here)" in results["altered"]
    assert "--mlp_arch (400,400 there, 10 here)" in results["altered"]
    assert not any(text.startswith(("--random_seed", "--out_dir")) for text in results["altered"])
    altered = f"than the published run's: {', '.join(results['altered'])}"
    assert altered in " ".join(shown.split())
    assert "outside" in shown
    stored = read_json(tmp_path / "run" / "results.json")
    assert stored["config"]["preset"] == "paper-splitmnist"
    assert stored["config"]["lookahead"]
    assert stored["published"] == results["published"]


def test_the_task_loss_of_all_training_samples(tmp_path):
    """The task loss that is logged stays the mean; what is minimized is the total."""
    main(tmp_path, "--task_loss=total", "--num_train_samples=50", "--beta=7")
    rows = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {row["task"] for row in rows} == {0, 1, 2}
    for row in rows:
        beta = 0 if row["step"] == 1 else 7
        assert row["loss"] == pytest.approx(50 * row["task_loss"] + beta * row["penalty"], rel=1e-5)


def test_scenarios_after_every_task(tmp_path, capsys):
    main(tmp_path, "--scenarios_every_task", "--num_seeds=2", "--n_iter=3", "--multi_head")
    shown = capsys.readouterr().out
    assert shown.count("task inferred by") == 3


def test_what_was_inferred_after_fewer_tasks_is_not_that_after_more(tmp_path):
    options = ["--scenarios_every_task", "--test_iter=2", "--num_tasks=4", "--n_iter=3"]
    results = main(tmp_path, *options, "--pause_after=3")
    assert all("scenarios" not in seed for seed in results["seeds"])
    assert "cl3_entropy" not in results["summary"]
    assert "cl3_entropy" in main(tmp_path, *options)["summary"]


def test_unequal_tasks_in_another_order_tested_now_and_then(tmp_path, capsys):
    options = ["--num_classes_per_task=4,3,2,1", "--num_tasks=4", "--class_order=random"]
    options += ["--test_iter=3", "--n_iter=20", "--num_seeds=2", "--mlp_arch=20"]
    results = main(tmp_path, *options)
    shown = capsys.readouterr().out
    assert "splitmnist: 4 tasks of 4, 3, 2, 1 classes on cpu" in shown
    classes = [list(map(int, re.findall(r"\d+", name))) for name in results["tasks"]]
    assert list(map(len, classes)) == [4, 3, 2, 1]
    assert sorted(digit for of_task in classes for digit in of_task) == list(range(10))
    for seed in results["seeds"]:
        known = [[value is not None for value in row] for row in seed["accuracy"]]
        assert known == [[True], [False, True], [True] * 3, [True] * 4]
        for name in ("accuracy_untrained", "accuracy_before"):
            assert [value is None for value in seed[name]] == [True, False, False, False]
        for name, metric in metrics.METRICS.items():
            assert seed[name] == metric(seed) is not None
    config = read_json(tmp_path / "run" / "config.json")["options"]
    assert config["num_classes_per_task"] == [4, 3, 2, 1]
    assert (config["num_tasks"], config["class_order"]) == (4, "random")
    run.main([f"--eval={tmp_path / 'run'}", f"--data_dir={tmp_path}"])
    loaded = load_run(tmp_path / "run", no_cuda=True, data_dir=str(tmp_path))
    assert [task.name for task in loaded.experiment.tasks] == results["tasks"]
    assert main(tmp_path, *options) == results  # shown again
    for other in ("--class_order=natural", "--num_classes_per_task=3,4,2,1", "--test_iter=1"):
        with pytest.raises(InputError, match=f"{other.split('=')[0]} "):
            main(tmp_path, *options, other)


def test_a_dry_run_reckons_with_the_sizes_of_what_is_tested(monkeypatch):
    """As if a test took a microsecond a sample."""

    class OfSamples(cost.Stopwatch):
        def time(self, work):
            return None, 1e-6 * work()

    monkeypatch.setattr(cost, "evaluate", lambda *args: len(args[3].labels))
    uneven = {"num_classes_per_task": [1, 8]}, (980 + 8011) / 2
    for values, mean in (uneven, ({"test_with_val_set": True}, 100)):
        experiment = Experiment.build(Options.of({"no_cuda": True, **values}))
        position = Position.start([[42]]).on_device(experiment.device, experiment.method.init)
        position = replace(position, stats=[{}])
        found = cost.time_tests(experiment, position, OfSamples(experiment.device))
        assert found == pytest.approx((1e-6 * 100, 1e-6 * mean, 0))


@pytest.mark.parametrize("test_iter", [1, 2])
def test_a_dry_run_counts_the_tests_that_a_run_makes(test_iter, tmp_path, monkeypatch):
    tested = []

    def counted(*args, **options):
        rows = evaluate_tasks(*args, **options)
        tested.extend(rows[0])
        return rows

    monkeypatch.setattr(testing, "evaluate_tasks", counted)
    main(tmp_path, f"--test_iter={test_iter}", "--n_iter=1")
    options = EvaluationOptions(test_iter=test_iter)
    assert dry_run.count_tests(range(1, 4), options, inferred=False) == len(tested)
    assert dry_run.count_tests(range(1, 4), options, inferred=True) == len(tested) + 9
    every_time = EvaluationOptions(test_iter=test_iter, scenarios_every_task=True)
    inferred = 1 + 4 + 9 if test_iter == 1 else 4 + 9
    assert dry_run.count_tests(range(1, 4), every_time, inferred=True) == len(tested) + inferred


STATS = ["--cl_exp=splitcifar", "--net_type=resnet", "--resnet_block_depth=1",
         "--resnet_channel_sizes=4,4,6,8", "--batchnorm", "--num_tasks=2", "--val_set_size=4",
         "--batch_size=16", "--n_iter=4", "--hmlp_arch=10", "--num_classes_per_task=2"]  # fmt: skip


@pytest.mark.parametrize("one_for_all", [False, True])
def test_running_statistics_of_each_task_or_one_set_for_all(cifar_dir, one_for_all):
    """As weights.pt keeps them, which is what the tests of a run and of --eval took."""
    options = ["--bn_no_stats_checkpointing"] if one_for_all else []
    run.main([*STATS, *options, "--no_cuda", f"--data_dir={cifar_dir}",
              f"--out_dir={cifar_dir / 'run'}", "--num_seeds=2"])  # fmt: skip
    found = load_run(cifar_dir / "run", no_cuda=True, data_dir=str(cifar_dir))
    for by_task in found.stats.values():
        first, second = by_task
        assert first.keys() == second.keys() >= {"mean0", "variance0"}
        same = all(torch.equal(first[name], second[name]) for name in first)
        assert same == one_for_all
        assert (first["mean0"] != 0).all()
    results = run.main([f"--eval={cifar_dir / 'run'}", "--no_cuda", f"--data_dir={cifar_dir}"])
    assert results["status"] == "finished"


def test_schedulers_and_heads_of_each_task_with_validation(cifar_dir):
    options = [o for o in STATS if o != "--batchnorm" and not o.startswith("--resnet")]
    options += ["--net_type=zenke", "--dropout_rate=0.2", "--multi_head", "--clip_grad_norm=1"]
    options += ["--plateau_lr_scheduler", "--lambda_lr_scheduler", "--epochs=2", "--no_cuda"]
    options += [f"--data_dir={cifar_dir}", f"--out_dir={cifar_dir / 'run'}"]
    results = run.main(last_wins(options))
    assert results["status"] == "finished"


@pytest.mark.parametrize("options", [["--compression=0.5"], ["--hnet_type=hmlp", "--num_seeds=2"]])
def test_a_dry_run_writes_nothing(tmp_path, monkeypatch, capsys, options):
    monkeypatch.chdir(tmp_path)
    found = run.main([*SHORT, "--dry_run", *options])
    assert list(tmp_path.iterdir()) == []
    shown = capsys.readouterr().out
    assert f"with {found['num_weights']['trained']:,}" in shown
    if "--compression=0.5" in options:
        assert found["compression_ratio"] == pytest.approx(0.5, rel=0.01)
        assert " in chunks of " in shown
    assert 0 < found["seconds"] < 600  # a busy machine is slow
    # Which step is the longer one is for a quiet machine to tell.
    assert found["seconds"] > 3 * 60 * min(found["step_seconds"]) > 0
    assert found["bytes"] > 4 * sum(found["num_weights"].values())
