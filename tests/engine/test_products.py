import pytest
import torch

from hypercl.engine import products
from hypercl.engine.products import linear, product, sum_over_rows

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch is built without oneDNN"
)


@pytest.fixture(params=["torch's own", pytest.param("oneDNN", marks=needs_onednn)])
def library(request, monkeypatch):
    """Each in turn, whatever the processor and the sizes; the calls of oneDNN are counted."""
    calls, onednn = [], products._onednn
    monkeypatch.setattr(products, "ONEDNN", request.param == "oneDNN")
    monkeypatch.setattr(products, "_onednn", lambda *args: calls.append(1) or onednn(*args))
    for name in ("_FEWEST", "_FEWEST_FOR_THREADS", "_SMALLEST", "_NARROW"):
        monkeypatch.setattr(products, name, 1)
    yield calls
    assert bool(calls) == products.ONEDNN


def numbers(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def close(found, expected):
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("members", [1, 3])
def test_linear_maps(library, members):
    x, weight, bias = numbers(members, 7, 5), numbers(members, 4, 5), numbers(members, 4)
    expected = torch.einsum("mri,moi->mro", x.double(), weight.double())
    close(linear(x, weight), expected)
    close(linear(x, weight, bias), expected + bias[:, None])
    gaps = numbers(members, 4, 9)
    close(linear(x, gaps[..., :5]), x.double() @ gaps[..., :5].double().mT)


@pytest.mark.parametrize("members", [1, 3])
def test_products_and_what_is_added(library, members):
    x, y, plus = numbers(members, 7, 5), numbers(members, 5, 4), numbers(members, 7, 4)
    expected = x.double() @ y.double()
    close(product(x, y), expected)
    close(product(x, y, plus=plus[:, :1]), expected + plus[:, :1])
    close(product(x, numbers(members, 4, 5).mT), x.double() @ numbers(members, 4, 5).double().mT)
    close(product(x, y, plus=plus.clone()), expected + plus)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize(("n", "m"), [(3, 6), (6, 3), (3, 3)])
def test_sums_over_rows(library, members, n, m):
    x, y = numbers(members, 50, n), numbers(members, 50, m)
    expected = torch.einsum("mrn,mrk->mnk", x.double(), y.double())
    close(sum_over_rows(x, y), expected)
    out = torch.empty(members, n + 1, m)
    assert sum_over_rows(x, y, out=out[:, :n]).data_ptr() == out.data_ptr()
    close(out[:, :n], expected)
    plus = numbers(members, n, m)
    expected = expected + plus
    found = sum_over_rows(x, y, plus=plus)
    assert found.data_ptr() == plus.data_ptr()
    close(found, expected)


@needs_onednn
def test_small_and_exact_products_stay_with_torch(monkeypatch):
    monkeypatch.setattr(products, "ONEDNN", True)
    monkeypatch.setattr(products, "_onednn", None)  # not to be called
    x = numbers(1, 200, 200)
    linear(x, numbers(1, 2, 200))
    large = numbers(1, 400, 400)
    linear(large.double(), large.double())
    product(large.requires_grad_(), large).sum().backward()
    assert large.grad is not None
    monkeypatch.setattr(products, "_NARROW", 1000)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    sum_over_rows(large.detach(), large.detach())
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    with torch.no_grad(), pytest.raises(TypeError):  # and this one it would take
        product(large, large)
