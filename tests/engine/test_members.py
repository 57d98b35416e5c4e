import pytest
import torch

from hypercl.engine.members import (
    add_into,
    alone,
    each_member,
    flatten,
    from_parts,
    num_members,
    part_of,
    select_members,
    stack_members,
    views_of,
)


def test_each_member_works_on_one_and_on_many():
    def function(params, x, common):
        return params["a"] @ x + common, x.sum()

    shared = torch.tensor([1.0, 2.0])
    for members in (1, 3):
        params = {"a": torch.randn(members, 2, 2)}
        x = torch.randn(members, 2)
        first, second = each_member(function, shared=(2,))(params, x, shared)
        assert first.shape == (members, 2)
        assert second.shape == (members,)
        for i in range(members):
            torch.testing.assert_close(first[i], params["a"][i] @ x[i] + shared)


def test_stack_select_alone():
    members = [{"a": torch.tensor([i, i])} for i in range(3)]
    stacked = stack_members(members)
    assert stacked["a"].shape == (3, 2)
    assert select_members(stacked, 1)["a"].tolist() == [1, 1]
    assert select_members(stacked, [0, 2])["a"].tolist() == [[0, 0], [2, 2]]
    assert alone({"a": torch.ones(1, 2)})["a"].shape == (2,)


def two_members():
    """Numbers of a matrix and of a vector, of two members."""
    return {"a": torch.arange(12.0).view(2, 2, 3), "b": torch.tensor([[20.0], [21.0]])}


def test_flatten_copies_all_numbers_of_a_member_into_a_row():
    params = two_members()
    flat = flatten(params)
    assert flat.tolist() == [[0, 1, 2, 3, 4, 5, 20], [6, 7, 8, 9, 10, 11, 21]]
    flat += 1
    assert params["a"][0, 0, 0] == 0


def test_views_show_what_happens_to_the_rows():
    params = two_members()
    flat = flatten(params)
    views = views_of(flat, params)
    assert list(views) == ["a", "b"]
    assert all(torch.equal(views[name], value) for name, value in params.items())
    flat += 1
    assert all(torch.equal(views[name], value + 1) for name, value in params.items())
    views["b"].zero_()
    assert flat[:, 6].tolist() == [0, 0]


@pytest.mark.parametrize("together", [True, False])
def test_members_together_or_one_by_one(together):
    """What a function changes in place is changed either way."""

    def function(weights, x, stats):
        stats["mean"] += x.mean()
        return weights @ x, weights.sum()

    weights, x = torch.arange(6.0).view(3, 2), torch.tensor([1.0, 3.0])
    stats = {"mean": torch.zeros(3)}
    product, total = each_member(function, shared=(1,), together=lambda: together)(
        weights, x, stats
    )
    assert product.tolist() == [3, 11, 19]
    assert total.tolist() == [1, 5, 9]
    assert stats["mean"].tolist() == [2, 2, 2]
    double = each_member(lambda weights: 2 * weights, together=lambda: together)
    assert torch.equal(double(weights), 2 * weights)


def test_number_of_members():
    assert num_members(two_members()) == 2
    assert num_members({"a": torch.zeros(1, 5)}) == 1


def test_adding_in_place_and_under_new_names():
    first, sums = torch.ones(2), {}
    add_into(sums, {"a": first})
    sums = {"a": torch.tensor([1.0, 2.0]), "b": first}
    tensor = sums["a"]
    add_into(sums, {"a": torch.tensor([10.0, 20.0]), "c": torch.tensor([5.0])})
    assert sums["a"] is tensor
    assert {name: value.tolist() for name, value in sums.items()} == {
        "a": [11, 22],
        "b": [1, 1],
        "c": [5],
    }


def test_parts_are_joined_under_their_names_and_taken_apart_again():
    parts = {"a": {"x": torch.ones(1), "a.x": torch.zeros(1)}, "b": {"x": torch.ones(2)}}
    joined = from_parts(**parts)
    assert list(joined) == ["a.x", "a.a.x", "b.x"]
    assert all(part_of(joined, name) == values for name, values in parts.items())
