"""Replay of generated samples: the generator, and what learns from it.

generator.py has the variational autoencoder whose decoder comes from a hypernetwork, replayed.py the
losses of a network that learns generated samples beside real ones. A method that replays so is a
file in the folder above, like hnet_r.py; its entry inherits one of those here.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, ClassVar

from hypercl.errors import InputError
from hypercl.machine import FLOAT
from hypercl.methods.base import MethodEntry
from hypercl.ranges import count, int_list, non_negative, one_of, option, share
from hypercl.registry import Part

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hypercl.engine.members import Params
    from hypercl.methods.base import Lookahead
    from hypercl.options import HypernetOptions
    from hypercl.tasks.task import Task


@dataclass(frozen=True)
class VaeEntry(MethodEntry):
    """A method with a variational autoencoder."""

    no_regression: ClassVar = "replays images without labels"
    # fmt: off
    vae_encoder_arch: tuple[int, ...] = option((400, 400), int_list(), "hidden layers of the variational autoencoder's encoder")
    vae_decoder_arch: tuple[int, ...] = option((250, 350), int_list(), "hidden layers of the variational autoencoder's decoder, which generates the samples that are replayed")
    vae_latent_size: int = option(100, count, "latent variables of the variational autoencoder")
    # fmt: on


@dataclass(frozen=True)
class HnetVaeEntry(VaeEntry):
    """One whose decoder comes from a hypernetwork with the output regularizer."""

    # fmt: off
    vae_condition_size: int = option(100, count, "inputs of the decoder of which each task sets one: the most tasks there can be")
    vae_beta: float = option(0.01, non_negative, "strength of the regularizer of the decoder's hypernetwork", member=True)
    vae_hmlp_arch: tuple[int, ...] = option((10, 10), int_list(), "decoder's hypernetwork: sizes of the hidden layers")
    vae_hnet_act: str = option("elu", one_of("linear", "sigmoid", "relu", "elu", "tanh"), "decoder's hypernetwork: activation function")
    vae_chunk_size: int = option(50000, count, "decoder's hypernetwork: weights per chunk")
    vae_emb_size: int = option(96, count, "decoder's hypernetwork: size of a task embedding")
    vae_chunk_emb_size: int = option(96, count, "decoder's hypernetwork: size of a chunk embedding")
    replay_share: float = option(0.5, share, "from the second task on, share of the loss that is on generated samples, the rest on those of the task", member=True)
    # fmt: on

    def problems(self, options):
        yield from super().problems(options)
        yield from self.problems_of_condition(options.task.num_tasks or 1)
        if options.train.keep_optimizer:
            yield (
                f"--keep_optimizer cannot be used with --method={self.name}, with which other "
                "embeddings learn in each task: leave it out"
            )

    def problems_of_condition(self, num_tasks: int) -> "Iterator[str]":
        """Whether there are too few inputs of the decoder for so many tasks."""
        if num_tasks > self.vae_condition_size:
            yield (
                f"--vae_condition_size={self.vae_condition_size} leaves some of {num_tasks} tasks "
                "without an input of their own: give as many or more"
            )

    def takes(self, options):
        yield from super().takes(options)
        width = self.vae_hmlp_arch[-1] if self.vae_hmlp_arch else self.vae_emb_size
        layer = width * self.vae_chunk_size  # with its gradient, and Adam's two means
        yield Part(
            4 * FLOAT * layer,
            "the last layer of the decoder's hypernetwork",
            ("vae_chunk_size", "vae_hmlp_arch"),
        )
        if (shape := options.task.kind.image_shape) is not None:
            decoder = (self.vae_latent_size, *self.vae_decoder_arch, prod(shape))
            weights = sum(a * b for a, b in pairwise(decoder))
            yield Part(
                FLOAT * weights * (options.task.num_tasks or 1),
                "the decoders of the earlier tasks",
                ("vae_decoder_arch", "num_tasks"),
            )

    @property
    def decoder_hypernet(self) -> "HypernetOptions":
        """Xavier-uniform, with zero biases and embeddings from N(0, 1), as in the paper's code."""
        from hypercl.options import HypernetOptions

        return HypernetOptions(
            hmlp_arch=self.vae_hmlp_arch,
            cond_emb_size=self.vae_emb_size,
            chmlp_chunk_size=self.vae_chunk_size,
            chunk_emb_size=self.vae_chunk_emb_size,
            hnet_net_act=self.vae_hnet_act,
            hnet_init="xavier",
        )


def require_pixels(tasks: "Sequence[Task]", method: str) -> None:
    """Refuse inputs that are no pixels in [0, 1], the only ones that are generated.

    Args:
        method: Its name, for the message.

    Raises:
        InputError: There are others.
    """
    for task in tasks:
        if task.mean is not None:
            raise InputError(
                f"--method={method} generates pixels in [0, 1], and those of {task.name} are "
                "normalized: add --normalize=none"
            )
        images = task.train.images
        if images.is_floating_point() and not 0 <= images.min() <= images.max() <= 1:
            raise InputError(
                f"--method={method} generates inputs in [0, 1], and those of {task.name} go from "
                f"{images.min():g} to {images.max():g}: bring data within [0, 1]"
            )


# What metrics.jsonl has of a generator, in the order in which a method hands it out.
OF_VAE = ("generator_reconstruction", "generator_divergence")
OF_HNET_VAE = (*OF_VAE, "generator_penalty")


def lookahead_of(part: str, lookahead: "Lookahead") -> "Lookahead":
    """A lookahead for one of a method's parts: it takes and returns what the part learns, under the
    part's own names.

    Args:
        part: As :func:`hypercl.engine.members.from_parts` has it.
        lookahead: The method's.
    """
    from hypercl.engine.members import from_parts, part_of

    def ahead(gradients: "Params", /, *, uncorrected_eps: bool = False) -> "Params":
        of_all = from_parts(**{part: gradients})
        return part_of(lookahead(of_all, uncorrected_eps=uncorrected_eps), part)

    return ahead
