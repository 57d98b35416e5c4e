"""A conditional variational autoencoder of two MLPs (Kingma and Welling, 2014, arXiv 1312.6114).

With an image x of D pixels in [0, 1], the encoder's mean μ and variance σ² of L latents, and noise
ε ~ N(0, 1), the decoder makes x̂ of the latents z = μ + σ ε beside a condition, a row of zeros and a
one that tells the task::

    loss = mean over pixels of the binary cross-entropy of x̂ and x
         + 1/D * KL(N(μ, σ²) || N(0, 1)),    KL = -1/2 sum over latents of 1 + log σ² - μ² - σ²

both averaged over the batch, or weighted by sample. The mean over pixels, and with it 1/D, is that
of von Oswald et al.'s code, after van de Ven and Tolias. The backward pass is written out; the
decoder's half is a function that is handed in, so that its weights may come from a hypernetwork.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hypercl.engine.seeding import generator
from hypercl.networks import plain_mlp
from hypercl.networks.activations import ACTIVATIONS, MODULES
from hypercl.networks.criteria import Criterion
from hypercl.networks.library import MLP
from hypercl.networks.main_net import LabelledInputs, MainNetwork, TaskLossValue, main_network
from hypercl.networks.main_nets.base import WITHOUT_WEIGHTS

_RELU = ACTIVATIONS["relu"]

# Takes the decoder's loss of a batch, calls it once, and returns what the caller wants of it.
DecoderStep = Callable[["DecoderLoss"], Any]


def plain_network(num_inputs: int, hidden: Sequence[int], num_outputs: int) -> MainNetwork:
    """An MLP with relu and biases, without weights of its own."""
    return main_network(
        MLP(
            n_in=num_inputs,
            n_out=num_outputs,
            hidden_layers=tuple(hidden),
            activation_fn=MODULES["relu"],
            **WITHOUT_WEIGHTS,
        )
    )


@dataclass(frozen=True)
class Vae:
    """The architecture; weights are handed to each method.

    Attributes:
        encoder: D to 2 L numbers, the means first, then the logarithms of the variances.
        decoder: L + C numbers, latents and condition, to D logits of pixels.
        num_latents: L.
        num_conditions: C, of which each task has one; 0: the decoder is not told the task.
    """

    encoder: MainNetwork
    decoder: MainNetwork
    num_latents: int
    num_conditions: int

    @classmethod
    def of(
        cls,
        num_pixels: int,
        encoder_arch: Sequence[int],
        decoder_arch: Sequence[int],
        num_latents: int,
        num_conditions: int,
    ) -> "Vae":
        """With hidden layers of these sizes."""
        return cls(
            plain_network(num_pixels, encoder_arch, 2 * num_latents),
            plain_network(num_latents + num_conditions, decoder_arch, num_pixels),
            num_latents,
            num_conditions,
        )

    def conditions(self, num_tasks: int, like: Tensor) -> Tensor:
        """Of the first tasks, one-hot [tasks, C], of another tensor's type and on its device."""
        return torch.eye(num_tasks, self.num_conditions, dtype=like.dtype, device=like.device)

    @torch.no_grad()
    def generate(self, weights: Tensor, latents: Tensor, conditions: Tensor | None) -> Tensor:
        """Images of decoders, one for each member and task.

        Args:
            weights: Of the decoders, [members, tasks, num_weights].
            latents: [members, tasks, N, L].
            conditions: Of the tasks, [tasks, C]; None where the decoder is told none.

        Returns:
            Pixels in [0, 1], [members, tasks, N, D].
        """
        inputs = latents
        if conditions is not None:
            told = conditions[:, None].expand(*latents.shape[:3], -1)
            inputs = torch.cat([latents, told], dim=-1)
        tensors = self.decoder.split(weights.flatten(0, 1))
        logits = plain_mlp.logits(_RELU, tensors, inputs.flatten(0, 1))
        return logits.sigmoid_().unflatten(0, latents.shape[:2])

    def samples(self, weights: Tensor, conditions: Tensor | None, number: int) -> Tensor:
        """:meth:`generate` from the same latents for all members and tasks, and at every call,
        [members, tasks, number, D].
        """
        stream = generator(0, "latents of samples that are looked at")
        latents = torch.randn(number, self.num_latents, generator=stream).to(weights.device)
        return self.generate(weights, latents.expand(*weights.shape[:2], -1, -1), conditions)

    @torch.no_grad()
    def loss_and_gradient(
        self,
        encoder_weights: Tensor,
        images: Tensor,
        noise: Tensor,
        decoder_step: DecoderStep,
        *,
        condition: Tensor | None = None,
        of_samples: Tensor | None = None,
    ) -> tuple[Any, Tensor, Tensor]:
        """The loss of a batch, and its gradient for the encoder's weights.

        Args:
            encoder_weights: [members, num_weights].
            images: x, [members, B, D] in [0, 1]; ``noise``: ε, [members, B, L].
            decoder_step: Calls the decoder's loss, once, with the decoder's weights [members,
                num_weights].
            condition: Of the task, [C]; None where the decoder is told none.
            of_samples: Each sample's weight in the loss, [B]; None: their mean.

        Returns:
            What ``decoder_step`` returns; KL / D, [members]; the gradient [members, num_weights] of
            both terms of the loss.
        """
        gradient = torch.empty_like(encoder_weights)
        batch_size, num_pixels = images.shape[1:]
        # of a sample and pixel, [B, 1] or one for all
        scale: float | Tensor = 1 / (batch_size * num_pixels)
        if of_samples is not None:
            scale = of_samples[:, None] / num_pixels

        def criterion(encoded: Tensor) -> tuple[tuple[Any, Tensor], Tensor]:
            mean, log_variance = encoded.chunk(2, dim=-1)
            deviation = (log_variance / 2).exp()
            latents = torch.addcmul(mean, deviation, noise)
            inputs = latents
            if condition is not None:
                told = condition.expand(*latents.shape[:2], -1)
                inputs = torch.cat([latents, told], dim=-1)
            loss = DecoderLoss(self, inputs, images, scale)
            result = decoder_step(loss)
            of_latents = loss.of_inputs[..., : self.num_latents]
            variance = deviation.square()
            divergence = (scale / 2 * (mean.square() + variance - 1 - log_variance)).sum((1, 2))
            of_mean = of_latents + scale * mean
            of_log_variance = (of_latents * noise * deviation + scale * (variance - 1)) / 2
            return (result, divergence), torch.cat([of_mean, of_log_variance], dim=-1)

        result, divergence = plain_mlp.loss_and_gradient(
            _RELU,
            self.encoder.split(encoder_weights),
            self.encoder.split(gradient),
            images,
            criterion,
        )
        return result, divergence, gradient


class DecoderLoss:
    """The cross-entropy of pixels as a function of the decoder's weights, as a task loss is one of
    the main network's.

    Args:
        inputs: Latents and condition, [members, B, L + C].
        images: What is to be made of them, [members, B, D].
        scale: What a pixel weighs: of all alike, or [B, 1] of each sample's.

    Attributes:
        of_inputs: Once it has been called, the gradient for the inputs.
    """

    weight = 1.0  # in what is minimized, as a task loss has one

    def __init__(self, vae: Vae, inputs: Tensor, images: Tensor, scale: float | Tensor) -> None:
        self._decoder, self._inputs, self._images, self._scale = vae.decoder, inputs, images, scale
        self.of_inputs = torch.empty_like(inputs)

    def __call__(self, weights: Tensor, batch: LabelledInputs | None = None) -> TaskLossValue:
        """The loss [members], its gradient for weights [members, num_weights or more], and in the
        place of the accuracy the loss again.

        Args:
            batch: Is not read; task losses are called with one.
        """
        gradient = self._decoder.empty_gradient(weights)
        loss = plain_mlp.loss_and_gradient(
            _RELU,
            self._decoder.split(weights),
            self._decoder.split(gradient),
            self._inputs,
            pixel_cross_entropy(self._images, self._scale),
            of_inputs=self.of_inputs,
        )
        return TaskLossValue(loss, loss, gradient)


def pixel_cross_entropy(images: Tensor, scale: float | Tensor) -> Criterion:
    """The weighted sum over samples and pixels of the binary cross-entropy.

    Args:
        images: Pixels x in [0, 1], [members, B, D], of which logits x̂ are the prediction.
        scale: What a pixel weighs: of all alike, or [B, 1] of each sample's.
    """

    def criterion(logits: Tensor) -> tuple[Tensor, Tensor]:
        # -x log σ(x̂) - (1 - x) log(1 - σ(x̂)), as one that does not overflow
        loss = (scale * (F.softplus(logits) - images * logits)).sum((1, 2))
        return loss, (logits.sigmoid() - images).mul_(scale)

    return criterion
