"""The factored form of the regularizer: the penalty from the hypernetwork's features alone.

With x the features that enter the hypernetwork's last layer (weight W, bias b), x*, W*, b* those of
the anchor, Δ the differences, u* = [x*, 1] and E = [ΔW, Δb], a generated chunk has moved by

    y = (W x + b) - (W* x* + b*) = W Δx + E u*

and over rows of features (tasks times chunks), which are the rows of ΔX and U*,

    Σ ||y||² = <ΔXᵀΔX, WᵀW> + 2 <ΔXᵀU*, WᵀE> + <U*ᵀU*, EᵀE>          (<,> sums the products)

    half its gradient for X:       y W      = ΔX WᵀW + U* EᵀW
    half its gradient for [W, b]:  Σ y [x, 1] = W ([ΔXᵀΔX, 0] + ΔXᵀU*) + E ([U*ᵀΔX, 0] + U*ᵀU*)

so that the generated weights are needed for neither. Of the last layer's own products two suffice,
WᵀE and EᵀE: with W = W* + ΔW,

    WᵀW = W*ᵀW* + WᵀΔW + ΔWᵀW - ΔWᵀΔW

and W*ᵀW* is known before the task. Chunks of which a task uses only a part (the last one, where it
is cut; those with the heads of other tasks) have their y computed as it stands and stay out of
these products. Every term is of second order in the differences; the middle one may be negative, so
where Δx and E nearly make up for each other the value loses digits in float32 (2e-7 of it at worst
in benchmarks/precision.py where this form is the one that is chosen, 3e-5 where it is not); the
gradient loses no more than in the dense form. The tasks go through in blocks, so that memory does
not grow with them beyond the features kept. dense.py has the same penalty as the sum that it is.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hypercl.engine.members import Params, add_into, by_member, own_rows
from hypercl.engine.products import linear, product, sum_over_rows
from hypercl.methods.hnet.anchor import Penalty, num_bytes
from hypercl.networks.heads import Heads, Partial, partial_chunks
from hypercl.networks.hypernet import Hypernet

# Rows of features in a block: few enough for a CPU's cache and many enough to outweigh the calls.
_BLOCK_ROWS = {"cpu": 2400, "cuda": 1 << 17}


@dataclass(frozen=True)
class FactoredAnchor:
    """The features of the earlier tasks and the last layer as they were.

    ``kept`` holds, each with a leading dimension of members, ``features`` X* [tasks, chunks,
    features], ``gram`` U*ᵀU* of the full chunks (of all tasks together, or of each where a step
    takes a subset), ``weight`` W* and ``bias`` b*, and ``weight_gram`` W*ᵀW*.
    """

    form = "factored"
    needs_weights = False

    hnet: Hypernet
    num_tasks: int  # earlier tasks: 0 … num_tasks - 1
    subset: bool  # whether a step regularizes some of them alone
    kept: Params
    full: int  # chunks that all tasks use in full, the first ones
    partial: Partial | None  # None where there are no others

    @classmethod
    def take(
        cls, hnet: Hypernet, params: Params, num_tasks: int, *, subset: bool, heads: Heads
    ) -> "FactoredAnchor":
        """Of the parameters as they are now; arguments as in choice.take_anchor."""
        weight, bias = hnet.last_layer(params)
        full = heads.shared // weight.shape[1]
        earlier = torch.arange(num_tasks, device=weight.device).expand(len(weight), -1)
        features = hnet.features(params, earlier)  # [members, tasks, chunks, features]
        extended = features[:, :, :full]
        if bias is not None:
            extended = F.pad(extended, (0, 1), value=1.0)
        gram = extended.mT @ extended  # [members, tasks, features + 1, features + 1]
        kept = {
            "features": features,
            "gram": gram if subset else gram.sum(1),
            "weight": weight.clone(),
            "weight_gram": sum_over_rows(weight, weight),
        }
        if bias is not None:
            kept["bias"] = bias.clone()
        partial = partial_chunks(heads, num_tasks, weight.shape[1])
        if partial is not None:
            chunks, masks = partial.chunks.to(weight.device), partial.masks.to(weight)
            partial = Partial(chunks.expand(num_tasks, -1), masks.expand(num_tasks, -1, -1))
        return cls(hnet, num_tasks, subset, kept, full, partial)

    @property
    def num_bytes(self) -> int:
        """Memory that it takes."""
        return num_bytes(*self.kept.values(), *(self.partial or ()))

    def at_once(self, num_earlier: int) -> int:
        """How many of the tasks regularized in a step go through the hypernetwork at once."""
        weight = self.kept["weight"]
        rows = _BLOCK_ROWS.get(weight.device.type, _BLOCK_ROWS["cpu"])
        chunks = -(-self.hnet.num_weights // weight.shape[-2])
        return min(num_earlier, max(1, rows // chunks))

    @torch.no_grad()
    def penalty(
        self,
        params: Params,
        earlier: Tensor,
        features: Tensor,
        weights: Tensor | None,
        beta: float | Tensor,
    ) -> Penalty:
        """See :class:`OutputAnchor`."""
        kept, block, num_earlier = self.kept, features.shape[1], earlier.shape[1]
        scale = by_member(2 * beta / num_earlier, kept["weight"])
        layer = _Layer.moved(self.hnet, params, kept, scale)
        for_params: Params = {}  # through the features of the blocks after the first
        ids = earlier[:, :block]
        for_features, sums = _block_products(features, layer, self.full, *self._then(ids, 0))
        for start in range(block, num_earlier, block):
            ids = earlier[:, start : start + block]
            passed = self.hnet.forward(params, ids, training=True)
            gradient, products = _block_products(
                passed.features, layer, self.full, *self._then(ids, start)
            )
            sums = sums.plus(products)
            add_into(for_params, self.hnet.backward(params, passed, gradient))
        gram = own_rows(kept["gram"], earlier).sum(1) if self.subset else kept["gram"]
        total, for_layer = _layer_gradient(layer, gram, sums)
        return Penalty(total / num_earlier, for_features, None, for_layer, for_params)

    def _then(self, ids: Tensor, start: int) -> tuple[Tensor, Partial | None]:
        """X* of a block of tasks, and its chunks used in part, [members, tasks, …] each.

        Args:
            ids: [members, tasks]; ``start``: position of the first among those regularized.
        """
        features, partial = self.kept["features"], self.partial
        if self.subset:
            if partial is not None:
                partial = Partial(*(value[ids] for value in partial))
            return own_rows(features, ids), partial
        stop = start + ids.shape[1]
        if partial is not None:
            block = (value[start:stop] for value in partial)
            partial = Partial(*(value.expand(len(ids), *value.shape) for value in block))
        return features[:, start:stop], partial


# The products of the factored form; symbols as at the head of this file, each with a leading
# dimension of members. Where the layer has no bias, E has no column for it, and u* is x*.


class _Layer(NamedTuple):
    """The last layer and how it has moved from the anchor."""

    weight: Tensor  # W [members, C, d]
    e: Tensor  # E [members, C, d + 1]
    g: Tensor  # WᵀW [members, d, d]
    p: Tensor  # WᵀE [members, d, d + 1]
    q: Tensor  # EᵀE [members, d + 1, d + 1]
    scale: float | Tensor  # twice beta over the number of tasks regularized; or [members, 1, 1]

    @classmethod
    def moved(cls, hnet: Hypernet, params: Params, kept: Params, scale: float | Tensor) -> "_Layer":
        weight, bias = hnet.last_layer(params)
        d = weight.shape[-1]
        if bias is None:
            e = weight - kept["weight"]
        else:
            e = weight.new_empty(*weight.shape[:2], d + 1)
            torch.sub(weight, kept["weight"], out=e[..., :d])
            torch.sub(bias, kept["bias"], out=e[..., d])
        p, q = sum_over_rows(weight, e), sum_over_rows(e, e)
        g = kept["weight_gram"] + p[..., :d] + p[..., :d].mT - q[:, :d, :d]
        return cls(weight, e, g, p, q, scale)

    @property
    def has_bias(self) -> bool:
        return self.e.shape[-1] > self.weight.shape[-1]


class _Products(NamedTuple):
    """Sums over rows of features."""

    a: Tensor  # ΔXᵀΔX [members, d, d]
    b: Tensor  # ΔXᵀU* [members, d, d + 1]
    partial: tuple[Tensor, Tensor] | None  # of chunks used in part, Σ ||y||² and scale Σ y [x, 1]

    def plus(self, other: "_Products") -> "_Products":
        partial = None
        if self.partial is not None:
            assert other.partial is not None  # it is of the same chunks
            partial = self.partial[0] + other.partial[0], self.partial[1] + other.partial[1]
        return _Products(self.a + other.a, self.b + other.b, partial)


def _block_products(
    x: Tensor, layer: _Layer, full: int, x_star: Tensor, partial: Partial | None
) -> tuple[Tensor, _Products]:
    """What the features of a block of tasks contribute, and the gradient for them.

    Args:
        x: [members, tasks, chunks, d], as ``x_star``.
        full: Chunks used in full; ``partial``: of others, with a leading dimension of members.
    """
    g, p, scale = layer.g, layer.p, layer.scale
    d = x.shape[-1]
    dx = x - x_star
    dx[:, :, full:] = 0
    rows, rows_star = dx.flatten(1, 2), x_star.flatten(1, 2)
    a, b = sum_over_rows(rows, rows), sum_over_rows(rows, rows_star)
    p_scaled, constant = scale * p, None
    if layer.has_bias:
        b = torch.cat([b, rows.sum(1)[..., None]], dim=-1)
        constant = p_scaled[:, None, :, d]
    gradient = product(rows, scale * g, plus=constant)
    gradient = product(rows_star, p_scaled[..., :d].mT, plus=gradient).view(x.shape)
    gradient[:, :, full:] = 0
    if partial is None:
        return gradient, _Products(a, b, None)
    index = partial.chunks[..., None].expand(-1, -1, -1, d)
    of_partial, sums = _partial_products(
        x.gather(2, index).flatten(1, 2),
        x_star.gather(2, index).flatten(1, 2),
        partial.masks.flatten(1, 2),
        layer,
    )
    gradient.scatter_add_(2, index, of_partial.view(index.shape))
    return gradient, _Products(a, b, sums)


def _partial_products(
    x: Tensor, x_star: Tensor, masks: Tensor, layer: _Layer
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The gradient for features x [members, rows, d] of chunks used in part; of them Σ ||y||² and
    the gradient for [W, b].
    """
    weight, e, scale = layer.weight, layer.e, layer.scale
    u, u_star = x, x_star
    if layer.has_bias:
        u, u_star = (F.pad(features, (0, 1), value=1.0) for features in (x, x_star))
    y = product(u_star, e.mT, plus=linear(x - x_star, weight))  # [members, rows, C]
    y *= masks
    return scale * product(y, weight), (y.square().sum((1, 2)), sum_over_rows(y, scale * u))


def _layer_gradient(layer: _Layer, gram: Tensor, sums: _Products) -> tuple[Tensor, Tensor]:
    """Σ ||y||² over everything, and the gradient for [W, b], [members, C, d + 1]."""
    weight, e, g, p, q, scale = layer
    a, b, partial = sums
    total = (a * g).sum((1, 2)) + 2 * (b * p).sum((1, 2)) + (gram * q).sum((1, 2))
    of_partial = None
    if partial is not None:
        total, of_partial = total + partial[0], partial[1]
    extra = gram.shape[-1] - a.shape[-1]  # 1 with a bias
    gradient = product(weight, scale * (F.pad(a, (0, extra)) + b), plus=of_partial)
    return total, product(e, scale * (F.pad(b.mT, (0, extra)) + gram), plus=gradient)
