"""The benchmarks' own code, with a few steps each; what they find is for a quiet machine."""

import pytest

from benchmarks import job, plain, profile, seeds, step, together
from benchmarks.common import begin_training, machine


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
    assert total["ms"] == pytest.approx(sum(row["ms"] for row in parts))
    assert total["products alone, ms"] > 0


def test_seeds_and_the_machine():
    take, num_weights = seeds.ready_step(["--mlp_arch=10", "--hmlp_arch=10"], 3)
    take()
    assert num_weights == 784 * 10 + 10 + 10 * 2 + 2
    assert machine()["cores"] >= 1


def test_points_with_numbers_of_their_own_take_a_step():
    small = ["--mlp_arch=10", "--hmlp_arch=10"]
    together.ready_step(small, together.POINTS[:3])()
    assert len(set(map(tuple, together.POINTS))) == 16


def test_the_plain_job_learns(monkeypatch):
    parse = job.parse_args
    few = ["--num_tasks=2", "--n_iter=60", "--mlp_arch=20", "--lr=0.001"]
    monkeypatch.setattr(job, "parse_args", lambda argv: parse([*argv, *few]))
    assert job.plain_job(1) > 70
