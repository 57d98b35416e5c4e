"""The whole default job, ``python run.py``, beside the plain loop: wall time and accuracy.

    python -m benchmarks.job [--seeds 3]

Each run is a process of its own, ours and the plain one in turn, with the one thread that the
default job takes; times are of the whole process. The plain loop tests after each task as run.py
does, and writes nothing.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.common import RESULTS, print_table, save
from benchmarks.plain import PlainLoop, PlainTask
from hypercl.experiment import Experiment
from train_args import parse_args

ROOT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--plain", type=int, help="run the plain loop with this seed, and nothing else"
    )
    args = parser.parse_args()
    if args.plain is not None:
        print(plain_job(args.plain))
        return
    rows = []
    for seed in range(42, 42 + args.seeds):
        with tempfile.TemporaryDirectory() as folder:
            options = [f"--random_seed={seed}", f"--out_dir={folder}/run", "--loglevel_info"]
            options += ["--no_cuda", "--num_threads=1"]
            ours, _ = timed([sys.executable, "run.py", *options])
            results = json.loads(Path(folder, "run", "results.json").read_text())
        theirs, output = timed([sys.executable, "-m", "benchmarks.job", f"--plain={seed}"])
        rows.append(
            {
                "seed": seed,
                "s": ours,
                "training s": sum(results["seconds"]["train"]),
                "accuracy": results["summary"]["final_accuracy"]["mean"],
                "plain s": theirs,
                "plain accuracy": float(output.split()[-1]),
                "ratio": theirs / ours,
            }
        )
        print(rows[-1], flush=True)
    print_table(rows)
    means = {key: statistics.fmean(row[key] for row in rows) for key in rows[0] if key != "seed"}
    print({key: round(value, 2) for key, value in means.items()})
    save("job", {"threads": 1, "rows": rows, "means": means})
    draw(rows)


def timed(command: list[str]) -> tuple[float, str]:
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    return time.perf_counter() - started, done.stdout


def plain_job(seed: int, options: Sequence[str] = ("--no_cuda", "--num_threads=1")) -> float:
    """Final accuracy (%) of the default job by the plain loop.

    Args:
        options: Of the command line; without --no_cuda, on the GPU where there is one.
    """
    experiment = Experiment.build(parse_args(list(options)))
    chosen, tasks = experiment.options, experiment.tasks
    module = experiment.method.fresh_module(seed).to(experiment.device)
    loop = PlainLoop(
        experiment.net.module, module, lr=chosen.train.lr, beta=chosen.method.kind.beta
    )
    loop.random.seed(seed)
    for task_id, task in enumerate(tasks):
        loop.start_task(task_id)
        plain_task = PlainTask(task)
        for _ in range(chosen.train.n_iter):
            loop.step(plain_task, chosen.train.batch_size)
        accuracy = [loop.test(seen, seen_id) for seen_id, seen in enumerate(tasks[: task_id + 1])]
    return statistics.fmean(accuracy)


def draw(rows: list[dict]) -> None:
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    axes.bar([f"{row['seed']}" for row in rows], [row["plain s"] for row in rows], color="silver")
    axes.bar([f"{row['seed']}" for row in rows], [row["s"] for row in rows], 0.5, color="crimson")
    axes.legend(["plain loop", "this project"])
    axes.set(title="the default job", xlabel="seed", ylabel="s, whole process, one thread")
    figure.savefig(RESULTS / "job.png", dpi=120)


if __name__ == "__main__":
    main()
