"""Why a task is inferred wrongly: how the networks of a finished run differ in scale.

    python -m benchmarks.margins out/splitmnist-lenet [--save]

With --save, benchmarks/results/margins.json is written anew.
The margin of a sample is the distance of the two largest of its logits; with two classes a task,
the lowest entropy is the largest margin. Networks whose logits are large claim the samples of
others. Divided by each network's median margin on its own training samples, margins can be compared
across tasks: the last column is how often the task is then inferred, the one before it, as it is.
"""

import statistics
import sys
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common import print_table, save
from hypercl.learned import Run, load_run

SAMPLES = 3000  # of a task's training set, for its scale


def main(arguments: list[str]) -> None:
    paths = [path for path in arguments if path != "--save"]
    saved = len(paths) < len(arguments)
    if not paths:
        raise SystemExit("give the directories of finished runs")
    results = {}
    for path in paths:
        run = load_run(path, no_cuda=True)
        rows = [measure(run, seed) for seed in run.params]
        print_table(rows, path)
        columns = ("inferred", "inferred, scaled")
        means = {name: statistics.fmean(row[name] for row in rows) for name in columns}
        print(means)
        name = run.experiment.options.run.preset or Path(path).name
        results[name] = {"rows": rows, "mean": means}
    if saved:
        save("margins", results)


@torch.no_grad()
def measure(run: Run, seed: int) -> dict:
    """One seed: each network's scale, and the share (%) of samples whose task is found."""
    tasks = run.experiment.tasks
    weights = [run.weights(task_id, seed) for task_id in range(len(tasks))]

    def margins(task_id: int, inputs: Tensor) -> Tensor:
        stats = list(run.stats[seed][task_id].values())
        options = {"distilled_params": stats} if stats else {}
        logits = torch.cat(
            [
                run.main_net.forward(x, weights=weights[task_id], **options)
                for x in inputs.split(1000)
            ]
        )
        first, second = logits[:, tasks[task_id].outputs].topk(2, dim=1).values.T
        return first - second

    own = (task.inputs(task.train.images[:SAMPLES]) for task in tasks)
    scales = torch.stack([margins(i, inputs).median() for i, inputs in enumerate(own)])
    found = []
    for true, task in enumerate(tasks):
        inputs = task.inputs(task.test.images)
        by_task = torch.stack([margins(i, inputs) for i in range(len(tasks))])  # [tasks, N]
        scaled = by_task / scales[:, None]
        found.append([(m.argmax(0) == true).double().mean().item() for m in (by_task, scaled)])
    as_they_are, scaled = (100 * statistics.fmean(column) for column in zip(*found, strict=True))
    shown = " ".join(f"{scale:.0f}" for scale in scales.tolist())
    return {
        "seed": seed,
        "median margin by task": shown,
        "inferred": as_they_are,
        "inferred, scaled": scaled,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
