"""Seconds of inferring tasks, by how many there are: by all networks together, and the general way.

    python -m benchmarks.many_tasks [--save]

With --save, benchmarks/results/many_tasks.json is written anew. The networks are those of
permmnist-small, two hidden layers of 100 and a head of 10 outputs a task, with weights as they are
initialized. A test set of 10,000 samples is classified by the networks of all tasks, as it is done
once a task at the end of a run. Both ways are timed in turn, in processor's seconds of one thread;
the lesser of two counts.
"""

import sys
import time
from unittest import mock

import torch

from benchmarks.common import print_table, save
from hypercl.evaluation import Answers, Learned, answers_of_all
from hypercl.experiment import Experiment
from hypercl.inference import rules_with
from hypercl.networks import plain_mlp
from train_args import parse_args

TASKS = (10, 50, 100)
REPEAT = 2


def main(arguments: list[str]) -> None:
    rows = [measure(num_tasks) for num_tasks in TASKS]
    print_table(rows, "a test set classified by the networks of all tasks")
    if "--save" in arguments:
        save("many_tasks", {"preset": "permmnist-small", "repeat": REPEAT, "rows": rows})


def measure(num_tasks: int, *more: str) -> dict[str, float]:
    """Seconds each way, and how far the scores of the rules are apart.

    Args:
        more: Options beside those of the preset.
    """
    options = ["--preset=permmnist-small", f"--num_tasks={num_tasks}", *more]
    experiment = Experiment.build(parse_args([*options, "--no_cuda", "--num_threads=1"]))
    stats = [experiment.net.fresh_stats(1, experiment.device)] * num_tasks
    learned = Learned(experiment.net, experiment.method, experiment.init([42]), stats)
    tasks = experiment.tasks_to_test(num_tasks)
    batch_size = experiment.options.evaluation.val_batch_size

    def answer() -> tuple[float, Answers]:
        started = time.process_time()
        rules = rules_with(learned.scales)
        answers = answers_of_all(learned, tasks, tasks[0], tasks[0].test, batch_size, rules)
        return time.process_time() - started, answers

    together, general = [], []
    for _ in range(REPEAT):
        seconds, ours = answer()
        together.append(seconds)
        with mock.patch.object(plain_mlp, "plain_activation", return_value=None):
            seconds, theirs = answer()
        general.append(seconds)
    apart = [(ours.scores[rule] - theirs.scores[rule]).abs().max() for rule in ours.scores]
    return {
        "tasks": num_tasks,
        "s, the general way": min(general),
        "s, together": min(together),
        "times as fast": min(general) / min(together),
        "largest difference of a score": torch.stack(apart).max().item(),
    }


if __name__ == "__main__":
    main(sys.argv[1:])
