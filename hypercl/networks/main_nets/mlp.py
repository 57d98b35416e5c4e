"""A multilayer perceptron."""

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import ClassVar

from hypercl.networks.main_nets.base import (
    WITHOUT_WEIGHTS,
    MainNet,
    normalization_arguments,
    or_minus_one,
)
from hypercl.ranges import int_list, option


@dataclass(frozen=True)
class Mlp(MainNet):
    takes_vectors: ClassVar = True
    mlp_arch: tuple[int, ...] = option(
        (100, 100), int_list(), "mlp: sizes of the hidden layers; empty: none"
    )

    def unread(self, options):
        if self.mlp_arch:
            return {}
        remark = "concerns hidden layers, and --mlp_arch= has none: leave one out"
        return dict.fromkeys(("net_act", "dropout_rate", "batchnorm"), remark)

    def least_weights(self, in_shape):
        widths = (prod(in_shape), *self.mlp_arch)
        return sum(a * b for a, b in pairwise(widths)), ("mlp_arch",)

    def build(self, options, in_shape, num_outputs):
        from hypercl.networks.activations import MODULES
        from hypercl.networks.library import MLP

        return MLP(
            n_in=prod(in_shape),
            n_out=num_outputs,
            hidden_layers=self.mlp_arch,
            activation_fn=MODULES[options.net_act],
            use_bias=not options.no_bias,
            dropout_rate=or_minus_one(options.dropout_rate),
            **normalization_arguments(options),
            **WITHOUT_WEIGHTS,
        )


ENTRY = Mlp
