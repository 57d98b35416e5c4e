"""The method: a step, a task, an evaluation.

Everything here works on one or more members (seeds) at once: parameters, batches, losses have a
leading dimension of members, and the images are common to all.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from hypnettorch.mnets import MainNetInterface
from torch import Tensor

from hypercl import mlp
from hypercl.capture import StepRunner
from hypercl.hypernet import Hypernet
from hypercl.members import Params, each_member
from hypercl.networks import logits_of
from hypercl.optimizer import OPTIMIZERS, Optimizer, clip_norm, clip_value
from hypercl.precision import tf32
from hypercl.regularizer import Checkpoint, add_into, draw_subsets, drift_and_gradient
from hypercl.schedules import Plateau, epoch_factors
from hypercl.seeding import derive_seed, generator, global_state, set_global_state
from hypercl.tasks import (
    Crops,
    Split,
    Task,
    augment,
    draw_batches,
    draw_flips,
    draw_offsets,
)

LOG_ITER = 50  # steps from one line in metrics.jsonl to the next


@dataclass(frozen=True)
class Training:
    """How a task is learned."""

    num_steps: int
    batch_size: int
    beta: float  # weight of the drift
    reg_batch_size: int  # earlier tasks regularized per step; 0 or less: all
    lr: float
    weight_decay: float
    adam_beta1: float
    val_iter: int  # steps from one validation to the next
    val_batch_size: int
    seeds: Sequence[int]  # of the members; every stream of random numbers is derived from one
    task_weight: float = 1.0  # of the task loss
    optimizer: str = "adam"  # a key of OPTIMIZERS
    momentum: float = 0.0  # of the others
    clip_grad_value: float = -1  # largest number in a gradient; 0 or less: any
    clip_grad_norm: float = -1  # largest norm of a gradient; 0 or less: any
    freeze_prev_embs: bool = False  # earlier tasks' embeddings stay as they were learned
    steps_per_epoch: int = 0  # for the schedulers
    plateau_lr_scheduler: bool = False  # lr falls when the validation accuracy stops rising
    lambda_lr_scheduler: bool = False  # lr falls after fixed numbers of epochs
    lookahead: bool = False  # the drift is that after the step that the task loss alone would take
    amp: bool = False  # the main network in bfloat16
    tf32: bool = False  # the main network's float32 products in TF32


class StepPlan(NamedTuple):
    """What was drawn for the steps of a task, on the device."""

    batches: Tensor  # [steps, members, B] int64, indices of training samples
    crops: Crops | None  # [steps, members, B], where the task is augmented
    earlier: Tensor  # [steps or 1, members, tasks] int64, the earlier tasks to regularize


class Batch(NamedTuple):
    """What a step is taken on."""

    inputs: Tensor  # [members, B, H * W * C] float32
    labels: Tensor  # [members, B] int64
    task_ids: Tensor  # [members, tasks + 1] int64: earlier tasks to regularize, the current one
    outputs: slice  # of the main network, which belong to the current task
    stats: Params  # running statistics, [members, …] each, which the step updates


class StepLosses(NamedTuple):
    """Of one step, [members] each, on the device, detached."""

    task_loss: Tensor  # mean cross-entropy of the training batch
    drift: Tensor
    loss: Tensor  # task_weight * task_loss + beta * drift
    accuracy: Tensor  # of the training batch, in [0, 1]


class MemberProgress(NamedTuple):
    """What is known of a member after a logged step; accuracies are in [0, 1]."""

    task_loss: float
    drift: float
    loss: float
    train_accuracy: float  # of this step's batch
    validation_accuracy: float | None  # None at steps without validation


class TaskState(NamedTuple):
    """Where the training of a task is, with all tensors that its later steps depend on.

    The tensors may be those that the next step changes.
    """

    step: int  # steps done in this task
    flat: Tensor  # [members, numbers], what is trained, as Hypernet.to_train lays it out
    changed: dict[str, Tensor]  # what else the steps change, from Step
    plateau: list[dict]  # of each member, the scheduler's state; empty without it
    history: Tensor  # [steps since the last logged one, fields of StepLosses, members]
    failed: dict[int, str]  # by seed
    generators: dict[str, Tensor]  # torch's global ones, for dropout


class Progress(NamedTuple):
    """A report from the training of a task."""

    step: int  # steps done in this task
    members: dict[int, MemberProgress]  # by seed, of those whose loss is finite; empty: not logged
    failed: dict[int, str]  # by seed, why a member has failed in this task
    trained: Params  # the parameters so far, of the tasks so far; the next step changes them
    stats: Params  # the same of the running statistics
    state: TaskState | None  # where it was asked for


@dataclass(frozen=True)
class Step:
    """Takes the next step of a task when called; what it changes beside the parameters."""

    take: Callable[[], None]
    changed: dict[str, Tensor]  # "step" [1] int64, steps done; the optimizer's and the statistics'
    lr: Tensor | None  # [members], to be set; None where it is constant

    def __call__(self) -> None:
        self.take()


def classify(
    hnet: Hypernet,
    mnet: MainNetInterface,
    outputs: slice,
    weights: Tensor,
    inputs: Tensor,
    labels: Tensor,
    stats: Params,
) -> tuple[Tensor, Tensor]:
    """Loss and accuracy of the main network on a batch; of one member."""
    logits = logits_of(mnet, hnet.split(weights), inputs, stats)[:, outputs]
    return F.cross_entropy(logits, labels), (logits.argmax(dim=1) == labels).float().mean()


def loss_and_gradient(
    hnet: Hypernet,
    mnet: MainNetInterface,
    params: Params,
    batch: Batch,
    checkpoint: Checkpoint | None,
    beta: float | Tensor,
    how: Training,
    after_task_step: Callable[[Params], Params] | None = None,
) -> tuple[Params, StepLosses]:
    """Gradient and loss of a step, task_weight * task_loss + beta * drift.

    Nothing in it waits for the device.

    Args:
        after_task_step: From the gradient of the task loss, the parameters at which the drift and
            its gradient are taken; None: where they are.
    """
    if after_task_step is not None and checkpoint is not None:
        gradients, losses = loss_and_gradient(hnet, mnet, params, batch, None, beta, how)
        drift, of_drift = drift_and_gradient(
            checkpoint, after_task_step(gradients), batch.task_ids[:, :-1], beta
        )
        add_into(gradients, of_drift)
        return gradients, losses._replace(drift=drift, loss=losses.loss + beta * drift)

    # One pass of the hypernetwork serves the current task and the earlier ones, or the first block
    # of them; drift_and_gradient, as the lookahead needs it, takes a pass of its own.
    earlier = batch.task_ids[:, :-1]
    num_first = checkpoint.block_size(earlier.shape[1]) if checkpoint is not None else 0
    first = torch.cat([earlier[:, :num_first], batch.task_ids[:, -1:]], dim=1)
    passed = hnet.forward(params, first, training=True)
    # The dense form needs the weights of all of them, the factored form those of the current one.
    dense = checkpoint is not None and not checkpoint.factored
    features = passed.features if dense else passed.features[:, -1:]
    weights = hnet.generate(params, features)

    task_loss, accuracy, pull = task_loss_and_gradient(hnet, mnet, weights[:, -1], batch, how)
    pull = pull[:, None]
    if how.task_weight != 1:
        pull *= how.task_weight
    if checkpoint is None:
        drift = torch.zeros_like(task_loss)
        to_features, gradients = hnet.generate_backward(params, features, pull)
    elif dense:
        drift, pulled, _ = checkpoint.drift_and_gradient(params, earlier, weights[:, :-1], beta)
        pull = torch.cat([pulled, pull], dim=1)
        to_features, gradients = hnet.generate_backward(params, features, pull)
    else:
        drift, pulled, extra = checkpoint.drift_and_gradient(
            params, earlier, passed.features[:, :-1], beta
        )
        to_current, gradients = hnet.generate_backward(params, features, pull)
        to_features = torch.cat([pulled, to_current], dim=1)
        add_into(gradients, extra)
    add_into(gradients, hnet.backward(params, passed, to_features))
    loss = how.task_weight * task_loss + beta * drift
    return gradients, StepLosses(task_loss, drift, loss, accuracy)


def task_loss_and_gradient(
    hnet: Hypernet, mnet: MainNetInterface, weights: Tensor, batch: Batch, how: Training
) -> tuple[Tensor, Tensor, Tensor]:
    """The task loss [members], the batch's accuracy [members], the gradient for the weights.

    That gradient is taken here, before it goes on through the hypernetwork, so that reduced
    precision, where it is asked for, ends at the main network.

    Args:
        weights: Of the current task, [members, num_weights].
    """
    activation = mlp.plain_activation(mnet)
    if activation is not None and not how.amp:
        of_all_outputs = batch.outputs == slice(None)
        gradient = torch.empty_like(weights) if of_all_outputs else torch.zeros_like(weights)
        tensors, gradients = hnet.split(weights), hnet.split(gradient)
        with tf32(how.tf32):
            task_loss, accuracy = mlp.loss_and_gradient(
                activation, tensors, gradients, batch.inputs, batch.labels, batch.outputs
            )
        return task_loss, accuracy, gradient

    given = weights.detach().requires_grad_()
    device = weights.device.type
    with tf32(how.tf32):
        with torch.autocast(device, torch.bfloat16) if how.amp else nullcontext():
            task_loss, accuracy = each_member(partial(classify, hnet, mnet, batch.outputs))(
                given, batch.inputs, batch.labels, batch.stats
            )
        (gradient,) = torch.autograd.grad(task_loss.sum(), given)
    return task_loss.detach(), accuracy, gradient


def train_task(
    hnet: Hypernet,
    mnet: MainNetInterface,
    params: Params,
    task: Task,
    task_id: int,
    checkpoint: Checkpoint | None,
    how: Training,
    *,
    stats: Params | None = None,
    start: TaskState | None = None,
    wants_state: Callable[[int], bool] = lambda step: False,
) -> Iterator[Progress]:
    """Learn one task: an iterator that trains and reports now and then.

    Reports come at step 1, every LOG_ITER steps, at each validation, at the last step, and where
    the state is asked for. A member whose loss is not finite is reported as failed from then on,
    and the task ends when no other is left.

    Args:
        params: [members, …] each; stay as they are.
        stats: Running statistics to start from, [members, …] each; stay as they are.
        start: Go on from there, exactly as if there had been no break.
        wants_state: Asked after each step, by its number, whether to report the state too.
    """
    device = task.train.labels.device
    history = new_history(how, device)
    torch.manual_seed(derive_seed(how.seeds[0], "dropout", task_id))
    mnet.train()
    flat, trained = hnet.to_train(params, task_id + 1)
    stats = {name: value.clone() for name, value in (stats or {}).items()}
    next_step = make_step(
        hnet, mnet, flat, trained, task, task_id, checkpoint, how, history, stats
    )  # fmt: skip
    take_step = StepRunner(next_step, device)
    plateau = Plateau(how.lr, len(how.seeds)) if how.plateau_lr_scheduler else None
    done, logged, failed = 0, 0, {}
    if start is not None:
        done, logged, failed = start.step, start.step - len(start.history), dict(start.failed)
        history[logged:done] = start.history
        _restore(start, flat, next_step, plateau)
        if done == how.num_steps or len(failed) == len(how.seeds):
            yield Progress(done, {}, failed, trained, stats, start)
            return
    for step in range(done + 1, how.num_steps + 1):
        take_step()
        at_end = step == how.num_steps
        at_epoch_end = plateau is not None and step % how.steps_per_epoch == 0
        validate = at_end or step % how.val_iter == 0 or at_epoch_end
        validate &= len(task.validation.labels) > 0
        log = validate or at_end or step == 1 or step % LOG_ITER == 0
        members = {}
        if log:
            rows = history[logged:step].tolist()  # the device is waited for here
            logged = step
            failed |= {
                seed: message
                for seed, message in find_failures(
                    rows, how.seeds, task_id, step - len(rows) + 1
                ).items()
                if seed not in failed
            }
            if at_end:  # the last update has no loss after it that would tell
                for seed, finite in zip(how.seeds, flat.isfinite().all(1).tolist(), strict=True):
                    if not finite:
                        failed.setdefault(
                            seed,
                            f"the parameters are not finite after task {task_id + 1} at step "
                            f"{step}: lower --lr or --beta",
                        )
            accuracy = [None] * len(how.seeds)
            if validate:
                split = task.validation
                accuracy = evaluate(
                    hnet, mnet, trained, task, task_id, split, how.val_batch_size, stats
                )
            if at_epoch_end:
                plateau.step(accuracy)
                next_step.lr.copy_(torch.tensor(plateau.rates))
            members = {
                seed: MemberProgress(*losses, validation_accuracy=value)
                for seed, losses, value in zip(
                    how.seeds, zip(*rows[-1], strict=True), accuracy, strict=True
                )
                if seed not in failed
            }
        state = None
        if wants_state(step):  # and here
            state = TaskState(
                step,
                flat.detach(),
                dict(next_step.changed),
                plateau.state() if plateau is not None else [],
                history[logged:step].clone(),
                dict(failed),
                global_state(device),
            )
        if log or state is not None:
            yield Progress(step, members, failed, trained, stats, state)
        if len(failed) == len(how.seeds):
            return


def new_history(how: Training, device: torch.device) -> Tensor:
    """Room for the losses of a task's steps, [steps, fields of StepLosses, members]."""
    return torch.zeros(how.num_steps, len(StepLosses._fields), len(how.seeds), device=device)


def _restore(start: TaskState, flat: Tensor, step: Step, plateau: Plateau | None) -> None:
    """Put what the next step depends on back to where it was."""
    with torch.no_grad():
        flat.copy_(start.flat)
    for name, value in step.changed.items():
        value.copy_(start.changed[name])
    if plateau is not None:
        plateau.load_state(start.plateau)
        step.lr.copy_(torch.tensor(plateau.rates))
    set_global_state(start.generators, flat.device)


def make_step(
    hnet: Hypernet,
    mnet: MainNetInterface,
    flat: Tensor,
    trained: Params,
    task: Task,
    task_id: int,
    checkpoint: Checkpoint | None,
    how: Training,
    history: Tensor,
    stats: Params | None = None,
) -> Step:
    """What takes the next step of a task and enters its losses into ``history``.

    Called, it takes no argument and returns nothing, and the number of the step is on the device:
    what is captured once can be replayed for every step.

    Args:
        flat: [members, numbers], what the optimizer updates; ``trained``: the parameters in it.
        history: [steps, fields of StepLosses, members].
        stats: Running statistics, which the steps update; None: there are none.
    """
    device = task.train.labels.device
    members, stats = len(how.seeds), stats or {}
    plan = draw_steps(task, task_id, checkpoint, how)
    current = torch.full((1, members, 1), task_id, device=device)
    task_ids = torch.cat([plan.earlier, current.expand(len(plan.earlier), -1, -1)], dim=-1)
    gradient = torch.zeros_like(flat)
    counter = torch.zeros(1, dtype=torch.int64, device=device)
    base_lr = lr = factors = None
    if how.plateau_lr_scheduler or how.lambda_lr_scheduler:
        base_lr = torch.full((members,), how.lr, device=device)  # the plateau scheduler's
        lr = base_lr.clone()
        if how.lambda_lr_scheduler:
            factors = epoch_factors(how.num_steps, how.steps_per_epoch).to(device)
    optimizer = build_optimizer(flat, gradient, how, lr)
    frozen = [name for name in trained if how.freeze_prev_embs and name in hnet.per_task]
    learned = {name: trained[name][:, :task_id].clone() for name in frozen}

    def take(gradients: Params) -> None:
        torch.cat([gradients[name].flatten(1) for name in trained], 1, out=gradient)
        if how.clip_grad_value > 0:
            clip_value(gradient, how.clip_grad_value)
        if how.clip_grad_norm > 0:
            clip_norm(gradient, how.clip_grad_norm)

    def after_task_step(gradients: Params) -> Params:
        """θ + Δθ, with the embeddings of the tasks as they are."""
        take(gradients)
        moved = hnet.views(flat + optimizer.lookahead(), trained)
        return {name: trained[name] if name in hnet.per_task else moved[name] for name in trained}

    def of_this_step(plans: Tensor) -> Tensor:
        return (plans if len(plans) == 1 else plans.index_select(0, counter)).squeeze(0)

    def step() -> None:
        if lr is not None:  # before the lookahead, which takes it too
            lr.copy_(base_lr if factors is None else base_lr * factors.index_select(0, counter))
        chosen = of_this_step(plan.batches)  # [members, B]
        images = task.train.images.index_select(0, chosen.flatten())
        labels = task.train.labels.index_select(0, chosen.flatten()).view(chosen.shape)
        if plan.crops is not None:
            images = augment(images, *(of_this_step(crop).flatten(0, 1) for crop in plan.crops))
        inputs = task.inputs(images).view(*chosen.shape, -1)
        batch = Batch(inputs, labels, of_this_step(task_ids), task.outputs, stats)
        # At the first step the parameters are those of the checkpoint, and the drift is a minimum:
        # its gradient is zero but for rounding, which Adam, looking at signs, would blow up.
        at_minimum = hnet.dropout_rate <= 0 and not how.lookahead
        beta = how.beta * (counter > 0).squeeze(0) if at_minimum else how.beta
        gradients, losses = loss_and_gradient(
            hnet, mnet, trained, batch, checkpoint, beta, how,
            after_task_step if how.lookahead else None,
        )  # fmt: skip
        for name in frozen:
            gradients[name][:, :task_id] = 0
        take(gradients)
        optimizer.step()
        for name in frozen:  # weight decay moves what has no gradient, too
            trained[name][:, :task_id] = learned[name]
        history.index_copy_(0, counter, torch.stack(losses).view(1, -1, members))
        counter.add_(1)

    changed = {"step": counter}
    changed |= {f"optimizer.{name}": value for name, value in optimizer.state.items()}
    changed |= {f"stats.{name}": value for name, value in stats.items()}
    return Step(step, changed, base_lr)


def build_optimizer(flat: Tensor, gradient: Tensor, how: Training, lr: Tensor | None) -> Optimizer:
    """The optimizer that ``how`` describes, of parameters in ``flat`` [members, numbers].

    Args:
        lr: [members], where the learning rate changes.
    """
    options = {"lr": how.lr if lr is None else lr, "weight_decay": how.weight_decay}
    if how.optimizer == "adam":
        options["betas"] = (how.adam_beta1, 0.999)
    else:
        options["momentum"] = how.momentum
    return OPTIMIZERS[how.optimizer](flat, gradient, **options)


def draw_steps(task: Task, task_id: int, checkpoint: Checkpoint | None, how: Training) -> StepPlan:
    """Draw all that is random in a task's steps but dropout.

    Each kind of randomness has a stream of its own for each seed, so that a member draws what it
    would draw alone.
    """
    device = task.train.labels.device
    num_samples = len(task.train.labels)
    num_earlier = 0 if checkpoint is None else checkpoint.num_tasks
    steps, batch = how.num_steps, how.batch_size

    def stack(draw: Callable[[torch.Generator], Tensor], purpose: str) -> Tensor:
        drawn = [draw(generator(seed, purpose, task_id)) for seed in how.seeds]
        return torch.stack(drawn, dim=1).to(device)

    crops = None
    if task.augmented:
        crops = Crops(
            stack(lambda g: draw_offsets(steps, batch, g), "crops"),
            stack(lambda g: draw_flips(steps, batch, g), "flips"),
        )
    return StepPlan(
        stack(lambda g: draw_batches(num_samples, steps, batch, g), "data order"),
        crops,
        stack(
            lambda g: draw_subsets(num_earlier, steps, how.reg_batch_size, g),
            "regularizer subset",
        ),
    )


def find_failures(
    rows: list[list[list[float]]], seeds: Sequence[int], task_id: int, first_step: int
) -> dict[int, str]:
    """Which members' losses are not finite, and since when.

    Args:
        rows: [steps, fields of StepLosses, members].
    """
    failures: dict[int, str] = {}
    for step, (task_losses, drifts, losses, _) in enumerate(rows, start=first_step):
        for seed, task_loss, drift, loss in zip(seeds, task_losses, drifts, losses, strict=True):
            if not (math.isfinite(task_loss) and math.isfinite(drift) and math.isfinite(loss)):
                failures.setdefault(
                    seed,
                    f"the loss is not finite in task {task_id + 1} at step {step} "
                    f"(task loss {task_loss:g}, drift {drift:g}): lower --lr or --beta",
                )
    return failures


@torch.no_grad()
def evaluate(
    hnet: Hypernet,
    mnet: MainNetInterface,
    params: Params,
    task: Task,
    task_id: int,
    split: Split,
    batch_size: int,
    stats: Params | None = None,
) -> list[float]:
    """Share of a split's samples that the main networks generated for a task get right.

    Leaves no trace: no gradients, the network's mode restored.

    Args:
        params: [members, …] each.
        batch_size: Samples at a time, at most; the batches are of nearly equal size.
        stats: The task's running statistics, [members, …] each.

    Returns:
        Accuracy of each member, in [0, 1].
    """

    def count_correct(weights: Tensor, inputs: Tensor, labels: Tensor, stats: Params) -> Tensor:
        logits = logits_of(mnet, hnet.split(weights), inputs, stats)[:, task.outputs]
        return (logits.argmax(dim=1) == labels).sum()

    members = len(params["weight0"])
    ids = torch.full((members, 1), task_id, device=split.labels.device)
    weights = hnet.weights(params, ids).squeeze(1)
    correct = torch.zeros(members, dtype=torch.int64, device=split.labels.device)
    was_training = mnet.training
    mnet.eval()
    try:
        for images, labels in split.batches(batch_size):
            correct += each_member(count_correct, shared=(1, 2))(
                weights, task.inputs(images), labels, stats or {}
            )
    finally:
        mnet.train(was_training)
    return [count / len(split.labels) for count in correct.tolist()]


def evaluate_tasks(
    hnet: Hypernet,
    mnet: MainNetInterface,
    params: Params,
    tasks: Sequence[Task],
    splits: Sequence[Split],
    batch_size: int,
    stats: Sequence[Params],
    *,
    between: Callable[[], None] = lambda: None,
) -> list[list[float]]:
    """:func:`evaluate` on the tasks 0, 1, …, each with its split and its running statistics.

    Args:
        between: Called before each task; may raise to break off.

    Returns:
        For each member the accuracies on the tasks, in [0, 1].
    """
    columns = []  # [tasks][members]
    for task_id, (task, split, of_task) in enumerate(zip(tasks, splits, stats, strict=True)):
        between()
        columns.append(evaluate(hnet, mnet, params, task, task_id, split, batch_size, of_task))
    return [list(row) for row in zip(*columns, strict=True)]
