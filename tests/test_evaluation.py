"""Accuracies with the task known and inferred, against slow loops over samples and networks."""

import math
from dataclasses import replace

import pytest
import torch
from helpers import CIFAR_SHAPE, make_experiment, make_task

from hypercl import evaluation
from hypercl.evaluation import (
    Learned,
    as_json,
    evaluate,
    evaluate_tasks,
    infer_tasks,
    median_margins,
)
from hypercl.inference import OF_MAIN_NETS
from hypercl.tasks.task import Split, Task, with_heads, with_shared_outputs


def learned(experiment, seeds=(0,), scale=1.0):
    """Networks as they are initialized, their parameters scaled."""
    params = {n: scale * v for n, v in experiment.method.init(seeds).items()}
    stats = experiment.net.fresh_stats(len(seeds), torch.device("cpu"))
    networks = Learned(experiment.net, experiment.method, params, [stats] * len(experiment.tasks))
    margins = [median_margins(networks, t, i, 16) for i, t in enumerate(experiment.tasks)]
    return networks._replace(scales={"margin": torch.stack(margins, dim=1)})


def margin_of(logits):
    first, second, *_ = sorted(logits.double().tolist(), reverse=True)
    return first - second


def scale_of(networks, member, task_id, task):
    """The lower median of the margins of all training samples."""
    inputs = task.inputs(task.train.images)
    logits = logits_of(networks, member, task_id, inputs)[:, task.outputs]
    margins = sorted(margin_of(row) for row in logits)
    return margins[(len(margins) - 1) // 2]


def logits_of(networks, member, task_id, inputs):
    """Of one member's main network for a task."""
    weights = networks.weights(torch.tensor([task_id]))[member, 0]
    return networks.net.module.forward(inputs, weights=networks.net.split(weights))


def by_hand(networks, member, tasks):
    """CL1, and by each rule CL2, CL3 and the task inferred, by task."""
    found = {"cl1": []} | {
        f"{what}_{rule}": [] for what in ("cl2", "cl3", "task_inference") for rule in OF_MAIN_NETS
    }
    scales = [scale_of(networks, member, task_id, task) for task_id, task in enumerate(tasks)]
    for true, task in enumerate(tasks):
        right = dict.fromkeys(found, 0)
        for image, label in zip(*task.test, strict=True):
            entropies, confidences, margins, classes = [], [], [], []
            for other, that in enumerate(tasks):
                inputs = task.inputs(image[None])
                logits = logits_of(networks, member, other, inputs)[0, that.outputs]
                chances = logits.double().softmax(0).tolist()
                entropies.append(-sum(p * math.log(p) for p in chances if p > 0))
                confidences.append(max(chances))
                margins.append(margin_of(logits) / scales[other])
                classes.append(chances.index(max(chances)))
            right["cl1"] += classes[true] == label
            by_rule = {
                "entropy": entropies.index(min(entropies)),
                "confidence": confidences.index(max(confidences)),
                "scaled": margins.index(max(margins)),
            }
            for rule, inferred in by_rule.items():
                right[f"cl2_{rule}"] += classes[inferred] == label
                right[f"cl3_{rule}"] += classes[inferred] == label and inferred == true
                right[f"task_inference_{rule}"] += inferred == true
        for name, count in right.items():
            found[name].append(100 * float(count) / len(task.test.labels))
    return found


@pytest.mark.parametrize("at_once", [1, 10**9], ids=["task by task", "all at once"])
@pytest.mark.parametrize("multi_head", [True, False])
def test_accuracies_of_the_scenarios(multi_head, at_once, monkeypatch):
    monkeypatch.setattr(evaluation, "_NUMBERS", at_once)
    made = [make_task((6, 6, 1), seed=seed) for seed in range(3)]
    # Of three classes, where the lowest entropy is not always the highest confidence.
    tests = [Split(t.test.images, (t.test.labels + torch.arange(30)) % 3) for t in made]
    generator = torch.Generator().manual_seed(0)
    tasks = [
        Task(
            t.name, 3, t.train, t.validation, test, torch.randperm(36, generator=generator),
            outputs=slice(3 * i, 3 * i + 3) if multi_head else slice(None),
        )
        for i, (t, test) in enumerate(zip(made, tests, strict=True))
    ]  # fmt: skip
    experiment = make_experiment(tasks, multi_head=multi_head)
    networks = learned(experiment, seeds=[0, 1])
    found = infer_tasks(networks, tasks, [t.test for t in tasks], 7)
    for member, inference in enumerate(found):
        require_same(inference, by_hand(networks, member, tasks))
        for own in inference.by_rule.values():
            assert [row[i] for i, row in enumerate(own.confusion)] == own.task_inference
            assert [sum(row) for row in own.confusion] == pytest.approx([100] * 3)
    for rule in ("confidence", "scaled"):
        assert any(
            x.by_rule[rule].task_inference != x.by_rule["entropy"].task_inference for x in found
        )
    assert 0 < sum(found[0].by_rule["entropy"].task_inference) < 300


def require_same(inference, expected):
    """Whether an inference is what was counted by hand."""
    content = as_json(inference)
    assert {name: content[name]["tasks"] for name in expected} == {
        name: pytest.approx(values) for name, values in expected.items()
    }
    for name in expected:
        assert content[name]["mean"] == pytest.approx(sum(expected[name]) / len(expected[name]))


@pytest.mark.parametrize("multi_head", [True, False])
def test_accuracies_of_tasks_with_unequal_numbers_of_classes(multi_head):
    made = [make_task((6, 6, 1), seed=seed) for seed in range(4)]
    tasks = []
    for task, size in zip(made, (2, 3, 3, 5), strict=True):
        test = Split(task.test.images, (task.test.labels + torch.arange(30)) % size)
        tasks.append(Task(task.name, size, task.train, task.validation, test))
    tasks = with_heads(tasks) if multi_head else with_shared_outputs(tasks)
    networks = learned(make_experiment(tasks, multi_head=multi_head), seeds=[0, 1])
    found = infer_tasks(networks, tasks, [t.test for t in tasks], 7)
    for member, inference in enumerate(found):
        require_same(inference, by_hand(networks, member, tasks))
    (row, _) = evaluate_tasks(networks, tasks, [t.test for t in tasks], 7, task_ids=[1, 3])
    assert row == pytest.approx([found[0].cl1[1], found[0].cl1[3]])


@pytest.mark.parametrize("net", ["mlp", "resnet"])
def test_the_known_task_is_tested_on_the_same_batches(net):
    """With a batch's own statistics it matters; 30 = 29 + 1 would leave a batch without any."""
    tasks = [make_task(CIFAR_SHAPE), make_task(CIFAR_SHAPE, seed=1)]
    experiment = make_experiment(tasks, net_type=net, batchnorm=True, bn_no_running_stats=True)
    networks, tests = learned(experiment), [task.test for task in tasks]
    (inference,) = infer_tasks(networks, tasks, tests, 29)
    (row,) = evaluate_tasks(networks, tasks, tests, 29)
    assert inference.cl1 == pytest.approx(row)


def test_saturated_networks_have_an_entropy():
    """With weights so large that a softmax gives exact zeros."""
    tasks = [make_task((6, 6, 1)), make_task((6, 6, 1), seed=1)]
    networks = learned(make_experiment(tasks), scale=50)
    (found,) = infer_tasks(networks, tasks, [t.test for t in tasks], 100)
    for own in found.by_rule.values():
        assert not any(map(math.isnan, [*own.cl2, *own.cl3, *own.task_inference]))
        assert [sum(row) for row in own.confusion] == pytest.approx([100] * 2)


def test_of_two_classes_the_lower_entropy_is_the_higher_confidence():
    """Also where most confidences are 1 in float32, and entropies still differ."""
    tasks = [make_task((6, 6, 1), seed=seed) for seed in range(3)]
    networks = learned(make_experiment(tasks), scale=1.8)
    inputs = tasks[0].inputs(tasks[0].test.images)
    logits = [logits_of(networks, 0, task_id, inputs) for task_id in range(3)]
    assert (torch.stack(logits).softmax(-1).amax(-1) == 1).float().mean() > 0.3
    (found,) = infer_tasks(networks, tasks, [t.test for t in tasks], 100)
    assert found.by_rule["confidence"] == found.by_rule["entropy"]


@pytest.mark.parametrize("number", [1, 2, 7, 30])
def test_the_median_margin_of_many_samples_is_that_of_some_at_equal_distances(number, monkeypatch):
    """Also where the training set is in the order of the classes."""
    monkeypatch.setattr(evaluation, "_SAMPLES", number)
    task = make_task((6, 6, 1), n=30)
    networks = learned(make_experiment([task] * 2), seeds=[0, 1])
    chosen = [30 * i // number for i in range(number)]
    fewer = replace(task, train=Split(*(values[chosen] for values in task.train)))
    margins = median_margins(networks, task, 1, 8)
    expected = [scale_of(networks, member, 1, fewer) for member in range(2)]
    assert margins.tolist() == pytest.approx(expected)


def test_what_has_no_scales_does_without_the_rule_that_needs_them():
    task = make_task((6, 6, 1))
    networks = learned(make_experiment([task] * 2))._replace(scales={})
    (found,) = infer_tasks(networks, [task] * 2, [task.test] * 2, 100)
    assert list(found.by_rule) == ["entropy", "confidence"]


@pytest.mark.parametrize("was_training", [True, False])
def test_evaluation_leaves_no_trace(was_training):
    task = make_task()
    networks = learned(make_experiment([task]))
    for value in networks.params.values():
        value.requires_grad_()
    mnet = networks.net.module
    mnet.train(was_training)
    state = torch.get_rng_state()
    generated = []
    forward = mnet.forward
    mnet.forward = lambda *args, **options: (
        generated.append(forward(*args, **options)) or generated[-1]
    )
    (accuracy,) = evaluate(networks, task, 0, task.test, 7)
    assert mnet.training is was_training
    assert generated
    assert not any(value.requires_grad for value in generated)  # no graph is kept
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(accuracy, float)


def test_evaluation_counts_every_sample_whatever_the_batches():
    task = make_task()
    networks = learned(make_experiment([task] * 2))
    logits = logits_of(networks, 0, 1, task.inputs(task.test.images))
    expected = (logits.argmax(1) == task.test.labels).double().mean().item()
    for batch_size in (1, 7, 29, 30, 1000):
        assert evaluate(networks, task, 1, task.test, batch_size) == [expected]
