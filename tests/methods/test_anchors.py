"""The regularizer: against hypnettorch's, the factored form against the dense one."""

import pytest
import torch
from helpers import HYPERNETS, build_main_net, build_module, make_hypernet
from hypnettorch.utils.hnet_regularizer import calc_fix_target_reg, get_current_targets

from hypercl.engine.members import stack_members
from hypercl.methods.hnet import factored as factored_form
from hypercl.methods.hnet import output_regularizer
from hypercl.methods.hnet.choice import count_multiplications, factored_is_cheaper, take_anchor
from hypercl.methods.hnet.output_regularizer import draw_subsets
from hypercl.networks.heads import Heads, head_of_each_task
from hypercl.networks.hnet_modules import as_function, into_module
from hypercl.options import Options

TASK_ID = 3
FORMS = {
    "factored": {"factored": True},
    "stored": {"factored": False},
    "online": {"factored": False, "store_targets": False},
}


def moved(params, scale=0.1):
    torch.manual_seed(7)
    return {name: value + scale * torch.randn_like(value) for name, value in params.items()}


def penalty_and_gradient(anchor, params, earlier=None, training=True):
    """Of the tasks 0 … TASK_ID - 1 unless others are given."""
    ids = torch.tensor(list(range(TASK_ID)) if earlier is None else earlier)
    ids = ids.expand(len(params["weight0"]), -1)
    value, gradient = output_regularizer.penalty_and_gradient(
        anchor, params, ids, 1.0, training=training
    )  # fmt: skip
    return value, {name: gradient[name] for name in params}


@pytest.fixture(params=[1, 1000], ids=["small blocks", "one block"])
def blocks(request, monkeypatch):
    """Tasks one by one through the factored form, or all at once."""
    monkeypatch.setitem(factored_form._BLOCK_ROWS, "cpu", request.param)


@pytest.fixture
def stacked(hypernet):
    module, hnet, params = hypernet
    return module, hnet, stack_members([params])


@pytest.mark.parametrize("form", FORMS)
def test_value_and_gradients_equal_hypnettorchs(stacked, form, blocks):
    module, hnet, params = stacked
    anchor = take_anchor(hnet, params, TASK_ID, **FORMS[form])

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
    value, gradient = penalty_and_gradient(anchor, now)
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
    net = build_main_net("mlp", (2, 2, 1), 8, mlp_arch=[3], no_bias=not bias)
    outputs = [slice(2 * i, 2 * i + 2) for i in range(4)]
    options = {"hnet_type": "hmlp"}
    if chunk_size is not None:
        options = {"chmlp_chunk_size": chunk_size}
    module, hnet, params = make_hypernet(target_shapes=net.shapes, **options)
    params = stack_members([params])
    heads = head_of_each_task(net.shapes, outputs, net.num_output_tensors)
    anchor = take_anchor(hnet, params, TASK_ID, heads=heads, **FORMS[form])
    targets = get_current_targets(TASK_ID, module)
    now = moved(params)
    into_module({name: value[0] for name, value in now.items()}, module)
    expected = calc_fix_target_reg(
        module,
        TASK_ID,
        targets=targets,
        mnet=net.module,
        inds_of_out_heads=[list(range(8)[o]) for o in outputs],
    )
    expected.backward()
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in module.internal_params]

    value, gradient = penalty_and_gradient(anchor, now)
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
            penalty_and_gradient(
                take_anchor(hnet, params, TASK_ID, subset_size=2, heads=heads, **form),
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
    size = None if earlier is None else len(earlier)
    results = [
        penalty_and_gradient(
            take_anchor(hnet, params, TASK_ID, subset_size=size, **form),
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
def test_no_gradient_reaches_the_anchor(stacked, form):
    _, hnet, params = stacked
    params = {name: value.requires_grad_() for name, value in params.items()}
    anchor = take_anchor(hnet, params, TASK_ID, **FORMS[form])
    assert not any(value.requires_grad for value in anchor.kept.values())
    penalty_and_gradient(anchor, moved(params))
    assert all(value.grad is None for value in params.values())


@pytest.mark.parametrize("form", FORMS)
def test_penalty_is_zero_at_the_anchor_and_grows_from_it(stacked, form):
    _, hnet, params = stacked
    anchor = take_anchor(hnet, params, TASK_ID, **FORMS[form])
    values = []
    for scale in (0, 0.01, 0.1):
        value, gradient = penalty_and_gradient(anchor, moved(params, scale))
        values.append(value.item())
        largest = max(grad.abs().max() for grad in gradient.values())
        assert (largest > 1e-9) == (scale > 0)  # in float64, other rounding of the same products
    assert values[0] < 1e-24
    assert values[0] < values[1] < values[2]


@pytest.mark.parametrize("form", FORMS)
def test_anchor_stays_when_the_parameters_change(stacked, form):
    _, hnet, params = stacked
    anchor = take_anchor(hnet, params, TASK_ID, **FORMS[form])
    now = moved(params)
    before, _ = penalty_and_gradient(anchor, now)
    for value in params.values():
        value += 1
    assert torch.equal(penalty_and_gradient(anchor, now)[0], before)


@pytest.mark.parametrize("form", FORMS)
def test_anchor_is_in_evaluation_mode(form):
    """With dropout in training, the penalty at the anchor is that of the dropout alone."""
    _, hnet, params = make_hypernet(hnet_dropout_rate=0.5)
    stacked = stack_members([params])
    anchor = take_anchor(hnet, stacked, TASK_ID, **FORMS[form])
    assert penalty_and_gradient(anchor, stacked, training=False)[0] < 1e-24
    torch.manual_seed(0)
    value, _ = penalty_and_gradient(anchor, stacked)
    earlier = torch.arange(TASK_ID)[None]
    torch.manual_seed(0)
    weights = hnet.generate(stacked, hnet.forward(stacked, earlier, training=True).features)
    expected = (weights - hnet.weights(stacked, earlier)).square().sum() / TASK_ID
    torch.testing.assert_close(value[0], expected)
    assert value > 0


def test_first_task_has_no_anchor(stacked):
    _, hnet, params = stacked
    assert take_anchor(hnet, params, 0) is None


def published(kind, shapes, num_tasks):
    """A hypernetwork of the default sizes, as a function, and its parameters."""
    options = {"hnet_type": kind}
    module = build_module(shapes, num_tasks, **options)
    hnet, params = as_function(module, Options.of(options).hypernet)
    return hnet, stack_members([params])


def test_form_is_chosen_by_the_number_of_multiplications():
    """Few rows and a wide layer: dense; many rows: factored."""
    shapes = [[100, 784], [100], [100, 100], [100], [2, 100], [2]]
    hnets = {}
    for kind in ("chunked_hmlp", "hmlp"):
        hnets[kind] = published(kind, shapes, 3)
    d, chunk = 100, 750
    # worked by hand: 119 chunks, of which one is cut
    assert count_multiplications(*hnets["chunked_hmlp"], 9) == (
        3 * 9 * 119 * chunk * d,
        4 * 9 * 119 * d * d + 4 * 9 * chunk * d + 4 * chunk * d * d,
    )
    assert count_multiplications(*hnets["chunked_hmlp"], 9, 2) == count_multiplications(
        *hnets["chunked_hmlp"], 2
    )
    assert count_multiplications(*hnets["hmlp"], 4)[0] == 3 * 4 * 88_802 * d
    online = count_multiplications(*hnets["hmlp"], 4, store_targets=False)
    assert online[0] == 4 * 4 * 88_802 * d
    chosen = [factored_is_cheaper(*hnets["chunked_hmlp"], tasks) for tasks in (1, 2, 9, 99)]
    assert chosen == [False, True, True, True]
    assert not factored_is_cheaper(*hnets["chunked_hmlp"], 99, 1)
    assert not factored_is_cheaper(*hnets["hmlp"], 9)
    assert take_anchor(*hnets["chunked_hmlp"], 1).form == "dense"


def test_factored_anchor_keeps_features_not_weights():
    hnet, params = published("chunked_hmlp", [[88_802]], 100)
    factored = take_anchor(hnet, params, 99)
    dense = take_anchor(hnet, params, 99, factored=False)
    assert dense.num_bytes == 99 * 88_802 * 4
    cut = 750 * 4 + 8  # which weights of the last chunk are used
    assert factored.num_bytes == (99 * 119 * 100 + 101 * 101 + 100 * 100 + 750 * 101) * 4 + cut


@pytest.mark.parametrize("kind", ["chunked_hmlp", "hmlp"])
@pytest.mark.parametrize("steps", [1, 100])
def test_float32_gradient_stays_close_to_float64(kind, steps):
    """After so many steps of Adam towards another task; benchmarks/precision.py goes further."""
    torch.manual_seed(0)
    _, hnet, params = make_hypernet(
        hnet_type=kind, target_shapes=[[40, 30], [40], [17]], hmlp_arch=[20, 20],
        cond_emb_size=8, chunk_emb_size=8, chmlp_chunk_size=60, dtype=torch.float32,
    )  # fmt: skip
    params = stack_members([params])
    anchor = take_anchor(hnet, params, TASK_ID, factored=True)
    now = {name: value.clone() for name, value in params.items()}
    target = torch.randn(hnet.num_weights)
    optimizer = torch.optim.Adam(now.values(), lr=1e-3)
    for _ in range(steps):
        leaves = {name: value.detach().requires_grad_() for name, value in now.items()}
        weights = hnet.weights(leaves, torch.tensor([[TASK_ID]]))
        loss = (weights - target).square().mean()
        _, gradient = penalty_and_gradient(anchor, now)
        grads = torch.autograd.grad(loss, list(leaves.values()))
        for (name, value), grad in zip(now.items(), grads, strict=True):
            value.grad = grad + 0.01 * gradient[name]
        optimizer.step()

    def measure(dtype, factored):
        star = {name: value.to(dtype) for name, value in params.items()}
        kept = take_anchor(hnet, star, TASK_ID, factored=factored)
        at = {name: value.to(dtype) for name, value in now.items()}
        value, gradient = penalty_and_gradient(kept, at)
        return value.item(), torch.cat([g.flatten().double() for g in gradient.values()])

    single, single_gradient = measure(torch.float32, True)
    double, double_gradient = measure(torch.float64, False)
    assert single == pytest.approx(double, rel=1e-4)
    assert (single_gradient - double_gradient).norm() <= 1e-4 * double_gradient.norm()


def test_mean_over_the_tasks_taken():
    """Two tasks, of which the second alone has moved, by 3 in one weight."""
    _, hnet, params = make_hypernet(hnet_type="hmlp", num_tasks=2)
    params = stack_members([params])
    anchor = take_anchor(hnet, params, 2, factored=False)
    weights = hnet.weights(params, torch.tensor([[0, 1]]))
    weights[0, 1, 5] += 3
    ids = torch.tensor([[0, 1]])
    found = anchor.penalty(params, ids, weights[..., :0], weights, beta=0.5)
    assert found.value.item() == pytest.approx(9 / 2)
    assert found.for_weights[0, 1, 5].item() == pytest.approx(0.5 * 2 * 3 / 2)
    assert found.for_weights.count_nonzero() == 1


def test_subsets():
    generator = torch.Generator().manual_seed(0)
    subsets = draw_subsets(5, 400, 2, generator)
    assert subsets.shape == (400, 2)
    assert (subsets[:, 0] != subsets[:, 1]).all()
    assert (torch.bincount(subsets.flatten(), minlength=5) > 100).all()  # 160 expected
    for size in (None, 5, 9):
        assert draw_subsets(5, 3, size, generator).tolist() == [[0, 1, 2, 3, 4]]
    assert draw_subsets(0, 3, 1, generator).shape == (1, 0)
