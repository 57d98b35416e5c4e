"""The regularizer: against hypnettorch's, the factored form against the dense one."""

import pytest
import torch
from conftest import HYPERNETS, make_hypernet
from hypnettorch.utils.hnet_regularizer import calc_fix_target_reg, get_current_targets

from hypercl.engine.members import stack_members
from hypercl.methods.hnet import regularizer
from hypercl.methods.hnet.heads import Heads, head_of_each_task
from hypercl.methods.hnet.regularizer import (
    choose_factored,
    count_multiplications,
    draw_subsets,
    take_checkpoint,
)
from hypercl.networks.hypernet import from_module, into_module
from hypercl.networks.nets import build_hypernet, build_main_net

TASK_ID = 3
FORMS = {
    "factored": {"factored": True},
    "stored": {"factored": False},
    "online": {"factored": False, "store_targets": False},
}


def moved(params, scale=0.1):
    torch.manual_seed(7)
    return {name: value + scale * torch.randn_like(value) for name, value in params.items()}


def drift_and_gradient(checkpoint, params, earlier=None, training=True):
    """Of the tasks 0 … TASK_ID - 1 unless others are given."""
    ids = torch.tensor(list(range(TASK_ID)) if earlier is None else earlier)
    ids = ids.expand(len(params["weight0"]), -1)
    value, gradient = regularizer.drift_and_gradient(
        checkpoint, params, ids, 1.0, training=training
    )  # fmt: skip
    return value, {name: gradient[name] for name in params}


@pytest.fixture(params=[1, 1000], ids=["small blocks", "one block"])
def blocks(request, monkeypatch):
    """Tasks one by one through the factored form, or all at once."""
    monkeypatch.setitem(regularizer._BLOCK_ROWS, "cpu", request.param)


@pytest.fixture
def stacked(hypernet):
    module, hnet, params = hypernet
    return module, hnet, stack_members([params])


@pytest.mark.parametrize("form", FORMS)
def test_value_and_gradients_equal_hypnettorchs(stacked, form, blocks):
    module, hnet, params = stacked
    checkpoint = take_checkpoint(hnet, params, TASK_ID, **FORMS[form])

    # theirs
    targets = get_current_targets(TASK_ID, module)
    theta = [p.detach().clone() for p in module.unconditional_params]
    embs = [p.detach().clone() for p in module.conditional_params]
    now = moved(params)
    into_module({name: value[0] for name, value in now.items()}, module)
    options = {"prev_theta": theta, "prev_task_embs": embs}
    if form == "stored":
        options = {"targets": targets}
    expected = calc_fix_target_reg(module, TASK_ID, **options)
    expected.backward()
    expected_grads = [
        torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in module.internal_params
    ]

    # ours
    value, gradient = drift_and_gradient(checkpoint, now)
    assert value.item() > 0
    torch.testing.assert_close(value[0], expected.detach(), rtol=1e-6, atol=0)
    into_module({name: grad[0] for name, grad in gradient.items()}, module)  # under its names
    for ours, theirs in zip(module.internal_params, expected_grads, strict=True):
        torch.testing.assert_close(ours.detach(), theirs, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("chunk_size", [None, 5, 11, 100])
def test_heads_of_other_tasks_are_left_out_as_hypnettorch_does(chunk_size, bias, form, blocks):
    """Heads that are parts of one chunk, of several, or whole chunks."""
    mnet = build_main_net("mlp", (2, 2, 1), 8, mlp_arch=(3,), bias=bias)
    outputs = [range(2 * i, 2 * i + 2) for i in range(4)]
    options = {"hnet_type": "hmlp"}
    if chunk_size is not None:
        options = {"hnet_type": "chunked_hmlp", "chunk_size": chunk_size}
    module, hnet, params = make_hypernet(target_shapes=mnet.param_shapes, **options)
    params = stack_members([params])
    heads = head_of_each_task(mnet.param_shapes, outputs)
    checkpoint = take_checkpoint(hnet, params, TASK_ID, heads=heads, **FORMS[form])
    targets = get_current_targets(TASK_ID, module)
    now = moved(params)
    into_module({name: value[0] for name, value in now.items()}, module)
    expected = calc_fix_target_reg(
        module, TASK_ID, targets=targets, mnet=mnet, inds_of_out_heads=[list(o) for o in outputs]
    )
    expected.backward()
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in module.internal_params]

    value, gradient = drift_and_gradient(checkpoint, now)
    torch.testing.assert_close(value[0], expected.detach(), rtol=1e-6, atol=0)
    into_module({name: grad[0] for name, grad in gradient.items()}, module)
    for ours, theirs in zip(module.internal_params, grads, strict=True):
        torch.testing.assert_close(ours.detach(), theirs, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("num_members", [1, 3])
def test_heads_for_subsets_and_members(num_members):
    made = [make_hypernet(seed=i, **HYPERNETS["chunked"]) for i in range(num_members)]
    hnet = made[0][1]
    params = stack_members([params for _, _, params in made])
    heads = Heads(29, 13, tuple((range(13 + 4 * i, 17 + 4 * i), range(28, 29)) for i in range(3)))
    values, gradients = zip(
        *(
            drift_and_gradient(
                take_checkpoint(hnet, params, TASK_ID, subset_size=2, heads=heads, **form),
                moved(params),
                [2, 0],
            )
            for form in FORMS.values()
        ),
        strict=True,
    )
    for value, gradient in zip(values[1:], gradients[1:], strict=True):
        torch.testing.assert_close(value, values[0], rtol=1e-12, atol=0)
        for name, grad in gradient.items():
            assert (grad - gradients[0][name]).norm() <= 1e-10 * grad.norm(), name


@pytest.mark.parametrize("earlier", [None, [2, 0]], ids=["all", "subset"])
@pytest.mark.parametrize("num_members", [1, 3])
@pytest.mark.parametrize("kind", HYPERNETS)
def test_factored_form_equals_the_dense_one(kind, num_members, earlier, blocks):
    made = [make_hypernet(seed=seed, **HYPERNETS[kind]) for seed in range(num_members)]
    hnet = made[0][1]
    params = stack_members([params for _, _, params in made])
    size = -1 if earlier is None else len(earlier)
    results = [
        drift_and_gradient(
            take_checkpoint(hnet, params, TASK_ID, subset_size=size, **form),
            moved(params),
            earlier,
        )
        for form in FORMS.values()
    ]
    factored, factored_gradient = results[0]
    for value, gradient in results[1:]:
        torch.testing.assert_close(value, factored, rtol=1e-12, atol=0)
        for name, grad in gradient.items():
            assert (grad - factored_gradient[name]).norm() <= 1e-10 * grad.norm(), name


@pytest.mark.parametrize("form", FORMS)
def test_no_gradient_reaches_the_checkpoint(stacked, form):
    _, hnet, params = stacked
    params = {name: value.requires_grad_() for name, value in params.items()}
    checkpoint = take_checkpoint(hnet, params, TASK_ID, **FORMS[form])
    assert not any(value.requires_grad for value in checkpoint.kept.values())
    drift_and_gradient(checkpoint, moved(params))
    assert all(value.grad is None for value in params.values())


@pytest.mark.parametrize("form", FORMS)
def test_drift_is_zero_at_the_checkpoint_and_grows_from_it(stacked, form):
    _, hnet, params = stacked
    checkpoint = take_checkpoint(hnet, params, TASK_ID, **FORMS[form])
    values = []
    for scale in (0, 0.01, 0.1):
        value, gradient = drift_and_gradient(checkpoint, moved(params, scale))
        values.append(value.item())
        largest = max(grad.abs().max() for grad in gradient.values())
        assert (largest > 1e-9) == (scale > 0)  # in float64, other rounding of the same products
    assert values[0] < 1e-24
    assert values[0] < values[1] < values[2]


@pytest.mark.parametrize("form", FORMS)
def test_checkpoint_stays_when_the_parameters_change(stacked, form):
    _, hnet, params = stacked
    checkpoint = take_checkpoint(hnet, params, TASK_ID, **FORMS[form])
    now = moved(params)
    before, _ = drift_and_gradient(checkpoint, now)
    for value in params.values():
        value += 1
    assert torch.equal(drift_and_gradient(checkpoint, now)[0], before)


@pytest.mark.parametrize("form", FORMS)
def test_checkpoint_is_in_evaluation_mode(form):
    """With dropout in training, the drift at the checkpoint is that of the dropout alone."""
    _, hnet, params = make_hypernet(hnet_type="chunked_hmlp", dropout_rate=0.5)
    stacked = stack_members([params])
    checkpoint = take_checkpoint(hnet, stacked, TASK_ID, **FORMS[form])
    assert drift_and_gradient(checkpoint, stacked, training=False)[0] < 1e-24
    torch.manual_seed(0)
    value, _ = drift_and_gradient(checkpoint, stacked)
    earlier = torch.arange(TASK_ID)[None]
    torch.manual_seed(0)
    weights = hnet.generate(stacked, hnet.forward(stacked, earlier, training=True).features)
    expected = (weights - hnet.weights(stacked, earlier)).square().sum() / TASK_ID
    torch.testing.assert_close(value[0], expected)
    assert value > 0


def test_first_task_has_no_checkpoint(stacked):
    _, hnet, params = stacked
    assert take_checkpoint(hnet, params, 0) is None


def test_form_is_chosen_by_the_number_of_multiplications():
    """Few rows and a wide layer: dense; many rows: factored."""
    shapes = [[100, 784], [100], [100, 100], [100], [2, 100], [2]]
    hnets = {}
    for kind in ("chunked_hmlp", "hmlp"):
        module = build_hypernet(kind, shapes, 3)
        hnet, params = from_module(module, activation="relu", dropout_rate=-1)
        hnets[kind] = hnet, stack_members([params])
    d, chunk = 100, 750
    # worked by hand: 119 chunks, of which one is cut
    assert count_multiplications(*hnets["chunked_hmlp"], 9) == (
        3 * 9 * 119 * chunk * d,
        4 * 9 * 119 * d * d + 4 * 9 * chunk * d + 5 * chunk * d * d,
    )
    assert count_multiplications(*hnets["chunked_hmlp"], 9, 2) == count_multiplications(
        *hnets["chunked_hmlp"], 2
    )
    assert count_multiplications(*hnets["hmlp"], 4)[0] == 3 * 4 * 88_802 * d
    online = count_multiplications(*hnets["hmlp"], 4, store_targets=False)
    assert online[0] == 4 * 4 * 88_802 * d
    chosen = [choose_factored(*hnets["chunked_hmlp"], tasks) for tasks in (1, 2, 9, 99)]
    assert chosen == [False, True, True, True]
    assert not choose_factored(*hnets["chunked_hmlp"], 99, 1)
    assert not choose_factored(*hnets["hmlp"], 9)
    assert take_checkpoint(*hnets["chunked_hmlp"], 2).factored
    assert not take_checkpoint(*hnets["hmlp"], 1).factored


def test_factored_checkpoint_keeps_features_not_weights():
    module = build_hypernet("chunked_hmlp", [[88_802]], 100)
    hnet, params = from_module(module, activation="relu", dropout_rate=-1)
    params = stack_members([params])
    factored = take_checkpoint(hnet, params, 99)
    dense = take_checkpoint(hnet, params, 99, factored=False)
    assert dense.num_bytes == 99 * 88_802 * 4
    cut = 750 * 4 + 8  # which weights of the last chunk are used
    assert factored.num_bytes == (99 * 119 * 100 + 101 * 101 + 750 * 101) * 4 + cut


@pytest.mark.parametrize("kind", ["chunked_hmlp", "hmlp"])
@pytest.mark.parametrize("steps", [1, 100])
def test_float32_gradient_stays_close_to_float64(kind, steps):
    """After so many steps of Adam towards another task; benchmarks/precision.py goes further."""
    torch.manual_seed(0)
    options = {"chunk_size": 60} if kind == "chunked_hmlp" else {}
    module = build_hypernet(kind, [[40, 30], [40], [17]], 4, hmlp_arch=(20, 20), **options)
    hnet, params = from_module(module, activation="relu", dropout_rate=-1)
    params = stack_members([params])
    checkpoint = take_checkpoint(hnet, params, TASK_ID, factored=True)
    _, now = hnet.to_train(params, 4)
    target = torch.randn(hnet.num_weights)
    optimizer = torch.optim.Adam(now.values(), lr=1e-3)
    for _ in range(steps):
        leaves = {name: value.detach().requires_grad_() for name, value in now.items()}
        weights = hnet.weights(leaves, torch.tensor([[TASK_ID]]))
        loss = (weights - target).square().mean()
        _, gradient = drift_and_gradient(checkpoint, now)
        grads = torch.autograd.grad(loss, list(leaves.values()))
        for (name, value), grad in zip(now.items(), grads, strict=True):
            value.grad = grad + 0.01 * gradient[name]
        optimizer.step()

    def measure(dtype, factored):
        star = {name: value.to(dtype) for name, value in params.items()}
        kept = take_checkpoint(hnet, star, TASK_ID, factored=factored)
        at = {name: value.to(dtype) for name, value in now.items()}
        value, gradient = drift_and_gradient(kept, at)
        return value.item(), torch.cat([g.flatten().double() for g in gradient.values()])

    single, single_gradient = measure(torch.float32, True)
    double, double_gradient = measure(torch.float64, False)
    assert single == pytest.approx(double, rel=1e-4)
    assert (single_gradient - double_gradient).norm() <= 1e-4 * double_gradient.norm()


def test_mean_over_the_tasks_taken():
    """Two tasks, of which the second alone has moved, by 3 in one weight."""
    _, hnet, params = make_hypernet(hnet_type="hmlp", num_tasks=2)
    params = stack_members([params])
    checkpoint = take_checkpoint(hnet, params, 2, factored=False)
    weights = hnet.weights(params, torch.tensor([[0, 1]]))
    weights[0, 1, 5] += 3
    ids = torch.tensor([[0, 1]])
    value, pulled, _ = checkpoint.drift_and_gradient(params, ids, weights, beta=0.5)
    assert value.item() == pytest.approx(9 / 2)
    assert pulled[0, 1, 5].item() == pytest.approx(0.5 * 2 * 3 / 2)
    assert pulled.count_nonzero() == 1


def test_subsets():
    generator = torch.Generator().manual_seed(0)
    subsets = draw_subsets(5, 400, 2, generator)
    assert subsets.shape == (400, 2)
    assert (subsets[:, 0] != subsets[:, 1]).all()
    assert (torch.bincount(subsets.flatten(), minlength=5) > 100).all()  # 160 expected
    for size in (-1, 0, 5, 9):
        assert draw_subsets(5, 3, size, generator).tolist() == [[0, 1, 2, 3, 4]]
    assert draw_subsets(0, 3, 1, generator).shape == (1, 0)
