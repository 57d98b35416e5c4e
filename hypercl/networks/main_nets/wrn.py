"""A Wide ResNet (Zagoruyko and Komodakis, arXiv 1605.07146)."""

from dataclasses import dataclass
from typing import ClassVar

from hypercl.networks.main_nets.base import (
    NET_ACT,
    WITHOUT_WEIGHTS,
    MainNet,
    normalization_arguments,
    or_minus_one,
)
from hypercl.ranges import count, option, switch


@dataclass(frozen=True)
class Wrn(MainNet):
    cannot: ClassVar = {"net_act": NET_ACT}
    wrn_block_depth: int = option(4, count, "wrn: blocks per group")
    wrn_widening_factor: int = option(
        10, count, "wrn: multiplies the feature maps of the three groups"
    )
    wrn_use_fc_bias: bool = option(
        False, switch, "wrn: keep the last layer's bias despite --no_bias"
    )

    def least_weights(self, in_shape):
        widths = (n * self.wrn_widening_factor for n in (16, 32, 64))
        number = 9 * self.wrn_block_depth * sum(c**2 for c in widths)  # a convolution a block
        return number, ("wrn_block_depth", "wrn_widening_factor")

    def build(self, options, in_shape, num_outputs):
        from hypercl.networks.library import WRN

        return WRN(
            in_shape=in_shape,
            num_classes=num_outputs,
            n=self.wrn_block_depth,
            k=self.wrn_widening_factor,
            use_bias=not options.no_bias,
            use_fc_bias=self.wrn_use_fc_bias or not options.no_bias,
            dropout_rate=or_minus_one(options.dropout_rate),
            **normalization_arguments(options),
            **WITHOUT_WEIGHTS,
        )


ENTRY = Wrn
