"""The benchmarks' own code, with a few steps each; what they find is for a quiet machine."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import FEW_STEPS

import run
from benchmarks import (
    inference,
    job,
    many_tasks,
    passes,
    plain,
    profile,
    seeds,
    startup,
    step,
    together,
)
from benchmarks.common import begin_training, machine
from hypercl.inference import OF_MAIN_NETS, QUANTITIES, Outputs, negative_entropy


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(step, "SECONDS", 0.03)
    monkeypatch.setattr(step, "EARLIER", (0, 2))
    monkeypatch.setattr(profile, "SECONDS", 0.05)


@pytest.mark.parametrize("network", step.NETWORKS)
def test_steps_are_timed_in_three_ways(network):
    small = ["--resnet_block_depth=1"] if "ResNet" in network else []
    rows = step.measure([*step.NETWORKS[network], *small], rate=50)
    assert [row["earlier"] for row in rows] == [0, 2]
    assert [row["kept MiB"] > 0 for row in rows] == [False, True]
    for row in rows:
        assert min(row["ms"], row["plain ms"], row["reference ms"]) > 0
        assert row["million products"] > 1


def test_the_reference_and_the_plain_loop_lower_the_loss():
    training = begin_training(["--hmlp_arch=20", "--mlp_arch=10"], 1)
    loop = plain.ReferenceLoop(training.experiment, 1, lr=0.01)
    losses = []
    for _ in range(30):
        loop.step()
        losses.append(loop.loss)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("measure", [profile.measure_ours, profile.measure_plain])
def test_the_parts_of_a_step_add_up(measure):
    *parts, total = measure(2, rate=50)
    names = {row["part"] for row in parts}
    assert {"everything else", "Adam"} < names
    if measure is profile.measure_ours:
        assert profile.OURS.keys() - names <= {"penalty, dense"}  # two tasks take the factored form
    assert total["ms"] == pytest.approx(sum(row["ms"] for row in parts))
    assert total["products alone, ms"] > 0


def test_what_operations_read_and_write():
    x, y, bias = torch.ones(1, 4, 5), torch.ones(1, 5, 3), torch.ones(1, 1, 3)
    many, index = torch.ones(50, 3), torch.tensor([7, 8])
    with passes.Traffic() as traffic:
        x[:, :2].view(10)  # a view
        x + 1
        torch.bmm(x, y)
        plus = torch.baddbmm(bias, x, y)  # which is broadcast
        torch.baddbmm(plus, x, y, out=plus)
        torch.empty_like(x).copy_(x)
        x.mul_(2)
        many.index_select(0, index)
        torch._foreach_copy_([x, y], [x + 0, y.clone()])
    found = dict(traffic.by_operation())
    assert found == {
        "aten::add": (2, 20 + 20, 20 + 20),
        "aten::bmm": (1, 20 + 15, 12),
        "aten::baddbmm": (2, 3 + 35 + 12 + 35, 12 + 12),
        "aten::copy_": (1, 20, 20),
        "aten::mul_": (1, 20, 20),
        "aten::index_select": (1, 6 + 2, 6),
        "aten::_foreach_copy_": (1, 35, 35),
        "aten::clone": (1, 15, 15),
    }


def test_the_passes_of_a_step(capsys):
    wide = ["--hmlp_arch=4", "--chmlp_chunk_size=4000", "--mlp_arch=20"]
    found = {}
    for name in ("without", "lookahead"):
        found[name] = passes.measure([*wide, *(["--lookahead"] if name == "lookahead" else [])], 2)
        passes.show(found[name])
    assert found["without"]["last layer"] == 4000 * 5
    assert "lookahead" in found["lookahead"]["least"]
    printed = capsys.readouterr().out
    for result in found.values():
        operations = {row["operation"]: row for row in result["operations"]}
        assert operations["aten::_fused_adam_"]["read"] >= 4
        least = sum(result["least"].values())
        assert result["passes"] > least
        assert f"{result['passes'] / least:.2f} times as many" in printed


def test_seeds_and_the_machine():
    take, num_weights = seeds.ready_step(["--mlp_arch=10", "--hmlp_arch=10"], 3)
    take()
    assert num_weights == 784 * 10 + 10 + 10 * 2 + 2
    assert machine()["cores"] >= 1


def test_points_with_numbers_of_their_own_take_a_step():
    small = ["--mlp_arch=10", "--hmlp_arch=10"]
    together.ready_step(small, together.POINTS[:3])()
    assert len(set(map(tuple, together.POINTS))) == 16


def test_the_temperature_is_the_one_of_the_lowest_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 50, 3, generator=generator)
    labels = logits[0].argmax(-1).where(torch.arange(50) % 3 > 0, torch.arange(50) % 3)
    fitted = inference.fit_temperature(logits, labels)

    def loss(member, temperature):
        return F.cross_entropy(logits[member] / temperature, labels)

    by_hand = 10 ** torch.linspace(-3, 3, 601)
    for member in range(2):
        lowest = min(loss(member, temperature) for temperature in by_hand)
        assert loss(member, fitted[member]) <= lowest + 1e-6
    assert 1 < fitted[0] < fitted[1]  # the second's labels have nothing to do with its logits
    (cold,) = inference.fit_temperature(logits[:1], logits[0].argmax(-1))
    assert cold < 1e-3


def test_rules_that_infer_tasks_are_measured_on_a_finished_run(few_digits, monkeypatch, capsys):
    results = run.main([*FEW_STEPS, "--num_tasks=2", "--num_seeds=2", "--out_dir=run"])
    saved = {}
    monkeypatch.setattr(inference, "save", saved.__setitem__)
    inference.main(["run", "--save"])
    rules = saved["inference"]["runs"]["run"]["rules"]
    assert set(rules) == {*OF_MAIN_NETS, "scaled at the end", "energy", "temperature"}
    for rule in OF_MAIN_NETS:
        for quantity in QUANTITIES:
            stored = results["summary"][f"{quantity}_{rule}"]["mean"]
            assert rules[rule][quantity]["mean"] == pytest.approx(stored)
    assert "scaled at the end" in capsys.readouterr().out


def test_both_ways_of_many_tasks_make_the_same(monkeypatch, few_digits):
    monkeypatch.setattr(many_tasks, "REPEAT", 1)
    row = many_tasks.measure(2, "--mlp_arch=5,4")
    assert row["times as fast"] == row["s, the general way"] / row["s, together"]
    assert row["largest difference of a score"] < 1e-4


def test_energy_and_a_temperature_of_1_say_what_they_should():
    logits = torch.tensor([[[[1.0, 1.0]], [[0.0, 1.5]]]])
    outputs = Outputs(logits, logits.log_softmax(-1), torch.tensor([0, 1]), torch.zeros(1, 1))
    energies = inference.negative_energy(outputs).flatten().tolist()
    assert energies == pytest.approx([1 + math.log(2), math.log(1 + math.exp(1.5))])
    ones = torch.ones(1, 2)
    torch.testing.assert_close(inference.entropy_at(outputs, ones), negative_entropy(outputs))
    hot = inference.entropy_at(outputs, torch.tensor([[1.0, 1e6]])).flatten()
    assert hot.tolist() == pytest.approx([-math.log(2)] * 2)


def test_the_plain_job_learns(monkeypatch):
    parse = job.parse_args
    few = ["--num_tasks=2", "--n_iter=60", "--mlp_arch=20", "--lr=0.001"]
    monkeypatch.setattr(job, "parse_args", lambda argv: parse([*argv, *few]))
    assert job.plain_job(1) > 70


def test_the_shortest_run_is_timed_beside_the_import(monkeypatch):
    monkeypatch.setattr(startup, "SHORTEST", ["-c", "import this"])
    monkeypatch.setattr(startup, "IMPORT", ["-c", "import numpy.testing, asyncio"])
    found = startup.measure(pairs=2)
    assert found["pairs"] == 2
    assert 0 < found["run s"] < found["torch s"]
    assert 0 < found["run processor s"] < found["torch processor s"]
    assert found["least ratio"] <= found["ratio"] <= found["most ratio"] < 1
