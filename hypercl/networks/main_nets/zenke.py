"""The convolutional network of Zenke et al. (arXiv 1703.04200)."""

from dataclasses import dataclass
from typing import ClassVar

from hypercl.networks.main_nets.base import (
    NET_ACT,
    NEVER,
    WITHOUT_WEIGHTS,
    MainNet,
    fresh_table,
    or_minus_one,
    spelled,
)


@dataclass(frozen=True)
class Zenke(MainNet):
    cannot: ClassVar = {"net_act": NET_ACT, "no_bias": NEVER, "batchnorm": NEVER}

    def problems_of_shape(self, in_shape, cl_exp):
        if len(in_shape) == 1:
            yield from super().problems_of_shape(in_shape, cl_exp)
        elif in_shape != (32, 32, 3):
            yield (
                f"--net_type=zenke takes 32x32x3 images and --cl_exp={cl_exp} has "
                f"{spelled(in_shape)} ones: choose another --net_type"
            )

    def problems(self, options):
        yield from super().problems(options)
        rate = options.main_net.dropout_rate
        if rate is not None and rate > 0.5:
            yield (
                f"--dropout_rate={rate:g} is doubled in one layer of --net_type=zenke: give 0.5 or "
                "less"
            )

    def build(self, options, in_shape, num_outputs):
        from hypercl.networks.library import ZenkeNet

        with fresh_table(ZenkeNet, "_architectures"):
            return ZenkeNet(
                in_shape=in_shape,
                num_classes=num_outputs,
                dropout_rate=or_minus_one(options.dropout_rate),
                **WITHOUT_WEIGHTS,
            )


ENTRY = Zenke
