"""EWC and online EWC against hypnettorch's regularizer, and the Fisher information that they keep
against a loop over samples.
"""

import pytest
import torch
import torch.nn.functional as F
from helpers import as_regression, make_experiment, make_sequence, random_weights, task_end
from hypnettorch.utils.ewc_regularizer import _ewc_buffer_names, ewc_regularizer

from hypercl.engine.seeding import generator
from hypercl.methods import ewc
from hypercl.networks.main_net import TaskLossValue

pytestmark = pytest.mark.usefixtures("double_inputs")

SEEDS = [3, 8]


def their_penalty(method, weights, centres, fishers, gamma):
    """hypnettorch's, of one member's weights; its gradient."""
    online, holder = gamma is not None, torch.nn.Module()
    if online:
        last = fishers[0]
        for fisher in fishers[1:]:
            last = gamma * last + fisher
        centres, fishers = centres[-1:], [last]
    split = method.setting.net.split
    for task_id, (centre, fisher) in enumerate(zip(centres, fishers, strict=True)):
        for i, pair in enumerate(zip(split(centre), split(fisher), strict=True)):
            for name, value in zip(_ewc_buffer_names(task_id, i, online), pair, strict=True):
                holder.register_buffer(name, value.clone())  # it is multiplied in place
    weights = weights.clone().requires_grad_()
    penalty = ewc_regularizer(
        3, split(weights), holder, online=online, gamma=1.0 if gamma is None else gamma
    )
    return penalty.detach(), torch.autograd.grad(penalty, weights)[0]


@pytest.mark.parametrize(("name", "gamma"), [("ewc", None), ("online_ewc", 0.7), ("online_ewc", 1)])
@pytest.mark.parametrize("scenario", [1, 2, 3])
def test_the_penalty_after_three_tasks_is_hypnettorchs(scenario, name, gamma, monkeypatch):
    options = {} if gamma is None else {"ewc_gamma": gamma}
    tasks = make_sequence(scenario, (2, 3, 2, 2))
    experiment = make_experiment(
        tasks, method=name, cl_scenario=scenario, ewc_lambda=20.0, **options
    )
    method, net = experiment.method, experiment.net
    centres = [random_weights(net, 2, seed) for seed in range(3)]
    fishers = [random_weights(net, 2, seed).square() for seed in range(3, 6)]
    monkeypatch.setattr(method, "fisher", lambda params, end: fishers[end.task_id])
    memory = {}
    for task_id, centre in enumerate(centres):
        memory = method.after_task(
            {"weights": centre}, memory, task_end(experiment, task_id, SEEDS)
        )
    weights = random_weights(net, 2, 7)
    anchor = method.remember({"weights": weights}, memory, 3)
    penalty, gradient = method.penalty_and_gradient(weights, anchor)
    for member in range(2):
        of_member = ([values[member] for values in each] for each in (centres, fishers))
        expected = their_penalty(method, weights[member], *of_member, gamma)
        torch.testing.assert_close((penalty[member], gradient[member]), expected)
    ones = torch.ones(2).double()

    def of_task(weights, batch):
        return TaskLossValue(ones, ones, torch.ones_like(weights))

    of_task.weight = 1
    gradients, losses = method.loss_and_gradient({"weights": weights}, None, anchor, of_task, None)
    torch.testing.assert_close(losses.loss, 1 + 20 * penalty)
    torch.testing.assert_close(gradients["weights"], 1 + 20 * gradient)


def test_the_penalty_is_zero_where_nothing_has_moved():
    experiment = make_experiment(make_sequence(2), method="ewc")
    method, weights = experiment.method, random_weights(experiment.net, 2, 0)
    memory = method.after_task({"weights": weights}, {}, task_end(experiment, 0, SEEDS))
    penalty, gradient = method.penalty_and_gradient(weights, memory)
    assert penalty.tolist() == [0, 0]
    assert (gradient == 0).all()
    assert (memory["precision"] >= 0).all()
    assert (memory["precision"] > 0).any()


def fisher_by_loops(experiment, task, weights, stats, seed, task_id):
    """Of one member; the mean over samples of squares."""
    options, net = experiment.options.method.kind, experiment.net
    draw = generator(seed, "fisher samples", task_id)
    images, labels = task.train
    number = min(options.fisher_samples or len(labels), len(labels))
    chosen = torch.randperm(len(labels), generator=draw)[:number]
    uniform = torch.rand(number, 1, generator=draw)
    total = torch.zeros_like(weights)

    def square(i, label):
        weights_ = weights.clone().requires_grad_()
        logits = net.logits(weights_, task.inputs(images[i][None]), stats)[:, task.outputs]
        loss = F.cross_entropy(logits, torch.tensor([label]))
        return torch.autograd.grad(loss, weights_)[0].square()

    for i, u in zip(chosen.tolist(), uniform.flatten().tolist(), strict=True):
        logits = net.logits(weights, task.inputs(images[i][None]), stats)[0, task.outputs]
        chances = logits.softmax(0).tolist()
        if options.fisher_labels == "exact":
            total += sum(p * square(i, label) for label, p in enumerate(chances))
        elif options.fisher_labels == "data":
            total += square(i, labels[i].item())
        elif options.fisher_labels == "predicted":
            total += square(i, chances.index(max(chances)))
        else:
            ends = [sum(chances[: label + 1]) for label in range(len(chances))]
            total += square(i, next(label for label, end in enumerate(ends) if end >= u))
    return total / number


@pytest.mark.parametrize("net", [{}, {"net_act": "tanh", "no_bias": True}, {"batchnorm": True}])
@pytest.mark.parametrize("samples", [-1, 9])
@pytest.mark.parametrize("labels", ["sample", "predicted", "data", "exact"])
@pytest.mark.parametrize("scenario", [1, 3])
def test_fisher_information_is_that_of_a_loop_over_samples(
    scenario, labels, samples, net, monkeypatch
):
    monkeypatch.setattr(ewc, "_AT_ONCE", 10)
    experiment = make_experiment(
        make_sequence(scenario, (3, 2), n=14), method="ewc", cl_scenario=scenario,
        fisher_labels=labels, fisher_samples=samples, **net,
    )  # fmt: skip
    weights = 3 * random_weights(experiment.net, 2, 0)
    end = task_end(experiment, 1, SEEDS)
    with experiment.net.evaluating():
        found = experiment.method.fisher({"weights": weights}, end)
        for member, seed in enumerate(SEEDS):
            stats = {name: value[member] for name, value in end.stats.items()}
            expected = fisher_by_loops(experiment, end.task, weights[member], stats, seed, 1)
            torch.testing.assert_close(found[member], expected)
    assert (found > 0).any()


def test_the_total_is_that_of_all_training_samples():
    found = []
    for options in ({}, {"fisher_total": True}):
        experiment = make_experiment(
            make_sequence(2, (2, 2), n=14), method="ewc", fisher_samples=9, **options
        )
        weights = {"weights": random_weights(experiment.net, 2, 0)}
        found.append(experiment.method.fisher(weights, task_end(experiment, 0, SEEDS)))
    torch.testing.assert_close(found[1], 14 * found[0])


@pytest.mark.parametrize("name", ["ewc", "online_ewc"])
@pytest.mark.parametrize("scenario", [1, 2, 3])
def test_a_prior_is_in_the_loss_of_the_task_that_first_trains_a_weight(scenario, name):
    tasks = make_sequence(scenario, (2, 2, 2))
    common = {"method": name, "cl_scenario": scenario, "ewc_lambda": 20.0}
    plain, method = (
        make_experiment(tasks, ewc_prior_variance=variance, **common).method
        for variance in (-1, 0.25)
    )
    net = method.setting.net
    weights, old = random_weights(net, 2, 3), random_weights(net, 2, 4)
    ones = torch.ones(2).double()

    def of_task(weights, batch):
        return TaskLossValue(ones, ones, torch.ones_like(weights))

    of_task.weight = 1
    without, with_prior, held = {}, {}, 0
    for task_id in range(2):
        first = torch.zeros(net.num_weights).double()
        if task_id == 0:
            first[:] = 1
        if scenario == 1:
            for tensor in net.split(first)[-2:]:  # weight and bias of the output layer
                tensor[:] = 0
                tensor[tasks[task_id].outputs] = 1
        anchor = method.remember({"weights": old}, without, task_id)
        gradients, losses = method.loss_and_gradient(
            {"weights": weights}, None, anchor, of_task, None
        )
        anchor = plain.remember({"weights": old}, without, task_id)
        expected, expected_losses = plain.loss_and_gradient(
            {"weights": weights}, None, anchor, of_task, None
        )
        torch.testing.assert_close(
            gradients["weights"], expected["weights"] + 4 * first * weights, check_dtype=False
        )
        added = (first * weights.square()).sum(1) / (2 * 0.25)
        torch.testing.assert_close(losses.loss, expected_losses.loss + added)
        torch.testing.assert_close(losses.penalty, expected_losses.penalty)
        end = task_end(make_experiment(tasks, **common), task_id, SEEDS)
        without = plain.after_task({"weights": old}, without, end)
        with_prior = method.after_task({"weights": old}, with_prior, end)
        held = held + 4 * first
        torch.testing.assert_close(
            with_prior["precision"], without["precision"] + held, check_dtype=False
        )


def test_labels_are_drawn_as_often_as_they_are_probable():
    """Of 4,000 samples, the mean is then nearly the exact Fisher information."""
    tasks = make_sequence(2, (2, 2), n=4000)
    of_labels = {}
    for labels in ("sample", "exact", "predicted"):
        experiment = make_experiment(tasks, method="ewc", fisher_labels=labels)
        weights = 2 * random_weights(experiment.net, 1, 0)
        end = task_end(experiment, 0, [3])
        of_labels[labels] = experiment.method.fisher({"weights": weights}, end).sum().item()
    assert of_labels["sample"] == pytest.approx(of_labels["exact"], rel=0.03)
    assert of_labels["predicted"] != pytest.approx(of_labels["exact"], rel=0.06)


def test_a_seed_keeps_what_it_would_keep_alone():
    experiment = make_experiment(make_sequence(2), method="ewc", fisher_samples=7)
    weights = random_weights(experiment.net, 2, 0)
    both = experiment.method.fisher({"weights": weights}, task_end(experiment, 0, SEEDS))
    alone = experiment.method.fisher({"weights": weights[1:]}, task_end(experiment, 0, SEEDS[1:]))
    torch.testing.assert_close(both[1:], alone)


@pytest.mark.parametrize("values", [{"net_act": "tanh"}, {"batchnorm": True}], ids=["mlp", "any"])
@pytest.mark.parametrize("labels", ["sample", "data", "exact"])
def test_the_fisher_information_of_regression_is_that_of_a_loop(labels, values):
    """Of a Gaussian of variance 1: squares of the gradient of -1/2 |y - f|²."""
    tasks = as_regression(make_sequence(1, (2, 3), n=9))
    experiment = make_experiment(tasks, method="ewc", fisher_labels=labels, cl_scenario=1, **values)
    method, net, task = experiment.method, experiment.net, tasks[1]
    weights, end = random_weights(net, 2, 0), task_end(experiment, 1, SEEDS)
    with net.evaluating():
        found = method.fisher({"weights": weights}, end)
        for member, seed in enumerate(SEEDS):
            drawing = generator(seed, "fisher samples", 1)
            order = torch.randperm(9, generator=drawing)
            noise = torch.randn(9, 3, generator=drawing)
            stats = {name: value[member] for name, value in end.stats.items()}
            total = torch.zeros(net.num_weights).double()
            for i, sample in enumerate(order):
                w = weights[member].clone().requires_grad_()
                x, y = task.inputs(task.train.images[sample, None]), task.train.labels[sample]
                f = net.logits(w, x, stats)[0, task.outputs]
                if labels == "exact":
                    for k in range(3):
                        (gradient,) = torch.autograd.grad(f[k], w, retain_graph=True)
                        total += gradient.square() / 9
                    continue
                target = y if labels == "data" else f.detach() + noise[i]
                (gradient,) = torch.autograd.grad(-(target - f).square().sum() / 2, w)
                total += gradient.square() / 9
            torch.testing.assert_close(found[member], total)
