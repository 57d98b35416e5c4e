"""Task inference against a slow loop over samples and networks."""

import math

import pytest
import torch
from test_train import make_networks, make_task

from hypercl import scenarios
from hypercl.members import select_members, stack_members
from hypercl.tasks import Task


def by_hand(hnet, mnet, params, tasks):
    """CL1, CL2 and CL3 by entropy, the task inferred, by task."""
    found = {"cl1": [], "cl2": [], "cl3": [], "task": []}
    for true, task in enumerate(tasks):
        right = dict.fromkeys(found, 0)
        for image, label in zip(*task.test, strict=True):
            entropies, classes = [], []
            for other, that in enumerate(tasks):
                weights = hnet.split(hnet.weights(params, torch.tensor([[other]]))[0, 0])
                logits = mnet.forward(task.inputs(image[None]), weights=weights)[0, that.outputs]
                chances = logits.softmax(0).tolist()
                entropies.append(-sum(p * math.log(p) for p in chances if p > 0))
                classes.append(chances.index(max(chances)))
            inferred = entropies.index(min(entropies))
            right["cl1"] += classes[true] == label
            right["cl2"] += classes[inferred] == label
            right["cl3"] += classes[inferred] == label and inferred == true
            right["task"] += inferred == true
        for name, count in right.items():
            found[name].append(100 * float(count) / len(task.test.labels))
    return found


@pytest.mark.parametrize("at_once", [1, 10**9], ids=["task by task", "all at once"])
@pytest.mark.parametrize("multi_head", [True, False])
def test_accuracies_of_the_scenarios(multi_head, at_once, monkeypatch):
    monkeypatch.setattr(scenarios, "_NUMBERS", at_once)
    made = [make_task((6, 6, 1), seed=seed) for seed in range(3)]
    tasks = [
        Task(
            t.name, 2, t.train, t.validation, t.test, permutation=torch.randperm(36),
            first_output=2 * i if multi_head else None,
        )
        for i, t in enumerate(made)
    ]  # fmt: skip
    mnet, _, hnet, params = make_networks(tasks[0], multi_head=multi_head)
    other = {name: value + 0.1 * torch.randn_like(value) for name, value in params.items()}
    both = stack_members([select_members(params, 0), select_members(other, 0)])
    found = scenarios.infer_tasks(hnet, mnet, both, tasks, [t.test for t in tasks], 7)
    for inference, single in zip(found, (params, other), strict=True):
        expected = by_hand(hnet, mnet, single, tasks)
        assert inference.cl1 == pytest.approx(expected["cl1"])
        assert inference.cl2_entropy == pytest.approx(expected["cl2"])
        assert inference.cl3_entropy == pytest.approx(expected["cl3"])
        assert inference.task_inference_entropy == pytest.approx(expected["task"])
        diagonal = [row[i] for i, row in enumerate(inference.task_confusion)]
        assert diagonal == pytest.approx(expected["task"])
        assert [sum(row) for row in inference.task_confusion] == pytest.approx([100] * 3)
    # With two classes, the lower entropy is the higher confidence.
    assert found[0].cl3_confidence == found[0].cl3_entropy
    assert found[0].cl2_confidence == found[0].cl2_entropy
    assert 0 < sum(found[0].task_inference_entropy) < 300


def test_saturated_networks_have_an_entropy():
    """With weights so large that a softmax gives exact zeros."""
    tasks = [make_task((6, 6, 1)), make_task((6, 6, 1), seed=1)]
    mnet, _, hnet, params = make_networks(tasks[0])
    params = {name: 50 * value for name, value in params.items()}
    (found,) = scenarios.infer_tasks(hnet, mnet, params, tasks, [t.test for t in tasks], 100)
    assert not any(math.isnan(value) for values in found[:-1] for value in values)
    assert [sum(row) for row in found.task_confusion] == pytest.approx([100] * 2)
