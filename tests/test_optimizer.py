import torch

from hypercl.optimizer import Adam


def test_adam_is_torchs():
    """Thirty steps on a function of its own, with weight decay, two members."""
    torch.manual_seed(0)
    start, target = torch.randn(2, 7, dtype=torch.float64), torch.randn(2, 7, dtype=torch.float64)
    theirs, ours = start.clone().requires_grad_(), start.clone()
    gradient = torch.zeros_like(ours)
    expected = torch.optim.Adam([theirs], lr=0.05, betas=(0.8, 0.999), weight_decay=0.01)
    optimizer = Adam(ours, gradient, lr=0.05, betas=(0.8, 0.999), weight_decay=0.01)
    for _ in range(30):
        theirs.grad = 4 * (theirs.detach() - target) ** 3
        gradient.copy_(4 * (ours - target) ** 3)
        expected.step()
        optimizer.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-12, atol=1e-12)
    assert not torch.equal(ours, start)


def test_what_adam_remembers_is_all_that_it_needs_to_go_on():
    def make(parameters, gradient):
        return Adam(parameters, gradient, lr=0.1)

    gradient, first = torch.tensor([1.0, -2.0]), torch.zeros(2)
    optimizer = make(first, gradient)
    optimizer.step()
    second = first.clone()
    other = make(second, gradient)
    for name, value in other.state.items():
        value.copy_(optimizer.state[name])
    for each in (optimizer, other):
        each.step()
    assert torch.equal(first, second)
    assert optimizer.state["step"] == 2
