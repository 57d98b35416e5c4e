import pytest

from hypercl.schedules import Plateau, epoch_factors


def test_factors_drop_where_keras_does():
    factors = epoch_factors(200 * 3, 3).view(200, 3)
    assert (factors == factors[:, :1]).all()
    by_epoch = factors[:, 0].tolist()
    changes = [epoch for epoch in range(1, 200) if by_epoch[epoch] != by_epoch[epoch - 1]]
    assert changes == [81, 121, 161, 181]
    assert [by_epoch[epoch] for epoch in (0, *changes)] == pytest.approx([1, 0.1, 0.01, 1e-3, 5e-4])
    assert epoch_factors(10, 3).tolist() == [1] * 10


def test_a_member_whose_accuracy_stays_gets_a_lower_rate():
    plateau = Plateau(1e-3, 2)
    for epoch in range(7):
        plateau.step([0.5, 0.5 + 0.01 * epoch])
    assert plateau.rates == pytest.approx([1e-3 * 10**-0.5, 1e-3])
    for _ in range(100):
        plateau.step([0.5, 0.5])
    assert plateau.rates == pytest.approx([0.5e-6, 0.5e-6])


def test_it_goes_on_from_its_state():
    first, second = Plateau(1e-3, 1), Plateau(1e-3, 1)
    for _ in range(5):
        first.step([0.5])
    second.load_state(first.state())
    for _ in range(4):
        first.step([0.4])
        second.step([0.4])
    assert first.rates == second.rates != [1e-3]
    assert first.state() == second.state()
