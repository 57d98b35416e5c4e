"""What checkpoints cost the default job, ``python run.py``.

    python -m benchmarks.checkpoint [--rounds 3]

The job with its checkpoints and without any, in turn, in one process: the time of the job, and of
it the time within the writing of checkpoints, which is the steadier number of the two.
"""

import argparse
import statistics
import tempfile
import time
from contextlib import redirect_stdout
from os import devnull

import run
from benchmarks.common import print_table, save
from hypercl.rundir.checkpoint import Checkpoints


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    job(without=True, options=["--n_iter=10"])  # imports, which whoever comes first would pay
    rows = []
    for _ in range(args.rounds):
        with_, writes = job()
        without, _ = job(without=True)
        rows.append(
            {
                "s": with_,
                "s without": without,
                "checkpoints": len(writes),
                "ms each": 1e3 * statistics.median(writes),
                "share %": 100 * sum(writes) / with_,
            }
        )
        print(rows[-1], flush=True)
    print_table(rows)
    means = {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}
    save("checkpoint", {"rows": rows, "means": means})


def job(*, without: bool = False, options: list[str] | None = None) -> tuple[float, list[float]]:
    """Seconds of the default job, and of each of its checkpoints."""
    write, writes = Checkpoints.write, []

    def timed(*args) -> None:
        started = time.perf_counter()
        if not without:
            write(*args)
        writes.append(time.perf_counter() - started)

    Checkpoints.write = timed
    try:
        with tempfile.TemporaryDirectory() as folder, open(devnull, "w") as null:
            started = time.perf_counter()
            with redirect_stdout(null):
                run.main(["--no_cuda", f"--out_dir={folder}/run", *(options or [])])
            return time.perf_counter() - started, writes
    finally:
        Checkpoints.write = write


if __name__ == "__main__":
    main()
