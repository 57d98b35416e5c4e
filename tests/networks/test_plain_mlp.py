"""The written-out network against hypnettorch's with autograd."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers import build_main_net
from hypnettorch.mnets import MLP

from hypercl.networks.criteria import cross_entropy
from hypercl.networks.plain_mlp import loss_and_gradient, plain_activation


@pytest.mark.parametrize("arch", [[], [5], [5, 7]])
@pytest.mark.parametrize("no_bias", [False, True])
@pytest.mark.parametrize("activation", ["linear", "sigmoid", "relu", "elu", "tanh"])
def test_loss_accuracy_and_gradient_are_those_of_hypnettorchs_network(activation, no_bias, arch):
    net = build_main_net("mlp", (3, 3, 1), 4, mlp_arch=arch, net_act=activation, no_bias=no_bias)
    members, size = 3, 6
    generator = torch.Generator().manual_seed(0)
    draw = {"generator": generator, "dtype": torch.float64}
    weights = torch.randn(members, net.num_weights, **draw).requires_grad_()
    inputs = torch.randn(members, size, 9, **draw)
    labels = torch.randint(4, (members, size), generator=generator)

    gradient = torch.full_like(weights, torch.nan)
    with torch.no_grad():
        loss, accuracy = loss_and_gradient(
            plain_activation(net.module), net.split(weights), net.split(gradient), inputs,
            partial(cross_entropy, labels=labels),
        )  # fmt: skip
    for i in range(members):
        logits = net.module.forward(inputs[i], weights=net.split(weights[i]))
        expected = F.cross_entropy(logits, labels[i])
        torch.testing.assert_close(loss[i], expected.detach())
        assert accuracy[i] == (logits.argmax(1) == labels[i]).double().mean()
        torch.testing.assert_close(gradient[i], torch.autograd.grad(expected, weights)[0][i])


def test_other_outputs_take_no_part():
    net = build_main_net("mlp", (2, 2, 1), 6, mlp_arch=[3])
    weights = torch.randn(2, net.num_weights, dtype=torch.float64).requires_grad_()
    inputs = torch.randn(2, 5, 4, dtype=torch.float64)
    labels = torch.randint(2, (2, 5))
    gradient = torch.zeros_like(weights)
    with torch.no_grad():
        loss, _ = loss_and_gradient(
            plain_activation(net.module), net.split(weights), net.split(gradient),
            inputs, partial(cross_entropy, labels=labels), slice(2, 4),
        )  # fmt: skip
    for i in range(2):
        logits = net.module.forward(inputs[i], weights=net.split(weights[i]))[:, 2:4]
        expected = F.cross_entropy(logits, labels[i])
        torch.testing.assert_close(loss[i], expected.detach())
        torch.testing.assert_close(gradient[i], torch.autograd.grad(expected, weights)[0][i])


@pytest.mark.parametrize("values", [{}, {"no_bias": True}, {"batchnorm": True}], ids=str)
@pytest.mark.parametrize("arch", [[], [5], [5, 7]])
@pytest.mark.parametrize("outputs", [[(0, 2), (4, 6), (2, 4)], [(0, 6)] * 3], ids=["heads", "all"])
def test_networks_on_the_same_inputs_make_what_each_makes_alone(outputs, arch, values):
    """Batch normalization is no plain MLP, and goes the general way."""
    net = build_main_net("mlp", (3, 3, 1), 6, mlp_arch=arch, net_act="tanh", **values)
    weights = torch.randn(3, net.num_weights, dtype=torch.float64)
    inputs = torch.randn(5, 9, dtype=torch.float64)
    stats = {name: value.double() for name, value in net.fresh_stats(3, weights.device).items()}
    columns = [slice(*ends) for ends in outputs]
    with net.evaluating():
        made = net.on_same_inputs(weights, stats, columns)(inputs)
        for i, which in enumerate(columns):
            own = {name: value[i] for name, value in stats.items()}
            alone = net.logits(weights[i], inputs, own)[:, which]
            torch.testing.assert_close(made[i], alone)


def test_saturated_logits_give_a_finite_loss_and_gradient():
    net = build_main_net("mlp", (1, 1, 1), 2, mlp_arch=[])
    weights = torch.tensor([[1e4, -1e4, 0.0, 0.0]])
    gradient = torch.empty_like(weights)
    loss, _ = loss_and_gradient(
        plain_activation(net.module),
        net.split(weights),
        net.split(gradient),
        torch.ones(1, 1, 1),
        partial(cross_entropy, labels=torch.ones(1, 1, dtype=torch.int64)),
    )
    assert loss.item() == 2e4
    assert gradient.tolist() == [[1.0, -1.0, 1.0, -1.0]]


def test_an_mlp_with_a_forward_of_its_own_is_not_plain():
    class Doubled(MLP):
        def forward(self, *args, **options):
            return 2 * super().forward(*args, **options)

    options = {"n_in": 5, "n_out": 2, "hidden_layers": (4,), "no_weights": True}
    assert plain_activation(MLP(**options, verbose=False)) is not None
    assert plain_activation(Doubled(**options, verbose=False)) is None
    odd = MLP(**options, activation_fn=torch.nn.Softsign(), verbose=False)
    assert plain_activation(odd) is None


@pytest.mark.parametrize(
    ("net_type", "values"),
    [
        ("mlp", {"batchnorm": True}),
        ("mlp", {"batchnorm": True, "bn_no_running_stats": True}),
        ("mlp", {"dropout_rate": 0.2}),
        ("lenet", {}),
        ("resnet", {}),
    ],
)
def test_other_networks_are_not_plain(net_type, values):
    assert plain_activation(build_main_net(net_type, (28, 28, 1), 2, **values).module) is None
