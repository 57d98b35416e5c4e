"""Sums of squared gradients: of convolutions against a loop, of MLPs against the general way."""

import pytest
import torch
from helpers import CPU, build_main_net, in_double, random_weights

from hypercl.networks import fisher, plain_mlp
from hypercl.networks.fisher import sum_of_squares


def drawn(net, in_size, number=9, outputs=4):
    """Weights, inputs, running statistics, labels and scales of two members."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(2, number, in_size, generator=generator, dtype=torch.float64)
    labels = torch.randint(outputs, (2, number), generator=generator)
    scale = torch.rand(2, number, generator=generator, dtype=torch.float64)
    stats = in_double(net.fresh_stats(2, CPU))
    return random_weights(net, 2, 0), inputs, stats, labels, scale


def by_loop(net, weights, inputs, stats, labels, scale, outputs):
    sums = torch.zeros_like(weights)
    for member in range(len(weights)):
        own_stats = {name: value[member] for name, value in stats.items()}
        for x, label, factor in zip(inputs[member], labels[member], scale[member], strict=True):
            w = weights[member].clone().requires_grad_()
            logits = net.logits(w, x[None], own_stats)[0, outputs]
            (gradient,) = torch.autograd.grad(logits.log_softmax(0)[label], w)
            sums[member] += factor * gradient.square()
    return sums


@pytest.mark.parametrize("outputs", [slice(None, 4), slice(2, 6)])
@pytest.mark.parametrize(
    ("net_type", "shape", "values"),
    [
        ("mlp", (3, 3, 1), {"mlp_arch": [5, 4]}),
        ("mlp", (3, 3, 1), {"mlp_arch": [], "no_bias": True}),
        ("mlp", (3, 3, 1), {"mlp_arch": [5], "net_act": "sigmoid"}),
        ("mlp", (3, 3, 1), {"mlp_arch": [5], "batchnorm": True}),
        ("lenet", (28, 28, 1), {}),
        ("resnet", (32, 32, 3), {"resnet_block_depth": 1, "resnet_channel_sizes": [4, 4, 6, 8],
                                 "batchnorm": True}),
    ],
)  # fmt: skip
def test_the_sum_is_that_of_a_loop(net_type, shape, values, outputs, monkeypatch):
    """In parts, too: of so many gradients, or so many samples, at once."""
    net = build_main_net(net_type, shape, 7, **values)
    given = drawn(net, shape[0] * shape[1] * shape[2], number=4 if net_type == "resnet" else 9)
    with net.evaluating():
        expected = by_loop(net, *given, outputs)
        for at_once in (2, 1000):
            monkeypatch.setattr(fisher, "_NUMBERS", at_once * net.num_weights)
            monkeypatch.setattr(fisher, "_SAMPLES", at_once)
            found = sum_of_squares(net, *given, outputs)
            torch.testing.assert_close(found, expected)


def test_what_belongs_to_other_outputs_is_zero():
    net = build_main_net("mlp", (3, 3, 1), 7, mlp_arch=[5])
    found = sum_of_squares(net, *drawn(net, 9), slice(2, 6))
    for tensor in net.split(found)[-2:]:  # of the output layer
        rows = tensor.flatten(2).sum(-1) if tensor.ndim > 2 else tensor
        assert (rows[:, [0, 1, 6]] == 0).all()
        assert (rows[:, 2:6] > 0).all()


@pytest.mark.parametrize("activation", ["linear", "sigmoid", "relu", "elu", "tanh"])
def test_the_closed_form_is_the_general_way(activation, monkeypatch):
    net = build_main_net("mlp", (3, 3, 1), 6, mlp_arch=[5, 4], net_act=activation)
    given = drawn(net, 9)
    closed = sum_of_squares(net, *given, slice(0, 4))
    monkeypatch.setattr(plain_mlp, "plain_activation", lambda module: None)
    torch.testing.assert_close(sum_of_squares(net, *given, slice(0, 4)), closed)
