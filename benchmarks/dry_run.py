"""What --dry_run predicts, beside what the run takes.

    python -m benchmarks.dry_run [--rounds 3]

A round predicts and runs each job in turn, on the machine as it is, and beside as many processes as
there are processors that only count. Processes have one thread. Seconds of the processor are those
of the whole process, as the system counts them; what is said of the wall clock is a prediction from
the share of a processor that the dry run got.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import print_table, save
from benchmarks.threads import alone, other_processes

ROOT = Path(__file__).parent.parent
JOBS = {
    "default, 100 steps": ["--n_iter=100"],
    "EWC of van de Ven, 100 steps": ["--preset=vandeven-splitmnist-ewc-cl1", "--n_iter=100"],
    "5 seeds, 50 steps": ["--num_seeds=5", "--n_iter=50"],
}
_SAID = "import sys, json, run; print(json.dumps(run.main(sys.argv[1:])))"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    rows = [
        {"round": number, "job": job, "busy": busy, **measure(options, busy=busy)}
        for number in range(rounds)
        for busy in (False, True)
        for job, options in JOBS.items()
    ]
    print_table(rows)
    for busy in (False, True):
        for job in JOBS:
            chosen = [row for row in rows if (row["job"], row["busy"]) == (job, busy)]
            ratios = [row["predicted cpu s"] / row["cpu s"] for row in chosen]
            print(busy, job, statistics.fmean(ratios), min(ratios), max(ratios))
    save("dry_run", {"rows": rows})


def measure(options: list[str], *, busy: bool) -> dict[str, Any]:
    """Seconds that are predicted and that a run takes, of the processor and by the clock."""
    given = [*options, "--no_cuda", "--num_threads=1", "--loglevel_info"]
    with other_processes() if busy else alone(), tempfile.TemporaryDirectory() as folder:
        _, _, said = timed([*given, "--dry_run"])
        cpu, wall, _ = timed([*given, f"--out_dir={folder}/run"])
    seconds, share = (
        float(re.search(f'"{name}": ([0-9.e-]+)', said)[1]) for name in ("seconds", "share")
    )
    row = {
        "predicted cpu s": seconds,
        "cpu s": cpu,
        "share": share,
        "predicted s": seconds / share,
        "s": wall,
    }
    print(busy, options, row, flush=True)
    return row


def timed(options: list[str]) -> tuple[float, float, str]:
    """Seconds of the processor and of the clock that a process takes, and what it prints."""
    started = time.perf_counter()
    command = [sys.executable, "-c", _SAID, *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{options}: exit {process.returncode}")
    return used.ru_utime + used.ru_stime, time.perf_counter() - started, said


if __name__ == "__main__":
    main()
