"""Sweeps whose driver or worker is killed: do they find what a sweep without a break finds?

    python -m benchmarks.sweep_survive [--kills 10] [--points 8] [--no_save]

The same sweep of small runs goes three ways: left alone; with a driver that is sent SIGKILL at
random instants and started again; and on a scheduler with two workers started by hand, of which one
is sent SIGKILL while it learns a point, and started again. Compared are the final tables, but for
times, and of each point all logged steps: a point that is missing is lost, one with a step logged
twice was learned twice. Exits with 1 on any difference.
"""

import argparse
import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import print_table, save
from hypercl.lock import is_held

ROOT = Path(__file__).parent.parent
SWEEP = """
name = "survive"
options = [
    "--no_cuda", "--num_tasks=4", "--n_iter=300", "--ckpt_iter=50", "--val_iter=100",
    "--val_set_size=200", "--mlp_arch=20", "--hmlp_arch=10", "--chmlp_chunk_size=500",
]
metric = "cl1"
search = "tpe"
points = {points}
at_once = 4
seeds = 2
stop = "halving"
retest = 2
together = {together}
[space]
beta = {{log = [1e-4, 10]}}
lr = {{log = [1e-4, 1e-1]}}
"""
_TIMES = ("seconds", "run")  # columns of sweep.csv in which sweeps may differ


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--together", type=int, default=1, help="points that train in one step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no_save", action="store_true")
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        text = SWEEP.format(points=args.points, together=args.together)
        (folder / "survive.toml").write_text(text)
        ways = {
            "left alone": alone(folder),
            "driver killed": with_killed_driver(folder, args.kills, chance),
            "worker killed": with_killed_worker(folder),
        }
        expected = outcome(folder / "left_alone")
        rows = []
        for way, (kills, seconds) in ways.items():
            found = outcome(folder / way.replace(" ", "_"))
            rows.append({"sweep": way, "kills": kills, **compare(expected, found),
                         "seconds": round(seconds)})  # fmt: skip
    print_table(rows)
    if not args.no_save:
        save("sweep_survive", {"points": args.points, "together": args.together, "rows": rows})
    sys.exit(any(row["lost"] or row["double"] or row["table"] != "the same" for row in rows))


def start(folder: Path, name: str, *options: str) -> subprocess.Popen:
    """The command, in a process of its own."""
    command = [sys.executable, ROOT / "run.py", "--sweep=survive.toml", f"--out_dir={name}"]
    with (folder / f"{name}.txt").open("a") as file:
        return subprocess.Popen(
            [*command, *options], cwd=folder, stdout=file, stderr=subprocess.STDOUT, env=ENVIRONMENT
        )  # fmt: skip


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def require_ended(process: subprocess.Popen, folder: Path, name: str) -> None:
    if process.wait() != 0:
        raise SystemExit(f"{name} ends with {process.returncode}: {folder / name}.txt\n"
                         + (folder / f"{name}.txt").read_text())  # fmt: skip


def alone(folder: Path) -> tuple[int, float]:
    """The sweep without a break: 0 kills, and seconds."""
    started = time.monotonic()
    require_ended(start(folder, "left_alone", "--workers=2"), folder, "left_alone")
    return 0, time.monotonic() - started


def with_killed_driver(folder: Path, wanted: int, chance: random.Random) -> tuple[int, float]:
    """The sweep, with its driver killed so many times if it lives so long."""
    started, kills = time.monotonic(), 0
    while True:
        process = start(folder, "driver_killed", "--workers=2")
        # Some while it starts; most once points are learned.
        at_work = None if chance.random() < 0.2 else folder / "driver_killed"
        while kills < wanted and at_work is not None and process.poll() is None:
            if learned_at(at_work):
                break
            time.sleep(0.02)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(None if kills == wanted else chance.uniform(0, 5))
        if process.poll() is not None:
            require_ended(process, folder, "driver_killed")
            return kills, time.monotonic() - started
        process.kill()
        process.wait()
        kills += 1


def learned_at(out_dir: Path) -> list[int]:
    """The workers that learn a point at this moment."""
    locks = [path for path in out_dir.glob("*/*/*/run.lock") if is_held(path)]
    with contextlib.suppress(OSError, IndexError, ValueError):
        return [int(path.read_text().split()[1]) for path in locks]
    return []


def with_killed_worker(folder: Path) -> tuple[int, float]:
    """The sweep on a scheduler and two workers, one of them killed in mid-run, started again."""
    file = folder / "scheduler.json"
    with contextlib.ExitStack() as stack:
        scheduler = ["distributed.cli.dask_scheduler", "--host=127.0.0.1", "--port=0",
                     "--no-dashboard", "--scheduler-file", str(file)]  # fmt: skip
        stack.enter_context(running(folder, scheduler))
        while not file.exists():
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        worker = ["distributed.cli.dask_worker", address, "--nthreads=1", "--no-nanny",
                  "--no-dashboard"]  # fmt: skip
        workers = [stack.enter_context(running(folder, worker)) for _ in range(2)]
        wait_for_workers(address, 2)
        started = time.monotonic()
        process = start(folder, "worker_killed", f"--scheduler={address}")
        pids = {worker.pid for worker in workers}
        while not (struck := pids & set(learned_at(folder / "worker_killed"))):
            if process.poll() is not None:
                require_ended(process, folder, "worker_killed")
                raise SystemExit("the sweep has ended before a worker was killed: more --points")
            time.sleep(0.02)
        time.sleep(0.5)
        os.kill(min(struck), signal.SIGKILL)
        stack.enter_context(running(folder, worker))
        require_ended(process, folder, "worker_killed")
        return 1, time.monotonic() - started


@contextlib.contextmanager
def running(folder: Path, command: list[str]) -> Iterator[subprocess.Popen]:
    """A program of Dask's, started outside of the project's folder."""
    with (folder / "dask.txt").open("a") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd="/", stdout=file, stderr=file, env=ENVIRONMENT
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for_workers(address: str, number: int) -> None:
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(number, timeout=120)


def outcome(out_dir: Path) -> dict[str, Any]:
    """What a sweep has found: the rows of its table, and the logged steps of each run."""
    with (out_dir / "sweep.csv").open() as file:
        rows = [{k: v for k, v in row.items() if k not in _TIMES} for row in csv.DictReader(file)]
    steps = {}
    for path in sorted(out_dir.glob("*/*/*/metrics.jsonl")):
        lines = map(json.loads, path.read_text().splitlines())
        name = str(path.parent.relative_to(out_dir))
        steps[name] = [(line["seed"], line["task"], line["step"]) for line in lines]
    return {"rows": rows, "steps": steps}


def compare(expected: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Points lost, points learned twice, and whether the table is the same."""
    missing = [name for name in expected["steps"] if name not in found["steps"]]
    double = [name for name, steps in found["steps"].items() if len(set(steps)) < len(steps)]
    return {
        "points": len(found["steps"]),
        "lost": len(missing),
        "double": len(double),
        "table": "the same" if found["rows"] == expected["rows"] else "another",
    }


if __name__ == "__main__":
    main()
