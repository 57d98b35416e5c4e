"""Synaptic intelligence against hypnettorch's, along the steps of two tasks."""

import pytest
import torch
from helpers import CPU, make_experiment, make_sequence, random_weights, task_end
from hypnettorch.utils import si_regularizer as theirs

import train

pytestmark = pytest.mark.usefixtures("double_inputs")


@pytest.mark.parametrize(
    "options", [{}, {"use_sgd": True, "momentum": 0.9, "weight_decay": 3.0}, {"task_loss": "total"}]
)
@pytest.mark.parametrize("scenario", [1, 2, 3])
def test_importance_is_hypnettorchs_where_it_is_positive(scenario, options):
    """The gradient is that of the task loss, the change that of the whole step."""
    seeds, epsilon = [3, 8], 0.03
    tasks = make_sequence(scenario, (2, 3, 2))
    experiment = make_experiment(
        tasks, method="si", cl_scenario=scenario, si_c=0.5, si_epsilon=epsilon, n_iter=6,
        batch_size=6, **{"lr": 0.02, **options},
    )  # fmt: skip
    method = experiment.method
    weights, memory = random_weights(experiment.net, 2, 0), {}
    nets = [torch.nn.Module() for _ in seeds]
    parameters = [[torch.nn.Parameter(w.clone())] for w in weights]
    expected = torch.zeros_like(weights)
    for task_id in range(2):
        training = train.TaskTraining(experiment, task_id, seeds, {"weights": weights}, {}, memory)
        training.history = training.history.double()
        for _ in range(training.num_steps):
            before, batch = training._flat.clone(), training._batch()
            (_, _, gradient) = training.task_loss(before, batch)
            training.step()
            for net, own, g, w in zip(nets, parameters, gradient, training._flat, strict=True):
                theirs.si_pre_optim_step(net, own)
                own[0].grad, own[0].data = g, w.clone()
                theirs.si_post_optim_step(net, own)
        after = {"weights": training._flat.clone()}
        end = task_end(experiment, task_id, seeds, running=training.running)
        last = memory.get("importance", torch.zeros_like(weights))
        before_end = {name: value.clone() for name, value in training.running.items()}
        memory = method.after_task(after, memory, end)
        assert all(torch.equal(training.running[n], v) for n, v in before_end.items())
        expected = expected + (memory["importance"] - last).clamp(min=0)
        for net, own in zip(nets, parameters, strict=True):
            theirs.si_compute_importance(net, own, epsilon=epsilon)
        importance = torch.stack([net.si_omega_weights_0 for net in nets])
        torch.testing.assert_close(expected, importance)
        weights = after["weights"]
    assert (expected > 0).any()
    if "weight_decay" in options:  # which may climb: then importance is negative, as in the paper
        assert (memory["importance"] < expected).any()

    now = random_weights(experiment.net, 2, 1)
    anchor = method.remember({"weights": now}, {**memory, "importance": importance}, 2)
    penalty, gradient = method.penalty_and_gradient(now, anchor)
    for member, net in enumerate(nets):
        own = now[member].clone().requires_grad_()
        value = theirs.si_regularizer(net, [own])
        torch.testing.assert_close(penalty[member], value.detach())
        torch.testing.assert_close(gradient[member], torch.autograd.grad(value, own)[0])


def test_what_the_weights_contribute_is_the_decrease_of_the_loss():
    """With one batch and small steps, the sum of omega over weights is what the loss falls by."""
    tasks = make_sequence(2, n=8)
    experiment = make_experiment(
        tasks, method="si", n_iter=400, batch_size=8, use_sgd=True, lr=0.003, net_act="tanh"
    )
    params = {"weights": random_weights(experiment.net, 1, 0)}
    training = train.TaskTraining(experiment, 0, [1], params, {}, {})
    training.history = training.history.double()
    for _ in range(training.num_steps):
        training.step()
    running = training.running
    # The last step enters after the task: until then, it is the loss before that step.
    first, last = training.history[0, 0, 0], training.history[-1, 0, 0]
    assert running["path"].sum().item() == pytest.approx((first - last).item(), rel=0.02)
    assert torch.equal(running["start"], params["weights"])
    assert running["start"].device == CPU
