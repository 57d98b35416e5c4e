"""A main network with the weights for one task inside: a module: images in, logits out."""

from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hypercl.engine.members import Params
from hypercl.errors import InputError
from hypercl.networks.main_net import MainNetwork
from hypercl.tasks.task import Task


class TaskNet(nn.Module):
    """What a main network with given weights makes of a task's images.

    Its parameters and buffers are its own, with names as torch.nn's layers have them:
    "layers.0.weight", "norms.0.running_mean", "preprocessing.mean". It begins in evaluation mode.
    In training mode it updates its running statistics, and draws dropout from torch's global
    generator, as other modules do.

    Args:
        net: Of which a copy is kept.
        weights: The network's tensors, in its order; copied.
        stats: Its running statistics; empty for a network without them.
        task: How images become inputs, and which outputs are the task's.
    """

    def __init__(
        self, net: MainNetwork, weights: Sequence[Tensor], stats: Params, task: Task
    ) -> None:
        super().__init__()
        names = {name: net.name_of_stat(name) for name in stats}
        taken = {name.partition(".")[0] for name in (*net.names, *names.values())}
        first = "preprocessing" if "preprocessing" not in taken else "preprocessing_of_task"
        self.add_module(first, Preprocessing(task))
        self._of_task = _Inside(_without_counters(deepcopy(net)), names, first, task.outputs)
        for name, tensor in zip(net.names, weights, strict=True):
            owner, leaf = _owner(self, name)
            owner.register_parameter(leaf, nn.Parameter(tensor.detach().clone()))
        for name, tensor in stats.items():
            owner, leaf = _owner(self, names[name])
            owner.register_buffer(leaf, tensor.detach().clone())
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Classify images.

        Args:
            images: [B, H, W, C], as the data set has them; see :class:`Preprocessing`.

        Returns:
            [B, classes], the logits of the task's classes.
        """
        net, names, first, outputs = self._of_task
        weights: list[Tensor] = [self.get_parameter(name) for name in net.names]
        stats = {name: self.get_buffer(there) for name, there in names.items()}
        inputs = self.get_submodule(first)(images).to(weights[0].dtype)
        return net.logits_of(weights, inputs, stats)[:, outputs]

    def train(self, mode: bool = True) -> "TaskNet":
        """Set the mode, of the architecture too."""
        super().train(mode)
        self._of_task.net.module.train(mode)
        return self


class _Inside(NamedTuple):
    """What a :class:`TaskNet` has beside tensors: no child, and no names that a layer may have."""

    net: MainNetwork
    names: dict[str, str]  # of running statistics here, by those in the network
    first: str  # the child that is the preprocessing
    outputs: slice  # the task's


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module in which a tensor "a.0.b" lies, made if it is missing, and "b"."""
    *path, leaf = name.split(".")
    for part in path:
        if part not in module._modules:
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    return module, leaf


class Preprocessing(nn.Module):
    """What :meth:`Task.inputs` does, as a module.

    Attributes:
        image_shape: (H, W, C) of the images.
        scale: What their numbers are divided by, whatever their type: 255 where those of the data
            set are uint8, else 1.
    """

    mean: Tensor | None
    std: Tensor | None
    permutation: Tensor | None

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.image_shape = tuple(task.in_shape)
        self.scale = 255 if task.train.images.dtype == torch.uint8 else 1
        for name in ("mean", "std", "permutation"):
            value = getattr(task, name)
            self.register_buffer(name, None if value is None else value.detach().clone())

    def forward(self, images: Tensor) -> Tensor:
        """Turn images into inputs of main networks.

        Args:
            images: [B, H, W, C]; grey ones may lack C. Bytes, or floats of the same range.

        Returns:
            [B, H * W * C], float32.

        Raises:
            InputError: The images have another shape.
        """
        require_shape(images, self.image_shape)
        x = images.float().reshape(-1, *self.image_shape)
        if self.scale != 1:
            x = x / self.scale
        if self.mean is not None and self.std is not None:
            x = (x - self.mean) / self.std
        x = x.flatten(1)
        return x if self.permutation is None else x[:, self.permutation]


def require_shape(images: Tensor, shape: Sequence[int]) -> None:
    """Refuse images that are not [B, *shape]; where that is H x W x 1, the last may be missing.

    Raises:
        InputError: They are of another shape.
    """
    shape, given = tuple(shape), tuple(images.shape[1:])
    allowed = [shape, shape[:-1]] if len(shape) == 3 and shape[-1] == 1 else [shape]
    if given not in allowed:
        raise InputError(
            f"the images are of the shape {list(images.shape)}: give "
            f"[number, {', '.join(map(str, shape))}], as the data set has them"
        )


def _without_counters(net: MainNetwork) -> MainNetwork:
    """hypnettorch's batch normalization counts its statistics in a tensor, and branches on its
    value; torch.export can follow that of a number alone.
    """
    if net.is_own:
        return net
    for layer in net.module.modules():
        count = layer._buffers.pop("_num_stats", None)
        if count is not None:
            layer.__dict__["_num_stats"] = int(count)
    return net
