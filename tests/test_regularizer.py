"""The regularizer against hypnettorch's, on hypnettorch's own forward pass."""

import pytest
import torch
from conftest import make_hypernet
from hypnettorch.utils.hnet_regularizer import calc_fix_target_reg, get_current_targets

from hypercl.hypernet import into_module
from hypercl.regularizer import draw_subsets, drift, take_checkpoint

TASK_ID = 3


def moved(params, scale=0.1):
    torch.manual_seed(7)
    return {name: value + scale * torch.randn_like(value) for name, value in params.items()}


def grads_by_module(module, hnet, grads):
    """Our gradients as hypnettorch would name them: through a copy of the module."""
    into_module(grads, module)
    return [parameter.detach().clone() for parameter in module.internal_params]


@pytest.mark.parametrize("store_targets", [True, False], ids=["stored", "online"])
def test_value_and_gradients_equal_hypnettorchs(hypernet, store_targets):
    module, hnet, params = hypernet
    checkpoint = take_checkpoint(hnet, params, TASK_ID, store_targets=store_targets)

    # theirs
    targets = get_current_targets(TASK_ID, module)
    theta = [p.detach().clone() for p in module.unconditional_params]
    embs = [p.detach().clone() for p in module.conditional_params]
    now = moved(params)
    into_module(now, module)
    if store_targets:
        expected = calc_fix_target_reg(module, TASK_ID, targets=targets)
    else:
        expected = calc_fix_target_reg(
            module, TASK_ID, prev_theta=theta, prev_task_embs=embs
        )  # fmt: skip
    expected.backward()
    expected_grads = [
        torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in module.internal_params
    ]

    # ours
    earlier = torch.arange(TASK_ID)
    leaves = hnet.leaves(now, 4)
    value = drift(hnet.weights(leaves, earlier, training=True), checkpoint.targets(earlier))
    value.backward()
    assert value.item() > 0
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    grads = {name: leaf.grad for name, leaf in leaves.items()}
    for ours, theirs in zip(grads_by_module(module, hnet, grads), expected_grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-12)


def test_no_gradient_reaches_the_checkpoint(hypernet):
    _, hnet, params = hypernet
    params = {name: value.requires_grad_() for name, value in params.items()}
    for store_targets in (True, False):
        checkpoint = take_checkpoint(hnet, params, TASK_ID, store_targets=store_targets)
        assert not any(value.requires_grad for value in checkpoint.params.values())
        assert not checkpoint.targets(torch.arange(TASK_ID)).requires_grad


def test_drift_is_zero_at_the_checkpoint_and_grows_from_it(hypernet):
    _, hnet, params = hypernet
    checkpoint = take_checkpoint(hnet, params, TASK_ID)
    earlier = torch.arange(TASK_ID)
    targets = checkpoint.targets(earlier)
    values = [drift(hnet.weights(moved(params, s), earlier), targets) for s in (0, 0.01, 0.1)]
    assert values[0] == 0 < values[1] < values[2]


def test_checkpoint_stays_when_the_parameters_change(hypernet):
    _, hnet, params = hypernet
    earlier = torch.arange(TASK_ID)
    for store_targets in (True, False):
        checkpoint = take_checkpoint(hnet, params, TASK_ID, store_targets=store_targets)
        before = checkpoint.targets(earlier)
        backup = {name: value.clone() for name, value in params.items()}
        for value in params.values():
            value += 1
        assert torch.equal(checkpoint.targets(earlier), before)
        params = backup


def test_checkpoint_is_in_evaluation_mode():
    _, hnet, params = make_hypernet(hnet_type="chunked_hmlp", dropout_rate=0.5)
    earlier = torch.arange(TASK_ID)
    evaluated = hnet.weights(params, earlier, training=False)
    for store_targets in (True, False):
        checkpoint = take_checkpoint(hnet, params, TASK_ID, store_targets=store_targets)
        assert torch.equal(checkpoint.targets(earlier), evaluated)


def test_first_task_has_no_checkpoint(hypernet):
    _, hnet, params = hypernet
    assert take_checkpoint(hnet, params, 0) is None


def test_mean_over_the_tasks_taken():
    weights, targets = torch.zeros(2, 3), torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    assert drift(weights, targets) == (1 + 4 + 9) / 2
    assert drift(weights[:1], targets[:1]) == 5


def test_subsets():
    generator = torch.Generator().manual_seed(0)
    subsets = draw_subsets(5, 400, 2, generator)
    assert subsets.shape == (400, 2)
    assert (subsets[:, 0] != subsets[:, 1]).all()
    assert (torch.bincount(subsets.flatten(), minlength=5) > 100).all()  # 160 expected
    for size in (-1, 0, 5, 9):
        assert draw_subsets(5, 3, size, generator).tolist() == [[0, 1, 2, 3, 4]] * 3
    assert draw_subsets(0, 3, 1, generator).shape == (3, 0)
