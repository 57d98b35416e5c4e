"""LeNet, in hypnettorch's variants."""

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
from hypercl.ranges import one_of, option


@dataclass(frozen=True)
class Lenet(MainNet):
    cannot: ClassVar = {"net_act": NET_ACT, "no_bias": NEVER, "batchnorm": NEVER}
    lenet_type: str = option(
        "mnist_small",
        one_of("mnist_small", "mnist_large", "cifar"),
        "lenet: variant, which must fit the images",
    )

    def problems_of_shape(self, in_shape, cl_exp):
        takes = (32, 32, 3) if self.lenet_type == "cifar" else (28, 28, 1)
        if len(in_shape) == 1:
            yield from super().problems_of_shape(in_shape, cl_exp)
        elif in_shape != takes:
            yield (
                f"--lenet_type={self.lenet_type} takes {spelled(takes)} images and "
                f"--cl_exp={cl_exp} has {spelled(in_shape)} ones: choose another "
                "--lenet_type or --net_type"
            )

    def build(self, options, in_shape, num_outputs):
        from hypercl.networks.library import LeNet

        with fresh_table(LeNet, "_ARCHITECTURES"):
            return LeNet(
                in_shape=in_shape,
                num_classes=num_outputs,
                arch=self.lenet_type,
                dropout_rate=or_minus_one(options.dropout_rate),
                **WITHOUT_WEIGHTS,
            )


ENTRY = Lenet
