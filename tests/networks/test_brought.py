"""--net_type=my.py:Net: a run with a module of the user's, from options to results."""

import json
import re
import textwrap
from pathlib import Path

import pytest
import torch
from helpers import CPU, build_main_net, make_experiment, make_task

import run
from hypercl import code, load_run
from hypercl.errors import InputError
from hypercl.networks.module_net import ModuleNet
from train import TaskTraining
from train_args import parse_args

CODE = '''
from dataclasses import dataclass

from torch import nn

from hypercl.networks.main_nets.mlp import Mlp


class Net(nn.Module):
    def __init__(self, in_shape, num_classes, width=4, fails=False):
        super().__init__()
        if fails:
            raise ValueError("no such network")
        self.conv, self.norm = nn.Conv2d(in_shape[0], width, 1), nn.BatchNorm2d(width)
        self.out = nn.Linear(width * in_shape[1] * in_shape[2], num_classes)

    def forward(self, x):
        return self.out(self.norm(self.conv(x)).relu().flatten(1))


def fixed():
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 2))


def any_size(progress=True, **options):
    return nn.Sequential(nn.Flatten(), nn.Linear(36, options["num_classes"]))


@dataclass(frozen=True)
class Wide(Mlp):
    """A main network as those of the registry are."""
'''
SHORT = [
    "--no_cuda", "--loglevel_info", "--num_tasks=2", "--n_iter=3", "--val_set_size=5",
    "--num_train_samples=40", "--batch_size=8", "--hmlp_arch=6", "--chmlp_chunk_size=500",
]  # fmt: skip


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mynet.py").write_text(CODE.lstrip())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_recipe_of_the_docs_learns_and_what_it_learned_can_be_taken_out(mine):
    text = (Path(__file__).parents[2] / "docs" / "own.rst").read_text()
    (recipe,) = re.findall(r"^``mynet\.py``::\n\n((?:    .*\n|\n)+)", text, re.M)
    (mine / "mynet.py").write_text(textwrap.dedent(recipe))
    argv = [*SHORT, "--net_type=mynet.py:Net", "--width=3", "--dropout=0.2"]
    results = run.main([*argv, "--out_dir=run"])
    assert results["status"] == "finished"
    weights = (9 + 1) * 3 + 2 * 3 + (27 + 1) * 3 + (3 * 49 + 1) * 2
    assert results["num_weights"]["main"] == weights
    config = json.loads((mine / "run" / "config.json").read_text())["options"]
    assert (config["width"], config["dropout"]) == (3, 0.2)
    learned = load_run("run", no_cuda=True)
    task = learned.experiment.tasks[1]
    logits = learned.main_net(1)(task.test.images[:3])
    inputs = task.inputs(task.test.images[:3]).view(3, 1, 28, 28)
    filled = learned.experiment.net.module.filled(learned.weights(1, 42), learned.stats[42][1])
    torch.testing.assert_close(filled(inputs), logits)
    theirs = code.load("mynet.py:Net").what((1, 28, 28), 2, width=3).eval()
    theirs.load_state_dict(learned.main_net(1).state_dict())
    torch.testing.assert_close(theirs(inputs), logits)


def test_seeds_learn_together_what_each_learns_alone(mine):
    task = make_task((6, 6, 1))
    values = {"net_type": "mynet.py:Net", "width": 3, "batch_size": 8, "n_iter": 4}
    values |= {"lr": 0.01, "use_sgd": True}  # Adam makes steps of what is zero but for rounding
    experiment = make_experiment([task], **values)

    def learn(seeds):
        params, stats = experiment.method.init(seeds), experiment.net.fresh_stats(len(seeds), CPU)
        training = TaskTraining(experiment, 0, seeds, params, stats, {})
        for _ in range(4):
            training.step()
        return training

    together = learn([1, 2, 3])
    for i, seed in enumerate((1, 2, 3)):
        alone = learn([seed])
        assert torch.equal(together.plan.batches[:, i], alone.plan.batches[:, 0])
        losses = together.history[..., i], alone.history[..., 0]
        torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
        for name, value in alone.stats.items():
            torch.testing.assert_close(together.stats[name][i], value[0], rtol=1e-4, atol=1e-5)


def test_it_is_given_what_it_has_parameters_for(mine):
    for reference in ("mynet.py:fixed", "mynet.py:any_size"):
        net = build_main_net(reference, (6, 6, 1), 2)
        assert isinstance(net.module, ModuleNet)
        assert net.shapes == ((2, 36), (2,))
    assert build_main_net("mynet.py:any_size", (6, 6, 1), 5).num_outputs == 5
    with pytest.raises(InputError, match=r"mynet\.py:fixed: forward returns \[2, 2\].*\[2, 5\]"):
        build_main_net("mynet.py:fixed", (6, 6, 1), 5)


def test_a_module_in_the_place_of_its_class_is_refused(mine):
    (mine / "made.py").write_text("from torch import nn\n\nnet = nn.Linear(36, 2)\n")
    with pytest.raises(InputError, match=r"made\.py:net is a module, .*: give its class"):
        build_main_net("made.py:net", (6, 6, 1), 2)


def test_what_says_itself_how_it_is_built_is_taken_as_it_is(mine):
    net = build_main_net("mynet.py:Wide", (6, 6, 1), 5, mlp_arch=[7])
    assert net.shapes == ((7, 36), (7,), (5, 7), (5,))


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("--batchnorm", "--batchnorm cannot be used with --net_type=mynet.py:Net, which says itse"),
        ("--net_act=tanh", "--net_act=tanh cannot be used with --net_type=mynet.py:Net"),
        ("--dropout_rate=0.1", "--dropout_rate=0.1 cannot be used with"),
        ("--no_bias", "--no_bias cannot be used with"),
    ],
)
def test_options_that_concern_other_networks_are_refused(mine, capsys, argv, said):
    with pytest.raises(SystemExit):
        parse_args(["--net_type=mynet.py:Net", argv])
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("one_for_all", [False, True])
def test_its_statistics_are_of_each_task_or_of_all(mine, one_for_all):
    options = ["--bn_no_stats_checkpointing"] if one_for_all else []
    run.main([*SHORT, "--net_type=mynet.py:Net", *options, "--out_dir=run"])
    first, second = load_run("run", no_cuda=True).stats[42]
    same = all(torch.equal(value, second[name]) for name, value in first.items())
    assert first
    assert same == one_for_all


def test_what_the_constructor_raises_is_said_in_one_line(mine):
    with pytest.raises(InputError, match=r"Net fails \(ValueError: no such network, line 12\)"):
        run.main([*SHORT, "--net_type=mynet.py:Net", "--fails", "--out_dir=run"])
    assert not (mine / "run").exists()
