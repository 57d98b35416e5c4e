"""A main network with weights of its own, from which methods start."""

from dataclasses import replace

import pytest
import torch
from helpers import CPU, SavedAt, Silent, Stopped, build_main_net, make_experiment, make_task

import train
from hypercl.engine.members import select_members
from hypercl.methods.base import OwnWeights, Setting
from hypercl.rundir.checkpoint import Position
from hypercl.rundir.saving import decode


class Pulled(OwnWeights):
    """Held near the weights before the task, and near the sum of all before."""

    def remember(self, params, memory, task_id):
        return params["weights"].clone() if task_id > 0 else None

    def penalty_and_gradient(self, weights, anchor):
        moved = weights - anchor
        return moved.square().sum(1) / 2, moved

    def running(self, params, memory, task_id):
        return {"steps": torch.zeros(len(params["weights"]), 1)}

    def loss_and_gradient(self, params, batch, *others):
        batch.running["steps"].add_(1)
        return super().loss_and_gradient(params, batch, *others)

    def after_task(self, params, memory, end):
        kept = memory.get("sum", 0) + params["weights"]
        return {"sum": kept, "steps": memory.get("steps", 0) + end.running["steps"]}


def make(strength=0.0, net="mlp", **values):
    """An experiment with the method put in place of the hypernetwork."""
    tasks = [make_task(seed=seed) for seed in range(3)]
    experiment = make_experiment(tasks, net_type=net, n_iter=30, lr=0.01, **values)
    options = experiment.options
    setting = Setting(experiment.net, tasks, options.train, options.hypernet, CPU)
    return replace(experiment, method=Pulled(setting, strength))


def learn(experiment, task_id, params, seeds=(1, 2), memory=None):
    stats = experiment.net.fresh_stats(len(seeds), CPU)
    training = train.TaskTraining(experiment, task_id, list(seeds), params, stats, memory or {})
    for _ in range(training.num_steps):
        training.step()
    return training


def test_it_learns_and_all_tasks_have_the_same_weights():
    experiment = make()
    training = learn(experiment, 0, experiment.method.init([1, 2]))
    losses = training.history[:, 2]
    assert (losses[-5:].mean(0) < losses[0]).all()
    weights = experiment.method.weights(training.trained, torch.tensor([[0, 1], [2, 0]]))
    assert weights.shape == (2, 2, experiment.net.num_weights)
    assert torch.equal(weights[:, 0], weights[:, 1])


def test_a_penalty_holds_the_weights():
    before = make().method.init([1, 2])
    distances = []
    for strength in (0.0, 10.0):
        experiment = make(strength)
        training = learn(experiment, 1, before)
        moved = (training.trained["weights"] - before["weights"]).norm(dim=1)
        distances.append(moved)
        rows = training.history
        torch.testing.assert_close(rows[:, 2], rows[:, 0] + strength * rows[:, 1])
    assert (distances[1] < 0.5 * distances[0]).all()


@pytest.mark.parametrize("keep_optimizer", [False, True])
@pytest.mark.parametrize("last", [7, 30, 37, 45, 60])
def test_a_method_with_memory_goes_on_bit_for_bit(last, keep_optimizer):
    """Stopped within a task, and behind one; memory and what steps change come back."""
    experiment = make(0.5, keep_optimizer=keep_optimizer)
    start = Position.start([[1, 2]])
    expected = train.learn_tasks(experiment, start, Silent(), SavedAt(10**9))
    checkpoints = SavedAt(last)
    with pytest.raises(Stopped):
        train.learn_tasks(experiment, start, Silent(), checkpoints)
    left = Position(**decode(checkpoints.data))
    if last > 30:
        assert left.memory["steps"].tolist() == [[30.0 * left.task_id]] * 2
    again = train.learn_tasks(experiment, left, Silent(), SavedAt(10**9))
    for seed in (1, 2):
        assert torch.equal(again.learned[seed]["weights"], expected.learned[seed]["weights"])


def test_memory_is_without_the_seeds_that_failed():
    experiment = make()
    position = Position.start([[1, 2]]).on_device(CPU, experiment.method.init)
    for expected in (2, 1):
        training = train.TaskTraining.at(experiment, position)
        training.failed = {1: "for a test"} if expected == 1 else {}
        position = training.result(position)
        assert position.memory["sum"].shape == (expected, experiment.net.num_weights)
    assert position.seeds == [2]


@pytest.mark.parametrize("net", ["mlp", "lenet"])
def test_weights_start_as_torchs_layers_do(net):
    network = build_main_net(net, (28, 28, 1), 2, mlp_arch=[10])
    tensors = network.split(network.fresh_weights(torch.Generator().manual_seed(0)))
    for tensor in tensors:
        if tensor.ndim > 1:
            bound = tensor[0].numel() ** -0.5
            assert 0.8 * bound < tensor.abs().max() <= bound
        else:
            assert tensor.abs().max() <= bound  # as its weight's


def test_scales_of_batch_normalization_start_with_one():
    network = build_main_net("mlp", (4, 4, 1), 2, mlp_arch=[10], batchnorm=True)
    tensors = network.split(network.fresh_weights(torch.Generator().manual_seed(0)))
    names = [meta["name"] for meta in network.module.param_shapes_meta]
    assert {"bn_scale", "bn_shift"} <= set(names)
    for name, tensor in zip(names, tensors, strict=True):
        if name.startswith("bn"):
            assert (tensor == (name == "bn_scale")).all()


def test_parameters_survive_the_way_into_a_file_and_back():
    method = make().method
    params = select_members(method.init([5]), 0)
    state = method.state_dict(params)
    assert [list(value.shape) for value in state.values()] == [[10, 784], [10], [2, 10], [2]]
    assert torch.equal(method.load_state_dict(state)["weights"], params["weights"])


@pytest.mark.parametrize("options", [{}, {"use_rmsprop": True, "momentum": 0.5}])
def test_a_kept_optimizer_goes_on_where_the_last_task_left_it(options):
    experiment = make(keep_optimizer=True, **options)
    position = Position.start([[1, 2]]).on_device(CPU, experiment.method.init)
    first = train.TaskTraining.at(experiment, position)
    for _ in range(first.num_steps):
        first.step()
    second = train.TaskTraining.at(experiment, first.result(position))
    for name, value in first._optimizer.state.items():
        assert torch.equal(second._optimizer.state[name], value), name
        assert value.any()
