import json

import pytest
import torch
from helpers import CPU

from hypercl.engine.schedules import LearningRates, Plateau, epoch_factors
from hypercl.options import Options


def test_factors_drop_where_keras_does():
    factors = epoch_factors(200 * 3, 3).view(200, 3)
    assert (factors == factors[:, :1]).all()
    by_epoch = factors[:, 0].tolist()
    changes = [epoch for epoch in range(1, 200) if by_epoch[epoch] != by_epoch[epoch - 1]]
    assert changes == [81, 121, 161, 181]
    assert [by_epoch[epoch] for epoch in (0, *changes)] == pytest.approx([1, 0.1, 0.01, 1e-3, 5e-4])
    assert epoch_factors(10, 3).tolist() == [1] * 10


def test_a_member_whose_accuracy_stays_gets_a_lower_rate():
    plateau = Plateau([1e-3, 1e-3])
    for epoch in range(7):
        plateau.step([0.5, 0.5 + 0.01 * epoch])
    assert plateau.rates == pytest.approx([1e-3 * 10**-0.5, 1e-3])
    for _ in range(100):
        plateau.step([0.5, 0.5])
    assert plateau.rates == pytest.approx([0.5e-6, 0.5e-6])


def test_it_goes_on_from_its_state():
    first, second = Plateau([1e-3]), Plateau([1e-3])
    for _ in range(5):
        first.step([0.5])
    second.load_state(first.state())
    for _ in range(4):
        first.step([0.4])
        second.step([0.4])
    assert first.rates == second.rates != [1e-3]
    assert first.state() == second.state()


FIXED, PLATEAU = {"lambda_lr_scheduler": True}, {"plateau_lr_scheduler": True}


def make_rates(num_epochs=200, num_members=2, **values):
    """Of epochs of three steps."""
    options = Options.of({"lr": 1e-3, **values}).train
    return LearningRates(options, 3 * num_epochs, 3, num_members, CPU)


def at(rates, step):
    """The members' rates at a step, counted from 0."""
    rates.set(torch.tensor([step]))
    return rates.now.tolist()


def test_a_constant_rate_is_a_number():
    rates = make_rates()
    rates.set(torch.tensor([500]))
    assert isinstance(rates.now, float)
    assert rates.now == 1e-3
    assert not any(rates.looks_at(step) for step in range(10))
    assert rates.state() == []
    rates.load_state([])
    assert rates.now == 1e-3


def test_the_fixed_schedule_gives_all_members_its_rate_at_each_step():
    rates = make_rates(**FIXED)
    tensor = rates.now  # which the optimizer has
    assert tensor.tolist() == pytest.approx([1e-3] * 2)
    for step, factor in enumerate(epoch_factors(600, 3).tolist()):
        assert at(rates, step) == pytest.approx([1e-3 * factor] * 2)
    assert rates.now is tensor
    assert at(rates, 0) == pytest.approx([1e-3] * 2)  # it follows from the step alone
    assert not any(rates.looks_at(step) for step in range(10))
    assert rates.state() == []


def test_the_plateau_looks_after_each_epoch_and_counts_from_the_next_step_on():
    rates = make_rates(**PLATEAU)
    tensor = rates.now
    assert [step for step in range(1, 10) if rates.looks_at(step)] == [3, 6, 9]
    for epoch in range(7):
        assert at(rates, 3 * epoch) == pytest.approx([1e-3] * 2)
        rates.look([0.5, 0.5 + 0.01 * epoch])
    assert rates.now.tolist() == pytest.approx([1e-3] * 2)
    assert at(rates, 21) == pytest.approx([1e-3 * 10**-0.5, 1e-3])
    assert rates.now is tensor


def test_both_schedules_multiply():
    rates = make_rates(**FIXED, **PLATEAU)
    for _ in range(7):
        rates.look([0.5, 0.5])
    assert at(rates, 0) == pytest.approx([1e-3 * 10**-0.5] * 2)
    assert at(rates, 3 * 81 - 1) == pytest.approx([1e-3 * 10**-0.5] * 2)
    assert at(rates, 3 * 81) == pytest.approx([1e-4 * 10**-0.5] * 2)
    assert rates.looks_at(3)


@pytest.mark.parametrize("more", [{}, FIXED])
def test_rates_go_on_from_their_state(more):
    first, second = make_rates(**PLATEAU, **more), make_rates(**PLATEAU, **more)
    for epoch in range(9):
        first.look([0.5, 0.01 * epoch])
    second.load_state(json.loads(json.dumps(first.state())))
    assert at(second, 300) == at(first, 300)
    for _ in range(5):
        first.look([0.4, 0.4])
        second.look([0.4, 0.4])
    assert at(second, 300) == at(first, 300) != at(make_rates(**PLATEAU, **more), 300)
    assert first.state() == second.state()
