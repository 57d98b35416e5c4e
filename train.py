"""The method: a step, a task, an evaluation."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from hypnettorch.mnets import MainNetInterface
from torch import Tensor

from hypercl.errors import RunFailed
from hypercl.hypernet import Hypernet, Params
from hypercl.regularizer import Checkpoint, draw_subsets, drift
from hypercl.seeding import derive_seed, generator
from hypercl.tasks import Crops, Split, Task, augment, draw_batches, draw_crops

LOG_ITER = 50  # steps from one line in metrics.jsonl to the next


@dataclass(frozen=True)
class Training:
    """How a task is learned."""

    num_steps: int
    batch_size: int
    beta: float
    reg_batch_size: int  # earlier tasks regularized per step; 0 or less: all
    lr: float
    weight_decay: float
    adam_beta1: float
    val_iter: int  # steps from one validation to the next
    val_batch_size: int
    seed: int  # of the run; every stream of random numbers is derived from it


class StepPlan(NamedTuple):
    """What was drawn for the steps of a task, on the device."""

    batches: Tensor  # [steps, B] int64, indices of training samples
    crops: Crops | None  # [steps, B], where the task is augmented
    earlier: Tensor  # [steps, tasks] int64, the earlier tasks to regularize; tasks may be 0


class StepLosses(NamedTuple):
    """Of one step, on the device, detached."""

    task_loss: Tensor
    drift: Tensor
    loss: Tensor  # task_loss + beta * drift
    accuracy: Tensor  # of the training batch, in [0, 1]


class Progress(NamedTuple):
    """What is known after a logged step; accuracies are in [0, 1]."""

    step: int  # steps done in this task
    task_loss: float
    drift: float
    loss: float
    train_accuracy: float  # of this step's batch
    validation_accuracy: float | None  # None at steps without validation


def train_step(
    hnet: Hypernet,
    mnet: MainNetInterface,
    params: Params,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    labels: Tensor,
    task_id: Tensor,
    *,
    checkpoint: Checkpoint | None,
    earlier: Tensor,
    beta: float,
) -> StepLosses:
    """One step of gradient descent on task_loss + beta * drift; nothing in it waits for the device.

    Args:
        params: Leaves that the optimizer updates.
        inputs: [B, H * W * C] float32; ``labels``: [B] int64.
        task_id: [1] int64, the task being learned.
        earlier: [tasks] int64, the earlier tasks to regularize; empty without a checkpoint.
    """
    # One pass of the hypernetwork serves the earlier tasks and the current one.
    weights = hnet.weights(params, torch.cat([earlier, task_id]), training=True)
    logits = mnet.forward(inputs, weights=hnet.split(weights[-1]))
    task_loss = loss = F.cross_entropy(logits, labels)
    moved = torch.zeros_like(loss)
    if checkpoint is not None:
        moved = drift(weights[:-1], checkpoint.targets(earlier))
        loss = task_loss + beta * moved

    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    accuracy = (logits.argmax(dim=1) == labels).float().mean()
    return StepLosses(task_loss.detach(), moved.detach(), loss.detach(), accuracy)


def train_task(
    hnet: Hypernet,
    mnet: MainNetInterface,
    leaves: Params,
    task: Task,
    task_id: int,
    checkpoint: Checkpoint | None,
    how: Training,
) -> Iterator[Progress]:
    """Learn one task: an iterator that trains ``leaves`` and reports now and then.

    Reports come at step 1, every LOG_ITER steps, at each validation and at the last step.

    Raises:
        RunFailed: A loss was not finite; the message names task and step.
    """
    device = task.train.labels.device
    plan = draw_steps(task, task_id, checkpoint, how)
    torch.manual_seed(derive_seed(how.seed, "dropout", task_id))
    optimizer = torch.optim.Adam(
        leaves.values(), lr=how.lr, betas=(how.adam_beta1, 0.999), weight_decay=how.weight_decay
    )
    current = torch.tensor([task_id], device=device)
    history = torch.zeros(how.num_steps, len(StepLosses._fields), device=device)
    logged = 0
    mnet.train()
    for step in range(1, how.num_steps + 1):
        batch, earlier = plan.batches[step - 1], plan.earlier[step - 1]
        images, labels = task.train.images[batch], task.train.labels[batch]
        if plan.crops is not None:
            images = augment(images, *(crop[step - 1] for crop in plan.crops))
        losses = train_step(
            hnet, mnet, leaves, optimizer, task.inputs(images), labels, current,
            checkpoint=checkpoint, earlier=earlier, beta=how.beta,
        )  # fmt: skip
        history[step - 1] = torch.stack(losses)

        at_end = step == how.num_steps
        validate = (at_end or step % how.val_iter == 0) and len(task.validation.labels) > 0
        if validate or at_end or step == 1 or step % LOG_ITER == 0:
            rows = history[logged:step].tolist()  # here, and nowhere else, the device is waited for
            _require_finite(rows, task_id, logged + 1)
            logged = step
            accuracy = None
            if validate:
                accuracy = evaluate(
                    hnet, mnet, leaves, task, task_id, task.validation, how.val_batch_size
                )
            yield Progress(step, *rows[-1], validation_accuracy=accuracy)


def draw_steps(task: Task, task_id: int, checkpoint: Checkpoint | None, how: Training) -> StepPlan:
    """Draw all that is random in a task's steps but dropout, each from a stream of its own."""
    device = task.train.labels.device

    def stream(purpose: str) -> torch.Generator:
        return generator(how.seed, purpose, task_id)

    batches = draw_batches(
        len(task.train.labels), how.num_steps, how.batch_size, stream("data order")
    )
    crops = None
    if task.augmented:
        crops = draw_crops(how.num_steps, how.batch_size, stream("augmentation"))
        crops = Crops(*(crop.to(device) for crop in crops))
    earlier = draw_subsets(
        0 if checkpoint is None else checkpoint.num_tasks,
        how.num_steps,
        how.reg_batch_size,
        stream("regularizer subset"),
    )
    return StepPlan(batches.to(device), crops, earlier.to(device))


def _require_finite(rows: list[list[float]], task_id: int, first_step: int) -> None:
    for step, (task_loss, moved, *_) in enumerate(rows, start=first_step):
        if not (math.isfinite(task_loss) and math.isfinite(moved)):
            raise RunFailed(
                f"the loss is not finite in task {task_id + 1} at step {step} "
                f"(task loss {task_loss:g}, drift {moved:g}): lower --lr"
            )


@torch.no_grad()
def evaluate(
    hnet: Hypernet,
    mnet: MainNetInterface,
    params: Params,
    task: Task,
    task_id: int,
    split: Split,
    batch_size: int,
) -> float:
    """Share of a split's samples that the main network generated for a task gets right.

    Leaves no trace: no gradients, the network's mode restored.

    Args:
        batch_size: Samples at a time, at most; the batches are of nearly equal size.

    Returns:
        Accuracy in [0, 1].
    """
    num_samples = len(split.labels)
    ids = torch.tensor([task_id], device=split.labels.device)
    weights = hnet.split(hnet.weights(params, ids, training=False)[0])
    correct = torch.zeros((), dtype=torch.int64, device=split.labels.device)
    was_training = mnet.training
    mnet.eval()
    try:
        num_batches = math.ceil(num_samples / batch_size)
        for images, labels in zip(
            split.images.tensor_split(num_batches),
            split.labels.tensor_split(num_batches),
            strict=True,
        ):
            logits = mnet.forward(task.inputs(images), weights=weights)
            correct += (logits.argmax(dim=1) == labels).sum()
    finally:
        mnet.train(was_training)
    return correct.item() / num_samples
