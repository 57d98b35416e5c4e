"""hypercl as a package of its own, beside somebody else's train.py."""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hypercl import presets

ROOT = Path(__file__).parent.parent
SCRIPTS = ("run.py", "train.py", "train_args.py")
SHORT = ["--no_cuda", "--n_iter=3", "--num_tasks=2", "--out_dir=run", "--loglevel_info"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Where pip has put it, and a finished run."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"  # pip builds in the source folder
    files = ["README.rst", "requirements.txt", "pyproject.toml", "hypercl", *SCRIPTS]
    source.mkdir()
    for name in files:
        subprocess.run(["cp", "-r", ROOT / name, source], check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", f"--target={folder / 'site'}", source],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(
        [sys.executable, ROOT / "run.py", *SHORT], cwd=folder, check=True, capture_output=True
    )
    return folder


def test_a_run_is_loaded_beside_a_train_of_ones_own(installed, tmp_path):
    (tmp_path / "train.py").write_text("raise SystemExit('the wrong train.py')\n")
    code = (
        "import hypercl, sys\n"
        "assert 'torch' not in sys.modules\n"
        "from hypercl import load_run, presets\n"
        f"run = load_run({str(installed / 'run')!r})\n"
        "print(hypercl.__file__, len(run.weights(task=1, seed=42)), len(presets.names()))\n"
        "assert 'train' not in sys.modules and 'train_args' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(installed / "site")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    where, tensors, num_presets = done.stdout.split()
    assert Path(where).is_relative_to(installed / "site")
    assert (tensors, num_presets) == ("6", str(len(presets.names())))


def test_the_scripts_run_beside_a_train_of_ones_own(installed, tmp_path):
    """Twice, and the names that they have meanwhile are put back."""
    (tmp_path / "train.py").write_text("MINE = True\n")
    options = "n_iter=3, num_tasks=2, no_cuda=True, mlp_arch=[8], loglevel_info=True"
    code = (
        "import sys, train, hypercl\n"
        "results = hypercl.run('--val_iter=3', out_dir='a', epochs=None, " + options + ")\n"
        "assert train.MINE and sys.modules['train'] is train\n"
        "assert 'run' not in sys.modules and 'train_args' not in sys.modules\n"
        "again = hypercl.run('--val_iter=3', out_dir='b', " + options + ")\n"
        "assert results['seeds'] == again['seeds'] and results['status'] == 'finished'\n"
        "import importlib.metadata\n"
        "print(importlib.metadata.version('hypercl') == hypercl.__version__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(installed / "site")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "True"
    site = installed / "site"
    assert {path.name for path in site.iterdir() if path.suffix == ".py"} == set()
    there = {path.name for path in (site / "hypercl" / "_scripts").iterdir()}
    assert there - {"__pycache__"} == set(SCRIPTS)


def test_every_folder_is_packaged():
    with (ROOT / "pyproject.toml").open("rb") as file:
        packages = tomllib.load(file)["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for path in ROOT.glob("hypercl/**/__init__.py")}
    assert set(packages) - {"hypercl._scripts"} == {".".join(f.parts) for f in folders}


def test_hypercl_imports_none_of_the_scripts():
    for path in ROOT.glob("hypercl/**/*.py"):
        for line in path.read_text().splitlines():
            assert not line.strip().startswith(("import train", "from train", "import run")), path


@pytest.mark.parametrize(
    ("folder", "never"),
    [
        (
            "engine",
            ("methods", "networks", "tasks", "rundir", "report", "experiment", "options"),
        ),
        ("tasks", ("methods", "networks", "rundir", "report", "experiment", "commands")),
        ("networks", ("methods", "rundir", "report", "experiment", "commands")),
        ("methods", ("report", "experiment", "commands", "rundir")),
        ("rundir", ("report", "experiment", "commands", "methods", "networks", "tasks")),
        ("report", ("commands",)),
    ],
)
def test_imports_point_one_way(folder, never):
    for path in (ROOT / "hypercl" / folder).rglob("*.py"):
        tree = ast.parse(path.read_text())
        ifs = [node for node in ast.walk(tree) if isinstance(node, ast.If)]
        checked = [node for node in ifs if "TYPE_CHECKING" in ast.dump(node.test)]
        for_types = {id(inner) for node in checked for inner in ast.walk(node)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Import | ast.ImportFrom) or id(node) in for_types:
                continue
            names = [f"{getattr(node, 'module', '')}.{alias.name}" for alias in node.names]
            for other in never:
                assert not any(f"hypercl.{other}" in name for name in names), (path, names)
