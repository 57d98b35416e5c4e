"""Separate networks: what learns, and their sizes."""

import pytest
import torch
from helpers import make_experiment, make_sequence

import train
from hypercl.errors import InputError
from train_args import parse_args


def build(num_tasks=3, shape=(6, 6, 1), scenario=None, **values):
    tasks = make_sequence(scenario or 2, (2,) * num_tasks, shape)
    given = {"cl_scenario": scenario} if scenario else {}
    return make_experiment(tasks, method="separate", **given, **values)


@pytest.mark.parametrize("scenario", [None, 1])
def test_a_task_trains_its_own_network_alone(scenario):
    experiment = build(scenario=scenario, n_iter=5, lr=0.01)
    method, before = experiment.method, experiment.method.init([1, 2])
    training = train.TaskTraining(experiment, 1, [1, 2], before, {}, {})
    for _ in range(5):
        training.step()
    after = method.merged(before, training.trained, 1)["weights"]
    assert torch.equal(after[:, [0, 2]], before["weights"][:, [0, 2]])
    assert (after[:, 1] != before["weights"][:, 1]).any(1).all()
    weights = method.weights({"weights": after}, torch.tensor([[1, 0], [2, 1]]))
    for member, task_ids in enumerate([[1, 0], [2, 1]]):
        assert torch.equal(weights[member], after[member, task_ids])
    assert method.num_trained == 3 * experiment.net.num_weights


def test_networks_of_new_tasks_follow_from_seed_and_task():
    longer, shorter = build(4).method, build(2).method
    params, memory = longer.extended(shorter.init([5, 6]), {}, [5, 6], 2)
    assert torch.equal(params["weights"], longer.init([5, 6])["weights"])
    assert memory == {}


@pytest.mark.parametrize("scenario", [None, 1])
@pytest.mark.parametrize("num_tasks", [1, 2, 5])
@pytest.mark.parametrize("arch", [[40], [30, 20], [20, 100]])
def test_networks_have_one_networks_weights_together_and_no_wider_ones_would(
    arch, num_tasks, scenario
):
    values = {"num_tasks": num_tasks, "scenario": scenario, "mlp_arch": arch}
    whole, small = build(**values), build(**values, separate_same_budget=True)
    budget, found = whole.net.num_weights, [rows for rows, *_ in small.net.shapes[:-2:2]]
    assert small.method.num_trained == num_tasks * small.net.num_weights <= budget
    fitting = []
    for units in range(1, max(arch) + 1):
        narrowed = [max(1, width * units // max(arch)) for width in arch]
        net = build(**{**values, "mlp_arch": narrowed}).net
        if num_tasks * net.num_weights <= budget:
            fitting.append(narrowed)
    assert found == max(fitting)
    assert (num_tasks > 1) == (found != arch)


def test_a_budget_that_no_network_keeps_is_refused():
    with pytest.raises(InputError, match=r"5 networks of one unit .* the 41 weights of one"):
        build(5, mlp_arch=[1], separate_same_budget=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cl_exp=splitcifar", "--net_type=resnet"], "narrows the layers of --net_type=mlp"),
        (["--mlp_arch="], "--mlp_arch= has none"),
    ],
)
def test_what_has_no_hidden_layers_to_narrow_is_refused(options, words, capsys):
    with pytest.raises(SystemExit) as refused:
        parse_args(["--method=separate", "--separate_same_budget", *options])
    assert refused.value.code == 2
    assert words in capsys.readouterr().err
