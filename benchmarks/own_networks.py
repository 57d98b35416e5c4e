"""Time of a training step with networks of one's own, beside built-in ones.

    python -m benchmarks.own_networks

The third task (two earlier ones), one thread, one and three seeds; a step of the user's network and
one of the built-in one are timed in turn in one process, medians of the processor's time are
reported. MLP and LeNet are written anew with the same shapes, in benchmarks/own.py; torchvision's
ResNet-18 stands beside the ResNet-32 for images of CIFAR's size, and a convolutional network with
batch normalization and dropout beside LeNet.
"""

import time

import torch

from benchmarks.common import begin_training, print_table, save
from benchmarks.step import in_turn

TASK_ID = 2
METHODS = ("hnet", "finetune")
SEEDS = (1, 3)
RESNET_18 = ["--net_type=torchvision.models:resnet18", "--compression=0.1"]
PAIRS = {
    "MLP": (["--net_type=benchmarks.own:Mlp"], ["--net_type=mlp"]),
    "LeNet": (["--net_type=benchmarks.own:Lenet"], ["--net_type=lenet"]),
    "norm and dropout, LeNet": (["--net_type=benchmarks.own:Net"], ["--net_type=lenet"]),
    "ResNet-18, ResNet-32": (
        ["--cl_exp=splitcifar", *RESNET_18],
        ["--cl_exp=splitcifar", "--net_type=resnet", "--batchnorm"],
    ),
}


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for pair, both in PAIRS.items():
        for method in METHODS:
            for seeds in SEEDS:
                rows.append({"networks": pair, "method": method, **compare(both, method, seeds)})
                print(rows[-1], flush=True)
    print_table(rows)
    save("own_networks", {"rows": rows})


def compare(both: tuple[list[str], list[str]], method: str, num_seeds: int) -> dict:
    """A row: the user's network and the built-in one."""
    row: dict = {"seeds": num_seeds}
    steps = []
    for options, whose in zip(both, ("own", "built in"), strict=True):
        of_method = [o for o in options if method == "hnet" or "compression" not in o]
        training = begin_training([*of_method, f"--method={method}"], TASK_ID, num_seeds)
        net = training.experiment.net
        row[f"{whose}, weights"] = net.num_weights
        inputs = training.task.in_shape
        row[f"{whose}, million products"] = (
            net.count_multiplications(torch.Size(inputs).numel()) / 1e6
        )
        training.step()
        steps.append(training.step)
    own, built_in = in_turn(*steps, clock=time.process_time)
    return {**row, "own, ms": 1e3 * own, "built in, ms": 1e3 * built_in, "ratio": own / built_in}


if __name__ == "__main__":
    main()
