"""The loops that everything is compared with.

The plain loop is hypnettorch's own API, as its example script uses it: one forward pass of the
hypernetwork and one call of its regularizer (a pass for each earlier task) a step, numpy batches
converted to tensors each step, Adam with torch's defaults. The reference is the method in plain
torch, hypercl/methods/hnet/reference.py.
"""

import numpy as np
import torch
import torch.nn.functional as F
from hypnettorch.utils.hnet_regularizer import calc_fix_target_reg, get_current_targets
from torch import nn

from hypercl.engine.members import select_members
from hypercl.experiment import Experiment
from hypercl.methods.hnet import reference
from hypercl.tasks.task import CROP_PADDING, Task


class PlainTask:
    """A task as the plain loop holds it: images flat in numpy, normalized or scaled beforehand."""

    def __init__(self, task: Task) -> None:
        self.inputs = task.inputs(task.train.images).cpu().numpy()
        self.labels = task.train.labels.cpu().numpy()
        self.shape = task.in_shape
        self.augmented = task.augmented

    def batch(self, random: np.random.RandomState, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Random samples as tensors; augmented ones image by image."""
        chosen = random.randint(0, len(self.labels), size)
        x = torch.from_numpy(self.inputs[chosen])
        if self.augmented:
            x = torch.stack([self._augment(image, random) for image in x])
        return x, torch.from_numpy(self.labels[chosen])

    def _augment(self, image: torch.Tensor, random: np.random.RandomState) -> torch.Tensor:
        p = CROP_PADDING
        image = F.pad(image.view(self.shape), (0, 0, p, p, p, p))
        top, left = random.randint(0, 2 * p + 1, 2)
        image = image[top : top + self.shape[0], left : left + self.shape[1]]
        return (image.flip(1) if random.randint(2) else image).flatten()


class PlainLoop:
    """Trains one task after the other.

    Args:
        mnet: The main network, ``module``: hypnettorch's hypernetwork.
    """

    def __init__(self, mnet, module: nn.Module, *, lr: float = 1e-4, beta: float = 0.01) -> None:
        self.mnet, self.module = mnet, module
        self.lr, self.beta = lr, beta
        self.random = np.random.RandomState(0)
        self.device = next(module.parameters()).device  # where batches are brought

    def start_task(self, task_id: int) -> None:
        """Take the targets and make a new optimizer."""
        self.task_id = task_id
        self.targets = get_current_targets(task_id, self.module) if task_id > 0 else None
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=self.lr)
        self.mnet.train()
        self.module.train()

    def step(self, task: PlainTask, batch_size: int = 32) -> float:
        """One step; returns the loss, as a script that logs it does."""
        inputs, labels = (part.to(self.device) for part in task.batch(self.random, batch_size))
        self.optimizer.zero_grad()
        logits = self.mnet.forward(inputs, weights=self.module.forward(cond_id=self.task_id))
        loss = F.cross_entropy(logits, labels)
        if self.task_id > 0:
            penalty = calc_fix_target_reg(self.module, self.task_id, targets=self.targets)
            loss = loss + self.beta * penalty
        loss.backward()
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def test(self, task: Task, task_id: int) -> float:
        """Accuracy in percent on a task's test set."""
        self.mnet.eval()
        self.module.eval()
        weights = self.module.forward(cond_id=task_id)
        correct = 0
        for images, labels in zip(
            task.test.images.split(256), task.test.labels.split(256), strict=True
        ):
            logits = self.mnet.forward(task.inputs(images), weights=weights)
            correct += (logits.argmax(1) == labels).sum().item()
        return 100 * correct / len(task.test.labels)


class ReferenceLoop:
    """Trains one task by the reference, on the same batch over and over."""

    def __init__(self, experiment: Experiment, task_id: int, *, lr=1e-4, beta=0.01) -> None:
        task = experiment.tasks[task_id]
        self.batch = task.inputs(task.train.images[:32]), task.train.labels[:32]
        self.theta_star = select_members(experiment.method.init([0]), 0)
        self.theta = {n: v.clone().requires_grad_() for n, v in self.theta_star.items()}
        self.networks, self.task_id, self.beta = experiment, task_id, beta
        self.optimizer = torch.optim.Adam(self.theta.values(), lr=lr)

    def step(self) -> None:
        """One step; ``loss`` is what it was before it."""
        h, net = self.networks.method.hnet, self.networks.net
        self.optimizer.zero_grad()
        loss = reference.loss(
            h, net, self.theta, self.theta_star, self.task_id, self.batch, self.beta
        )
        loss.backward()
        self.optimizer.step()
        self.loss = loss.item()  # as a script that logs it does
