"""Many seeds in one process: a step of them together against steps of single ones.

    python -m benchmarks.seeds

Four networks at the third task (two earlier ones), one and two threads; a step of all seeds and a
step of one are timed in turn in one process, medians are reported. What they say of a CPU is in
``MainNetwork.most_together``, which this benchmark goes past.
"""

from collections.abc import Callable

import torch
from matplotlib.figure import Figure

from benchmarks.common import RESULTS, begin_training, print_table, product_rate, save
from benchmarks.step import in_turn

SEEDS = (2, 4, 8, 16)
TASK_ID = 2
NETWORKS = {
    "10": ["--mlp_arch=10", "--hmlp_arch=10"],
    "50,50": ["--mlp_arch=50,50", "--hmlp_arch=50,50"],
    "100,100 (default)": [],
    "400,400 (paper-splitmnist)": ["--preset=paper-splitmnist"],
}


def main() -> None:
    rows = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for network, options in NETWORKS.items():
            one, num_weights = ready_step(options, 1)
            for count in SEEDS:
                together, alone = in_turn(ready_step(options, count)[0], one)
                rows.append(
                    {
                        "threads": threads,
                        "network": network,
                        "weights": num_weights,
                        "seeds": count,
                        "ms together": 1e3 * together,
                        "ms alone": 1e3 * alone,
                        "times as fast": count * alone / together,
                    }
                )
                print(rows[-1], flush=True)
    print_table(rows)
    save("seeds", {"rows": rows, "product rate": {n: product_rate(n) for n in (1, 2)}})
    draw(rows)


def ready_step(options: list[str], num_seeds: int) -> tuple[Callable[[], None], int]:
    """A step of so many seeds, taken once; the number of weights that it generates for each."""
    training = begin_training(options, TASK_ID, num_seeds)
    training.step()
    return training.step, training.experiment.net.num_weights


def draw(rows: list[dict]) -> None:
    """benchmarks/results/seeds.png."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, threads in zip(figure.subplots(1, 2, sharey=True), (1, 2), strict=True):
        for network in NETWORKS:
            chosen = [r for r in rows if (r["network"], r["threads"]) == (network, threads)]
            ratios = [row["times as fast"] for row in chosen]
            axes.plot([row["seeds"] for row in chosen], ratios, "o-", label=network)
        axes.axhline(1, color="gray", linewidth=1)
        axes.set(title=f"{threads} thread(s)", xscale="log", xlabel="seeds trained together")
        axes.set_xticks(SEEDS, SEEDS)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    axes.figure.axes[0].set_ylabel("times as fast as one by one")
    axes.legend()
    figure.savefig(RESULTS / "seeds.png", dpi=120)


if __name__ == "__main__":
    main()
