"""The hypernetwork h(e, θ) as pure functions: the weights of many tasks in one pass, and back.

hypnettorch's module gives the architecture, the initialization and the names under which weights
are saved. What is trained are plain tensors: a dictionary with

    task_embs              [members, tasks, size], absent if the size is 0
    chunk_embs             [members, chunks, size], or [members, tasks, chunks, size] where they are
                           conditional; absent in a hypernetwork without chunks
    weight0, bias0, …      of the layers, [members, outputs, inputs] and [members, outputs]

so that the embeddings of many tasks are gathered, trained and kept in one piece. The leading
dimension is that of the members, seeds trained together; a single run has one.

The backward pass is written out: it costs what its matrix products cost, where torch.autograd would
add about as much again for networks of this size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hypercl.engine.members import Params, own_rows
from hypercl.engine.products import linear, product, sum_over_rows
from hypercl.networks.activations import ACTIVATIONS
from hypercl.networks.dropout import dropout_mask


class Pass(NamedTuple):
    """What a forward pass through the hidden layers leaves for the backward one."""

    task_ids: Tensor  # [members, tasks] int64
    outputs: list[Tensor]  # of each hidden layer, [members, tasks * chunks, width]
    masks: list[Tensor | None]  # dropout of each hidden layer: 0 or 1 / (1 - rate)
    features: Tensor  # [members, tasks, chunks, features], what enters the last, linear layer


@dataclass(frozen=True)
class Hypernet:
    """The architecture of a hypernetwork; its parameters are handed to each method."""

    num_weights: int  # generated for one task
    num_layers: int
    cond_chunk_embs: bool  # chunk embeddings of its own for each task
    activation: str  # a key of ACTIVATIONS
    dropout_rate: float  # 0 or less: none

    @property
    def per_task(self) -> tuple[str, ...]:
        """Names of the parameters with one row a task."""
        return ("task_embs", "chunk_embs") if self.cond_chunk_embs else ("task_embs",)

    def forward(self, params: Params, task_ids: Tensor, *, training: bool = False) -> Pass:
        """All layers but the last.

        Args:
            params: See the head of this file.
            task_ids: [members, tasks] int64; no task twice.
            training: Apply dropout.
        """
        chunk_embs, task_embs = self._embeddings(params, task_ids)
        members, tasks = task_ids.shape
        if self.num_layers == 1:
            shape = (members, tasks, chunk_embs.shape[2], -1)
            both = torch.cat([chunk_embs.expand(shape), task_embs.expand(shape)], dim=-1)
            return Pass(task_ids, [], [], both)

        # The first layer sees both embeddings in a row; their shares are computed apart, so that
        # the chunk embeddings', which all tasks have in common, is computed once.
        from_chunk, from_task = self._first_layer(params)
        of_chunks = linear(chunk_embs.flatten(1, 2), from_chunk, params.get("bias0"))
        of_tasks = linear(task_embs.flatten(1, 2), from_task)
        width = of_tasks.shape[-1]
        x = of_chunks.view(members, -1, chunk_embs.shape[2], width) + of_tasks[:, :, None]
        chunks = x.shape[2]
        x, mask = self._hidden(x.flatten(1, 2), training)
        outputs, masks = [x], [mask]
        for layer in range(1, self.num_layers - 1):
            x = linear(x, params[f"weight{layer}"], params.get(f"bias{layer}"))
            x, mask = self._hidden(x, training)
            outputs.append(x)
            masks.append(mask)
        return Pass(task_ids, outputs, masks, x.view(members, tasks, chunks, -1))

    @torch.no_grad()
    def backward(self, params: Params, passed: Pass, gradient: Tensor) -> Params:
        """The gradient for all parameters but the last layer's.

        Args:
            params: As in the forward pass; ``passed``: its result.
            gradient: For the features, of their shape; it is overwritten.
        """
        gradients: Params = {}
        members, tasks, chunks, width = gradient.shape
        chunk_embs, task_embs = self._embeddings(params, passed.task_ids)
        if self.num_layers == 1:
            of_chunks, of_tasks = gradient.tensor_split([chunk_embs.shape[-1]], dim=-1)
            of_tasks = of_tasks.sum(2)
            if not self.cond_chunk_embs:
                of_chunks = of_chunks.sum(1, keepdim=True)
            return self._embedding_gradients(params, passed.task_ids, of_chunks, of_tasks)

        gradient = gradient.reshape(members, tasks * chunks, width)
        for layer in reversed(range(self.num_layers - 1)):
            gradient = ACTIVATIONS[self.activation].backward(gradient, passed.outputs[layer])
            mask = passed.masks[layer]
            if mask is not None:
                gradient *= mask
            if layer > 0:
                weight, bias = f"weight{layer}", f"bias{layer}"
                gradients[weight] = sum_over_rows(gradient, passed.outputs[layer - 1])
                if bias in params:
                    gradients[bias] = gradient.sum(1)
                gradient = product(gradient, params[weight])

        # gradient: for the outputs of the first layer, [members, tasks * chunks, width]
        gradient = gradient.view(members, tasks, chunks, -1)
        of_tasks = gradient.sum(2)
        of_chunks = gradient if self.cond_chunk_embs else gradient.sum(1, keepdim=True)
        shape = (*of_chunks.shape[:3], chunk_embs.shape[-1])
        of_chunks = of_chunks.flatten(1, 2)
        from_chunk, from_task = self._first_layer(params)
        shares = [
            sum_over_rows(of_chunks, chunk_embs.flatten(1, 2)),
            sum_over_rows(of_tasks, task_embs.flatten(1, 2)),
        ]
        gradients["weight0"] = torch.cat(shares, dim=-1)
        if "bias0" in params:
            gradients["bias0"] = of_tasks.sum(1)
        of_chunks = product(of_chunks, from_chunk).view(shape)
        of_tasks = product(of_tasks, from_task)
        return gradients | self._embedding_gradients(params, passed.task_ids, of_chunks, of_tasks)

    def features(self, params: Params, task_ids: Tensor) -> Tensor:
        """What enters the last layer, [members, tasks, chunks, features]; without dropout."""
        return self.forward(params, task_ids).features

    def weights(self, params: Params, task_ids: Tensor) -> Tensor:
        """h(e_t, θ) for the given tasks t, without dropout.

        Returns:
            [members, tasks, num_weights], each row the main network's tensors one after the other.
        """
        return self.generate(params, self.features(params, task_ids))

    def generate(self, params: Params, features: Tensor) -> Tensor:
        """The last layer: features [members, tasks, chunks, features] to weights.

        Returns:
            [members, tasks, num_weights]; what the last chunk holds beyond them is left out.
        """
        return self.generate_chunks(params, features)[..., : self.num_weights]

    def generate_chunks(self, params: Params, features: Tensor) -> Tensor:
        """The last layer: features [members, tasks, chunks, features] to weights, and what the last
        chunk holds beyond them: [members, tasks, chunks * chunk_size].
        """
        chunks = linear(features.flatten(1, 2), *self.last_layer(params))
        return chunks.view(*features.shape[:2], -1)

    @torch.no_grad()
    def generate_backward(
        self,
        params: Params,
        features: Tensor,
        *gradients: Tensor,
        plus: Tensor | None = None,
    ) -> tuple[Tensor, Params]:
        """The gradients for the features and for the last layer's parameters.

        Args:
            gradients: For what is generated, [members, tasks, num_weights or chunks * chunk_size];
                several are joined along the tasks, in this order.
            plus: A gradient for the last layer, weight and bias side by side as in
                :meth:`split_last_layer`, that is added to it; the result takes its memory.
        """
        weight, bias = self.last_layer(params)
        gradient = self._whole_chunks(gradients, features.shape[2] * weight.shape[1])
        gradient = gradient.view(len(gradient), -1, weight.shape[1])
        rows = features.flatten(1, 2)
        if bias is not None:
            rows = F.pad(rows, (0, 1), value=1.0)
        of_layer = sum_over_rows(gradient, rows, plus=plus)
        return product(gradient, weight).view(features.shape), self.split_last_layer(
            params, of_layer
        )

    def split_last_layer(self, params: Params, both: Tensor) -> Params:
        """What belongs to weight and bias side by side, [members, chunk_size, features + 1], by
        their names; where there is no bias, [members, chunk_size, features] to the weight.
        """
        name, bias_name = self.last_layer_names
        if bias_name not in params:
            return {name: both}
        return {name: both[..., :-1], bias_name: both[..., -1]}

    def _whole_chunks(self, gradients: Sequence[Tensor], size: int) -> Tensor:
        """Gradients joined along the tasks, [members, tasks, size], with zeros for what belongs to
        no weight; may be the one that is given.
        """
        if len(gradients) == 1 and gradients[0].shape[2] == size:
            return gradients[0]
        tasks = sum(gradient.shape[1] for gradient in gradients)
        joined = gradients[0].new_empty(len(gradients[0]), tasks, size)
        joined[..., self.num_weights :] = 0
        start = 0
        for gradient in gradients:
            joined[:, start : start + gradient.shape[1], : gradient.shape[2]] = gradient
            start += gradient.shape[1]
        return joined

    def last_layer(self, params: Params) -> tuple[Tensor, Tensor | None]:
        """Weight [members, chunk_size, features], bias [members, chunk_size] of the last layer."""
        weight, bias = self.last_layer_names
        return params[weight], params.get(bias)

    @property
    def last_layer_names(self) -> tuple[str, str]:
        """Under which its weight and bias are among the parameters."""
        return f"weight{self.num_layers - 1}", f"bias{self.num_layers - 1}"

    def _first_layer(self, params: Params) -> tuple[Tensor, Tensor]:
        """Its weights for the chunk embedding and for the task embedding."""
        weight = params["weight0"]
        size = params["chunk_embs"].shape[-1] if "chunk_embs" in params else 0
        return weight[..., :size], weight[..., size:]

    def _hidden(self, x: Tensor, training: bool) -> tuple[Tensor, Tensor | None]:
        """Dropout, then the activation, in place; the mask where there is one."""
        mask = None
        if self.dropout_rate > 0 and training:
            mask = dropout_mask(x, self.dropout_rate)
            x = x * mask
        return ACTIVATIONS[self.activation].forward(x), mask

    def _embeddings(self, params: Params, task_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Chunk embeddings [members, 1 or tasks, chunks, size], task embeddings
        [members, tasks, 1, size]; of size 0 where there are none.
        """
        chunk_embs = params["weight0"].new_empty(len(task_ids), 1, 1, 0)
        task_embs = params["weight0"].new_empty(*task_ids.shape, 1, 0)
        if "chunk_embs" in params:
            chunk_embs = params["chunk_embs"]
            chunk_embs = (
                own_rows(chunk_embs, task_ids) if self.cond_chunk_embs else chunk_embs[:, None]
            )
        if "task_embs" in params:
            task_embs = own_rows(params["task_embs"], task_ids)[:, :, None]
        return chunk_embs, task_embs

    def _embedding_gradients(
        self, params: Params, task_ids: Tensor, of_chunks: Tensor, of_tasks: Tensor
    ) -> Params:
        """The gradients for all embeddings from those for some tasks'; zero for the others."""
        gradients = {}
        if "chunk_embs" in params:
            gradients["chunk_embs"] = (
                _into_rows(params["chunk_embs"], task_ids, of_chunks)
                if self.cond_chunk_embs
                else of_chunks[:, 0]
            )
        if "task_embs" in params:
            gradients["task_embs"] = _into_rows(params["task_embs"], task_ids, of_tasks)
        return gradients


def _into_rows(like: Tensor, task_ids: Tensor, rows: Tensor) -> Tensor:
    """The reverse of :func:`own_rows`: zeros of the shape of ``like`` but for the rows given."""
    index = task_ids.view(*task_ids.shape, *[1] * (rows.ndim - 2)).expand(rows.shape)
    return torch.zeros_like(like).scatter_(1, index, rows)
