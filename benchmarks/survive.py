"""Runs that are killed again and again, beside runs that never were: is there any difference?

    python -m benchmarks.survive --kills 50 [--seed 0] [--jobs plain,groups]
    python -m benchmarks.survive --kills 60 --own --sigkill

Short jobs of several configurations are sent SIGKILL or one of the signals that end a run at random
instants: while the program starts, within a step, within the writing of a file, in tests and
between tasks, at the end. Between two lives, and after the last, a file of the run is sometimes
removed or damaged. Each is continued by the same command until it is finished, and compared with
one that was left alone: results.json but for the times, weights, metrics.jsonl and TensorBoard's
numbers, all exactly, but for the logs that were removed or damaged. Exits with 1 on any difference,
on a checkpoint that was not gone on from, and on a wrong exit code or message.

--own has data, networks and methods of one's own alone, and a file of results of its own. --sigkill
sends nothing but SIGKILL.

Children are forked from a process that has torch imported (but those killed while they start, which
are processes of their own, in environments that are not kind), compute with one thread, and use
stand-ins for the CIFAR images.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # a forked child cannot use its parent's threads

import argparse
import contextlib
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch._dynamo
import torch.utils.tensorboard  # these two are imported where a run comes to them: now, and once
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

import run
import train
from benchmarks import own
from benchmarks.common import last_wins, print_table, save
from hypercl import evaluation
from hypercl.engine import groups
from hypercl.interruption import ENDING
from hypercl.report import results as report
from hypercl.rundir import checkpoint, saving, stored
from hypercl.rundir import directory as rundir
from hypercl.shell import command_line
from hypercl.tasks import images as datasets

ROOT = Path(__file__).parent.parent
SHORT = ["--no_cuda", "--n_iter=60", "--val_iter=30", "--ckpt_iter=20", "--num_tasks=3"]
CIFAR = ["--cl_exp=splitcifar", "--val_set_size=20", "--batch_size=8", "--val_batch_size=60"]
SMALL_RESNET = ["--net_type=resnet", "--resnet_block_depth=1", "--resnet_channel_sizes=4,4,6,8"]
SMALL_VAE = ["--vae_encoder_arch=20", "--vae_decoder_arch=20", "--vae_latent_size=5"]
SMALL_DECODER = [
    "--vae_condition_size=4", "--vae_hmlp_arch=8", "--vae_emb_size=4", "--vae_chunk_emb_size=4",
    "--vae_chunk_size=5000",
]  # fmt: skip
JOBS = {
    "plain": [],
    "subset and dropout": [
        "--num_tasks=4", "--hnet_reg_batch_size=1", "--hnet_dropout_rate=0.2",
        "--dropout_rate=0.2", "--weight_decay=1e-4",
    ],
    "seeds": ["--num_seeds=3", "--hnet_reg_batch_size=1", "--hnet_dropout_rate=0.1"],
    "groups": ["--num_seeds=3", "--num_tasks=2"],  # one seed each, see _in_child
    "augmented": [*CIFAR, *SMALL_RESNET, "--batchnorm", "--bn_no_running_stats", "--num_tasks=2"],
    "augmented seeds": [
        *CIFAR, *SMALL_RESNET, "--batchnorm", "--num_seeds=2", "--num_tasks=2", "--n_iter=40",
    ],
    "published settings": [
        "--num_seeds=2", "--batchnorm", "--num_train_samples=640", "--val_set_size=64",
        "--plateau_lr_scheduler", "--lambda_lr_scheduler", "--epochs=3", "--multi_head",
        "--task_loss=total", "--lookahead", "--freeze_prev_embs", "--clip_grad_norm=1",
        "--scenarios_every_task",
    ],
    "after tasks alone": ["--ckpt_iter=0", "--use_cond_chunk_embs", "--cond_emb_size=0"],
    "dense": ["--hnet_type=hmlp", "--hmlp_arch=20", "--mlp_arch=20", "--ckpt_iter=7"],
    "finetune": ["--method=finetune", "--keep_optimizer", "--num_seeds=2"],
    "separate": ["--method=separate", "--separate_same_budget", "--num_seeds=2"],
    "joint": ["--method=joint", "--cl_scenario=3", "--n_iter=20", "--batchnorm"],
    "ewc": ["--method=ewc", "--cl_scenario=2", "--fisher_samples=50", "--num_seeds=2"],
    "online_ewc": [
        "--method=online_ewc", "--cl_scenario=1", "--ewc_gamma=0.7", "--fisher_samples=50",
        "--keep_optimizer", "--dropout_rate=0.2",
    ],
    "si": ["--method=si", "--cl_scenario=3", "--num_seeds=2", "--dropout_rate=0.2"],
    "lwf": ["--method=lwf", "--cl_scenario=1", "--batchnorm", "--num_seeds=2"],
    "replay": [
        "--method=replay", "--cl_scenario=3", "--replay_budget=50", "--num_seeds=2",
        "--replay_sampling=reservoir",
    ],
    "der": [*CIFAR, *SMALL_RESNET, "--method=der", "--batchnorm", "--n_iter=30"],
    "derpp": ["--method=derpp", "--cl_scenario=2", "--replay_per_class=9", "--num_seeds=2"],
    "dgr": [*SMALL_VAE, "--method=dgr", "--cl_scenario=1", "--keep_optimizer", "--num_seeds=2"],
    "hnet_r": [*SMALL_VAE, *SMALL_DECODER, "--method=hnet_r", "--cl_scenario=3", "--num_seeds=2"],
    "hnet_tir": [
        *SMALL_VAE, *SMALL_DECODER, "--method=hnet_tir", "--multi_head", "--tir_arch=20",
        "--freeze_prev_embs", "--lookahead", "--num_seeds=2",
    ],
}  # fmt: skip
OWN_JOBS = {
    "own tasks and network": [
        "--cl_exp=own.py:tasks", "--net_type=own.py:Net", "--num_seeds=2", "--angle=180",
    ],
    "own arrays and method": [
        "--cl_exp=own.npz", "--method=own.py:NearTheMean", "--net_type=own.py:Net", "--pull=0.5",
        "--num_seeds=2",
    ],
}  # fmt: skip
# Those that can be killed in a process of their own: no stand-ins for data are needed.
IN_PROCESSES = ("plain", "dense", *OWN_JOBS)


class Blow(NamedTuple):
    """A signal, and where it falls."""

    place: str  # a key of PLACES, or "start-up"
    count: int  # at the so-manieth time
    number: int  # of the signal
    delay: float  # seconds after that


class Life(NamedTuple):
    """How one process of a job ended."""

    code: int  # as a shell has it; 128 + signal
    struck: bool  # whether the blow fell before the end
    errors: str
    began: list[int] | None  # the position from which it went on: [group, task, step]
    saved: list[list[int]]  # the positions of the checkpoints that it wrote


# Where a blow may fall: the object and the name of what is called there; for "half a file", half of
# it is written first.
PLACES = {
    "step": (train.TaskTraining, "step", 150),
    "half a file": (Path, "write_bytes", 15),
    "flushing a file": (rundir.os, "fsync", 40),
    "renaming a file": (Path, "replace", 25),
    "report of a step": (report.Report, "step", 12),
    "test": (evaluation, "evaluate", 6),
    "between tasks": (report.Report, "end_task", 3),
    "end": (report.Report, "__exit__", 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", help="names, with commas between them (default: all)")
    parser.add_argument("--own", action="store_true")
    parser.add_argument("--sigkill", action="store_true")
    parser.add_argument("--no_save", action="store_true")
    args = parser.parse_args()
    names = args.jobs.split(",") if args.jobs else list(OWN_JOBS if args.own else JOBS)
    numbers = (signal.SIGKILL,) if args.sigkill else NUMBERS
    started = time.monotonic()
    killed, spoilings, problems = survive(args.kills, args.seed, names, numbers)
    kills = [blow for blows in killed.values() for blow in blows]
    rows = [
        {"place": place, **{signal.Signals(n).name: count[n] for n in numbers}}
        for place, count in by_place(kills).items()
    ]
    print_table(rows, "blows that ended a process, by place and signal")
    losses = sum(problem.startswith("lost") for problem in problems)
    differences = sum(problem.startswith("differs") for problem in problems)
    summary = {
        "kills": len(kills), "losses": losses, "differences": differences,
        "other problems": len(problems) - losses - differences,
        "files removed or damaged": spoilings.total(),
        "seconds": round(time.monotonic() - started),
    }  # fmt: skip
    print(", ".join(f"{name}: {value}" for name, value in summary.items()))
    for problem in problems:
        print(problem)
    if not args.no_save:
        content = {
            **summary,
            "kills by job": {name: len(blows) for name, blows in killed.items()},
            "places": rows,
            "spoiled": dict(sorted(spoilings.items())),
            "problems": problems,
        }
        save("survive_own" if args.own else "survive", content)
    sys.exit(bool(problems))


NUMBERS = (signal.SIGKILL, signal.SIGKILL, *ENDING)

# What may surround a process; USETEX stands for a folder with such a matplotlibrc.
USETEX = "usetex"
ENVIRONMENTS = (
    {}, {"MPLBACKEND": "nonsense", "MATPLOTLIBRC": USETEX}, {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
)  # fmt: skip

# What is written anew after its loss, and what of a run's outcome is lost with it.
SPOILED = {
    "config.json": None, "results.json": None, "weights.pt": None, "checkpoint.pt": None,
    "plots": None, "logfile.txt": None, "metrics.jsonl": "metrics", "summary": "scalars",
    "performance_overview.txt": "overview",
}  # fmt: skip


def by_place(kills: list[Blow]) -> dict[str, Counter]:
    counts = {place: Counter() for place in ("start-up", *PLACES)}
    for blow in kills:
        counts[blow.place][blow.number] += 1
    return counts


def survive(
    wanted: int, seed: int, names: Sequence[str], numbers: Sequence[int]
) -> tuple[dict[str, list[Blow]], Counter, list[str]]:
    """Kill and continue jobs until so many blows have struck, about as many each.

    Args:
        numbers: Of the signals; one that is there twice is drawn twice as often.

    Returns:
        The blows that ended a process, by job; how often which file was removed or damaged; what
        was wrong.
    """
    prepare_data()
    chance = random.Random(seed)
    killed: dict[str, list[Blow]] = {name: [] for name in names}
    spoilings, problems, total = Counter(), [], 0
    with tempfile.TemporaryDirectory() as folder:
        expected: dict[str, dict[str, Any]] = {}
        for round_ in count(1):
            if total >= wanted:
                break
            name = min(killed, key=lambda name: len(killed[name]))
            if name not in expected:
                place = Path(folder, f"{len(expected)}-alone")
                life = live(place, name, None)
                if life.code != 0:
                    raise SystemExit(f"{name}, left alone, ends with {life.code}: {life.errors}")
                expected[name] = outcome(place / "run")
            place, before = Path(folder, f"job-{round_}"), []
            found, struck, spoiled = [], [], []
            for attempt in range(1, 100):
                blow = draw_blow(chance, numbers) if total + len(struck) < wanted else None
                if blow is not None and attempt > 12:
                    blow = None  # it has suffered enough
                life = live(place, name, blow, chance.choice(ENVIRONMENTS))
                found += judge(life, blow, before)
                before = life.saved or before
                if life.struck and life.code != 0:
                    struck.append(blow)
                if life.code == 0:
                    break
                if chance.random() < 0.4 and (file := spoil(place / "run", chance)) is not None:
                    spoiled.append(file)
                    before = [] if file == "checkpoint.pt" else before
            else:
                found.append("other: not finished in 99 lives")
            if (file := spoil(place / "run", chance)) is not None:  # of the finished run
                spoiled.append(file)
                found += judge(live(place, name, None), None, [])
            killed[name] += struck
            total += len(struck)
            spoilings.update(spoiled)
            found += compare(expected[name], place / "run", spoiled)
            problems += [f"{problem} [{name}, {struck}, {spoiled}]" for problem in found]
            print(
                f"{name}: {len(struck)} blows, {len(spoiled)} files removed or damaged, "
                f"{len(found)} problems ({total})",
                flush=True,
            )
    return killed, spoilings, problems


def spoil(path: Path, chance: random.Random) -> str | None:
    """Remove or damage a file of a run that can go on without it.

    Returns:
        Its name; None where nothing was done.
    """
    checkpoints = [path / name for name in stored.CHECKPOINTS]
    name = chance.choice(list(SPOILED))
    file = path / name
    needed = checkpoints[1:] if name == "checkpoint.pt" else checkpoints
    if not file.exists() or not any(checkpoint.exists() for checkpoint in needed):
        return None
    if file.is_dir():
        shutil.rmtree(file)
    elif chance.random() < 0.5:
        file.unlink()
    else:
        data = bytearray(file.read_bytes())
        if not data:
            return None
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        file.write_bytes(data)
    return name


def draw_blow(chance: random.Random, numbers: Sequence[int]) -> Blow:
    place = chance.choice(["start-up", *PLACES])
    number = chance.choice(numbers)
    if place == "start-up":
        return Blow(place, 0, number, chance.uniform(0.3, 4))
    time_ = chance.randint(1, PLACES[place][2])
    return Blow(place, time_, number, chance.choice([0, chance.uniform(0, 0.02)]))


def judge(life: Life, blow: Blow | None, before: list[list[int]]) -> list[str]:
    """What is wrong with the end of a process, or with where it went on."""
    found = []
    expected = {0}
    if blow is not None and (life.struck or blow.place == "start-up"):
        expected.add(128 + blow.number)
    if life.code not in expected:
        found.append(f"other: exit code {life.code}")
    lines = [x for x in life.errors.splitlines() if not x.startswith("run.py: warning: ")]
    if "Traceback" in life.errors or len(lines) > (life.code > 128):
        found.append(f"other: {life.errors}")
    if before and life.began is not None and life.began < before[-1]:
        found.append(f"lost: {before[-1]} was saved, and {life.began} gone on from")
    return found


def compare(expected: dict[str, Any], path: Path, spoiled: list[str]) -> list[str]:
    found = outcome(path)
    lost = {SPOILED[name] for name in spoiled}
    not_made_anew = {"metrics.jsonl", "logfile.txt", "plots", "summary", "checkpoint.pt",
                     "performance_overview.txt"}  # fmt: skip
    if not_made_anew & set(spoiled):
        lost.add("files")  # some are not made anew where the run was finished
    return [
        f"differs: {what}"
        for what in expected
        if what not in lost and found[what] != expected[what]
    ]


def outcome(path: Path) -> dict[str, Any]:
    """All that a run leaves behind, in a form that can be compared."""
    results = json.loads((path / "results.json").read_text())
    weights = saving.decode((path / "weights.pt").read_bytes())
    scalars = [
        (value.tag, event.step, tuple(value.tensor.float_val))
        for file in sorted(path.glob("summary/*"))
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
    ]
    return {
        "results": {k: v for k, v in results.items() if k != "seconds"},
        "weights": _numbers({k: v for k, v in weights.items() if k not in ("groups", "options")}),
        "metrics": _bytes_of(path / "metrics.jsonl"),
        "overview": re.sub(
            rb"\nseconds .*", b"", _bytes_of(path / "performance_overview.txt") or b""
        ),
        "scalars": sorted(scalars),
        # The lock's file stays where a process was killed after all was written; nobody holds it.
        "files": sorted(p.name for p in path.iterdir() if p.name != "run.lock"),
    }


def _numbers(content: Any) -> Any:
    """Nested dictionaries and lists of tensors, with their bytes in the place of tensors."""
    if isinstance(content, torch.Tensor):
        return content.numpy().tobytes()
    if isinstance(content, dict):
        return {key: _numbers(value) for key, value in content.items()}
    return [_numbers(value) for value in content]


def _bytes_of(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def live(
    folder: Path, name: str, blow: Blow | None, environment: dict[str, str] | None = None
) -> Life:
    """Run a job's command in a process of its own, and deal a blow.

    Args:
        environment: Of a process that is killed while it starts; the others are forked.
    """
    folder.mkdir(exist_ok=True)
    side, errors = folder / "side.txt", folder / "errors.txt"
    side.write_text("")
    if name in OWN_JOBS:
        shutil.copy(Path(own.__file__), folder / "own.py")
        np.savez(folder / "own.npz", **own.archive())
    options = last_wins([*SHORT, *(JOBS | OWN_JOBS)[name], "--out_dir=run"])
    own_process = blow is not None and blow.place == "start-up" and name in IN_PROCESSES
    if own_process:
        code = _killed_while_starting(folder, options, blow, errors, environment or {})
    else:
        child = os.fork()
        if child == 0:
            _in_child(folder, name, options, blow, side, errors)
        status = os.waitpid(child, 0)[1]
        code = os.waitstatus_to_exitcode(status)
    lines = [json.loads(line) for line in side.read_text().splitlines()]
    began = [line["began"] for line in lines if "began" in line]
    return Life(
        code if code >= 0 else 128 - code,
        own_process or any("struck" in line for line in lines),
        errors.read_text(),
        began[0] if began else None,
        [line["saved"] for line in lines if "saved" in line],
    )


def _killed_while_starting(
    folder: Path, options: list[str], blow: Blow, errors: Path, environment: dict[str, str]
) -> int:
    usetex = folder / USETEX
    usetex.mkdir(exist_ok=True)
    (usetex / "matplotlibrc").write_text("text.usetex: True\n")
    environment = {k: str(usetex) if v == USETEX else v for k, v in environment.items()}
    with errors.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, ROOT / "run.py", *options],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=file, env={**os.environ, **environment},
        )  # fmt: skip
        try:
            process.wait(blow.delay)
        except subprocess.TimeoutExpired:
            process.send_signal(blow.number)
        return process.wait()


def _in_child(folder, name, options, blow, side, errors) -> None:
    """In the forked child: run the command and end, never to return."""
    code = 70
    try:
        os.chdir(folder)
        files = side.open("a", buffering=1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(errors.name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        _watch(files)
        if name == "groups":
            groups.available_bytes = lambda device: 1
        if blow is not None:
            _arm(blow, files)
        sys.argv = ["run.py", *options]
        code = command_line(run.main)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _watch(side) -> None:
    """Note the positions from which the job goes on and those that it saves."""

    def where(position) -> list[int]:
        step = 0 if position.training is None else position.training["step"]
        return [position.group, position.task_id, step]

    load, write = checkpoint.load_checkpoint, checkpoint.Checkpoints.write

    def load_checkpoint(*args):
        loaded = load(*args)
        if loaded is not None:
            side.write(json.dumps({"began": where(loaded[0])}) + "\n")
        return loaded

    def write_checkpoint(checkpoints, position):
        write(checkpoints, position)
        side.write(json.dumps({"saved": where(position)}) + "\n")

    checkpoint.load_checkpoint, checkpoint.Checkpoints.write = load_checkpoint, write_checkpoint


def _arm(blow: Blow, side) -> None:
    """Have the blow fall when what its place stands for is called the so-manieth time."""
    strike = _striker(blow, side)
    if blow.place == "start-up":
        threading.Timer(blow.delay / 10, strike).start()
        return
    holder, name, _ = PLACES[blow.place]
    original, calls = getattr(holder, name), Counter()

    def wrapper(*args, **kwargs):
        calls["n"] += 1
        if calls["n"] == blow.count:
            if blow.place == "half a file":
                path, data = args
                path.open("wb").write(data[: len(data) // 2])
            if blow.delay:
                timer = threading.Timer(blow.delay, strike)
                timer.daemon = True
                timer.start()
            else:
                strike()
        return original(*args, **kwargs)

    setattr(holder, name, wrapper)


def _striker(blow: Blow, side) -> Callable[[], None]:
    def strike() -> None:
        side.write(json.dumps({"struck": blow.place}) + "\n")
        side.flush()
        os.kill(os.getpid(), blow.number)

    return strike


def prepare_data() -> None:
    """Load MNIST once, and make stand-ins for CIFAR-10."""
    noise = np.random.default_rng(0)
    labels = np.tile(np.arange(10, dtype=np.uint8), 40)
    images = noise.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
    cifar = datasets.Images(images, labels, images[:200], labels[:200])
    loaded = {"mnist": datasets.load_images("mnist", "."), "cifar10": cifar}
    datasets.load_images = lambda name, data_dir: loaded[name]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
