"""Any torch.nn.Module as a main network: it runs on weights that are given, and keeps none."""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrize import ParametrizationList

from hypercl.engine.members import Params
from hypercl.engine.seeding import drawing_from, seeded_globally
from hypercl.errors import InputError
from hypercl.networks import module_trial
from hypercl.networks.dropout import replace_dropout
from hypercl.networks.library import Classifier

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


class ModuleNet(Classifier):
    """A module of the user's, which gets its parameters with each forward pass.

    Buffers that training changes are running statistics, of each member its own. Other buffers, and
    parameters that require no gradient, are constants: what they are in the module
    that is built under seed 0.

    Args:
        make: Builds the module, with its own initialization.
        in_shape: (H, W, C) of images, which the module gets as [B, C, H, W]; or (D,) of vectors.
        num_outputs: Of the logits [B, num_outputs] that it returns.
        name: Of the module, in messages.

    Attributes:
        names: Of the parameters that learn, in the order of ``param_shapes``: the module's, but
            that those of the output layer come last. One without dimensions has the shape [1].
        num_output_tensors: How many are the output layer's: of these, row k bears on output k
            alone. 0: the module has none such.
        reads_values: Whether Python reads values of tensors in a forward pass.

    Raises:
        InputError: The module cannot be trained so.
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        in_shape: Sequence[int],
        num_outputs: int,
        name: str,
    ) -> None:
        super().__init__(num_outputs, verbose=False)
        self._make, self._in_shape, self._name = make, tuple(in_shape), name
        self._made: list[tuple[str, torch.Size]] | None = None
        self.inner = module = self.fresh_module(0)
        module_trial.require_usable(module, name)
        self._made = _shapes(module)
        replace_dropout(module)
        _drop_unread_counters(module)
        inputs = self._some_inputs()
        self._needs_order = False
        self._needs_order = not module_trial.runs(module, self._shaped(inputs))
        observed = module_trial.observe(module, self._shaped(inputs), num_outputs, name)
        self._reads, self._stats = observed.reads, observed.initial
        self.reads_values = observed.reads is not None

        learned = {n: p for n, p in module.named_parameters() if p.requires_grad}
        stats = [module.get_buffer(n) for n in self._stats]
        self._weight_slots = [_slot(module, value) for value in learned.values()]
        self._stat_slots = [_slot(module, value) for value in stats]
        given = {id(value) for value in (*learned.values(), *stats)}
        everything = (*module.parameters(), *module.buffers())
        constants = [value for value in everything if id(value) not in given]
        self._constant_slots = [_slot(module, value) for value in constants]
        self._device = torch.device("cpu")
        self._constants = {self._device: [value.detach() for value in constants]}

        weights = [_with_dimensions(value.detach().clone()) for value in learned.values()]
        module_trial.require_given_weights(
            module, self._shaped(inputs), self._on, list(learned.values()), inputs, name
        )
        with drawing_from(torch.Generator()):
            module.train()
            module_trial.require_gradient(self._on, weights, self._stats, inputs, name)
        module.eval()
        last = module_trial.of_outputs(self._on, weights, self._stats, inputs, num_outputs)
        module.train()
        order = [i for i in range(len(weights)) if i not in last] + last
        self.num_output_tensors = len(last)
        self._weight_slots = [self._weight_slots[i] for i in order]
        self.names = tuple([*learned][i] for i in order)
        self._param_shapes = [list(weights[i].shape) for i in order]
        self._param_shapes_meta = _described(module, self.names, self._param_shapes)

    def forward(self, x, weights=None, distilled_params=None, condition=None):
        """Logits [B, num_outputs] of inputs [B, H * W * C] or [B, D].

        Args:
            weights: Tensors of ``param_shapes``.
            distilled_params: Running statistics, in the order of :meth:`fresh_stats`; updated in
                place in training.
        """
        distilled_params = distilled_params or []
        if len(distilled_params) != len(self._stat_slots):
            raise ValueError("running statistics are missing: give them as distilled_params")
        if x.device != self._device:
            self._put_constants(x.device)
        try:
            for slot, tensor in zip(self._weight_slots, weights, strict=True):
                slot.put(tensor if slot.has_dimensions else tensor.squeeze(0))
            for slot, tensor in zip(self._stat_slots, distilled_params, strict=True):
                slot.put(tensor)
            logits = self.inner(self._shaped(x))
            for slot, tensor in zip(self._stat_slots, distilled_params, strict=True):
                if (now := slot.get()) is not tensor:  # the module has put another in its place
                    tensor.copy_(now.detach())
            return logits
        finally:
            for slot in chain(self._weight_slots, self._stat_slots):
                slot.put(None)

    @cached_property
    def why_alone(self) -> str | None:
        """Why members cannot be computed together; None where they can."""
        parameters = dict(self.fresh_module(0).named_parameters())
        weights = [_with_dimensions(parameters[name].detach()) for name in self.names]
        was_training, inputs = self.training, self._some_inputs()
        try:
            with drawing_from(torch.Generator()):
                for training in (True, False):
                    reason = module_trial.why_not_together(
                        self.train(training)._on,
                        weights,
                        self._stats,
                        inputs,
                        self._reads,
                        gradient=training,
                    )
                    if reason is not None:
                        return reason
                return None
        finally:
            self.train(was_training)

    def fresh_module(self, seed: int) -> nn.Module:
        """The user's module, initialized from a seed, on the CPU.

        Raises:
            InputError: It has other parameters or buffers than the first one that was made.
        """
        with seeded_globally(seed):
            module = self._make()
        if self._made is not None and _shapes(module) != self._made:
            raise InputError(
                f"{self._name} makes a module of other parameters or buffers each time: let both "
                "follow from the options alone"
            )
        return module

    def filled(self, weights: Iterable[Tensor], stats: Params) -> nn.Module:
        """The user's module with weights and running statistics of its own, in evaluation mode.

        Args:
            weights: Tensors of ``param_shapes``; ``stats``: of one member.
        """
        module = self.fresh_module(0)
        with torch.no_grad():
            for name, tensor in zip(self.names, weights, strict=True):
                parameter = module.get_parameter(name)
                parameter.copy_(tensor.view(parameter.shape))
            for name, value in stats.items():
                module.get_buffer(name).copy_(value)
        module.eval()
        return module

    @torch.no_grad()
    def fresh_weights(self, generator: torch.Generator, *, xavier: bool = False) -> Tensor:
        """Those with which the module is built, [num_weights], on the CPU.

        Args:
            xavier: Tensors of two or more dimensions are drawn as Glorot and Bengio's, but for
                those of normalizations, embeddings and parametrizations; biases are 0.
        """
        seed = int(torch.randint(1 << 62, (), generator=generator))
        parameters = dict(self.fresh_module(seed).named_parameters())
        tensors = []
        for name, meta in zip(self.names, self._param_shapes_meta, strict=True):
            tensor = parameters[name].detach()
            if xavier and meta["name"] == "weight":
                inputs = tensor[0].numel()
                outputs = tensor.numel() // tensor.shape[1]
                bound = (6 / (inputs + outputs)) ** 0.5
                tensor = bound * (2 * torch.rand(tensor.shape, generator=generator) - 1)
            elif xavier and meta["name"] == "bias":
                tensor = torch.zeros_like(tensor)
            tensors.append(tensor.flatten())
        return torch.cat(tensors)

    def fresh_stats(self, num_members: int, device: torch.device) -> Params:
        """The buffers that training changes, as they are before it, by name: [members, …]."""
        return {
            name: value.to(device).expand(num_members, *value.shape).clone()
            for name, value in self._stats.items()
        }

    def distillation_targets(self):
        """hypnettorch asks for it."""
        return

    def _on(self, weights: Sequence[Tensor], stats: Params, inputs: Tensor) -> Tensor:
        return self.forward(inputs, weights, [stats[name] for name in self._stats])

    def _some_inputs(self) -> Tensor:
        """Two, flat, like pixels in [0, 1]."""
        size = torch.Size(self._in_shape).numel()
        return torch.rand(2, size, generator=torch.Generator().manual_seed(0))

    def _shaped(self, x: Tensor) -> Tensor:
        """[B, H * W * C] to [B, C, H, W]: a view, which is faster, unless the module needs it in
        that order in memory.
        """
        if len(self._in_shape) == 1:
            return x
        *size, channels = self._in_shape
        if not self._needs_order:
            return x.reshape(-1, *size, channels).movedim(-1, 1)
        if channels > 1:
            x = x.unflatten(1, (-1, channels)).transpose(1, 2).contiguous()
        return x.reshape(-1, channels, *size)

    def _put_constants(self, device: torch.device) -> None:
        if device not in self._constants:  # once: a CUDA graph would know no others
            on_cpu = self._constants[torch.device("cpu")]
            self._constants[device] = [value.to(device) for value in on_cpu]
        for slot, value in zip(self._constant_slots, self._constants[device], strict=True):
            slot.put(value)
        self._device = device


class _Slot(NamedTuple):
    """Where a module looks for a tensor: in several places, if layers share it."""

    has_dimensions: bool
    places: list[tuple[Any, Any]]  # dicts or lists of the module's, and a key of each

    def put(self, tensor: Tensor | None) -> None:
        for table, key in self.places:
            table[key] = tensor

    def get(self) -> Tensor:
        table, key = self.places[0]
        value: Tensor = table[key]
        return value


def _shapes(module: nn.Module) -> list[tuple[str, torch.Size]]:
    """Of all parameters and buffers, by name."""
    named = chain(module.named_parameters(), module.named_buffers())
    return [(name, value.shape) for name, value in named]


def _slot(module: nn.Module, tensor: Tensor) -> _Slot:
    places: list[tuple[Any, Any]] = []
    for child in module.modules():
        for table in (child._parameters, child._buffers):
            places += [(table, key) for key, value in table.items() if value is tensor]
        if isinstance(child, nn.RNNBase):  # it looks into a list
            flat = child._flat_weights
            places += [(flat, i) for i, value in enumerate(flat) if value is tensor]
    return _Slot(tensor.ndim > 0, places)


def _with_dimensions(tensor: Tensor) -> Tensor:
    return tensor if tensor.ndim > 0 else tensor[None]


def _drop_unread_counters(module: nn.Module) -> None:
    """Batch normalization counts its batches, and reads that only where ``momentum`` is None."""
    for child in module.modules():
        if isinstance(child, _NormBase) and child.momentum is not None:
            child.num_batches_tracked = None


def _described(
    module: nn.Module, names: Sequence[str], shapes: Sequence[Sequence[int]]
) -> list[dict[str, Any]]:
    """What hypnettorch wants to know of parameters: scale or shift of a normalization, weight or
    bias of a layer, which have its number in common; "other" for what is none of these.
    """
    layers: dict[tuple[str, str], int] = {}
    described = []
    for name, shape in zip(names, shapes, strict=True):
        where, _, own = name.rpartition(".")
        owner, layer = module.get_submodule(where), -1
        if isinstance(owner, _NORMS):
            kind = "bn_scale" if own == "weight" else "bn_shift"
        elif isinstance(owner, nn.Embedding | nn.EmbeddingBag):
            kind = "embedding"
        elif isinstance(owner, ParametrizationList):  # of which weights are made
            kind = "other"
        elif len(shape) > 1 or "bias" in own:
            kind = "weight" if len(shape) > 1 else "bias"
            of = where, own.replace("bias", "weight")
            if kind == "weight":
                layer = layers[of] = len(layers)
            else:
                layer = layers.get(of, -1)
        else:
            kind = "other"
        described.append({"name": kind, "index": -1, "layer": layer})
    return described
