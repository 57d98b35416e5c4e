"""The pure function against hypnettorch's own forward pass."""

import pytest
import torch
from conftest import HYPERNETS, TARGET_SHAPES, make_hypernet

from hypercl.hypernet import into_module
from hypercl.members import stack_members


def as_matrix(module, task_ids):
    return module.forward(cond_id=list(task_ids), ret_format="flattened")


def test_generates_what_hypnettorch_generates(hypernet):
    module, hnet, params = hypernet
    assert hnet.num_weights == module.num_outputs == 29
    ids = torch.tensor([2, 0, 3])
    torch.testing.assert_close(
        hnet.weights(params, ids), as_matrix(module, [2, 0, 3]), rtol=1e-12, atol=1e-12
    )


def test_features_enter_the_last_layer(hypernet):
    _, hnet, params = hypernet
    ids = torch.arange(4)
    x = hnet.features(params, ids)
    last = hnet.num_layers - 1
    chunks = x @ params[f"weight{last}"].T + params.get(f"bias{last}", 0)
    torch.testing.assert_close(chunks.flatten(1)[:, :29], hnet.weights(params, ids))


def test_split_gives_the_main_networks_tensors(hypernet):
    module, hnet, params = hypernet
    pieces = hnet.split(hnet.weights(params, torch.tensor([1]))[0])
    expected = module.forward(cond_id=1)
    assert [list(piece.shape) for piece in pieces] == TARGET_SHAPES
    for piece, tensor in zip(pieces, expected, strict=True):
        torch.testing.assert_close(piece, tensor)


def test_parameters_survive_the_way_into_the_module_and_back(hypernet):
    module, hnet, params = hypernet
    changed = {name: value + torch.randn_like(value) for name, value in params.items()}
    into_module(changed, module)
    ids = torch.arange(4)
    torch.testing.assert_close(as_matrix(module, ids.tolist()), hnet.weights(changed, ids))
    assert sum(value.numel() for value in params.values()) == module.num_params


def test_parameters_are_copies(hypernet):
    module, _, params = hypernet
    before = {name: value.clone() for name, value in params.items()}
    for parameter in module.parameters():
        parameter.data.zero_()
    for name, value in params.items():
        assert torch.equal(value, before[name])


def test_the_tasks_so_far_are_trained_and_merged_back(hypernet):
    _, hnet, params = hypernet
    params = stack_members([params, params])
    before = {name: value.clone() for name, value in params.items()}
    flat, trained = hnet.to_train(params, 2)
    flat += 1  # what the views show
    assert flat.shape == (2, sum(value[0].numel() for value in trained.values()))
    merged = hnet.merged(params, trained)
    flat += 1  # what was merged stays
    for name, value in merged.items():
        assert torch.equal(params[name], before[name])
        learned = 2 if name in hnet.per_task else value.shape[1]
        assert torch.equal(value[:, :learned], params[name][:, :learned] + 1)
        assert torch.equal(value[:, learned:], params[name][:, learned:])


@pytest.mark.parametrize("kind", ["hmlp", "chunked", "chunked conditional"])
def test_dropout_in_training_alone(kind):
    _, hnet, params = make_hypernet(dropout_rate=0.5, **HYPERNETS[kind])
    ids = torch.tensor([0, 1])
    torch.manual_seed(1)
    first, second = (hnet.weights(params, ids, training=True) for _ in range(2))
    assert not torch.equal(first, second)
    first, second = (hnet.weights(params, ids, training=False) for _ in range(2))
    assert torch.equal(first, second)


def test_dropout_is_hypnettorchs():
    """With all dropout masks alike the two must agree, in the order linear, dropout, activation."""
    module, hnet, params = make_hypernet(
        hnet_type="hmlp", dropout_rate=0.5, activation="sigmoid", num_tasks=1
    )
    module.train()
    torch.manual_seed(3)
    expected = as_matrix(module, [0])
    torch.manual_seed(3)
    torch.testing.assert_close(
        hnet.weights(params, torch.tensor([0]), training=True), expected
    )  # fmt: skip
