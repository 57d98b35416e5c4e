import pytest

from hypercl.rundir.forms import fits


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (1, int), (1, float), (1.5, float), ("a", str), (None, None), (None, (None, int)),
        ([1, 2], [int]), ([], [int]), ((1,), [int]), ({"a": 1, "b": 2}, {"a": int}),
        ({"x": 1, "y": 2}, {str: int}), ({}, {str: int}), ([{"a": [[1.5]]}], [{"a": [[float]]}]),
    ],
)  # fmt: skip
def test_what_fits(value, form):
    assert fits(value, form)


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (True, int), (True, float), (1.5, int), ("1", int), (0, None), ("a", (None, int)),
        ([1, "a"], [int]), ("ab", [str]), ({"b": 1}, {"a": int}), ({"a": "x"}, {"a": int}),
        ({"x": 1, 2: 2}, {str: int}), ([], {}), (None, {"a": int}), ([{"a": 1}], [{"a": [int]}]),
    ],
)  # fmt: skip
def test_what_does_not(value, form):
    assert not fits(value, form)
