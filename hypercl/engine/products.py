"""Matrix products of all members, by whichever of a CPU's libraries is faster.

torch multiplies float32 matrices on x86 with MKL, which keeps off AVX-512 where the processor is
not Intel's; oneDNN, which is also part of torch, does not, and is up to twice as fast there. Which
one takes a product depends on the processor, the sizes and the number of threads alone, so that the
same run on the same machine rounds in the same way.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

# oneDNN brings operands into an order of its own first, on one thread, which pays off from so many
# multiplications on, and where no dimension is so small that an operand is used but a few times.
_FEWEST, _FEWEST_FOR_THREADS, _SMALLEST = 5_000_000, 30_000_000, 32
# It sums over rows with several threads only where the result is wider than this,
_NARROW = 256
# and what it sums comes out transposed, to be copied, which does not pay off beyond this width.
_WIDE = 4096


def _onednn_is_faster() -> bool:
    """Whether this is an AVX-512 processor that MKL does not make full use of, and oneDNN is there.

    torch offers it under a name of its compiler's, so that it is tried before it is relied on.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    try:
        if "AuthenticAMD" not in Path("/proc/cpuinfo").read_text():
            return False
        x = torch.arange(6.0).view(2, 3)
        return torch.equal(_onednn(x, x + 1), x @ (x + 1).mT)
    except (OSError, AttributeError, RuntimeError):
        return False


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b of matrices. W is handed over without gaps: strides with gaps take ages there."""
    if not (weight.is_contiguous() or weight.mT.is_contiguous()):
        weight = weight.contiguous()
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


ONEDNN = _onednn_is_faster()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b: [members, rows, inputs] and [members, outputs, inputs] to [members, rows, outputs].

    Args:
        bias: [members, outputs].
    """
    if _takes_onednn(x, weight, x.shape[1:] + weight.shape[1:2]):
        biases = [None] * len(x) if bias is None else bias
        return _stack(list(map(_onednn, x, weight, biases)))
    return x @ weight.mT if bias is None else torch.baddbmm(bias[:, None], x, weight.mT)


def product(x: Tensor, y: Tensor, *, plus: Tensor | None = None) -> Tensor:
    """x y, or x y + plus: [members, rows, inner] and [members, inner, columns].

    Args:
        plus: [members, rows, columns] or what expands to it; the result may take its memory.
    """
    if _takes_onednn(x, y, x.shape[1:] + y.shape[2:]):
        result = linear(x, y.mT)
        return result if plus is None else result.add_(plus)
    if plus is None:
        return x @ y
    own = plus.shape[1] == x.shape[1] and plus.is_contiguous()
    return torch.baddbmm(plus, x, y, out=plus if own else None)


def sum_over_rows(
    x: Tensor, y: Tensor, *, out: Tensor | None = None, plus: Tensor | None = None
) -> Tensor:
    """xᵀ y, the sum over rows of the products of all pairs of columns; or xᵀ y + plus.

    Args:
        x: [members, rows, n]; ``y``: [members, rows, m].
        out: Where to put the result, [members, n, m].
        plus: [members, n, m]; the result takes its memory.
    """
    n, m = x.shape[2], y.shape[2]
    narrowest = _NARROW if torch.get_num_threads() > 1 else 0
    if narrowest <= max(n, m) <= _WIDE and _takes_onednn(x, y, (*x.shape[1:], m)):
        # Of the two transposed matrices the first is copied: let that be the smaller one.
        result = linear(x.mT, y.mT) if n <= m else linear(y.mT, x.mT).mT
        if plus is not None:
            return plus.add_(result)
        return result if out is None else out.copy_(result)
    if plus is not None:
        return torch.baddbmm(plus, x.mT, y, out=plus)
    return torch.bmm(x.mT, y, out=out)


def _takes_onednn(x: Tensor, y: Tensor, sizes: Sequence[int]) -> bool:
    fewest = _FEWEST if torch.get_num_threads() == 1 else _FEWEST_FOR_THREADS
    return (
        ONEDNN
        and math.prod(sizes) >= fewest
        and min(sizes) >= _SMALLEST
        and x.dtype == y.dtype == torch.float32
        and x.device.type == "cpu"
        and not (torch.is_grad_enabled() and (x.requires_grad or y.requires_grad))
    )


def _stack(values: list[Tensor]) -> Tensor:
    return values[0][None] if len(values) == 1 else torch.stack(values)
