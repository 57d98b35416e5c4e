"""The shortest run beside the import of torch alone: wall time of the whole processes.

    python -m benchmarks.startup [--pairs 7]

Both take one thread and are started in turn, so that other programs on the machine meet both alike,
and once before, for the disk's cache and for Python's compiled files. Seconds of the processor are
those of all processes of a run, the one that draws included.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.common import print_table, save

ROOT = Path(__file__).parent.parent

SHORTEST = ["run.py", "--n_iter=2", "--num_tasks=1", "--no_cuda"]
IMPORT = ["-c", "import torch"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=7)
    result = measure(parser.parse_args().pairs)
    print_table([result | {"load": str(result["load"])}])
    save("startup", {"command": "python " + " ".join(SHORTEST), **result})


def measure(pairs: int) -> dict[str, object]:
    """Seconds of each, medians; of their ratio, the median over pairs, the least and the most."""
    runs: list[Seconds] = []
    imports: list[Seconds] = []
    for number in range(pairs + 1):
        with tempfile.TemporaryDirectory() as folder:
            run = seconds_of([*SHORTEST, f"--out_dir={folder}/run"])
        torch = seconds_of(IMPORT)
        if number:
            runs.append(run)
            imports.append(torch)
    ratios = [run.wall / torch.wall for run, torch in zip(runs, imports, strict=True)]
    return {
        "pairs": pairs,
        "run s": statistics.median(run.wall for run in runs),
        "torch s": statistics.median(torch.wall for torch in imports),
        "run processor s": statistics.median(run.processor for run in runs),
        "torch processor s": statistics.median(torch.processor for torch in imports),
        "ratio": statistics.median(ratios),
        "least ratio": min(ratios),
        "most ratio": max(ratios),
        "load": os.getloadavg(),
    }


class Seconds(NamedTuple):
    """What processes took."""

    wall: float
    processor: float


def seconds_of(command: Sequence[str]) -> Seconds:
    """Of a Python process with one thread, and of those that it starts, from start to end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a first run compiles for those after it
    started, used = time.perf_counter(), _processor()
    subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, check=True, capture_output=True
    )
    return Seconds(time.perf_counter() - started, _processor() - used)


def _processor() -> float:
    """Seconds of all processes that this one has started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
