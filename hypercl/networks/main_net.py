"""The main network as a function of weights in one row, and its half of a step: the task loss."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from hypercl.engine.members import Params, alone, each_member
from hypercl.engine.precision import tf32
from hypercl.engine.seeding import drawing_from, generator
from hypercl.networks import plain_mlp
from hypercl.networks.activations import Activation
from hypercl.networks.criteria import Criterion, of_labels
from hypercl.networks.dropout import replace_dropout
from hypercl.networks.library import MLP, MainNetInterface
from hypercl.networks.module_net import ModuleNet

_IN_CACHE = 1 << 20  # weights of main networks, together, that a thread is fast with


def main_network(module: MainNetInterface) -> "MainNetwork":
    """The network of a module, as an entry of ``main_nets`` builds it."""
    return OwnNetwork(module) if isinstance(module, ModuleNet) else MainNetwork(module)


class MainNetwork:
    """A network without weights of its own: one of hypnettorch, or like these.

    Attributes:
        shapes: Of its tensors of weights, the output layer's last.
        num_weights: Numbers in them.
        num_outputs: Rows of the output layer.
        names: Of its tensors of weights, like "layers.0.weight" and "norms.0.bias".
        num_output_tensors: How many of the tensors are the output layer's, each with a row for each
            output; 0 where there is no such layer.
        reads_values: Whether Python reads values in a step, which so is no CUDA graph.
        is_own: Whether it is the user's, and torch.func may not be able to run it.
    """

    reads_values = False
    is_own = False

    def __init__(self, module: MainNetInterface) -> None:
        replace_dropout(module)
        self.module = module
        self.shapes = tuple(tuple(shape) for shape in module.param_shapes)
        self.num_weights = sum(map(math.prod, self.shapes))
        self.num_outputs = self.shapes[-1][0]
        self.num_output_tensors = 2 if len(self.shapes[-1]) == 1 else 1
        self.names = self._names_of_tensors()

    def split(self, weights: Tensor) -> list[Tensor]:
        """Cut a row of weights, [..., num_weights or more], into the network's tensors."""
        sizes = [math.prod(shape) for shape in self.shapes]
        pieces = weights[..., : self.num_weights].split(sizes, dim=-1)
        return [
            piece.view(*weights.shape[:-1], *shape)
            for piece, shape in zip(pieces, self.shapes, strict=True)
        ]

    def empty_gradient(self, weights: Tensor) -> Tensor:
        """Room for a gradient for weights [..., num_weights or more], 0 beyond the network's."""
        gradient = torch.empty_like(weights)
        gradient[..., self.num_weights :] = 0
        return gradient

    def logits(self, weights: Tensor, inputs: Tensor, stats: Params) -> Tensor:
        """What the network makes of a batch, of one member.

        Args:
            weights: [num_weights]; ``inputs``: [B, H * W * C].
            stats: Running statistics; updated in place where the network is in training mode.

        Returns:
            [B, outputs].
        """
        return self.logits_of(self.split(weights), inputs, stats)

    def logits_of(self, tensors: list[Tensor], inputs: Tensor, stats: Params) -> Tensor:
        """The same from weights that are cut into the network's tensors already."""
        if not stats:
            return self.module.forward(inputs, weights=tensors)
        return self.module.forward(inputs, weights=tensors, distilled_params=list(stats.values()))

    def on_same_inputs(
        self, weights: Tensor, stats: Params, outputs: Sequence[slice]
    ) -> Callable[[Tensor], Tensor]:
        """A function from inputs [B, H * W * C] to what several networks make of them,
        [networks, B, classes].

        Args:
            weights: [networks, num_weights]; ``stats``: [networks, …] each.
            outputs: Of each network, equally many.
        """
        activation = plain_mlp.plain_activation(self.module)
        if activation is not None:
            return plain_mlp.on_same_inputs(activation, self.split(weights), outputs)
        each = self.each_member(self.logits, shared=(1,))

        def all_logits(inputs: Tensor) -> Tensor:
            made = each(weights, inputs, stats)
            return torch.stack([own[:, which] for own, which in zip(made, outputs, strict=True)])

        return all_logits

    def fresh_weights(self, generator: torch.Generator, *, xavier: bool = False) -> Tensor:
        """Initial weights, [num_weights], on the CPU.

        Scales of batch normalization are 1, its shifts 0.

        Args:
            xavier: Glorot and Bengio's (2010), uniform between ± sqrt(6 / (inputs + outputs)), with
                biases of 0. Otherwise as torch.nn's layers initialize theirs: uniform between
                ± 1 / sqrt(inputs of an output), weights and biases alike.
        """
        tensors, bound = [], 1.0
        for shape, name in zip(self.shapes, self.names, strict=True):
            if name.startswith("norms."):
                tensors.append(torch.full(shape, float(name.endswith(".weight"))))
                continue
            if len(shape) > 1:  # a bias follows its weight
                inputs = math.prod(shape[1:])
                outputs = shape[0] * math.prod(shape[2:])
                bound = (6 / (inputs + outputs)) ** 0.5 if xavier else inputs**-0.5
            elif xavier:
                bound = 0.0
            tensors.append(bound * (2 * torch.rand(shape, generator=generator) - 1))
        return torch.cat([tensor.flatten() for tensor in tensors])

    def fresh_of_seeds(
        self,
        seeds: Sequence[int],
        purpose: str,
        task_id: int = 0,
        *,
        xavier: bool = False,
        device: torch.device,
    ) -> Tensor:
        """:meth:`fresh_weights` of each seed from its stream for a purpose and task, on the device:
        [members, num_weights].
        """
        streams = [generator(seed, purpose, task_id) for seed in seeds]
        fresh = [self.fresh_weights(stream, xavier=xavier) for stream in streams]
        return torch.stack(fresh).to(device)

    def fresh_stats(self, num_members: int, device: torch.device) -> Params:
        """Running statistics of batch normalization as they are before training.

        Returns:
            "mean0", "variance0", … [members, features], by layer; empty for a network without them.
        """
        shapes = self.module.hyper_shapes_distilled or []
        stats = {}
        for layer, (mean_shape, variance_shape) in enumerate(
            zip(shapes[::2], shapes[1::2], strict=True)
        ):
            stats[f"mean{layer}"] = torch.zeros(num_members, *mean_shape, device=device)
            stats[f"variance{layer}"] = torch.ones(num_members, *variance_shape, device=device)
        return stats

    def name_of_stat(self, name: str) -> str:
        """Of a running statistic, "mean0" or "variance0", the name that torch.nn's layers give it:
        "norms.0.running_mean", "norms.0.running_var".
        """
        kind, leaf = ("mean", "running_mean") if "mean" in name else ("variance", "running_var")
        return f"norms.{name.removeprefix(kind)}.{leaf}"

    @property
    def why_alone(self) -> str | None:
        """Why members cannot be computed together, but one after the other; None where they can."""
        return None

    def each_member(self, function: Callable, *, shared: tuple[int, ...] = ()) -> Callable:
        """:func:`each_member` for a function that runs this network."""
        return each_member(function, shared=shared, together=lambda: self.why_alone is None)

    def most_together(self, device: torch.device) -> float:
        """How many of it, at most, are faster together than one after the other.

        On a CPU, MLPs are as long as they share its cache, which ends between one and two million
        weights in all with one thread, at twice that with two (benchmarks/seeds.py). The
        convolutions of several networks become a grouped one, which takes a CPU 1.1 to 1.6 times as
        long, with batch normalization or two threads up to 2.5 times.
        """
        if device.type != "cpu":
            return math.inf if self.why_alone is None else 1
        if not isinstance(self.module, MLP):
            return 1
        return max(1, min(2, torch.get_num_threads()) * _IN_CACHE // self.num_weights)

    @torch.no_grad()
    def count_activations(self, batch_size: int, num_inputs: int) -> int:
        """Numbers that a forward pass of one member makes; computed without any data."""
        return self._count_outputs(batch_size, num_inputs, torch.device("meta"))

    def _count_outputs(self, batch_size: int, num_inputs: int, device: torch.device) -> int:
        weights = torch.ones(self.num_weights, device=device)
        inputs = torch.ones(batch_size, num_inputs, device=device)
        stats = alone(self.fresh_stats(1, device))
        with _CountOutputs() as counter, drawing_from(torch.Generator()):
            self.logits(weights, inputs, stats)
        return counter.numbers

    @torch.no_grad()
    def count_multiplications(self, num_inputs: int) -> int:
        """Those in products and convolutions that one sample takes, forward.

        Computed on two samples: tensors on the "meta" device have torch import its compiler, which
        takes seconds.
        """
        stats = {name: value[0] for name, value in self.fresh_stats(1, torch.device("cpu")).items()}
        with self.evaluating(), _CountMultiplications() as counter:
            self.logits(torch.zeros(self.num_weights), torch.zeros(2, num_inputs), stats)
        return counter.number // 2

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """A context in which the network is in evaluation mode."""
        was_training = self.module.training
        self.module.eval()
        try:
            yield
        finally:
            self.module.train(was_training)

    def _names_of_tensors(self) -> tuple[str, ...]:
        return _tensor_names(self.module)


class OwnNetwork(MainNetwork):
    """A module of the user's, which says itself what its tensors are called, what is drawn for them
    initially, and what its running statistics are.
    """

    is_own = True
    module: ModuleNet

    def __init__(self, module: ModuleNet) -> None:
        super().__init__(module)
        self.num_outputs = module.num_classes
        self.num_output_tensors = module.num_output_tensors
        self.reads_values = module.reads_values

    def fresh_weights(self, generator: torch.Generator, *, xavier: bool = False) -> Tensor:
        """See :meth:`ModuleNet.fresh_weights`."""
        return self.module.fresh_weights(generator, xavier=xavier)

    def fresh_stats(self, num_members: int, device: torch.device) -> Params:
        """The buffers that training changes, by their names: [members, …] each."""
        return self.module.fresh_stats(num_members, device)

    def name_of_stat(self, name: str) -> str:
        """As it is."""
        return name

    @property
    def why_alone(self) -> str | None:
        """Found out when it is first asked for."""
        return self.module.why_alone

    @torch.no_grad()
    def count_activations(self, batch_size: int, num_inputs: int) -> int:
        """From two small batches, as the module may do what "meta" tensors cannot."""
        two, three = (self._count_outputs(n, num_inputs, torch.device("cpu")) for n in (2, 3))
        return two + (batch_size - 2) * (three - two)

    def _names_of_tensors(self) -> tuple[str, ...]:
        return self.module.names


def _tensor_names(module: MainNetInterface) -> tuple[str, ...]:
    """A name for each of a network's tensors of weights, as torch.nn's layers have them."""
    try:
        kinds = [(meta["name"], meta["layer"]) for meta in module.param_shapes_meta]
    except NotImplementedError:  # hypnettorch's ZenkeNet: layers with biases and nothing else
        shapes = enumerate(module.param_shapes)
        kinds = [("weight" if len(shape) > 1 else "bias", i // 2) for i, shape in shapes]
    with_layers = any(layer >= 0 for kind, layer in kinds if kind == "weight")
    numbers = {"layers": -1, "norms": -1, "shortcuts": -1}
    names = []
    for kind, layer in kinds:
        group = "layers"
        if kind in ("bn_scale", "bn_shift"):
            group = "norms"
        elif with_layers and layer < 0:  # of a Wide ResNet; a ResNet numbers no layer at all
            group = "shortcuts"
        leaf = "weight" if kind in ("bn_scale", "weight") else "bias"
        begun = numbers[group] >= 0 and f"{group}.{numbers[group]}.{leaf}" not in names
        if leaf == "weight" or not begun:  # a bias follows its weight
            numbers[group] += 1
        names.append(f"{group}.{numbers[group]}.{leaf}")
    return tuple(names)


class _CountOutputs(TorchDispatchMode):
    """Adds up the sizes of all tensors that operations make."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numbers += result.numel()
        return result


class _CountMultiplications(TorchFunctionMode):
    """Adds up what products and convolutions take that are called from Python."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function in (F.linear, F.conv1d, F.conv2d, F.conv3d):  # the weight's first is the output
            self.number += result.numel() * math.prod(args[1].shape[1:])
        elif function in (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm):
            self.number += result.numel() * args[0].shape[-1]
        return result


class LabelledInputs(Protocol):
    """What a task loss reads of a batch."""

    @property
    def inputs(self) -> Tensor:
        """[members, B, H * W * C] float32."""
        ...

    @property
    def labels(self) -> Tensor:
        """[members, B] int64, counted from the first of ``outputs``; of regression [members, B, K]
        float32.
        """
        ...

    @property
    def outputs(self) -> slice:
        """Of the network, which take part."""
        ...

    @property
    def stats(self) -> Params:
        """Running statistics, [members, …] each, which the network updates."""
        ...


class LossOfWeights(Protocol):
    """A loss as a function of a network's weights, whatever these come from: a task loss, or one on
    another network than the main one.
    """

    @property
    def weight(self) -> float:
        """Of the loss, in what is minimized."""
        ...

    def __call__(self, weights: Tensor, batch: LabelledInputs) -> "TaskLossValue":
        """Of the members' networks with these weights, [members, num_weights or more]: numbers
        beyond those of the network have no part in it, and a gradient of 0.
        """
        ...


class TaskLossValue(NamedTuple):
    """Of one batch, on the device, detached."""

    loss: Tensor  # [members], the mean cross-entropy; of regression the mean squared error
    accuracy: Tensor  # [members], in [0, 1]; of regression the mean squared error again
    gradient: Tensor  # of the weights' shape, of ``weight`` times the loss


@dataclass(frozen=True)
class TaskLoss:
    """The main network's half of a step: losses on its outputs, and their gradients for its
    weights. Called, it is the mean cross-entropy of a batch, or the mean squared error.

    The gradient stops here, before it goes on into whatever the weights come from, so that
    reduced precision, where it is asked for, ends at the main network.
    """

    net: MainNetwork
    weight: float = 1.0  # of that, in what is minimized
    amp: bool = False  # compute in bfloat16
    tf32: bool = False  # float32 products on a GPU in TF32

    def __call__(self, weights: Tensor, batch: LabelledInputs) -> TaskLossValue:
        """See :class:`LossOfWeights`."""
        if self._activation is None and not batch.labels.is_floating_point():
            loss, accuracy, gradient = self._by_autograd(weights, batch)
        else:
            (loss, accuracy), gradient = self.of_logits(
                weights, batch.inputs, batch.stats, of_labels(batch.labels), batch.outputs
            )
        if self.weight != 1:
            gradient *= self.weight
        return TaskLossValue(loss, accuracy, gradient)

    def of_logits(
        self,
        weights: Tensor,
        inputs: Tensor,
        stats: Params,
        criterion: Criterion,
        outputs: slice = slice(None),
    ) -> tuple[Any, Tensor]:
        """Any loss on the logits of a batch; ``weight`` has no part in it.

        Args:
            weights: [members, num_weights or more]; ``inputs``: [members, B, H * W * C].
            stats: Running statistics, which are updated in training mode.
            criterion: Takes the logits of ``outputs``; see criteria.py.

        Returns:
            What the criterion returns beside the gradient, and the gradient for the weights, of
            their shape.
        """
        if (activation := self._activation) is not None:
            to_fill = self.net.empty_gradient if outputs == slice(None) else torch.zeros_like
            gradient = to_fill(weights)
            tensors, gradients = self.net.split(weights), self.net.split(gradient)
            with tf32(self.tf32):
                value = plain_mlp.loss_and_gradient(
                    activation, tensors, gradients, inputs, criterion, outputs
                )
            return value, gradient
        weights = weights.detach().requires_grad_()
        with tf32(self.tf32), torch.enable_grad():
            logits = self._forward(weights, inputs, stats)[..., outputs]
            value, of_logits = criterion(logits.detach().to(weights.dtype))
            (gradient,) = torch.autograd.grad(logits, weights, of_logits.to(logits.dtype))
        return value, gradient

    @torch.no_grad()
    def logits(self, weights: Tensor, inputs: Tensor, stats: Params) -> Tensor:
        """What the members' networks make of a batch, [members, B, outputs], as precise as the
        weights.
        """
        with tf32(self.tf32):
            if (activation := self._activation) is not None:
                return plain_mlp.logits(activation, self.net.split(weights), inputs)
            return self._forward(weights, inputs, stats).to(weights.dtype)

    @property
    def _activation(self) -> Activation | None:
        """Where there is one, a pass is written out."""
        return None if self.amp else plain_mlp.plain_activation(self.net.module)

    def _forward(self, weights: Tensor, inputs: Tensor, stats: Params) -> Tensor:
        device = weights.device.type
        with torch.autocast(device, torch.bfloat16) if self.amp else nullcontext():
            return self.net.each_member(self.net.logits)(weights, inputs, stats)

    def _by_autograd(self, weights: Tensor, batch: LabelledInputs) -> tuple[Tensor, Tensor, Tensor]:
        """The cross-entropy by torch's own formula, which rounds otherwise than criteria.py does:
        earlier results stay as they are, bit for bit.
        """

        def of_member(weights, inputs, labels, stats):
            logits = self.net.logits(weights, inputs, stats)[:, batch.outputs]
            accuracy = (logits.argmax(dim=1) == labels).float().mean()
            return F.cross_entropy(logits, labels), accuracy

        weights = weights.detach().requires_grad_()
        with tf32(self.tf32):
            device = weights.device.type
            with torch.autocast(device, torch.bfloat16) if self.amp else nullcontext():
                loss, accuracy = self.net.each_member(of_member)(
                    weights, batch.inputs, batch.labels, batch.stats
                )
            (gradient,) = torch.autograd.grad(loss.sum(), weights)
        return loss.detach(), accuracy, gradient
