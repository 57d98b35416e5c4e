"""Time of a training step against the number of earlier tasks, beside the plain loop's.

    python -m benchmarks.step

Three networks, one and two threads; the steps of this project, of the plain loop and of the
reference (plain torch, without an API between) are timed in turn in one process, medians are
reported. Multiplications are counted by torch while a step runs, and compared with the best rate of
a matrix product on the same threads.
"""

import statistics
import time
from collections.abc import Callable

import torch
from matplotlib.figure import Figure

from benchmarks.common import (
    RESULTS,
    begin_training,
    counted,
    print_table,
    product_rate,
    save,
)
from benchmarks.plain import PlainLoop, PlainTask, ReferenceLoop

EARLIER = (0, 1, 4, 9, 29, 99)
SECONDS = 1.0  # of each way, for each point
NETWORKS = {
    "default": ["--cl_exp=splitmnist"],
    "PermutedMNIST 1000,1000, 8 chunks": [
        "--cl_exp=permmnist", "--num_classes_per_task=10", "--mlp_arch=1000,1000",
        "--hmlp_arch=25,25", "--chmlp_chunk_size=255377",
    ],
    "ResNet-32": ["--cl_exp=splitcifar", "--net_type=resnet"],
}  # fmt: skip


def main() -> None:
    rows = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        rate = product_rate(threads)
        for network, options in NETWORKS.items():
            for row in measure(options, rate):
                rows.append({"network": network, "threads": threads, **row})
                print(rows[-1], flush=True)
    print_table(rows)
    save("step", {"rows": rows})
    draw(rows)


def measure(options: list[str], rate: float) -> list[dict]:
    """One row for each number of earlier tasks."""
    rows = []
    for earlier in EARLIER:
        training = begin_training(options, earlier)
        experiment, task = training.experiment, training.task
        module = experiment.method.fresh_module(seed=0)
        plain, plain_task = PlainLoop(experiment.net.module, module), PlainTask(task)
        plain.start_task(earlier)
        reference = ReferenceLoop(experiment, earlier)
        training.step()
        with counted() as counter:
            training.step()
        ways = training.step, lambda: plain.step(plain_task), reference.step  # noqa: B023
        ours, theirs, slow = in_turn(*ways)
        multiplications = counter.get_total_flops() / 2
        anchor = training.anchor.outputs
        rows.append(
            {
                "earlier": earlier,
                "form": "-" if anchor is None else anchor.form,
                "ms": 1e3 * ours,
                "plain ms": 1e3 * theirs,
                "ratio": theirs / ours,
                "reference ms": 1e3 * slow,
                "million products": multiplications / 1e6,
                "share of rate": multiplications / ours / 1e9 / rate,
                "kept MiB": anchor.num_bytes / 2**20 if anchor is not None else 0.0,
                "targets MiB": earlier * experiment.net.num_weights * 4 / 2**20,
            }
        )
    return rows


def in_turn(
    *functions: Callable[[], object],
    clock: Callable[[], float] = time.perf_counter,
    seconds: float | None = None,
) -> list[float]:
    """Medians of the seconds that functions take, in turn, three rounds each.

    Args:
        clock: ``time.process_time``: seconds of the processor, where others need it, too.
        seconds: Of each function in all; None: as the benchmark of steps has it.
    """
    times = [[] for _ in functions]
    for _ in range(3):
        for function, taken in zip(functions, times, strict=True):
            function()  # caches belong to it again
            until = time.perf_counter() + (SECONDS if seconds is None else seconds) / 3
            while True:
                started = clock()
                function()
                taken.append(clock() - started)
                if time.perf_counter() > until:
                    break
    return [statistics.median(taken) for taken in times]


def draw(rows: list[dict]) -> None:
    """benchmarks/results/step.png, with one thread."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    for axes, network in zip(figure.subplots(1, 3), NETWORKS, strict=True):
        chosen = [row for row in rows if row["network"] == network and row["threads"] == 1]
        x = [row["earlier"] for row in chosen]
        axes.plot(x, [row["plain ms"] for row in chosen], "o--", color="gray", label="plain loop")
        axes.plot(x, [row["ms"] for row in chosen], "o-", color="crimson", label="this project")
        axes.set(title=network, xlabel="earlier tasks", ylabel="ms per step, one thread")
        axes.set_yscale("log")
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    figure.savefig(RESULTS / "step.png", dpi=120)


if __name__ == "__main__":
    main()
