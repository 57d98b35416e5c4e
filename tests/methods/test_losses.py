"""Each method's loss and its gradient against a loop over members and samples, with autograd."""

import pytest
import torch
import torch.nn.functional as F
from helpers import as_regression, make_experiment, make_sequence, random_weights, task_end

import train
from hypercl.methods.base import Batch
from hypercl.tasks.task import augment, outputs_after

pytestmark = pytest.mark.usefixtures("double_inputs")

SEEDS, TASK_ID = [3, 8], 2
# By name: scenario, numbers of classes, options.
CASES = {
    "heads": (1, (2, 2, 2), {}),
    "shared": (2, (2, 2, 2), {}),
    "growing": (3, (2, 2, 2), {}),
    "heads, unequal": (1, (2, 3, 4), {"no_bias": True}),
    "shared, unequal": (2, (3, 2, 4), {}),
    "shared, unequal, weighted": (2, (4, 2, 2), {"task_loss": "total"}),
    "growing, unequal, weighted": (3, (3, 1, 4), {"task_loss": "total", "net_act": "tanh"}),
    "growing, lenet": (3, (2, 3, 2), {"net_type": "lenet"}),
    "heads, batch normalization": (1, (2, 3, 2), {"batchnorm": True}),
    "growing, augmented": (3, (2, 2, 3), {"augmented": True}),
    "regression, heads": (1, (2, 3, 1), {"net_act": "sigmoid"}),
    "regression, shared": (2, (2, 2, 2), {"task_loss": "total"}),
    "regression, shared, unequal": (2, (2, 3, 1), {"batchnorm": True}),
}
METHODS = {
    "finetune": {},
    "joint": {},
    "lwf": {"lwf_temperature": 1.5},
    "lwf, lambda": {"lwf_lambda": 0.7},
    "lwf, mean over classes": {"lwf_mean_over_classes": True},
    "replay": {"replay_weight": 0.8, "replay_budget": 20, "replay_batch_size": 5},
    "der": {"der_alpha": 0.3, "replay_per_class": 2},
    "derpp": {"der_alpha": 0.3, "der_beta": 0.6, "replay_sampling": "reservoir"},
}


class Twin:
    """A member's loss, by loops, in the notation of the methods' docstrings.

    Args:
        before: Its weights after each of the earlier tasks.
    """

    def __init__(self, experiment, training, memory, stats, before, member):
        self.tasks, self.net, self.member = experiment.tasks, experiment.net, member
        self.options = experiment.options.method.kind
        self.task, self.before = self.tasks[TASK_ID], [weights[member] for weights in before]
        self.weight = experiment.task_loss(self.task).weight
        self.memory = {name: value[member] for name, value in memory.items()}
        self.stats = {name: value[member] for name, value in stats.items()}
        self.chosen = training.plan.batches[0, member]
        self.drawn = training.plan.drawn[0, member]
        images, self.labels = (
            self.task.train.images[self.chosen],
            self.task.train.labels[self.chosen],
        )
        if training.plan.crops is not None:
            images = augment(images, *(crop[0, member] for crop in training.plan.crops))
        self.inputs = self.task.inputs(images)

    def forward(self, weights, inputs):
        stats = {name: value.clone() for name, value in self.stats.items()}
        return self.net.logits(weights, inputs, stats)

    def drawn_input(self, task_id, image, drawn):
        if len(drawn) > 1:
            image = augment(image[None], drawn[None, 1:3], drawn[None, 3].bool())[0]
        return self.tasks[task_id].inputs(image[None])

    def loss_of(self, logits, task_id, label):
        """Of one sample, whose label is counted from the network's first output: its entropy, or of
        regression the squared errors.
        """
        outputs = outputs_after(self.tasks, task_id, TASK_ID + 1)
        if label.is_floating_point():
            return (logits[outputs] - label[outputs]).square()
        return F.cross_entropy(logits[outputs], label - (outputs.start or 0))

    def of_network(self, task_id, label):
        """A task's label, counted from the network's first output."""
        outputs = self.tasks[task_id].outputs
        if not label.is_floating_point():
            return label + (outputs.start or 0)
        numbers = torch.full((self.net.num_outputs,), torch.nan)
        numbers[outputs] = label
        return numbers

    def task_loss(self, logits):
        return mean(
            self.loss_of(row, TASK_ID, self.of_network(TASK_ID, label))
            for row, label in zip(logits, self.labels, strict=True)
        )

    def finetune(self, weights):
        return self.weight * self.task_loss(self.forward(weights, self.inputs))

    def joint(self, weights):
        samples = [
            (task_id, image, self.of_network(task_id, label))
            for task_id, task in enumerate(self.tasks[: TASK_ID + 1])
            for image, label in zip(*task.train, strict=True)
        ]
        batch = [samples[row[0]] for row in self.drawn]
        inputs = [
            self.drawn_input(task_id, image, row)
            for (task_id, image, _), row in zip(batch, self.drawn, strict=True)
        ]
        return self.weight * mean(
            self.loss_of(row, task_id, label)
            for row, (task_id, _, label) in zip(
                self.forward(weights, torch.cat(inputs)), batch, strict=True
            )
        )

    def lwf(self, weights):
        logits, targets = (self.forward(w, self.inputs) for w in (weights, self.before[-1]))
        if self.task.has_own_outputs:
            heads = [(task.outputs, task.outputs) for task in self.tasks[:TASK_ID]]
        elif self.task.outputs_grow:
            heads = [(self.task.outputs, self.tasks[TASK_ID - 1].outputs)]
        else:
            heads = [(slice(None), slice(None))]
        T, distilled = self.options.lwf_temperature, 0
        for of_new, of_old in heads:
            for new, old in zip(logits[:, of_new], targets[:, of_old], strict=True):
                log_p, q = (new / T).log_softmax(0), (old / T).softmax(0)
                loss = -(T**2) * sum(q[c] * log_p[c] for c in range(len(q)))
                if self.options.lwf_mean_over_classes:
                    loss = loss / len(new)
                distilled = distilled + loss / len(logits) / len(heads)
        of_task, of_old = 1 / (TASK_ID + 1), 1 - 1 / (TASK_ID + 1)
        if self.options.lwf_lambda is not None:
            of_task, of_old = 1, self.options.lwf_lambda
        return self.weight * (of_task * self.task_loss(logits) + of_old * distilled)

    def with_buffer(self, weights):
        """The task loss; the buffer's samples: logits, image, label, task."""
        rows = [
            [self.memory[name][row[0]] for name in ("images", "labels", "task_ids")]
            for row in self.drawn
        ]
        inputs = [
            self.drawn_input(task_id, image, row)
            for (image, _, task_id), row in zip(rows, self.drawn, strict=True)
        ]
        logits = self.forward(weights, torch.cat([self.inputs, *inputs]))
        own, of_buffer = logits.split([len(self.inputs), len(inputs)])
        samples = [(z, *row) for z, row in zip(of_buffer, rows, strict=True)]
        return self.task_loss(own), samples

    def mean_loss(self, samples):
        return mean(self.loss_of(z, k, label) for z, _, label, k in samples)

    def mean_square(self, samples):
        differences = []
        self.net.module.eval()
        for z, image, _, k in samples:
            stored = self.forward(self.before[k], self.tasks[k].inputs(image[None]))[0]
            counts = self.task if self.task.outputs_grow else self.tasks[k]
            differences.append((z - stored)[counts.outputs])
        self.net.module.train()
        return torch.cat(differences).square().mean()

    def replay(self, weights):
        loss, samples = self.with_buffer(weights)
        return self.weight * (loss + self.options.replay_weight * self.mean_loss(samples))

    def der(self, weights):
        loss, samples = self.with_buffer(weights)
        return self.weight * (loss + self.options.der_alpha * self.mean_square(samples))

    def derpp(self, weights):
        loss, samples = self.with_buffer(weights)
        half = len(samples) // 2
        loss = loss + self.options.der_alpha * self.mean_square(samples[:half])
        return self.weight * (loss + self.options.der_beta * self.mean_loss(samples[half:]))


def mean(losses):
    """Over samples, and outputs where there is one loss for each."""
    return torch.cat([loss.reshape(-1) for loss in losses]).mean()


VARIANTS = [
    (case, variant)
    for case in CASES
    for variant in METHODS
    if not (case.startswith("regression") and variant.startswith("lwf"))
]


@pytest.mark.parametrize(("case", "variant"), VARIANTS)
def test_loss_and_gradient_are_those_of_a_loop_over_samples(case, variant):
    name = variant.split(",")[0]
    scenario, sizes, more = CASES[case]
    values = {"cl_scenario": scenario, "batch_size": 7, "n_iter": 1, **more}
    augmented = values.pop("augmented", False)
    shape = (28, 28, 1) if "net_type" in values else (6, 6, 1)
    tasks = make_sequence(scenario, sizes, shape, augmented=augmented)
    options = dict(METHODS[variant])
    if is_regression := case.startswith("regression"):
        tasks = as_regression(tasks)
        if name in ("replay", "der", "derpp"):
            options |= {"replay_sampling": "reservoir", "replay_per_class": -1}
    experiment = make_experiment(tasks, method=name, **values, **options)
    method, net = experiment.method, experiment.net

    memory, before = {}, [random_weights(net, 2, seed) for seed in range(TASK_ID)]
    for task_id, weights in enumerate(before):
        with net.evaluating():
            end = task_end(experiment, task_id, SEEDS)
            memory = method.after_task({"weights": weights}, memory, end)
    stats = task_end(experiment, TASK_ID, SEEDS).stats
    params = {"weights": before[-1]}
    training = train.TaskTraining(experiment, TASK_ID, SEEDS, params, stats, memory)
    training._flat.add_(random_weights(net, 2, seed=9))
    batch = training._batch()
    assert isinstance(batch, Batch)
    gradients, losses = method.loss_and_gradient(
        training.trained, batch, training.anchor, training.task_loss, None
    )
    for member in range(2):
        twin = Twin(experiment, training, memory, stats, before, member)
        weights = training.trained["weights"][member].clone().requires_grad_()
        loss = getattr(twin, name)(weights)
        (gradient,) = torch.autograd.grad(loss, weights)
        torch.testing.assert_close(losses.loss[member], loss.detach())
        torch.testing.assert_close(gradients["weights"][member], gradient)
        logits = twin.forward(weights, twin.inputs)[:, twin.task.outputs]
        if name in ("finetune", "lwf"):  # of the network that learns, once
            once = {kind: value.clone() for kind, value in twin.stats.items()}
            net.logits(weights, twin.inputs, once)
            for kind, value in once.items():
                torch.testing.assert_close(training.stats[kind][member], value)
        if name != "joint" and not stats:  # with both, another batch
            if is_regression:
                error = F.mse_loss(logits, twin.labels.double())
                torch.testing.assert_close(losses.accuracy[member], error)
                continue
            right = (logits.argmax(1) == twin.labels).double().mean()
            assert losses.accuracy[member] == right
