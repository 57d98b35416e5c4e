"""Which of the two anchors is used: the one whose penalty takes fewer multiplications."""

from hypercl.engine.members import Params
from hypercl.methods.hnet.anchor import OutputAnchor
from hypercl.methods.hnet.dense import DenseAnchor
from hypercl.methods.hnet.factored import FactoredAnchor
from hypercl.networks.heads import Heads, one_head, partial_chunks
from hypercl.networks.hypernet import Hypernet


def take_anchor(
    hnet: Hypernet,
    params: Params,
    task_id: int,
    *,
    subset_size: int | None = None,
    store_targets: bool = True,
    factored: bool | None = None,
    heads: Heads | None = None,
) -> OutputAnchor | None:
    """Remember, before learning task ``task_id``, what is generated for the earlier tasks.

    Args:
        params: [members, …] each.
        subset_size: Earlier tasks regularized per step; None: all.
        store_targets: In the dense form, keep the generated weights (task_id * num_weights numbers)
            rather than generate them anew, from θ* and e*, at every step.
        factored: The form; None chooses the one with fewer multiplications.
        heads: Which weights matter to which task; None: all to all.

    Returns:
        None for the first task, which has nothing to remember.
    """
    if task_id == 0:
        return None
    heads = heads or one_head(hnet.num_weights)
    if factored is None:
        factored = factored_is_cheaper(
            hnet, params, task_id, subset_size, heads, store_targets=store_targets
        )
    subset = subset_size is not None and subset_size < task_id
    params = {name: value.detach() for name, value in params.items()}
    if factored:
        return FactoredAnchor.take(hnet, params, task_id, subset=subset, heads=heads)
    return DenseAnchor.take(
        hnet, params, task_id, subset=subset, store_targets=store_targets, heads=heads
    )


def factored_is_cheaper(
    hnet: Hypernet,
    params: Params,
    num_tasks: int,
    subset_size: int | None = None,
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
    subset_size: int | None = None,
    heads: Heads | None = None,
    *,
    store_targets: bool = True,
) -> tuple[int, int]:
    """Multiplications that the penalty and its gradient take in a step: (dense, factored).

    Dense: the last layer forward and its two gradients, and once more forward for targets that are
    not stored. Factored: two products of ΔX and two for its gradient over all chunks, two Gram
    matrices of the layer and two products for its gradient, and four products for the chunks that
    are used in part.
    """
    chunk_size, d = hnet.last_layer(params)[0].shape[-2:]
    chunks = -(-hnet.num_weights // chunk_size)
    partial = partial_chunks(heads or one_head(hnet.num_weights), num_tasks, chunk_size)
    num_partial = partial.chunks.shape[1] if partial is not None else 0
    tasks = num_tasks if subset_size is None else min(subset_size, num_tasks)
    dense = (3 if store_targets else 4) * tasks * chunks * chunk_size * d
    factored = 4 * tasks * (chunks * d + num_partial * chunk_size) * d + 4 * chunk_size * d * d
    return dense, factored
