"""The hypernetworks of hypnettorch: built, initialized, and turned into functions and back."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from hypercl.engine.members import Params
from hypercl.engine.seeding import derive_seed, seeded_globally
from hypercl.errors import InputError
from hypercl.networks.activations import MODULES
from hypercl.networks.hypernet import Hypernet
from hypercl.networks.library import HMLP, ChunkedHMLP, HyperNetInterface
from hypercl.networks.main_net import MainNetwork

if TYPE_CHECKING:
    from hypercl.options import HypernetOptions


def build_module(
    options: "HypernetOptions",
    net: MainNetwork,
    num_tasks: int,
    seed: int,
    *,
    purpose: str = "initialization",
    task_id: int = 0,
) -> HyperNetInterface:
    """A hypernetwork with an embedding for each task, freshly initialized from a seed, on the CPU.

    Embeddings are drawn before layers, so the initial layers depend on the number of tasks.

    Args:
        net: Whose weights it generates.
        purpose: With ``task_id``, the seed's stream from which it is drawn.

    Raises:
        InputError: The compression ratio that is asked for cannot be had.
    """
    common = {
        "target_shapes": [list(shape) for shape in net.shapes],
        "num_cond_embs": num_tasks,
        "cond_in_size": options.cond_emb_size,
        "layers": options.hmlp_arch,
        "activation_fn": MODULES[options.hnet_net_act],
        "use_bias": not options.hnet_no_bias,
        "dropout_rate": options.hnet_dropout_rate or -1,  # hypnettorch refuses 0
        "verbose": False,
    }
    with seeded_globally(derive_seed(seed, purpose, task_id)):
        if options.hnet_type == "hmlp":
            module = HMLP(**common)
        else:
            module = ChunkedHMLP(
                chunk_size=chunk_size(options, net.num_weights, num_tasks),
                chunk_emb_size=options.chunk_emb_size,
                cond_chunk_embs=options.use_cond_chunk_embs,
                **common,
            )
        initialize(module, options, net)
    return module


@torch.no_grad()
def initialize(module: HyperNetInterface, options: "HypernetOptions", net: MainNetwork) -> None:
    """Initialize anew what the options say, by torch's global generator; one thread at a time.

    The default is hypnettorch's (Kaiming-uniform); "xavier" are Xavier-uniform weights (Glorot and
    Bengio, 2010) and zero biases; hyperfan is hypnettorch's variant, for each hypernetwork its own,
    of Chang et al., "Principled weight initialization for hypernetworks" (ICLR 2020), fan-in.
    """
    if options.hnet_init == "xavier":
        for weight in module.layer_weight_tensors:
            nn.init.xavier_uniform_(weight)
        for bias in module.layer_bias_vectors if module.has_bias else ():
            nn.init.zeros_(bias)
    embeddings = embeddings_of(module)
    deviations = {"task_embs": options.std_normal_temb, "chunk_embs": options.std_normal_emb}
    for name, std in deviations.items():
        if std is not None:
            for embedding in embeddings.get(name, ()):
                nn.init.normal_(embedding, std=std)
    if options.hyper_fan_init:
        kinds = [meta["name"] for meta in getattr(net.module, "param_shapes_meta", ())]
        if "other" in kinds:  # than weights, biases, scales and shifts of normalizations
            name = net.names[kinds.index("other")]
            raise InputError(
                f"--hyper_fan_init has no scale for the main network's parameter {name}: leave it "
                "out"
            )
        variance = 1.0 if options.std_normal_temb is None else options.std_normal_temb**2
        with _silent(module):
            if isinstance(module, ChunkedHMLP):  # this one draws the chunk embeddings too
                module.apply_chunked_hyperfan_init(method="in", cond_var=variance, mnet=net.module)
            else:
                module.apply_hyperfan_init(method="in", cond_var=variance, mnet=net.module)


@contextmanager
def _silent(module: HyperNetInterface) -> Iterator[None]:
    """A context in which hypnettorch's hyperfan initialization does not print that it runs.

    sys.stdout belongs to all threads, so it is hypnettorch's ``print`` that does nothing.
    """
    names = vars(sys.modules[type(module).__module__])
    names["print"] = lambda *_: None
    try:
        yield
    finally:
        del names["print"]


def chunk_size(options: "HypernetOptions", num_weights: int, num_tasks: int) -> int:
    """The one given, or the one that ``--compression`` asks for.

    Args:
        num_weights: Of the main network.

    Raises:
        InputError: No chunk size comes within a tenth of the ratio.
    """
    if options.compression is None:
        return options.chmlp_chunk_size
    return _chunk_size_for(options.compression, options, num_weights, num_tasks)


@cache
def _chunk_size_for(
    ratio: float, options: "HypernetOptions", num_weights: int, num_tasks: int
) -> int:
    """The chunk size with which the number of parameters is nearest to the one asked for.

    Large chunks have a large last layer, small ones many embeddings; of two equally good sizes the
    larger is taken, as it makes fewer chunks.
    """
    bias = not options.hnet_no_bias
    widths = [options.cond_emb_size + options.chunk_emb_size, *options.hmlp_arch]
    hidden = sum((a + bias) * b for a, b in pairwise(widths))
    sizes = np.arange(1, num_weights + 1, dtype=np.int64)
    chunks = -(-num_weights // sizes)
    totals = hidden + num_tasks * options.cond_emb_size + sizes * (widths[-1] + bias)
    totals += chunks * options.chunk_emb_size * (num_tasks if options.use_cond_chunk_embs else 1)
    misses = np.abs(totals - ratio * num_weights)
    best = int(sizes[::-1][misses[::-1].argmin()])
    nearest = totals[best - 1] / num_weights
    if abs(nearest - ratio) > 0.1 * ratio:
        raise InputError(
            f"--compression={ratio:g} cannot be had, the nearest is {nearest:.3g}: take another, "
            "or change --hmlp_arch, --cond_emb_size or --chunk_emb_size"
        )
    return best


def as_function(module: HyperNetInterface, options: "HypernetOptions") -> tuple[Hypernet, Params]:
    """The function that a module of hypnettorch computes, and a copy of its parameters."""
    hnet = Hypernet(
        num_weights=module.num_outputs,
        num_layers=len(module.layer_weight_tensors),
        cond_chunk_embs=isinstance(module, ChunkedHMLP) and module.cond_chunk_embs,
        activation=options.hnet_net_act,
        dropout_rate=options.hnet_dropout_rate or 0.0,
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
    slots = embeddings_of(module)
    for i, weight in enumerate(module.layer_weight_tensors):
        slots[f"weight{i}"] = [weight]
    if module.has_bias:
        for i, bias in enumerate(module.layer_bias_vectors):
            slots[f"bias{i}"] = [bias]
    return slots


def embeddings_of(module: HyperNetInterface) -> dict[str, list[nn.Parameter]]:
    """The module's ``task_embs`` and ``chunk_embs``, by task where they are conditional."""
    conditional = list(module.conditional_params or [])  # task embeddings, then chunk embeddings
    embeddings = {}
    if isinstance(module, ChunkedHMLP):
        if module.cond_chunk_embs:
            num_tasks = module.num_known_conds
            embeddings["chunk_embs"] = conditional[-num_tasks:]
            conditional = conditional[:-num_tasks]
        else:
            embeddings["chunk_embs"] = [module.unconditional_params[-1]]
    if conditional:
        embeddings["task_embs"] = conditional
    return embeddings
