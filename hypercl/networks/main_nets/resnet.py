"""A ResNet for images of the size of CIFAR's (He et al., arXiv 1512.03385, section 4.2)."""

from dataclasses import dataclass
from typing import ClassVar

from hypercl.networks.main_nets.base import (
    NET_ACT,
    WITHOUT_WEIGHTS,
    MainNet,
    normalization_arguments,
)
from hypercl.ranges import count, int_list, option


@dataclass(frozen=True)
class Resnet(MainNet):
    cannot: ClassVar = {"net_act": NET_ACT, "dropout_rate": ": leave it out or take --net_type=wrn"}
    resnet_block_depth: int = option(5, count, "resnet: blocks per group; 6 N + 2 layers in all")
    resnet_channel_sizes: tuple[int, ...] = option(
        (16, 16, 32, 64),
        int_list(length=4),
        "resnet: feature maps of the first layer and of the three groups",
    )

    def problems(self, options):
        yield from super().problems(options)
        c = self.resnet_channel_sizes
        # hypnettorch's shortcuts subsample only where the number of feature maps changes
        if not c[0] <= c[1] < c[2] < c[3]:
            yield (
                f"{options.spelled('resnet_channel_sizes')} must grow, from the second number on, "
                "for the shortcuts of --net_type=resnet: like 16,16,32,64"
            )

    def least_weights(self, in_shape):
        widths = self.resnet_channel_sizes[1:]
        number = 9 * self.resnet_block_depth * sum(c**2 for c in widths)  # a convolution a block
        return number, ("resnet_block_depth", "resnet_channel_sizes")

    def build(self, options, in_shape, num_outputs):
        from hypercl.networks.library import ResNet

        return ResNet(
            in_shape=in_shape,
            num_classes=num_outputs,
            n=self.resnet_block_depth,
            num_feature_maps=self.resnet_channel_sizes,
            use_bias=not options.no_bias,
            **normalization_arguments(options),
            **WITHOUT_WEIGHTS,
        )


ENTRY = Resnet
