"""hypnettorch's hypernetworks: their sizes, initialization and chunk sizes."""

import math

import pytest
import torch
from helpers import MNIST_SHAPE, build_main_net, build_module
from hypnettorch.hnets import HMLP, ChunkedHMLP

from hypercl.engine.seeding import derive_seed
from hypercl.errors import InputError
from hypercl.networks import hnet_modules
from hypercl.networks.activations import MODULES
from hypercl.options import Options
from train_args import parse_args


def test_default_size_is_the_published_one():
    net = build_main_net("mlp", MNIST_SHAPE, 2)
    assert build_module(net.shapes, 5).num_params == 88_542


@pytest.mark.parametrize("name", MODULES)
def test_every_activation(name):
    module = build_module([[3]], 2, hnet_type="hmlp", hnet_net_act=name, hmlp_arch=[4])
    (first, last), (bias, last_bias) = module.layer_weight_tensors, module.layer_bias_vectors
    act = MODULES[name] or (lambda h: h)
    for task_id, embedding in enumerate(hnet_modules.embeddings_of(module)["task_embs"]):
        expected = act(embedding @ first.T + bias) @ last.T + last_bias
        torch.testing.assert_close(module.forward(cond_id=task_id)[0], expected)


def test_types(capsys):
    assert type(build_module([[3]], 2, hnet_type="hmlp")) is HMLP
    assert type(build_module([[3]], 2, hnet_type="chunked_hmlp")) is ChunkedHMLP
    with pytest.raises(SystemExit):
        parse_args(["--hnet_type=gru"])
    assert "gru" in capsys.readouterr().err


SMALL = {"cond_emb_size": 20, "chunk_emb_size": 20, "chmlp_chunk_size": 300}


def hypnettorchs(net, num_tasks):
    """The same, made by hypnettorch alone."""
    torch.manual_seed(derive_seed(0, "initialization"))
    return ChunkedHMLP(
        [list(shape) for shape in net.shapes],
        chunk_size=300,
        chunk_emb_size=20,
        cond_in_size=20,
        num_cond_embs=num_tasks,
        layers=(100, 100),
        verbose=False,
    )


def initialized(**values):
    """A small chunked hypernetwork, and which of its parameters are not as hypnettorch has them."""
    net = build_main_net("mlp", MNIST_SHAPE, 10, mlp_arch=[20])
    module = hnet_modules.build_module(Options.of({**SMALL, **values}).hypernet, net, 40, seed=0)
    before = hypnettorchs(net, 40).state_dict()
    assert module.state_dict().keys() == before.keys()
    changed = {
        name for name, value in module.state_dict().items() if not torch.equal(value, before[name])
    }
    return module, changed


def test_by_default_the_initialization_is_hypnettorchs():
    assert initialized()[1] == set()


def test_the_initialization_follows_from_the_seed_alone():
    def weights(seed):
        return torch.cat([value.flatten() for value in build_module([[3]], 2, seed).parameters()])

    torch.manual_seed(0)
    first, state = weights(1), torch.get_rng_state()
    torch.manual_seed(1)
    again, other = weights(1), weights(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)  # which was left as it was


def test_xavier_weights_and_zero_biases():
    module, _ = initialized(hnet_init="xavier")
    for weight in module.layer_weight_tensors:
        limit = math.sqrt(6 / sum(weight.shape))
        assert 0.9 * limit < weight.abs().max() <= limit
    assert all(bias.count_nonzero() == 0 for bias in module.layer_bias_vectors)


def test_standard_deviations_of_embeddings():
    module, changed = initialized(std_normal_temb=0.1, std_normal_emb=3.0)
    embeddings = hnet_modules.embeddings_of(module)
    assert len(embeddings["task_embs"]) == 40
    assert torch.stack(list(embeddings["task_embs"])).std().item() == pytest.approx(0.1, rel=0.1)
    assert embeddings["chunk_embs"][0].std().item() == pytest.approx(3, rel=0.1)
    assert not any("weight" in name or "bias" in name for name in changed), changed


def test_hyperfan_gives_generated_weights_the_scale_of_a_common_initialization():
    """The variance of a layer's generated weights is 2 / fan-in, within a factor of 3."""

    def variance(**values):
        module, _ = initialized(std_normal_temb=0.01, **values)
        return torch.stack([module.forward(cond_id=i)[0] for i in range(40)]).var().item()

    assert 1 / 3 < variance(hyper_fan_init=True) / (2 / 784) < 3
    assert variance() / (2 / 784) > 3


@pytest.mark.parametrize("ratio", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("more", [{}, {"use_cond_chunk_embs": True, "hnet_no_bias": True}])
def test_a_chunk_size_is_found_for_a_compression_ratio(more, ratio):
    net = build_main_net("mlp", MNIST_SHAPE, 10)
    values = {"hmlp_arch": [20], "cond_emb_size": 5, "chunk_emb_size": 6, **more}
    asked = {**values, "compression": ratio}
    size = hnet_modules.chunk_size(Options.of(asked).hypernet, net.num_weights, 7)

    def num_params(chunk_size):
        return build_module(net.shapes, 7, **values, chmlp_chunk_size=chunk_size).num_params

    def miss(chunk_size):
        return abs(num_params(chunk_size) / net.num_weights - ratio)

    assert miss(size) < 0.01 * ratio
    assert miss(size) <= min(miss(size - 1), miss(size + 1))
    assert build_module(net.shapes, 7, **asked).num_params == num_params(size)


def test_without_a_ratio_the_chunk_size_is_the_one_given():
    assert hnet_modules.chunk_size(Options.of({"chmlp_chunk_size": 30}).hypernet, 89_000, 5) == 30


def test_a_compression_ratio_that_no_chunk_size_has():
    options = Options.of({"compression": 0.01}).hypernet
    with pytest.raises(InputError, match=r"--compression=0.01 .* nearest is 0\.\d+"):
        hnet_modules.chunk_size(options, 89_000, 5)
