"""hypercl as a package of its own, beside somebody else's train.py."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHORT = ["--no_cuda", "--n_iter=3", "--num_tasks=2", "--out_dir=run", "--loglevel_info"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Where pip has put it, and a finished run."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"  # pip builds in the source folder
    files = ["README.rst", "requirements.txt", "pyproject.toml", "hypercl"]
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
    where, tensors, presets = done.stdout.split()
    assert Path(where).is_relative_to(installed / "site")
    assert (tensors, presets) == ("6", "52")


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
