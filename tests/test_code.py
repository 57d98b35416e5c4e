"""What the user brings: references, parameters that become options, files that change."""

import json
import re
import shutil
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import run
from hypercl import code, load_run
from hypercl.errors import InputError, RunFailed
from hypercl.experiment import Experiment
from hypercl.options import options_of, require_known
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


def test_a_default_that_no_option_can_have_makes_none(mine):
    entry = of_my("def f(x, a=float('inf'), b=10**12, c=3):\n    'c: 5% of all, %(x)s'\n")
    (field,) = options_of(entry)
    assert field.name == "c"
    assert field.metadata["help"] == "5%% of all, %%(x)s"  # argparse takes one off


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def f(x, a): pass", "its parameter a has no default, and only x can be handed over"),
        ("def f(x, problems=1): pass", "its parameter problems has a name that cannot be"),
        ("def f(x, help=1): pass", "its parameter help has a name that cannot be"),
        ("def f(x, code=1): pass", "its parameter code has a name that cannot be"),
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
        (["--method=builtins:dict"], "builtins:dict is no method"),
        (["--method=my.py"], "'my.py' lacks a name in that file: my.py:Name"),
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


def test_a_variant_of_the_hypernetworks_method_has_its_options(mine):
    """By the recipe; with nothing of its own it is hnet, bit for bit."""
    (recipe,) = re.findall(r"``variant\.py``::\n\n((?:    .*\n|\n)+)", OWN.read_text())
    (mine / "variant.py").write_text(textwrap.dedent(recipe))

    def learned(*options):
        results = run.main([*SHORT, "--hmlp_arch=7", "--overwrite", "--out_dir=run", *options])
        assert results["status"] == "finished"
        return load_run("run", no_cuda=True).params[42]

    plain, variant = learned("--beta=0.5"), ["--method=variant.py:Shrinking", "--beta=0.5"]
    assert all(torch.equal(v, plain[n]) for n, v in learned(*variant, "--shrink=0").items())
    shrunk = learned(*variant, "--shrink=3")
    assert sum(v.norm() for v in shrunk.values()) < sum(v.norm() for v in plain.values())


def test_a_method_of_networks_by_task_says_so_in_its_class(mine):
    (mine / "my.py").write_text(
        "from hypercl.methods.base import OwnWeights\n\n\nclass Each(OwnWeights):\n"
        "    def __init__(self, setting):\n        super().__init__(setting)\n"
        "        self.network_by_task = True\n"
    )
    with pytest.raises(InputError, match="network_by_task is True of the method and False of its"):
        Experiment.build(parse_args(["--method=my.py:Each"]))
    assert not parse_args(["--method=my.py:Each", "--cl_scenario=3"]).tells_tasks_apart


def test_a_method_without_a_constructor_has_the_options_of_own_weights(mine):
    (mine / "my.py").write_text(
        "from hypercl.methods.base import OwnWeights\n\n\nclass Near(OwnWeights):\n"
        "    def remember(self, params, memory, task_id):\n"
        "        return params['weights'].clone() if task_id > 0 else None\n\n"
        "    def penalty_and_gradient(self, weights, anchor):\n"
        "        return (weights - anchor).square().sum(1) / 2, weights - anchor\n"
    )
    options = parse_args(["--method=my.py:Near", "--mnet_init=xavier", "--strength=3"])
    method = Experiment.build(options).method
    assert (method.mnet_init, method.strength) == ("xavier", 3.0)
    assert parse_args(["--method=my.py:Near"]).method.kind.arguments() == {"strength": 1.0}


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
    with pytest.warns(UserWarning, match="my.py:NearTheLastTask, code="):
        versions = run.main(["--compare", "run", "again"])
    assert len(versions["rows"]) == 2


def test_what_was_learned_is_loaded_with_the_code_of_that_time(mine, tmp_path_factory, recwarn):
    run.main([*SHORT, "--method=my.py:NearTheLastTask", "--out_dir=run"])
    before = load_run("run").weights(1, 42)
    assert not recwarn
    (mine / "my.py").unlink()
    with pytest.warns(UserWarning, match="my.py is not there: the run's copy is used"):
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


BAD = f"""{METHOD}

class Misses(NearTheLastTask):
    def __init__(self, setting): pass


class Scenarios(NearTheLastTask):
    scenarios = None


class Init(NearTheLastTask):
    def init(self, seeds): pass


class Weights(NearTheLastTask):
    def weights(self, params, task_ids): return params["weights"]


class Exits(NearTheLastTask):
    def init(self, seeds): raise SystemExit(0)


class Raises(NearTheLastTask):
    def after_task(self, params, memory, end): raise OSError("one\\ntwo")


class Leaves(NearTheLastTask):
    def after_task(self, params, memory, end): raise SystemExit(0)


class Nothing(NearTheLastTask):
    def penalty_and_gradient(self, weights, anchor): pass
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Misses", "Misses lacks num_trained: inherit from hypercl.methods.base.OwnWeights"),
        ("Scenarios", "has scenarios=None: give a tuple"),
        ("Init", "Init has an init that returns something else: return tensors"),
        ("Weights", "one member and one task, and the network takes [1, 1, "),
        ("Exits", "Exits fails (SystemExit: 0, line "),
    ],
)
def test_what_is_no_method_is_refused_before_a_run_begins(mine, name, words, capsys):
    (mine / "bad.py").write_text(BAD)
    with pytest.raises((InputError, SystemExit)) as caught:
        run.main([*SHORT, f"--method=bad.py:{name}", "--out_dir=run"])
    assert words in f"{caught.value}{capsys.readouterr().err}"
    assert not (mine / "run").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Raises", "--method=bad.py:Raises fails (OSError: one, line "),
        ("Leaves", "--method=bad.py:Leaves fails (SystemExit: 0, line "),
        ("Nothing", "what --method=bad.py:Nothing gives cannot be used (TypeError: cannot unpack"),
    ],
)
def test_what_fails_in_a_run_is_said_in_one_line_and_the_log_has_it_all(mine, name, words):
    (mine / "bad.py").write_text(BAD)
    with pytest.raises(RunFailed) as caught:
        run.main([*SHORT, f"--method=bad.py:{name}", "--out_dir=run"])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    results = json.loads((mine / "run" / "results.json").read_text())
    assert (results["status"], results["error"]) == ("failed", str(caught.value))
    assert "Traceback (most recent call last)" in (mine / "run" / "logfile.txt").read_text()


def test_a_function_that_exits_fails(mine):
    (mine / "my.py").write_text("def tasks():\n    raise SystemExit(0)\n")
    with pytest.raises(InputError, match=r"my.py:tasks fails \(SystemExit: 0, line 2\)"):
        run.main([*SHORT[:3], "--cl_exp=my.py:tasks", "--out_dir=run"])
    assert not (mine / "run").exists()


def test_a_copy_finds_what_its_file_imports(mine, monkeypatch):
    (mine / "base_of_mine.py").write_text(METHOD)
    (mine / "my.py").write_text(
        "import base_of_mine\n\n\nclass Mine(base_of_mine.NearTheLastTask):\n    pass\n"
    )
    run.main([*SHORT, "--method=my.py:Mine", "--out_dir=run"])
    (mine / "my.py").unlink()
    del sys.modules["base_of_mine"]  # as in another process
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(mine)])
    with pytest.warns(UserWarning, match="my.py is not there: the run's copy is used"):
        assert load_run("run").weights(1, 42)


def test_a_module_that_is_named_with_dots_is_found_again(mine, monkeypatch, recwarn):
    (mine / "package_of_mine").mkdir()
    (mine / "package_of_mine" / "near.py").write_text(METHOD)
    monkeypatch.syspath_prepend(mine)
    run.main([*SHORT, "--method=package_of_mine.near:NearTheLastTask", "--out_dir=run"])
    load_run("run")
    assert not recwarn


def test_data_that_are_gone_are_named_with_the_run_that_had_them(mine):
    (mine / "run").mkdir()
    with pytest.raises(InputError, match=r"data.npz does not exist.*as run/config.json has it"):
        require_known("run/config.json", {"cl_exp": "data.npz"})


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
