"""The checkpoint taken before a task, and the drift of the earlier tasks' weights from it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypercl.hypernet import Hypernet, Params


@dataclass(frozen=True)
class Checkpoint:
    """θ* and e*, and the weights they generated for the earlier tasks."""

    hnet: Hypernet
    params: Params
    num_tasks: int  # earlier tasks: 0 … num_tasks - 1
    stored: Tensor | None  # [num_tasks, num_weights]; None: generated again at every call

    def targets(self, task_ids: Tensor) -> Tensor:
        """h(e*_t, θ*) for the given earlier tasks t, [tasks, num_weights], without gradients."""
        if self.stored is not None:
            return self.stored[task_ids]
        with torch.no_grad():
            return self.hnet.weights(self.params, task_ids, training=False)


def take_checkpoint(
    hnet: Hypernet, params: Params, task_id: int, *, store_targets: bool = True
) -> Checkpoint | None:
    """Remember, before learning task ``task_id``, what is generated for the earlier tasks.

    Args:
        store_targets: Keep the generated weights (task_id * num_weights numbers) rather than
            generate them anew, from the parameters, at every step.

    Returns:
        None for the first task, which has nothing to remember.
    """
    if task_id == 0:
        return None
    params = {name: value.detach().clone() for name, value in params.items()}
    checkpoint = Checkpoint(hnet, params, task_id, stored=None)
    if not store_targets:
        return checkpoint
    earlier = torch.arange(task_id, device=params["weight0"].device)
    return Checkpoint(hnet, params, task_id, stored=checkpoint.targets(earlier))


def drift(weights: Tensor, targets: Tensor) -> Tensor:
    """How far the weights of earlier tasks have moved, as in von Oswald et al., equation 2:

        1 / |tasks| Σ_t || h(e_t, θ) - h(e*_t, θ*) ||²

    The sum of squares runs over all generated weights, the mean over the tasks that were taken.

    Args:
        weights: [tasks, num_weights].
        targets: The same, from the checkpoint.
    """
    return (weights - targets).square().sum() / len(weights)


def draw_subsets(
    num_tasks: int, num_steps: int, subset_size: int, generator: torch.Generator
) -> Tensor:
    """Draw beforehand which earlier tasks each step of a task regularizes, without replacement.

    Args:
        num_tasks: Earlier tasks to draw from.
        subset_size: At most so many a step; 0 or less: all.

    Returns:
        Task ids [num_steps, tasks a step] int64, on the CPU.
    """
    if not 0 < subset_size < num_tasks:
        return torch.arange(num_tasks).expand(num_steps, num_tasks)
    return torch.stack(
        [torch.randperm(num_tasks, generator=generator)[:subset_size] for _ in range(num_steps)]
    )
