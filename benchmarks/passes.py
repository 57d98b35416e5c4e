"""How often a step goes through memory as large as the hypernetwork's last layer.

    python -m benchmarks.passes [--presets permmnist-large,paper-permmnist] [--earlier 9]

Where the last layer is wide, and the main network has about as many weights, a step is bound by
what it reads and writes as much as by its products. This counts, operation by operation of torch,
the numbers that it reads and those that it writes, in units of the last layer's. The count is exact
and the same on every machine; the milliseconds beside it are not.

Below the table is the least that any program has to move, where each number is read or written once
in each of the parts of a step that wait for one another (:func:`least`).
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.common import begin_training, print_table, save
from benchmarks.step import in_turn
from train import TaskTraining

PRESETS = "permmnist-large,paper-permmnist"
# These write without having read what they write over,
_OVERWRITES = ("aten::copy_", "aten::zero_", "aten::fill_", "aten::_foreach_copy_")
# of their first operand these read as much as they write,
_SELECTS = ("aten::index_select", "aten::index", "aten::gather")
# and these touch nothing.
_TOUCH_NOTHING = ("aten::empty", "aten::empty_like", "aten::new_empty", "aten::_unsafe_view")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", default=PRESETS)
    parser.add_argument("--earlier", type=int, default=9, help="earlier tasks")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    results = [measure([f"--preset={name}"], args.earlier) for name in args.presets.split(",")]
    for result in results:
        show(result)
    save("passes", {"results": results})


def measure(options: Sequence[str], earlier: int) -> dict[str, Any]:
    """A step's passes over memory, and its milliseconds."""
    training = begin_training(options, earlier)
    training.step()
    layer = layer_size(training)
    with Traffic() as traffic:
        training.step()
    (seconds,) = in_turn(training.step)
    rows = [
        {
            "operation": name,
            "calls": of.calls,
            "read": of.read / layer,
            "written": of.written / layer,
        }
        for name, of in traffic.by_operation()
    ]
    moved, smallest = sum(row["read"] + row["written"] for row in rows), least(training)
    return {
        "options": list(options),
        "earlier": earlier,
        "last layer": layer,
        "main network": training.experiment.net.num_weights,
        "ms": 1e3 * seconds,
        "operations": rows,
        "passes": moved,
        "least": smallest,
        "times the least": moved / sum(smallest.values()),
    }


def show(result: dict[str, Any]) -> None:
    """The operations that count, their sum, and the least."""
    rows = [row for row in result["operations"] if row["read"] + row["written"] > 0.2]
    print_table(
        rows,
        f"{' '.join(result['options'])}, {result['earlier']} earlier tasks: passes over the last "
        f"layer, {result['last layer']:,} numbers, in {result['ms']:.1f} ms",
    )
    parts = ", ".join(f"{name} {passes:.1f}" for name, passes in result["least"].items())
    print(
        f"all: {result['passes']:.1f} passes; the least {sum(result['least'].values()):.1f} "
        f"({parts}): {result['times the least']:.2f} times as many\n"
    )


def layer_size(training: TaskTraining) -> int:
    """Numbers in the last layer, weight and bias."""
    method = training.experiment.method
    weight, bias = method.hnet.last_layer(training.trained)
    return weight.numel() + (0 if bias is None else bias.numel())


def least(training: TaskTraining) -> dict[str, float]:
    """By part of a step, the passes that any program takes, in units of the last layer.

    With the features of all tasks at hand (they are small), W and W* are read once for all products
    of the penalty, and once more for the weights of the current task, which the main network reads
    forward and backward. Its gradient is written once and read once. The gradient for W is written
    once. Adam reads that, the parameters and two means, and writes all but the gradient. With the
    lookahead, the penalty is at parameters that follow from the task loss's gradient and Adam's
    means: one more gradient is written and read, and the parameters and means are read once more;
    the parameters ahead need not be stored.
    """
    layer = layer_size(training)
    net = training.experiment.net.num_weights / layer
    parts = {
        "weights of the task": 1 + net,
        "main network": 3 * net,
        "gradient and penalty": 3 + net,
        "Adam": 7.0,
    }
    if training.experiment.method.options.lookahead:
        parts["lookahead"] = 5.0
    return parts


class Moved(NamedTuple):
    """Numbers that go through memory."""

    calls: int
    read: int
    written: int


class Traffic(TorchDispatchMode):
    """Counts what each operation of torch reads and writes; a number that is broadcast counts once,
    views count nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self._moved: dict[str, Moved] = defaultdict(lambda: Moved(0, 0, 0))

    def by_operation(self) -> Iterator[tuple[str, Moved]]:
        """The operations, that which moves most first."""
        return iter(sorted(self._moved.items(), key=lambda of: -(of[1].read + of[1].written)))

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        schema = function._schema
        if schema.name in _TOUCH_NOTHING:
            return result
        given = dict(zip((argument.name for argument in schema.arguments), args, strict=False))
        given |= kwargs
        read = written = 0
        for argument in schema.arguments:
            size = _size(given.get(argument.name))
            changed = argument.alias_info is not None and argument.alias_info.is_write
            if changed and argument.name != "grads":  # Adam's kernel leaves these as they are
                written += size
            if not (changed and (argument.kwarg_only or schema.name in _OVERWRITES)):
                read += size
        returned = result if isinstance(result, list | tuple) else [result]
        made = [
            value
            for value, kind in zip(returned, schema.returns, strict=False)
            if kind.alias_info is None
        ]
        if not made and not written:  # a view
            return result
        if schema.name in _SELECTS:
            read += _size(made) - _size(args[0])
        of = self._moved[schema.name]
        self._moved[schema.name] = Moved(
            of.calls + 1, of.read + read, of.written + written + _size(made)
        )
        return result


def _size(value: Any) -> int:
    """Numbers that lie in memory."""
    if isinstance(value, Tensor):
        return math.prod(
            length for length, stride in zip(value.shape, value.stride(), strict=True) if stride
        )
    return sum(map(_size, value)) if isinstance(value, list | tuple) else 0


if __name__ == "__main__":
    main()
