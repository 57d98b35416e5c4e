"""The promises of README.rst and docs/ that can be checked without long experiments."""

import re
import shlex
import textwrap
from pathlib import Path

import pytest
import torch
from docutils.core import publish_string
from helpers import read_json

import run
from hypercl import option_file
from hypercl.methods.hnet import reference
from hypercl.options import defaults
from train_args import EXAMPLES, parse_args

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.rst", *sorted(ROOT.glob("docs/*.rst"))]
TEXTS = {page.name: page.read_text() for page in PAGES} | {"--help": EXAMPLES}


def commands(text):
    """Every ``python run.py ...``, with the lines that a backslash continues."""
    joined = re.sub(r"\\\n\s*", " ", text)
    found = re.findall(r"python run\.py([^\n;`|]*)", joined)
    made = re.findall(r'make run ARGS="([^"]*)"', joined)
    return [re.sub(r"\$\w+|<\w+>", "1", options) for options in found + made]


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_parses(name, monkeypatch):
    there = option_file.OptionFile(Path("a file"), {}, of_run=True)
    monkeypatch.setattr(option_file, "read", lambda path, choices: there)
    for options in commands(TEXTS[name]):
        leaves = any(name in options for name in ("--help", "--list_presets", "--list_sweeps"))
        if not leaves and "..." not in options:
            parse_args(shlex.split(options, comments=True))


def test_commands_are_found():
    assert len(commands(TEXTS["README.rst"])) >= 6
    assert len(commands(TEXTS["--help"])) >= 6


@pytest.mark.parametrize("name", TEXTS)
def test_every_option_exists(name):
    recipes = {"angle", "cnn_width", "image_size", "l2_strength", "pull", "shrink", "width"}
    recipes |= {"strength"}  # of OwnWeights
    of_others = {"help", "list_presets", "logdir", "kills", "cases", "no_save", "rounds", "seeds"}
    of_others |= {"repeat", "minutes", "presets", "rst", "run", "save", "methods"}  # of benchmarks
    of_others |= {"own", "time", "signal"}  # the last two of SLURM
    of_others |= {"list_sweeps", "port", "nthreads", "nworkers"}  # the last three of Dask
    of_others |= {"grid_module", "visible_gpus", "run_cluster"}  # of hypnettorch's hpsearch
    for option in re.findall(r"--(\w+)", TEXTS[name]):
        assert option in {*defaults(), *of_others, *recipes}, option


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_pages_and_files_are_there(page):
    text = page.read_text()
    for picture in re.findall(r"^\.\. (?:image|figure):: (\S+)", text, flags=re.MULTILINE):
        assert (page.parent / picture).read_bytes().startswith(b"\x89PNG")
    for link in re.findall(r"<((?!https?:)\S+\.rst)>`_", text):
        assert (page.parent / link).exists(), link
    recipes = {"hypercl/networks/main_nets/cnn.py", "hypercl/tasks/sequences/splitfashion.py"}
    named = re.findall(r"``((?:hypercl|benchmarks|docs|tests)/[\w/]+\.\w+)``", text)
    for file in {*named} - {*recipes, "hypercl/methods/l2.py"}:
        assert (ROOT / file).exists(), file
    for module in re.findall(r"python -m (benchmarks\.\w+)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_are_valid(page):
    settings = {"report_level": 2, "halt_level": 2, "file_insertion_enabled": False}
    publish_string(page.read_text(), writer="null", settings_overrides=settings)


def test_readme_is_short_and_draws_the_house_as_it_is():
    text = TEXTS["README.rst"]
    assert text.count("\n") <= 160
    house = text[text.index("The house\n---") :]
    drawn = set(re.findall(r"^ +(\w+\.py|\w+/) ", house, flags=re.MULTILINE))
    scripts = {path.name for path in ROOT.glob("*.py")}
    inside = {p.name for p in (ROOT / "hypercl").glob("*.py")} - {"__init__.py"}
    folders = {f"{p.parent.name}/" for p in ROOT.glob("hypercl/*/__init__.py")}
    assert drawn - {"hypercl/", "benchmarks/", "tests/"} == scripts | inside | folders


def test_every_folder_says_what_belongs_there():
    for init in ROOT.glob("hypercl/**/__init__.py"):
        assert len(init.read_text().splitlines()) >= 3, init


def test_the_method_is_shown_as_it_is():
    """docs/method.rst quotes reference.py line by line."""
    source = Path(reference.__file__).read_text()
    code = [line.strip() for line in source.splitlines()]
    blocks = re.findall(r"::\n\n((?:    .*\n|\n)+)", TEXTS["method.rst"])
    quoted = [block for block in map(textwrap.dedent, blocks) if block.startswith("def ")]
    assert {re.match(r"def (\w+)", block).group(1) for block in quoted} == {
        "generate", "task_loss", "penalty", "loss", "learn",
    }  # fmt: skip
    for block in quoted:
        for line in filter(None, map(str.strip, block.splitlines())):
            assert line in code, line


def recipes(page):
    """The blocks of Python in a page that begin with an import of this package's users."""
    blocks = re.findall(r"::\n\n((?:    .*\n|\n)+)", TEXTS[page])
    return [
        code
        for code in map(textwrap.dedent, blocks)
        if re.match(r"(import hypercl|import torch|from hypercl import load_run)\n", code)
    ]


def test_what_was_learned_is_used_as_the_recipes_say(monkeypatch, tmp_path, capsys):
    a_module, in_plain_torch, predictions, from_python = recipes("runs.rst")
    assert len(a_module.splitlines()) <= 6
    monkeypatch.chdir(tmp_path)
    short = ["--num_tasks=2", "--n_iter=20", "--no_cuda"]
    results = run.main([*short, "--random_seed=1", "--out_dir=out/s1"])
    accuracies = results["seeds"][0]["accuracy"][-1]
    inferred = results["seeds"][0]["scenarios"]["task_inference_entropy"]["tasks"]
    capsys.readouterr()
    exec(a_module, {})
    (accuracy,) = printed(capsys)
    assert accuracy == pytest.approx(accuracies[0] / 100, abs=2e-4)
    names = {}
    exec(in_plain_torch, names)
    images = torch.rand(3, 28, 28, 1)
    expected = names["net"](255 * images)
    torch.testing.assert_close(names["plain"](images.flatten(1)), expected, rtol=0, atol=1e-5)
    exec(predictions, {})
    assert printed(capsys) == pytest.approx([inferred[1] / 100, accuracies[1] / 100], abs=2e-4)
    exec(from_python, {})
    last = float(capsys.readouterr().out.splitlines()[-1])
    assert (
        last == read_json(Path("out/from_python/results.json"))["summary"]["final_accuracy"]["mean"]
    )


def printed(capsys):
    """The numbers of the tensors that were printed."""
    return [float(number) for number in re.findall(r"tensor\(([^)]*)\)", capsys.readouterr().out)]
