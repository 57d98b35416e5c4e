"""The space of a search, with its conditions."""

import pytest

from hypercl.errors import InputError
from hypercl.sweeps.space import Domain, Space, When, frozen, is_same

ONE, TWO = Domain(("a", "b")), Domain((1, 2))


def test_a_grid_is_the_product_and_the_last_option_changes_the_fastest():
    assert list(Space({"x": ONE, "y": TWO}).combinations()) == [
        {"x": "a", "y": 1}, {"x": "a", "y": 2}, {"x": "b", "y": 1}, {"x": "b", "y": 2},
    ]  # fmt: skip


def test_under_a_condition_an_option_has_other_values_or_is_not_given():
    when = (
        When({"x": ("a",)}, {"y": Domain((7,)), "z": ONE}),
        When({"x": ("b",)}, {}, without=("y",)),
    )
    space = Space({"y": TWO, "x": ONE}, when)
    assert space.order == ("x", "y", "z")
    assert list(space.combinations()) == [
        {"x": "a", "y": 7, "z": "a"}, {"x": "a", "y": 7, "z": "b"}, {"x": "b"},
    ]  # fmt: skip
    assert list(space.keyed()) == ["y", "x", "y (if x=a)", "z (if x=a)"]


def test_of_two_conditions_that_hold_the_later_one_counts():
    when = tuple(When({"x": ("a",)}, {"y": Domain((n,))}) for n in (7, 8))
    points = list(Space({"x": Domain(("a",)), "y": TWO}, when).combinations())
    assert points == [{"x": "a", "y": 8}]


def test_a_condition_on_an_option_that_is_not_given_does_not_hold():
    when = (When({"x": ("a",)}, {}, ("y",)), When({"y": (1, 2)}, {"z": ONE}))
    points = list(Space({"x": ONE, "y": Domain((1,))}, when).combinations())
    assert points == [{"x": "a"}, {"x": "b", "y": 1, "z": "a"}, {"x": "b", "y": 1, "z": "b"}]


def test_doubles_are_removed_and_true_is_not_one():
    when = (When({"x": ("a", "b")}, {}, without=("y",)),)
    assert list(Space({"x": ONE, "y": TWO}, when).combinations()) == [{"x": "a"}, {"x": "b"}]
    assert len(list(Space({"x": Domain((1, True, 2))}).combinations())) == 3
    assert frozen({"x": 1}) != frozen({"x": True})
    assert is_same(1, 1.0)
    assert not is_same(1, True)


def test_conditions_that_go_in_a_circle_are_refused():
    when = (When({"x": ("a",)}, {"y": TWO}), When({"y": (1,)}, {"x": ONE}))
    with pytest.raises(InputError, match="x, y go in a circle"):
        _ = Space({"x": ONE, "y": TWO}, when).order


def test_every_end_and_choice_is_tried_and_so_is_what_a_condition_brings():
    when = (When({"x": ("b",)}, {"n": Domain(None, 5, 9, is_int=True)}),)
    space = Space({"x": ONE, "lr": Domain(None, 0.1, 1.0)}, when)
    tried = list(space.tried(most=0))
    assert tried[0] == {"x": "a", "lr": 0.1}
    for wanted in ({"lr": 1.0}, {"x": "b"}, {"x": "b", "n": 5}, {"x": "b", "n": 9}):
        assert any(wanted.items() <= point.items() for point in tried), wanted
    assert not any("n" in point for point in tried if point["x"] == "a")
    assert list(space.combinations()) == []  # a grid has no range
    assert len(list(space.combinations(ends=True))) == 2


def test_what_a_domain_contains():
    assert Domain(None, 1.0, 2.0).contains(1.5)
    assert not Domain(None, 1.0, 2.0).contains(2.5)
    assert not Domain(None, 1, 5, is_int=True).contains(1.5)
    assert not Domain(None, 0.0, 2.0).contains(True)
    assert ONE.contains("a")
    assert not ONE.contains("c")
