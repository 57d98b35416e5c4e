"""What surrounds a run must not cost it: settings, encodings, directories, signals."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from helpers import read_json

import run
from hypercl.errors import InputError, InputErrors
from hypercl.report import plots
from hypercl.shell import command_line
from train_args import parse_args

ROOT = Path(__file__).parent.parent
TINY = ["--no_cuda", "--n_iter=3", "--num_tasks=2", "--mlp_arch=5", "--hmlp_arch=5"]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def run_with(environment, folder, *options):
    return subprocess.run(
        [sys.executable, ROOT / "run.py", *options], cwd=folder, capture_output=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense"])
def test_matplotlibs_settings_do_not_reach_into_a_run(backend, tmp_path):
    """A notebook's backend, and LaTeX, which is not on this PATH."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 40\n")
    path = str(Path(sys.executable).parent)
    environment = {"MPLBACKEND": backend, "MATPLOTLIBRC": str(tmp_path), "PATH": path}
    done = run_with(environment, tmp_path, *TINY, "--out_dir=run")
    assert done.returncode == 0, done.stderr
    assert b"warning" not in done.stderr
    assert (tmp_path / "run" / "weights.pt").exists()
    assert len(list((tmp_path / "run" / "plots").glob("*.png"))) == 4
    plain = run_with({}, tmp_path, *TINY, "--out_dir=plain")
    assert plain.returncode == 0
    for picture in (tmp_path / "plain" / "plots").iterdir():
        assert picture.read_bytes() == (tmp_path / "run" / "plots" / picture.name).read_bytes()


def test_a_picture_that_cannot_be_drawn_costs_a_warning(monkeypatch, tmp_path, drawn_here):
    def fail(*args):
        raise RuntimeError("no such font\nand more")

    monkeypatch.setattr(plots, "accuracy_matrix", fail)
    with pytest.warns(UserWarning, match=r"could not be drawn \(no such font\)"):
        results = run.main([*TINY, f"--out_dir={tmp_path / 'run'}"])
    assert results["status"] == "finished"
    assert (tmp_path / "run" / "weights.pt").exists()


@pytest.mark.parametrize(
    "environment", [ASCII, {"PYTHONIOENCODING": "ascii"}], ids=["C locale", "PYTHONIOENCODING"]
)
def test_output_that_cannot_be_encoded_is_replaced(environment, tmp_path):
    done = run_with(environment, tmp_path, *TINY, "--num_seeds=2", "--out_dir=run")
    assert done.returncode == 0, done.stderr
    assert b" ? " in done.stdout  # for the sign between a mean and its error
    assert "±" in (tmp_path / "run" / "logfile.txt").read_text(encoding="utf-8")
    for options in (["--help"], ["--list_presets"], ["--eval=run"]):
        assert run_with(environment, tmp_path, *options).returncode == 0
    again = run_with(environment, tmp_path, *TINY, "--num_seeds=2", "--out_dir=run")
    assert again.returncode == 0


@pytest.mark.parametrize("environment", [{}, ASCII], ids=["UTF-8", "C locale"])
@pytest.mark.parametrize("name", ["läuft".encode(), b"\xff\xfe"], ids=["umlaut", "no UTF-8"])
def test_paths_of_any_bytes(environment, name, tmp_path):
    done = run_with(environment, tmp_path, *TINY, b"--out_dir=" + name)
    assert (done.returncode, done.stderr) == (0, b"")
    path = Path(os.fsdecode(tmp_path), os.fsdecode(name))
    assert read_json(path / "results.json")
    assert next((path / "summary").iterdir()).stat().st_size > 0
    refused = run_with(environment, tmp_path, *TINY, b"--out_dir=" + name, "--lr=0.5")
    assert refused.returncode == 2
    assert refused.stderr.count(b"\n") == 1
    shutil.rmtree(tmp_path / os.fsdecode(name))


def test_a_tilde_is_the_users_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    options = parse_args(["--out_dir=~/x", "--data_dir=~/y"])
    assert (options.run.out_dir, options.task.data_dir) == ("/home/somebody/x", "/home/somebody/y")
    assert parse_args(["--eval=~/x"]).run.eval == "/home/somebody/x"


RANDOM = [
    "--dropout_rate=0.2", "--hnet_dropout_rate=0.1", "--hyper_fan_init", "--std_normal_temb=0.03",
]  # fmt: skip


def test_runs_in_threads_of_a_process_learn_what_each_would_alone(tmp_path):
    """Dropout of both networks, and an initialization that hypnettorch alone has."""

    def learn(name, seed):
        options = [*TINY, *RANDOM, f"--random_seed={seed}", f"--out_dir={tmp_path / name}"]
        run.main([*options, "--loglevel_info"])
        return (tmp_path / name / "metrics.jsonl").read_text()

    seeds = range(3)
    alone = [learn(f"alone {seed}", seed) for seed in seeds]
    with ThreadPoolExecutor(len(seeds)) as threads:
        together = list(threads.map(learn, map("thread {}".format, seeds), seeds))
    assert together == alone
    assert len(set(alone)) == len(seeds)


def test_the_global_generator_is_neither_used_nor_changed(tmp_path):
    losses = []
    for name in "ab":
        before = torch.get_rng_state()
        run.main([*TINY, *RANDOM, f"--out_dir={tmp_path / name}"])
        assert torch.equal(torch.get_rng_state(), before)
        losses.append((tmp_path / name / "metrics.jsonl").read_text())
        torch.rand(3)
    assert losses[0] == losses[1]


def test_the_first_line_comes_before_torch(tmp_path):
    """Where importing torch fails, that line is all there is on the screen."""
    (tmp_path / "torch.py").write_text("raise MemoryError")
    for command in (TINY, ["--dry_run"]):
        done = run_with({"PYTHONPATH": str(tmp_path)}, tmp_path, *command)
        assert done.stdout.decode() == "loading torch, which takes some seconds\n"
        assert done.returncode == 1


@pytest.mark.parametrize("columns", ["1", "0", "-3", "20", "nonsense"])
def test_a_terminal_of_any_width_ends_no_run(columns, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    options = [*TINY, "--num_seeds=2", f"--out_dir={tmp_path / 'run'}"]
    for _ in range(2):  # trained, then shown again
        assert run.main(options)["status"] == "finished"
        assert "final accuracy" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit) as end:
        run.main(["--list_presets"])
    assert end.value.code == 0


def test_a_package_that_is_not_installed_is_named_with_the_mend(capsys):
    def main():
        raise ModuleNotFoundError("No module named 'rich.live'", name="rich.live")

    assert command_line(main) == 2
    assert "rich.live is not installed: source .venv/bin/activate" in capsys.readouterr().err


def test_a_message_of_several_lines_is_said_in_one(capsys):
    def main():
        raise InputError("a folder named two\nlines")

    assert command_line(main) == 2
    assert capsys.readouterr().err == "run.py: error: a folder named two lines\n"


def test_several_mistakes_have_a_line_each(capsys):
    def main():
        raise InputErrors(["f.toml:1: one\nmistake", "f.toml:7: another"])

    assert command_line(main) == 2
    said = "run.py: error: f.toml:1: one mistake\nrun.py: error: f.toml:7: another\n"
    assert capsys.readouterr().err == said
