"""Points as members of one step: what each learns is what it learns alone."""

import itertools
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import CPU, OWN_WEIGHTS, SMALL_VAE, make_experiment, make_sequence, read_json

import run
from hypercl.engine import groups, schedules
from hypercl.errors import InputError, RunFailed
from hypercl.interruption import Interrupted
from hypercl.learned import load_run
from hypercl.methods.hnet import choice
from hypercl.networks.main_net import MainNetwork
from hypercl.options import all_options
from hypercl.ranges import as_argument
from hypercl.report.results import Report
from hypercl.rundir.checkpoint import Position
from hypercl.rundir.directory import RunDir
from hypercl.rundir.saving import decode
from hypercl.sweeps.joined import JoinedExperiment, Member, join_positions, part_position
from hypercl.sweeps.pack import _Reports, points_together
from hypercl.sweeps.together import learn_together, may_share
from hypercl.sweeps.work import Job, work
from train import TaskTraining
from train_args import parse_args

N_ITER = 25  # steps of each of two tasks
COMMON = {
    "n_iter": N_ITER, "batch_size": 8, "val_iter": 10, "val_batch_size": 16, "num_tasks": 2,
    "hmlp_arch": [8], "mlp_arch": [6],
}  # fmt: skip
RATES = {"lr": [1e-3, 1e-2, 3e-3], "weight_decay": [0.1, 0.01, 0.3]}
BUFFER = {"replay_budget": 14, "replay_batch_size": 5}

# What the points have in common, and the numbers in which they differ, one of each point.
CASES = {
    "beta": ({}, {"beta": [0.5, 5.0, 0.05], **RATES}),
    "dense": ({"chmlp_chunk_size": 300}, {"beta": [0.5, 5.0, 0.05], **RATES}),
    "lookahead": ({"lookahead": True, "multi_head": True}, {"beta": [0.5, 5.0, 0.05], **RATES}),
    "initialization": (
        {"use_cond_chunk_embs": True},
        {"std_normal_temb": [None, 0.0, 0.3], "std_normal_emb": [0.1, None, 2.0]},
    ),
    "adam": (
        {},
        {"adam_beta1": [0.9, 0.5, 0.7], "clip_grad_value": [1e-3, 1e-2, 1.0], **RATES},
    ),
    "sgd": (
        {"use_sgd": True},
        {"momentum": [0.9, 0.5, 0.2], "clip_grad_norm": [0.1, 1.0, 5.0], **RATES},
    ),
    "rmsprop": ({"use_rmsprop": True}, {"momentum": [0.1, 0.2, 0.5], "lr": [1e-4, 1e-3, 1e-3]}),
    "schedulers": (
        {"plateau_lr_scheduler": True, "lambda_lr_scheduler": True},
        {"lr": [1e-3, 1e-2, 1e-4]},
    ),
    "sgd with schedulers": (
        {"use_sgd": True, "plateau_lr_scheduler": True, "lambda_lr_scheduler": True},
        {"lr": [1e-3, 1e-2, 1e-4]},
    ),
    "finetune": ({"keep_optimizer": True}, {"lr": [1e-3, 1e-2, 3e-3]}),
    "joint": ({}, {"lr": [1e-3, 1e-2, 3e-3]}),
    "separate": ({}, {"lr": [1e-3, 1e-2, 3e-3]}),
    "ewc": ({}, {"ewc_lambda": [5.0, 50.0, 1.0], "ewc_prior_variance": [0.5, 1.0, 20.0]}),
    "online_ewc": ({}, {"ewc_lambda": [5.0, 50.0, 1.0], "ewc_gamma": [1.0, 0.5, 0.1]}),
    "si": ({}, {"si_c": [5.0, 50.0, 0.1], "si_epsilon": [0.1, 1.0, 0.01]}),
    "lwf": ({}, {"lwf_lambda": [0.5, 1.0, 4.0], "lwf_temperature": [2.0, 1.0, 5.0]}),
    "replay": (BUFFER, {"replay_weight": [1.0, 0.5, 3.0]}),
    "der": (BUFFER, {"der_alpha": [1.0, 0.5, 3.0]}),
    "derpp": (BUFFER, {"der_alpha": [1.0, 0.5, 3.0], "der_beta": [0.2, 0.5, 1.0]}),
    "dgr": (OWN_WEIGHTS["dgr"], {"lwf_temperature": [2.0, 1.0, 5.0], "lr": [1e-3, 1e-2, 3e-3]}),
    "hnet_r": (SMALL_VAE, {"vae_beta": [0.5, 5.0, 0.05], "replay_share": [0.5, 0.2, 0.9]}),
    "hnet_tir": (
        {**SMALL_VAE, "method": "hnet_tir", "tir_arch": [8], "lookahead": True},
        {"beta": [0.5, 5.0, 0.05], "vae_beta": [0.3, 0.1, 3.0], "replay_share": [0.5, 0.2, 0.9]},
    ),
}
SEEDS = (3, 3, 8)  # two points have the same one


def points_of(case):
    """An experiment of each point of a case, with the same tasks."""
    common, numbers = CASES[case]
    method = {"method": case, "cl_scenario": 1, "lr": 0.01} if case in OWN_WEIGHTS else {}
    given = {**COMMON, **method, **common}
    tasks = make_sequence(1 if method or given.get("multi_head") else 2, (2, 2))
    return [
        make_experiment(tasks, **{**given, **{name: own[i] for name, own in numbers.items()}})
        for i in range(len(SEEDS))
    ]


def learn_task(experiment, position):
    """A task, as it was drawn and with the losses of its steps; the position behind it."""
    training = TaskTraining.at(experiment, position)
    for step in range(1, training.num_steps + 1):
        training.step()
        if training.is_logged(step):
            training.log(step)
    return training, training.result(position)


def test_every_number_that_members_may_have_of_their_own_is_in_a_case():
    marked = {name for name, field in all_options().items() if field.metadata["member"]}
    assert marked == {name for _, numbers in CASES.values() for name in numbers} | {"random_seed"}
    assert set(CASES) > OWN_WEIGHTS.keys()


@pytest.mark.parametrize("case", CASES)
def test_members_learn_what_their_points_learn_alone(case, monkeypatch):
    """What is drawn exactly, and the losses of fifty steps to 1e-5."""
    monkeypatch.setattr(schedules, "_DROPS", {3: 0.3, 6: 0.1})  # of 8 epochs in a task
    if case == "dense":
        monkeypatch.setattr(choice, "factored_is_cheaper", lambda *args, **options: False)
    points = points_of(case)
    starts = [
        Position.start([[seed]]).on_device(CPU, point.init)
        for point, seed in zip(points, SEEDS, strict=True)
    ]
    members = dict(enumerate(map(Member, points, SEEDS)))
    joined, together = JoinedExperiment.join(members), join_positions(starts)
    assert all(torch.equal(v, joined.init([0, 1, 2])[n]) for n, v in together.params.items())
    alone = starts
    for _ in range(2):
        training, together = learn_task(joined, together)
        learned = list(map(learn_task, points, alone))
        alone = [position for _, position in learned]
        for i, (own, _) in enumerate(learned):
            assert torch.equal(training.plan.batches[:, i], own.plan.batches[:, 0])
            assert torch.equal(
                training.plan.drawn[:, i % training.plan.drawn.shape[1]], own.plan.drawn[:, 0]
            )
            torch.testing.assert_close(
                training.history[:, [0, 2], i], own.history[:, [0, 2], 0], rtol=1e-5, atol=1e-7
            )
            assert training.rates.of_members[i] == own.rates.of_members[0]
    losses = training.history[:, 2].T
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(losses, 2))
    for apart, own in zip(part_position(together, starts), alone, strict=True):
        assert (apart.seeds, apart.task_id) == (own.seeds, own.task_id) == (own.groups[0], 2)
        assert apart.params.keys() == own.params.keys()
        assert {n: v.shape for n, v in apart.memory.items()} == {
            n: v.shape for n, v in own.memory.items()
        }


def test_positions_are_joined_and_taken_apart_in_mid_task():
    """With two seeds each, of which one has failed; dropout goes on as the first run's does."""
    points = points_of("ewc")[:2]
    starts = [
        Position.start([seeds]).on_device(CPU, point.init)
        for point, seeds in zip(points, ([4, 5], [5, 6]), strict=True)
    ]
    states = []
    for point, start in zip(points, starts, strict=True):
        _, position = learn_task(point, start)
        training = TaskTraining.at(point, position)
        for _ in range(3):
            training.step()
        training.failed = {5: "for a test"}
        states.append(replace(position, training=training.state(3)))
    together = join_positions(states)
    assert together.seeds == [0, 1, 2, 3]
    assert together.training["failed"] == {1: "for a test", 2: "for a test"}
    dropout = states[0].training["generators"]
    for apart, state in zip(part_position(together, states), states, strict=True):
        expected = replace(state, training={**state.training, "generators": dropout})
        assert same(vars(apart), vars(expected))
    without = replace(together, seeds=[0, 3], params={}, memory={}, stats=[], training=None)
    assert [apart.seeds for apart in part_position(without, states)] == [[4], [6]]


def same(value, other):
    """Whether nested values are the same, tensors bit for bit."""
    if isinstance(value, dict):
        return value.keys() == other.keys() and all(same(value[k], other[k]) for k in value)
    if isinstance(value, list | tuple):
        return len(value) == len(other) and all(map(same, value, other))
    return torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("--lr=0.1 --beta=2", "--lr=0.2 --beta=3 --random_seed=7"),
        ("--clip_grad_norm=1", "--clip_grad_norm=2"),
        ("--std_normal_temb=-1", "--std_normal_temb=0"),
        ("--method=ewc --ewc_lambda=1", "--method=ewc --ewc_lambda=2 --overwrite --out_dir=a"),
        ("--class_order=random --random_seed=1", "--class_order=random --random_seed=1 --lr=1"),
    ],
)
def test_points_that_differ_in_numbers_may_share_a_step(first, second):
    a, b = (parse_args(line.split()) for line in (first, second))
    assert may_share(a, b)
    assert may_share(b, a)


def test_a_network_of_the_users_is_joined_by_nothing(tmp_path, monkeypatch):
    """Also where an option of it is declared as a member's: members have one network."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "from dataclasses import dataclass\nfrom hypercl.networks.main_nets.mlp import Mlp\n"
        "from hypercl.ranges import option, positive\n\n\n@dataclass(frozen=True)\n"
        "class Wide(Mlp):\n    slope: float = option(1.0, positive, 'slope', member=True)\n"
    )
    points = [parse_args(["--net_type=mine.py:Wide", f"--slope={s}"]) for s in (1, 1, 2)]
    assert may_share(*points[:2])
    assert not may_share(*points[1:])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("--beta=0", "--beta=1"),
        ("", "--clip_grad_norm=2"),
        ("", "--weight_decay=0.1"),
        ("", "--mlp_arch=5"),
        ("", "--n_iter=5"),
        ("", "--num_seeds=2"),
        ("", "--lookahead"),
        ("", "--method=ewc"),
        ("--method=replay", "--method=replay --replay_budget=5000"),
        ("--method=lwf", "--method=lwf --lwf_lambda=1"),
        ("--class_order=random --random_seed=1", "--class_order=random --random_seed=2"),
        ("--cl_exp=toyregression", "--cl_exp=toyregression --random_seed=2"),
    ],
)
def test_points_that_differ_in_more_may_not(first, second):
    a, b = (parse_args(line.split()) for line in (first, second))
    assert not may_share(a, b)
    assert not may_share(b, a)


# Whole points, each with its run directory.

TINY = [
    "--no_cuda", "--loglevel_info", "--num_tasks=2", "--n_iter=6", "--ckpt_iter=4", "--val_iter=3",
    "--val_set_size=20", "--batch_size=8", "--mlp_arch=6", "--hmlp_arch=6",
    "--chmlp_chunk_size=500",
]  # fmt: skip
OPTIONS = (["--beta=0.1", "--lr=0.01"], ["--beta=10", "--lr=0.003"], ["--random_seed=5"])
usefixtures = pytest.mark.usefixtures("few_digits")


def lines(folder, options=OPTIONS):
    return [[*TINY, *own, f"--out_dir={folder}/{i}"] for i, own in enumerate(options)]


def left(path):
    """All that must be the same but for what is written at another time."""
    results = read_json(Path(path, "results.json"))
    return {
        "results": {k: v for k, v in results.items() if k not in ("config", "seconds", "sha256")},
        "weights": decode(Path(path, "weights.pt").read_bytes())["hnet"],
        "metrics": Path(path, "metrics.jsonl").read_text(),
    }


def all_left(folder):
    return [left(path) for path in sorted(Path(folder).iterdir())]


def numbers_in(path):
    """Of metrics.jsonl; 0 for what was not measured."""
    text = Path(path, "metrics.jsonl").read_text()
    rows = (json.loads(line).values() for line in text.splitlines())
    return [[0.0 if value is None else float(value) for value in row] for row in rows]


def assert_alike(path, other):
    """The same steps, and the same numbers to 1e-5."""
    torch.testing.assert_close(numbers_in(path), numbers_in(other), rtol=1e-5, atol=1e-7)


@usefixtures
def test_each_point_has_what_it_would_have_alone(capsys):
    results = learn_together(lines("pack"))
    assert capsys.readouterr().out == ""
    for i, argv in enumerate(lines("alone")):
        alone = run.main(argv)
        own = Path("pack", str(i))
        assert sorted(p.name for p in own.iterdir()) == sorted(
            p.name for p in Path("alone", str(i)).iterdir()
        )
        assert results[i] == read_json(own / "results.json")
        assert (results[i]["status"], alone["status"]) == ("finished", "finished")
        assert results[i]["seeds"][0]["seed"] == alone["seeds"][0]["seed"]
        assert_alike(own, f"alone/{i}")
        weights = [left(path)["weights"] for path in (own, f"alone/{i}")]
        torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)
        config = read_json(own / "config.json")
        assert config["command"].endswith(f"--out_dir=pack/{i}")
        assert "seconds" in results[i]
        assert load_run(own).num_tasks == 2
    assert learn_together(lines("pack")) == results  # finished, and so they stay


@usefixtures
@pytest.mark.parametrize("method", ["hnet_r", "hnet_tir", "dgr"])
def test_points_that_generate_images_show_their_own(method, monkeypatch):
    """And all that a point calls of its report, a pack has."""
    shown = {}

    def draw_generated(self, seeds, images_of):
        name = self._run_dir.path.name
        shown.setdefault(name, []).append((seeds[0], images_of(0)))

    monkeypatch.setattr(Report, "draw_generated", draw_generated)
    given = [f"--method={method}", "--tir_arch=8", "--multi_head"]
    tiny = TINY
    if method != "hnet_tir":
        given = [f"--method={method}", "--cl_scenario=1"]
        tiny = [option for option in TINY if "hmlp" not in option]
    own = OWN_WEIGHTS["dgr"] if method == "dgr" else SMALL_VAE
    given += [f"--{name}={as_argument(value)}" for name, value in own.items()]

    def points(folder):
        differ = (["--lr=0.01"], ["--lr=0.03", "--random_seed=5"])
        return [[*tiny, *given, *x, f"--out_dir={folder}/{i}"] for i, x in enumerate(differ)]

    results = learn_together(points("pack"))
    assert [each["status"] for each in results] == ["finished"] * 2
    together = dict(shown)
    shown.clear()
    for argv in points("alone"):
        run.main(argv)
    assert together.keys() == shown.keys() == {"0", "1"}
    for name, images in shown.items():
        assert [seed for seed, _ in images] == [seed for seed, _ in together[name]]
        for (_, alone), (_, joined) in zip(images, together[name], strict=True):
            torch.testing.assert_close(joined.float(), alone.float(), rtol=0, atol=1)
    one, other = (together[name][0][1].float() for name in ("0", "1"))
    assert (one - other).abs().max() > 5  # so that neither shows the other's


@usefixtures
def test_an_error_that_no_point_has_alone_is_said(monkeypatch):
    def broken(*args):
        raise AttributeError("no such thing")

    monkeypatch.setattr(_Reports, "end_task", broken)
    options = OPTIONS[:2]
    outcomes = work(Job(tuple(map(tuple, lines("pack", options))), None))
    assert [outcome.status for outcome in outcomes] == ["finished"] * 2  # one by one
    for outcome in outcomes:
        assert any("AttributeError: no such thing" in said for said in outcome.warnings)


@usefixtures
def test_a_pack_of_one_is_the_point_alone_bit_for_bit():
    (argv,) = lines("pack", [["--num_seeds=2", "--hnet_dropout_rate=0.1"]])
    learn_together([argv])
    run.main([*argv[:-1], "--out_dir=alone"])
    assert same(left("pack/0"), left("alone"))


class Killed(BaseException):
    """Stands for what ends a process at once."""


def stop_before(patch, holder, name, count, stop):
    """Have ``stop`` called before the so-manieth call of a method."""
    original, calls = getattr(holder, name), []

    def wrapper(*args, **options):
        calls.append(1)
        if len(calls) == count:
            stop()
        return original(*args, **options)

    patch.setattr(holder, name, wrapper)


def die():
    raise Killed


@usefixtures
def test_a_pack_that_was_killed_between_two_saves_goes_on_bit_for_bit(monkeypatch):
    """At each of its positions, of which the first point has one more than the second."""
    two = OPTIONS[:2]
    learn_together(lines("whole", two))
    expected, num_positions = all_left("whole"), 5
    for position in range(num_positions):
        folder = f"killed-{position}"
        with monkeypatch.context() as patch:
            stop_before(patch, RunDir, "write_checkpoint", 2 * position + 2, die)
            with pytest.raises(Killed):
                learn_together(lines(folder, two))
        learn_together(lines(folder, two))
        assert same(all_left(folder), expected), position
    with monkeypatch.context() as patch:
        stop_before(patch, RunDir, "write_checkpoint", 2 * num_positions + 1, die)
        learn_together(lines("once more", two))  # there are no other positions


@usefixtures
def test_a_signal_saves_all_points(monkeypatch):
    learn_together(lines("whole"))
    with monkeypatch.context() as patch:
        stop_before(
            patch, MainNetwork, "evaluating", 9, lambda: os.kill(os.getpid(), signal.SIGTERM)
        )
        with pytest.raises(Interrupted):
            learn_together(lines("stopped"))
    states = [read_json(Path("stopped", str(i), "results.json"))["status"] for i in range(3)]
    assert states == ["interrupted"] * 3
    learn_together(lines("stopped"))
    assert same(all_left("stopped"), all_left("whole"))


@usefixtures
def test_paused_points_go_on_together_or_alone():
    learn_together(lines("whole"))
    paused = learn_together(lines("pack"), until=1)
    assert [results["status"] for results in paused] == ["paused"] * 3
    assert [len(results["seeds"][0]["accuracy"]) for results in paused] == [1] * 3
    assert run.main(lines("pack")[1])["status"] == "finished"
    assert_alike("pack/1", "whole/1")
    assert [results["status"] for results in learn_together(lines("pack"))] == ["finished"] * 3


@usefixtures
def test_points_at_different_positions_meet():
    """One has learned a task alone; nothing of it is learned again."""
    first, *others = lines("pack")
    run.main([*first, "--pause_after=1"])
    before = Path("pack/0/metrics.jsonl").read_text()
    results = learn_together([first, *others])
    assert [each["status"] for each in results] == ["finished"] * 3
    assert Path("pack/0/metrics.jsonl").read_text().startswith(before)


@usefixtures
def test_a_point_that_diverges_leaves_the_pack():
    options = (*OPTIONS, ["--lr=1e30"], ["--lr=1e30", "--random_seed=9"])
    results = learn_together(lines("pack", options))
    assert [each["status"] for each in results] == ["finished"] * 3 + ["failed"] * 2
    assert "not finite in task 1 at step" in results[3]["error"]
    assert results[3]["seeds"][0]["failed"] == results[3]["error"]
    with pytest.raises(RunFailed) as alone:
        run.main(lines("alone", options)[3])
    assert str(alone.value) == results[3]["error"]
    learn_together(lines("without"))
    assert_alike("pack/2", "without/2")
    again = learn_together(lines("pack", options))
    assert [each["status"] for each in again] == [each["status"] for each in results]


@usefixtures
def test_the_numbers_of_those_that_do_not_diverge_stay_theirs():
    """Also in what a method keeps of the task in which others did, of two seeds each."""
    own = ["--num_seeds=2", "--method=si", "--use_sgd"]
    options = (["--lr=1e30"], ["--lr=0.01", "--si_epsilon=0.5"], ["--lr=0.02", "--si_c=3"])
    argvs = [
        [option for option in argv if not option.startswith(("--hmlp", "--chmlp"))]
        for argv in lines("pack", [[*own, *more] for more in options])
    ]
    results = learn_together(argvs)
    assert [each["status"] for each in results] == ["failed", "finished", "finished"]
    for i in (1, 2):
        run.main([*argvs[i][:-1], f"--out_dir=alone/{i}"])
        assert_alike(f"pack/{i}", f"alone/{i}")


@usefixtures
def test_more_points_than_fit_train_in_packs(monkeypatch):
    learn_together(lines("whole"))
    monkeypatch.setattr(MainNetwork, "most_together", lambda self, device: 2)
    assert points_together(parse_args(TINY)) == 2
    assert points_together(parse_args([*TINY, "--num_seeds=2"])) == 1
    assert all(each["status"] == "finished" for each in learn_together(lines("pack")))
    assert_alike("pack/0", "whole/0")
    monkeypatch.setattr(groups, "available_bytes", lambda device: 1)
    assert points_together(parse_args(TINY)) == 1


@usefixtures
@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["--beta=0", ""], "--beta=0.01 cannot share a step with --beta=0"),
        (["--dry_run", ""], "--dry_run goes with no points"),
        (["--lr=-1", ""], "--lr"),
        (["--out_dir=a", "--out_dir=a"], "--out_dir=a is there twice"),
        (["--out_dir=a", "--lr=1"], "need an --out_dir each"),
    ],
)
def test_points_that_cannot_train_together_are_refused_before_anything_is_made(given, problem):
    with_folder = given[0].startswith("--out_dir")
    argvs = [
        [*TINY, *option.split(), *([] if with_folder else [f"--out_dir=pack/{i}"])]
        for i, option in enumerate(given)
    ]
    with pytest.raises(InputError, match=problem):
        learn_together(argvs)
    assert not list(Path().iterdir())


@usefixtures
def test_a_point_that_is_in_use_keeps_the_pack_from_learning():
    learn_together(lines("pack"), until=1)
    with RunDir(Path("pack/1")), pytest.raises(InputError, match="pack/1 is in use by process"):
        learn_together(lines("pack"))
    assert read_json(Path("pack/0/results.json"))["status"] == "paused"
    assert [each["status"] for each in learn_together(lines("pack"))] == ["finished"] * 3
