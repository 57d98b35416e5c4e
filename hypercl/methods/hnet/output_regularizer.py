"""The method as it is run: the step of reference.py, over members and written out.

One pass of the hypernetwork serves the current task and the earlier ones; the gradient goes back
through the main network first, then once through the hypernetwork.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from hypercl.engine.members import Params, add_into, is_positive, stack_members, to_device
from hypercl.errors import InputError
from hypercl.methods.base import Batch, Lookahead, Setting, StepLosses, TaskEnd
from hypercl.methods.hnet.anchor import OutputAnchor
from hypercl.methods.hnet.choice import factored_is_cheaper, take_anchor
from hypercl.networks import hnet_modules
from hypercl.networks.heads import head_of_each_task, one_head
from hypercl.networks.main_net import LossOfWeights

if TYPE_CHECKING:
    from hypercl.methods.hnet import Hnet
    from hypercl.networks.library import HyperNetInterface


class HnetAnchor(NamedTuple):
    """What is kept of the earlier tasks while a task is learned."""

    outputs: OutputAnchor | None  # None: nothing is regularized
    fixed: Params  # embeddings of the earlier tasks, where these do not learn


class OutputRegularizer:
    """A hypernetwork whose outputs for the earlier tasks are held where they were.

    Args:
        options: Of the method; the hypernetwork's are in the setting.
        whose: Behind the purpose of each stream of random numbers, where a method has several
            hypernetworks.

    Raises:
        InputError: The compression ratio that is asked for cannot be had.
    """

    network_by_task = True

    def __init__(self, options: "Hnet", setting: Setting, *, whose: str = "") -> None:
        self.options, self.setting, self._whose = options, setting, whose
        module = self.fresh_module(seed=0)
        self.hnet, params = hnet_modules.as_function(module, setting.hypernet)
        self._shapes = to_device(params, "meta")  # of one member's parameters
        self.num_trained = module.num_params
        self.compression_ratio = self.num_trained / setting.net.num_weights
        self.heads = one_head(setting.net.num_weights)
        own_outputs = [task.outputs for task in setting.tasks if task.has_own_outputs]
        if own_outputs and not options.hnet_reg_all_heads:
            net = setting.net
            if net.num_output_tensors == 0:
                raise InputError(
                    "the main network has no output layer with a row of weights for each output, "
                    "as tasks with outputs of their own need: let it end with an nn.Linear, or add "
                    "--hnet_reg_all_heads"
                )
            self.heads = head_of_each_task(net.shapes, own_outputs, net.num_output_tensors)

    def fresh_module(self, seed: int) -> "HyperNetInterface":
        """hypnettorch's module, initialized from a seed, on the CPU."""
        setting, purpose = self.setting, f"initialization{self._whose}"
        return hnet_modules.build_module(
            setting.hypernet, setting.net, len(setting.tasks), seed, purpose=purpose
        )

    def init(self, seeds: Sequence[int]) -> Params:
        """Freshly initialized parameters, [members, …] each; see networks/hypernet.py."""
        return stack_members([self.from_module(self.fresh_module(seed)) for seed in seeds])

    def from_module(self, module: "HyperNetInterface") -> Params:
        """One member's parameters from hypnettorch's module, on the device."""
        params = hnet_modules.as_function(module, self.setting.hypernet)[1]
        return to_device(params, self.setting.device)

    def extended(
        self, params: Params, memory: Params, seeds: Sequence[int], num_tasks_before: int
    ) -> tuple[Params, Params]:
        """With fresh embeddings of the later tasks, for each seed and task from its own stream."""
        fresh = stack_members([self._fresh_embeddings(seed, num_tasks_before) for seed in seeds])
        rows = {name: torch.cat([params[name], value], dim=1) for name, value in fresh.items()}
        return params | rows, memory

    def _fresh_embeddings(self, seed: int, first: int) -> Params:
        """Of one member, for the tasks from ``first`` on, [tasks, …] each."""
        setting = self.setting
        rows = []
        for task_id in range(first, len(setting.tasks)):
            purpose = f"a later task{self._whose}"
            module = hnet_modules.build_module(
                setting.hypernet, setting.net, 1, seed, purpose=purpose, task_id=task_id
            )
            params = self.from_module(module)
            rows.append({name: params[name] for name in self.hnet.per_task if name in params})
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def trainable(self, params: Params, task_id: int) -> Params:
        """All but the embeddings of later tasks, so that neither weight decay nor momentum moves
        them; with frozen embeddings, but those of earlier ones too.
        """
        start = self._first_learning(task_id)
        return {
            name: value[:, start : task_id + 1] if name in self.hnet.per_task else value
            for name, value in params.items()
        }

    def merged(self, params: Params, trained: Params, task_id: int) -> Params:
        """``params`` with a copy of what was trained in its place."""
        start, merged = self._first_learning(task_id), {}
        for name, value in trained.items():
            if name in self.hnet.per_task:
                parts = [params[name][:, :start], value, params[name][:, task_id + 1 :]]
                merged[name] = torch.cat(parts, dim=1)
            else:
                merged[name] = value.clone()
        return merged

    def weights(self, params: Params, task_ids: Tensor) -> Tensor:
        """h(e_t, θ) for tasks [members, tasks], without dropout: [members, tasks, num_weights]."""
        return self.hnet.weights(params, task_ids)

    def remember(self, params: Params, memory: Params, task_id: int) -> HnetAnchor:
        """Take the anchor, and the embeddings that stay; both follow from the parameters."""
        outputs, options = None, self.options
        if is_positive(options.beta):
            outputs = take_anchor(
                self.hnet,
                params,
                task_id,
                subset_size=options.hnet_reg_batch_size,
                store_targets=not options.calc_hnet_reg_targets_online,
                heads=self.heads,
            )
        start = self._first_learning(task_id)
        fixed = {
            name: params[name][:, :start].clone()
            for name in self.hnet.per_task
            if start > 0 and name in params
        }
        return HnetAnchor(outputs, fixed)

    def describe(self, anchor: HnetAnchor) -> str:
        """The form of the regularizer and what it keeps."""
        if anchor.outputs is None:
            return "no regularizer"
        mebibytes = anchor.outputs.num_bytes / 2**20
        return f"{anchor.outputs.form} regularizer, which keeps {mebibytes:.1f} MiB"

    def draw(
        self, anchor: HnetAnchor, task_id: int, num_steps: int, generator: torch.Generator
    ) -> Tensor:
        """The tasks whose weights a step generates: the earlier ones that it regularizes, then the
        current one, [num_steps or 1, tasks] int64.
        """
        num_earlier = 0 if anchor.outputs is None else anchor.outputs.num_tasks
        subsets = draw_subsets(num_earlier, num_steps, self.options.hnet_reg_batch_size, generator)
        return torch.cat([subsets, torch.full((len(subsets), 1), task_id)], dim=1)

    def num_drawn(self, anchor: HnetAnchor) -> int:
        """How many tasks :meth:`draw` draws for a step."""
        num_earlier = 0 if anchor.outputs is None else anchor.outputs.num_tasks
        subset = self.options.hnet_reg_batch_size
        return 1 + (num_earlier if subset is None else min(subset, num_earlier))

    def loss_and_gradient(
        self,
        params: Params,
        batch: Batch,
        anchor: HnetAnchor,
        task_loss: LossOfWeights,
        lookahead: Lookahead,
    ) -> tuple[Params, StepLosses]:
        """The gradient and the loss of a step:

            weight * task loss(h(e_t, θ)) + beta * penalty(θ + Δθ)

        where Δθ is the optimizer's step on the task loss alone, a constant for the gradient, or 0
        without ``--lookahead`` (equation 2 of the paper).
        """
        at, earlier = self._complete(params, anchor), batch.drawn[:, :-1]
        if anchor.outputs is not None and self.options.lookahead:
            gradients, losses = self._step(at, batch, None, task_loss)
            uncorrected = self.options.lookahead_eps == "uncorrected"
            ahead = lookahead(self._learning(gradients, anchor), uncorrected_eps=uncorrected)
            ahead = {name: at[name] if name in self.hnet.per_task else ahead[name] for name in at}
            penalty, of_penalty = penalty_and_gradient(
                anchor.outputs, ahead, earlier, self.options.beta
            )
            add_into(gradients, of_penalty)
            loss = losses.loss + self.options.beta * penalty
            losses = losses._replace(penalty=penalty, loss=loss)
        else:
            gradients, losses = self._step(at, batch, anchor.outputs, task_loss)
        return self._learning(gradients, anchor), losses

    def _step(
        self, params: Params, batch: Batch, anchor: OutputAnchor | None, task_loss: LossOfWeights
    ) -> tuple[Params, StepLosses]:
        """The loss and its gradient, both at the same parameters, in one pass."""
        hnet, earlier, current = self.hnet, batch.drawn[:, :-1], batch.drawn[:, -1:]
        block = 0 if anchor is None else anchor.at_once(earlier.shape[1])
        passed = hnet.forward(params, torch.cat([earlier[:, :block], current], 1), training=True)
        features = passed.features  # [members, block + 1, chunks, features]
        generated = features if anchor is not None and anchor.needs_weights else features[:, -1:]
        chunks = hnet.generate_chunks(params, generated)
        weights = chunks[..., : hnet.num_weights]  # [members, tasks, num_weights]

        loss, accuracy, gradient = task_loss(chunks[:, -1], batch)
        of_weights = [gradient[:, None]]
        if anchor is None:
            to_features, gradients = hnet.generate_backward(params, generated, *of_weights)
            value, total = torch.zeros_like(loss), task_loss.weight * loss
        else:
            beta = self._beta_at(batch.step)
            penalty = anchor.penalty(params, earlier, features[:, :-1], weights[:, :-1], beta)
            if penalty.for_weights is not None:
                of_weights.insert(0, penalty.for_weights)
            to_features, gradients = hnet.generate_backward(
                params, generated, *of_weights, plus=penalty.for_layer
            )
            if penalty.for_features is not None:
                to_features = torch.cat([penalty.for_features, to_features], dim=1)
            add_into(gradients, penalty.for_params)
            value, total = penalty.value, task_loss.weight * loss + beta * penalty.value
        add_into(gradients, hnet.backward(params, passed, to_features))
        return gradients, StepLosses(loss, value, total, accuracy)

    def _beta_at(self, step: Tensor) -> float | Tensor:
        """At a task's first step the parameters are those of the anchor, and the penalty is a
        minimum: its gradient is zero but for rounding, which Adam, looking at signs, would blow up.
        Dropout makes it another penalty.
        """
        if self.hnet.dropout_rate > 0:
            return self.options.beta
        return self.options.beta * (step > 0).squeeze(0)

    def _first_learning(self, task_id: int) -> int:
        """The first task whose embeddings learn while this one is learned."""
        return task_id if self.options.freeze_prev_embs else 0

    def _complete(self, trained: Params, anchor: HnetAnchor) -> Params:
        """The trained parameters, with the embeddings that stay in front of those that learn."""
        joined = {name: torch.cat([v, trained[name]], 1) for name, v in anchor.fixed.items()}
        return trained | joined

    def _learning(self, gradients: Params, anchor: HnetAnchor) -> Params:
        """The gradients without those for embeddings that stay."""
        own = {name: gradients[name][:, v.shape[1] :] for name, v in anchor.fixed.items()}
        return gradients | own

    def running(self, params: Params, memory: Params, task_id: int) -> Params:
        """Nothing."""
        return {}

    def after_task(self, params: Params, memory: Params, end: TaskEnd) -> Params:
        """Nothing: the anchor follows from the parameters."""
        return memory

    def state_dict(self, params: Params) -> Params:
        """One member's parameters under hypnettorch's names."""
        module = self.fresh_module(seed=0)
        hnet_modules.into_module(params, module)
        return dict(module.state_dict())

    def load_state_dict(self, state: Params) -> Params:
        """One member's parameters from hypnettorch's names, on the device."""
        module = self.fresh_module(seed=0)
        module.load_state_dict(state)
        return self.from_module(module)

    def describe_size(self) -> str:
        """The sizes of both networks."""
        net, hypernet = self.setting.net, self.setting.hypernet
        chunks = ""
        if hypernet.hnet_type == "chunked_hmlp":
            size = hnet_modules.chunk_size(hypernet, net.num_weights, len(self.setting.tasks))
            chunks = f" in chunks of {size:,}"
        return (
            f"{net.num_weights:,} weights from {hypernet.hnet_type} with {self.num_trained:,}"
            f"{chunks} (compression ratio {self.compression_ratio:.3f})"
        )

    def kept_bytes(self, params: Params, memory: Params, num_learned: int) -> int:
        """θ* and e*, a copy of the parameters."""
        return sum(value[0].numel() * value.element_size() for value in params.values())

    def numbers_per_member(self) -> int:
        """Roughly the numbers that a member takes in the last task: a row's features in every layer
        and as much again for gradients, what is kept, and the weights generated.
        """
        options, hnet, params = self.options, self.hnet, self._shapes
        parameters = sum(value.numel() for value in params.values())
        earlier, subset = len(self.setting.tasks) - 1, options.hnet_reg_batch_size
        num_passed = 1 + (earlier if subset is None else min(subset, earlier))
        chunk_size, d = hnet.last_layer(params)[0].shape
        rows = math.ceil(hnet.num_weights / chunk_size)
        widths = [params[f"weight{i}"].shape[1] for i in range(hnet.num_layers)]
        passes = num_passed * rows * (3 * sum(widths) + 3 * d)
        stored = not options.calc_hnet_reg_targets_online
        if earlier and factored_is_cheaper(
            hnet, params, earlier, subset, self.heads, store_targets=stored
        ):
            kept = earlier * rows * d + (1 if subset is None else earlier) * (d + 1) ** 2
            kept += 4 * d**2  # products of the last layer
            generated = 3 * hnet.num_weights
        else:
            kept = earlier * hnet.num_weights if stored else parameters
            generated = 3 * num_passed * hnet.num_weights
        # parameters, gradients, Adam's two means, the anchor; the lookahead copies what it changes
        copies = 10 if options.lookahead else 5
        return copies * parameters + passes + kept + generated


def penalty_and_gradient(
    anchor: OutputAnchor,
    params: Params,
    earlier: Tensor,
    beta: float | Tensor,
    *,
    training: bool = True,
) -> tuple[Tensor, Params]:
    """The penalty [members] and the whole gradient of ``beta`` times it, in a pass of their own.

    Args:
        earlier: [members, tasks] int64, those regularized.
        training: Apply the hypernetwork's dropout.
    """
    hnet, block = anchor.hnet, anchor.at_once(earlier.shape[1])
    passed = hnet.forward(params, earlier[:, :block], training=training)
    features, weights = passed.features, None
    if anchor.needs_weights:
        weights = hnet.generate(params, features)
    penalty = anchor.penalty(params, earlier, features, weights, beta)
    to_features, gradients = penalty.for_features, penalty.for_params
    if penalty.for_weights is not None:
        to_features, gradients = hnet.generate_backward(params, features, penalty.for_weights)
    if penalty.for_layer is not None:
        gradients |= hnet.split_last_layer(params, penalty.for_layer)
    assert to_features is not None  # by one of the two ways
    add_into(gradients, hnet.backward(params, passed, to_features))
    return penalty.value, gradients


def draw_subsets(
    num_tasks: int, num_steps: int, subset_size: int | None, generator: torch.Generator
) -> Tensor:
    """Draw beforehand which earlier tasks each step of a task regularizes, without replacement.

    Args:
        num_tasks: Earlier tasks to draw from.
        subset_size: At most so many a step; None: all.

    Returns:
        Task ids [num_steps, tasks a step] int64, on the CPU; [1, num_tasks] where every step takes
        all.
    """
    if subset_size is None or subset_size >= num_tasks:
        return torch.arange(num_tasks)[None]
    return torch.stack(
        [torch.randperm(num_tasks, generator=generator)[:subset_size] for _ in range(num_steps)]
    )
