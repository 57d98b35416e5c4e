"""Elastic weight consolidation (Kirkpatrick et al., 2017, arXiv 1612.00796, equation 3)::

    loss = task loss + lambda / 2 * sum over t' < t, i of F_t'i (w_i - w*_t'i)²

w*_t' are the weights after task t', F_t' the diagonal of the Fisher information there: the mean over
samples of the squared gradient of log p(label | x), or with ``fisher_total`` N times that for N
training samples, which is the curvature of the total loss. Of regression, p is a Gaussian of variance 1
around the network's outputs.

A sum of squares around several points is one around the last of them, with a linear part. By weight, with
d = w - w*_last and sums over t'::

    A = sum of F_t'    B = sum of F_t' (w*_t' - w*_last)    C = sum of F_t' (w*_t' - w*_last)²
    penalty = 1/2 * sum over i of (A_i d_i² - 2 B_i d_i + C_i)

so that a step and the memory cost the same for any number of tasks.

With a Gaussian prior of variance v on the weights, as in the code of posterior_replay_cl, w² / (2 v) is
added to the loss of the task that first trains a weight, and 1 / v to the Fisher information of that
task, so that the penalty holds it as well.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypercl.methods.base import (
    Batch,
    Method,
    OwnWeights,
    OwnWeightsEntry,
    Setting,
    StepLosses,
    TaskEnd,
)
from hypercl.ranges import count, non_negative, one_of, option, or_unset, positive, switch

if TYPE_CHECKING:
    from torch import Tensor

    from hypercl.engine.members import Params
    from hypercl.networks.main_net import TaskLoss

_AT_ONCE = 4096  # samples whose inputs are made at a time


@dataclass(frozen=True)
class FisherEntry(OwnWeightsEntry):
    """What both forms of EWC have."""

    # fmt: off
    ewc_lambda: float = option(100.0, non_negative, "ewc, online_ewc: strength of the penalty", member=True)
    fisher_labels: str = option("sample", one_of("sample", "predicted", "data", "exact"), "Fisher information from labels drawn from the network's predictions, its most probable ones, those of the data (the empirical Fisher information), or all, weighted by their probabilities")
    fisher_samples: int | None = option(None, or_unset(count), "training samples that the Fisher information is estimated from; -1: all")
    fisher_total: bool = option(False, switch, "multiply the Fisher information by the number of training samples, as in a posterior; goes well with --task_loss=total")
    ewc_prior_variance: float | None = option(None, or_unset(positive), "variance of a Gaussian prior on the weights: they are drawn to 0 in the task that first trains them, and held the more later; -1: none", member=True)
    # fmt: on

    def problems(self, options):
        if options.task.is_regression and self.fisher_labels == "predicted":
            yield (
                "--fisher_labels=predicted gives no Fisher information of regression, where the most "
                "probable target is the output itself: take sample, data or exact"
            )
        if options.main_net.bn_no_running_stats:
            yield (
                f"--bn_no_running_stats cannot be used with --method={self.name}: Fisher information "
                "is of single samples, which have no statistics; leave it out"
            )


@dataclass(frozen=True)
class Ewc(FisherEntry):
    def build(self, setting: Setting) -> Method:
        return ElasticWeightConsolidation(self, setting)


class ElasticWeightConsolidation(OwnWeights):
    """A network whose weights are held by what they mattered to the earlier tasks."""

    def __init__(self, options: FisherEntry, setting: Setting) -> None:
        super().__init__(setting, options.ewc_lambda, options.mnet_init)
        self.options = options

    def remember(self, params: "Params", memory: "Params", task_id: int) -> Any:
        """The memory, and the ``prior`` of what the task is the first to train."""
        prior = self.prior(task_id)
        return (memory if prior is None else {**memory, "prior": prior}) or None

    def prior(self, task_id: int) -> "Tensor | None":
        """1 / variance for the weights that a task is the first to train, 0 for the others,
        [num_weights], or [members, num_weights] where members differ in it; None where there is no
        prior.
        """
        if self.options.ewc_prior_variance is None:
            return None
        import torch

        from hypercl.engine.members import by_member
        from hypercl.networks.heads import head_of_each_task

        net, tasks = self.setting.net, self.setting.tasks
        if tasks[task_id].has_own_outputs and net.num_output_tensors > 0:
            own = [task.outputs for task in tasks]
            heads = head_of_each_task(net.shapes, own, net.num_output_tensors)
            first = heads.mask(task_id)
            if task_id > 0:
                first[: heads.shared] = 0
        else:
            first = torch.full((net.num_weights,), float(task_id == 0))
        first = first.to(self.setting.device)
        return first / by_member(self.options.ewc_prior_variance, first[None])

    def loss_with_anchor(
        self, weights: "Tensor", batch: Batch, anchor: Any, task_loss: "TaskLoss"
    ) -> "tuple[Tensor, StepLosses]":
        """The prior's part of the loss is no part of the penalty."""
        if "weights" in anchor:
            gradient, losses = super().loss_with_anchor(weights, batch, anchor, task_loss)
        else:  # in the first task
            gradient, losses = self.loss_without_anchor(weights, batch, task_loss)
        if "prior" not in anchor:
            return gradient, losses
        of_prior = anchor["prior"] * weights  # the gradient
        total = losses.loss + (of_prior * weights).sum(1) / 2
        return gradient + of_prior, losses._replace(loss=total)

    def penalty_and_gradient(self, weights: "Tensor", anchor: Any) -> "tuple[Tensor, Tensor]":
        """The penalty [members], and its gradient [members, num_weights]: A d - B."""
        moved = weights - anchor["weights"]
        weighted = anchor["precision"] * moved
        gradient = weighted - anchor["linear"]
        penalty = ((weighted - 2 * anchor["linear"]) * moved).sum(1) + anchor["constant"]
        return penalty / 2, gradient

    def after_task(self, params: "Params", memory: "Params", end: TaskEnd) -> "Params":
        """``weights``, ``precision`` A and ``linear`` B [members, num_weights], ``constant``, the sum
        of C over the weights, [members].
        """
        last, precision = params["weights"].clone(), self.fisher(params, end)
        if not memory:
            zeros = precision.new_zeros
            linear, constant = zeros(precision.shape), zeros(len(precision))
        else:
            back = memory["weights"] - last  # from the new centre to the old one
            weighted = memory["precision"] * back
            constant = memory["constant"] + ((weighted + 2 * memory["linear"]) * back).sum(1)
            linear = memory["linear"] + weighted
            precision = precision + memory["precision"]
        return {"weights": last, "precision": precision, "linear": linear, "constant": constant}

    def fisher(self, params: "Params", end: TaskEnd) -> "Tensor":
        """The diagonal of the Fisher information after a task, [members, num_weights]."""
        import torch

        from hypercl.engine.seeding import generator

        task, (images, labels), weights = end.task, end.task.train, params["weights"]
        device, members = labels.device, len(weights)
        generators = [generator(seed, "fisher samples", end.task_id) for seed in end.seeds]
        number = min(len(labels), self.options.fisher_samples or len(labels))
        chosen = torch.stack(
            [torch.randperm(len(labels), generator=g)[:number] for g in generators]
        )
        draw, size = (torch.randn, labels.shape[1]) if task.is_regression else (torch.rand, 1)
        drawn = torch.stack([draw(number, size, generator=g) for g in generators]).to(device)
        total = torch.zeros_like(weights)
        for part in torch.arange(number).split(_AT_ONCE):
            rows = chosen[:, part].to(device)
            inputs = task.inputs(images[rows.flatten()]).view(members, len(part), -1)
            total += self._sum_of_squares(
                end, weights, inputs, labels[rows], drawn[:, part.to(device)]
            )
        fisher = total * (len(labels) / number if self.options.fisher_total else 1 / number)
        prior = self.prior(end.task_id)
        return fisher if prior is None else fisher + prior

    def _sum_of_squares(
        self,
        end: TaskEnd,
        weights: "Tensor",
        inputs: "Tensor",
        labels: "Tensor",
        drawn: "Tensor",
    ) -> "Tensor":
        """Over samples [members, N, …], by ``fisher_labels``.

        Args:
            drawn: [members, N, 1], uniform between 0 and 1; of regression [members, N, K], normal.
        """
        import torch

        from hypercl.networks.fisher import sum_of_squares

        if end.task.is_regression:
            return self._of_gaussian(end, weights, inputs, labels, drawn)
        net, outputs = self.setting.net, end.task.outputs
        kind = self.options.fisher_labels
        scale = torch.ones_like(labels, dtype=weights.dtype)
        if kind != "data":
            logits = end.task_loss.logits(weights, inputs, end.stats)[..., outputs]
            probabilities = logits.softmax(-1)
            if kind == "predicted":
                labels = logits.argmax(-1)
            elif kind == "sample":
                last = probabilities.shape[-1] - 1
                labels = (probabilities.cumsum(-1) < drawn).sum(-1).clamp(max=last)
            else:
                return sum(
                    (
                        sum_of_squares(
                            net,
                            weights,
                            inputs,
                            end.stats,
                            torch.full_like(labels, label),
                            probabilities[..., label],
                            outputs,
                        )
                        for label in range(probabilities.shape[-1])
                    ),
                    start=torch.zeros_like(weights),
                )
        return sum_of_squares(net, weights, inputs, end.stats, labels, scale, outputs)

    def _of_gaussian(
        self,
        end: TaskEnd,
        weights: "Tensor",
        inputs: "Tensor",
        labels: "Tensor",
        drawn: "Tensor",
    ) -> "Tensor":
        """The same of regression: of residuals y - f that are drawn, those of the data, or one of 1
        at each output in turn, which is the expectation.
        """
        import torch

        from hypercl.networks.fisher import GAUSSIAN, sum_of_squares

        net, outputs = self.setting.net, end.task.outputs
        if self.options.fisher_labels == "data":
            logits = end.task_loss.logits(weights, inputs, end.stats)[..., outputs]
            residuals = [labels - logits]
        elif self.options.fisher_labels == "exact":
            size = labels.shape[-1]
            ones = torch.eye(size, dtype=weights.dtype, device=labels.device)
            residuals = [row.expand(*labels.shape) for row in ones]
        else:
            residuals = [drawn.to(weights.dtype)]
        scale = torch.ones(labels.shape[:-1], dtype=weights.dtype, device=labels.device)
        return sum(
            (
                sum_of_squares(net, weights, inputs, end.stats, one, scale, outputs, GAUSSIAN)
                for one in residuals
            ),
            start=torch.zeros_like(weights),
        )


ENTRY = Ewc
