"""The main networks: their sizes, what they compute, and how their weights lie in one row."""

import math

import pytest
import torch
from helpers import CIFAR_SHAPE, CPU, HYPERNETS, MNIST_SHAPE, build_main_net, make_hypernet

from hypercl.engine.members import alone, stack_members
from hypercl.errors import InputError
from hypercl.networks.activations import MODULES
from hypercl.networks.main_net import MainNetwork

SMALL_RESNET = {"resnet_block_depth": 1}
SMALL_WRN = {"wrn_block_depth": 1, "wrn_widening_factor": 1}
BY_BATCH = {"batchnorm": True, "bn_no_running_stats": True}


def num_weights(*args, **values):
    return build_main_net(*args, **values).num_weights


def test_default_size_is_the_published_one():
    assert num_weights("mlp", MNIST_SHAPE, 2) == 88_802


@pytest.mark.parametrize(
    ("arguments", "values", "expected"),
    [
        (("mlp", MNIST_SHAPE, 2), {"mlp_arch": []}, 784 * 2 + 2),
        (("mlp", MNIST_SHAPE, 2), {"mlp_arch": [], "no_bias": True}, 784 * 2),
        (("mlp", MNIST_SHAPE, 2), {"mlp_arch": [5], **BY_BATCH}, 784 * 5 + 5 + 10 + 5 * 2 + 2),
        # running statistics are no weights
        (
            ("mlp", MNIST_SHAPE, 2),
            {"mlp_arch": [5], "batchnorm": True},
            784 * 5 + 5 + 10 + 5 * 2 + 2,
        ),
        (("lenet", MNIST_SHAPE, 10), {}, 21_840),
        (("lenet", MNIST_SHAPE, 10), {"lenet_type": "mnist_large"}, 431_080),
        (("lenet", CIFAR_SHAPE, 10), {"lenet_type": "cifar"}, 5_747_394),
        # 9 weights for each pair of channels in 31 convolutions, their biases, 64 * 10 + 10
        (("resnet", CIFAR_SHAPE, 10), {}, 463_018),
    ],
)
def test_sizes(arguments, values, expected):
    net = build_main_net(*arguments, **values)
    assert net.num_weights == net.module.num_params == expected
    assert sum(map(math.prod, net.shapes)) == expected


def test_wrn_keeps_the_last_bias_on_request():
    with_bias = num_weights("wrn", CIFAR_SHAPE, 10, **SMALL_WRN)
    without = num_weights("wrn", CIFAR_SHAPE, 10, no_bias=True, **SMALL_WRN)
    last_alone = num_weights(
        "wrn", CIFAR_SHAPE, 10, no_bias=True, wrn_use_fc_bias=True, **SMALL_WRN
    )
    assert last_alone == without + 10
    assert with_bias > last_alone
    assert num_weights("wrn", CIFAR_SHAPE, 10, wrn_use_fc_bias=True, **SMALL_WRN) == with_bias


def test_resnet_depth_and_width():
    def layers(**values):
        shapes = build_main_net("resnet", CIFAR_SHAPE, 10, **values).shapes
        return sum(len(shape) > 1 for shape in shapes)

    assert layers(resnet_block_depth=1) == 8
    assert layers() == 32
    assert num_weights("resnet", CIFAR_SHAPE, 10, resnet_channel_sizes=[4, 4, 8, 16]) < 40_000


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (("mlp", MNIST_SHAPE, 3), {}),
        (("mlp", MNIST_SHAPE, 3), {"dropout_rate": 0.2, "net_act": "elu", **BY_BATCH}),
        (("mlp", MNIST_SHAPE, 3), {"batchnorm": True}),
        (("lenet", MNIST_SHAPE, 3), {"dropout_rate": 0.2}),
        (("resnet", CIFAR_SHAPE, 3), SMALL_RESNET),
        (("resnet", CIFAR_SHAPE, 3), {"no_bias": True, **SMALL_RESNET, **BY_BATCH}),
        (("resnet", CIFAR_SHAPE, 3), {"batchnorm": True, **SMALL_RESNET}),
        (("wrn", CIFAR_SHAPE, 3), {**SMALL_WRN, **BY_BATCH}),
        (("wrn", CIFAR_SHAPE, 3), {"batchnorm": True, **SMALL_WRN}),
        (("wrn", CIFAR_SHAPE, 3), {"dropout_rate": 0.1, **SMALL_WRN}),
    ],
)
def test_main_net_has_no_weights_and_takes_flat_inputs(arguments, values):
    net = build_main_net(*arguments, **values)
    assert list(net.module.parameters()) == []
    stats = alone(net.fresh_stats(1, CPU))
    assert bool(stats) == (values.get("batchnorm", False) and "bn_no_running_stats" not in values)
    before = {name: value.clone() for name, value in stats.items()}
    weights = 0.1 * torch.randn(net.num_weights)
    logits = net.logits(weights, torch.randn(4, math.prod(arguments[1])), stats)
    assert logits.shape == (4, 3)
    assert all(not torch.equal(stats[name], value) for name, value in before.items())


@pytest.mark.parametrize("name", MODULES)
def test_every_activation(name):
    net = build_main_net("mlp", MNIST_SHAPE, 2, mlp_arch=[4], net_act=name)
    row = torch.randn(net.num_weights, dtype=torch.float64)
    weights = net.split(row)
    x = torch.randn(3, 784, dtype=torch.float64)
    act = MODULES[name] or (lambda h: h)
    expected = act(x @ weights[0].T + weights[1]) @ weights[2].T + weights[3]
    torch.testing.assert_close(net.module.forward(x, weights=weights), expected)
    torch.testing.assert_close(net.logits(row, x, {}), expected)


def test_unknown_types():
    with pytest.raises(InputError, match="--net_type: 'vgg' is none of lenet, mlp"):
        build_main_net("vgg", MNIST_SHAPE, 2)


@pytest.mark.parametrize(("net_type", "shape"), [("lenet", MNIST_SHAPE), ("zenke", CIFAR_SHAPE)])
def test_one_network_does_not_change_the_next(net_type, shape):
    first = build_main_net(net_type, shape, 2)
    second = build_main_net(net_type, shape, 10)
    assert (first.shapes[-1], second.shapes[-1]) == ((2,), (10,))
    assert (first.module.param_shapes[-1], second.module.param_shapes[-1]) == ([2], [10])
    assert num_weights(net_type, shape, 2) == first.num_weights


@pytest.mark.parametrize(
    ("arguments", "values", "expected"),
    [
        (("mlp", MNIST_SHAPE, 3), {}, "layers.2.bias"),
        (("mlp", MNIST_SHAPE, 3), {"batchnorm": True, "no_bias": True}, "norms.1.weight"),
        (("lenet", MNIST_SHAPE, 3), {}, "layers.3.bias"),
        (("zenke", CIFAR_SHAPE, 3), {}, "layers.5.bias"),
        (("resnet", CIFAR_SHAPE, 3), {"batchnorm": True, **SMALL_RESNET}, "norms.6.bias"),
        (("wrn", CIFAR_SHAPE, 3), {"batchnorm": True, **SMALL_WRN}, "shortcuts.1.weight"),
    ],
)
def test_every_tensor_has_a_name_and_fresh_weights(arguments, values, expected):
    net = build_main_net(*arguments, **values)
    assert expected in net.names
    assert len(set(net.names)) == len(net.shapes)
    assert net.names[-1].startswith("layers.")
    fresh = net.split(net.fresh_weights(torch.Generator().manual_seed(0)))
    for name, tensor in zip(net.names, fresh, strict=True):
        scale = name.startswith("norms.") and name.endswith("weight")
        shift = name.startswith("norms.") and name.endswith("bias")
        assert bool((tensor == 1).all()) == scale
        assert bool((tensor == 0).all()) == shift


def test_names_differ_where_a_network_does_not_describe_its_tensors():
    net = build_main_net("zenke", CIFAR_SHAPE, 2)
    net.module._param_shapes = [[3], [4, 3], [4], [4], [2, 4]]
    names = MainNetwork(net.module).names
    assert names == (
        "layers.0.bias", "layers.1.weight", "layers.1.bias", "layers.2.bias", "layers.3.weight",
    )  # fmt: skip


@pytest.mark.parametrize("kind", HYPERNETS)
def test_split_gives_the_main_networks_tensors(kind):
    """Of what a hypernetwork generates, those that hypnettorch's generates."""
    net = build_main_net("mlp", (2, 2, 1), 3, mlp_arch=[2])
    module, hnet, params = make_hypernet(target_shapes=net.shapes, **HYPERNETS[kind])
    pieces = net.split(hnet.weights(stack_members([params]), torch.tensor([[1]]))[0, 0])
    assert tuple(tuple(piece.shape) for piece in pieces) == net.shapes
    for piece, tensor in zip(pieces, module.forward(cond_id=1), strict=True):
        torch.testing.assert_close(piece, tensor)


def test_split_keeps_leading_dimensions_and_copies_nothing():
    net = build_main_net("mlp", (2, 2, 1), 3, mlp_arch=[2])
    weights = torch.randn(5, 2, net.num_weights)
    pieces = net.split(weights)
    assert [piece.shape for piece in pieces] == [(5, 2, *shape) for shape in net.shapes]
    for piece, of_one in zip(pieces, net.split(weights[3, 1]), strict=True):
        assert torch.equal(piece[3, 1], of_one)
        piece.zero_()
    assert weights.count_nonzero() == 0


def test_fresh_statistics_are_those_of_a_standard_normal():
    net = build_main_net("mlp", MNIST_SHAPE, 3, mlp_arch=[5, 4], batchnorm=True)
    stats = net.fresh_stats(2, CPU)
    shapes = {name: tuple(value.shape) for name, value in stats.items()}
    assert shapes == {"mean0": (2, 5), "variance0": (2, 5), "mean1": (2, 4), "variance1": (2, 4)}
    for name, value in stats.items():
        assert (value == (1 if name.startswith("variance") else 0)).all()


def test_evaluation_is_by_running_statistics_and_leaves_them():
    net = build_main_net("mlp", MNIST_SHAPE, 3, mlp_arch=[5], batchnorm=True)
    weights, inputs = torch.randn(net.num_weights), torch.randn(4, 784)
    stats = alone(net.fresh_stats(1, CPU))
    net.logits(weights, inputs, stats)
    before = {name: value.clone() for name, value in stats.items()}
    with net.evaluating():
        assert not net.module.training
        together = net.logits(weights, inputs, stats)
        one_by_one = [net.logits(weights, row[None], stats)[0] for row in inputs]
    assert net.module.training
    torch.testing.assert_close(together, torch.stack(one_by_one), rtol=1e-3, atol=1e-3)
    assert all(torch.equal(stats[name], value) for name, value in before.items())


def test_networks_share_a_cpu_as_long_as_they_share_its_cache(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    cuda = torch.device("cuda")
    small, large = (build_main_net("mlp", MNIST_SHAPE, 2, mlp_arch=[n]) for n in (112, 2000))
    assert small.most_together(CPU) == 11
    assert large.most_together(CPU) == 1
    assert build_main_net("resnet", CIFAR_SHAPE, 2).most_together(CPU) == 1
    assert large.most_together(cuda) == math.inf
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert small.most_together(CPU) == 23
    assert large.most_together(CPU) == 1
