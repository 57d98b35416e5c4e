"""HNET+R and HNET+TIR against the same losses by autograd, one seed, one network at a time."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from helpers import in_double, make_experiment, make_sequence

from hypercl.engine.members import part_of
from hypercl.errors import InputError
from hypercl.methods.base import Batch
from hypercl.methods.hnet.reference import generate, penalty

SEEDS = [3, 8]
SMALL = {
    "batch_size": 6,
    "vae_encoder_arch": [9],
    "vae_decoder_arch": [7, 8],
    "vae_latent_size": 4,
    "vae_condition_size": 5,
    "vae_hmlp_arch": [6],
    "vae_emb_size": 3,
    "vae_chunk_emb_size": 4,
    "vae_chunk_size": 100,
    "vae_beta": 0.3,
    "replay_share": 0.4,
}
OWN = {
    "hnet_r": {},
    "hnet_tir": {
        "tir_arch": [11],
        "beta": 0.2,
        "hmlp_arch": [6],
        "chmlp_chunk_size": 100,
        "freeze_prev_embs": True,
        "lookahead": True,
    },
}
CASES = [("hnet_r", 1), ("hnet_r", 2), ("hnet_r", 3), ("hnet_tir", 1), ("hnet_tir", None)]
LR = 0.01


def experiment_of(method, scenario, sizes=(2, 3, 2), **more):
    tasks = make_sequence(scenario or 2, sizes)
    values = {"method": method, **SMALL, **OWN[method], **more}
    if scenario is not None:
        values["cl_scenario"] = scenario
    return make_experiment(tasks, **values)


def in_task(experiment, task_id):
    """Parameters after some learning and before it, in float64; a batch; what is drawn for it."""
    method, task = experiment.method, experiment.tasks[task_id]
    before = in_double(method.init(SEEDS))
    noise = torch.Generator().manual_seed(5)
    shifted = {
        name: value + 0.1 * torch.randn(value.shape, generator=noise, dtype=torch.float64)
        for name, value in before.items()
    }
    anchor = method.remember(before, {}, task_id)
    drawn = torch.stack(
        [method.draw(anchor, task_id, 2, torch.Generator().manual_seed(seed))[1] for seed in SEEDS]
    ).double()
    chosen = torch.tensor([[0, 3, 1, 8, 5, 2], [7, 4, 9, 6, 0, 1]])
    inputs = torch.stack([task.inputs(task.train.images[rows]) for rows in chosen]).double()
    step = torch.ones(1, dtype=torch.int64)
    batch = Batch(inputs, task.train.labels[chosen], task.outputs, {}, step, drawn, {})
    return before, shifted, anchor, batch


class Adam:
    """A first step of Adam along a gradient: lr times its sign, but for eps."""

    def __init__(self, params):
        self.params = params

    def __call__(self, gradients, *, uncorrected_eps=False):
        assert not uncorrected_eps
        return {
            name: self.params[name] - LR * g / (g.abs() + 1e-8) for name, g in gradients.items()
        }


def mlp(flat, sizes, x):
    """Of weights and biases in a row, relu between layers."""
    start = 0
    for i, (n, m) in enumerate(pairwise(sizes)):
        weight = flat[start : start + m * n].view(m, n)
        bias = flat[start + m * n : start + m * n + m]
        start += m * n + m
        x = F.linear(x if i == 0 else x.relu(), weight, bias)
    assert start == len(flat)
    return x


def one_hot(task_id, like):
    row = torch.zeros(like.shape[0], SMALL["vae_condition_size"], dtype=like.dtype)
    row[:, task_id] = 1
    return row


class Twin:
    """One seed: the losses as the paper and its code have them."""

    def __init__(self, experiment, task_id, params, before, batch, member):
        self.method, self.tasks, self.task_id = experiment.method, experiment.tasks, task_id
        self.experiment = experiment
        self.before = {name: value[member] for name, value in before.items()}
        self.params = {
            name: value[member].clone().requires_grad_() for name, value in params.items()
        }
        self.inputs, self.labels = batch.inputs[member], batch.labels[member]
        self.pixels = self.inputs.shape[1]
        size, num = SMALL["vae_latent_size"], SMALL["batch_size"]
        drawn = batch.drawn[member]
        if not hasattr(self.method, "inference"):
            self.drawn = drawn
        else:
            self.drawn = drawn[task_id + 1 :]  # behind the tasks that are generated
        self.noise = self.drawn[: num * size].view(num, size)
        self.per_task = -(-num // max(1, task_id))
        self.latents = self.drawn[num * size : num * size + task_id * self.per_task * size].view(
            task_id, self.per_task, size
        )

    def mlp_sizes(self, *hidden_and_outputs):
        return [self.pixels, *hidden_and_outputs]

    def decode(self, theta, task_id, z):
        weights = generate(self.method.generator.hypernet.hnet, theta, task_id)
        sizes = [SMALL["vae_latent_size"] + SMALL["vae_condition_size"]]
        sizes += [*SMALL["vae_decoder_arch"], self.pixels]
        return mlp(weights, sizes, torch.cat([z, one_hot(task_id, z)], 1))

    def replayed(self):
        """Of the generator as it was."""
        theta = part_of(self.before, "generator")
        with torch.no_grad():
            return [self.decode(theta, k, self.latents[k]).sigmoid() for k in range(self.task_id)]

    def vae(self, params):
        size = SMALL["vae_latent_size"]
        hidden = self.mlp_sizes(*SMALL["vae_encoder_arch"], 2 * size)
        encoded = mlp(params["generator.encoder"], hidden, self.inputs)
        mean, log_variance = encoded[:, :size], encoded[:, size:]
        z = mean + self.noise * (log_variance / 2).exp()
        images = self.decode(part_of(params, "generator"), self.task_id, z).sigmoid()
        reconstruction = (
            F.binary_cross_entropy(images, self.inputs, reduction="none").mean(1).mean()
        )
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)
        return reconstruction, divergence.mean() / self.pixels

    def held(self, params, part, hnet):
        """The penalty at the parameters that a step along the gradient of the rest leads to."""
        if self.task_id == 0:
            return torch.zeros(())
        theta, star = part_of(params, part), part_of(self.before, part)
        theta = {
            name: torch.cat([star[name][: self.task_id], value[self.task_id :]])
            if name == "task_embs"
            else value
            for name, value in theta.items()
        }
        delta = {}
        for name in part_of(params, part):
            if name not in ("task_embs", "encoder"):
                g = params[f"{part}.{name}"].grad
                delta[name] = -LR * g / (g.abs() + 1e-8)
        return penalty(hnet, theta, star, range(self.task_id), delta)


def distilled(logits, targets):
    """Temperature 2, times 4."""
    return -4 * ((targets / 2).softmax(1) * (logits / 2).log_softmax(1)).sum(1)


def twin_of_r(twin, scenario):
    """The classifier's loss: half, here 0.6 and 0.4, on each kind of sample."""
    net, tasks, task_id = twin.experiment.net, twin.tasks, twin.task_id
    weights, task = twin.params["weights"], tasks[task_id]

    def classify(w, x):
        return net.logits(w, x, {})

    own = F.cross_entropy(classify(weights, twin.inputs)[:, task.outputs], twin.labels)
    if task_id == 0:
        return own
    losses = []
    for earlier, images in enumerate(twin.replayed()):
        with torch.no_grad():
            wanted = classify(twin.before["weights"], images)
        logits = classify(weights, images)
        if scenario == 3:
            known = tasks[task_id - 1].outputs.stop
            wanted = torch.cat([wanted[:, :known], torch.zeros(len(wanted), task.num_classes)], 1)
            logits = logits[:, : known + task.num_classes]
        else:
            wanted, logits = (v[:, tasks[earlier].outputs] for v in (wanted, logits))
        losses.append(distilled(logits, wanted))
    share = SMALL["replay_share"]
    return (1 - share) * own + share * torch.cat(losses).mean()


def twin_of_tir(twin):
    """The classifier's loss, and that of the network that infers tasks, with its accuracy."""
    net, task = twin.experiment.net, twin.tasks[twin.task_id]
    theta = part_of(twin.params, "classifier")
    weights = generate(twin.method.classifier.hnet, theta, twin.task_id)
    loss = F.cross_entropy(net.logits(weights, twin.inputs, {})[:, task.outputs], twin.labels)
    if twin.task_id == 0:
        return loss, torch.zeros(()), torch.ones(())
    sizes = twin.mlp_sizes(*OWN["hnet_tir"]["tir_arch"], len(twin.tasks))
    now = twin.task_id

    def infer(x):
        return mlp(twin.params["inference.weights"], sizes, x)[:, : now + 1]

    real, of_real = infer(twin.inputs), torch.full((len(twin.inputs),), now)
    generated = infer(torch.cat(twin.replayed()))
    of_generated = torch.arange(now).repeat_interleave(twin.per_task)
    share = SMALL["replay_share"]
    told, replayed = F.cross_entropy(real, of_real), F.cross_entropy(generated, of_generated)
    right = (real.argmax(1) == of_real).float(), (generated.argmax(1) == of_generated).float()
    accuracy = (1 - share) * right[0].mean() + share * right[1].mean()
    return loss, (1 - share) * told + share * replayed, accuracy


@pytest.mark.parametrize("task_id", [0, 1, 2])
@pytest.mark.parametrize(("method", "scenario"), CASES)
def test_a_step_is_that_of_its_twin(method, scenario, task_id):
    more = {"hnet_reg_all_heads": True} if (method, scenario) == ("hnet_tir", 1) else {}
    experiment = experiment_of(method, scenario, **more)
    before, params, anchor, batch = in_task(experiment, task_id)
    trained = {n: v.contiguous() for n, v in experiment.method.trainable(params, task_id).items()}
    task_loss = experiment.task_loss(experiment.tasks[task_id])
    gradients, losses = experiment.method.loss_and_gradient(
        trained, batch, anchor, task_loss, Adam(trained)
    )
    assert gradients.keys() == trained.keys()
    for member in range(len(SEEDS)):
        twin = Twin(experiment, task_id, params, before, batch, member)
        others = twin.vae(twin.params)
        total = sum(others)
        if method == "hnet_r":
            total = total + twin_of_r(twin, scenario)
        else:
            classified, inferred, accuracy = twin_of_tir(twin)
            total = total + classified + inferred
        total.backward()
        of_generator = twin.held(
            twin.params, "generator", experiment.method.generator.hypernet.hnet
        )
        held, others = SMALL["vae_beta"] * of_generator, (*others, of_generator)
        if method == "hnet_tir":
            of_classifier = twin.held(twin.params, "classifier", experiment.method.classifier.hnet)
            held = held + OWN[method]["beta"] * of_classifier
            others = (*others, inferred, accuracy)
        if task_id > 0:
            held.backward()
            total = total + held
        torch.testing.assert_close(losses.loss[member], total.detach())
        assert len(losses.others) == len(experiment.method.other_losses)
        for own, wanted in zip(losses.others, others, strict=True):
            torch.testing.assert_close(own[member], wanted.detach().to(own))
        for name, gradient in gradients.items():
            wanted = twin.params[name].grad[None]
            if name.endswith("task_embs"):
                wanted = wanted[:, task_id : task_id + 1]
            torch.testing.assert_close(gradient[member : member + 1], wanted, msg=name)


def vae_loss(params, inputs, noise, weights):
    """Reconstruction and divergence of an autoencoder without a condition, each sample with a
    weight.
    """
    size, pixels = SMALL["vae_latent_size"], inputs.shape[1]
    encoder = [pixels, *SMALL["vae_encoder_arch"], 2 * size]
    encoded = mlp(params["encoder"], encoder, inputs)
    mean, log_variance = encoded[:, :size], encoded[:, size:]
    decoder = [size, *SMALL["vae_decoder_arch"], pixels]
    z = mean + noise * (log_variance / 2).exp()
    images = mlp(params["decoder"], decoder, z).sigmoid()
    reconstruction = F.binary_cross_entropy(images, inputs, reduction="none").mean(1)
    divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1) / pixels
    return (weights * reconstruction).sum(), (weights * divergence).sum()


@pytest.mark.parametrize("task_id", [0, 1, 2])
@pytest.mark.parametrize("scenario", [1, 2, 3])
def test_a_step_of_dgr_is_that_of_its_twin(scenario, task_id):
    """1/t of the task and 1 - 1/t of what the generator remembers, for both networks."""
    own = {n: SMALL[n] for n in ("batch_size", "vae_encoder_arch", "vae_decoder_arch")}
    own |= {"vae_latent_size": SMALL["vae_latent_size"], "method": "dgr"}
    experiment = make_experiment(make_sequence(scenario), cl_scenario=scenario, **own)
    before, params, anchor, batch = in_task(experiment, task_id)
    net, task = experiment.net, experiment.tasks[task_id]
    gradients, losses = experiment.method.loss_and_gradient(
        params, batch, anchor, experiment.task_loss(task), Adam(params)
    )
    share, number = 1 / (task_id + 1), SMALL["batch_size"]
    for member in range(len(SEEDS)):
        now = {name: value[member].clone().requires_grad_() for name, value in params.items()}
        old = {name: value[member] for name, value in before.items()}
        inputs, drawn = batch.inputs[member], batch.drawn[member]
        logits = net.logits(now["weights"], inputs, {})[:, task.outputs]
        total = F.cross_entropy(logits, batch.labels[member])
        seen, noise, of_each = inputs, drawn[0], torch.full((number,), 1 / number)
        if task_id > 0:
            sizes = [SMALL["vae_latent_size"], *SMALL["vae_decoder_arch"], inputs.shape[1]]
            images = mlp(old["decoder"], sizes, drawn[2]).sigmoid()
            wanted, answers = (net.logits(w["weights"], images, {}) for w in (old, now))
            heads = [slice(None)]
            if scenario == 1:
                heads = [earlier.outputs for earlier in experiment.tasks[:task_id]]
            if scenario == 3:  # new classes have the probability 0
                known = experiment.tasks[task_id - 1].outputs.stop
                wanted[:, known:], answers = -torch.inf, answers[:, : task.outputs.stop]
                wanted = wanted[:, : task.outputs.stop]
            distillation = torch.stack(
                [distilled(answers[:, head], wanted[:, head]).mean() for head in heads]
            ).mean()
            total = share * total + (1 - share) * distillation
            seen, noise = torch.cat([inputs, images]), drawn[:2].flatten(0, 1)
            of_each = torch.cat([share * of_each, (1 - share) * of_each])
        others = vae_loss(now, seen, noise, of_each)
        total = total + sum(others)
        torch.testing.assert_close(losses.loss[member], total.detach())
        for own, wanted in zip(losses.others, others, strict=True):
            torch.testing.assert_close(own[member], wanted.detach())
        total.backward()
        for name, value in now.items():
            torch.testing.assert_close(gradients[name][member], value.grad, msg=name)


@pytest.mark.parametrize("method", OWN)
def test_earlier_tasks_data_is_needed_by_nothing(method):
    """Neither gradients nor losses change when it is overwritten."""
    experiment = experiment_of(method, scenario=1)
    results = []
    for overwritten in (False, True):
        tasks = list(experiment.tasks)
        if overwritten:
            for task in tasks[:2]:
                task.train.images.zero_()
                task.train.labels.zero_()
        _, params, anchor, batch = in_task(experiment, 2)
        trained = experiment.method.trainable(params, 2)
        task_loss = experiment.task_loss(tasks[2])
        results.append(
            experiment.method.loss_and_gradient(trained, batch, anchor, task_loss, Adam(trained))
        )
    (first, first_losses), (second, second_losses) = results
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(first_losses.loss, second_losses.loss)


def test_inputs_that_are_no_pixels_are_refused():
    tasks = make_sequence(1)
    mean, std = torch.zeros(1), torch.ones(1)
    normalized = [replace(task, mean=mean, std=std) for task in tasks]
    with pytest.raises(InputError, match="--normalize=none"):
        make_experiment(normalized, method="hnet_r", cl_scenario=1, **SMALL)
    wide = [
        replace(task, train=task.train._replace(images=task.train.images.float())) for task in tasks
    ]
    with pytest.raises(InputError, match=r"within \[0, 1\]"):
        make_experiment(wide, method="hnet_tir", multi_head=True, **SMALL)


def test_more_tasks_than_the_decoder_can_be_told_are_refused():
    with pytest.raises(InputError, match="--vae_condition_size=2 leaves some of 3 tasks"):
        experiment_of("hnet_r", 1, vae_condition_size=2)


def test_what_is_generated_is_an_image_for_each_task():
    experiment = experiment_of("hnet_r", 1)
    params = experiment.method.init(SEEDS)
    images = experiment.method.generate(params, 2, 5)
    assert images.shape == (2, 2, 5, 36)
    assert 0 <= images.min() < images.max() <= 1
    alone = experiment.method.generate({n: v[1:] for n, v in params.items()}, 2, 5)
    torch.testing.assert_close(alone[0], images[1])
