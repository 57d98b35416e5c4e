"""Time of a training step against the number of earlier tasks, beside the plain loop.

    python -m benchmarks.step

Three networks, one and two threads; this project's step and the plain loop's are timed in turn in
one process, medians are reported. Multiplications are counted by torch while a step runs, and
compared with the best rate of a matrix product on the same threads.
"""

import statistics
import time
from collections.abc import Callable

import experiment
import torch
from hypercl.methods.hnet.regularizer import take_checkpoint
from matplotlib.figure import Figure

import run
from benchmarks.common import RESULTS, counted, print_table, product_rate, save
from benchmarks.plain import PlainLoop, PlainTask
from hypercl.tasks.task import Split, Task
from train import make_step, new_history

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
    args = run.parse_args(options)
    args.num_tasks = max(EARLIER) + 1
    args.n_iter = 10_000
    cpu = torch.device("cpu")
    task = fake_task(args.cl_exp)
    mnet = experiment.build_main_net(args, task)
    module = experiment.build_hypernet(args, mnet, 0)
    hnet, params = experiment.as_function(args, module, cpu)
    params = {name: value[None] for name, value in params.items()}
    plain, plain_task = PlainLoop(mnet, module), PlainTask(task)
    how = experiment.training(args, [0], len(task.train.labels))
    rows = []
    for earlier in EARLIER:
        checkpoint = take_checkpoint(hnet, params, earlier)
        flat, trained = hnet.to_train(params, earlier + 1)
        history = new_history(how, torch.device("cpu"))
        step = make_step(hnet, mnet, flat, trained, task, earlier, checkpoint, how, history)
        plain.start_task(earlier)
        step()
        with counted() as counter:
            step()
        ours, theirs = in_turn(step, lambda: plain.step(plain_task))
        multiplications = counter.get_total_flops() / 2
        rows.append(
            {
                "earlier": earlier,
                "form": "-" if not earlier else "factored" if checkpoint.factored else "dense",
                "ms": 1e3 * ours,
                "plain ms": 1e3 * theirs,
                "ratio": theirs / ours,
                "million products": multiplications / 1e6,
                "share of rate": multiplications / ours / 1e9 / rate,
                "kept MiB": checkpoint.num_bytes / 2**20 if checkpoint else 0.0,
                "targets MiB": earlier * hnet.num_weights * 4 / 2**20,
            }
        )
    return rows


def in_turn(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """Medians of the seconds that two functions take, in turn, three rounds each."""
    times = ([], [])
    for _ in range(3):
        for function, taken in zip((first, second), times, strict=True):
            function()  # caches belong to it again
            until = time.perf_counter() + SECONDS / 3
            while True:
                started = time.perf_counter()
                function()
                taken.append(time.perf_counter() - started)
                if time.perf_counter() > until:
                    break
    return statistics.median(times[0]), statistics.median(times[1])


def fake_task(experiment: str) -> Task:
    """Random images of the right shape; the time of a step does not depend on what they show."""
    shape = {"splitmnist": (28, 28, 1), "permmnist": (32, 32, 1), "splitcifar": (32, 32, 3)}
    classes = 10 if experiment == "permmnist" else 2
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(
        256, (2000, *shape[experiment]), generator=generator, dtype=torch.uint8
    )  # fmt: skip
    split = Split(images, torch.arange(2000) % classes)
    permutation = torch.randperm(1024) if experiment == "permmnist" else None
    return Task(
        "", classes, split, split, split, permutation, augmented=experiment == "splitcifar"
    )  # fmt: skip


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
