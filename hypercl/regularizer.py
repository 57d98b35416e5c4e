"""The checkpoint taken before a task, and the drift of the earlier tasks' weights from it.

With x the features that enter the hypernetwork's last layer (weight W, bias b), x*, W*, b* those of
the checkpoint, Δ the differences, u* = [x*, 1] and E = [ΔW, Δb], a generated chunk has moved by

    y = (W x + b) - (W* x* + b*) = W Δx + E u*

and over rows of features (tasks times chunks), which are the rows of ΔX and U*,

    Σ ||y||² = <ΔXᵀΔX, WᵀW> + 2 <ΔXᵀU*, WᵀE> + <U*ᵀU*, EᵀE>          (<,> sums the products)

    half its gradient for X:       y W      = ΔX WᵀW + U* EᵀW
    half its gradient for [W, b]:  Σ y [x, 1] = W ([ΔXᵀΔX, 0] + ΔXᵀU*) + E ([U*ᵀΔX, 0] + U*ᵀU*)

so that the generated weights are needed for neither: this is the *factored* form. Chunks of which a
task uses only a part (the last one, where it is cut; those with the heads of other tasks) have
their y computed as it stands and stay out of these products. Every term is
of second order in the differences; the middle one may be negative, so where Δx and E nearly make
up for each other the value loses digits in float32 (6e-6 of it at worst in benchmarks/precision.py;
the gradient loses no more than in the dense form). It goes through the tasks in blocks, so that
memory does not grow with them beyond the features kept. The *dense* form generates the weights and
compares them with targets, which is cheaper where few rows meet a wide layer.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hypercl.heads import Heads, one_head
from hypercl.hypernet import Hypernet, rows_of
from hypercl.members import Params
from hypercl.products import linear, product, sum_over_rows

# Rows of features in a block: few enough for a CPU's cache and many enough to outweigh the calls.
_BLOCK_ROWS = {"cpu": 2400, "cuda": 1 << 17}


class Partial(NamedTuple):
    """The chunks that the earlier tasks use in part; the same number for each, some unused."""

    chunks: Tensor  # [tasks, number] int64, which
    masks: Tensor  # [tasks, number, C], 1 for the weights used, 0 for the others


@dataclass(frozen=True)
class Checkpoint:
    """What is kept, before a task is learned, of the tasks learned earlier.

    ``kept`` holds, each with a leading dimension of members:
    factored: ``features`` X* [tasks, chunks, features], ``gram`` U*ᵀU* of the full chunks (of all
    tasks together, or of each where a step takes a subset), ``weight`` W* and ``bias`` b*;
    dense: ``targets`` [tasks, num_weights], or θ* and e* themselves to generate them anew.
    """

    hnet: Hypernet
    num_tasks: int  # earlier tasks: 0 … num_tasks - 1
    factored: bool
    subset: bool  # whether a step regularizes some of them alone
    kept: Params
    full: int  # chunks that all tasks use in full, the first ones
    partial: Partial | None  # None where there are no others
    mask: Tensor | None  # [tasks, num_weights - shared ones], dense: 1 for the weights used

    @property
    def num_bytes(self) -> int:
        """Memory that it takes."""
        constant = [self.mask, *(self.partial or ())]
        values = [v for v in (*self.kept.values(), *constant) if v is not None]
        return sum(value.untyped_storage().nbytes() for value in values)

    def block_size(self, num_taken: int) -> int:
        """How many of the tasks taken in a step go through the hypernetwork at once."""
        if not self.factored:
            return num_taken
        return _block_size(self.hnet, self.kept["weight"], num_taken)

    @torch.no_grad()
    def drift_and_gradient(
        self, params: Params, earlier: Tensor, of_earlier: Tensor, beta: float | Tensor
    ) -> tuple[Tensor, Tensor, Params]:
        """How far the earlier tasks' weights have moved:

            drift = 1 / |tasks| Σ_t || h(e_t, θ) - h(e*_t, θ*) ||²

        The sum of squares runs over all generated weights, the mean over the tasks taken. This is
        equation 2 of von Oswald et al. without its lookahead, ΔΘ = 0.

        Args:
            params: θ and e now.
            earlier: [members, tasks] int64, the tasks taken.
            of_earlier: Their generated weights [members, tasks, num_weights] in the dense form, the
                features [members, block, chunks, features] of the first block in the factored one.

        Returns:
            The drift [members]; the gradient of ``beta`` times it for ``of_earlier``; and for the
            parameters, what of it does not come through ``of_earlier``.
        """
        form = self._factored if self.factored else self._dense
        return form(params, earlier, of_earlier, 2 * beta / earlier.shape[1])

    def _dense(self, params, earlier, weights, scale):
        moved = weights - self._targets(earlier)
        if self.mask is not None:
            mask = self.mask[earlier] if self.subset else self.mask
            moved[..., -mask.shape[-1] :] *= mask
        return moved.square().sum((1, 2)) / earlier.shape[1], scale * moved, {}

    def _targets(self, earlier: Tensor) -> Tensor:
        if "targets" not in self.kept:
            return self.hnet.weights(self.kept, earlier)
        return rows_of(self.kept["targets"], earlier) if self.subset else self.kept["targets"]

    def _factored(self, params, earlier, features, scale):
        kept, block, num_taken = self.kept, features.shape[1], earlier.shape[1]
        layer = _Layer.moved(self.hnet, params, kept, scale)
        partial = None
        pulled, sums, passed = None, None, None
        through_features: Params = {}  # of the blocks after the first
        for start in range(0, num_taken, block):
            ids = earlier[:, start : start + block]
            if start > 0:
                passed = self.hnet.forward(params, ids, training=True)
                features = passed.features
            x_star = kept["features"]
            x_star = rows_of(x_star, ids) if self.subset else x_star[:, start : start + block]
            if self.partial is not None and self.subset:
                partial = Partial(*(value[ids] for value in self.partial))
            elif self.partial is not None:
                taken = (value[start : start + block] for value in self.partial)
                partial = Partial(*(value.expand(len(ids), *value.shape) for value in taken))
            gradient, products = _block_products(features, x_star, layer, self.full, partial)
            sums = products if sums is None else sums.plus(products)
            if start == 0:
                pulled = gradient
            else:
                add_into(through_features, self.hnet.backward(params, passed, gradient))
        gram = rows_of(kept["gram"], earlier).sum(1) if self.subset else kept["gram"]
        total, of_layer = _layer_gradient(layer, gram, sums)
        d = features.shape[-1]
        weight_name, bias_name = self.hnet.last_layer_names
        extra = {weight_name: of_layer[..., :d]}
        if layer.has_bias:
            extra[bias_name] = of_layer[..., d]
        return total / num_taken, pulled, extra | through_features


def drift_and_gradient(
    checkpoint: Checkpoint,
    params: Params,
    earlier: Tensor,
    beta: float | Tensor,
    *,
    training: bool = True,
) -> tuple[Tensor, Params]:
    """The drift [members] and the whole gradient of ``beta`` times it, in a pass of their own.

    Args:
        earlier: [members, tasks] int64, the tasks taken.
        training: Apply the hypernetwork's dropout.
    """
    hnet = checkpoint.hnet
    first = earlier[:, : checkpoint.block_size(earlier.shape[1])]
    passed = hnet.forward(params, first, training=training)
    if checkpoint.factored:
        drift, pulled, gradients = checkpoint.drift_and_gradient(
            params, earlier, passed.features, beta
        )
    else:
        weights = hnet.generate(params, passed.features)
        drift, pulled, _ = checkpoint.drift_and_gradient(params, earlier, weights, beta)
        pulled, gradients = hnet.generate_backward(params, passed.features, pulled)
    add_into(gradients, hnet.backward(params, passed, pulled))
    return drift, gradients


def take_checkpoint(
    hnet: Hypernet,
    params: Params,
    task_id: int,
    *,
    subset_size: int = -1,
    store_targets: bool = True,
    factored: bool | None = None,
    heads: Heads | None = None,
) -> Checkpoint | None:
    """Remember, before learning task ``task_id``, what is generated for the earlier tasks.

    Args:
        params: [members, …] each.
        subset_size: Earlier tasks regularized per step; 0 or less: all.
        store_targets: In the dense form, keep the generated weights (task_id * num_weights numbers)
            rather than generate them anew, from θ* and e*, at every step.
        factored: The form; None chooses the one with fewer multiplications.
        heads: Which weights matter to which task; None: all to all.

    Returns:
        None for the first task, which has nothing to remember.
    """
    if task_id == 0:
        return None
    if factored is None:
        factored = choose_factored(
            hnet, params, task_id, subset_size, heads, store_targets=store_targets
        )
    subset = 0 < subset_size < task_id
    params = {name: value.detach() for name, value in params.items()}
    members, device = len(params["weight0"]), params["weight0"].device
    heads = heads or one_head(hnet.target_shapes)
    weight, bias = hnet.last_layer(params)
    full = heads.shared // weight.shape[1]
    earlier = torch.arange(task_id, device=device).expand(members, -1)
    if not factored:
        if store_targets:
            kept = {"targets": hnet.weights(params, earlier).clone()}
        else:
            kept = {name: value.clone() for name, value in params.items()}
        mask = None
        if heads.shared < heads.num_weights:
            mask = torch.stack([heads.mask(i)[heads.shared :] for i in range(task_id)]).to(weight)
        return Checkpoint(hnet, task_id, factored, subset, kept, full, None, mask)

    features = hnet.features(params, earlier)  # [members, tasks, chunks, features]
    extended = features[:, :, :full]
    if bias is not None:
        extended = F.pad(extended, (0, 1), value=1.0)
    gram = extended.mT @ extended  # [members, tasks, features + 1, features + 1]
    kept = {
        "features": features,
        "gram": gram if subset else gram.sum(1),
        "weight": weight.clone(),
    }
    if bias is not None:
        kept["bias"] = bias.clone()
    partial = _partial_chunks(heads, task_id, weight.shape[1])
    if partial is not None:
        chunks, masks = partial.chunks.to(device), partial.masks.to(weight)
        partial = Partial(chunks.expand(task_id, -1), masks.expand(task_id, -1, -1))
    return Checkpoint(hnet, task_id, factored, subset, kept, full, partial, None)


def choose_factored(
    hnet: Hypernet,
    params: Params,
    num_tasks: int,
    subset_size: int = -1,
    heads: Heads | None = None,
    *,
    store_targets: bool = True,
) -> bool:
    """Whether the factored form takes fewer multiplications a step than the dense one."""
    dense, factored = count_multiplications(
        hnet, params, num_tasks, subset_size, heads, store_targets=store_targets
    )
    return factored < dense


def count_multiplications(
    hnet: Hypernet,
    params: Params,
    num_tasks: int,
    subset_size: int = -1,
    heads: Heads | None = None,
    *,
    store_targets: bool = True,
) -> tuple[int, int]:
    """Multiplications that the drift and its gradient take in a step: (dense, factored).

    Dense: the last layer forward and its two gradients, and once more forward for targets that are
    not stored. Factored: two products of ΔX and two for
    its gradient over all chunks, three Gram matrices of the layer and two products for its
    gradient, and four products for the chunks that are used in part.
    """
    chunk_size, d = hnet.last_layer(params)[0].shape[-2:]
    chunks = -(-hnet.num_weights // chunk_size)
    partial = _partial_chunks(heads or one_head(hnet.target_shapes), num_tasks, chunk_size)
    num_partial = partial.chunks.shape[1] if partial is not None else 0
    taken = num_tasks if subset_size <= 0 else min(subset_size, num_tasks)
    dense = (3 if store_targets else 4) * taken * chunks * chunk_size * d
    factored = 4 * taken * (chunks * d + num_partial * chunk_size) * d + 5 * chunk_size * d * d
    return dense, factored


def draw_subsets(
    num_tasks: int, num_steps: int, subset_size: int, generator: torch.Generator
) -> Tensor:
    """Draw beforehand which earlier tasks each step of a task regularizes, without replacement.

    Args:
        num_tasks: Earlier tasks to draw from.
        subset_size: At most so many a step; 0 or less: all.

    Returns:
        Task ids [num_steps, tasks a step] int64, on the CPU; [1, num_tasks] where every step takes
        all.
    """
    if not 0 < subset_size < num_tasks:
        return torch.arange(num_tasks)[None]
    return torch.stack(
        [torch.randperm(num_tasks, generator=generator)[:subset_size] for _ in range(num_steps)]
    )


def _block_size(hnet: Hypernet, weight: Tensor, num_taken: int) -> int:
    rows = _BLOCK_ROWS.get(weight.device.type, _BLOCK_ROWS["cpu"])
    chunks = -(-hnet.num_weights // weight.shape[-2])
    return min(num_taken, max(1, rows // chunks))


def _partial_chunks(heads: Heads, num_tasks: int, chunk_size: int) -> Partial | None:
    """The chunks that tasks 0 … num_tasks - 1 use in part; None if there are none.

    Where all tasks use the same ones, they are there once.
    """
    full = heads.shared // chunk_size
    num_tasks = num_tasks if heads.own else 1
    found: list[dict[int, Tensor]] = []  # by task, by chunk: the mask
    for task_id in range(num_tasks):
        masks: dict[int, Tensor] = {}
        for weights in heads.of_task(task_id):
            for chunk in range(max(full, weights.start // chunk_size), heads.num_weights):
                begin, end = (
                    min(max(edge - chunk * chunk_size, 0), chunk_size)
                    for edge in (weights.start, weights.stop)
                )
                if begin == end:
                    break
                masks.setdefault(chunk, torch.zeros(chunk_size))[begin:end] = 1
        found.append(masks)
    number = max(map(len, found), default=0)
    if number == 0:
        return None
    chunks = torch.full((num_tasks, number), full)
    all_masks = torch.zeros(num_tasks, number, chunk_size)
    for task_id, masks in enumerate(found):
        for i, (chunk, mask) in enumerate(masks.items()):
            chunks[task_id, i], all_masks[task_id, i] = chunk, mask
    return Partial(chunks, all_masks)


# The products of the factored form; symbols as at the head of this file, each with a leading
# dimension of members. Where the layer has no bias, E has no column for it, and u* is x*.


class _Layer(NamedTuple):
    """The last layer and how it has moved from the checkpoint."""

    weight: Tensor  # W [members, C, d]
    e: Tensor  # E [members, C, d + 1]
    g: Tensor  # WᵀW [members, d, d]
    p: Tensor  # WᵀE [members, d, d + 1]
    scale: float | Tensor  # twice beta over the number of tasks taken

    @classmethod
    def moved(cls, hnet: Hypernet, params: Params, kept: Params, scale: float | Tensor) -> "_Layer":
        weight, bias = hnet.last_layer(params)
        e = weight - kept["weight"]
        if bias is not None:
            e = torch.cat([e, (bias - kept["bias"])[..., None]], dim=-1)
        return cls(weight, e, sum_over_rows(weight, weight), sum_over_rows(weight, e), scale)

    @property
    def has_bias(self) -> bool:
        return self.e.shape[-1] > self.weight.shape[-1]


class _Products(NamedTuple):
    """Sums over rows of features."""

    a: Tensor  # ΔXᵀΔX [members, d, d]
    b: Tensor  # ΔXᵀU* [members, d, d + 1]
    partial: tuple[Tensor, Tensor] | None  # of chunks used in part, Σ ||y||² and Σ y [x, 1]

    def plus(self, other: "_Products") -> "_Products":
        partial = None
        if self.partial is not None:
            partial = tuple(x + y for x, y in zip(self.partial, other.partial, strict=True))
        return _Products(self.a + other.a, self.b + other.b, partial)


def _block_products(
    x: Tensor, x_star: Tensor, layer: _Layer, full: int, partial: Partial | None
) -> tuple[Tensor, _Products]:
    """What the features of a block of tasks contribute, and the gradient for them.

    Args:
        x: [members, tasks, chunks, d], as ``x_star``.
        full: Chunks used in full; ``partial``: of others, with a leading dimension of members.
    """
    _, _, g, p, scale = layer
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
    Σ y [x, 1].
    """
    weight, e, _, _, scale = layer
    d = x.shape[-1]
    y = linear(x - x_star, weight) + linear(x_star, e[..., :d])  # [members, rows, C]
    if layer.has_bias:
        y += e[:, None, :, d]
        u = F.pad(x, (0, 1), value=1.0)
    else:
        u = x
    y *= masks
    return scale * product(y, weight), (y.square().sum((1, 2)), sum_over_rows(y, u))


def _layer_gradient(layer: _Layer, gram: Tensor, sums: _Products) -> tuple[Tensor, Tensor]:
    """Σ ||y||² over everything, and the gradient for [W, b], [members, C, d + 1]."""
    weight, e, g, p, scale = layer
    a, b, partial = sums
    total = (a * g).sum((1, 2)) + 2 * (b * p).sum((1, 2)) + (gram * sum_over_rows(e, e)).sum((1, 2))
    extra = gram.shape[-1] - a.shape[-1]  # 1 with a bias
    gradient = product(weight, scale * (F.pad(a, (0, extra)) + b))
    gradient = product(e, scale * (F.pad(b.mT, (0, extra)) + gram), plus=gradient)
    if partial is not None:
        total = total + partial[0]
        gradient += scale * partial[1]
    return total, gradient


def add_into(sums: Params, values: Params) -> None:
    """Add to each entry of ``sums``, in place, that of the same name; a new name is entered."""
    for name, value in values.items():
        if name in sums:
            sums[name] += value
        else:
            sums[name] = value
