"""A variational autoencoder that learns to generate the images of task after task.

Its encoder learns on and is protected by nothing; nothing but its decoder is needed later. The
decoder is told the task by one of its inputs, and all of its weights come from a hypernetwork whose
outputs for the earlier tasks are held (von Oswald et al., arXiv 1906.00695, section 3 and appendix)::

    loss = reconstruction + KL / D + vae_beta * penalty of the hypernetwork
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from hypercl.engine.members import Params, from_parts, part_of
from hypercl.errors import InputError
from hypercl.methods.base import Batch, Lookahead, Setting, StepLosses
from hypercl.methods.generative import HnetVaeEntry, require_pixels
from hypercl.methods.hnet import Hnet
from hypercl.methods.hnet.output_regularizer import HnetAnchor, OutputRegularizer
from hypercl.networks.vae import DecoderLoss, Vae

_ENCODER = "encoder"


class GeneratorAnchor(NamedTuple):
    """What is kept of the earlier tasks while a task is learned."""

    held: HnetAnchor  # of the decoder's hypernetwork
    conditions: Tensor  # [tasks + 1, C], of the earlier tasks and then the one being learned
    decoders: Tensor | None  # of the earlier tasks, [members, tasks, num_weights]; None: no tasks

    @property
    def num_tasks(self) -> int:
        """Earlier ones, whose images are replayed."""
        return 0 if self.decoders is None else self.decoders.shape[1]


class GeneratorLosses(NamedTuple):
    """Of one step, [members] each."""

    reconstruction: Tensor  # mean binary cross-entropy of the pixels
    divergence: Tensor  # KL / D
    penalty: Tensor  # of the hypernetwork, before it is multiplied by vae_beta
    loss: Tensor  # what is minimized


class Replayed(NamedTuple):
    """Generated samples."""

    inputs: Tensor  # [members, N, D]
    task_ids: Tensor  # [N] int64, those they were generated for


class HnetGenerator:
    """The generator, for any number of members at once.

    Args:
        options: Of the method that has it.
        setting: The method's; its network has no part in this.

    Raises:
        InputError: The tasks' inputs are no pixels in [0, 1], or there are more tasks than the
            decoder can be told.
    """

    def __init__(self, options: HnetVaeEntry, setting: Setting) -> None:
        require_pixels(setting.tasks, options.name)
        # The number of tasks of a sequence of the user's is known here at the earliest.
        for problem in options.problems_of_condition(len(setting.tasks)):
            raise InputError(problem)
        self.options, self.setting = options, setting
        self.vae = Vae.of(
            prod(setting.tasks[0].in_shape),
            options.vae_encoder_arch,
            options.vae_decoder_arch,
            options.vae_latent_size,
            options.vae_condition_size,
        )
        train = setting.train
        regularizer = Hnet(
            beta=options.vae_beta,
            freeze_prev_embs=True,
            hnet_reg_all_heads=True,  # a decoder has none
            lookahead=not (train.use_sgd or train.use_rmsprop),
        )
        of_decoder = setting._replace(net=self.vae.decoder, hypernet=options.decoder_hypernet)
        self.hypernet = OutputRegularizer(regularizer, of_decoder, whose=" of the generator")
        self.num_trained = self.vae.encoder.num_weights + self.hypernet.num_trained

    def init(self, seeds: Sequence[int]) -> Params:
        """``encoder`` [members, num_weights], Xavier-uniform, and what the hypernetwork has."""
        encoders = self.vae.encoder.fresh_of_seeds(
            seeds, "initialization of the encoder", xavier=True, device=self.setting.device
        )
        return {_ENCODER: encoders, **self.hypernet.init(seeds)}

    def extended(self, params: Params, seeds: Sequence[int], num_tasks_before: int) -> Params:
        """With embeddings for the later tasks."""
        longer, _ = self.hypernet.extended(_of_hypernet(params), {}, seeds, num_tasks_before)
        return {_ENCODER: params[_ENCODER], **longer}

    def trainable(self, params: Params, task_id: int) -> Params:
        """The encoder, and of the hypernetwork's embeddings the task's."""
        return {
            _ENCODER: params[_ENCODER],
            **self.hypernet.trainable(_of_hypernet(params), task_id),
        }

    def merged(self, params: Params, trained: Params, task_id: int) -> Params:
        """``params`` with a copy of what was trained in its place."""
        merged = self.hypernet.merged(_of_hypernet(params), _of_hypernet(trained), task_id)
        return {_ENCODER: trained[_ENCODER].clone(), **merged}

    def remember(self, params: Params, task_id: int) -> GeneratorAnchor:
        """The decoders of the earlier tasks, and what holds the hypernetwork to them."""
        decoders = self._decoders(params, task_id).contiguous() if task_id > 0 else None
        held = self.hypernet.remember(_of_hypernet(params), {}, task_id)
        conditions = self.vae.conditions(task_id + 1, like=params[_ENCODER])
        return GeneratorAnchor(held, conditions, decoders)

    def samples_per_task(self, anchor: GeneratorAnchor) -> int:
        """How many are replayed of each earlier task in a step: a batch, shared by them."""
        return -(-self.setting.train.batch_size // max(1, anchor.num_tasks))

    def draw(
        self, anchor: GeneratorAnchor, task_id: int, num_steps: int, generator: torch.Generator
    ) -> Tensor:
        """For each step the noise ε of the task's batch, then the latents of the samples that are
        replayed, then the tasks whose decoders are regularized or learn: [num_steps, …] float32.
        """
        batch_size, size = self.setting.train.batch_size, self.options.vae_latent_size
        replayed = anchor.num_tasks * self.samples_per_task(anchor)
        noise = torch.randn(num_steps, (batch_size + replayed) * size, generator=generator)
        task_ids = self.hypernet.draw(anchor.held, task_id, num_steps, generator)
        return torch.cat([noise, task_ids.expand(num_steps, -1).float()], dim=1)

    def num_drawn(self, anchor: GeneratorAnchor) -> int:
        """Numbers that :meth:`draw` draws for a step."""
        replayed = anchor.num_tasks * self.samples_per_task(anchor)
        noise = (self.setting.train.batch_size + replayed) * self.options.vae_latent_size
        return noise + self.hypernet.num_drawn(anchor.held)

    def replay(self, anchor: GeneratorAnchor, drawn: Tensor) -> Replayed:
        """Samples of the earlier tasks, one task after the other.

        Args:
            drawn: Of :meth:`draw`, [members, …]; there are earlier tasks.
        """
        assert anchor.decoders is not None
        latents = self._parts(anchor, drawn)[1]
        images = self.vae.generate(anchor.decoders, latents, anchor.conditions[:-1])
        task_ids = torch.arange(anchor.num_tasks, device=drawn.device)
        return Replayed(images.flatten(1, 2), task_ids.repeat_interleave(images.shape[2]))

    def loss_and_gradient(
        self,
        params: Params,
        batch: Batch,
        drawn: Tensor,
        anchor: GeneratorAnchor,
        lookahead: Lookahead,
    ) -> tuple[Params, GeneratorLosses]:
        """The gradient of a step's loss for what learns, and the losses.

        Args:
            params: Those trained.
            drawn: Of :meth:`draw`, [members, …].
            lookahead: Takes and returns what the hypernetwork learns, under the names here.
        """
        noise, _, task_ids = self._parts(anchor, drawn)

        def decoder_step(loss: DecoderLoss) -> tuple[Params, StepLosses]:
            return self.hypernet.loss_and_gradient(
                _of_hypernet(params), batch._replace(drawn=task_ids), anchor.held, loss, lookahead
            )

        (gradients, losses), divergence, of_encoder = self.vae.loss_and_gradient(
            params[_ENCODER], batch.inputs, noise, decoder_step, condition=anchor.conditions[-1]
        )
        losses = GeneratorLosses(
            losses.task_loss, divergence, losses.penalty, losses.loss + divergence
        )
        return {_ENCODER: of_encoder, **gradients}, losses

    @torch.no_grad()
    def samples(self, params: Params, num_tasks: int, number: int) -> Tensor:
        """Samples of the first tasks by what has been learned, [members, tasks, number, D] in
        [0, 1]; all from the same latents, which are the same at every call.
        """
        decoders = self._decoders(params, num_tasks)
        return self.vae.samples(decoders, self.vae.conditions(num_tasks, like=decoders), number)

    def _decoders(self, params: Params, num_tasks: int) -> Tensor:
        """Of the first tasks, [members, tasks, num_weights]."""
        task_ids = torch.arange(num_tasks, device=self.setting.device)
        every = task_ids.expand(len(params[_ENCODER]), -1)
        return self.hypernet.weights(_of_hypernet(params), every)

    def _parts(self, anchor: GeneratorAnchor, drawn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ε [members, B, L], latents [members, tasks, N, L], task ids [members, tasks] int64."""
        batch_size, size = self.setting.train.batch_size, self.options.vae_latent_size
        tasks, per_task = anchor.num_tasks, self.samples_per_task(anchor)
        sizes = batch_size * size, tasks * per_task * size
        noise, latents, task_ids = drawn.tensor_split([sizes[0], sum(sizes)], dim=1)
        return (
            noise.unflatten(1, (batch_size, size)),
            latents.view(len(drawn), tasks, per_task, size),
            task_ids.long(),
        )

    def state_dict(self, params: Params) -> Params:
        """One member's parameters: ``encoder.0`` …, and ``decoder.`` before hypnettorch's names."""
        encoder = self.vae.encoder.split(params[_ENCODER])
        return from_parts(
            encoder={str(i): tensor for i, tensor in enumerate(encoder)},
            decoder=self.hypernet.state_dict(_of_hypernet(params)),
        )

    def load_state_dict(self, state: Params) -> Params:
        """The reverse of :meth:`state_dict`, on the device."""
        encoder = [tensor.flatten() for tensor in part_of(state, _ENCODER).values()]
        return {
            _ENCODER: torch.cat(encoder).to(self.setting.device),
            **self.hypernet.load_state_dict(part_of(state, "decoder")),
        }

    def kept_bytes(self, params: Params, num_learned: int) -> int:
        """θ* and e* of the hypernetwork, from which the decoders follow."""
        return self.hypernet.kept_bytes(_of_hypernet(params), {}, num_learned)

    def describe_size(self) -> str:
        """The sizes of the encoder and of the decoder's hypernetwork, for the log."""
        return (
            f"and a generator: encoder of {self.vae.encoder.num_weights:,} weights, decoder of "
            f"{self.hypernet.describe_size()}"
        )

    def numbers_per_member(self) -> int:
        """Roughly how many numbers a member takes in the last task, with the noise that is drawn
        beforehand for its steps.
        """
        vae, batch_size = self.vae, self.setting.train.batch_size
        train, tasks = self.setting.train, self.setting.tasks
        steps = max(train.num_steps(len(task.train.labels)) for task in tasks)
        drawn = steps * 2 * batch_size * self.options.vae_latent_size
        widths = (*self.options.vae_encoder_arch, *self.options.vae_decoder_arch)
        activations = 4 * batch_size * (sum(widths) + prod(self.setting.tasks[0].in_shape))
        decoders = len(self.setting.tasks) * vae.decoder.num_weights
        own = 5 * vae.encoder.num_weights + self.hypernet.numbers_per_member()
        return own + drawn + activations + decoders


def _of_hypernet(params: Params) -> Params:
    """Of the generator's parameters those of the hypernetwork."""
    return {name: value for name, value in params.items() if name != _ENCODER}
