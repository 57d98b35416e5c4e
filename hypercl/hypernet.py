"""The hypernetwork h(e, θ) as a pure function: the weights of many tasks in one pass.

hypnettorch's module gives the architecture, the initialization and the names under which weights
are saved. What is trained are plain tensors: a dictionary with

    task_embs              [tasks, size], absent if the size is 0
    chunk_embs             [chunks, size], or [tasks, chunks, size] where they are conditional;
                           absent in a hypernetwork without chunks
    weight0, bias0, …      of the layers

so that the embeddings of many tasks are gathered, trained and kept in one piece. Several members
(seeds trained together) have their parameters stacked along a leading dimension; the functions here
are those of one member unless they say otherwise.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hypnettorch.hnets import ChunkedHMLP, HyperNetInterface
from torch import Tensor

from hypercl.members import Params

_IN_PLACE = {
    "linear": lambda x: x,
    "sigmoid": torch.sigmoid_,
    "relu": torch.relu_,
    "elu": F.elu_,
    "tanh": torch.tanh_,
}


@dataclass(frozen=True)
class Hypernet:
    """The architecture of a hypernetwork; its parameters are handed to each method."""

    target_shapes: tuple[tuple[int, ...], ...]
    num_layers: int
    cond_chunk_embs: bool  # chunk embeddings of its own for each task
    activation: str  # a key of _IN_PLACE
    dropout_rate: float  # 0 or less: none

    @property
    def per_task(self) -> tuple[str, ...]:
        """Names of the parameters with one row a task."""
        return ("task_embs", "chunk_embs") if self.cond_chunk_embs else ("task_embs",)

    @property
    def num_weights(self) -> int:
        """Number of weights generated for one task."""
        return sum(math.prod(shape) for shape in self.target_shapes)

    def features(self, params: Params, task_ids: Tensor, *, training: bool = False) -> Tensor:
        """What enters the last, linear layer.

        Args:
            params: See the head of this file.
            task_ids: [tasks] int64.
            training: Apply dropout, drawn by torch's global generator.

        Returns:
            [tasks, chunks, features]; a hypernetwork without chunks has one.
        """
        chunk_embs, task_embs = self._embeddings(params, task_ids)
        if self.num_layers == 1:
            shape = (len(task_ids), chunk_embs.shape[1], -1)
            return torch.cat([chunk_embs.expand(shape), task_embs.expand(shape)], dim=-1)

        # The first layer sees both embeddings in a row; their shares are computed apart, so that
        # the chunk embeddings', which all tasks have in common, is computed once.
        from_chunk, from_task = params["weight0"].split(
            [chunk_embs.shape[-1], task_embs.shape[-1]], dim=1
        )
        x = F.linear(chunk_embs, from_chunk, params.get("bias0")) + F.linear(task_embs, from_task)
        x = self._hidden(x, training)  # [tasks, chunks, hidden]
        for layer in range(1, self.num_layers - 1):
            x = F.linear(x, params[f"weight{layer}"], params.get(f"bias{layer}"))
            x = self._hidden(x, training)
        return x

    def weights(self, params: Params, task_ids: Tensor, *, training: bool = False) -> Tensor:
        """h(e_t, θ) for the given tasks t; arguments as for :meth:`features`.

        Returns:
            [tasks, num_weights], each row the main network's tensors one after the other.
        """
        return self.generate(params, self.features(params, task_ids, training=training))

    def generate(self, params: Params, features: Tensor) -> Tensor:
        """The last layer: features [tasks, chunks, features] to weights [tasks, num_weights]."""
        chunks = F.linear(features, *self.last_layer(params)).flatten(1)
        # The last chunk may hold more than is needed. (The gradient of a split is one copy, that of
        # a slice a copy and a tensor of zeros.)
        return chunks.split([self.num_weights, chunks.shape[1] - self.num_weights], dim=1)[0]

    def last_layer(self, params: Params) -> tuple[Tensor, Tensor | None]:
        """Weight [chunk_size, features] and bias [chunk_size] of the last layer."""
        weight, bias = self.last_layer_names
        return params[weight], params.get(bias)

    @property
    def last_layer_names(self) -> tuple[str, str]:
        """Under which its weight and bias are among the parameters."""
        return f"weight{self.num_layers - 1}", f"bias{self.num_layers - 1}"

    def split(self, weights: Tensor) -> list[Tensor]:
        """Cut the weights of one task, [num_weights], into the main network's tensors."""
        sizes = [math.prod(shape) for shape in self.target_shapes]
        pieces = weights.split(sizes)
        return [piece.view(shape) for piece, shape in zip(pieces, self.target_shapes, strict=True)]

    def to_train(self, params: Params, num_tasks: int) -> tuple[Tensor, Params]:
        """A copy of ``params`` to train, with embeddings of the first ``num_tasks`` tasks alone.

        What belongs to later tasks stays out, so that neither weight decay nor momentum moves it.
        Here and in :meth:`merged`, all tensors have a leading dimension of members.

        Returns:
            All numbers in one tensor [members, numbers], and the parameters as views of it.
        """
        taken = {
            name: value[:, :num_tasks] if name in self.per_task else value
            for name, value in params.items()
        }
        flat = torch.cat([value.detach().flatten(1) for value in taken.values()], dim=1)
        pieces = flat.split([value[0].numel() for value in taken.values()], dim=1)
        views = zip(taken.items(), pieces, strict=True)
        return flat, {name: piece.view(value.shape) for (name, value), piece in views}

    def merged(self, params: Params, trained: Params) -> Params:
        """``params`` with a copy of what was trained put in its place; the arguments stay."""
        return {
            name: torch.cat([value, params[name][:, value.shape[1] :]], dim=1)
            if name in self.per_task
            else value.clone()
            for name, value in trained.items()
        }

    def _hidden(self, x: Tensor, training: bool) -> Tensor:
        if self.dropout_rate > 0:
            x = F.dropout(x, self.dropout_rate, training)
        return _IN_PLACE[self.activation](x)  # x is fresh, and no backward pass needs it

    def _embeddings(self, params: Params, task_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Chunk embeddings [1 or tasks, chunks, size], task embeddings [tasks, 1, size]."""
        absent = params["weight0"].new_empty(len(task_ids), 1, 0)
        chunk_embs, task_embs = absent, absent
        if "chunk_embs" in params:
            embs = params["chunk_embs"]
            chunk_embs = embs[task_ids] if self.cond_chunk_embs else embs[None]
        if "task_embs" in params:
            task_embs = params["task_embs"][task_ids][:, None]
        return chunk_embs, task_embs


def from_module(
    module: HyperNetInterface, *, activation: str, dropout_rate: float
) -> tuple[Hypernet, Params]:
    """The function that a module of hypnettorch computes, and a copy of its parameters."""
    hnet = Hypernet(
        target_shapes=tuple(tuple(shape) for shape in module.target_shapes),
        num_layers=len(module.layer_weight_tensors),
        cond_chunk_embs=isinstance(module, ChunkedHMLP) and module.cond_chunk_embs,
        activation=activation,
        dropout_rate=dropout_rate,
    )
    params = {}
    for name, slots in _slots(module).items():
        value = torch.stack([slot.detach() for slot in slots])
        params[name] = value if name in hnet.per_task else value[0]
    return hnet, params


def into_module(params: Params, module: HyperNetInterface) -> None:
    """Copy one member's parameters into a module, to save them under its names."""
    for name, slots in _slots(module).items():
        rows = params[name] if len(slots) > 1 else [params[name].reshape(slots[0].shape)]
        for slot, row in zip(slots, rows, strict=True):
            slot.data.copy_(row)


def _slots(module: HyperNetInterface) -> dict[str, list[torch.nn.Parameter]]:
    """The module's parameters under our names; several where there is one for each task."""
    slots: dict[str, list[torch.nn.Parameter]] = {}
    num_tasks = module.num_known_conds
    conditional = list(module.conditional_params or [])  # task embeddings, then chunk embeddings
    if isinstance(module, ChunkedHMLP):
        if module.cond_chunk_embs:
            slots["chunk_embs"] = conditional[-num_tasks:]
            conditional = conditional[:-num_tasks]
        else:
            slots["chunk_embs"] = [module.unconditional_params[-1]]
    if conditional:
        slots["task_embs"] = conditional
    for i, weight in enumerate(module.layer_weight_tensors):
        slots[f"weight{i}"] = [weight]
    if module.has_bias:
        for i, bias in enumerate(module.layer_bias_vectors):
            slots[f"bias{i}"] = [bias]
    return slots
