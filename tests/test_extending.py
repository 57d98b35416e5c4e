"""The recipes of docs/extending.rst, each run in a copy of the project."""

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from helpers import fake_images, read_json

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "extending.rst").read_text()
RECIPES = {
    path: textwrap.dedent(code).strip() + "\n"
    for path, code in re.findall(r"^``(hypercl/\S+\.py)``::\n\n((?:    .*\n|\n)+)", TEXT, re.M)
}
SHORT = ["--no_cuda", "--n_iter=4", "--num_tasks=2", "--num_seeds=2"]
RUNS = {
    "cnn": ["--net_type=cnn", "--cnn_width=4", "--hmlp_arch=10"],
    "splitfashion": ["--cl_exp=splitfashion", "--val_set_size=5"],
    "l2": ["--method=l2", "--l2_strength=0.5"],
}


@pytest.fixture
def copy(tmp_path):
    """The project without tests, with all recipes in it."""
    for name in ("run.py", "train.py", "train_args.py"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(
        ROOT / "hypercl", tmp_path / "hypercl", ignore=shutil.ignore_patterns("__pycache__")
    )
    for path, code in RECIPES.items():
        (tmp_path / path).write_text(code)
    return tmp_path


def run(copy, *options):
    command = [sys.executable, "-W", "ignore", "run.py", *options]
    return subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)


def test_each_recipe_is_one_file_of_less_than_40_lines():
    assert [Path(path).stem for path in RECIPES] == list(RUNS)
    assert all(code.count("\n") < 40 for code in RECIPES.values())


@pytest.mark.parametrize("name", RUNS)
def test_a_recipe_trains(name, copy):
    images = fake_images(10, 20, (28, 28))
    (copy / "datasets").mkdir()
    np.savez(copy / "datasets" / "fashion.npz", **images._asdict())
    done = run(copy, *SHORT, *RUNS[name], "--out_dir=run")
    assert done.returncode == 0, done.stderr
    results = read_json(copy / "run" / "results.json")
    assert results["status"] == "finished"
    assert len(results["seeds"][1]["accuracy"]) == 2
    again = run(copy, "--eval=run", "--no_cuda")
    assert again.returncode == 0, again.stderr


def test_help_lists_the_options_of_new_entries_without_torch(copy):
    code = (
        "import sys, run\n"
        "try: run.main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, check=True
    )  # fmt: skip
    text = " ".join(done.stdout.split())
    assert "(permmnist, splitcifar, splitfashion, splitmnist, toyregression)" in text
    assert "(cnn, lenet, mlp, resnet, wrn, zenke)" in text
    assert "hnet, hnet_r, hnet_tir, " in text  # behind --method, whose choices are many
    assert "--cnn_width N cnn: feature maps of both layers (default: 16)" in text
    assert "--l2_strength X l2: strength of the penalty (default: 0.1)" in text


def test_what_a_new_entry_cannot_do_is_refused(copy):
    done = run(copy, "--net_type=cnn", "--batchnorm")
    assert done.returncode == 2
    assert "--batchnorm cannot be used with --net_type=cnn: leave it out" in done.stderr
    done = run(copy, "--method=l2", "--hmlp_arch=10")
    assert "--hmlp_arch goes with --method=hnet" in done.stderr
    done = run(copy, "--method=l2", "--beta=1")
    assert "--beta goes with --method=hnet" in done.stderr
    done = run(copy, "--cl_exp=splitfashion", "--num_tasks=6")
    assert "takes 12 classes, and Fashion-MNIST has 10" in done.stderr
