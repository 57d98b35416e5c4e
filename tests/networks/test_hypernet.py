"""The pure functions against hypnettorch's own forward pass, and their gradients."""

import pytest
import torch
from helpers import HYPERNETS, make_hypernet

from hypercl.engine.members import stack_members
from hypercl.networks.hnet_modules import into_module


def as_matrix(module, task_ids):
    return module.forward(cond_id=list(task_ids), ret_format="flattened")


def two_members(**values):
    """Two modules, initialized differently, and both members' parameters in one."""
    made = [make_hypernet(seed=seed, **values) for seed in (0, 1)]
    return [module for module, _, _ in made], made[0][1], stack_members([p for _, _, p in made])


@pytest.mark.parametrize("kind", HYPERNETS)
def test_generates_what_hypnettorch_generates(kind):
    """Two members, and of each other tasks."""
    modules, hnet, params = two_members(**HYPERNETS[kind])
    assert hnet.num_weights == modules[0].num_outputs == 29
    ids = torch.tensor([[2, 0, 3], [1, 2, 0]])
    expected = torch.stack(
        [as_matrix(m, row.tolist()) for m, row in zip(modules, ids, strict=True)]
    )
    torch.testing.assert_close(hnet.weights(params, ids), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("tasks", [1, 2])
@pytest.mark.parametrize("dropout_rate", [-1, 0.3])
@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh", "elu", "linear"])
@pytest.mark.parametrize("kind", HYPERNETS)
def test_the_backward_pass_is_autograds(kind, activation, dropout_rate, tasks, members):
    values = {"hnet_net_act": activation, "hnet_dropout_rate": dropout_rate}
    _, hnet, params = two_members(**{**HYPERNETS[kind], **values})
    params = {name: value[:members] for name, value in params.items()}
    leaves = {name: value.requires_grad_() for name, value in params.items()}
    ids = torch.tensor([[3, 1], [0, 3]])[:members, :tasks]
    torch.manual_seed(5)
    passed = hnet.forward(leaves, ids, training=True)
    weights = hnet.generate(leaves, passed.features)
    gradient = torch.randn_like(weights)
    expected = torch.autograd.grad(weights, list(leaves.values()), gradient)

    torch.manual_seed(5)
    passed = hnet.forward(params, ids, training=True)
    to_features, found = hnet.generate_backward(params, passed.features, gradient)
    found |= hnet.backward(params, passed, to_features)
    assert found.keys() == params.keys()
    for name, value in zip(leaves, expected, strict=True):
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", HYPERNETS)
@pytest.mark.parametrize("tasks", [1, 3])
def test_gradients_in_parts_and_one_that_is_there_already(kind, tasks):
    _, hnet, params = two_members(**HYPERNETS[kind])
    features = hnet.features(params, torch.arange(tasks).expand(2, -1))
    gradient = torch.randn_like(hnet.generate(params, features))
    expected_features, expected = hnet.generate_backward(params, features, gradient)
    rows = [value if value.ndim == 3 else value[..., None] for value in expected.values()]
    there = torch.cat(rows, dim=2)  # weight and bias side by side
    parts = gradient.tensor_split([1], dim=1) if tasks > 1 else [gradient]
    to_features, found = hnet.generate_backward(params, features, *parts, plus=there)
    torch.testing.assert_close(to_features, expected_features, rtol=1e-12, atol=1e-12)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], 2 * value, rtol=1e-12, atol=1e-12)


def test_features_enter_the_last_layer(hypernet):
    _, hnet, params = hypernet
    params = stack_members([params])
    ids = torch.arange(4)[None]
    x = hnet.features(params, ids)[0]
    weight, bias = hnet.last_layer(params)
    chunks = x @ weight[0].T + (0 if bias is None else bias[0])
    torch.testing.assert_close(chunks.flatten(1)[:, :29], hnet.weights(params, ids)[0])


def test_parameters_survive_the_way_into_the_module_and_back(hypernet):
    module, hnet, params = hypernet
    changed = {name: value + torch.randn_like(value) for name, value in params.items()}
    into_module(changed, module)
    weights = hnet.weights(stack_members([changed]), torch.arange(4)[None])
    torch.testing.assert_close(as_matrix(module, range(4)), weights[0])
    assert sum(value.numel() for value in params.values()) == module.num_params


def test_parameters_are_copies(hypernet):
    module, _, params = hypernet
    before = {name: value.clone() for name, value in params.items()}
    for parameter in module.parameters():
        parameter.data.zero_()
    for name, value in params.items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("kind", ["hmlp", "chunked", "chunked conditional"])
def test_dropout_in_training_alone(kind):
    _, hnet, params = two_members(hnet_dropout_rate=0.5, **HYPERNETS[kind])
    ids = torch.tensor([[0, 1], [1, 0]])
    first, second = (hnet.forward(params, ids, training=True).features for _ in range(2))
    assert not torch.equal(first, second)
    first, second = (hnet.forward(params, ids).features for _ in range(2))
    assert torch.equal(first, second)


def test_dropout_is_hypnettorchs():
    """With the same draws the two must agree, in the order linear, dropout, activation."""
    module, hnet, params = make_hypernet(
        hnet_type="hmlp", hnet_dropout_rate=0.5, hnet_net_act="sigmoid", num_tasks=1
    )
    params = stack_members([params])
    module.train()
    torch.manual_seed(3)
    expected = as_matrix(module, [0])
    torch.manual_seed(3)
    features = hnet.forward(params, torch.tensor([[0]]), training=True).features
    torch.testing.assert_close(hnet.generate(params, features)[0], expected)
