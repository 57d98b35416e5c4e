"""What the benchmarks share: the machine, a table, the files of results."""

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from hypercl.engine import products
from hypercl.engine.products import linear

RESULTS = Path(__file__).parent / "results"


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
