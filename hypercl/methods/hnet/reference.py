"""The method in plain torch: one seed, every weight generated, gradients by autograd.

Symbols are those of von Oswald et al. (arXiv 1906.00695): h is the hypernetwork, θ its parameters,
e_t the embedding of task t, Θ = h(e_t, θ) the main network's weights; θ*, e* are the values before
the task that is being learned. Here θ and e are one dictionary ``theta``, named as in
networks/hypernet.py, without members. What is run is output_regularizer.py; tests hold it to this.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hypercl.engine.members import Params
from hypercl.networks.activations import MODULES
from hypercl.networks.hypernet import Hypernet
from hypercl.networks.main_net import MainNetwork


def generate(h: Hypernet, theta: Params, t: int) -> Tensor:
    """Θ = h(e_t, θ), [num_weights], chunk by chunk where there are chunks."""
    parts = []
    if "chunk_embs" in theta:
        parts.append(theta["chunk_embs"][t] if h.cond_chunk_embs else theta["chunk_embs"])
    if "task_embs" in theta:
        num_chunks = len(parts[0]) if parts else 1
        parts.append(theta["task_embs"][t].expand(num_chunks, -1))
    x = torch.cat(parts, dim=1)  # [chunks, size of both embeddings]
    for layer in range(h.num_layers):
        if layer > 0 and (activation := MODULES[h.activation]) is not None:
            x = activation(x)
        x = F.linear(x, theta[f"weight{layer}"], theta.get(f"bias{layer}"))
    return x.flatten()[: h.num_weights]  # the last chunk may be longer than what is left


def task_loss(net: MainNetwork, weights: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
    """The main network's mean cross-entropy with weights Θ on a batch [B, H * W * C], [B]."""
    return F.cross_entropy(net.logits(weights, inputs, {}), labels)


def penalty(
    h: Hypernet,
    theta: Params,
    theta_star: Params,
    earlier: Sequence[int],
    delta: Params | None = None,
) -> Tensor:
    """1 / |earlier| Σ_t || h(e_t, θ + Δθ) - h(e*_t, θ*) ||², the sum of the paper's equation 2.

    Args:
        earlier: The tasks t that are regularized: all before the current one, or some.
        delta: Δθ, the step that the optimizer would take on the task loss alone; a constant, and
            nothing for what a task has of its own. By default 0.
    """
    ahead = {name: value + (delta or {}).get(name, 0) for name, value in theta.items()}
    targets = [generate(h, theta_star, t).detach() for t in earlier]
    moved = [generate(h, ahead, t) - target for t, target in zip(earlier, targets, strict=True)]
    return torch.stack([m.square().sum() for m in moved]).mean()


def loss(
    h: Hypernet,
    net: MainNetwork,
    theta: Params,
    theta_star: Params,
    t: int,
    batch: tuple[Tensor, Tensor],
    beta: float,
) -> Tensor:
    """What is minimized while task t is learned: task loss + beta * penalty, equation 2."""
    total = task_loss(net, generate(h, theta, t), *batch)
    if t > 0:
        total = total + beta * penalty(h, theta, theta_star, range(t))
    return total


def learn(
    h: Hypernet,
    net: MainNetwork,
    theta: Params,
    t: int,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    lr: float,
    beta: float,
) -> Params:
    """Learn task t without forgetting 0 … t - 1: the whole method.

    Args:
        batches: Inputs and labels of each step.

    Returns:
        θ and e after the task; ``theta`` stays.
    """
    theta_star = theta
    theta = {name: value.clone().requires_grad_() for name, value in theta.items()}
    optimizer = torch.optim.Adam(theta.values(), lr=lr)
    for batch in batches:
        optimizer.zero_grad()
        loss(h, net, theta, theta_star, t, batch, beta).backward()
        optimizer.step()
    return {name: value.detach() for name, value in theta.items()}
