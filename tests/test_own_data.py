"""Data of the user's, from the command line to the results."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CPU, Stopped, fake_images
from PIL import Image

import run
import train
from hypercl import sizes
from hypercl.errors import InputError
from hypercl.options import Options
from hypercl.report.results import Report
from hypercl.tasks import images as datasets
from train_args import parse_args

ROOT = Path(__file__).parent.parent
SHORT = [
    "--no_cuda", "--loglevel_info", "--n_iter=2", "--val_set_size=6", "--batch_size=4",
    "--mlp_arch=5", "--hmlp_arch=5", "--chmlp_chunk_size=500",
]  # fmt: skip
MY = '''
from dataclasses import dataclass

import numpy as np
import torch
from hypercl.ranges import count, option
from hypercl.tasks.sequences.base import Sequence
from hypercl.tasks.task import Split, Task
from torch.utils.data import TensorDataset


def make(seed, number=40, classes=2):
    labels = np.arange(number) % classes
    inputs = np.random.default_rng(seed).normal(size=(number, 6)).astype(np.float32)
    return inputs + labels[:, None], labels


def tasks(num_tasks=3, shift: float = 0.0):
    """Rows of six numbers.

    shift: what is added to all.
    """
    rows = [make(seed) for seed in range(num_tasks)]
    return [(x + shift, y, x[:10] + shift, y[:10]) for x, y in rows]


def images(sizes=(6, 6)):
    pixels = torch.rand(24, 3, *sizes, generator=torch.Generator().manual_seed(0))
    part = TensorDataset(pixels, torch.arange(24) % 3)
    return [(part, part), (part, part)]


class Net(torch.nn.Module):
    def __init__(self, in_shape, num_classes):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(int(np.prod(in_shape)), num_classes)
        )

    def forward(self, x):
        return self.layers(x)


@dataclass(frozen=True)
class Mine(Sequence):
    image_shape = (6,)
    rows: int = option(20, count, "samples of a task")

    def build(self, options, device):
        x, y = (torch.from_numpy(values).to(device) for values in make(0, self.rows))
        part = Split(x, y)
        return [Task(f"mine {i}", 2, part, part, part) for i in range(options.num_tasks or 2)]


def uneven():
    return [(*make(0, 20, 2), *make(1, 20, 2)), (*make(2, 24, 3), *make(3, 24, 3))]


def fails(wrong: bool = True):
    return undefined_name


def returns_nothing():
    pass


class Broken:
    def __len__(self):
        return 1

    def __getitem__(self, i):
        raise OSError("no such file\\nreally")


def broken_items():
    return [(Broken(), Broken())]
'''


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A working directory with data of all kinds, and runs without plots."""
    monkeypatch.setattr(Report, "_write_plots", lambda self: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.py").write_text(textwrap.dedent(MY))
    made = fake_images(6, 12, (6, 6))._asdict()
    labels = {name: made[name].astype(int) * 10 - 7 for name in ("train_labels", "test_labels")}
    np.savez("images.npz", **{**made, **labels})
    rows = {n: made[n].reshape(-1, 36) / 255 for n in ("train_images", "test_images")}
    tasks = {n.replace("labels", "tasks"): v // 3 for n, v in made.items() if "labels" in n}
    np.savez("rows.npz", **{**made, **rows, **tasks})


def save_pictures(top, images=None, shape=(6, 6)):
    """Pictures of three classes."""
    images = images or fake_images(3, 8, shape)
    for part in ("train", "test"):
        pixels, labels = getattr(images, f"{part}_images"), getattr(images, f"{part}_labels")
        for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            path = Path(top, part, ("ant", "bee", "cow")[label], f"{i:03}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)


def names(results):
    return results["tasks"]


def learn(cl_exp, *more, out="out"):
    return run.main([*SHORT, f"--cl_exp={cl_exp}", f"--out_dir={out}", *more])


@pytest.fixture
def learn_twice(monkeypatch):
    """A function that learns, and learns again with a stop in the second task; the results are the
    same, are shown again by the same command, and are measured again by --eval.
    """

    def learn_with_and_without_stop(*given):
        results = learn(*given)
        with monkeypatch.context() as patch:
            step, steps = train.TaskTraining.step, iter(range(3))

            def stop(training):
                if next(steps, None) is None:
                    raise Stopped
                step(training)

            patch.setattr(train.TaskTraining, "step", stop)
            with pytest.raises(Stopped):
                learn(*given, out="stopped")
        again = learn(*given, out="stopped")
        assert again["seeds"] == results["seeds"]
        with monkeypatch.context() as patch:
            patch.setattr(train.TaskTraining, "step", None)
            assert learn(*given, out="stopped") == again
            assert run.main(["--eval=stopped", "--no_cuda"]) == again
        return results

    return learn_with_and_without_stop


def test_an_archive_of_images(learn_twice):
    results = learn_twice("images.npz")
    assert names(results) == ["classes -7, 3", "classes 13, 23", "classes 33, 43"]
    assert results["config"]["cl_exp"] == "images.npz"
    assert results["config"]["num_tasks"] == -1


def test_its_classes_are_dealt_out_as_those_of_mnist_are():
    given = ["--num_classes_per_task=3", "--class_order=5,4,3,2,1,0", "--skip_tasks=1"]
    assert names(learn("images.npz", *given)) == ["classes 13, 3, -7"]
    unequal = ["--num_classes_per_task=3,2", "--multi_head", "--overwrite"]
    results = learn("images.npz", *unequal)
    assert names(results) == ["classes -7, 3, 13", "classes 23, 33"]


def test_a_table_of_features_with_tasks(learn_twice):
    results = learn_twice("rows.npz", "--normalize=dataset")
    assert names(results) == ["task 0", "task 1"]
    assert results["num_weights"]["main"] == 36 * 5 + 5 + 5 * 3 + 3


def test_a_folder_of_images(learn_twice):
    save_pictures("pictures")
    results = learn_twice("pictures", "--num_classes_per_task=2,1")
    assert names(results) == ["classes ant, bee", "classes cow"]
    with pytest.warns(UserWarning, match="has 3 classes, and tasks of 2 leave out 1 of them"):
        small = learn("pictures", "--image_size=4", "--overwrite")
    assert names(small) == ["classes ant, bee"]
    assert small["num_weights"]["main"] < results["num_weights"]["main"]


def test_folders_of_tasks():
    for number in range(2):
        save_pictures(f"all/task{number}", fake_images(3, 8, (6, 6), seed=number))
    assert names(learn("all")) == ["task0", "task1"]


def test_a_function_with_options(learn_twice):
    results = learn_twice("my.py:tasks", "--shift=0.5", "--num_tasks=2", "--skip_tasks=1")
    assert names(results) == ["task 1", "task 2"]
    assert results["config"]["shift"] == 0.5
    moved = learn("my.py:tasks", "--shift=5", "--num_tasks=2", "--skip_tasks=1", "--overwrite")
    assert moved["seeds"] != results["seeds"]


def test_the_function_that_the_documentation_shows():
    text = (ROOT / "docs" / "data.rst").read_text()
    blocks = re.findall(r"::\n\n((?:    .*\n|\n)+)", text)
    (recipe,) = (textwrap.dedent(block) for block in blocks if "half circles" in block)
    Path("moons.py").write_text(recipe)
    options = parse_args(["--cl_exp=moons.py:tasks", "--angle=45", "--num_tasks=3"]).task
    tasks = options.kind.build(options, CPU)
    assert [task.in_shape for task in tasks] == [(2,)] * 3
    first, last = (between_classes(task.train) for task in (tasks[0], tasks[2]))
    turned = torch.tensor([-first[1], first[0]])  # by 90 degrees
    assert torch.allclose(last, turned, atol=0.3)
    networks = ["--mlp_arch=20", "--hmlp_arch=20", "--lr=0.01", "--n_iter=100", "--no_cuda"]
    results = run.main(["--cl_exp=moons.py:tasks", "--num_tasks=2", *networks])
    assert results["summary"]["final_accuracy"]["mean"] > 80


def between_classes(split):
    """From the middle of class 0 to that of class 1."""
    return split.images[split.labels == 1].mean(0) - split.images[split.labels == 0].mean(0)


def test_a_sequence_of_ones_own():
    results = learn("my.py:Mine", "--rows=30", "--num_tasks=3")
    assert names(results) == ["mine 0", "mine 1", "mine 2"]
    assert results["config"]["rows"] == 30


def test_a_function_of_datasets_for_a_convolutional_network():
    net = ["--net_type=resnet", "--resnet_block_depth=1", "--resnet_channel_sizes=2,2,4,6"]
    given = [o for o in SHORT if not o.startswith("--mlp")]
    results = run.main([*given, "--cl_exp=my.py:images", *net])
    assert names(results) == ["task 0", "task 1"]


@pytest.mark.parametrize("cl_exp", ["rows.npz", "my.py:images"])
def test_a_module_of_ones_own(cl_exp):
    given = [o for o in SHORT if not o.startswith("--mlp")]
    results = run.main([*given, f"--cl_exp={cl_exp}", "--net_type=my.py:Net"])
    assert results["num_weights"]["main"] == 3 * (36 if cl_exp == "rows.npz" else 108) + 3


def test_tasks_of_unequal_sizes():
    results = learn("my.py:uneven", "--multi_head")
    assert names(results) == ["task 0", "task 1"]
    assert results["num_weights"]["main"] == 6 * 5 + 5 + 5 * 5 + 5


def test_a_set_of_torchvisions(learn_twice, monkeypatch):
    made = fake_images(10, 6, (28, 28))
    small = datasets.TORCHVISION["FashionMNIST"]._replace(num_train=60, num_test=30)
    monkeypatch.setitem(datasets.TORCHVISION, "FashionMNIST", small)
    Path("datasets").mkdir()
    np.savez("datasets/fashionmnist.npz", **made._asdict())
    results = learn_twice("torchvision:FashionMNIST", "--num_tasks=2")
    assert names(results) == ["classes 0-1", "classes 2-3"]
    assert parse_args(["--cl_exp=torchvision:SVHN"]).task.kind.image_shape == (32, 32, 3)


def test_data_that_have_changed_do_not_go_on(monkeypatch):
    def stop(training):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(train.TaskTraining, "step", stop)
        with pytest.raises(Stopped):
            learn("rows.npz")
    arrays = dict(np.load("rows.npz"))
    arrays["train_images"][-1] += 1
    np.savez("rows.npz", **arrays)
    with pytest.raises(InputError, match="the data are not those with which out began"):
        learn("rows.npz")


def test_what_is_known_before_the_run_is_known_without_torch(tmp_path):
    save_pictures("pictures")
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from hypercl.tasks.sequences.brought import bring\n"
        "for name in ('images.npz', 'rows.npz', 'pictures', 'torchvision:KMNIST'):\n"
        "    print(*bring(name)().image_shape)\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:4] == ["6 6 1", "36", "6 6 1", "28 28 1"]


def refused(argv, capsys):
    """What is said, in one line, where nothing is written."""
    short = [o for o in SHORT if "--method=replay" not in argv or "hmlp" not in o]
    with pytest.raises((SystemExit, InputError)) as stopped:
        run.main([*short, *argv, "--out_dir=out"])
    if isinstance(stopped.value, InputError):
        message = str(stopped.value)
    else:
        assert stopped.value.code == 2
        message = capsys.readouterr().err.removeprefix("run.py: error: ").strip()
    assert "\n" not in message
    assert not Path("out").exists()
    return message


CASES = {
    "images.npz --num_tasks=4": "takes 8 classes, and images.npz has 6: lower",
    "images.npz --num_classes_per_task=7": "takes 7 classes, and images.npz has 6",
    "images.npz --num_classes_per_task=3,4": "takes 7 classes, and images.npz has 6",
    "images.npz --skip_tasks=3": "takes 8 classes, and images.npz has 6",
    "images.npz --class_order=0,1": "must have the classes of images.npz, 0 to 5, each once",
    "images.npz --num_train_samples=19": "--num_train_samples=19 with --val_set_size=6: the task",
    "images.npz --normalize=imagenet": "--normalize=imagenet is for images of 3 channels",
    "images.npz --image_size=4": "did you mean --image_size with --cl_exp=path/to/folder?",
    "rows.npz --num_tasks=3": "--num_tasks=3 is more than the 2 tasks of rows.npz",
    "rows.npz --skip_tasks=2": "--skip_tasks=2 leaves none of the 2 tasks of rows.npz",
    "rows.npz --num_classes_per_task=2": "is not what rows.npz has: task 0 has 3 classes; leave",
    "rows.npz --num_classes_per_task=3,4": "task 1 has 3 classes",
    "rows.npz --class_order=random": "or data of your own that are split: give that too",
    "none.npz": "none.npz does not exist: give the path of an .npz file",
    "nowhere/data": "--cl_exp=nowhere/data does not exist: give an .npz file, a folder",
    "./my.py": "--cl_exp=./my.py is none of these",
    "torchvision:Fashion": "is not known: give one of torchvision:CIFAR10, ",
    "my.py:nothing": "my.py:nothing does not exist: my.py has make, tasks,",
    "my.py:make": "parameter seed has no default",
    "my.py:fails": "my.py:fails fails (NameError: name 'undefined_name' is not defined, line",
    "my.py:broken_items": "my.py:broken_items fails (OSError: no such file, line",
    "my.py:returns_nothing": "my.py:returns_nothing returns None: let it return a list of tasks",
    "my.py:uneven --num_tasks=3": "--num_tasks=3 is more than the 2 tasks of my.py:uneven",
    "my.py:uneven --num_classes_per_task=2": "my.py:uneven has: task 1 has 3 classes; leave it",
    "my.py:uneven --method=replay --replay_budget=4": "--replay_budget=4 leaves no sample for each",
    "my.py:tasks --skip_tasks=3": "--skip_tasks=3 leaves none of the 3 tasks of my.py:tasks",
}


@pytest.mark.parametrize("given", CASES)
def test_what_cannot_be_is_said_in_one_line(given, capsys):
    assert CASES[given] in refused([f"--cl_exp={given.split()[0]}", *given.split()[1:]], capsys)


@pytest.mark.parametrize("net_type", ["lenet", "zenke", "resnet", "wrn"])
@pytest.mark.parametrize("cl_exp", ["rows.npz", "my.py:tasks"])
def test_convolutional_networks_take_no_vectors(cl_exp, net_type, capsys):
    number = 36 if cl_exp == "rows.npz" else 6
    given = [o for o in SHORT if not o.startswith("--mlp")]
    with pytest.raises((SystemExit, InputError)) as stopped:
        run.main([*given, f"--cl_exp={cl_exp}", f"--net_type={net_type}"])
    said = f"--net_type={net_type} takes images, and --cl_exp={cl_exp} has vectors of {number} num"
    assert said in f"{capsys.readouterr().err}{stopped.value}"
    assert not Path("out").exists()


def test_of_a_network_for_other_images_the_sizes_are_named(capsys):
    for cl_exp, shape in (("images.npz", "6x6x1"), ("my.py:images", "6x6x3")):
        with pytest.raises((SystemExit, InputError)) as stopped:
            run.main(["--net_type=lenet", f"--cl_exp={cl_exp}", "--no_cuda", "--val_set_size=6"])
        said = f"takes 28x28x1 images and --cl_exp={cl_exp} has {shape} ones"
        assert said in f"{capsys.readouterr().err}{stopped.value}"


def test_what_is_larger_than_memory_is_refused_before_it_is_read(monkeypatch, capsys):
    monkeypatch.setattr(sizes, "total_memory", lambda: 3000)
    with pytest.raises(InputError, match=r"--cl_exp=images\.npz takes .* for the images.*: take a"):
        run.main(["--cl_exp=images.npz", "--num_seeds=1", "--n_iter=1", "--batch_size=1"])


def test_a_network_download_that_fails_names_the_files(monkeypatch):
    import urllib.request

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    for name, file in (
        ("KMNIST", "KMNIST/raw/train-images-idx3-ubyte.gz"),
        ("EMNIST-letters", "EMNIST/raw/gzip.zip"),
        ("SVHN", "train_32x32.mat, test_32x32.mat"),
        ("STL10", "stl10_binary.tar.gz"),
        ("USPS", "usps.bz2, usps.t.bz2"),
    ):
        options = Options.of({"cl_exp": f"torchvision:{name}", "data_dir": "cache"}).task
        with pytest.raises(InputError) as error:
            options.kind.data.load("cache")
        message = str(error.value)
        assert f"cache/{options.kind.data.dataset.name}.npz does not exist" in message
        assert f"{file}" in message
        assert "in cache)" in message
        assert "\n" not in message
