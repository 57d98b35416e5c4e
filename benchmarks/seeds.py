"""Many seeds in one process: time per seed and step against the number of seeds.

    python -m benchmarks.seeds

The default networks at the third task (two earlier ones), 1, 4, 16 and 64 seeds, one step after the
other; what one seed takes alone, times the number of seeds, is the time of so many single runs.
"""

import statistics
import time

import torch
from matplotlib.figure import Figure

import run
from benchmarks.common import RESULTS, print_table, product_rate, save
from benchmarks.step import fake_task
from hypercl.members import stack_members
from hypercl.regularizer import take_checkpoint
from train import make_step, new_history

SEEDS = (1, 4, 16, 64)
TASK_ID = 2
SECONDS = 20.0


def main() -> None:
    rows = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for count in SEEDS:
            ms = 1e3 * measure(count)
            alone = next((r["ms per step"] for r in rows if r["threads"] == threads), ms)
            rows.append(
                {
                    "threads": threads,
                    "seeds": count,
                    "ms per step": ms,
                    "ms per seed": ms / count,
                    "single runs / together": alone * count / ms,
                }
            )
            print(rows[-1], flush=True)
    print_table(rows)
    save("seeds", {"rows": rows, "product rate": {n: product_rate(n) for n in (1, 2)}})
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    for threads in (1, 2):
        chosen = [row for row in rows if row["threads"] == threads]
        axes.plot(SEEDS, [row["ms per seed"] for row in chosen], "o-", label=f"{threads} thread(s)")
    axes.set(xscale="log", xlabel="seeds trained together", ylabel="ms per seed and step")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(RESULTS / "seeds.png", dpi=120)


def measure(num_seeds: int) -> float:
    """Median seconds of a step of so many seeds."""
    args = run.parse_args(["--no_cuda"])
    task, seeds = fake_task("splitmnist"), range(num_seeds)
    mnet = run.build_main_net(args, task, torch.device("cpu"))
    made = [run.as_function(args, run.build_hypernet(args, mnet, seed), "cpu") for seed in seeds]
    hnet, params = made[0][0], stack_members([params for _, params in made])
    how = run.training(args, seeds, len(task.train.labels))
    checkpoint = take_checkpoint(hnet, params, TASK_ID)
    flat, trained = hnet.to_train(params, TASK_ID + 1)
    history = new_history(how, torch.device("cpu"))
    step = make_step(hnet, mnet, flat, trained, task, TASK_ID, checkpoint, how, history)
    step()
    taken, until = [], time.perf_counter() + SECONDS
    while time.perf_counter() < until and len(taken) < how.num_steps - 1:
        started = time.perf_counter()
        step()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
