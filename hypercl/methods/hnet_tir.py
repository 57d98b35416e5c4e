"""HNET+TIR, task inference by a network that learns from replay (von Oswald et al., arXiv 1906.00695,
section 3): the hypernetwork with its output regularizer classifies, and a plain MLP with an output
for each task says which task a sample is from. From the second task on that one learns

    (1 - s) * cross-entropy of the task's samples + s * that of generated samples of the tasks before

beside the hypernetwork and a generator of samples; see the folder ``generative``. s is
--replay_share, 1/2 in the paper. The three learn in the same steps from the same batches, and none
of them depends on what another learns in a task, but for the norm that --clip_grad_norm limits,
which is that of all gradients together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from hypercl.methods.base import Batch, Lookahead, Method, Setting, TaskEnd
from hypercl.methods.generative import OF_HNET_VAE, HnetVaeEntry, lookahead_of
from hypercl.methods.hnet import Hnet
from hypercl.ranges import int_list, option

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from hypercl.engine.members import Params
    from hypercl.methods.base import StepLosses
    from hypercl.methods.generative.generator import GeneratorAnchor
    from hypercl.methods.hnet.output_regularizer import HnetAnchor
    from hypercl.networks.main_net import TaskLoss

_CLASSIFIER, _INFERENCE, _GENERATOR = "classifier", "inference", "generator"
_WEIGHTS = f"{_INFERENCE}.weights"


@dataclass(frozen=True)
class HnetTir(Hnet, HnetVaeEntry):
    # fmt: off
    tir_arch: tuple[int, ...] = option((400, 400), int_list(), "hidden layers of the network that infers tasks")
    # fmt: on

    inference_rule: ClassVar = "tir"

    def build(self, setting: Setting) -> Method:
        return TaskInferenceByReplay(self, setting)


class TirAnchor(NamedTuple):
    """What is kept of the earlier tasks while a task is learned."""

    classifier: "HnetAnchor"
    generator: "GeneratorAnchor"


class TaskInferenceByReplay:
    """A hypernetwork, a network that infers tasks, and a generator of samples of the earlier tasks.

    Raises:
        InputError: The compression ratio that is asked for cannot be had, or as
            :class:`HnetGenerator` raises it.
    """

    network_by_task = True
    inference_rule = HnetTir.inference_rule
    other_losses = (*OF_HNET_VAE, "inference_loss", "inference_accuracy")

    def __init__(self, options: HnetTir, setting: Setting) -> None:
        from hypercl.methods.generative.generator import HnetGenerator
        from hypercl.methods.hnet.output_regularizer import OutputRegularizer
        from hypercl.networks.vae import plain_network

        self.options, self.setting = options, setting
        self.classifier = OutputRegularizer(options, setting)
        self.generator = HnetGenerator(options, setting)
        num_inputs = prod(setting.tasks[0].in_shape)
        self.inference = plain_network(num_inputs, options.tir_arch, len(setting.tasks))
        parts = self.classifier.num_trained, self.inference.num_weights, self.generator.num_trained
        self.num_trained = sum(parts)
        self.compression_ratio: float | None = self.num_trained / setting.net.num_weights

    def init(self, seeds: Sequence[int]) -> "Params":
        """``classifier.`` and ``generator.`` before what these have, and ``inference.weights``
        [members, num_weights], Xavier-uniform with zero biases.
        """
        from hypercl.engine.members import from_parts

        return from_parts(
            classifier=self.classifier.init(seeds),
            inference={"weights": self._fresh_inference(seeds, 0)},
            generator=self.generator.init(seeds),
        )

    def _fresh_inference(self, seeds: Sequence[int], num_tasks_before: int) -> "Tensor":
        """[members, num_weights], on the device.

        Args:
            num_tasks_before: Of a run that is continued; its stream is another for each number.
        """
        purpose, device = "initialization of task inference", self.setting.device
        return self.inference.fresh_of_seeds(
            seeds, purpose, num_tasks_before, xavier=True, device=device
        )

    def extended(
        self, params: "Params", memory: "Params", seeds: Sequence[int], num_tasks_before: int
    ) -> "tuple[Params, Params]":
        """With embeddings for the later tasks, and outputs for them of the network that infers."""
        from hypercl.engine.members import from_parts, part_of

        classifier = part_of(params, _CLASSIFIER)
        classifier, memory = self.classifier.extended(classifier, memory, seeds, num_tasks_before)
        of_generator = part_of(params, _GENERATOR)
        return from_parts(
            classifier=classifier,
            inference={
                "weights": self._with_more_outputs(params[_WEIGHTS], seeds, num_tasks_before)
            },
            generator=self.generator.extended(of_generator, seeds, num_tasks_before),
        ), memory

    def _with_more_outputs(
        self, before: "Tensor", seeds: Sequence[int], num_tasks_before: int
    ) -> "Tensor":
        """Weights [members, num_weights] of a network with an output for each task there was, in one
        with an output for each task; the new outputs are fresh.
        """
        import torch

        from hypercl.networks.vae import plain_network

        num_inputs = prod(self.setting.tasks[0].in_shape)
        smaller = plain_network(num_inputs, self.options.tir_arch, num_tasks_before)
        fresh = self.inference.split(self._fresh_inference(seeds, num_tasks_before))
        for tensor, old in zip(fresh, smaller.split(before), strict=True):
            tensor[:, : old.shape[1]] = old
        return torch.cat([tensor.flatten(1) for tensor in fresh], dim=1)

    def trainable(self, params: "Params", task_id: int) -> "Params":
        """What the hypernetworks learn in a task, the encoder, and from the second task on the
        network that infers: of one task there is nothing to tell apart.
        """
        from hypercl.engine.members import from_parts, part_of

        learning = from_parts(
            classifier=self.classifier.trainable(part_of(params, _CLASSIFIER), task_id),
            generator=self.generator.trainable(part_of(params, _GENERATOR), task_id),
        )
        return learning | ({_WEIGHTS: params[_WEIGHTS]} if task_id > 0 else {})

    def merged(self, params: "Params", trained: "Params", task_id: int) -> "Params":
        """``params`` with a copy of what was trained in its place."""
        from hypercl.engine.members import from_parts, part_of

        def both(part: str) -> "tuple[Params, Params]":
            return part_of(params, part), part_of(trained, part)

        return from_parts(
            classifier=self.classifier.merged(*both(_CLASSIFIER), task_id),
            inference={"weights": trained.get(_WEIGHTS, params[_WEIGHTS]).clone()},
            generator=self.generator.merged(*both(_GENERATOR), task_id),
        )

    def weights(self, params: "Params", task_ids: "Tensor") -> "Tensor":
        """h(e_t, θ) for tasks [members, tasks]: [members, tasks, num_weights]."""
        from hypercl.engine.members import part_of

        return self.classifier.weights(part_of(params, _CLASSIFIER), task_ids)

    def remember(self, params: "Params", memory: "Params", task_id: int) -> TirAnchor:
        """What holds both hypernetworks, and the decoders that replay."""
        from hypercl.engine.members import part_of

        return TirAnchor(
            self.classifier.remember(part_of(params, _CLASSIFIER), memory, task_id),
            self.generator.remember(part_of(params, _GENERATOR), task_id),
        )

    def describe(self, anchor: TirAnchor) -> str:
        """The regularizer's form, and how many samples are replayed."""
        remark = self.classifier.describe(anchor.classifier)
        if anchor.generator.num_tasks == 0:
            return remark
        number = self.generator.samples_per_task(anchor.generator)
        return f"{remark}; {number} generated samples of each earlier task in a step"

    def draw(
        self, anchor: TirAnchor, task_id: int, num_steps: int, generator: "torch.Generator"
    ) -> "Tensor":
        """The tasks whose weights a step generates, then what the generator draws, [num_steps, …]
        float32.
        """
        import torch

        task_ids = self.classifier.draw(anchor.classifier, task_id, num_steps, generator)
        of_generator = self.generator.draw(anchor.generator, task_id, num_steps, generator)
        return torch.cat([task_ids.expand(num_steps, -1).float(), of_generator], dim=1)

    def loss_and_gradient(
        self,
        params: "Params",
        batch: Batch,
        anchor: TirAnchor,
        task_loss: "TaskLoss",
        lookahead: Lookahead,
    ) -> "tuple[Params, StepLosses]":
        """Of the three; the loss is their sum, the penalty and the task loss are the classifier's."""
        import torch

        from hypercl.engine.members import from_parts, part_of
        from hypercl.methods.generative.replayed import task_inference_loss

        task_ids, drawn = self._parts(anchor, batch.drawn)
        gradients, losses = self.classifier.loss_and_gradient(
            part_of(params, _CLASSIFIER),
            batch._replace(drawn=task_ids),
            anchor.classifier,
            task_loss,
            lookahead_of(_CLASSIFIER, lookahead),
        )
        of_generator, (*others, of_replay) = self.generator.loss_and_gradient(
            part_of(params, _GENERATOR),
            batch,
            drawn,
            anchor.generator,
            lookahead_of(_GENERATOR, lookahead),
        )
        gradients = from_parts(classifier=gradients, generator=of_generator)
        if _WEIGHTS not in params:  # of one task
            loss, accuracy = torch.zeros_like(of_replay), torch.ones_like(of_replay)
        else:
            replayed = self.generator.replay(anchor.generator, drawn)
            (loss, accuracy), gradients[_WEIGHTS] = task_inference_loss(
                self.inference,
                params[_WEIGHTS],
                batch.inputs,
                anchor.generator.num_tasks,
                replayed,
                self.options.replay_share,
            )
        total = losses.loss + of_replay + loss
        return gradients, losses._replace(loss=total, others=(*others, loss, accuracy))

    def _parts(self, anchor: TirAnchor, drawn: "Tensor") -> "tuple[Tensor, Tensor]":
        """The tasks whose weights are generated, int64, and the generator's share."""
        size = self.generator.num_drawn(anchor.generator)
        task_ids, of_generator = drawn.tensor_split([drawn.shape[1] - size], dim=1)
        return task_ids.long(), of_generator

    def task_scores(self, params: "Params", inputs: "Tensor") -> "Tensor":
        """The outputs of the network that infers, [members, tasks, N].

        Args:
            inputs: [N, H * W * C], the same for all members.
        """
        from hypercl.networks.main_net import TaskLoss

        weights = params[_WEIGHTS]
        each = inputs.expand(len(weights), -1, -1)
        return TaskLoss(self.inference).logits(weights, each, {}).mT

    def generate(self, params: "Params", num_learned: int, num_samples: int) -> "Tensor":
        """Samples of the first tasks, [members, tasks, num_samples, H * W * C]."""
        from hypercl.engine.members import part_of

        return self.generator.samples(part_of(params, _GENERATOR), num_learned, num_samples)

    def running(self, params: "Params", memory: "Params", task_id: int) -> "Params":
        """Nothing."""
        return {}

    def after_task(self, params: "Params", memory: "Params", end: TaskEnd) -> "Params":
        """Nothing: all that is remembered follows from the parameters."""
        return memory

    def state_dict(self, params: "Params") -> "Params":
        """``classifier.`` and ``generator.`` before what these have, ``inference.0`` …"""
        from hypercl.engine.members import from_parts, part_of

        tensors = self.inference.split(params[_WEIGHTS])
        return from_parts(
            classifier=self.classifier.state_dict(part_of(params, _CLASSIFIER)),
            inference={str(i): tensor for i, tensor in enumerate(tensors)},
            generator=self.generator.state_dict(part_of(params, _GENERATOR)),
        )

    def load_state_dict(self, state: "Params") -> "Params":
        """The reverse of :meth:`state_dict`."""
        import torch

        from hypercl.engine.members import from_parts, part_of

        tensors = part_of(state, _INFERENCE).values()
        weights = torch.cat([tensor.flatten() for tensor in tensors])
        return from_parts(
            classifier=self.classifier.load_state_dict(part_of(state, _CLASSIFIER)),
            inference={"weights": weights.to(self.setting.device)},
            generator=self.generator.load_state_dict(part_of(state, _GENERATOR)),
        )

    def describe_size(self) -> str:
        """The sizes of all networks."""
        return (
            f"{self.classifier.describe_size()}, {self.inference.num_weights:,} weights that infer "
            f"tasks, {self.generator.describe_size()}"
        )

    def kept_bytes(self, params: "Params", memory: "Params", num_learned: int) -> int:
        """What holds both hypernetworks."""
        from hypercl.engine.members import part_of

        classifier, of_generator = (part_of(params, part) for part in (_CLASSIFIER, _GENERATOR))
        kept = self.classifier.kept_bytes(classifier, memory, num_learned)
        return kept + self.generator.kept_bytes(of_generator, num_learned)

    def numbers_per_member(self) -> int:
        """Of all parts."""
        own = 6 * self.inference.num_weights
        return own + self.classifier.numbers_per_member() + self.generator.numbers_per_member()


ENTRY = HnetTir
