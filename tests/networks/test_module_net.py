"""Modules of the user's as main networks: against the real module with weights of its own."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import CPU, make_experiment, make_task
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from hypercl.engine.capture import StepRunner
from hypercl.engine.members import alone, select_members, stack_members
from hypercl.engine.seeding import drawing_from
from hypercl.errors import InputError
from hypercl.methods.base import Batch, Setting
from hypercl.methods.hnet import Hnet
from hypercl.networks import hnet_modules
from hypercl.networks.fisher import sum_of_squares
from hypercl.networks.main_net import TaskLoss, main_network
from hypercl.networks.module_net import ModuleNet
from hypercl.options import Options
from hypercl.tasks.task import with_heads

CUDA = torch.device("cuda")
SHAPE = (6, 6, 3)


class Cnn(nn.Module):
    """With all that a plain network has: batch normalization, dropout, shared layers."""

    def __init__(self, dropout=0.4, num_classes=3):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.drop = nn.Dropout(dropout)
        self.out = nn.Linear(4 * 9, num_classes)

    def forward(self, x):
        x = F.max_pool2d(self.norm(self.first(x)).relu(), 2)
        x = self.second(self.second(x).tanh())
        return self.out(self.drop(x.flatten(1)))


def network(make, shape=SHAPE, num_outputs=3):
    return main_network(ModuleNet(make, shape, num_outputs, "--net_type=my.py:Net"))


def drawn(members=1, number=5, steps=None, shape=SHAPE, num_outputs=3):
    """Inputs and labels of some members."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(members, number, math.prod(shape), generator=generator)
    return inputs, torch.randint(num_outputs, (members, number), generator=generator)


def as_images(inputs, shape=SHAPE):
    return inputs.view(-1, *shape).permute(0, 3, 1, 2).contiguous()


def weights_of(net, seeds):
    return torch.stack([net.fresh_weights(torch.Generator().manual_seed(s)) for s in seeds])


def batch(inputs, labels, stats):
    return Batch(inputs, labels, slice(None), stats, torch.zeros(1), torch.zeros(1), {})


def train(net, weights, inputs, labels, steps=3):
    """Gradient descent; the losses, gradients and running statistics that it has met."""
    weights, stats, met = weights.clone(), net.fresh_stats(len(weights), CPU), []
    for _ in range(steps):
        loss, _, gradient = TaskLoss(net)(weights, batch(inputs, labels, stats))
        weights -= 0.5 * gradient
        met.append((loss, gradient, {name: value.clone() for name, value in stats.items()}))
    return weights, stats, met


def test_it_learns_what_the_real_module_learns():
    net, (inputs, labels) = network(Cnn), drawn()
    weights = weights_of(net, [1])
    twin = net.module.filled(net.split(weights[0]), {}).train()
    assert type(twin.drop) is nn.Dropout
    with drawing_from(torch.Generator().manual_seed(7)):
        weights, stats, met = train(net, weights, inputs, labels)
    by_name = dict(twin.named_parameters())
    with torch.random.fork_rng():
        torch.manual_seed(7)
        for loss, gradient, in_step in met:
            expected = F.cross_entropy(twin(as_images(inputs)), labels[0])
            twin.zero_grad()
            expected.backward()
            torch.testing.assert_close(loss[0], expected)
            of_tensors = zip(net.module.names, net.split(gradient[0]), strict=True)
            with torch.no_grad():
                for name, tensor in of_tensors:
                    torch.testing.assert_close(tensor, by_name[name].grad)
                    by_name[name] -= 0.5 * by_name[name].grad
            assert in_step.keys() == {"norm.running_mean", "norm.running_var"}
            for name, value in in_step.items():
                torch.testing.assert_close(value[0], twin.get_buffer(name))
    with net.evaluating():
        logits = net.logits(weights[0], inputs[0], alone(stats))
    torch.testing.assert_close(logits, twin.eval()(as_images(inputs)))
    filled = net.module.filled(net.split(weights[0]), alone(stats))
    torch.testing.assert_close(logits, filled(as_images(inputs)))
    assert list(net.module.parameters()) == []
    assert not torch.equal(net.logits(weights[0], inputs[0], alone(stats)), logits)


def test_three_members_learn_together_what_each_learns_alone():
    net, (inputs, labels) = network(lambda: Cnn(dropout=0)), drawn(3)
    assert net.why_alone is None
    weights = weights_of(net, [1, 2, 3])
    _, stats, met = train(net, weights, inputs, labels)
    for i, seed in enumerate((1, 2, 3)):
        own = weights_of(net, [seed])
        assert torch.equal(own[0], weights[i])
        _, own_stats, own_met = train(net, own, inputs[i : i + 1], labels[i : i + 1])
        for (loss, gradient, _), (own_loss, own_gradient, _) in zip(met, own_met, strict=True):
            torch.testing.assert_close(loss[i], own_loss[0], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(gradient[i], own_gradient[0], rtol=1e-4, atol=1e-5)
        for name, value in own_stats.items():
            torch.testing.assert_close(stats[name][i], value[0], rtol=1e-4, atol=1e-5)


class Reset(nn.Linear):
    def reset_parameters(self):
        nn.init.uniform_(self.weight, 3, 4)
        nn.init.constant_(self.bias, 7)


def make_reset():
    layers = nn.Linear(108, 5), nn.LayerNorm(5), nn.PReLU(), Reset(5, 3)
    return nn.Sequential(nn.Flatten(), *layers)


def test_initial_weights_are_the_modules_own():
    net, before = network(make_reset), torch.get_rng_state()
    first, second = (net.split(weights) for weights in weights_of(net, [1, 2]))
    assert torch.equal(torch.get_rng_state(), before)
    weight, bias = first[-2:]
    assert ((weight > 3) & (weight < 4)).all()
    assert (bias == 7).all()
    assert not torch.equal(weight, second[-2])
    seed = int(torch.randint(1 << 62, (), generator=torch.Generator().manual_seed(1)))
    real = dict(net.module.fresh_module(seed).named_parameters())
    for name, tensor in zip(net.module.names, first, strict=True):
        assert torch.equal(tensor, real[name])


def test_xavier_is_for_weights_and_biases_of_layers():
    net = network(make_reset)
    row = net.fresh_weights(torch.Generator().manual_seed(1), xavier=True)
    first, bias, scale, shift, prelu, last, last_bias = net.split(row)
    for weight in (first, last):
        bound = (6 / sum(weight.shape)) ** 0.5
        assert 0.8 * bound < weight.abs().max() <= bound
    assert not any(tensor.any() for tensor in (bias, shift, last_bias))
    assert (scale == 1).all()
    assert prelu.item() == 0.25
    net = network(lambda: nn.Sequential(nn.Flatten(), weight_norm(nn.Linear(108, 3))))
    bias, length, direction = net.split(
        net.fresh_weights(torch.Generator().manual_seed(1), xavier=True)
    )
    assert not bias.any()
    torch.testing.assert_close(direction.norm(dim=1, keepdim=True), length)


class Odd(nn.Module):
    """Parameters of all kinds, the output layer's first."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.randn(3))
        self.of_outputs = nn.Parameter(torch.randn(3, 5))
        self.factor = nn.Parameter(torch.tensor(2.0))
        self.frozen = nn.Parameter(torch.randn(5), requires_grad=False)
        self.register_buffer("table", torch.randn(108))
        self.register_buffer("mean", torch.full((5,), 0.5))
        self.register_buffer("number", torch.tensor(4))
        self.a, self.b = nn.Linear(108, 5), nn.Linear(108, 5)
        self.b.weight = self.a.weight

    def forward(self, x):
        x = x.flatten(1) + self.table
        x = (self.a(x) * self.b(x)).tanh() * self.factor + self.frozen
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
            self.number += 1
        return (x - self.mean) @ self.of_outputs.T + self.bias


def test_parameters_and_buffers_of_all_kinds_in_any_order():
    net, (inputs, labels) = network(Odd), drawn()
    module = net.module
    assert module.names == ("factor", "a.weight", "a.bias", "b.bias", "bias", "of_outputs")
    assert net.shapes == ((1,), (5, 108), (5,), (5,), (3,), (3, 5))
    assert (net.num_outputs, net.num_output_tensors) == (3, 2)
    stats = net.fresh_stats(2, CPU)
    assert {name: value.tolist() for name, value in stats.items()} == {
        "mean": [[0.5] * 5] * 2,
        "number": [4, 4],
    }
    twin = module.fresh_module(0)  # which has the constants, too
    row = torch.cat([twin.get_parameter(name).detach().flatten() for name in module.names])
    _, stats, _ = train(net, row[None], inputs, labels, steps=1)
    logits = twin(as_images(inputs))
    torch.testing.assert_close(net.logits(row, inputs[0], alone(net.fresh_stats(1, CPU))), logits)
    torch.testing.assert_close(stats["mean"][0], twin.mean)
    assert stats["number"].tolist() == [5]
    assert stats["number"].dtype == torch.int64
    filled = module.filled(net.split(row), alone(stats))
    assert filled.number == 5
    assert filled.factor.shape == ()


def test_what_other_tasks_outputs_need_is_left_to_them():
    """The rows of the output layer, wherever the module has it."""
    task = make_task(SHAPE)
    tasks = with_heads([task, task])
    net = main_network(ModuleNet(lambda: OddOf(4), SHAPE, 4, "net"))
    values = {"hmlp_arch": [5], "chmlp_chunk_size": 50}
    options = Options.of({"multi_head": True, "num_tasks": 2, **values})
    setting = Setting(net, tasks, options.train, options.hypernet, CPU)
    heads = Hnet().build(setting).heads
    for task_id in range(2):
        *shared, bias, weight = net.split(heads.mask(task_id))
        mine = torch.tensor([task_id == 0] * 2 + [task_id == 1] * 2)
        assert torch.equal(bias.bool(), mine)
        assert torch.equal(weight.bool(), mine[:, None].expand(4, 5))
        assert all(tensor.all() for tensor in shared)
    softmax = nn.Sequential
    net = main_network(
        ModuleNet(lambda: softmax(nn.Flatten(), nn.Linear(108, 4), nn.LogSoftmax(1)), SHAPE, 4, "n")
    )
    assert net.num_output_tensors == 0
    with pytest.raises(InputError, match="or add --hnet_reg_all_heads"):
        Hnet().build(setting._replace(net=net))
    assert Hnet(hnet_reg_all_heads=True).build(setting._replace(net=net)).heads.own == ()


class OddOf(Odd):
    def __init__(self, num_classes):
        super().__init__()
        self.bias = nn.Parameter(torch.randn(num_classes))
        self.of_outputs = nn.Parameter(torch.randn(num_classes, 5))


class Viewing(nn.Module):
    """It needs the images in order in memory."""

    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 2, 1), nn.Linear(72, 3)

    def forward(self, x):
        assert x.shape[1:] == (3, 6, 6)
        return self.out(self.conv(x).view(x.shape[0], -1))


def test_images_come_with_channels_first_and_vectors_as_they_are():
    net, (inputs, _) = network(Viewing), drawn(2)
    weights = weights_of(net, [1, 2])
    twins = [net.module.filled(net.split(row), {}) for row in weights]
    expected = [twin(as_images(x)) for twin, x in zip(twins, inputs, strict=True)]
    torch.testing.assert_close(TaskLoss(net).logits(weights, inputs, {}), torch.stack(expected))
    net = network(lambda: nn.Linear(7, 3), shape=(7,))
    assert net.logits(weights_of(net, [1])[0], torch.rand(4, 7), {}).shape == (4, 3)


class Reading(nn.Module):
    """What torch can do for one member at a time alone."""

    def __init__(self):
        super().__init__()
        self.norm, self.out = nn.BatchNorm1d(108, momentum=None), nn.Linear(108, 3)

    def forward(self, x):
        x = self.norm(x.flatten(1))
        if x.mean() > 100:
            x = -x
        return self.out(x)


def test_what_cannot_be_computed_together_is_one_by_one(monkeypatch):
    net, (inputs, labels) = network(Reading), drawn(2)
    assert net.reads_values
    assert "forward reads values" in net.why_alone
    assert "test_module_net.py:" in net.why_alone
    assert net.module.training
    assert net.most_together(CUDA) == 1
    weights = weights_of(net, [1, 2])
    after, stats, _ = train(net, weights, inputs, labels)
    assert stats["norm.num_batches_tracked"].tolist() == [3, 3]
    for i in range(2):
        own = slice(i, i + 1)
        own_after, own_stats, _ = train(net, weights[own], inputs[own], labels[own])
        assert torch.equal(after[own], own_after)
        assert torch.equal(stats["norm.running_mean"][own], own_stats["norm.running_mean"])
    logits = TaskLoss(net).logits(weights, inputs, stats)
    assert logits.shape == (2, 5, 3)


@pytest.mark.parametrize("make", [Reading, lambda: Cnn(dropout=0)])
def test_the_fisher_information_is_that_of_a_loop(make):
    net, (inputs, labels) = network(make), drawn()
    weights, stats, _ = train(net, weights_of(net, [1]), inputs, labels)
    expected = torch.zeros_like(weights)
    with net.evaluating():
        for x, label in zip(inputs[0], labels[0], strict=True):
            row = weights[0].clone().requires_grad_()
            loss = net.logits(row, x[None], alone(stats)).log_softmax(1)[0, label]
            expected += torch.autograd.grad(loss, row)[0].square()
        scale = torch.ones(labels.shape)
        found = sum_of_squares(net, weights, inputs, stats, labels, scale, slice(None))
    torch.testing.assert_close(found, expected)


def test_seeds_that_cannot_learn_together_are_said_to_be(monkeypatch):
    experiment = make_experiment([make_task((6, 6, 3))], num_seeds=2)
    experiment = type(experiment)(
        experiment.options, CUDA, experiment.tasks, network(Reading), experiment.method
    )
    with pytest.warns(UserWarning, match="one after the other, as networks of .* cannot run toget"):
        assert experiment.groups_of_seeds() == [[42], [43]]


def test_what_reads_values_is_never_captured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1 / 0)  # which a capture asks for
    taken = []
    step = StepRunner(lambda: taken.append(1), CUDA, torch.Generator(), eager=True)
    for _ in range(9):
        step()
    assert len(taken) == 9


@pytest.mark.parametrize("hnet_type", ["hmlp", "chunked_hmlp"])
def test_the_scales_of_hyperfan_are_known_for_layers_and_normalizations(hnet_type):
    values = {"hnet_type": hnet_type, "hmlp_arch": [8], "hyper_fan_init": True}
    options = Options.of({**values, "std_normal_temb": 0.01}).hypernet
    net = network(Cnn)
    module = hnet_modules.build_module(options, net, 2, 0)
    tensors = dict(zip(net.module.names, module.forward(cond_id=0), strict=True))
    if hnet_type == "hmlp":
        assert (tensors["norm.weight"] == 1).all()
        assert (tensors["norm.bias"] == 0).all()
    assert tensors["first.weight"].std() > 0
    with pytest.raises(InputError, match=r"no scale for the main network's parameter 3\.weight"):
        hnet_modules.build_module(options, network(make_reset), 2, 0)


def linear(**more):
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 3, **more))


class Changed(nn.Module):
    """A layer with another forward."""

    def __init__(self, forward):
        super().__init__()
        self.out, self.function = nn.Linear(108, 3), forward
        self.register_buffer("kept", torch.zeros(3))

    def forward(self, x):
        return self.function(self, self.out(x.flatten(1)))


def raising(module, x):
    return x + torch.zeros(7)


def choosy(module, x):
    if not (module.out.bias.detach() * 108**0.5).abs().max() < 1:
        raise ValueError("not these weights")
    return x


def counting(module, x):
    module.kept += 1
    return x


def entangled(module, x):
    if module.training:
        module.kept = module.kept + x.mean(0)
    return x


def growing(module, x):
    if module.training:
        module.kept = torch.zeros(4)
    return x


def decaying(module, x):
    module.out.bias.data.mul_(0.9)
    return x


class Frozen(nn.Linear):
    def __init__(self):
        super().__init__(108, 3)
        self.requires_grad_(False)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (nn.Flatten, "has no parameters: there is nothing to train"),
        (Frozen, "has no parameters that learn"),
        (lambda: "net", "makes a str: it must make a plain torch.nn.Module"),
        (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), "1.weight is not known"),
        (lambda: linear(dtype=torch.float64), "1.weight is float64: make it float32"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(108, 4)), "returns [2, 4] on a batch of 2"),
        (lambda: nn.Conv2d(3, 3, 1), "returns [2, 3, 6, 6] on a batch of 2"),
        (lambda: Changed(lambda module, x: (x, x)), "returns a tuple"),
        (lambda: Changed(lambda module, x: x.squeeze(0)), "returns [3] on a batch of 1"),
        (lambda: Changed(lambda module, x: x.double()), "returns float64"),
        (lambda: Changed(raising), "forward raises on inputs 2x3x6x6: RuntimeError: The size"),
        (lambda: Changed(raising), "test_module_net.py:"),
        (lambda: Changed(choosy), "forward raises with other weights: ValueError: not these"),
        (lambda: Changed(lambda m, x: x.round().long().float()), "no gradient goes"),
        (lambda: Changed(counting), "changes its buffer kept in evaluation, too"),
        (lambda: Changed(entangled), "buffer kept depends on weights"),
        (lambda: Changed(growing), "changes the shape of its buffer kept"),
        (lambda: Changed(decaying), "changes its parameter out.bias"),
        (lambda: Changed(lambda m, x: x.detach()), "no gradient goes"),
        (lambda: Changed(lambda m, x: F.dropout(x, training=m.training)), "use nn.Dropout"),
        (lambda: Changed(lambda m, x: F.dropout(x, training=m.training)), "test_module_net.py:"),
        (lambda: Changed(lambda m, x: x + torch.rand_like(x)), "torch's global generator"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused(make, said):
    before = torch.get_rng_state()
    with pytest.raises(InputError) as refused:
        network(make)
    message = str(refused.value)
    assert message.startswith("--net_type=my.py:Net")
    assert said in message
    assert "\n" not in message
    assert torch.equal(torch.get_rng_state(), before)


def test_a_module_that_is_another_each_time_is_refused():
    widths = iter([4, 5])

    def make():
        width = next(widths)
        return nn.Sequential(nn.Flatten(), nn.Linear(108, width), nn.Linear(width, 3))

    net = network(make)
    with pytest.raises(InputError, match="makes a module of other parameters or buffers each time"):
        weights_of(net, [1])


class Quiet(nn.Sequential):
    """As many write it: it returns nothing."""

    def train(self, mode=True):
        super().train(mode)


def test_train_need_not_return_the_module():
    net = network(lambda: Quiet(nn.Flatten(), nn.Linear(108, 3)))
    filled = net.module.filled(net.split(weights_of(net, [1])[0]), {})
    assert isinstance(filled, Quiet)
    assert not filled.training


class Aliased(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(108, 3)
        self.weights = [self.out.weight]

    def forward(self, x):
        return x.flatten(1) @ self.weights[0].T + self.out.bias


def test_weights_that_are_taken_from_elsewhere_are_refused():
    with pytest.raises(InputError, match="takes weights from elsewhere than the module's param"):
        network(Aliased)


def test_recurrent_layers_look_into_their_list():
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows, self.out = nn.GRU(18, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x):
            return self.out(self.rows(x.transpose(1, 2).flatten(2))[0][:, -1])

    net, (inputs, _) = network(Rows), drawn()
    (row,) = weights_of(net, [1])
    twin = net.module.filled(net.split(row), {})
    torch.testing.assert_close(net.logits(row, inputs[0], {}), twin(as_images(inputs)))


def test_a_network_of_torchvision_takes_a_step():
    models = pytest.importorskip("torchvision.models")
    shape = (32, 32, 3)
    net = network(lambda: models.resnet18(num_classes=3), shape)
    assert net.num_weights == 11_178_051
    assert (net.shapes[-2:], net.num_output_tensors) == (((3, 512), (3,)), 2)
    inputs, labels = drawn(number=2, shape=shape)
    _, stats, ((loss, gradient, _),) = train(net, weights_of(net, [1]), inputs, labels, steps=1)
    assert loss.isfinite().all()
    assert all(tensor.any() for tensor in net.split(gradient[0])[:10])
    assert len(stats) == 40
    assert select_members(stack_members([stats]), 0).keys() == stats.keys()
