"""What a kind of main network has to say of itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hypercl.machine import FLOAT
from hypercl.registry import Entry, Part

if TYPE_CHECKING:
    from hypercl.networks.library import MainNetInterface
    from hypercl.options import MainNetOptions, Options

# Why a network cannot have an option; see Entry.cannot.
NEVER = ": leave it out or take another --net_type"
NET_ACT = ", which has relu: leave --net_act out or take --net_type=mlp"

WITHOUT_WEIGHTS = {"no_weights": True, "verbose": False}  # arguments of hypnettorch's networks


@dataclass(frozen=True)
class MainNet(Entry):
    """A kind of main network; its fields are the options that concern it alone."""

    chosen_by: ClassVar[str] = "net_type"
    takes_vectors: ClassVar[bool] = False  # inputs (D,) beside images (H, W, C)
    brings_stats: ClassVar[bool] = False  # it may have running statistics without --batchnorm

    def problems(self, options: "Options") -> Iterator[str]:
        """What is wrong with the shape of the inputs, where that is known."""
        shape = options.task.kind.image_shape
        if shape is not None:
            yield from self.problems_of_shape(shape, options.task.cl_exp)

    def problems_of_shape(self, in_shape: tuple[int, ...], cl_exp: str) -> Iterator[str]:
        """Why the network cannot take inputs of a shape; asked again when the tasks are there.

        Args:
            in_shape: (H, W, C) of images, or (D,) of vectors.
            cl_exp: What has them.
        """
        if len(in_shape) == 1 and not self.takes_vectors:
            yield (
                f"--net_type={self.name} takes images, and --cl_exp={cl_exp} has vectors of "
                f"{in_shape[0]} numbers: take --net_type=mlp"
            )

    def build(
        self, options: "MainNetOptions", in_shape: tuple[int, ...], num_outputs: int
    ) -> "MainNetInterface":
        """Make a network without weights of its own.

        Args:
            in_shape: (H, W, C) of the images, or (D,) of vectors where it takes these.

        Returns:
            A network whose ``forward(x, weights)`` takes flat inputs [B, H * W * C] and tensors of
            its ``param_shapes``, the output layer's last, and returns logits [B, num_outputs]. It
            must not branch on values: it is also run under ``torch.func.vmap``, on meta tensors and
            in CUDA graphs.
        """
        raise NotImplementedError

    def least_weights(self, in_shape: tuple[int, ...]) -> "tuple[int, tuple[str, ...]]":
        """How many weights it has at least, without building it, and of which options that is.

        Those that options cannot make large need not say it.
        """
        return 0, ()

    def takes(self, options: "Options") -> Iterator[Part]:
        """Weights, and a gradient for them."""
        if options.task.kind.image_shape is not None:
            number, names = self.least_weights(options.task.kind.image_shape)
            yield Part(2 * FLOAT * number, "the main network's weights", names)


def normalization_arguments(options: "MainNetOptions") -> dict[str, bool]:
    """What those with batch normalization are given.

    "Distilled" are, in hypnettorch, running statistics that are handed to ``forward``.
    """
    tracked = options.batchnorm and not options.bn_no_running_stats
    return {
        "use_batch_norm": options.batchnorm,
        "bn_track_stats": tracked,
        "distill_bn_stats": tracked,
    }


@contextmanager
def fresh_table(network: type, name: str) -> Iterator[None]:
    """A context that leaves a table of a class of hypnettorch as it was.

    Its constructor writes the number of outputs there, and the next network would have it too.
    """
    table = getattr(network, name)
    setattr(network, name, deepcopy(table))
    try:
        yield
    finally:
        setattr(network, name, table)


def or_minus_one(rate: float | None) -> float:
    """A dropout rate as hypnettorch has it."""
    return -1 if rate is None else rate


def spelled(image_shape: tuple[int, ...]) -> str:
    """A shape of images as messages have it."""
    return "x".join(map(str, image_shape))
