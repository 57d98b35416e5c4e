"""Task inference against a slow loop over samples and networks."""

import math

import pytest
import torch
from test_train import make_networks, make_task

from hypercl import evaluation as scenarios
from hypercl.engine.members import select_members, stack_members
from hypercl.networks.hypernet import from_module
from hypercl.networks.nets import build_hypernet, build_main_net
from hypercl.tasks.task import Split, Task
from train import evaluate


def by_hand(hnet, mnet, params, tasks):
    """CL1, CL2 and CL3 by entropy, the task inferred, by task."""
    rules = ("entropy", "confidence")
    found = {"cl1": []} | {
        f"{what}_{rule}": [] for what in ("cl2", "cl3", "task") for rule in rules
    }
    for true, task in enumerate(tasks):
        right = dict.fromkeys(found, 0)
        for image, label in zip(*task.test, strict=True):
            entropies, confidences, classes = [], [], []
            for other, that in enumerate(tasks):
                weights = hnet.split(hnet.weights(params, torch.tensor([[other]]))[0, 0])
                logits = mnet.forward(task.inputs(image[None]), weights=weights)[0, that.outputs]
                chances = logits.double().softmax(0).tolist()
                entropies.append(-sum(p * math.log(p) for p in chances if p > 0))
                confidences.append(max(chances))
                classes.append(chances.index(max(chances)))
            right["cl1"] += classes[true] == label
            by_rule = (entropies.index(min(entropies)), confidences.index(max(confidences)))
            for rule, inferred in zip(rules, by_rule, strict=True):
                right[f"cl2_{rule}"] += classes[inferred] == label
                right[f"cl3_{rule}"] += classes[inferred] == label and inferred == true
                right[f"task_{rule}"] += inferred == true
        for name, count in right.items():
            found[name].append(100 * float(count) / len(task.test.labels))
    return found


@pytest.mark.parametrize("at_once", [1, 10**9], ids=["task by task", "all at once"])
@pytest.mark.parametrize("multi_head", [True, False])
def test_accuracies_of_the_scenarios(multi_head, at_once, monkeypatch):
    monkeypatch.setattr(scenarios, "_NUMBERS", at_once)
    made = [make_task((6, 6, 1), seed=seed) for seed in range(3)]
    # Of three classes, where the lowest entropy is not always the highest confidence.
    tests = [Split(t.test.images, (t.test.labels + torch.arange(30)) % 3) for t in made]
    generator = torch.Generator().manual_seed(0)
    tasks = [
        Task(
            t.name, 3, t.train, t.validation, test, torch.randperm(36, generator=generator),
            first_output=3 * i if multi_head else None,
        )
        for i, (t, test) in enumerate(zip(made, tests, strict=True))
    ]  # fmt: skip
    mnet = build_main_net("mlp", (6, 6, 1), 9 if multi_head else 3, mlp_arch=(10,))
    torch.manual_seed(0)
    module = build_hypernet("chunked_hmlp", mnet.param_shapes, 3, hmlp_arch=(20, 20))
    hnet, params = from_module(module, activation="relu", dropout_rate=-1)
    params = stack_members([params])
    other = {name: value + 0.1 * torch.randn_like(value) for name, value in params.items()}
    both = stack_members([select_members(params, 0), select_members(other, 0)])
    found = scenarios.infer_tasks(hnet, mnet, both, tasks, [t.test for t in tasks], 7)
    for inference, single in zip(found, (params, other), strict=True):
        expected = by_hand(hnet, mnet, single, tasks)
        assert inference.cl1 == pytest.approx(expected["cl1"])
        for rule in ("entropy", "confidence"):
            content = inference._asdict()
            assert content[f"cl2_{rule}"] == pytest.approx(expected[f"cl2_{rule}"])
            assert content[f"cl3_{rule}"] == pytest.approx(expected[f"cl3_{rule}"])
            assert content[f"task_inference_{rule}"] == pytest.approx(expected[f"task_{rule}"])
        diagonal = [row[i] for i, row in enumerate(inference.task_confusion)]
        assert diagonal == pytest.approx(expected["task_entropy"])
        assert [sum(row) for row in inference.task_confusion] == pytest.approx([100] * 3)
    assert any(x.task_inference_confidence != x.task_inference_entropy for x in found)
    assert 0 < sum(found[0].task_inference_entropy) < 300


@pytest.mark.parametrize("net", ["mlp", "resnet"])
def test_the_known_task_is_tested_on_the_same_batches(net):
    """With a batch's own statistics it matters; 30 = 29 + 1 would leave a batch without any."""
    tasks = [make_task((32, 32, 3)), make_task((32, 32, 3), seed=1)]
    mnet, _, hnet, params = make_networks(tasks[0], net, batchnorm=True, running_stats=False)
    tests = [task.test for task in tasks]
    (found,) = scenarios.infer_tasks(hnet, mnet, params, tasks, tests, 29)
    accuracy = [evaluate(hnet, mnet, params, t, i, t.test, 29)[0] for i, t in enumerate(tasks)]
    assert found.cl1 == pytest.approx([100 * value for value in accuracy])


def test_saturated_networks_have_an_entropy():
    """With weights so large that a softmax gives exact zeros."""
    tasks = [make_task((6, 6, 1)), make_task((6, 6, 1), seed=1)]
    mnet, _, hnet, params = make_networks(tasks[0])
    params = {name: 50 * value for name, value in params.items()}
    (found,) = scenarios.infer_tasks(hnet, mnet, params, tasks, [t.test for t in tasks], 100)
    assert not any(math.isnan(value) for values in found[:-1] for value in values)
    assert [sum(row) for row in found.task_confusion] == pytest.approx([100] * 2)


def test_of_two_classes_the_lower_entropy_is_the_higher_confidence():
    """Also where most confidences are 1 in float32, and entropies still differ."""
    tasks = [make_task((6, 6, 1), seed=seed) for seed in range(3)]
    mnet, _, hnet, params = make_networks(tasks[0])
    params = {name: 2.2 * value for name, value in params.items()}
    weights = hnet.weights(params, torch.tensor([[0, 1, 2]]))[0]
    inputs = tasks[0].inputs(tasks[0].test.images)
    logits = [mnet.forward(inputs, weights=hnet.split(w)) for w in weights]
    assert (torch.stack(logits).softmax(-1).amax(-1) == 1).float().mean() > 0.3
    (found,) = scenarios.infer_tasks(hnet, mnet, params, tasks, [t.test for t in tasks], 100)
    assert found.task_inference_confidence == found.task_inference_entropy
    assert found.cl3_confidence == found.cl3_entropy
