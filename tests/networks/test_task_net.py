"""A main network with a task's weights inside, as a module of torch."""

import copy
import io
import math
import warnings

import pytest
import torch
from helpers import CIFAR_SHAPE, CPU, MNIST_SHAPE, build_main_net, make_task
from torch import nn

from hypercl.engine.members import alone
from hypercl.errors import InputError
from hypercl.networks.main_net import main_network
from hypercl.networks.module_net import ModuleNet
from hypercl.networks.task_net import TaskNet

SMALL_RESNET = {"resnet_block_depth": 1, "resnet_channel_sizes": [4, 4, 6, 8]}
SMALL_WRN = {"wrn_block_depth": 1, "wrn_widening_factor": 1}
BY_BATCH = {"batchnorm": True, "bn_no_running_stats": True}
NETS = {
    "mlp": ("mlp", MNIST_SHAPE, {"dropout_rate": 0.2}),
    "mlp, no bias": ("mlp", MNIST_SHAPE, {"batchnorm": True, "no_bias": True}),
    "mlp, by batch": ("mlp", MNIST_SHAPE, BY_BATCH),
    "lenet": ("lenet", MNIST_SHAPE, {"dropout_rate": 0.2}),
    "zenke": ("zenke", CIFAR_SHAPE, {"dropout_rate": 0.1}),
    "resnet": ("resnet", CIFAR_SHAPE, SMALL_RESNET),
    "resnet, normalized": ("resnet", CIFAR_SHAPE, {"batchnorm": True, **SMALL_RESNET}),
    "wrn": ("wrn", CIFAR_SHAPE, {"batchnorm": True, **SMALL_WRN}),
    "wrn, by batch": ("wrn", CIFAR_SHAPE, {**BY_BATCH, **SMALL_WRN}),
}
EXPORTED = ["mlp", "lenet", "zenke", "resnet, normalized", "wrn, by batch"]


def make_net(name, *, prepared=True):
    """A network with two of five outputs, its task, and the logits that it should have."""
    net_type, shape, values = NETS[name]
    generator = torch.Generator().manual_seed(3)
    more = {"outputs": slice(2, 4)}
    if prepared:
        channels = shape[-1]
        more["permutation"] = torch.randperm(math.prod(shape), generator=generator)
        more["mean"] = torch.rand(channels, generator=generator)
        more["std"] = 0.1 + torch.rand(channels, generator=generator)
    task = make_task(shape, n=4, **more)
    net = build_main_net(net_type, shape, 5, **values)
    weights, stats = net.fresh_weights(generator), alone(net.fresh_stats(1, CPU))
    stats = {k: v + torch.rand(v.shape, generator=generator) for k, v in stats.items()}
    images = task.test.images[:8]
    with net.evaluating(), torch.no_grad():
        logits = net.logits(weights, task.inputs(images), stats)[:, task.outputs]
    return TaskNet(net, net.split(weights), stats, task), images, logits


class OddNames(nn.Module):
    """Its layers and buffers have names that the module with weights could want for itself."""

    def __init__(self):
        super().__init__()
        self.preprocessing = nn.BatchNorm1d(6)
        self.outputs = nn.Linear(6, 5)
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x):
        x = x.flatten(1)
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
        return self.outputs(self.preprocessing(x - self.mean))


def test_a_module_of_the_users_may_have_any_names():
    task = make_task((1, 1, 6), n=4, mean=torch.rand(6), std=0.5 + torch.rand(6))
    net = main_network(ModuleNet(OddNames, (1, 1, 6), 5, "net"))
    weights = net.fresh_weights(torch.Generator().manual_seed(0))
    stats = alone(net.fresh_stats(1, CPU))
    net.logits(weights, task.inputs(task.train.images), stats)
    inside = TaskNet(net, net.split(weights), stats, task)
    names = {name for name in inside.state_dict() if not name.startswith("preprocessing_of_task.")}
    twin = OddNames().eval()
    counter = "preprocessing.num_batches_tracked"
    assert names == set(twin.state_dict()) - {counter}
    own = {name: value for name, value in inside.state_dict().items() if name in names}
    twin.load_state_dict({**own, counter: torch.tensor(0)})
    images = task.test.images
    assert stats["mean"].abs().max() > 0
    torch.testing.assert_close(inside(images), twin(task.inputs(images))[:, task.outputs])


@pytest.fixture(params=NETS)
def each(request):
    return make_net(request.param)


@torch.no_grad()
def test_logits_are_those_of_the_main_network(each):
    net, images, logits = each
    assert torch.equal(net(images), logits)
    assert torch.equal(net(images.float()), logits)  # of the same range
    assert torch.equal(copy.deepcopy(net)(images), logits)
    again = net.train().eval()
    assert torch.equal(again(images), logits)


@torch.no_grad()
def test_its_state_is_all_that_it_knows(each):
    """Saved, and loaded into the same network with other numbers."""
    net, images, logits = each
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert {"layers.0.weight", "preprocessing.mean", "preprocessing.permutation"} <= state.keys()
    assert len(state) == len(list(net.parameters())) + len(list(net.buffers()))
    other = copy.deepcopy(net)
    for tensor in other.state_dict().values():
        tensor.zero_()
    assert not torch.equal(other(images), logits)
    other.load_state_dict(state)
    assert torch.equal(other(images), logits)


@pytest.mark.parametrize("name", ["mlp", "wrn", "mlp, by batch"])
def test_it_can_be_trained_on(name):
    net, images, logits = make_net(name)
    net.train()
    labels = torch.arange(len(images)) % 2
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    stats = {name: value.clone() for name, value in net.named_buffers() if "running" in name}
    assert bool(stats) == (name == "wrn")
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    buffers = dict(net.named_buffers())
    assert all(not torch.equal(buffers[name], value) for name, value in stats.items())
    with torch.no_grad():
        assert not torch.equal(net.eval()(images), logits)


@torch.no_grad()
def test_an_mlp_in_plain_torch_takes_its_tensors():
    net, images, logits = make_net("mlp", prepared=False)
    layers = [nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 5)]
    plain = nn.Sequential(nn.Flatten(), *layers)
    state = list(net.state_dict().values())
    plain.load_state_dict(dict(zip(plain.state_dict(), state, strict=True)))
    torch.testing.assert_close(plain(images / 255)[:, 2:4], logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", EXPORTED)
def test_torch_export_and_onnx(name, tmp_path):
    net, images, logits = make_net(name)
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(net, (images[:3],), dynamic_shapes=shapes)
    torch.testing.assert_close(program.module()(images), logits, rtol=0, atol=1e-6)
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    onnxruntime = pytest.importorskip("onnxruntime")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(program, dynamo=True, verbose=False).save(tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    (there,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    atol = 5e-6 if "by batch" in name else 1e-6
    torch.testing.assert_close(torch.from_numpy(there), logits, rtol=0, atol=atol)


def test_images_of_another_shape_are_refused():
    net, images, _ = make_net("mlp")
    grey = net(images[..., 0])
    assert torch.equal(grey, net(images))
    with pytest.raises(InputError, match=r"shape \[8, 1, 28, 28\]: give \[number, 28, 28, 1\]"):
        net(images.permute(0, 3, 1, 2))
    net, images, _ = make_net("resnet")
    with pytest.raises(InputError, match=r"give \[number, 32, 32, 3\]"):
        net(images[..., 0])
