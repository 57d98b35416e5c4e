"""Seconds a seed of each method: five seeds in one process and one step, against a process a seed.

    python -m benchmarks.methods [--n_iter 500] [--seeds 5] [--repeat 3]

The default job, its network and its five tasks, with fewer steps; each process has one thread. Of
each method, a run of all seeds and a run of the first one are timed in turn, whole processes with
start-up, tests and files; medians of the repetitions are reported. A process a seed would take
``seeds`` times what the run of one seed takes.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import print_table, save
from benchmarks.job import timed
from hypercl.options import METHODS
from hypercl.registry import entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n_iter", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for method in ("hnet", *sorted(entries(METHODS).keys() - {"hnet"})):
        together, alone = [], []
        for _ in range(args.repeat):
            together.append(seconds(method, args.n_iter, args.seeds))
            alone.append(seconds(method, args.n_iter, 1))
        of_all, of_one = statistics.median(together), statistics.median(alone)
        rows.append(
            {
                "method": method,
                "s, one seed": of_one,
                "s, all seeds together": of_all,
                "s a seed, together": of_all / args.seeds,
                "times as fast": args.seeds * of_one / of_all,
            }
        )
        print(rows[-1], flush=True)
    print_table(rows, f"{args.seeds} seeds, {args.n_iter} steps a task")
    save("methods", {**vars(args), "rows": rows})


def seconds(method: str, n_iter: int, num_seeds: int) -> float:
    """Of a run's process, with one thread."""
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--method={method}", f"--n_iter={n_iter}", f"--num_seeds={num_seeds}"]
        place = [f"--out_dir={Path(folder, 'run')}", "--loglevel_info"]
        command = [sys.executable, "run.py", *options, *place, "--no_cuda", "--num_threads=1"]
        return timed(command)[0]


if __name__ == "__main__":
    main()
