import torch

from hypercl.members import alone, each_member, select_members, stack_members


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
