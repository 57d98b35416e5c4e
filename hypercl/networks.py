"""Factories over hypnettorch's classes: the main network and the hypernetwork."""

import math
from collections.abc import Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from hypnettorch.hnets import HMLP, ChunkedHMLP, HyperNetInterface
from hypnettorch.mnets import MLP, WRN, LeNet, MainNetInterface, ResNet, ZenkeNet
from torch import Tensor, nn

from hypercl.errors import InputError
from hypercl.members import Params

_IN_CACHE = 1 << 20  # weights of main networks, together, that a thread is fast with

# Their constructors write the number of classes into these tables of their classes, and the next
# network would have it too: each is given a fresh copy.
_LENETS, _ZENKENETS = deepcopy(LeNet._ARCHITECTURES), deepcopy(ZenkeNet._architectures)

ACTIVATIONS = {
    "linear": None,
    "sigmoid": nn.Sigmoid(),
    "relu": nn.ReLU(),
    "elu": nn.ELU(),
    "tanh": nn.Tanh(),
}


def build_main_net(
    net_type: str,
    in_shape: tuple[int, int, int],
    num_classes: int,
    *,
    mlp_arch: Sequence[int] = (100, 100),
    lenet_type: str = "mnist_small",
    resnet_block_depth: int = 5,
    resnet_channel_sizes: Sequence[int] = (16, 16, 32, 64),
    wrn_block_depth: int = 4,
    wrn_widening_factor: int = 10,
    wrn_use_fc_bias: bool = False,
    net_act: str = "relu",
    bias: bool = True,
    dropout_rate: float = -1,
    batchnorm: bool = False,
    running_stats: bool = False,
) -> MainNetInterface:
    """Build a main network without weights of its own.

    Args:
        net_type: ``"mlp"``, ``"lenet"``, ``"resnet"``, ``"wrn"`` or ``"zenke"``; a network ignores
            the arguments of the others (train_args.py refuses what it cannot do).
        in_shape: (H, W, C) of the images.
        batchnorm: Normalize by the batch's statistics, in training and in evaluation.
        running_stats: In evaluation by running statistics instead; :func:`fresh_stats` makes them.

    Returns:
        A network whose ``forward(x, weights)`` takes flat inputs [B, H * W * C] and tensors of its
        ``param_shapes``, and returns logits [B, num_classes].
    """
    common = {"no_weights": True, "verbose": False}
    normalization = {  # "distilled" statistics are those that are handed to forward
        "use_batch_norm": batchnorm,
        "bn_track_stats": batchnorm and running_stats,
        "distill_bn_stats": batchnorm and running_stats,
    }
    if net_type == "mlp":
        height, width, channels = in_shape
        return MLP(
            n_in=height * width * channels,
            n_out=num_classes,
            hidden_layers=mlp_arch,
            activation_fn=ACTIVATIONS[net_act],
            use_bias=bias,
            dropout_rate=dropout_rate,
            **normalization,
            **common,
        )
    if net_type == "lenet":
        LeNet._ARCHITECTURES = deepcopy(_LENETS)
        return LeNet(
            in_shape=in_shape,
            num_classes=num_classes,
            arch=lenet_type,
            dropout_rate=dropout_rate,
            **common,
        )
    if net_type == "resnet":
        return ResNet(
            in_shape=in_shape,
            num_classes=num_classes,
            n=resnet_block_depth,
            num_feature_maps=resnet_channel_sizes,
            use_bias=bias,
            **normalization,
            **common,
        )
    if net_type == "wrn":
        return WRN(
            in_shape=in_shape,
            num_classes=num_classes,
            n=wrn_block_depth,
            k=wrn_widening_factor,
            use_bias=bias,
            use_fc_bias=bias or wrn_use_fc_bias,
            dropout_rate=dropout_rate,
            **normalization,
            **common,
        )
    if net_type == "zenke":
        ZenkeNet._architectures = deepcopy(_ZENKENETS)
        return ZenkeNet(
            in_shape=in_shape, num_classes=num_classes, dropout_rate=dropout_rate, **common
        )
    raise ValueError(f"unknown net_type {net_type!r}")


def fresh_stats(mnet: MainNetInterface, num_members: int, device: torch.device) -> Params:
    """Running statistics of batch normalization as they are before training.

    Returns:
        "mean0", "variance0", … [members, features], by layer; empty for a network without them.
    """
    shapes = mnet.hyper_shapes_distilled or []
    stats = {}
    for layer, (mean_shape, variance_shape) in enumerate(
        zip(shapes[::2], shapes[1::2], strict=True)
    ):
        stats[f"mean{layer}"] = torch.zeros(num_members, *mean_shape, device=device)
        stats[f"variance{layer}"] = torch.ones(num_members, *variance_shape, device=device)
    return stats


def logits_of(
    mnet: MainNetInterface, weights: Sequence[Tensor], inputs: Tensor, stats: Params
) -> Tensor:
    """What the main network makes of a batch, of one member.

    Args:
        stats: Running statistics; updated in place where the network is in training mode.
    """
    if not stats:
        return mnet.forward(inputs, weights=weights)
    return mnet.forward(inputs, weights=weights, distilled_params=list(stats.values()))


def most_together(mnet: MainNetInterface, device: torch.device) -> float:
    """How many main networks, at most, are faster together than one after the other.

    On a CPU, MLPs are as long as they share its cache, which ends between one and two million
    weights in all with one thread, at twice that with two (benchmarks/seeds.py). The convolutions
    of several networks become a grouped one, which takes a CPU 1.1 to 1.6 times as long, with batch
    normalization or two threads up to 2.5 times.
    """
    if device.type != "cpu":
        return math.inf
    if not isinstance(mnet, MLP):
        return 1
    return max(1, min(2, torch.get_num_threads()) * _IN_CACHE // mnet.num_params)


def build_hypernet(
    hnet_type: str,
    target_shapes: Sequence[Sequence[int]],
    num_tasks: int,
    *,
    hmlp_arch: Sequence[int] = (100, 100),
    cond_emb_size: int = 8,
    chunk_size: int = 750,
    chunk_emb_size: int = 8,
    cond_chunk_embs: bool = False,
    activation: str = "relu",
    bias: bool = True,
    dropout_rate: float = -1,
) -> HyperNetInterface:
    """Build a hypernetwork with one embedding per task, initialized by torch's global generator.

    Args:
        hnet_type: ``"hmlp"`` (all weights at once) or ``"chunked_hmlp"``.
        target_shapes: Shapes of the tensors to generate, the main network's ``param_shapes``.
        cond_chunk_embs: Chunk embeddings of its own for each task.
    """
    common = {
        "target_shapes": target_shapes,
        "num_cond_embs": num_tasks,
        "cond_in_size": cond_emb_size,
        "layers": hmlp_arch,
        "activation_fn": ACTIVATIONS[activation],
        "use_bias": bias,
        "dropout_rate": dropout_rate if dropout_rate > 0 else -1,  # hypnettorch refuses 0
        "verbose": False,
    }
    if hnet_type == "hmlp":
        return HMLP(**common)
    if hnet_type == "chunked_hmlp":
        return ChunkedHMLP(
            chunk_size=chunk_size,
            chunk_emb_size=chunk_emb_size,
            cond_chunk_embs=cond_chunk_embs,
            **common,
        )
    raise ValueError(f"unknown hnet_type {hnet_type!r}")


@cache
def chunk_size_for(
    ratio: float,
    num_weights: int,
    num_tasks: int,
    *,
    hmlp_arch: tuple[int, ...] = (100, 100),
    cond_emb_size: int = 8,
    chunk_emb_size: int = 8,
    cond_chunk_embs: bool = False,
    bias: bool = True,
) -> int:
    """The chunk size whose chunked hypernetwork has nearest to ``ratio`` times ``num_weights``.

    Large chunks have a large last layer, small ones many embeddings; of two equally good sizes the
    larger is taken, as it makes fewer chunks.

    Args:
        num_weights: Of the main network.
        num_tasks: With an embedding each.

    Raises:
        InputError: No chunk size comes within a tenth of the ratio.
    """
    widths = [cond_emb_size + chunk_emb_size, *hmlp_arch]
    hidden = sum((a + bias) * b for a, b in pairwise(widths))
    sizes = np.arange(1, num_weights + 1, dtype=np.int64)
    chunks = -(-num_weights // sizes)
    totals = hidden + num_tasks * cond_emb_size + sizes * (widths[-1] + bias)
    totals += chunks * chunk_emb_size * (num_tasks if cond_chunk_embs else 1)
    misses = np.abs(totals - ratio * num_weights)
    best = int(sizes[::-1][misses[::-1].argmin()])
    found = totals[best - 1] / num_weights
    if abs(found - ratio) > 0.1 * ratio:
        raise InputError(
            f"--compression={ratio:g} cannot be had, the nearest is {found:.3g}: take another, or "
            "change --hmlp_arch, --cond_emb_size or --chunk_emb_size"
        )
    return best


@torch.no_grad()
def initialize_hypernet(
    module: HyperNetInterface,
    mnet: MainNetInterface,
    *,
    scheme: str = "default",
    std_task_embs: float = -1,
    std_chunk_embs: float = -1,
    hyperfan: bool = False,
) -> None:
    """Initialize anew what these settings say, by torch's global generator.

    Args:
        mnet: Whose weights are generated.
        scheme: ``"default"`` leaves hypnettorch's (Kaiming-uniform); ``"xavier"``: Xavier-uniform
            weights (Glorot and Bengio, 2010), zero biases.
        std_task_embs: Standard deviation of normal task embeddings; below 0: as they are.
        std_chunk_embs: The same of chunk embeddings.
        hyperfan: hypnettorch's variant, for each hypernetwork its own, of Chang et al.,
            "Principled weight initialization for hypernetworks" (ICLR 2020), fan-in.
    """
    if scheme == "xavier":
        for weight in module.layer_weight_tensors:
            nn.init.xavier_uniform_(weight)
        for bias in module.layer_bias_vectors if module.has_bias else ():
            nn.init.zeros_(bias)
    elif scheme != "default":
        raise ValueError(f"unknown scheme {scheme!r}")
    embeddings = embeddings_of(module)
    for name, std in (("task_embs", std_task_embs), ("chunk_embs", std_chunk_embs)):
        for embedding in embeddings.get(name, ()) if std >= 0 else ():
            nn.init.normal_(embedding, std=std)
    if hyperfan:
        variance = std_task_embs**2 if std_task_embs >= 0 else 1.0
        with redirect_stdout(None):  # hypnettorch prints that it does so
            if isinstance(module, ChunkedHMLP):  # this one draws the chunk embeddings too
                module.apply_chunked_hyperfan_init(method="in", cond_var=variance, mnet=mnet)
            else:
                module.apply_hyperfan_init(method="in", cond_var=variance, mnet=mnet)


def embeddings_of(module: HyperNetInterface) -> dict[str, list[nn.Parameter]]:
    """The module's ``task_embs`` and ``chunk_embs``, by task where they are conditional."""
    conditional = list(module.conditional_params or [])  # task embeddings, then chunk embeddings
    found = {}
    if isinstance(module, ChunkedHMLP):
        if module.cond_chunk_embs:
            num_tasks = module.num_known_conds
            found["chunk_embs"] = conditional[-num_tasks:]
            conditional = conditional[:-num_tasks]
        else:
            found["chunk_embs"] = [module.unconditional_params[-1]]
    if conditional:
        found["task_embs"] = conditional
    return found
