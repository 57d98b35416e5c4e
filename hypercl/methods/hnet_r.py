"""HNET+R, replay by a generator that a hypernetwork protects (von Oswald et al., arXiv 1906.00695,
section 3): one classifier with weights of its own, which learns

    (1 - s) * cross-entropy of the task + s * distillation at temperature 2 on generated samples

beside the generator, which learns the task's images; see the folder ``generative``. s is
--replay_share, 1/2 in the paper. As many samples as a batch has are generated in each step, rounded
up to equally many of each earlier task. The generator that replays is that of the tasks before; what
both learn in a task does not depend on the other, but for the norm that --clip_grad_norm limits,
which is that of both gradients together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from hypercl.methods.base import Batch, Lookahead, Method, OwnWeights, OwnWeightsEntry, Setting
from hypercl.methods.generative import OF_HNET_VAE, HnetVaeEntry, lookahead_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from hypercl.engine.members import Params
    from hypercl.methods.base import StepLosses
    from hypercl.methods.generative.generator import GeneratorAnchor
    from hypercl.methods.generative.replayed import Teacher
    from hypercl.networks.main_net import TaskLoss

_GENERATOR = "generator"


@dataclass(frozen=True)
class HnetR(HnetVaeEntry, OwnWeightsEntry):
    def build(self, setting: Setting) -> Method:
        return HypernetworkReplay(self, setting)


class ReplayAnchor(NamedTuple):
    """What is kept of the earlier tasks while a task is learned."""

    generator: "GeneratorAnchor"
    teacher: "Teacher | None"  # None: there are no earlier tasks


class HypernetworkReplay(OwnWeights):
    """A classifier with weights of its own, and a generator of samples of the earlier tasks.

    Raises:
        InputError: As :class:`HnetGenerator` raises it.
    """

    other_losses = OF_HNET_VAE

    def __init__(self, options: HnetR, setting: Setting) -> None:
        from hypercl.methods.generative.generator import HnetGenerator

        super().__init__(setting, mnet_init=options.mnet_init)
        self.options, self.generator = options, HnetGenerator(options, setting)
        self.num_trained = setting.net.num_weights + self.generator.num_trained

    def init(self, seeds: Sequence[int]) -> "Params":
        """``weights`` [members, num_weights], and ``generator.`` before what that has."""
        from hypercl.engine.members import from_parts

        return super().init(seeds) | from_parts(generator=self.generator.init(seeds))

    def extended(
        self, params: "Params", memory: "Params", seeds: Sequence[int], num_tasks_before: int
    ) -> "tuple[Params, Params]":
        """The generator for all tasks."""
        from hypercl.engine.members import from_parts, part_of

        longer = self.generator.extended(part_of(params, _GENERATOR), seeds, num_tasks_before)
        return {"weights": params["weights"], **from_parts(generator=longer)}, memory

    def trainable(self, params: "Params", task_id: int) -> "Params":
        """All but the generator's embeddings of other tasks."""
        from hypercl.engine.members import from_parts, part_of

        of_generator = self.generator.trainable(part_of(params, _GENERATOR), task_id)
        return {"weights": params["weights"], **from_parts(generator=of_generator)}

    def merged(self, params: "Params", trained: "Params", task_id: int) -> "Params":
        """``params`` with a copy of what was trained in its place."""
        from hypercl.engine.members import from_parts, part_of

        before, after = (part_of(values, _GENERATOR) for values in (params, trained))
        of_generator = self.generator.merged(before, after, task_id)
        return {"weights": trained["weights"].clone(), **from_parts(generator=of_generator)}

    def remember(self, params: "Params", memory: "Params", task_id: int) -> ReplayAnchor:
        """The generator and the classifier as they are."""
        from hypercl.engine.members import part_of
        from hypercl.methods.generative.replayed import Teacher

        teacher, setting = None, self.setting
        if task_id > 0:
            outputs = setting.net.num_outputs
            teacher = Teacher.before(setting.tasks, task_id, outputs, params["weights"])
        return ReplayAnchor(self.generator.remember(part_of(params, _GENERATOR), task_id), teacher)

    def describe(self, anchor: ReplayAnchor) -> str:
        """How many samples are replayed."""
        if anchor.teacher is None:
            return "nothing to replay"
        number = self.generator.samples_per_task(anchor.generator)
        return f"{number} generated samples of each earlier task in a step"

    def draw(
        self, anchor: ReplayAnchor, task_id: int, num_steps: int, generator: "torch.Generator"
    ) -> "Tensor":
        """See :meth:`HnetGenerator.draw`."""
        return self.generator.draw(anchor.generator, task_id, num_steps, generator)

    def loss_and_gradient(
        self,
        params: "Params",
        batch: Batch,
        anchor: ReplayAnchor,
        task_loss: "TaskLoss",
        lookahead: Lookahead,
    ) -> "tuple[Params, StepLosses]":
        """Of the classifier and of the generator; the loss is the sum of both, the penalty that of
        the distillation, and the others are the generator's.
        """
        from hypercl.engine.members import from_parts, part_of
        from hypercl.methods.generative.replayed import classifier_loss

        weights = params["weights"]
        if anchor.teacher is None:
            gradient, losses = self.loss_without_anchor(weights, batch, task_loss)
        else:
            replayed = self.generator.replay(anchor.generator, batch.drawn)
            share = self.options.replay_share
            gradient, losses = classifier_loss(
                weights, batch, replayed, anchor.teacher, share, task_loss
            )

        of_generator, (*others, loss) = self.generator.loss_and_gradient(
            part_of(params, _GENERATOR),
            batch,
            batch.drawn,
            anchor.generator,
            lookahead_of(_GENERATOR, lookahead),
        )
        losses = losses._replace(loss=losses.loss + loss, others=tuple(others))
        return {"weights": gradient, **from_parts(generator=of_generator)}, losses

    def generate(self, params: "Params", num_learned: int, num_samples: int) -> "Tensor":
        """Samples of the first tasks, [members, tasks, num_samples, H * W * C]."""
        from hypercl.engine.members import part_of

        of_generator = part_of(params, _GENERATOR)
        return self.generator.samples(of_generator, num_learned, num_samples)

    def state_dict(self, params: "Params") -> "Params":
        """The main network's tensors, in their order, and ``generator.`` before its own."""
        from hypercl.engine.members import from_parts, part_of

        of_generator = self.generator.state_dict(part_of(params, _GENERATOR))
        return super().state_dict(params) | from_parts(generator=of_generator)

    def load_state_dict(self, state: "Params") -> "Params":
        """The reverse of :meth:`state_dict`."""
        from hypercl.engine.members import from_parts, part_of

        own = {name: value for name, value in state.items() if name.isdecimal()}
        of_generator = self.generator.load_state_dict(part_of(state, _GENERATOR))
        return super().load_state_dict(own) | from_parts(generator=of_generator)

    def describe_size(self) -> str:
        """The sizes of the classifier and of the generator."""
        return (
            f"{self.setting.net.num_weights:,} weights of its own, {self.generator.describe_size()}"
        )

    def kept_bytes(self, params: "Params", memory: "Params", num_learned: int) -> int:
        """The classifier before the task, and what holds the generator."""
        from hypercl.engine.members import part_of

        weights = params["weights"]
        of_generator = self.generator.kept_bytes(part_of(params, _GENERATOR), num_learned)
        return weights[0].numel() * weights.element_size() + of_generator

    def numbers_per_member(self) -> int:
        """Of the classifier and of the generator."""
        return 8 * self.setting.net.num_weights + self.generator.numbers_per_member()


ENTRY = HnetR
