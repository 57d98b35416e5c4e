"""What the user brings: references, parameters that become options, files that change."""

import json
import re
import shutil
import sys
import textwrap
from pathlib import Path

import pytest

import run
from hypercl import code, load_run
from hypercl.errors import InputError
from hypercl.options import options_of
from hypercl.registry import Entry
from train_args import parse_args

OWN = Path(__file__).parents[1] / "docs" / "own.rst"
(RECIPE,) = re.findall(r"``mymethod\.py``::\n\n((?:    .*\n|\n)+)", OWN.read_text())
METHOD = textwrap.dedent(RECIPE).strip() + "\n"
# The same with more parameters, of which it does not take all values.
CHECKED = METHOD.replace("pull=0.1)", 'pull=0.1, steps: "int | None" = None, soft=False)').replace(
    "        super()",
    "        if pull > 100:\n            raise ValueError('too strong')\n        super()",
)
SHORT = ["--no_cuda", "--n_iter=3", "--num_tasks=2", "--val_set_size=0", "--mlp_arch=5"]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with my.py, in which the tests are."""
    (tmp_path / "my.py").write_text(CHECKED)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def of_my(text):
    """An entry of a function of a file with this text."""
    with open("my.py", "w") as file:
        file.write(text)
    return code.entry_of(Entry, "my.py:f", code.load("my.py:f"), ("x",))


def test_parameters_become_options(mine):
    entry = of_my(
        "from typing import Literal\n"
        "def f(x, a=1, b=2.0, c=True, d='text', e=(3, 4), g=[5], h: 'int | None' = None,\n"
        "      i: Literal['u', 'v'] = 'u', j=object(), k=-2, **more):\n"
        "    '''Does it.\n\n    a (int): how many.\n    d: which.\n    '''\n"
    )
    ranges = {field.name: field.metadata["range"] for field in options_of(entry)}
    assert list(ranges) == list("abcdeghik")
    assert [ranges["a"].read("-3"), ranges["b"].read("-3"), ranges["k"].read("7")] == [-3, -3.0, 7]
    assert ranges["c"].is_switch
    assert ranges["i"].choices == ("u", "v")
    assert ranges["h"].read("-1") is None
    assert entry.__dataclass_fields__["a"].metadata["help"] == "how many"
    assert entry().arguments() == {
        "a": 1, "b": 2.0, "c": True, "d": "text", "e": (3, 4), "g": [5], "h": None, "i": "u",
        "k": -2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def f(x, a): pass", "its parameter a has no default, and only x can be handed over"),
        ("def f(x, problems=1): pass", "its parameter problems has a name that cannot be"),
        ("f = 3", "my.py:f is no class and no function"),
        ("def g(x): pass", "my.py:f does not exist: my.py has g"),
        (
            "import nothing_like_it",
            "ModuleNotFoundError: No module named 'nothing_like_it', line 1",
        ),
        ("def f(x):\n  return )", "SyntaxError: unmatched ')', line 2"),
        ("\n1 / 0", "my.py cannot be run (ZeroDivisionError: division by zero, line 2)"),
        ("import sys\nsys.exit(3)", "SystemExit: 3, line 2"),
    ],
)
def test_what_cannot_be_an_entry_is_refused_in_one_line(mine, text, words):
    with pytest.raises(InputError, match=r"my\.py") as caught:
        of_my(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method=other.py:Near"], "other.py does not exist"),
        (["--method=nothing_here.at_all:Near"], "there is no module nothing_here: install it"),
        (["--method=json:dumps"], "json:dumps is no method"),
        (["--method=my.py:Far"], "my.py:Far does not exist: my.py has Near"),
        (["--method=my.py:NearTheLastTask", "--pull=strong"], "argument --pull"),
        (["--method=my.py:NearTheLastTask", "--pul=1"], "--pul"),
        (["--pull=1"], "--pull"),
        (["--method=nearest"], "nor your own, like path/to/my.py:MyMethod"),
        (["--num_tasks=-1"], "--num_tasks=-1 is for a sequence of your own"),
        (["--num_classes_per_task=-1"], "--num_classes_per_task=-1 is for a sequence of your own"),
    ],
)
def test_a_command_line_is_refused(mine, options, words, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_args(options)
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert words in error
    assert error.count("\n") == 1


def test_a_parameter_with_the_name_of_an_option_is_refused(mine, capsys):
    (mine / "my.py").write_text(METHOD.replace("pull", "lr"))
    with pytest.raises(SystemExit):
        parse_args(["--method=my.py:NearTheLastTask"])
    assert "has a parameter lr, and there is an option --lr already" in capsys.readouterr().err


def test_help_shows_the_options_and_a_file_of_options_may_have_them(mine, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_args(["--method=my.py:NearTheLastTask", "--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--pull X strength of the penalty (default: 0.1)" in text
    assert "--steps N parameter of my.py:NearTheLastTask (default: -1)" in text
    (mine / "options.toml").write_text('method = "my.py:NearTheLastTask"\npull = 3\nlr = 0.5\n')
    options = parse_args(["--config=options.toml", "--soft"])
    assert options.method.kind.arguments() == {"pull": 3.0, "steps": None, "soft": True}
    assert options.recorded["pull"] == 3.0
    assert parse_args(["--config=options.toml", "--method=ewc"]).train.lr == 0.5
    (mine / "options.toml").write_text('method = "my.py:NearTheLastTask"\npul = 3\n')
    with pytest.raises(SystemExit):
        parse_args(["--config=options.toml"])
    assert "pul (did you mean pull?)" in capsys.readouterr().err


def test_a_run_keeps_its_code_and_goes_on_with_no_other(mine):
    argv = [*SHORT, "--method=my.py:NearTheLastTask", "--pull=0.5", "--out_dir=run"]
    results = run.main(argv)
    (copy,) = (mine / "run" / "code").iterdir()
    assert copy.read_text() == CHECKED
    config = json.loads((mine / "run" / "config.json").read_text())
    assert config["code"]["my.py:NearTheLastTask"]["copy"] == f"code/{copy.name}"
    assert run.main(argv) == results
    assert run.main(["--resume", "--out_dir=run"]) == results
    assert run.main(["--config=run", "--out_dir=again"])["seeds"] == results["seeds"]
    with pytest.warns(UserWarning, match="with the same options: the first counts"):
        alike = run.main(["--compare", "run", "again"])
    assert len(alike["rows"]) == 1

    (mine / "my.py").write_text(METHOD)
    for changed in (argv, ["--resume", "--out_dir=run"]):
        with pytest.raises(InputError, match=r"my\.py has changed since run began: put run/code/"):
            run.main(changed)
    assert run.main([*argv, "--overwrite"])["seeds"] == results["seeds"]


def test_what_was_learned_is_loaded_with_the_code_of_that_time(mine, tmp_path_factory, recwarn):
    run.main([*SHORT, "--method=my.py:NearTheLastTask", "--out_dir=run"])
    before = load_run("run").weights(1, 42)
    assert not recwarn
    (mine / "my.py").unlink()
    with pytest.warns(UserWarning, match="my.py is not what it was: the run's copy is used"):
        after = load_run("run").weights(1, 42)
    assert all((a == b).all() for a, b in zip(before, after, strict=True))
    with pytest.warns(UserWarning, match="copy is used"):
        run.main(["--eval=run"])
    shutil.rmtree(mine / "run" / "code")
    with pytest.raises(InputError, match="neither is its copy"):
        load_run("run")


def test_what_the_code_raises_is_said_in_one_line_and_nothing_is_written(mine):
    with pytest.raises(InputError, match=r"fails \(ValueError: too strong, line 12\)"):
        run.main([*SHORT, "--method=my.py:NearTheLastTask", "--pull=101", "--out_dir=run"])
    assert not (mine / "run").exists()


def test_a_file_is_run_once_for_each_content(mine):
    (mine / "my.py").write_text(
        "import sys\nsys.counted = getattr(sys, 'counted', 0) + 1\nf = len\n"
    )
    code.load("my.py:f")
    code.load("./my.py:f")
    assert sys.counted == 1
    (mine / "my.py").write_text((mine / "my.py").read_text() + "\n")
    code.load("my.py:f")
    assert sys.counted == 2
    del sys.counted
