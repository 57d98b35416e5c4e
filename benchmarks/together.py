"""Points of a sweep as members of one step, against one by one in one process, and in processes.

    python -m benchmarks.together [--rounds 3] [--points 16] [--n_iter 200] [--steps]

The points are (beta, lr) of the default job, shortened to 200 steps a task. The three ways run in
turn, with one thread each: whole points with tests, plots and files, all from the same process,
which is warm, but for the processes. Beside the seconds are those of the processor, which on a busy
machine say more. --steps times steps alone: of all points together, and of one, with the same beta
and lr in all and with their own; two earlier tasks, the rule of the packs left aside.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.common import begin_training, fake_task, print_table, save
from benchmarks.seeds import NETWORKS
from benchmarks.step import in_turn
from hypercl.experiment import Experiment, pick_device
from hypercl.program import run
from hypercl.rundir.checkpoint import Position
from hypercl.sweeps.joined import JoinedExperiment, Member, join_positions
from hypercl.sweeps.pack import points_together
from hypercl.sweeps.together import learn_together
from train import TaskTraining
from train_args import parse_args

ROOT = Path(__file__).parent.parent
BETAS, RATES = (1e-3, 1e-2, 1e-1, 1.0), (1e-4, 3e-4, 1e-3, 3e-3)
POINTS = [[f"--beta={beta}", f"--lr={lr}"] for beta in BETAS for lr in RATES]
COMMON = ["--no_cuda", "--num_threads=1", "--num_tasks=5", "--loglevel_info"]
WAYS = ("members", "one by one", "processes")
TASK_ID = 2
COUNTS = (2, 4, 8, 16)  # points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--points", type=int, default=len(POINTS))
    parser.add_argument("--n_iter", type=int, default=200)
    parser.add_argument("--steps", action="store_true", help="time steps alone")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.steps:
        rows = steps()
        print_table(rows)
        save("together-steps", {"rows": rows})
        return
    common = [*COMMON, f"--n_iter={args.n_iter}"]
    points = POINTS[: args.points]
    for way in WAYS[:2]:  # imports, and what is slow once
        timed(way, [[*COMMON, "--n_iter=2", *POINTS[0]]])
    rows = []
    for number in range(args.rounds):
        order = WAYS[number % 3 :] + WAYS[: number % 3]
        taken = {way: timed(way, [[*common, *own] for own in points]) for way in order}
        rows.append(
            {
                "round": number + 1,
                **{f"{way} s": taken[way][0] for way in WAYS},
                **{f"{way} cpu s": taken[way][1] for way in WAYS},
            }
        )
        print(rows[-1], flush=True)
    print_table(rows)
    members = WAYS[0]
    ratios = {
        f"{way} / {members}, {kind}": statistics.median(
            row[f"{way} {kind}"] / row[f"{members} {kind}"] for row in rows
        )
        for way in WAYS[1:]
        for kind in ("s", "cpu s")
    }
    print(ratios)
    together = points_together(parse_args(common))
    load = os.getloadavg()[1]
    save(
        "together",
        {
            "points": len(points),
            "n_iter": args.n_iter,
            "together": together,
            "load of the machine": load,
            "rows": rows,
            "medians of ratios": ratios,
        },
    )


def timed(way: str, points: Sequence[list[str]]) -> tuple[float, float]:
    """Seconds that the points take, and seconds of the processor."""
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        argvs = [[*own, f"--out_dir={folder}/{i}"] for i, own in enumerate(points)]
        started, cpu = time.perf_counter(), cpu_seconds()
        if way == "members":
            learn_together(argvs)
        elif way == "one by one":
            for argv in argvs:
                with redirect_stdout(nowhere):
                    run(*argv)
        else:
            for argv in argvs:
                command = [sys.executable, "run.py", *argv]
                subprocess.run(command, cwd=ROOT, check=True, stdout=nowhere)
        return time.perf_counter() - started, cpu_seconds() - cpu


def cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    whose = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    used = [resource.getrusage(each) for each in whose]
    return sum(each.ru_utime + each.ru_stime for each in used)


def steps() -> list[dict]:
    """Steps of points together and of one alone, in turn."""
    rows = []
    for network, options in list(NETWORKS.items())[:3]:
        alone = begin_training(options, TASK_ID).step
        for count in COUNTS:
            own = [[f"--beta={b}", f"--lr={r}"] for b in BETAS for r in RATES][:count]
            shared = ready_step(options, [[]] * count)
            together = ready_step(options, own)
            times = in_turn(together, shared, alone)
            rows.append(
                {
                    "network": network,
                    "points": count,
                    "ms together": 1e3 * times[0],
                    "ms, one beta and lr": 1e3 * times[1],
                    "ms alone": 1e3 * times[2],
                    "times as fast": count * times[2] / times[0],
                }
            )
            print(rows[-1], flush=True)
    return rows


def ready_step(options: Sequence[str], points: Sequence[list[str]]) -> Callable[[], None]:
    """A step of points with so many options of their own, taken once."""
    members, positions = {}, []
    for seed, own in enumerate(points):
        chosen = parse_args([*options, *own, "--no_cuda"])
        chosen = chosen.having(num_tasks=TASK_ID + 1, n_iter=10_000, epochs=None)
        tasks = [fake_task(chosen.task.cl_exp)] * (TASK_ID + 1)
        experiment = Experiment.of(chosen, tasks, pick_device(chosen.run))
        members[seed] = Member(experiment, seed)
        start = Position.start([[seed]]).on_device(experiment.device, experiment.init)
        positions.append(start)
    together = replace(join_positions(positions), task_id=TASK_ID)
    training = TaskTraining.at(JoinedExperiment.join(members), together)
    training.step()
    return training.step


if __name__ == "__main__":
    main()
