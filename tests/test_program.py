"""hypercl.run: the command line from Python."""

import sys
from pathlib import Path

import pytest
from helpers import FEW_STEPS, read_json

import hypercl
import train
from hypercl import program
from hypercl.errors import InputError

pytestmark = pytest.mark.usefixtures("few_digits")


def test_a_run_by_names_is_that_of_the_command_line():
    shared = [option for option in FEW_STEPS if "lr" not in option and "mlp_arch" not in option]
    by_name = hypercl.run(
        *shared, num_tasks=2, lr=0.01, mlp_arch=[6], hmlp_arch=(6,), batchnorm=True,
        out_dir=Path("a"), clip_grad_norm=None,
    )  # fmt: skip
    by_line = hypercl.run(*FEW_STEPS, "--num_tasks=2", "--batchnorm", "--out_dir=b")
    assert by_name["seeds"] == by_line["seeds"]
    assert by_name == read_json(Path("a/results.json"))
    with pytest.warns(UserWarning, match="a single pair of seeds"):
        found = hypercl.run(compare=["a", "b"], label=["first=a", "second=b"])
    assert [row["label"] for row in found["rows"]] == ["first", "second"]
    assert sys.modules["train"] is train


def test_what_cannot_be_is_an_error_that_says_so(capsys):
    with pytest.raises(InputError, match=r"--batchnom=on \(did you mean --batchnorm\?\)"):
        hypercl.run(batchnom=True)
    with pytest.raises(InputError, match="argument --lr: "):
        hypercl.run(lr=-1)
    with pytest.raises(InputError, match="missing does not exist"):
        hypercl.run(eval="missing")
    with pytest.raises(SystemExit, match="0"):
        hypercl.run("--help")
    assert "--batchnorm" in capsys.readouterr().out
    assert sys.modules["train"] is train


def test_without_the_scripts_it_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(program, "_PLACES", (tmp_path,))
    with pytest.raises(InputError, match=r"needs run\.py, train\.py and train_args\.py"):
        hypercl.run("--dry_run")


def test_there_is_nothing_else():
    with pytest.raises(AttributeError, match="no attribute 'walk'"):
        _ = hypercl.walk
