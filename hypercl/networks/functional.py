"""A main network from shapes and a function, for those that hypnettorch does not have."""

from collections.abc import Callable, Sequence

from torch import Tensor

from hypercl.networks.library import Classifier


class Functional(Classifier):
    """A network without weights of its own.

    Args:
        shapes: Of its tensors of weights, a bias right behind its weight, the output layer's last.
        function: From inputs [B, H * W * C] and these tensors, logits [B, num_outputs]. It must not
            branch on values: it is also run under ``torch.func.vmap``, on meta tensors and in CUDA
            graphs.
    """

    def __init__(
        self,
        shapes: Sequence[Sequence[int]],
        function: Callable[[Tensor, Sequence[Tensor]], Tensor],
        num_outputs: int,
    ) -> None:
        super().__init__(num_outputs, verbose=False)
        self._param_shapes = [list(shape) for shape in shapes]
        layers = [sum(len(s) > 1 for s in shapes[: i + 1]) for i in range(len(shapes))]
        self._param_shapes_meta = [
            {"name": "weight" if len(shape) > 1 else "bias", "index": -1, "layer": layer}
            for shape, layer in zip(shapes, layers, strict=True)
        ]
        self._function = function

    def forward(self, x, weights=None, distilled_params=None, condition=None):
        """Logits [B, num_outputs] of inputs [B, H * W * C]."""
        return self._function(x, weights)

    def distillation_targets(self):
        """hypnettorch asks for it."""
        return
