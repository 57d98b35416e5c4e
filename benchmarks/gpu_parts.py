"""The parts of benchmarks/gpu.py. Each runs in a process of its own.

A part takes sizes, the share of them that there is time for, in (0, 1], and ``say``, which takes
each row when it is there.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.common import begin_training, machine
from benchmarks.job import plain_job
from benchmarks.plain import PlainLoop, PlainTask
from benchmarks.step import NETWORKS, in_turn
from hypercl.engine.capture import StepRunner
from hypercl.engine.members import Params
from hypercl.errors import InputError
from hypercl.experiment import pick_device
from hypercl.program import run
from hypercl.rundir.provenance import git_commit
from hypercl.tasks.images import load_images
from train import TaskState, TaskTraining
from train_args import parse_args

ROOT = Path(__file__).parent.parent
TESTS = ("tests/engine/test_cuda.py",)
_WARM_UP = 5  # steps, of which the last is a graph's first replay


class Sizes(NamedTuple):
    """How much is measured."""

    seconds: float  # of each way of taking steps, for each point
    at_once: int  # steps between two looks at the clock
    earlier: tuple[int, ...]  # tasks
    seeds: tuple[int, ...]
    mlp: tuple[str, ...] = ()  # options of these networks
    resnet: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()  # of whole runs
    n_iter: int | None = None  # of whole runs, instead of their own
    data_dir: str = "datasets"
    tests: tuple[str, ...] = TESTS
    begin: float = 10.0  # seconds that a part takes before it measures: a process, and CUDA


FULL = Sizes(2.0, 50, (0, 1, 4, 9), (1, 8, 64))
TINY = Sizes(
    0.01,
    1,
    (0, 1),
    (1, 2),
    ("--mlp_arch=5", "--hmlp_arch=5"),
    ("--resnet_block_depth=1", "--resnet_channel_sizes=4,4,6,8"),
    ("--num_tasks=2",),
    n_iter=2,
    begin=5.0,
)

Row = Mapping[str, Any]
Say = Callable[[Row], None]


class LeftOut(Exception):  # noqa: N818 - it is no error
    """Why a part cannot be measured here."""


def work(pipe: Connection, measure: Callable, sizes: Sizes | None, share: float) -> None:
    """Measure, in the new process, and send rows and how it ended."""
    os.setsid()
    said = "measured", ""
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            measure(sizes, share, lambda row: pipe.send(("row", row)))
    except LeftOut as reason:
        said = "left out", str(reason)
    except BaseException as error:
        said = "failed", f"{type(error).__name__}: {getattr(error, 'message', error)}"
    pipe.send(said)


def describe(sizes: None, share: float, say: Say) -> None:
    """The machine: card, driver, memory, versions, precision, commit."""
    device = pick_device(parse_args([]).run)
    cuda = device.type == "cuda"
    facts = {
        "cuda": cuda,
        "card": torch.cuda.get_device_name() if cuda else "CPU",
        **machine(),
        "commit": git_commit(),
        "precision": "float32 throughout, TF32 off, where a row says nothing else",
    }
    if cuda:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
        driver = None
        with suppress(OSError, subprocess.SubprocessError):
            driver = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30)
        free, total = torch.cuda.mem_get_info()
        facts |= {
            "driver": driver and driver.stdout.strip(),
            "cuda version": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "capability": list(torch.cuda.get_device_capability()),
            "GiB": total / 2**30,
            "GiB free": free / 2**30,
        }
    say(facts)


def run_tests(sizes: Sizes, share: float, say: Say) -> None:
    """The tests of what is captured, in a process of pytest."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *sizes.tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    counts = {
        kind: int(number)
        for number, kind in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout)
    }
    say({"exit": done.returncode, **counts})
    if done.returncode:
        for line in lines:
            if line.startswith(("FAILED", "ERROR", "E  ")):
                say({"said": line[:500]})
        if not lines:
            say({"said": done.stderr[-500:]})


def steps(options: Sequence[str], sizes: Sizes, share: float, say: Say) -> None:
    """Steps captured, not captured and of the plain loop, against the number of earlier tasks."""
    for earlier in sizes.earlier:
        say({"earlier": earlier, **time_ways(options, earlier, 1, sizes, share, plain=True)})


def seeds(sizes: Sizes, share: float, say: Say) -> None:
    """Steps of several seeds, with two earlier tasks."""
    for number in sizes.seeds:
        row = time_ways((), 2, number, sizes, share)
        say({"seeds": number, **row, "ms a seed": row["captured ms"] / number})


def resnet(sizes: Sizes, share: float, say: Say) -> None:
    """Steps of a ResNet-32 by precision, with one earlier task."""
    precisions = {"float32": [], "tf32": ["--tf32"], "amp": ["--amp"]}
    if not torch.cuda.is_available():
        del precisions["tf32"]
    for name, more in precisions.items():
        options = [*NETWORKS["ResNet-32"], *more]
        plain = name == "float32"
        say({"precision": name, **time_ways(options, 1, 1, sizes, share, plain=plain)})


def time_ways(
    options: Sequence[str],
    earlier: int,
    num_seeds: int,
    sizes: Sizes,
    share: float,
    *,
    plain: bool = False,
) -> dict[str, Any]:
    """Milliseconds of a step in each way, and how far captured steps are from the others."""
    given = [*options, *(sizes.resnet if "--net_type=resnet" in options else sizes.mlp)]
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    ways: dict[str, Callable[[], None]] = {}
    ended: dict[str, Params] = {}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for name in ("captured", "eager"):
            training = begin_training(given, earlier, num_seeds, cuda=cuda)
            ways[name] = ready_steps(training, sizes.at_once, eager=name == "eager")
            ways[name]()
            ended[name] = {key: value.clone() for key, value in training.trained.items()}
        if plain:
            ways["plain"] = plain_steps(training, earlier, sizes.at_once)
            ways["plain"]()
        times = in_turn(*ways.values(), seconds=share * sizes.seconds)
    row: dict[str, Any] = {
        f"{name} ms": 1e3 * taken / sizes.at_once for name, taken in zip(ways, times, strict=True)
    }
    pairs = zip(ended["captured"].values(), ended["eager"].values(), strict=True)
    row["apart"] = max((a - b).abs().max().item() for a, b in pairs)
    if cuda:
        row["peak MiB"] = torch.cuda.max_memory_allocated() / 2**20
    if said:
        row["warnings"] = sorted({str(each.message) for each in said})
    return row


def ready_steps(training: TaskTraining, number: int, *, eager: bool) -> Callable[[], None]:
    """So many steps from the same point on, each time; on CUDA captured, unless ``eager``."""
    begin = training.state(0)
    begin |= {
        "flat": begin["flat"].clone(),
        "changed": {name: value.clone() for name, value in begin["changed"].items()},
        "generators": {},
    }
    step = StepRunner(training.step, training.device, training.generator, eager=eager)

    def take(number: int) -> None:
        training.restore(TaskState(**begin))
        for _ in range(number):
            step()
        wait(training.device)

    take(_WARM_UP)
    return partial(take, number)


def plain_steps(training: TaskTraining, earlier: int, number: int) -> Callable[[], None]:
    """As many of the plain loop."""
    experiment, task = training.experiment, PlainTask(training.task)
    module = experiment.method.fresh_module(seed=0).to(training.device)
    loop = PlainLoop(experiment.net.module, module)
    loop.start_task(earlier)

    def take() -> None:
        for _ in range(number):
            loop.step(task)
        wait(training.device)

    return take


def wait(device: torch.device) -> None:
    """For all that the device was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def job(sizes: Sizes, share: float, say: Say) -> None:
    """The default job, as run.py does it and by the plain loop."""
    options = [*sizes.mlp, *sizes.jobs]
    if sizes.n_iter is not None or share < 1:
        n_iter = sizes.n_iter or round(share * parse_args([]).train.n_iter)
        options.append(f"--n_iter={n_iter}")
    say({"way": "run.py", **run_whole(options)})
    started = time.perf_counter()
    accuracy = plain_job(42, options)
    say({"way": "plain loop", "s": time.perf_counter() - started, "accuracy": accuracy})


def preset(name: str, sizes: Sizes, share: float, say: Say) -> None:
    """A preset for real, with fewer steps where there is no time for all."""
    options, chosen = [f"--preset={name}"], parse_args([f"--preset={name}"])
    train, is_cifar = chosen.train, chosen.task.cl_exp == "splitcifar"
    if is_cifar:
        options.append(f"--data_dir={sizes.data_dir}")
        try:
            load_images("cifar10", sizes.data_dir)
        except InputError as error:
            raise LeftOut(str(error)) from None
    if sizes.n_iter is not None:
        options += [
            "--epochs=-1",
            f"--n_iter={sizes.n_iter}",
            *(sizes.resnet if is_cifar else sizes.mlp),
        ]
        options += sizes.jobs
    elif share < 1 and train.epochs is not None:
        options.append(f"--epochs={max(1, int(share * train.epochs))}")
    elif share < 1:
        options.append(f"--n_iter={max(1, int(share * train.n_iter))}")
    say({"options": options, **run_whole(options)})


def run_whole(options: Sequence[str]) -> dict[str, Any]:
    """Seconds and accuracies of a run."""
    with tempfile.TemporaryDirectory() as folder, _warned() as said:
        results = run(*options, f"--out_dir={folder}/run", "--loglevel_info")
    final = results["summary"]["final_accuracy"]["mean"]
    row = {"s": results["seconds"]["total"], "training s": sum(results["seconds"]["train"])}
    row |= {"test s": sum(results["seconds"]["test"]), "accuracy": final}
    return row | ({"warnings": said} if said else {})


@contextmanager
def _warned() -> Iterator[list[str]]:
    """A context whose warnings are in the list behind it."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield texts
    texts += sorted({str(each.message) for each in said})
