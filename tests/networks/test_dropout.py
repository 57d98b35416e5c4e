"""Dropout that draws from a generator of its own."""

import pytest
import torch
from helpers import MNIST_SHAPE, build_main_net
from torch import nn

from hypercl.engine.seeding import drawing_from
from hypercl.networks.dropout import Dropout, replace_dropout


@pytest.mark.parametrize(("shape", "members"), [((5, 7), None), ((5, 7, 4, 3), None), ((5, 7), 3)])
def test_it_draws_what_torchs_own_draws(shape, members):
    ours, theirs = Dropout(0.3), nn.Dropout(0.3)
    x = torch.randn(shape if members is None else (*shape[:1], members, *shape[1:]))
    results = []
    for layer in (ours, theirs):
        function = layer
        if members is not None:  # which do not come first
            function = torch.func.vmap(layer, in_dims=1, randomness="different")
        torch.manual_seed(2)
        results.append(function(x))
    assert torch.equal(*results)
    assert 0.1 < (results[0] == 0).float().mean() < 0.5


def test_it_draws_as_torchs_own_where_channels_come_last():
    x = torch.randn(4, 6, 3, 5).to(memory_format=torch.channels_last)
    results = []
    for layer in (Dropout(0.4), nn.Dropout(0.4)):
        torch.manual_seed(2)
        results.append(layer(x))
    assert torch.equal(*results)


def test_whole_features_stay_or_go_as_torchs_do():
    x = torch.randn(4, 6, 3, 3)
    results = []
    for layer in (Dropout(0.4, whole_features=True), nn.Dropout2d(0.4)):
        torch.manual_seed(2)
        results.append(layer(x))
    assert torch.equal(*results)
    zero = (results[0] == 0).flatten(2)
    assert torch.equal(zero.any(-1), zero.all(-1))
    assert zero.any()


def test_it_draws_from_the_generator_of_the_step():
    layer, x = Dropout(0.5), torch.ones(100)
    before = torch.get_rng_state()
    masks = []
    for _ in range(2):
        with drawing_from(torch.Generator().manual_seed(1)):
            masks.append((layer(x), layer(x)))
    assert torch.equal(masks[0][0], masks[1][0])
    assert not torch.equal(*masks[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_gradients_go_through_what_stays():
    x = torch.ones(100, requires_grad=True)
    y = Dropout(0.5)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


@pytest.mark.parametrize("layer", [Dropout(0.5).eval(), Dropout(0.0)], ids=["tested", "rate 0"])
def test_nothing_is_dropped_and_nothing_drawn(layer):
    before = torch.get_rng_state()
    assert torch.equal(layer(torch.ones(9)), torch.ones(9))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("features", [nn.Dropout1d, nn.Dropout2d, nn.Dropout3d])
def test_features_of_any_dimensions_and_a_layer_in_two_places(features):
    layer = features(0.5)
    module = nn.ModuleDict({"a": layer, "b": layer})
    replace_dropout(module)
    x = torch.ones(4, 6, *[3] * int(features.__name__[-2]))
    for name in ("a", "b"):
        assert type(module[name]) is Dropout
        with drawing_from(torch.Generator().manual_seed(1)):
            dropped = (module[name](x) == 0).flatten(2)
        assert torch.equal(dropped.any(-1), dropped.all(-1))
        assert 0 < dropped.float().mean() < 1


def test_all_can_be_dropped():
    assert torch.equal(Dropout(1.0)(torch.ones(9)), torch.zeros(9))


def test_every_dropout_of_a_network_is_replaced():
    module = nn.Sequential(nn.Dropout(0.1), nn.Sequential(nn.Dropout2d(0.2), nn.ReLU()))
    replace_dropout(module)
    outer, inner = module[0], module[1][0]
    assert (outer.rate, outer.whole_features) == (0.1, False)
    assert (inner.rate, inner.whole_features) == (0.2, True)
    for net_type in ("mlp", "lenet"):
        net = build_main_net(net_type, MNIST_SHAPE, 2, dropout_rate=0.2)
        own = [child for child in net.module.modules() if isinstance(child, Dropout)]
        assert own
        assert not any(type(child) in (nn.Dropout, nn.Dropout2d) for child in net.module.modules())
