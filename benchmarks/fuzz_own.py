"""Data, networks and methods of one's own, good, bad and damaged: does anything lie or fall over?

    python -m benchmarks.fuzz_own --cases 500 [--seed 0]

Half of the cases are new runs: data of the user's (archives, folders of images, functions), a
network and a method, each good or bad, with options drawn beside them, and a file damaged in half
of them. In the other half a run was finished or stopped before, a file of the user's is damaged,
changed or removed, and a command works on it. What is wrong is what is wrong in
:mod:`benchmarks.fuzz`; the caches of folders in --data_dir are the run's.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # a forked child cannot use its parent's threads

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

from benchmarks import fuzz
from benchmarks.common import last_wins
from benchmarks.fuzz_own_code import BROKEN_FILES, FUNCTIONS, METHODS, MY, NETS
from hypercl.tasks.folder import Folder

BASE = [
    "--no_cuda", "--n_iter=4", "--val_iter=2", "--ckpt_iter=3", "--batch_size=4",
    "--val_set_size=4", "--data_dir=data", "--out_dir=new",
]  # fmt: skip
ARCHIVES = ["images.npz", "floats.npz", "table.npz", "tasks.npz"]
FOLDERS = ["pictures", "rooms"]
CACHES = {"cache of pictures": "pictures", "cache of rooms": "rooms"}

# What a run was, before something happens to it: options, and files that it needs.
JOBS: dict[str, tuple[list[str], list[str]]] = {
    "archive": (
        ["--cl_exp=images.npz", "--method=my.py:Near", "--pull=0.5", "--net_type=my.py:Net"],
        ["images.npz", "my.py", "sibling.py"],
    ),
    "table": (
        ["--cl_exp=tasks.npz", "--net_type=my.py:Normed", "--hmlp_arch=4", "--multi_head"],
        ["tasks.npz", "my.py", "sibling.py"],
    ),
    "folder": (
        ["--cl_exp=pictures", "--image_size=4", "--num_classes_per_task=2,1", "--method=ewc",
         "--mlp_arch=4"],
        ["pictures", "pictures", "cache of pictures"],
    ),
    "function": (
        ["--cl_exp=my.py:tasks", "--shift=0.5", "--mlp_arch=4", "--hmlp_arch=4"],
        ["my.py", "sibling.py"],
    ),
}  # fmt: skip
OPTIONS = [
    "--num_tasks=1", "--num_tasks=2", "--num_tasks=3", "--num_tasks=9", "--num_tasks=-1",
    "--num_classes_per_task=1", "--num_classes_per_task=2", "--num_classes_per_task=2,1",
    "--num_classes_per_task=3", "--num_classes_per_task=40", "--skip_tasks=1", "--skip_tasks=5",
    "--class_order=random", "--class_order=2,1,0", "--normalize=dataset", "--normalize=imagenet",
    "--normalize=0.5,0.25", "--normalize=0.5,0.5,0.5,0.2,0.2,0.2", "--val_split=first",
    "--val_split=stratified", "--val_set_size=0", "--val_set_size=30", "--num_train_samples=3",
    "--num_train_samples=20", "--image_size=3", "--image_size=-1", "--image_size=9",
    "--cl_scenario=1", "--cl_scenario=2", "--cl_scenario=3", "--multi_head", "--num_seeds=2",
    "--batchnorm", "--dropout_rate=0.5", "--mnet_init=xavier", "--epochs=1", "--dry_run", "--help",
    "--test_with_val_set", "--batch_size=1", "--batch_size=100", "--shift=2", "--shift=x",
    "--width=3", "--pull=1", "--task_loss=total", "--keep_optimizer", "--use_sgd",
    "--scenarios_every_task", "--keep_weights", "--hnet_reg_all_heads", "--hyper_fan_init",
]  # fmt: skip
BUILT_IN_METHODS = [
    "hnet", "finetune", "ewc", "si", "joint", "separate", "replay", "der", "lwf", "online_ewc",
]  # fmt: skip


class Case(NamedTuple):
    """A command, and what is done to a file before it."""

    argv: list[str]
    damage: list[Any] | None  # [file or folder, kind, numbers]; None: nothing
    job: str | None = None  # of which a run is there
    environment: dict[str, str] | None = None  # the same for all


# --- what is drawn -------------------------------------------------------------------------------


def _damage(draw: Callable, target: str) -> list[Any]:
    kinds = list(_BYTES)
    if target in FOLDERS:
        kinds += list(_PICTURES) * 2
    elif target in ARCHIVES:
        kinds += list(_ARRAYS) * 2
    elif target.endswith(".py"):
        kinds += list(_TEXTS) * 4
    return [
        target,
        draw(st.sampled_from(kinds)),
        draw(st.lists(st.integers(0, 2**40), min_size=4, max_size=4)),
    ]


@st.composite
def new_runs(draw: Callable) -> Case:
    """Data, a network and a method, most of them good, and options."""

    def one(good: list[str], bad: list[str]) -> str:
        return draw(st.sampled_from(draw(st.sampled_from([good] * 4 + [bad]))))

    broken = [f"{name}:tasks" for name in BROKEN_FILES]
    functions = [f"bad.py:{name}" for name in FUNCTIONS]
    data = one(
        [*ARCHIVES, *FOLDERS, "my.py:tasks", "my.py:datasets"],
        [*functions * 3, *broken, "none.npz", "empty", "my.py:Net", "my.py:", "my.py:tasks:x"],
    )
    net = one(
        ["mlp", "my.py:Net", "my.py:Normed", "my.py:make_net"],
        [*(f"bad.py:{name}" for name in NETS), *broken[:2], "my.py:tasks", "torch.nn:Linear"],
    )
    method = one(
        [*BUILT_IN_METHODS, "my.py:Near", "my.py:Counting"] * 2,
        [*(f"bad.py:{name}" for name in METHODS), *broken[:2], "my.py:Net", "builtins:dict"],
    )
    argv = [*BASE, f"--cl_exp={data}", f"--net_type={net}", f"--method={method}"]
    argv += ["--mlp_arch=4"] * (net == "mlp") + ["--hmlp_arch=4"] * (method == "hnet")
    argv += draw(st.lists(st.sampled_from(OPTIONS), max_size=draw(st.sampled_from([0, 1, 4]))))
    used = [data] if data in ARCHIVES + FOLDERS else []
    used += [*{name.partition(":")[0] for name in (data, net, method) if name[:5] == "my.py"}]
    damaged = used and draw(st.booleans())
    return Case(last_wins(argv), _damage(draw, draw(st.sampled_from(used))) if damaged else None)


_COMMANDS = {
    "same": lambda job, path: last_wins([*BASE, *job, f"--out_dir={path}"]),
    "resume": lambda job, path: ["--resume", f"--out_dir={path}"],
    "eval": lambda job, path: [f"--eval={path}"],
    "overwrite": lambda job, path: last_wins([*BASE, *job, f"--out_dir={path}", "--overwrite"]),
}


@st.composite
def second_lives(draw: Callable) -> Case:
    """A command on a run, of which a file of the user's is no longer what it was."""
    name = draw(st.sampled_from(sorted(JOBS)))
    job, files = JOBS[name]
    place = draw(st.sampled_from(["finished", "stopped", "stopped"]))
    command = draw(st.sampled_from(["same", "same", *_COMMANDS]))
    argv = _COMMANDS[command](job, f"{place}-{name}")
    damaged = draw(st.sampled_from([True] * 7 + [False]))
    return Case(argv, _damage(draw, draw(st.sampled_from(files))) if damaged else None, name)


# --- what is done to files -----------------------------------------------------------------------

_BYTES = ["flip", "flips", "flip at the end", "cut", "append", "empty", "junk", "remove", "folder"]

_ARRAYS: dict[str, Callable[[np.ndarray], Any]] = {
    "reversed": lambda a: a[::-1],
    "half": lambda a: a[: len(a) // 2],
    "none": lambda a: a[:0],
    "float32": lambda a: a.astype(np.float32),
    "float16": lambda a: a.astype(np.float16),
    "big-endian": lambda a: a.astype(">f4"),
    "int64": lambda a: a.astype(np.int64),
    "complex": lambda a: a.astype(complex),
    "text": lambda a: a.astype(str),
    "objects": lambda a: a.astype(object),
    "nan": lambda a: np.where(np.arange(a.size).reshape(a.shape) == 3, np.nan, a),
    "huge": lambda a: a.astype(np.float64) * 1e300,
    "uint64": lambda a: a.astype(np.uint64) + np.uint64(2**63),
    "negative": lambda a: -a.astype(np.int32) - 5,
    "plus one": lambda a: a + 1,
    "same": lambda a: a * 0,
    "one more dimension": lambda a: a[..., None],
    "one dimension": lambda a: a.reshape(-1),
    "no dimension": lambda a: np.array(3),
    "channels first": lambda a: np.moveaxis(np.stack([a] * 3, 1), 0, 0),
    "fortran": np.asfortranarray,
    "records": lambda a: np.zeros(len(a), dtype=[("a", "u1"), ("b", "f4")]),
}


def _change_array(path: Path, kind: str, numbers: list[int]) -> None:
    with np.load(path) as file:
        arrays = dict(file)
    names = sorted(arrays)
    name = names[numbers[0] % len(names)]
    changed = {name, name.replace("train", "test")} if numbers[1] % 2 else {name}
    with np.errstate(all="ignore"):
        arrays |= {name: _ARRAYS[kind](arrays[name]) for name in changed}
    if numbers[2] % 8 == 0:
        del arrays[names[numbers[3] % len(names)]]
    np.savez(path, **arrays)


_PICTURES: dict[str, Callable[[Path], Any]] = {
    "transparent": lambda p: Image.new("RGBA", (6, 6)).save(p),
    "16 bits": lambda p: Image.fromarray(np.zeros((6, 6), np.uint16)).save(p),
    "palette": lambda p: Image.new("P", (6, 6)).save(p),
    "black and white": lambda p: Image.new("1", (6, 6)).save(p),
    "larger": lambda p: Image.new("RGB", (9, 7)).save(p),
    "thin": lambda p: Image.new("L", (1, 300)).save(p),
    "text": lambda p: p.write_text("no image"),
    "a GIF": lambda p: Image.new("L", (6, 6)).save(p, "GIF"),
    "notes beside": lambda p: p.with_name("notes.txt").write_text("mine"),
    "hidden file": lambda p: p.with_name(".hidden.png").write_bytes(b""),
    "link to nothing": lambda p: p.with_name("link.png").symlink_to("nothing"),
    "link to itself": lambda p: p.with_name("loop").symlink_to("."),
    "class emptied": lambda p: [x.unlink() for x in p.parent.iterdir()],
    "class removed": lambda p: shutil.rmtree(p.parent),
    "part removed": lambda p: shutil.rmtree(p.parent.parent),
    "class added": lambda p: (p.parent.parent / "dog").mkdir(),
    "class renamed": lambda p: p.parent.rename(p.parent.with_name("zebra")),
    "odd class": lambda p: [
        x.rename(x.with_name("[b]$x^\n\udcff")) for x in p.parents[2].glob(f"*/{p.parent.name}")
    ],
    "no right to read": lambda p: p.chmod(0),
    "renamed": lambda p: p.rename(p.with_name("renamed.png")),
    "a named pipe": lambda p: (p.unlink(), os.mkfifo(p)),
    "the folder emptied": lambda p: [shutil.rmtree(x) for x in p.parents[2].iterdir()],
}


_TEXTS: dict[str, Callable[[str], str]] = {
    "comment": lambda t: t + "\n# changed\n",
    "other numbers": lambda t: t.replace("default_rng(", "default_rng(1 + "),
    "syntax": lambda t: t.replace("return", "return )", 1),
    "renamed": lambda t: t.replace("def tasks", "def tusks").replace("class N", "class M"),
    "other signature": lambda t: t.replace("shift=0.0", "shift").replace("width=4", "breadth=4"),
    "raises": lambda t: t + "\nraise OSError('two\\nlines')\n",
    "exits": lambda t: t + "\nimport sys\nsys.exit(0)\n",
    "imports": lambda t: "import nothing_like_it\n" + t,
    "other layers": lambda t: t.replace("num_classes)", "num_classes, bias=False)"),
    "no bytes of UTF-8": lambda t: t + "\n# \udcff\n",
    "a null": lambda t: t + "\0",
}


def damage(place: Path, target: str, kind: str, numbers: list[int]) -> None:
    """Do it; in a folder to one of its files."""
    path = place / target
    if target in CACHES:
        folder = Folder(place / CACHES[target], [""], [])
        path = folder._replace(image_size=4)._cache(str(place / "data"))
        kind = kind if kind in _BYTES else "flip"
    elif target in FOLDERS:
        pictures = sorted(path.rglob("*.png"))
        path = pictures[numbers[0] % len(pictures)]
    if kind in _PICTURES:
        _PICTURES[kind](path)
    elif target in ARCHIVES and kind in _ARRAYS:
        _change_array(path, kind, numbers)
    elif kind in _TEXTS:
        text = _TEXTS[kind](path.read_text())
        path.write_bytes(text.encode(errors="surrogateescape"))
    else:
        fuzz.damage(place, str(path.relative_to(place)), kind, numbers)


# --- what happens --------------------------------------------------------------------------------


class Range(fuzz.Range):
    """A folder with data and code of the user's, and with runs, finished and stopped."""

    def __init__(self, folder: Path) -> None:
        self.template, self.place = folder / "template", folder / "place"
        make_files(self.place)
        self.expected = {}
        for name, (job, _) in JOBS.items():  # where the cases will be: caches know their place
            end = fuzz.in_child(self.place, _COMMANDS["same"](job, f"finished-{name}"))
            if end.code != 0:
                raise SystemExit(f"the undisturbed run {name} ends with {end.code}: {end.errors}")
            stopped = _COMMANDS["same"](job, f"stopped-{name}")
            end = fuzz.in_child(self.place, stopped, stop_at=7)
            if end.code != 143:
                raise SystemExit(f"the stopped run {name} ends with {end.code}: {end.errors}")
            self.expected[name] = fuzz.results_in(self.place / f"finished-{name}")
        self.place.rename(self.template)

    def damage(self, *what: Any) -> None:
        """See :func:`damage`."""
        damage(self.place, *what)

    def others(self) -> dict[str, bytes]:
        """See :func:`others`."""
        return others(self.place)

    def check(self, case: Case) -> list[str]:
        """What is wrong with the results of a command that ended well."""
        if "--dry_run" in case.argv:
            return []
        if case.job is None:
            if not (self.place / "new" / "results.json").exists():
                return ["wrong zero: no results"]
            return fuzz.inconsistent(self.place / "new")
        name = next(a.split("=")[1] for a in reversed(case.argv) if a[:6] in ("--out_", "--eval"))
        wrong = fuzz.inconsistent(self.place / name)
        found = fuzz.results_in(self.place / name)
        if "--overwrite" not in case.argv and not fuzz.same(found, self.expected[case.job]):
            wrong.append("wrong zero: another result than without a break")
        return wrong


def others(place: Path) -> dict[str, bytes]:
    """The files in a folder that belong to no run, and to no cache of one."""
    of_runs = {"new", "data", "__pycache__"}
    found = {}
    for path in place.rglob("*"):
        top = path.relative_to(place).parts[0]
        if not (top in of_runs or "-" in top or "__pycache__" in path.parts) and path.is_file():
            found[str(path.relative_to(place))] = path.read_bytes()
    return found


def make_files(place: Path) -> None:
    """What the user has."""
    place.mkdir()
    (place / "data").mkdir()
    (place / "empty").mkdir()
    (place / "my.py").write_text(MY)
    (place / "sibling.py").write_text('"""Imported by my.py."""\n\nSCALE = 1.0\n')
    bad = "\n\n".join([*FUNCTIONS.values(), *NETS.values(), *METHODS.values()])
    (place / "bad.py").write_text(f"{MY}\n\n{bad}\n")
    for name, content in BROKEN_FILES.items():
        (place / name).write_bytes(content)
    noise = np.random.default_rng(0)
    for name, shape in zip(ARCHIVES, [(6, 6), (6, 6, 3), (8,), (6, 6)], strict=True):
        labels = np.tile(np.arange(6), 8) * 3 - 5
        pixels = noise.integers(0, 256, (48, *shape), dtype=np.uint8)
        images = pixels / 255 if name in ("floats.npz", "table.npz") else pixels
        parts = {"images": images, "labels": labels}
        if name == "tasks.npz":
            parts["tasks"] = np.repeat([4, 7], 24)
        both = {f"{part}_{n}": v for part in ("train", "test") for n, v in parts.items()}
        np.savez(place / name, **both)
    for top in ("pictures", "rooms/task0", "rooms/task1"):
        for i in range(2 * 3 * 6):
            part, animal = ("train", "test")[i % 2], ("ant", "bee", "cow")[i // 2 % 3]
            path = place / top / part / animal / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            shape = (6, 6) if top == "pictures" else (6, 6, 3)
            Image.fromarray(noise.integers(0, 256, shape, dtype=np.uint8)).save(path)


def shares_of(cases: int) -> dict[st.SearchStrategy, int]:
    """How many of each kind."""
    return {new_runs(): cases - cases // 2, second_lives(): cases // 2}


if __name__ == "__main__":
    torch.set_num_threads(1)
    fuzz.main("fuzz_own", __doc__, Range, shares_of)
