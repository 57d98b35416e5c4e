"""The optimizers against torch.optim, two members, on a function of its own."""

import pytest
import torch

from hypercl.engine.optimizers import (
    SGD,
    Adam,
    RMSprop,
    build_optimizer,
    clip_norm,
    clip_value,
)
from hypercl.options import Options

DECAY = {"weight_decay": 0.01}
MOMENTUM = {"momentum": 0.9, **DECAY}
# Our options; torch's optimizer and its arguments.
CASES = {
    "adam": ({"adam_beta1": 0.8, **DECAY}, torch.optim.Adam, {"betas": (0.8, 0.999), **DECAY}),
    "sgd": ({"use_sgd": True}, torch.optim.SGD, {}),
    "sgd momentum": ({"use_sgd": True, **MOMENTUM}, torch.optim.SGD, MOMENTUM),
    "rmsprop": ({"use_rmsprop": True}, torch.optim.RMSprop, {}),
    "rmsprop momentum": ({"use_rmsprop": True, **MOMENTUM}, torch.optim.RMSprop, MOMENTUM),
}


def build(parameters, gradient, rate, **values):
    return build_optimizer(Options.of(values).train, parameters, gradient, rate)


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("rates", [0.01, [0.01, 0.002]], ids=["one rate", "a rate a member"])
@pytest.mark.parametrize("case", CASES)
def test_thirty_steps_are_torchs(case, rates):
    values, theirs, arguments = CASES[case]
    start, target = draw(2, 7), draw(4, 7)[2:]
    lr = torch.tensor(rates, dtype=torch.float64) if isinstance(rates, list) else rates
    parameters, gradient = start.clone(), torch.zeros_like(start)
    optimizer = build(parameters, gradient, lr, **values)
    rows = [row.clone().requires_grad_() for row in start]
    groups = [
        {"params": [row], "lr": rates[i] if isinstance(rates, list) else rates}
        for i, row in enumerate(rows)
    ]
    expected = theirs(groups, **arguments)
    for _ in range(30):
        gradient.copy_(parameters - target)
        optimizer.step()
        for row, goal in zip(rows, target, strict=True):
            row.grad = row.detach() - goal
        expected.step()
    torch.testing.assert_close(parameters, torch.stack(rows).detach(), rtol=1e-12, atol=1e-12)
    assert not torch.equal(parameters, start)


@pytest.mark.parametrize(
    ("values", "kind"),
    [({}, Adam), ({"use_sgd": True}, SGD), ({"use_rmsprop": True, "momentum": 0.5}, RMSprop)],
)
def test_the_options_choose_the_optimizer(values, kind):
    assert type(build(torch.zeros(1, 2), torch.zeros(1, 2), 0.1, **values)) is kind


def test_the_rate_is_the_one_given_and_not_the_options():
    parameters = torch.zeros(1, 1)
    build(parameters, torch.ones(1, 1), 0.1, use_sgd=True, lr=0.5).step()
    assert parameters.item() == pytest.approx(-0.1)


def test_a_rate_may_change_between_steps():
    lr = torch.tensor([0.1])
    parameters, gradient = torch.zeros(1, 1), torch.ones(1, 1)
    optimizer = Adam(parameters, gradient, lr=lr)
    optimizer.step()
    before = parameters.clone()
    lr.fill_(0.001)
    optimizer.step()
    assert (before - parameters).item() == pytest.approx(0.001, rel=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_the_state_is_all_that_is_needed_to_go_on(case):
    values = CASES[case][0]
    gradient, first = torch.tensor([[1.0, -2.0]]), torch.zeros(1, 2)
    optimizer = build(first, gradient, 0.1, **values)
    optimizer.step()
    second = first.clone()
    other = build(second, gradient, 0.1, **values)
    assert other.state.keys() == optimizer.state.keys()
    for key, value in other.state.items():
        value.copy_(optimizer.state[key])
    for each in (optimizer, other):
        each.step()
    assert torch.equal(first, second)


def test_lookahead_tells_the_next_step_and_leaves_no_trace():
    parameters, gradient = draw(2, 5), draw(2, 5)
    optimizer = Adam(parameters, gradient, lr=0.1)
    for _ in range(3):
        optimizer.step()
    state = {name: value.clone() for name, value in optimizer.state.items()}
    before = parameters.clone()
    ahead = optimizer.lookahead()
    assert torch.equal(parameters, before)
    assert all(torch.equal(optimizer.state[name], value) for name, value in state.items())
    optimizer.step()
    assert torch.equal(parameters, ahead)


def test_a_lookahead_with_eps_before_the_correction_is_as_its_formula_says():
    """Gradients about as large as eps, of which much depends on where it stands."""
    parameters, gradient = draw(2, 5), 1e-8 * draw(2, 5)
    optimizer = Adam(parameters, gradient, lr=0.1)
    for step in (1, 2, 3):
        state = {name: value.clone() for name, value in optimizer.state.items()}
        ahead = optimizer.lookahead(slice(1, 4), uncorrected_eps=True)
        m = 0.9 * state["mean"] + 0.1 * gradient
        v = 0.999 * state["mean_square"] + 0.001 * gradient**2
        rate = 0.1 * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
        expected = parameters - rate * m / (v.sqrt() + 1e-8)
        torch.testing.assert_close(ahead, expected[:, 1:4])
        assert (ahead - optimizer.lookahead(slice(1, 4))).abs().max() > 1e-3
        assert all(torch.equal(optimizer.state[name], value) for name, value in state.items())
        optimizer.step()


def test_clipping_is_torchs():
    gradient = draw(2, 5)
    gradient[1] *= 1e-3  # short already
    rows = [torch.zeros(5, dtype=torch.float64) for _ in range(2)]
    for row, values in zip(rows, gradient, strict=True):
        row.grad = values.clone()
        torch.nn.utils.clip_grad_norm_([row], 0.5)
    clip_norm(gradient, 0.5)
    torch.testing.assert_close(gradient, torch.stack([row.grad for row in rows]))
    assert gradient[0].norm() == pytest.approx(0.5, rel=1e-5)
    clip_value(gradient, 0.1)
    assert gradient.abs().max() == 0.1
