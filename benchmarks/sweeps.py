"""Sweeps as whole commands: points a minute, what a point costs beside its training, and halving.

    python -m benchmarks.sweeps points [--n_iter 200]
    python -m benchmarks.sweeps halving [--n_iter 200] [--points 16] [--rounds 3]

"points": 16 points of (beta, lr) of the default job, one by one and together, on one worker and on
two; seconds of the whole command, from the start of Python to the report. "halving": the same
random points with and without it, on two workers, a round for each seed of the search; whether the
same point is the best, and what the one that halving has chosen reaches in the other sweep. Points
have one seed, and are not tested at the end.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import print_table, save

ROOT = Path(__file__).parent.parent
_OPTIONS = ["--cl_exp=splitmnist", "--val_set_size=1000", "--no_cuda", "--num_threads=1"]
_GRID = "beta = [0.001, 0.01, 0.1, 1.0]\nlr = [1e-4, 3e-4, 1e-3, 3e-3]"
_RANGES = "beta = {log = [1e-4, 10]}\nlr = {log = [1e-5, 1e-2]}"


class Swept(NamedTuple):
    """A sweep that has ended."""

    seconds: float  # of the whole command
    points: list[dict[str, str]]  # rows of sweep.csv
    training: float  # seconds, as the points' runs count them
    runs: float  # seconds of the points' runs, from their beginning to their end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("points", "halving"))
    parser.add_argument("--n_iter", type=int, default=200)
    parser.add_argument("--points", type=int, default=16, help="of halving")
    parser.add_argument("--rounds", type=int, default=3, help="of halving")
    args = parser.parse_args()
    if args.part == "points":
        rows = points(args.n_iter)
    else:
        rows = halving(args.n_iter, args.points, args.rounds)
    print_table(rows)
    load = os.getloadavg()[1]
    save(f"sweeps-{args.part}", {"n_iter": args.n_iter, "load of the machine": load, "rows": rows})


def points(n_iter: int) -> list[dict[str, Any]]:
    """Points a minute, one by one and together, on one worker and two."""
    rows = []
    for together in (1, 16):
        for workers in (1, 2):
            head = f'search = "grid"\ntogether = {together // workers or 1}'
            swept = sweep(n_iter, head, _GRID, workers)
            count = len(swept.points)
            row = {
                "points in a step": together // workers or 1,
                "workers": workers,
                "s": swept.seconds,
                "points a minute": 60 * count / swept.seconds,
            }
            if together == 1:  # else a run counts the time of all that train with it
                row["s of training a point"] = swept.training / count
                row["s of a run"] = swept.runs / count
                row["s beside the run a point"] = (
                    swept.seconds * workers / count - row["s of a run"]
                )
            else:
                row |= dict.fromkeys([*rows[0]][4:], "")
            rows.append(row)
            print(row, flush=True)
    return rows


def halving(n_iter: int, number: int, rounds: int) -> list[dict[str, Any]]:
    """The same points with and without halving."""
    rows = []
    for seed in range(rounds):
        head = f'search = "random"\npoints = {number}\nseed = {seed}\ntogether = 1\n'
        ways = {stop: head + f'stop = "{stop}"' for stop in ("none", "halving")}
        order = list(ways) if seed % 2 == 0 else list(ways)[::-1]
        swept = {stop: sweep(n_iter, ways[stop], _RANGES, 2) for stop in order}
        best = {stop: _best(swept[stop].points) for stop in ways}
        values = {row["number"]: float(row["value"]) for row in swept["none"].points}
        rows.append(
            {
                "seed": seed,
                "s without": swept["none"].seconds,
                "s with": swept["halving"].seconds,
                "times as fast": swept["none"].seconds / swept["halving"].seconds,
                "stopped": sum(row["status"] == "stopped" for row in swept["halving"].points),
                "the same best": best["none"]["number"] == best["halving"]["number"],
                "best": values[best["none"]["number"]],
                "the chosen one": values[best["halving"]["number"]],
                "median": statistics.median(values.values()),
            }
        )
        print(rows[-1], flush=True)
    return rows


def sweep(n_iter: int, head: str, space: str, workers: int) -> Swept:
    """Run a sweep of one seed a point, whose best is not tested."""
    options = json.dumps([*_OPTIONS, f"--n_iter={n_iter}"])
    text = f'metric = "cl1"\nretest = 0\noptions = {options}\n{head}\n[space]\n{space}\n'
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder, "measured.toml"), Path(folder, "out")
        file.write_text(text)
        command = [sys.executable, "run.py", f"--sweep={file}", f"--workers={workers}"]
        started = time.perf_counter()
        done = subprocess.run(
            [*command, f"--out_dir={out}"], cwd=ROOT, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        seconds = time.perf_counter() - started
        with (out / "sweep.csv").open() as table:
            tried = list(csv.DictReader(table))
        files = list(out.glob("points/*/*/results.json"))
        taken = [json.loads(path.read_text())["seconds"] for path in files]
    training = sum(sum(of_run["train"]) for of_run in taken)
    return Swept(seconds, tried, training, sum(of_run["total"] for of_run in taken))


def _best(tried: list[dict[str, str]]) -> dict[str, str]:
    finished = [row for row in tried if row["status"] == "finished"]
    return max(finished, key=lambda row: (float(row["value"]), -int(row["number"])))


if __name__ == "__main__":
    main()
