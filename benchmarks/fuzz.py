"""Command lines and files that nobody would write on purpose: does anything lie or fall over?

    python -m benchmarks.fuzz --cases 1000 [--seed 0]

Half of the cases are command lines drawn over the real parser, valid and not; in the other half, a
file of a finished or an interrupted run or of the data is damaged (bytes flipped, cut, swapped with
another file, emptied, removed, other arrays, other values, with a right checksum and without) and a
command works on it. Each runs in a forked child with its memory limited. One in fifty is a process
of its own in an environment that is not kind. Wrong is

- a traceback, an exit code that is not documented, or an error of more than one line;
- exit code 0 with another result than that of an undisturbed run;
- a file changed, made or removed that is not the run's own.

Exits with 1 if anything is wrong. A child that takes too long is ended and counted, no more.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # a forked child cannot use its parent's threads

import argparse
import contextlib
import json
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import numpy as np
import torch
import torch._dynamo
import torch.utils.tensorboard  # these two are imported where a run comes to them: now, and once
from hypothesis import strategies as st

import run
from benchmarks.common import last_wins, print_table, save
from hypercl.options import METHODS, HypernetOptions, options_of
from hypercl.registry import entries
from hypercl.report import metrics
from hypercl.report import results as report
from hypercl.rundir import saving, stored
from hypercl.shell import command_line
from hypercl.tasks import images as datasets
from train_args import make_parser

ROOT = Path(__file__).parent.parent
MEMORY = 8 << 30  # bytes of address space a child may have
SECONDS = 15  # that it may take

# Everything small; what is drawn comes behind it and wins.
BASE = [
    "--no_cuda", "--n_iter=4", "--num_tasks=2", "--val_iter=2", "--ckpt_iter=3", "--batch_size=4",
    "--val_set_size=4", "--hmlp_arch=4", "--data_dir=data", "--out_dir=new",
]  # fmt: skip
# The same of a main network, whose options are refused beside another one's.
SMALL = {
    "mlp": ["--mlp_arch=4"],
    "resnet": ["--resnet_block_depth=1", "--resnet_channel_sizes=2,2,3,4"],
    "wrn": ["--wrn_block_depth=1", "--wrn_widening_factor=1"],
}
JOB = last_wins(
    [*BASE, *SMALL["mlp"], "--cl_exp=splitcifar", "--num_classes_per_task=10", "--n_iter=6"]
)
OWN = {
    "config.json", "results.json", "metrics.jsonl", "logfile.txt", "weights.pt", "checkpoint.pt",
    "checkpoint.before.pt", "run.lock", "performance_overview.txt",
}  # fmt: skip


class Case(NamedTuple):
    """A command, and what is done to a file before it."""

    argv: list[str]
    damage: list[Any] | None  # [file, kind, numbers]; None: nothing
    environment: dict[str, str] | None = None  # of a process of its own; None: a forked one


class End(NamedTuple):
    """How a child ended; code None: it was too slow."""

    code: int | None
    errors: str
    output: str


# --- what is drawn -------------------------------------------------------------------------------

_JUNK = [
    "",
    " ",
    "x",
    "nan",
    "inf",
    "-inf",
    "1e9",
    "3.5",
    "0x10",
    "\uff11",
    "-",
    "--",
    "4,4",
    "\udc80",
]
_SIZES = [1, 2, 3, 4, 5, 7, 10, 50] * 6 + [0, -1, -2, 10**5, 10**8, 10**9, 10**19, 10**30]
_FLOATS = [1e-4, 0.1, 0.5] * 3 + [0.0, 1e-40, 0.99, 1.0, 3.0, 1e30, 1e300, -0.5, -1.0]
_LISTS = ["", "4", "3,5", "4,4,6,8", "2,2,2,2", "0", "4,", ",", "1,2,3,4,5", "100000000000"]
_PATHS = ["new", "new/deeper", "finished", "stopped", "mine", "mine/notes.txt", "data", "", "/", "/proc/new", "x" * 300, "a\nb", "missing"]  # noqa: E501 # fmt: skip
_SLOW = ("n_iter", "epochs", "num_seeds", "num_tasks")  # take time, not memory


def _values(action: argparse.Action) -> st.SearchStrategy[str]:
    """Values for an option, most of them of its kind."""
    paths = ("out_dir", "data_dir", "eval", "config", "continue_from", "compare", "report", "export", "to")  # noqa: E501 # fmt: skip
    if action.dest in paths:
        return st.sampled_from(_PATHS)
    if action.choices:
        own = st.sampled_from(sorted(action.choices))
    elif action.metavar in ("LIST", "ORDER", "N[,N...]"):
        own = st.sampled_from(_LISTS)
    elif action.metavar == "X":
        own = st.sampled_from(_FLOATS).map(str)
    else:
        own = st.sampled_from([n for n in _SIZES if n < 20 or action.dest not in _SLOW]).map(str)
    return st.one_of(*[own] * 9, st.sampled_from(_JUNK))


# What belongs together in a valid command line, and what is never part of one.
_EXPERIMENTS = [
    [], ["--cl_exp=permmnist", "--num_classes_per_task=10"],
    ["--cl_exp=splitcifar", "--net_type=resnet"], ["--cl_exp=splitcifar", "--net_type=wrn"],
    ["--net_type=lenet"], ["--batchnorm", "--bn_no_running_stats"], ["--batchnorm"],
    ["--cl_exp=splitcifar", "--net_type=zenke", "--no_augmentation"],
    ["--multi_head", "--lookahead", "--freeze_prev_embs"], ["--use_rmsprop", "--momentum=0.5"],
    ["--epochs=1", "--num_train_samples=16", "--plateau_lr_scheduler", "--lambda_lr_scheduler"],
    ["--hnet_init=xavier", "--std_normal_temb=1", "--std_normal_emb=0.1"], ["--hyper_fan_init"],
    ["--preset=paper-splitmnist", "--epochs=-1"], ["--preset=splitmnist-large-1task"],
]  # fmt: skip
_BASELINES = [
    ["--method=finetune", "--keep_optimizer"], ["--method=finetune", "--cl_scenario=3"],
    ["--method=separate"], ["--method=separate", "--cl_scenario=1"],
    ["--method=joint", "--cl_scenario=3"], ["--method=joint", "--batchnorm"],
    ["--method=ewc", "--cl_scenario=2"], ["--method=ewc", "--cl_exp=splitcifar", "--net_type=wrn"],
    ["--method=online_ewc", "--cl_scenario=1"], ["--method=online_ewc", "--batchnorm"],
    ["--method=si", "--cl_scenario=3"], ["--method=si", "--num_seeds=2", "--use_sgd"],
    ["--method=lwf", "--cl_scenario=3"], ["--method=lwf", "--cl_scenario=1", "--num_seeds=2"],
    ["--method=replay", "--cl_scenario=1"], ["--method=replay", "--replay_per_class=3"],
    ["--method=der", "--cl_exp=splitcifar", "--net_type=resnet"],
    ["--method=der", "--cl_scenario=3"],
    ["--method=derpp", "--cl_scenario=2"], ["--method=derpp", "--replay_sampling=reservoir"],
]  # fmt: skip
_NEVER_VALID = {"out_dir", "data_dir", "eval", "config", "continue_from", "compare", "label", "report", "export", "to", "format", "resume", "specnorm", "momentum", "cl_exp", "net_type", "lenet_type", "net_act", "batchnorm", "bn_no_running_stats", "bn_no_stats_checkpointing", "resnet_channel_sizes", "dropout_rate", "no_bias", "num_classes_per_task", "num_tasks", "preset", argparse.SUPPRESS, "n_iter", "epochs", "plateau_lr_scheduler", "lambda_lr_scheduler", "lookahead", "use_sgd", "use_rmsprop", "hyper_fan_init", "hnet_init", "std_normal_temb", "std_normal_emb", "compression", "skip_tasks", "class_order", "mlp_arch", "resnet_block_depth", "wrn_block_depth", "wrn_widening_factor", "wrn_use_fc_bias", "padding", "no_augmentation"}  # noqa: E501 # fmt: skip
_VALID_SIZES, _VALID_FLOATS = [4, 5, 7, 10, 50], [0.0001, 0.1, 0.5, 0.9, 1e-30]


@st.composite
def command_lines(draw) -> Case:
    """Some of the parser's options, in half of the cases with values that they should take."""
    actions = [a for a in make_parser()._actions if a.dest != "help"]
    if draw(st.booleans()):
        experiment = draw(st.sampled_from([*_EXPERIMENTS, *_BASELINES]))
        chosen = dict(option[2:].partition("=")[::2] for option in experiment)
        method = chosen.get("method", "hnet")
        base = [o for o in BASE if method == "hnet" or not o.startswith("--hmlp_arch")]
        argv = [*base, *SMALL.get(chosen.get("net_type", "mlp"), []), *experiment]
        never = _NEVER_VALID | _others_options(method)
        allowed = [a for a in actions if a.dest not in never]
        for action in draw(st.lists(st.sampled_from(allowed), max_size=8)):
            argv.append(f"--{action.dest}{draw(_valid_value(action))}")
        return Case(last_wins(argv), None)
    argv = [*BASE, *draw(st.sampled_from(list(SMALL.values())))]
    for action in draw(st.lists(st.sampled_from(actions), max_size=6)):
        name = draw(st.sampled_from([action.option_strings[-1]] * 9 + ["--" + action.dest[:-1]]))
        flag = action.nargs in (0, "?")
        flag = flag == draw(st.sampled_from([True] * 9 + [False]))
        argv.append(name if flag else f"{name}={draw(_values(action))}")
    once = draw(st.sampled_from([True] * 9 + [False]))
    return Case(last_wins(argv) if once else argv, None)


def _others_options(method: str) -> set[str]:
    """The options that a method does not have."""
    names = {
        name: {field.name for field in options_of(entry)}
        for name, entry in entries(METHODS).items()
    }
    names["hnet"] |= {field.name for field in options_of(HypernetOptions)}
    return set().union(*names.values()) - names[method]


def _valid_value(action: argparse.Action) -> st.SearchStrategy[str]:
    if action.nargs == 0:
        return st.just("")
    if action.nargs == "?":
        return st.sampled_from(["", "", "=on", "=off"])
    if action.choices:
        values = sorted(action.choices)
    elif action.metavar == "LIST":
        values = ["", "4", "3,5"]
    elif action.metavar == "X" or action.dest.endswith("dropout_rate"):
        values = _VALID_FLOATS
    else:
        values = [n for n in _VALID_SIZES if n < 20 or action.dest not in _SLOW]
    return st.sampled_from(values).map("={}".format)


_COMMANDS = {
    "same": lambda path: last_wins([*JOB, f"--out_dir={path}"]),
    "resume": lambda path: ["--resume", f"--out_dir={path}"],
    "eval": lambda path: [f"--eval={path}", "--data_dir=data"],
    "overwrite": lambda path: last_wins([*JOB, f"--out_dir={path}", "--overwrite"]),
    "other": lambda path: last_wins([*JOB, f"--out_dir={path}", "--lr=0.5"]),
}
_FILES = [*sorted(OWN - {"run.lock"}), "data/cifar10.npz"]
_ARCHIVE, _IDX = "data/packaged.zarr.zip", "idx"  # MNIST as its wheel has it, and torchvision
_MNIST_FILES = [
    _ARCHIVE, *(f"{_IDX}/MNIST/raw/{split}-{kind}-ubyte"
    for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")),
]  # fmt: skip
_DAMAGES = [
    "flip", "flips", "flip at the end", "cut", "empty", "remove", "swap", "junk", "folder",
    "values", "append",
]  # fmt: skip
_SEALED = [name for name in _FILES if name.endswith((".json", ".pt"))]


@st.composite
def damages(draw) -> Case:
    """A command on a run of which a file is damaged."""
    numbers = draw(st.lists(st.integers(0, 2**40), min_size=4, max_size=4))
    kind = draw(st.sampled_from(_DAMAGES))
    what = draw(st.sampled_from(["run", "run", "sealed", "MNIST"]))
    if what == "MNIST":
        file = draw(st.sampled_from([_ARCHIVE, *_MNIST_FILES]))
        folder = file.partition("/")[0]
        return Case([*BASE, *SMALL["mlp"], f"--data_dir={folder}"], [file, kind, numbers])
    place = draw(st.sampled_from(["finished", "stopped"]))
    command = draw(st.sampled_from(["same", "same", *_COMMANDS]))
    if what == "sealed":
        return Case(
            _COMMANDS[command](place), [f"{place}/{draw(st.sampled_from(_SEALED))}", what, numbers]
        )
    file = draw(st.sampled_from(_FILES))
    path = file if file.startswith("data/") else f"{place}/{file}"
    return Case(_COMMANDS[command](place), [path, kind, numbers])


@st.composite
def environments(draw) -> Case:
    """A short run in an environment that is not kind."""
    environment: dict[str, str] = {}
    for other in draw(st.lists(st.sampled_from(ENVIRONMENTS), min_size=1, max_size=3)):
        environment |= other
    experiment = draw(st.sampled_from([[], ["--num_seeds=2"], ["--loglevel_info"]]))
    return Case([*BASE, *SMALL["mlp"], *experiment], None, environment)


def damage(folder: Path, file: str, kind: str, numbers: list[int]) -> None:
    """Do it; what is not there is put there, or stays missing."""
    path = folder / file
    if not path.exists():
        if kind not in ("swap", "junk", "empty", "append"):
            return
        path.write_bytes(b"")
    data = bytearray(path.read_bytes())
    if kind in ("flip", "flips"):
        for i, number in enumerate(numbers[: 1 if kind == "flip" else None]):
            data[number % len(data)] ^= 1 << (number + i) % 8
        path.write_bytes(data)
    elif kind == "flip at the end":  # where an archive has its directory
        data[-1 - numbers[0] % min(len(data), 2000)] ^= 1 << numbers[1] % 8
        path.write_bytes(data)
    elif kind == "cut":
        path.write_bytes(data[: numbers[0] % len(data)])
    elif kind == "append":
        path.write_bytes(data + bytes(n % 256 for n in numbers))
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "junk":
        path.write_bytes(np.random.default_rng(numbers[0]).bytes(numbers[1] % 5000))
    elif kind == "remove":
        path.unlink()
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "swap":
        others = [p for p in folder.glob("[fs]*/*") if p.is_file() and p.name in OWN and p != path]
        other = sorted(others)[numbers[0] % len(others)]
        path.write_bytes(other.read_bytes())
    elif kind == "sealed":
        _change_and_seal(path, numbers)
    else:
        _change_values(path, numbers)


def _change_and_seal(path: Path, numbers: list[int]) -> None:
    """One value of another kind, or none, or one of another shape, under a checksum that is right.

    Not another number for a number: that nothing could notice.
    """
    is_json = path.suffix == ".json"
    content = json.loads(path.read_text()) if is_json else saving.decode(path.read_bytes())
    name = sorted(content)[numbers[0] % len(content)]
    texts = {"report", "made_by", "config"} if not is_json else set()  # JSON within
    if name in texts and isinstance(content[name], str) and numbers[1] % 3:
        inner = {"inner": json.loads(content[name])}
        _change_inside(inner, "inner", numbers[2:])
        content[name] = json.dumps(inner.get("inner"))
    else:
        _change_inside(content, name, numbers[1:])
    if is_json:
        path.write_text(json.dumps(stored.seal(content)))
    else:
        path.write_bytes(saving.encode(content))


def _change_inside(inside: Any, name: Any, numbers: list[int]) -> None:
    """Change ``inside[name]``, or something deeper in it."""
    depth = numbers[0] % 4
    while depth and isinstance(inside[name], dict | list) and inside[name]:
        inside = inside[name]
        names = list(range(len(inside))) if isinstance(inside, list) else sorted(inside, key=str)
        name = names[(numbers[-1] >> depth) % len(names)]
        depth -= 1
    value = inside[name]
    others = [None, -1, 10**12, 0.5, "text", [], {}, [1], {"a": 1}, True]
    others = [other for other in others if _kind(other) != _kind(value)]
    if isinstance(value, torch.Tensor):
        others += [value.double(), value.int(), value[:0], value[None], value.flatten()[:1]]
        others = [o for o in others if not _same_tensor(o, value)]
    chosen = numbers[-1] % (len(others) + 1)
    if chosen < len(others):
        inside[name] = others[chosen]
    else:
        del inside[name]


def _kind(value: Any) -> type:
    return float if type(value) is int else type(value)


def _same_tensor(value: Any, other: torch.Tensor) -> bool:
    is_tensor = isinstance(value, torch.Tensor)
    return is_tensor and value.dtype == other.dtype and value.shape == other.shape


def _change_values(path: Path, numbers: list[int]) -> None:
    """Another content in the right form, as somebody with the format at hand would make it."""
    if path.suffix == ".npz":
        with np.load(path) as file:
            arrays = dict(file)
        name = sorted(arrays)[numbers[0] % len(arrays)]
        changes = [
            lambda a: a[::-1], lambda a: a[: len(a) // 2], lambda a: a.astype(np.float32),
            lambda a: a + 1, lambda a: a[..., None], lambda a: np.array([{}], dtype=object),
        ]  # fmt: skip
        arrays[name] = changes[numbers[1] % len(changes)](arrays[name])
        np.savez(path, **arrays)
    elif path.suffix == ".json":
        content = json.loads(path.read_text())
        name = sorted(content)[numbers[0] % len(content)]
        content[name] = [None, 0, "finished", [], {}, -1.5][numbers[1] % 6]
        path.write_text(json.dumps(content))
    elif path.suffix == ".pt":
        content = saving.decode(path.read_bytes())
        del content[sorted(content)[numbers[0] % len(content)]]
        torch.save(content, path)
    else:
        path.write_bytes(b"{}\n")


ENVIRONMENTS = (
    {"MPLBACKEND": "nonsense"}, {"MATPLOTLIBRC": "usetex"}, {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"TERM": "dumb"},
    {"COLUMNS": "1"}, {"HOME": "/nonexistent"}, {"TMPDIR": "/nonexistent"}, {"LANG": "nonsense"},
)  # fmt: skip


# --- what happens --------------------------------------------------------------------------------


class Range:
    """A folder with a finished run, one that was stopped in a task, data, and others' files."""

    def __init__(self, folder: Path) -> None:
        self.template, self.place = folder / "template", folder / "place"
        self.template.mkdir()
        _make_data(self.template / "data")
        mine = self.template / "mine"
        mine.mkdir()
        (mine / "notes.txt").write_text("not the run's")
        (self.template / "usetex").mkdir()
        (self.template / "usetex" / "matplotlibrc").write_text("text.usetex: True\n")
        end = in_child(self.template, last_wins([*JOB, "--out_dir=finished"]))
        if end.code != 0:
            raise SystemExit(f"the undisturbed run ends with {end.code}: {end.errors}")
        end = in_child(self.template, last_wins([*JOB, "--out_dir=stopped"]), stop_at=11)
        if end.code != 143:
            raise SystemExit(f"the stopped run ends with {end.code}: {end.errors}")
        for name in ("finished", "stopped"):
            (self.template / name / "notes.txt").write_text("not the run's")
        self.expected = results_in(self.template / "finished")

    def meet(self, case: Case) -> tuple[End, list[str]]:
        """Let a case happen, and say what was wrong."""
        if self.place.exists():
            shutil.rmtree(self.place)
        shutil.copytree(self.template, self.place, symlinks=True)
        if case.damage is not None:
            self.damage(*case.damage)
        before = self.others()
        if case.environment is None:
            end = in_child(self.place, case.argv)
        else:
            end = in_process(self.place, case.argv, case.environment)
        found = judge(end)
        if self.others() != before:
            found.append("foreign: a file that was not the run's has changed")
        if end.code == 0 and "--help" not in case.argv:
            found += self.check(case)
        return end, found

    def damage(self, *what: Any) -> None:
        """Do what a case says to a file."""
        damage(self.place, *what)

    def others(self) -> dict[str, bytes]:
        """The files that no run may change."""
        return others(self.place)

    def check(self, case: Case) -> list[str]:
        """What is wrong with the results of a command that ended well."""
        if case.damage is None or case.damage[0] in _MNIST_FILES:
            made = [p for p in self.place.glob("**/results.json") if "plots" not in p.parts]
            return [w for p in made if p.parent.name != "stopped" for w in inconsistent(p.parent)]
        if case.damage[1] == "sealed" and case.damage[0].endswith("results.json"):
            return []  # what somebody seals is shown
        name = next(a.split("=")[1] for a in reversed(case.argv) if a[:6] in ("--out_", "--eval"))
        found = results_in(self.place / name)
        wrong = inconsistent(self.place / name)
        if case.damage[0].startswith("data/") and "--overwrite" in case.argv:
            return wrong  # other data, other results, and all of them from there
        if "--lr=0.5" not in case.argv and not same(found, self.expected):
            wrong.append("wrong zero: another result than without a break")
        return wrong


def judge(end: End) -> list[str]:
    """What is wrong with the way a child ended."""
    if end.code is None:
        return []
    lines = [x for x in end.errors.splitlines() if not x.startswith("run.py: warning: ")]
    if "Traceback" in end.errors:
        return ["traceback: " + (lines[-1] if lines else "")]
    if end.code not in (0, 1, 2):
        return [f"code: {end.code}"]
    if end.code != 0 and not (len(lines) == 1 and lines[0].startswith("run.py: ")):
        return [f"message: {end.errors}"]
    return []


def others(place: Path) -> dict[str, bytes]:
    """The files in a folder that belong to no run."""
    found = {}
    for path in place.rglob("*"):
        of_run = path.name in OWN or {"summary", "plots", "new", "missing"} & set(path.parts)
        cache = path == place / _IDX / "mnist.npz"
        if path.is_file() and not of_run and not cache:
            found[str(path.relative_to(place))] = path.read_bytes()
    return found


def results_in(path: Path) -> dict[str, Any]:
    return json.loads((path / "results.json").read_text())


def same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    return found["status"] == "finished" and found["seeds"] == expected["seeds"]


def inconsistent(path: Path) -> list[str]:
    """Whether results contradict themselves."""
    results = results_in(path)
    wrong = []
    if stored.seal(results) != results or results["status"] != "finished":
        wrong.append(f"wrong zero: status {results['status']}")
    for seed in results["seeds"]:
        for name, metric in metrics.METRICS.items():
            if "failed" not in seed and seed[name] != metric(seed):
                wrong.append(f"wrong zero: {name} does not follow from the matrix")
    return wrong


def in_process(folder: Path, argv: list[str], environment: dict[str, str]) -> End:
    """Run a command in a process of its own."""
    inside = {k: str(folder / v) if k == "MATPLOTLIBRC" else v for k, v in environment.items()}
    done = subprocess.run(
        [sys.executable, ROOT / "run.py", *argv],
        cwd=folder, env={**os.environ, **inside}, capture_output=True, check=False,
    )  # fmt: skip
    return End(done.returncode, *(x.decode(errors="replace") for x in (done.stderr, done.stdout)))


def in_child(folder: Path, argv: list[str], stop_at: int = 0) -> End:
    """Run a command in a forked child; SIGTERM after ``stop_at`` steps."""
    outside = folder.parent
    child = os.fork()
    if child == 0:
        _child(folder, argv, stop_at)
    until = time.monotonic() + SECONDS
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            break
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            code = None
            break
        time.sleep(0.005)
    errors, output = ((outside / n).read_text(errors="replace") for n in ("errors", "output"))
    return End(code, errors, output)


def _child(folder: Path, argv: list[str], stop_at: int) -> None:
    """In the forked child: never to return."""
    code = 70
    try:
        for number, name in ((1, "output"), (2, "errors")):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(folder.parent / name, flags), number)
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _use_stand_ins(packaged=f"--data_dir={_IDX}" not in argv)
        if stop_at:
            _stop_at(stop_at)
        sys.argv = ["run.py", *argv]
        code = command_line(run.main)
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 70)


def _use_stand_ins(*, packaged: bool) -> None:
    """Small data sets, read from files; no plots, which take most of the time; no downloads."""
    archive = Path(_ARCHIVE)
    there = packaged and archive.exists()
    for name in ("mnist", "cifar10"):
        datasets._DATASETS[name] = datasets._DATASETS[name]._replace(md5=None)
    datasets._packaged_mnist_path = lambda: archive if there else None
    report.Report._write_plots = lambda self: None

    def refuse(*args, **kwargs):
        raise OSError("no network")

    import urllib.request

    urllib.request.urlopen = refuse


def _stop_at(count: int) -> None:
    import train

    take, calls = train.TaskTraining.step, Counter()

    def wrapper(self) -> None:
        calls["n"] += 1
        if calls["n"] == count:
            os.kill(os.getpid(), signal.SIGTERM)
        take(self)

    train.TaskTraining.step = wrapper


def _make_data(folder: Path) -> None:
    folder.mkdir()
    noise = np.random.default_rng(0)
    for name, shape, classes in (
        ("mnist", (28, 28), 10),
        ("cifar10", (32, 32, 3), 10),
        ("cifar100", (32, 32, 3), 100),
    ):
        labels = np.tile(np.arange(classes, dtype=np.uint8), 60 // (classes // 10))
        images = noise.integers(0, 256, (len(labels), *shape), dtype=np.uint8)
        np.savez(
            folder / f"{name}.npz", train_images=images, train_labels=labels,
            test_images=images[:200], test_labels=labels[:200],
        )  # fmt: skip
    arrays = dict(np.load(folder / "mnist.npz"))
    raw = folder.parent / _IDX / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path, array in zip(_MNIST_FILES[1:], arrays.values(), strict=True):
        sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
        (folder.parent / path).write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())
    # In another process, as zarr starts threads, which no forked child would have.
    subprocess.run([sys.executable, "-c", _ZIP, folder / "mnist.npz", folder.parent / _ARCHIVE])


_ZIP = """
import sys, numpy, zarr
with zarr.storage.ZipStore(sys.argv[2], mode="w") as store:
    group = zarr.create_group(store)
    for name, array in numpy.load(sys.argv[1]).items():
        blosc = zarr.codecs.BloscCodec()
        group.create_array(name, data=array, chunks=(50, *array.shape[1:]), compressors=blosc)
"""


def shares_of(cases: int) -> dict[st.SearchStrategy, int]:
    """How many of each kind."""
    shares = {environments(): cases // 50, damages(): cases // 2}
    return {**shares, command_lines(): cases - sum(shares.values())}


def fuzz(
    make_range: Callable[[Path], Any], shares: Mapping[st.SearchStrategy, int], seed: int
) -> tuple[Counter, list[dict[str, Any]]]:
    """Let cases happen.

    Args:
        make_range: Where they happen; made in an empty folder.
        shares: How many of each kind.

    Returns:
        How many ended how; those with which something was wrong.
    """
    ends, wrong = Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        range_ = make_range(Path(folder))
        for strategy, share in shares.items():
            if share == 0:
                continue

            @hypothesis.seed(seed)
            @hypothesis.settings(
                max_examples=share,
                database=None,
                deadline=None,
                phases=[hypothesis.Phase.generate],
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            @hypothesis.given(strategy)
            def meet(case: Any) -> None:
                end, found = range_.meet(case)
                ends["slow" if end.code is None else f"exit code {end.code}"] += 1
                if found:
                    wrong.append({"argv": case.argv, "damage": case.damage, "found": found})
                    print(wrong[-1], flush=True)
                if ends.total() % 50 == 0:
                    print(f"{ends.total()} cases: {dict(ends)}, {len(wrong)} wrong", flush=True)

            meet()
    return ends, wrong


def main(
    name: str,
    description: str,
    make_range: Callable[[Path], Any],
    shares_of: Callable[[int], Mapping[st.SearchStrategy, int]],
) -> None:
    """The command: draw so many cases, show what came of them, and save it under a name."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no_save", action="store_true")
    args = parser.parse_args()
    started = time.monotonic()
    ends, wrong = fuzz(make_range, shares_of(args.cases), args.seed)
    kinds = Counter(found.split(":")[0] for case in wrong for found in case["found"])
    summary = {
        "cases": ends.total(), **dict(sorted(ends.items())),
        "tracebacks": kinds["traceback"], "wrong zeros": kinds["wrong zero"],
        "foreign files changed": kinds["foreign"],
        "other problems": kinds["code"] + kinds["message"],
        "seconds": round(time.monotonic() - started),
    }  # fmt: skip
    print_table([summary])
    if not args.no_save:
        save(name, {**summary, "wrong": wrong})
    sys.exit(bool(wrong))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main("fuzz", __doc__, Range, shares_of)
