"""Files of sweeps: what they say, and what is wrong with them."""

import re
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path

import pytest

from hypercl import sweeps
from hypercl.errors import InputError, InputErrors, NotThere
from hypercl.sweeps import reading
from hypercl.sweeps.reading import read
from hypercl.sweeps.space import Domain
from train_args import parse_args

ROOT = Path(__file__).parents[2]

EXAMPLE = """\
name    = "splitmnist-beta"
options = ["--cl_exp=splitmnist", "--n_iter=500", "--multi_head"]
seeds   = 3
metric  = "cl1"
search  = "tpe"
points  = 60
stop    = "halving"
[space]
beta     = {log = [1e-4, 10]}
lr       = {log = [1e-5, 1e-2]}
hmlp_arch = ["50,50", "100,100", "200"]
hnet_type = ["chunked_hmlp", "hmlp"]
[[when]]
if   = {hnet_type = "hmlp"}
then = {hmlp_arch = ["", "10"]}
[[methods]]
method = "hnet"
[[methods]]
method = "ewc"
points = 20
[methods.space]
ewc_lambda = {log = [1, 1e9]}
"""
SHORT = 'metric = "cl1"\nsearch = "grid"\n'


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def of(text):
    Path("f.toml").write_text(text)
    return read("f.toml", parse_args)


def problems(text):
    with pytest.raises(InputErrors) as refused:
        of(text)
    assert str(refused.value) == "\n".join(refused.value.problems)
    return refused.value.problems


def test_the_example():
    sweep = of(EXAMPLE)
    assert (sweep.name, sweep.seeds, sweep.first_seed, sweep.seed) == ("splitmnist-beta", 3, 42, 0)
    assert sweep.options == ("--cl_exp=splitmnist", "--n_iter=500", "--multi_head")
    assert (sweep.metric.name, sweep.search, sweep.stop) == ("cl1", "tpe", "halving")
    assert (sweep.together, sweep.at_once, sweep.retest, sweep.retest_seeds) == (None, None, 1, 3)
    assert (sweep.chooses, sweep.tested_on, sweep.labels) == (True, "validation", ("hnet", "ewc"))
    hnet, ewc = sweep.searched
    assert (hnet.options, hnet.points, hnet.num_tasks) == (("--method=hnet",), 60, 5)
    assert list(hnet.space.domains) == ["beta", "lr", "hmlp_arch", "hnet_type"]
    assert hnet.space.domains["beta"] == Domain(None, 1e-4, 10.0, log=True)
    assert hnet.space.when[0].then == {"hmlp_arch": Domain(("", "10"))}
    assert (ewc.points, list(ewc.space.domains)) == (20, ["lr", "ewc_lambda"])
    assert ewc.space.when == ()  # what it would not read is left out, and conditions on that
    assert sweep.rungs("ewc") == (1, 2, 4)


def test_without_methods_it_has_the_name_of_the_file():
    sweep = of(SHORT + "[space]\nlr = [0.1, 0.2]\n")
    assert (sweep.name, sweep.labels, sweep.rungs("f")) == ("f", ("f",), ())
    assert sweep.of("f").space.domains == {"lr": Domain((0.1, 0.2))}


def test_preset_seeds_and_the_other_keys():
    sweep = of(
        'preset = "splitmnist-small"\noptions = ["--random_seed=7", "--val_set_size=50"]\n'
        'metric = "forgetting"\nsearch = "qmc"\npoints = 4\nseed = 5\nseeds = 2\nretest = 0\n'
        'together = 8\nat_once = 16\nretest_seeds = 20\nstop = "halving"\n[space]\n'
        "hmlp_arch = [[10, 10], [20]]\nlookahead = [true, false]\n"
        "batch_size = {int = [16, 256], log = true}\nlr = 0.01\n"
    )
    assert sweep.options == ("--preset=splitmnist-small", "--val_set_size=50")
    assert (sweep.first_seed, sweep.seed, sweep.together, sweep.at_once) == (7, 5, 8, 16)
    assert (sweep.retest, sweep.retest_seeds, sweep.rungs("f")) == (0, 20, (2, 4))
    assert sweep.searched[0].space.domains == {
        "hmlp_arch": Domain(("10,10", "20")), "lookahead": Domain((True, False)),
        "batch_size": Domain(None, 16, 256, log=True, is_int=True), "lr": Domain((0.01,)),
    }  # fmt: skip


def test_a_list_has_named_points_and_a_method_more_of_its_own():
    sweep = of(
        'metric = "during_accuracy"\nsearch = "list"\n'
        '[point.weak]\nlr = 1e-4\n[point.strong]\nlr = 0.1\nbatchnorm = "on"\n'
        '[[methods]]\nmethod = "si"\n[methods.point.own]\nsi_c = 3\n'
        '[[methods]]\nmethod = "ewc"\nlabel = "ewc-exact"\noptions = ["--fisher_labels=exact"]\n'
    )
    assert sweep.of("si").named == {
        "weak": {"lr": 1e-4}, "strong": {"lr": 0.1, "batchnorm": True}, "own": {"si_c": 3}
    }  # fmt: skip
    assert list(sweep.of("ewc-exact").named) == ["weak", "strong"]
    assert sweep.of("ewc-exact").options == ("--method=ewc", "--fisher_labels=exact")


def test_conditions_may_look_at_what_the_runs_have():
    """Where an option is not searched, its value is that of the run."""
    text = SHORT + (
        '[space]\nlr = [0.1, 0.2]\n[[when]]\nif = {method = ["ewc", "si"]}\nthen = {lr = 0.5}\n'
        '[[methods]]\nmethod = "ewc"\noptions = ["--cl_scenario=1"]\n[[methods]]\nmethod = "hnet"\n'
    )
    ewc, hnet = of(text).searched
    assert list(ewc.space.combinations()) == [{"lr": 0.5}]
    assert list(hnet.space.combinations()) == [{"lr": 0.1}, {"lr": 0.2}]


def test_a_condition_takes_an_option_away_where_nothing_would_read_it():
    space = "[space]\nhnet_type = ['chunked_hmlp', 'hmlp']\nchmlp_chunk_size = [100, 200]\n"
    (problem,) = problems(SHORT + space)[:1]
    assert problem.startswith("f.toml:5: --chmlp_chunk_size goes with --hnet_type=chunked_hmlp")
    when = "[[when]]\nif = {hnet_type = 'hmlp'}\nwithout = ['chmlp_chunk_size']\n"
    assert len(list(of(SHORT + space + when).searched[0].space.combinations())) == 3


def test_a_condition_may_look_at_what_another_one_brings():
    (searched,) = of(
        SHORT + "[space]\nhnet_type = ['chunked_hmlp', 'hmlp']\nlr = [0.1, 0.2]\n"
        "[[methods]]\nmethod = 'hnet'\n"
        "[[methods.when]]\nif = {hnet_type = 'hmlp'}\nthen = {lr = 0.3, cond_emb_size = [4, 5]}\n"
        "[[methods.when]]\nif = {lr = 0.3, cond_emb_size = 4}\nthen = {beta = 7}\n"
    ).searched  # fmt: skip
    assert list(searched.space.combinations()) == [
        {"hnet_type": "chunked_hmlp", "lr": 0.1}, {"hnet_type": "chunked_hmlp", "lr": 0.2},
        {"hnet_type": "hmlp", "lr": 0.3, "cond_emb_size": 4, "beta": 7},
        {"hnet_type": "hmlp", "lr": 0.3, "cond_emb_size": 5},
    ]  # fmt: skip


def test_several_mistakes_are_found_at_once_each_with_its_line():
    found = problems(
        'nam = "x"\noptions = [\n  "--n_itr=5",\n  "--resume",\n  "n_iter=5",\n]\nseeds = 0\n'
        'metric = "cl4"\nsearch = "tpee"\nlr = 3\n[space]\nbeta = {log = [0, 10]}\n'
        "leaning = [1]\nlr = {log = [1e-2, 1e-5]}\nhmlp_arch = []\nbatch_size = {log = [1, 10]}\n"
        "mlp_arch = {log = [1, 2]}\n[[when]]\nif = {hnet_typ = 'hmlp'}\nthen = {lr = [1]}\n"
    )
    assert [problem.split(": ")[0] for problem in found] == [
        f"f.toml:{n}" for n in (1, 3, 4, 5, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17, 19)
    ]
    for problem, words in zip(
        found,
        (
            "no key nam (did you mean name?)",
            "--n_itr=5 (did you mean --n_iter?)",
            "--resume is the sweep's own affair: leave it out",
            'write "--name=value"',
            "seeds = 0 is not a number from 1",
            "no cl4 (did you mean cl3?)",
            "'tpee' is none of grid, random, tpe, qmc, list (did you mean tpe?)",
            'an option goes into options, as "--lr=...", or into [space]',
            "no logarithm at 0: begin above 0",
            "no option leaning",
            "the range from 0.01 to 1e-05 is empty",
            "hmlp_arch has no values",
            "no range that batch_size can have: give {int = [a, b]}",
            "no range that mlp_arch can have: give a list of its values",
            "no option hnet_typ (did you mean hnet_type?)",
        ),
        strict=True,
    ):
        assert words in problem
        assert "\n" not in problem


GRID = SHORT + "[space]\n"
RANDOM = GRID.replace("grid", "random").replace("[space]", "points = 3\n[space]")
MANY = "".join(f"{name} = {[*range(1, 9)]}\n" for name in ("n_iter", "lr", "batch_size"))


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (GRID, 1, "there is no [space]"),
        (SHORT, 1, "there is no [space]"),
        (GRID + "lr = [1]\nseeds = 3", 5, "seeds is no option: it stands above the first [table]"),
        (GRID + "lr = [1]\n[[methods]]\nseeds = 3", 6, "no key seeds in this table: it stan"),
        ("search = grid", 1, 'write texts in " "'),
        ("point = 3\n" + GRID + "lr = [1]", 1, "points says how many"),
        (GRID + "lr=[1]\n[[method]]\nmethod='ewc'", 5, "no key method (did you mean methods?)"),
        (GRID + "lr = [0.1, -3]", 4, "--lr: '-3' is not a number in (0, inf)"),
        (GRID + "lr = [0.1, 0.1]", 4, "lr has 0.1 twice"),
        (GRID + "lr = {log = [0.1, 1]}", 4, "a grid needs a list of values"),
        (GRID + "lr = {log = [0.1]}", 4, "is not two numbers"),
        (GRID + "lr = {log = [0.1, inf]}", 4, "is not two numbers"),
        (GRID + "n_iter = {int = [1, 2.5]}", 4, "is not two whole numbers"),
        (GRID + "lr = {lgo = [0.1, 1]}", 4, "give a list of values, or one of {log = [a, b]}"),
        (GRID + "lr = {log = [1, 2], uniform = [1, 2]}", 4, "give a list of values, or one of"),
        (GRID + "lr = [{}]", 4, "no value of an option"),
        (GRID + "learning_rate = [1]", 4, "no option learning_rate (did you mean lr?)"),
        (GRID + "random_seed = [1]", 4, "seeds says with which seeds"),
        (GRID + "out_dir = ['a']", 4, "out_dir is the sweep's own affair"),
        (GRID + "test_with_val_set = [true]", 4, "the sweep's own affair"),
        (GRID + "momentum = [0.5]", 4, "--momentum=0.5 has no effect with Adam"),
        (GRID + "use_sgd=[true,false]\nmomentum=[0.5]", 5, "--momentum=0.5 has no effect with"),
        (
            RANDOM + MANY + "use_sgd=[true,false]\nmomentum={uniform=[0, 0.9]}",
            9,
            "--momentum=0.9 has no effect with",
        ),
        (
            RANDOM + "use_sgd=[true,false]\nmomentum={uniform=[0, 0.9]}",
            6,
            "--momentum=0.9 has no effect with",
        ),
        (GRID + "method = ['hnet', 'nope']", 4, "'nope' is none of"),
        (GRID + "ewc_lambda = [1]", 4, "--ewc_lambda goes with --method=ewc"),
        (GRID + "mlp_arch = ['5', '5,x']", 4, "'5,x' is not a comma-separated list"),
        ("points = 3\n" + GRID + "lr = [1]", 1, "a grid has all of its own"),
        ('options = ["--lr=1"]\n' + GRID + "lr = [1]", 5, "lr is in options too"),
        ('options = ["--num_seeds=2"]\n' + GRID + "lr = [1]", 1, "seeds says how many"),
        ('options = ["--config=x"]\n' + GRID + "lr = [1]", 1, "the sweep's own affair"),
        ('options = ["--help"]\n' + GRID + "lr = [1]", 1, "for help or for a list"),
        ('options = ["--val_set_size=0"]\n' + GRID + "lr = [1]", 1, "--val_set_size above 0"),
        ('options = "--lr=1"\n' + GRID + "lr = [1]", 1, "options = '--lr=1' is not an array"),
        ('preset = "splitmnist-smal"\n' + GRID + "lr = [1]", 1, "did you mean splitmnist-small?"),
        ('name = "a/b"\n' + GRID + "lr = [1]", 1, "'a/b' is no name"),
        ("seeds = true\n" + GRID + "lr = [1]", 1, "seeds = True is not a whole number"),
        ("stop = 'halve'\n" + GRID + "lr = [1]", 1, "(did you mean halving?)"),
        ("search = 'tpe'\nmetric = 'cl1'\n[space]\nlr=[1]", 1, "points is missing"),
        ("search = 'grid'\n[space]\nlr = [1]", 1, "metric is missing"),
        ("metric = 'cl1'\n[space]\nlr = [1]", 1, "search is missing"),
        (GRID.replace("cl1", "cl2") + "lr = [1]", 1, "--method=hnet has no cl2: take one of"),
        (GRID.replace("cl1", "cl3") + "lr = [1]", 1, "or give --cl_scenario=3"),
        (GRID.replace("cl1", "final_error") + "lr = [1]", 1, "no metric final_error: take one of"),
        (
            "options = ['--method=ewc', '--cl_scenario=3']\n"
            + GRID.replace("cl1", "cl3_entropy")
            + "lr = [1]",
            2,
            "--method=ewc in scenario 3 has no cl3_entropy",
        ),
        (
            "options = ['--num_tasks=1']\n" + GRID.replace("cl1", "forgetting") + "lr = [1]",
            2,
            "forgetting needs 2 tasks",
        ),
        ("stop = 'halving'\n" + GRID + "num_tasks = [2, 3]", 1, "they differ in num_tasks"),
        ("stop='halving'\noptions=['--num_tasks=1']\n" + GRID + "lr=[1]", 1, "too few for halving"),
        ("stop='halving'\noptions=['--test_iter=2']\n" + GRID + "lr=[1]", 1, "leave --test_iter"),
        ("chooses = false\nstop = 'halving'\n" + GRID + "lr = [1]", 2, "leave one out"),
        ("chooses = false\nretest = 1\n" + GRID + "lr = [1]", 2, "nothing is chosen"),
        (
            "chooses = false\npoints = 2\n" + GRID.replace("grid", "random") + "lr = [1]",
            1,
            "random chooses its points: take grid",
        ),
        (GRID + "lr=[1]\n[[when]]\nif={beta={}}\nthen={lr=2}", 6, "no value of an option"),
        (GRID + "lr=[1]\n[[when]]\nif={lr=2}\nthen={beta=1}", 6, "lr is never 2: it is one of 1"),
        (GRID + "lr=[1]\n[[when]]\nif={lr=1}\nthem={beta=1}", 7, "did you mean then?"),
        (GRID + "lr=[1]\n[[when]]\nif={lr=1}", 5, "when: give if"),
        (GRID + "lr=[1]\n[[when]]\nif={lr=1}\nthen={beta=[-1]}", 7, "'-1' is not a number in"),
        (GRID + "lr=[1]\n[[when]]\nif={lr=1}\nwithout=['beta']", 7, "beta is not in [space]"),
        (GRID + "lr=[1]\n[[when]]\nif={lr=1}\nthen={lr=2}", 5, "go in a circle"),
        (
            "points = 2\n"
            + GRID.replace("grid", "tpe")
            + "lr={log=[1e-3,1]}\n[[when]]\nif={lr=1}\nthen={beta=1}",
            7,
            "lr is a range: give choices",
        ),
        (GRID + "lr=[1]\n[point.a]\nlr = 2", 5, 'take search = "list"'),
        (SHORT.replace("grid", "list"), 1, "a list has no point"),
        (SHORT.replace("grid", "list") + "[point.a]\nlr = -1", 4, "'-1' is not a number in"),
        (SHORT.replace("grid", "list") + "[point]\na = 1", 4, "write [point.NAME]"),
        (SHORT.replace("grid", "list") + "[point.a]\n[space]\nlr=[1]", 4, "and no [space]"),
        (GRID + "lr=[1]\n[[methods]]\nmethod = 'eewc'", 6, "did you mean ewc?"),
        (GRID + "lr=[1]\n[[methods]]\nmethd = 'ewc'", 6, "did you mean method?"),
        (GRID + "beta=[1]\nlr=[1]\n[[methods]]\nmethod='joint'", 4, "none of [[methods]] reads"),
        (GRID + "lr=[1]\n[[methods]]\n[[methods]]", 5, "there are two of label f"),
        (
            "options=['--multi_head']\n" + GRID + "lr=[1]\n[[methods]]\nmethod='si'\n"
            "[methods.space]\newc_lambda=[1]",
            9,
            "--ewc_lambda goes with --method=ewc",
        ),
        ("methods = []\n" + GRID + "lr=[1]", 1, "methods: there are none"),
        ("methods = [1]\n" + GRID + "lr=[1]", 1, "write [[methods]]"),
        ("when = [1]\n" + GRID + "lr=[1]", 1, "write [[when]]"),
        ("space = 1\n" + SHORT, 1, "space = 1 is not a table"),
        (GRID + "lr=[1]\n[[methods]]\noptions=['--random_seed=1']", 6, "give it in options above"),
        ("options = ['--random_seed=a']\n" + GRID + "lr=[1]", 1, "=a is not a whole number"),
        (SHORT.replace("grid", "list") + "[point.a]\nlr=[[1]]", 4, "no value of an option"),
        ("[space\nlr = [1]", 1, "is not TOML"),
        ("seeds = 1\nseeds = 2\n", 2, "is not TOML"),
    ],
)
def test_a_mistake_is_found_with_its_line(text, line, words):
    found = problems(text)
    assert [p for p in found if p.startswith(f"f.toml:{line}: ") and words in p], found
    assert all(re.match(r"f\.toml:\d+: ", problem) for problem in found)


def test_options_that_are_wrong_are_options_that_are_there():
    (problem,) = problems(GRID + "lr = {log = [0, 1]}")
    assert "has no logarithm at 0" in problem


def test_a_grid_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(reading, "_MOST_IN_GRID", 8)
    assert len(of(GRID + "lr = [1, 2]\nbeta = [1, 2, 3, 4]").searched[0].space.domains) == 2
    (problem,) = problems(GRID + "lr = [1, 2, 3]\nbeta = [1, 2, 3]")
    assert "more than 8 points" in problem


def test_what_is_no_file_is_said():
    with pytest.raises(NotThere, match=r"^splitmnist-bet does not exist \(did you mean spl"):
        read("splitmnist-bet", parse_args)
    with pytest.raises(InputError, match=r"^\. cannot be read \(Is a directory\)"):
        read(".", parse_args)
    Path("x").write_bytes(b"\xff")
    with pytest.raises(InputError, match="it is not UTF-8"):
        read("x", parse_args)


def test_nothing_is_shown_of_what_the_parser_refuses(capsys):
    assert len(problems(GRID + "lr = [-1, -2]")) == 2
    assert capsys.readouterr() == ("", "")


def test_reading_takes_neither_torch_nor_optuna():
    code = (
        "import sys; from hypercl.sweeps.reading import read; from train_args import parse_args;"
        "read('published', parse_args); import hypercl.sweeps.search;"
        "assert not {'torch', 'optuna', 'scipy', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@cache
def shipped(name):
    return read(name, parse_args)


@pytest.mark.parametrize("name", sweeps.names())
def test_the_sweeps_that_come_with_the_project_can_be_had(name):
    sweep = shipped(name)
    assert sweep.name == name
    assert 20 < len(sweeps.describe(name)) <= 100
    assert (sweep.search, sweep.retest == 0) in (("tpe", False), ("grid", True))


def test_methods_are_compared_with_equal_budgets():
    sweep = shipped("splitmnist-methods")
    assert len(sweep.searched) == 11
    assert {searched.points for searched in sweep.searched} == {20}
    assert all("lr" in searched.space.domains for searched in sweep.searched)


def test_published_runs_are_tested_and_each_seed_is_a_run():
    sweep = shipped("published")
    assert (sweep.tested_on, sweep.seeds) == ("test", 1)
    assert len(sweep.searched) == 13
    with pytest.raises(KeyError):
        sweeps.describe("no such")


def test_the_examples_of_the_documentation_can_be_read():
    text = (ROOT / "docs" / "sweeps.rst").read_text()
    blocks = [textwrap.dedent(b) for b in re.findall(r"::\n\n((?:    .*\n|\n)+)", text)]
    files = [block for block in blocks if re.search(r"^search = ", block, flags=re.MULTILINE)]
    assert len(files) == 4
    first, conditions, methods, a_list = map(of, files)
    assert (first.stop, list(first.searched[0].space.domains)) == (
        "halving", ["beta", "lr", "hmlp_arch"]
    )  # fmt: skip
    assert conditions.searched[0].space.when[0].without == ("chmlp_chunk_size",)
    assert methods.labels == ("hnet", "ewc-exact")
    assert list(a_list.searched[0].named) == ["published", "wide"]


def test_the_spellings_of_the_documentation_are_accepted():
    text = (ROOT / "docs" / "sweeps.rst").read_text()
    table = re.findall(r"^``(\w+ = .*?)``  ", text, flags=re.MULTILINE)
    assert len(table) == 6
    for line in table:
        sweep = of(SHORT.replace("grid", "random") + f"points = 1\n[space]\n{line}\n")
        assert len(sweep.searched[0].space.domains) == 1
