"""Points and their command lines."""

from pathlib import Path

import pytest

from hypercl.sweeps.reading import read
from hypercl.sweeps.spec import FRESH, Point
from train_args import parse_args


def sweep_of(tmp_path, text):
    file = tmp_path / "s.toml"
    file.write_text(text)
    return read(file, parse_args)


@pytest.fixture
def sweep(tmp_path):
    return sweep_of(
        tmp_path,
        'options = ["--n_iter=7", "--random_seed=5"]\nmetric = "cl3_entropy"\nsearch = "tpe"\n'
        'points = 3\nseeds = 2\nretest_seeds = 4\nstop = "halving"\n[space]\n'
        "lr = {log = [1e-4, 1]}\nlookahead = [true, false]\nhmlp_arch = ['', '5,5']\n",
    )


def test_a_point_is_a_command_line(sweep):
    point = Point("s", 12, {"lr": 0.001234, "lookahead": False, "hmlp_arch": ""})
    assert point.folder == "s/00012"
    argv = point.argv(Path("out/p"), sweep)
    assert argv == [
        "--n_iter=7", "--lr=0.001234", "--lookahead=off", "--hmlp_arch=", "--random_seed=5",
        "--num_seeds=2", "--test_with_val_set", "--scenarios_every_task", "--out_dir=out/p",
    ]  # fmt: skip
    options = parse_args(argv)
    assert (options.train.lr, options.hypernet.hmlp_arch) == (0.001234, ())


def test_the_retest_has_fresh_seeds_and_test_samples(sweep):
    options = parse_args(Point("s", 0, {"lr": 0.5}).retest_argv("r", sweep))
    assert (options.run.random_seed, options.run.num_seeds) == (5 + FRESH, 4)
    assert not options.evaluation.test_with_val_set
    assert options.train.lr == 0.5


def test_a_point_may_have_its_seed_where_nothing_is_chosen(tmp_path):
    sweep = sweep_of(
        tmp_path,
        'metric = "cl1"\nsearch = "grid"\nchooses = false\npreset = "splitmnist-small"\n'
        "[space]\nrandom_seed = [3, 4]\n",
    )
    options = parse_args(Point("s", 1, {"random_seed": 4}).argv("p", sweep))
    assert (options.run.random_seed, options.run.num_seeds) == (4, 1)
    assert not options.evaluation.test_with_val_set


@pytest.mark.parametrize(
    ("tasks", "metric", "rungs"),
    [
        (2, "cl1", (1,)), (5, "cl1", (1, 2, 4)), (8, "cl1", (1, 2, 4)), (9, "cl1", (1, 2, 4, 8)),
        (5, "forgetting", (2, 4)), (3, "backward_transfer", (2,)),
    ],
)  # fmt: skip
def test_rungs_are_doubled_and_end_before_the_last_task(tmp_path, tasks, metric, rungs):
    text = (
        f'options = ["--num_classes_per_task=1", "--num_tasks={tasks}"]\nmetric = "{metric}"\n'
        'search = "grid"\nstop = "halving"\n[space]\nlr = [1]\n'
    )
    sweep = sweep_of(tmp_path, text)
    assert sweep.rungs("s") == rungs
    assert sweep_of(tmp_path, text.replace("halving", "none")).rungs("s") == ()
    with pytest.raises(KeyError):
        sweep.of("other")
