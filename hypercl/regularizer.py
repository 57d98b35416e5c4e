"""The checkpoint taken before a task, and the drift of the earlier tasks' weights from it.

With x the features that enter the hypernetwork's last layer (weight W, bias b), x*, W*, b* those of
the checkpoint, Δ the differences, u* = [x*, 1] and E = [ΔW, Δb], a generated chunk has moved by

    y = (W x + b) - (W* x* + b*) = W Δx + E u*

and over rows of features (tasks times chunks), which are the rows of ΔX and U*,

    Σ ||y||² = <ΔXᵀΔX, WᵀW> + 2 <ΔXᵀU*, WᵀE> + <U*ᵀU*, EᵀE>          (<,> sums the products)

    half its gradient for X:       y W      = ΔX WᵀW + U* EᵀW
    half its gradient for [W, b]:  Σ y [x, 1] = W ([ΔXᵀΔX, 0] + ΔXᵀU*) + E ([U*ᵀΔX, 0] + U*ᵀU*)

so that the generated weights are needed for neither: this is the *factored* form. Every term is
of second order in the differences; the middle one may be negative, so where Δx and E nearly make
up for each other the value loses digits in float32 (7e-5 of it at worst in benchmarks/precision.py;
the gradient loses no more than in the dense form). It goes through the tasks in blocks, so that
memory does not grow with them beyond the features kept. The *dense* form generates the weights and
compares them with targets, which is cheaper where few rows meet a wide layer.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hypercl.hypernet import Hypernet, rows_of
from hypercl.members import Params

# Rows of features in a block: few enough for a CPU's cache and many enough to outweigh the calls.
_BLOCK_ROWS = {"cpu": 2400, "cuda": 1 << 17}


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

    @property
    def num_bytes(self) -> int:
        """Memory that it takes."""
        return sum(value.nbytes for value in self.kept.values())

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
        return moved.square().sum((1, 2)) / earlier.shape[1], scale * moved, {}

    def _targets(self, earlier: Tensor) -> Tensor:
        if "targets" not in self.kept:
            return self.hnet.weights(self.kept, earlier)
        return rows_of(self.kept["targets"], earlier) if self.subset else self.kept["targets"]

    def _factored(self, params, earlier, features, scale):
        kept, block, num_taken = self.kept, features.shape[1], earlier.shape[1]
        layer = _Layer.moved(self.hnet, params, kept, scale)
        pulled, sums, passed = None, None, None
        through_features: Params = {}  # of the blocks after the first
        for start in range(0, num_taken, block):
            ids = earlier[:, start : start + block]
            if start > 0:
                passed = self.hnet.forward(params, ids, training=True)
                features = passed.features
            x_star = kept["features"]
            x_star = rows_of(x_star, ids) if self.subset else x_star[:, start : start + block]
            gradient, products = _block_products(features, x_star, layer)
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


def take_checkpoint(
    hnet: Hypernet,
    params: Params,
    task_id: int,
    *,
    subset_size: int = -1,
    store_targets: bool = True,
    factored: bool | None = None,
) -> Checkpoint | None:
    """Remember, before learning task ``task_id``, what is generated for the earlier tasks.

    Args:
        params: [members, …] each.
        subset_size: Earlier tasks regularized per step; 0 or less: all.
        store_targets: In the dense form, keep the generated weights (task_id * num_weights numbers)
            rather than generate them anew, from θ* and e*, at every step.
        factored: The form; None chooses the one with fewer multiplications.

    Returns:
        None for the first task, which has nothing to remember.
    """
    if task_id == 0:
        return None
    if factored is None:
        factored = choose_factored(hnet, params, task_id, subset_size)
    subset = 0 < subset_size < task_id
    params = {name: value.detach() for name, value in params.items()}
    members = len(params["weight0"])
    earlier = torch.arange(task_id, device=params["weight0"].device).expand(members, -1)
    if not factored:
        if store_targets:
            kept = {"targets": hnet.weights(params, earlier).clone()}
        else:
            kept = {name: value.clone() for name, value in params.items()}
        return Checkpoint(hnet, task_id, factored, subset, kept)

    weight, bias = hnet.last_layer(params)
    features = hnet.features(params, earlier)  # [members, tasks, chunks, features]
    extended = features[:, :, : _full_chunks(hnet, weight.shape[1])[0]]
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
    return Checkpoint(hnet, task_id, factored, subset, kept)


def choose_factored(hnet: Hypernet, params: Params, num_tasks: int, subset_size: int = -1) -> bool:
    """Whether the factored form takes fewer multiplications a step than the dense one."""
    dense, factored = count_multiplications(hnet, params, num_tasks, subset_size)
    return factored < dense


def count_multiplications(
    hnet: Hypernet, params: Params, num_tasks: int, subset_size: int = -1
) -> tuple[int, int]:
    """Multiplications that the drift and its gradient take in a step: (dense, factored).

    Dense: the last layer forward and its two gradients. Factored: two products of ΔX and two for
    its gradient over all full chunks, three Gram matrices of the layer and two products for its
    gradient, and four products for the last chunk where it is cut.
    """
    chunk_size, d = hnet.last_layer(params)[0].shape[-2:]
    full, rest = _full_chunks(hnet, chunk_size)
    taken = num_tasks if subset_size <= 0 else min(subset_size, num_tasks)
    dense = 3 * taken * (full + (rest > 0)) * chunk_size * d
    factored = 4 * taken * full * d * d + 5 * chunk_size * d * d + 4 * taken * rest * d
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


def _full_chunks(hnet: Hypernet, chunk_size: int) -> tuple[int, int]:
    """Number of chunks used in full, and how many weights of one more are used."""
    return divmod(hnet.num_weights, chunk_size)


# The products of the factored form; symbols as at the head of this file, each with a leading
# dimension of members. Where the layer has no bias, E has no column for it, and u* is x*.


class _Layer(NamedTuple):
    """The last layer and how it has moved from the checkpoint."""

    weight: Tensor  # W [members, C, d]
    e: Tensor  # E [members, C, d + 1]
    g: Tensor  # WᵀW [members, d, d]
    p: Tensor  # WᵀE [members, d, d + 1]
    scale: float | Tensor  # twice beta over the number of tasks taken
    full: int  # chunks used in full
    rest: int  # weights used of one more

    @classmethod
    def moved(cls, hnet: Hypernet, params: Params, kept: Params, scale: float | Tensor) -> "_Layer":
        weight, bias = hnet.last_layer(params)
        e = weight - kept["weight"]
        if bias is not None:
            e = torch.cat([e, (bias - kept["bias"])[..., None]], dim=-1)
        transposed = weight.mT
        full, rest = _full_chunks(hnet, weight.shape[1])
        return cls(weight, e, transposed @ weight, transposed @ e, scale, full, rest)

    @property
    def has_bias(self) -> bool:
        return self.e.shape[-1] > self.weight.shape[-1]


class _Products(NamedTuple):
    """Sums over rows of features."""

    a: Tensor  # ΔXᵀΔX [members, d, d]
    b: Tensor  # ΔXᵀU* [members, d, d + 1]
    cut: tuple[Tensor, Tensor] | None  # of the cut chunks, Σ ||y||² and Σ y [x, 1]

    def plus(self, other: "_Products") -> "_Products":
        cut = self.cut and tuple(x + y for x, y in zip(self.cut, other.cut, strict=True))
        return _Products(self.a + other.a, self.b + other.b, cut)


def _block_products(x: Tensor, x_star: Tensor, layer: _Layer) -> tuple[Tensor, _Products]:
    """What the features of a block of tasks contribute, and the gradient for them.

    The chunk that is cut, if there is one, has its y computed as it stands and stays out of the
    products.

    Args:
        x: [members, tasks, chunks, d], as ``x_star``.
    """
    weight, e, g, p, scale, full, rest = layer
    d = x.shape[-1]
    dx = x - x_star
    cut = None
    if rest:
        cut_dx = dx[:, :, full].clone()  # [members, tasks, d]
        dx[:, :, full] = 0
    rows, rows_star = dx.flatten(1, 2), x_star.flatten(1, 2)
    transposed = rows.mT
    a, b = transposed @ rows, transposed @ rows_star
    p_scaled = scale * p
    if layer.has_bias:
        b = torch.cat([b, rows.sum(1)[..., None]], dim=-1)
        gradient = torch.baddbmm(p_scaled[:, None, :, d], rows, scale * g)
    else:
        gradient = rows @ (scale * g)
    torch.baddbmm(gradient, rows_star, p_scaled[..., :d].mT, out=gradient)
    gradient = gradient.view(x.shape)
    if rest:
        y = cut_dx @ weight[:, :rest].mT + x_star[:, :, full] @ e[:, :rest, :d].mT
        u = x[:, :, full]
        if layer.has_bias:
            y = y + e[:, None, :rest, d]
            u = F.pad(u, (0, 1), value=1.0)
        gradient[:, :, full] = y @ (scale * weight[:, :rest])
        cut = (y.square().sum((1, 2)), y.mT @ u)
    return gradient, _Products(a, b, cut)


def _layer_gradient(layer: _Layer, gram: Tensor, sums: _Products) -> tuple[Tensor, Tensor]:
    """Σ ||y||² over everything, and the gradient for [W, b], [members, C, d + 1]."""
    weight, e, g, p, scale, _, rest = layer
    a, b, cut = sums
    total = (a * g).sum((1, 2)) + 2 * (b * p).sum((1, 2)) + (gram * (e.mT @ e)).sum((1, 2))
    extra = gram.shape[-1] - a.shape[-1]  # 1 with a bias
    gradient = weight @ (scale * (F.pad(a, (0, extra)) + b))
    torch.baddbmm(gradient, e, scale * (F.pad(b.mT, (0, extra)) + gram), out=gradient)
    if rest:
        total = total + cut[0]
        gradient[:, :rest] += scale * cut[1]
    return total, gradient


def add_into(sums: Params, values: Params) -> None:
    """Add to each entry of ``sums``, in place, that of the same name; a new name is entered."""
    for name, value in values.items():
        if name in sums:
            sums[name] += value
        else:
            sums[name] = value
