"""The method as it is run against the reference, which is plain torch."""

import pytest
import torch
from helpers import in_double, make_experiment, make_task

from hypercl.engine.members import select_members
from hypercl.methods.base import Batch
from hypercl.methods.hnet import reference
from hypercl.methods.hnet.choice import take_anchor
from hypercl.tasks.task import Task
from train import TaskTraining

TASK_ID = 2
BETA = 2**-4  # which float32, in which a step has it, does not round
KINDS = {
    "chunked": {},
    "conditional": {"use_cond_chunk_embs": True},
    "conditional alone": {"use_cond_chunk_embs": True, "cond_emb_size": 0},
    "hmlp": {"hnet_type": "hmlp"},
    "linear": {"hmlp_arch": [], "hnet_no_bias": True},
    "tanh": {"hnet_net_act": "tanh", "net_act": "elu"},
}


class InDouble(Task):
    def inputs(self, images):
        return super().inputs(images).double()


def small_experiment(**values):
    task = make_task((5, 5, 1))
    task = InDouble(task.name, 2, task.train, task.validation, task.test)
    few = {"chmlp_chunk_size": 30, "n_iter": 12, "batch_size": 8, "lr": 0.01, "beta": BETA}
    return make_experiment([task] * 3, **{**few, **values})


def moved(params):
    generator = torch.Generator().manual_seed(7)
    draw = {"generator": generator, "dtype": torch.float64}
    return {n: v + 0.1 * torch.randn(v.shape, **draw) for n, v in params.items()}


def one_batch(experiment, members, earlier):
    task = experiment.tasks[TASK_ID]
    inputs = task.inputs(task.train.images[: 8 * members]).view(members, 8, -1)
    labels = task.train.labels[: 8 * members].view(members, 8)
    drawn = torch.tensor([*earlier, TASK_ID]).expand(members, -1)
    return Batch(inputs, labels, slice(None), {}, torch.tensor([1]), drawn, {})


@pytest.mark.parametrize("earlier", [[0, 1], [1]], ids=["all earlier", "one earlier"])
@pytest.mark.parametrize("factored", [True, False], ids=["factored", "dense"])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradient_are_the_references(kind, factored, earlier):
    """Of two members, away from the anchor; in float64."""
    experiment = small_experiment(hnet_reg_batch_size=len(earlier), **KINDS[kind])
    method, net = experiment.method, experiment.net
    star = in_double(method.init([0, 1]))
    params = moved(star)
    anchor = take_anchor(
        method.hnet, star, TASK_ID, subset_size=len(earlier), factored=factored, heads=method.heads
    )
    memory = method.remember(star, {}, TASK_ID)._replace(outputs=anchor)
    batch = one_batch(experiment, 2, earlier)
    gradients, losses = method.loss_and_gradient(
        params, batch, memory, experiment.task_loss(experiment.tasks[TASK_ID]), None
    )
    for member in range(2):
        theta, theta_star = select_members(params, member), select_members(star, member)
        theta = {name: value.requires_grad_() for name, value in theta.items()}
        weights = reference.generate(method.hnet, theta, TASK_ID)
        task_loss = reference.task_loss(net, weights, batch.inputs[member], batch.labels[member])
        penalty = reference.penalty(method.hnet, theta, theta_star, earlier)
        total = task_loss + BETA * penalty
        expected = torch.autograd.grad(total, list(theta.values()))
        for ours, theirs in zip(losses[:3], (task_loss, penalty, total), strict=True):
            torch.testing.assert_close(ours[member], theirs.detach(), rtol=1e-10, atol=1e-12)
        for (name, ours), theirs in zip(
            {n: gradients[n] for n in theta}.items(), expected, strict=True
        ):
            torch.testing.assert_close(ours[member], theirs, rtol=1e-8, atol=1e-11, msg=name)


def test_the_lookahead_is_the_references():
    """The penalty at θ + Δθ, without the embeddings, and its gradient there."""
    experiment = small_experiment(lookahead=True)
    method, task = experiment.method, experiment.tasks[TASK_ID]
    star = in_double(method.init([0]))
    params = moved(star)
    generator = torch.Generator().manual_seed(1)
    delta = {
        name: 0.05 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in params.items()
        if name != "task_embs"
    }
    _, losses = method.loss_and_gradient(
        params,
        one_batch(experiment, 1, [0, 1]),
        method.remember(star, {}, TASK_ID),
        experiment.task_loss(task),
        lambda gradients, uncorrected_eps: {n: params[n] + delta.get(n, 1e9) for n in params},
    )
    expected = reference.penalty(
        method.hnet,
        select_members(params, 0),
        select_members(star, 0),
        [0, 1],
        select_members(delta, 0),
    )
    torch.testing.assert_close(losses.penalty[0], expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("task_id", [0, TASK_ID])
@pytest.mark.parametrize("kind", KINDS)
def test_a_task_is_learned_as_by_the_reference(kind, task_id):
    """Twelve steps of Adam in float64."""
    experiment = small_experiment(**KINDS[kind])
    method, task = experiment.method, experiment.tasks[task_id]
    params = in_double(method.init([3]))
    training = TaskTraining(experiment, task_id, [3], params, {}, memory={})
    training.history = training.history.double()
    batches = [
        (task.inputs(task.train.images[chosen]), task.train.labels[chosen])
        for chosen in training.plan.batches[:, 0]
    ]
    expected = reference.learn(
        method.hnet, experiment.net, select_members(params, 0), task_id, batches, lr=0.01, beta=BETA
    )
    for _ in batches:
        training.step()
    learned = select_members(method.merged(params, training.trained, task_id), 0)
    for name, value in expected.items():
        torch.testing.assert_close(learned[name], value, rtol=1e-6, atol=1e-8, msg=name)


def test_the_penalty_counts_from_the_second_step_on_at_a_minimum():
    """At the anchor the gradient is zero but for rounding, which Adam would blow up."""
    for values, counts in (({}, False), ({"hnet_dropout_rate": 0.2}, True)):
        experiment = small_experiment(**values)
        batch = one_batch(experiment, 1, [0, 1])._replace(step=torch.tensor([0]))
        star = in_double(experiment.method.init([0]))
        memory = experiment.method.remember(star, {}, TASK_ID)
        task_loss = experiment.task_loss(experiment.tasks[TASK_ID])
        _, losses = experiment.method.loss_and_gradient(moved(star), batch, memory, task_loss, None)
        assert losses.penalty > 0.1
        assert (losses.loss > losses.task_loss).item() == counts


def test_parameters_survive_the_way_into_a_file_and_back():
    experiment = small_experiment(use_cond_chunk_embs=True)
    params = select_members(experiment.method.init([5]), 0)
    state = experiment.method.state_dict(params)
    module = experiment.method.fresh_module(seed=5)
    assert state.keys() == module.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())
    back = experiment.method.load_state_dict(state)
    assert all(torch.equal(back[name], value) for name, value in params.items())


def test_a_seed_is_initialized_alike_alone_and_among_others():
    method = small_experiment().method
    together, alone = method.init([4, 5]), method.init([5])
    assert all(torch.equal(together[name][1:], alone[name]) for name in alone)
