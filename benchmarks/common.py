"""What the benchmarks share: the machine, a table, the files of results."""

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from hypercl.engine import products
from hypercl.engine.products import linear
from hypercl.experiment import Experiment, pick_device
from hypercl.rundir.checkpoint import Position
from hypercl.tasks.task import Split, Task
from train import TaskTraining
from train_args import parse_args

RESULTS = Path(__file__).parent / "results"


def last_wins(options: Sequence[str]) -> list[str]:
    """A command line in which an option replaces itself further in front, and --epochs replaces
    --n_iter.
    """
    by_name = {option.partition("=")[0]: option for option in options}
    if by_name.get("--epochs", "--epochs=-1") != "--epochs=-1":
        by_name.pop("--n_iter", None)
    return list(by_name.values())


def print_table(rows: Sequence[Mapping[str, Any]], title: str = "") -> None:
    """Rows of equal keys as a table."""
    table = Table(title=title or None)
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(width=160).print(table)


def save(name: str, content: Mapping[str, Any]) -> None:
    """Write benchmarks/results/<name>.json with the machine and the date in it."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(
        {"date": time.strftime("%Y-%m-%d"), "machine": machine(), **content}, indent=1
    )
    (RESULTS / f"{name}.json").write_text(text + "\n")


def machine() -> dict[str, Any]:
    """Processor, cores, versions; the GPU where there is one."""
    info = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        info["gpu"] = torch.cuda.get_device_name()
    return info


def begin_training(
    options: Sequence[str], task_id: int, num_seeds: int = 1, *, cuda: bool = False
) -> TaskTraining:
    """A task of random images, ready to be trained after so many earlier ones.

    Args:
        cuda: On the GPU, where there is one; else on the CPU.
    """
    chosen = parse_args([*options, *([] if cuda else ["--no_cuda"])])
    device = pick_device(chosen.run)
    # More tasks than some sequences have, which is for the command line alone to refuse.
    chosen = chosen.having(num_tasks=task_id + 1, n_iter=10_000, epochs=None)
    tasks = [fake_task(chosen.task.cl_exp, device)] * (task_id + 1)
    experiment = Experiment.of(chosen, tasks, device)
    position = Position.start([list(range(num_seeds))])
    position = position.on_device(experiment.device, experiment.method.init)
    return TaskTraining.at(experiment, replace(position, task_id=task_id))


def fake_task(experiment: str, device: torch.device | str = "cpu") -> Task:
    """Random images of the right shape; the time of a step does not depend on what they show."""
    shape = {"splitmnist": (28, 28, 1), "permmnist": (32, 32, 1), "splitcifar": (32, 32, 3)}
    classes = 10 if experiment == "permmnist" else 2
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(
        256, (2000, *shape[experiment]), generator=generator, dtype=torch.uint8
    )  # fmt: skip
    split = Split(images.to(device), (torch.arange(2000) % classes).to(device))
    permutation = (
        torch.randperm(1024, generator=generator).to(device) if experiment == "permmnist" else None
    )
    return Task(
        "", classes, split, split, split, permutation, augmented=experiment == "splitcifar"
    )  # fmt: skip


@contextmanager
def counted() -> Iterator[FlopCounterMode]:
    """Counts multiplications, twice each, which torch knows of its own products alone."""
    with mock.patch.object(products, "ONEDNN", False), FlopCounterMode(display=False) as counter:
        yield counter


def product_rate(threads: int, shape: tuple[int, int, int] = (600, 100, 750)) -> float:
    """Multiplications per second (in units of 1e9) of one float32 product x Wᵀ, the best of many,
    by the library that this project takes for it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    m, k, n = shape
    x, weight = torch.randn(1, m, k), torch.randn(1, n, k)
    best = float("inf")
    for _ in range(200):
        started = time.perf_counter()
        linear(x, weight)
        best = min(best, time.perf_counter() - started)
    torch.set_num_threads(before)
    return m * k * n / best / 1e9


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "")
