import math

import pytest
import torch

from hypercl import networks
from hypercl.errors import InputError
from hypercl.networks import ACTIVATIONS, build_hypernet, build_main_net

MNIST, CIFAR = (28, 28, 1), (32, 32, 3)


def num_params(*args, **kwargs):
    return build_main_net(*args, **kwargs).num_params


def test_default_sizes_are_the_published_ones():
    mnet = build_main_net("mlp", MNIST, 2)
    assert mnet.num_params == 88_802
    assert build_hypernet("chunked_hmlp", mnet.param_shapes, 5).num_params == 88_542


@pytest.mark.parametrize(
    ("arguments", "options", "expected"),
    [
        (("mlp", MNIST, 2), {"mlp_arch": ()}, 784 * 2 + 2),
        (("mlp", MNIST, 2), {"mlp_arch": (), "bias": False}, 784 * 2),
        (("mlp", MNIST, 2), {"mlp_arch": (5,), "batchnorm": True}, 784 * 5 + 5 + 10 + 5 * 2 + 2),
        (("lenet", MNIST, 10), {}, 21_840),
        (("lenet", MNIST, 10), {"lenet_type": "mnist_large"}, 431_080),
        (("lenet", CIFAR, 10), {"lenet_type": "cifar"}, 5_747_394),
        # 9 weights for each pair of channels in 31 convolutions, their biases, 64 * 10 + 10
        (("resnet", CIFAR, 10), {}, 463_018),
    ],
)
def test_sizes(arguments, options, expected):
    assert num_params(*arguments, **options) == expected


def test_wrn_keeps_the_last_bias_on_request():
    small = {"wrn_block_depth": 1, "wrn_widening_factor": 1}
    with_bias = num_params("wrn", CIFAR, 10, **small)
    without = num_params("wrn", CIFAR, 10, bias=False, **small)
    last_alone = num_params("wrn", CIFAR, 10, bias=False, wrn_use_fc_bias=True, **small)
    assert last_alone == without + 10
    assert with_bias > last_alone
    assert num_params("wrn", CIFAR, 10, wrn_use_fc_bias=True, **small) == with_bias


def test_resnet_depth_and_width():
    def layers(**options):
        shapes = build_main_net("resnet", CIFAR, 10, **options).param_shapes
        return sum(len(shape) > 1 for shape in shapes)

    assert layers(resnet_block_depth=1) == 8
    assert layers() == 32
    assert num_params("resnet", CIFAR, 10, resnet_channel_sizes=(4, 4, 8, 16)) < 40_000


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("mlp", MNIST, 3), {}),
        (("mlp", MNIST, 3), {"batchnorm": True, "dropout_rate": 0.2, "net_act": "elu"}),
        (("lenet", MNIST, 3), {"dropout_rate": 0.2}),
        (("resnet", CIFAR, 3), {"resnet_block_depth": 1}),
        (("resnet", CIFAR, 3), {"resnet_block_depth": 1, "batchnorm": True, "bias": False}),
        (("wrn", CIFAR, 3), {"wrn_block_depth": 1, "wrn_widening_factor": 1, "batchnorm": True}),
        (("wrn", CIFAR, 3), {"wrn_block_depth": 1, "wrn_widening_factor": 1, "dropout_rate": 0.1}),
    ],
)
def test_main_net_has_no_weights_and_takes_flat_inputs(arguments, options):
    mnet = build_main_net(*arguments, **options)
    assert list(mnet.parameters()) == []
    height, width, channels = arguments[1]
    weights = [0.1 * torch.randn(shape) for shape in mnet.param_shapes]
    logits = mnet.forward(torch.randn(4, height * width * channels), weights=weights)
    assert logits.shape == (4, 3)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_in_both_networks(name):
    mnet = build_main_net("mlp", MNIST, 2, mlp_arch=(4,), net_act=name)
    weights = [torch.randn(shape) for shape in mnet.param_shapes]
    x = torch.randn(3, 784)
    act = ACTIVATIONS[name] or (lambda h: h)
    expected = act(x @ weights[0].T + weights[1]) @ weights[2].T + weights[3]
    torch.testing.assert_close(mnet.forward(x, weights=weights), expected)
    build_hypernet("hmlp", [[3]], 2, activation=name)


def test_unknown_types():
    with pytest.raises(ValueError, match="vgg"):
        build_main_net("vgg", MNIST, 2)
    with pytest.raises(ValueError, match="gru"):
        build_hypernet("gru", [[3]], 2)


@pytest.mark.parametrize(("net", "shape"), [("lenet", MNIST), ("zenke", CIFAR)])
def test_one_network_does_not_change_the_next(net, shape):
    first = build_main_net(net, shape, 2)
    second = build_main_net(net, shape, 10)
    assert (first.param_shapes[-1], second.param_shapes[-1]) == ([2], [10])
    assert build_main_net(net, shape, 2).num_params == first.num_params


def initialized(**settings):
    """A small chunked hypernetwork before and after."""
    mnet = build_main_net("mlp", (28, 28, 1), 10, mlp_arch=(20,))
    torch.manual_seed(0)
    module = build_hypernet(
        "chunked_hmlp", mnet.param_shapes, 40, cond_emb_size=20, chunk_emb_size=20, chunk_size=300
    )
    before = {name: value.clone() for name, value in module.state_dict().items()}
    networks.initialize_hypernet(module, mnet, **settings)
    changed = {
        name for name, value in module.state_dict().items() if not torch.equal(value, before[name])
    }
    return module, changed


def test_by_default_the_initialization_is_hypnettorchs():
    assert initialized()[1] == set()


def test_xavier_weights_and_zero_biases():
    module, _ = initialized(scheme="xavier")
    for weight in module.layer_weight_tensors:
        limit = math.sqrt(6 / sum(weight.shape))
        assert 0.9 * limit < weight.abs().max() <= limit
    assert all(bias.count_nonzero() == 0 for bias in module.layer_bias_vectors)


def test_standard_deviations_of_embeddings():
    module, changed = initialized(std_task_embs=0.1, std_chunk_embs=3.0)
    embeddings = networks.embeddings_of(module)
    assert len(embeddings["task_embs"]) == 40
    assert torch.stack(list(embeddings["task_embs"])).std().item() == pytest.approx(0.1, rel=0.1)
    assert embeddings["chunk_embs"][0].std().item() == pytest.approx(3, rel=0.1)
    assert not any("weight" in name or "bias" in name for name in changed), changed


def test_hyperfan_gives_generated_weights_the_scale_of_a_common_initialization():
    """The variance of a layer's generated weights is 2 / fan-in, within a factor of 3."""

    def variance(**settings):
        module, _ = initialized(std_task_embs=0.01, **settings)
        return torch.stack([module.forward(cond_id=i)[0] for i in range(40)]).var().item()

    assert 1 / 3 < variance(hyperfan=True) / (2 / 784) < 3
    assert variance() / (2 / 784) > 3


@pytest.mark.parametrize("ratio", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("options", [{}, {"cond_chunk_embs": True, "bias": False}])
def test_a_chunk_size_is_found_for_a_compression_ratio(options, ratio):
    mnet = build_main_net("mlp", MNIST, 10)
    small = {"hmlp_arch": (20,), "cond_emb_size": 5, "chunk_emb_size": 6, **options}
    size = networks.chunk_size_for(ratio, mnet.num_params, 7, **small)

    def miss(chunk_size):
        module = build_hypernet(
            "chunked_hmlp", mnet.param_shapes, 7, chunk_size=chunk_size, **small
        )
        return abs(module.num_params / mnet.num_params - ratio)

    assert miss(size) < 0.01 * ratio
    assert miss(size) <= min(miss(size - 1), miss(size + 1))


def test_a_compression_ratio_that_no_chunk_size_has():
    with pytest.raises(InputError, match=r"--compression=0.01 .* nearest is 0\.\d+"):
        networks.chunk_size_for(0.01, 89_000, 5)


def test_networks_share_a_cpu_as_long_as_they_share_its_cache(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    small, large = (build_main_net("mlp", MNIST, 2, mlp_arch=[n]) for n in (112, 2000))
    assert networks.most_together(small, cpu) == 11
    assert networks.most_together(large, cpu) == 1
    assert networks.most_together(build_main_net("resnet", CIFAR, 2), cpu) == 1
    assert networks.most_together(large, cuda) == math.inf
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert networks.most_together(small, cpu) == 23
    assert networks.most_together(large, cpu) == 1
