"""One thread or all of the machine's, alone and beside other processes: when which is faster.

    python -m benchmarks.threads [--seconds S]

Steps of several networks are timed with one thread and with as many as there are processors, on the
machine as it is and beside as many that only count. Threads that wait for each other sleep,
as in a run (OMP_WAIT_POLICY=passive), or spin, as by default. What is reported of the steps is the
median on the machine as it is, and the mean beside the others, where few long waits are what costs.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import torch

from benchmarks.common import begin_training, counted, print_table, save
from train import TaskTraining

CIFAR = ["--cl_exp=splitcifar"]
PERMUTED = ["--cl_exp=permmnist", "--num_classes_per_task=10"]
NETWORKS = {
    "10,10": (["--mlp_arch=10,10", "--hmlp_arch=10"], 0),
    "default": ([], 0),
    "default, 4 earlier tasks": ([], 4),
    "default, 5 seeds": ([], 0),
    "lenet": (["--net_type=lenet"], 0),
    "PermutedMNIST 1000,1000": (
        [*PERMUTED, "--mlp_arch=1000,1000", "--hmlp_arch=25,25", "--chmlp_chunk_size=255377"], 0,
    ),
    "zenke": ([*CIFAR, "--net_type=zenke"], 0),
    "ResNet-32": ([*CIFAR, "--net_type=resnet"], 0),
    "ResNet-32, batches of 4": ([*CIFAR, "--net_type=resnet", "--batch_size=4"], 0),
}  # fmt: skip


WAITING = {"passive": "asleep", None: "spinning"}  # by OMP_WAIT_POLICY


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0, help="for each point")
    seconds = parser.parse_args().seconds
    rows = []
    for name in NETWORKS:
        row = {"network": name}
        for policy in WAITING:
            row |= in_new_process(policy, time_network, name, seconds, policy)
        rows.append(row)
        print(row, flush=True)
    print_table(rows)
    save("threads", {"rows": rows})


def in_new_process(policy: str | None, function: Callable, *args: object) -> dict:
    """What the function returns in a new process, which reads OMP_WAIT_POLICY as it begins."""
    os.environ.pop("OMP_WAIT_POLICY", None)
    if policy is not None:
        os.environ["OMP_WAIT_POLICY"] = policy
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def time_network(name: str, seconds: float, policy: str | None) -> dict:
    """Times of steps, in ms, by number of threads and whether other processes are busy."""
    options, earlier = NETWORKS[name]
    training = begin_training(options, earlier, num_seeds=5 if "seeds" in name else 1)
    row = {"million products": count(training)} if policy == "passive" else {}
    processors = os.cpu_count() or 1
    for busy in (False, True):
        with other_processes() if busy else alone():
            for threads in (1, processors) if policy == "passive" else (processors,):
                torch.set_num_threads(threads)
                waiting = "" if threads == 1 else f", {WAITING[policy]}"
                key = f"{threads} threads{waiting}, {'busy' if busy else 'alone'} (ms)"
                row[key] = 1e3 * time_steps(training, seconds, mean=busy)
    return row


def count(training: TaskTraining) -> float:
    """Multiplications of a step, in millions."""
    with counted() as counter:
        training.step()
    return counter.get_total_flops() / 2e6


def time_steps(training: TaskTraining, seconds: float, *, mean: bool) -> float:
    """Seconds of a step."""
    training.step()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        started = time.perf_counter()
        training.step()
        times.append(time.perf_counter() - started)
    return statistics.fmean(times) if mean else statistics.median(times)


@contextmanager
def other_processes() -> Iterator[None]:
    """A context in which as many processes as there are processors are busy."""
    forked = multiprocessing.get_context("fork")
    others = [forked.Process(target=busy_loop) for _ in range(os.cpu_count() or 1)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.join()


@contextmanager
def alone() -> Iterator[None]:
    """A context in which nothing is added to the machine's load."""
    yield


def busy_loop() -> None:
    """Counts for ever."""
    while True:
        pass


if __name__ == "__main__":
    main()
