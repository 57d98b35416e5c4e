"""Where the time of a step goes, in the plain loop and in this project.

    python -m benchmarks.profile

One thread, default networks, one row for each part of a step: its time (median over many steps) and
the time that its products would take at the machine's best rate of a matrix product. What the
second column leaves of the first is the cost of everything that is not a product.
"""

import statistics
import time
from collections import defaultdict
from contextlib import ExitStack, nullcontext
from unittest import mock

import torch
from hypnettorch.mnets import MLP

from benchmarks import plain
from benchmarks.common import begin_training, counted, print_table, product_rate, save
from hypercl.engine.optimizers import Adam
from hypercl.methods.hnet.dense import DenseAnchor
from hypercl.methods.hnet.factored import FactoredAnchor
from hypercl.networks.hypernet import Hypernet
from hypercl.networks.main_net import TaskLoss

EARLIER = (0, 4, 9, 99)
SECONDS = 3.0
OURS = {
    "hypernetwork, hidden layers": (Hypernet, "forward"),
    "hypernetwork, last layer": (Hypernet, "generate_chunks"),
    "main network, loss and gradient": (TaskLoss, "__call__"),
    "penalty, dense": (DenseAnchor, "penalty"),
    "penalty, factored, all but the hidden layers": (FactoredAnchor, "penalty"),
    "gradient of the last layer": (Hypernet, "generate_backward"),
    "gradient of the hidden layers": (Hypernet, "backward"),
    "Adam": (Adam, "step"),
}


class Parts:
    """Measures functions, each without the measured ones that it calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)  # one entry a step
        self.multiplications: dict[str, float] = defaultdict(float)
        self.counting = False
        self._within = [0.0]  # of each function that is running: what was measured inside it

    def of(self, name: str, function):
        """The function, measured."""

        def measured(*args, **kwargs):
            self._within.append(0.0)
            with counted() if self.counting else nullcontext() as counter:
                started = time.perf_counter()
                result = function(*args, **kwargs)
                found = time.perf_counter() - started
            if self.counting:
                found = counter.get_total_flops() / 2
            own = found - self._within.pop()
            self._within[-1] += found
            if self.counting:
                self.multiplications[name] += own
            else:
                self.seconds[name][-1:] = [sum(self.seconds[name][-1:]) + own]
            return result

        return measured

    def steps(self, step) -> None:
        """Take steps for a while."""
        step = self.of("everything else", step)
        step()
        names = list(self.seconds)
        self.seconds.clear()
        until = time.perf_counter() + SECONDS
        while time.perf_counter() < until:
            for name in names:
                self.seconds[name].append(0.0)
            step()

    def rows(self, rate: float) -> list[dict]:
        """One for each part, and the sum."""
        rows = [
            {
                "part": name,
                "ms": 1e3 * statistics.median(taken),
                "products alone, ms": self.multiplications[name] / rate / 1e6,
            }
            for name, taken in self.seconds.items()
        ]
        total = {"part": "sum"}
        for column in ("ms", "products alone, ms"):
            total[column] = sum(row[column] for row in rows)
        return [*rows, total]


def main() -> None:
    torch.set_num_threads(1)
    rate = product_rate(1)
    results = []
    for earlier in EARLIER:
        for way, measure in (("plain loop", measure_plain), ("this project", measure_ours)):
            rows = measure(earlier, rate)
            print_table(rows, f"{way}, {earlier} earlier tasks")
            results.append({"way": way, "earlier": earlier, "parts": rows})
    save("profile", {"threads": 1, "product rate": rate, "results": results})


def measure_ours(earlier: int, rate: float) -> list[dict]:
    return measure(begin_training([], earlier).step, OURS, rate)


def measure_plain(earlier: int, rate: float) -> list[dict]:
    training = begin_training([], earlier)
    experiment = training.experiment
    module = experiment.method.fresh_module(seed=0)
    loop = plain.PlainLoop(experiment.net.module, module)
    plain_task = plain.PlainTask(training.task)
    loop.start_task(earlier)
    places = {
        "batch from numpy": (plain.PlainTask, "batch"),
        "hypernetwork": (type(module), "forward"),
        "main network": (MLP, "forward"),
        "penalty": (plain, "calc_fix_target_reg"),
        "gradient": (torch.Tensor, "backward"),
        "Adam": (torch.optim.Adam, "step"),
    }
    return measure(lambda: loop.step(plain_task), places, rate)


def measure(step, places: dict, rate: float) -> list[dict]:
    parts = Parts()
    with ExitStack() as stack:
        for name, (owner, attribute) in places.items():
            function = parts.of(name, getattr(owner, attribute))
            stack.enter_context(mock.patch.object(owner, attribute, _method(function)))
        for _ in range(3):
            step()
        parts.counting = True
        step()
        parts.counting = False
        parts.steps(step)
    return parts.rows(rate)


def _method(function):
    """Something that binds like a function when it is an attribute of a class."""

    def bound(*args, **kwargs):
        return function(*args, **kwargs)

    return bound


if __name__ == "__main__":
    main()
