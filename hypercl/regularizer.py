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

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from hypercl.hypernet import Hypernet, Params
from hypercl.members import each_member

# Rows of features in a block: what fits into a core's cache, what keeps a GPU busy.
_BLOCK_ROWS = {"cpu": 1200, "cuda": 1 << 17}


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

    def drift_and_gradient(
        self,
        leaves: Params,
        kept: Params,
        earlier: Tensor,
        of_earlier: Tensor,
        beta: float | Tensor,
        mapped: Callable[[Callable], Callable] = each_member,
    ) -> tuple[Tensor, Tensor, Params]:
        """How far the earlier tasks' weights have moved:

            drift = 1 / |tasks| Σ_t || h(e_t, θ) - h(e*_t, θ*) ||²

        The sum of squares runs over all generated weights, the mean over the tasks taken. This is
        equation 2 of von Oswald et al. without its lookahead, ΔΘ = 0.

        Args:
            leaves: θ and e now.
            kept: ``self.kept``.
            earlier: [members, tasks] int64, the tasks taken.
            of_earlier: Their generated weights [members, tasks, num_weights] in the dense form, the
                features [members, block, chunks, features] of the first block in the factored one.
            mapped: Makes a function of one member one of what is given here: the identity, if that
                is one member without its leading dimension.

        Returns:
            The drift [members]; the gradient of ``beta`` times it for ``of_earlier``; and for the
            leaves, what of it does not come through ``of_earlier``.
        """
        form = self._factored if self.factored else self._dense
        return form(leaves, kept, earlier, of_earlier, beta, mapped)

    @torch.no_grad()
    def _dense(self, leaves, kept, earlier, weights, beta, mapped):
        num_taken = earlier.shape[-1]
        moved = weights - mapped(self._targets)(kept, earlier)
        return moved.square().sum((-2, -1)) / num_taken, (2 * beta / num_taken) * moved, {}

    def _targets(self, kept: Params, earlier: Tensor) -> Tensor:
        if "targets" not in kept:
            return self.hnet.weights(kept, earlier, training=False)
        return kept["targets"][earlier] if self.subset else kept["targets"]

    @torch.no_grad()
    def _factored(self, leaves, kept, earlier, features, beta, mapped):
        num_taken, block = earlier.shape[-1], features.shape[-3]
        scale = 2 * beta / num_taken
        weight, bias = self.hnet.last_layer(leaves)
        full, rest = _full_chunks(self.hnet, weight.shape[-2])
        biases = () if bias is None else (bias, kept["bias"])
        e, g, p = mapped(_layer_products)(weight, kept["weight"], *biases)
        block_products = mapped(partial(_block_products, scale=scale, full=full, rest=rest))
        of_layer = self.hnet.last_layer_names
        others = [name for name in leaves if name not in of_layer]

        first, sums, through_features = None, None, None
        for start in range(0, num_taken, block):
            ids = earlier[..., start : start + block]
            if start > 0:
                with torch.enable_grad():
                    features = mapped(partial(self.hnet.features, training=True))(leaves, ids)
            x_star = kept["features"][..., start : start + block, :, :]
            if self.subset:
                x_star = mapped(_rows)(kept["features"], ids)
            gradient, *products = block_products(features.detach(), x_star, weight, e, g, p)
            sums = _add(sums, products)
            if start == 0:
                first = gradient
                continue
            gradients = torch.autograd.grad(features, [leaves[name] for name in others], gradient)
            through_features = _add(through_features, gradients)

        gram = mapped(_sum_of_rows)(kept["gram"], earlier) if self.subset else kept["gram"]
        total, gradient = mapped(partial(_layer_gradient, scale=scale, rest=rest))(
            weight, e, g, p, gram, *sums
        )
        d = weight.shape[-1]
        extra = {of_layer[0]: gradient[..., :d]}
        if bias is not None:
            extra[of_layer[1]] = gradient[..., d]
        if through_features is not None:
            extra |= dict(zip(others, through_features, strict=True))
        return total / num_taken, first, extra


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
            kept = {"targets": each_member(hnet.weights)(params, earlier)}
        else:
            kept = {name: value.clone() for name, value in params.items()}
        return Checkpoint(hnet, task_id, factored, subset, kept)

    weight, bias = hnet.last_layer(params)
    features = each_member(hnet.features)(params, earlier)  # [members, tasks, chunks, features]
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


# The products of the factored form, of one member; symbols as at the head of this file. Where the
# layer has no bias, E has no column for it, and u* is x*.


def _layer_products(weight, weight_star, bias=None, bias_star=None):
    """E [C, d + 1], WᵀW [d, d], WᵀE [d, d + 1]."""
    e = weight - weight_star
    if bias is not None:
        e = torch.cat([e, (bias - bias_star)[:, None]], dim=1)
    return e, weight.T @ weight, weight.T @ e


def _block_products(x, x_star, weight, e, g, p, *, scale, full: int, rest: int):
    """What the rows of a block of tasks contribute.

    The chunk that is cut, if there is one, has its y computed as it stands and stays out of the
    products.

    Args:
        x: [tasks, chunks, d], as ``x_star``; e, g, p: from :func:`_layer_products`.
        scale: Two times beta over the number of tasks taken.
        full: Number of chunks used in full; ``rest``: weights used of one more.

    Returns:
        The gradient for x; ΔXᵀΔX; ΔXᵀU*; of the cut chunk Σ ||y||² and Σ y [x, 1].
    """
    d, has_bias = x.shape[-1], e.shape[-1] > x.shape[-1]
    dx = x - x_star
    cut = dx[:, full:].clone()  # [tasks, 0 or 1, d]
    if rest:
        dx[:, full:] = 0
    rows, rows_star = dx.reshape(-1, d), x_star.reshape(-1, d)
    a, b = rows.T @ rows, rows.T @ rows_star
    p_scaled = scale * p
    if has_bias:
        b = torch.cat([b, rows.sum(0)[:, None]], dim=1)
        gradient = torch.addmm(p_scaled[:, d], rows, scale * g)
    else:
        gradient = rows @ (scale * g)
    gradient = torch.addmm(gradient, rows_star, p_scaled[:, :d].T).view(x.shape)
    if not rest:
        return gradient, a, b, x.new_zeros(()), e.new_zeros(0, e.shape[1])

    y = cut @ weight[:rest].T + x_star[:, full:] @ e[:rest, :d].T  # [tasks, 1, rest]
    u = x[:, full:].reshape(-1, d)
    if has_bias:
        y = y + e[:rest, d]
        u = F.pad(u, (0, 1), value=1.0)
    gradient[:, full:] = y @ (scale * weight[:rest])
    return gradient, a, b, y.square().sum(), y.reshape(-1, rest).T @ u


def _layer_gradient(weight, e, g, p, gram, a, b, cut_total, cut_gradient, *, scale, rest: int):
    """Σ ||y||² over everything, and the gradient for [W, b], [C, d + 1]."""
    total = (a * g).sum() + 2 * (b * p).sum() + (gram * (e.T @ e)).sum() + cut_total
    extra = gram.shape[0] - a.shape[0]  # 1 with a bias
    gradient = weight @ (scale * (F.pad(a, (0, extra)) + b))
    gradient = torch.addmm(gradient, e, scale * (F.pad(b.T, (0, extra)) + gram))
    if rest:
        gradient[:rest] += scale * cut_gradient
    return total, gradient


def _rows(values: Tensor, ids: Tensor) -> Tensor:
    return values[ids]


def _sum_of_rows(values: Tensor, ids: Tensor) -> Tensor:
    return values[ids].sum(0)


def _add(sums, values):
    return values if sums is None else [a + b for a, b in zip(sums, values, strict=True)]
