"""Rules that infer tasks, by numbers that one can follow."""

import pytest
import torch

from hypercl.inference import (
    OF_METHODS,
    RULES,
    Outputs,
    confusion_of,
    margin,
    names_by,
    rules_in,
    rules_with,
)


def scores(logits, scales=None):
    """Of one member and one sample, by rule: a number a task.

    Args:
        logits: By task.
        scales: Median margins, by task.
    """
    values = torch.tensor(logits)[None, :, None, :]
    task_ids = torch.arange(len(logits))
    outputs = Outputs(values, values.log_softmax(-1), task_ids, torch.zeros(1, 1))
    kept = {} if scales is None else {"margin": torch.tensor([scales])}
    return {name: rule(outputs)[0, :, 0].tolist() for name, rule in rules_with(kept).items()}


def inferred(logits, scales):
    """The task by each rule."""
    return {name: torch.tensor(own).argmax().item() for name, own in scores(logits, scales).items()}


def test_each_rule_has_its_own_reason():
    # The first network is sure of one of three classes, the second has the largest logits, and the
    # third is as sure as it is of its own samples, the others not.
    logits = [[2.0, 0.0, 0.0], [9.0, 8.0, -9.0], [1.0, 0.0, 0.5]]
    assert inferred(logits, [8.0, 10.0, 0.5]) == {"entropy": 1, "confidence": 0, "scaled": 2}


def test_scores_are_those_of_their_formulas():
    found = scores([[1.0, 3.0], [0.0, 0.0]], [4.0, 1.0])
    assert found["scaled"] == [0.5, 0.0]
    half = torch.tensor(0.5).log().item()
    assert found["entropy"][1] == pytest.approx(half)  # minus log 2
    assert found["confidence"][1] == pytest.approx(-half)


def test_of_equal_scores_the_first_task_wins():
    assert set(inferred([[1.0, 2.0], [2.0, 1.0]], [3.0, 3.0]).values()) == {0}


def test_networks_without_a_scale_make_no_nan():
    """Of one whose logits are all equal, the median margin is 0."""
    found = scores([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]], [0.0, 0.0, 1.0])["scaled"]
    assert (found[0], found[2]) == (0, 2)
    assert found[1] > 1e30


def test_scales_are_those_of_the_networks_at_hand():
    """A group of tasks, as those with one number of classes are."""
    logits = torch.tensor([[1.0, 0.0], [1.0, 0.0]])[None, :, None, :]
    outputs = Outputs(logits, logits.log_softmax(-1), torch.tensor([2, 0]), torch.zeros(1, 1))
    rule = rules_with({"margin": torch.tensor([[2.0, 5.0, 4.0]])})["scaled"]
    assert rule(outputs).flatten().tolist() == [0.25, 0.5]


def test_the_margin_is_between_the_largest_two():
    assert margin(torch.tensor([[1.0, 5.0, 3.0], [2.0, 2.0, 0.0]])).tolist() == [2, 0]


def test_names_say_the_rule():
    assert {*rules_with({"margin": torch.ones(1, 1)}), *OF_METHODS} == set(RULES)
    assert names_by(["entropy"]) == ("cl2_entropy", "cl3_entropy", "task_inference_entropy")
    assert rules_in(["cl1", "cl3_scaled", "task_inference_entropy"]) == ["entropy", "scaled"]
    assert rules_in(["cl1", "final_accuracy"]) == []
    assert [confusion_of(rule) for rule in ("entropy", "scaled")] == [
        "task_confusion", "task_confusion_scaled",
    ]  # fmt: skip
