"""The README's promises that can be checked without running an experiment."""

import re
import shlex
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import fake_images
from hypnettorch.mnets.classifier_interface import Classifier

import experiment
import run
from hypercl.networks import nets as networks
from hypercl.tasks import images as datasets
from hypercl.tasks import task as tasks
from train_args import EXAMPLES, IMAGE_SIZES, parse_args

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.rst").read_text()


def commands(text):
    """Every ``python run.py ...``, with the lines that a backslash continues."""
    joined = re.sub(r"\\\n\s*", " ", text)
    found = re.findall(r"python run\.py([^\n;`|]*)", joined)
    made = re.findall(r'make run ARGS="([^"]*)"', joined)
    return [re.sub(r"\$\w+", "1", options) for options in found + made]


@pytest.mark.parametrize("text", [README, EXAMPLES], ids=["README.rst", "--help"])
def test_every_command_parses(text):
    found = commands(text)
    assert len(found) >= 6
    for options in found:
        leaves = "--help" in options or "--list_presets" in options
        if not leaves and "..." not in options:
            parse_args(shlex.split(options, comments=True))


def test_the_house_is_as_drawn():
    drawn = set(re.findall(r"^\s+(\w+\.py)\s", README, flags=re.MULTILINE))
    built = {path.name for path in [*ROOT.glob("*.py"), *ROOT.glob("hypercl/*.py")]}
    assert drawn == built - {"__init__.py"}


def test_pictures_are_there():
    pictures = re.findall(r"^\.\. (?:image|figure):: (\S+)", README, flags=re.MULTILINE)
    assert len(pictures) >= 2
    for picture in pictures:
        assert (ROOT / picture).read_bytes().startswith(b"\x89PNG")


def test_every_option_of_the_readme_exists():
    known = set(vars(parse_args([])))
    of_others = {"help", "list_presets", "logdir", "kills", "cases", "no_save"}
    for option in re.findall(r"--(\w+)", README):
        assert option in known | of_others, option


def test_what_was_learned_is_loaded_in_five_lines(monkeypatch, tmp_path, capsys):
    after = README[README.index("In Python, from") :].split("::\n\n", 1)[1]
    code = re.match(r"(.*?)\n\n\S", after, flags=re.DOTALL).group(1)
    assert len(code.splitlines()) == 5
    monkeypatch.chdir(tmp_path)
    short = ["--num_tasks=2", "--n_iter=20", "--no_cuda", "--dropout_rate=0.1"]
    results = run.main([*short, "--random_seed=1", "--out_dir=out/s1"])
    capsys.readouterr()
    exec(textwrap.dedent(code), {})
    accuracy = float(re.search(r"tensor\((.*)\)", capsys.readouterr().out).group(1))
    assert accuracy == pytest.approx(results["seeds"][0]["accuracy"][-1][0] / 100, abs=2e-4)


def test_the_recipe_for_an_experiment_works(monkeypatch, tmp_path):
    """SplitFashion, as the README has it, learns on small images."""
    recipe = README[README.index("    def split_fashion") :].split("\n\n", 1)[0]
    code = textwrap.dedent(recipe)
    namespace = vars(tasks)
    monkeypatch.setitem(namespace, "split_fashion", None)
    exec(code, namespace)
    entry = re.search(r'"fashion": _Dataset\((.*)\),', README).group(1)
    monkeypatch.setitem(
        datasets._DATASETS, "fashion", eval(f"_Dataset({entry})", vars(datasets))
    )  # fmt: skip
    monkeypatch.setitem(IMAGE_SIZES, "splitfashion", "28x28x1")
    np.savez(tmp_path / "fashion.npz", **fake_images(10, 8, (28, 28))._asdict())
    monkeypatch.setattr(
        experiment,
        "build_tasks",
        lambda args, device: namespace["split_fashion"](
            args.data_dir,
            num_tasks=args.num_tasks,
            num_classes_per_task=args.num_classes_per_task,
            skip_tasks=args.skip_tasks,
            val_set_size=args.val_set_size,
            num_train_samples=args.num_train_samples,
            device=device,
        ),
    )
    results = run.main(
        [
            "--cl_exp=splitfashion",
            "--num_tasks=2",
            "--n_iter=3",
            "--val_set_size=2",
            "--no_cuda",
            f"--data_dir={tmp_path}",
            f"--out_dir={tmp_path / 'run'}",
        ]
    )
    assert results["experiment"] == "splitfashion"


def test_the_recipe_for_a_main_network_works(monkeypatch, tmp_path):
    """The README's CNN in LeNet's place, alone and several together."""
    recipe = README[README.index("    class CNN(Classifier)") :].split("\n\nThen", 1)[0]
    namespace = {"Classifier": Classifier, "F": torch.nn.functional}
    exec(textwrap.dedent(recipe), namespace)
    cnn = namespace["CNN"]((28, 28, 1), 2, width=4)
    weights = [torch.randn(3, *shape) for shape in cnn.param_shapes]
    together = torch.func.vmap(cnn.forward, in_dims=(None, 0))(torch.rand(5, 784), weights)
    assert together.shape == (3, 5, 2)

    def build(net_type, in_shape, num_classes, **options):
        return namespace["CNN"](in_shape, num_classes, width=4)

    monkeypatch.setattr(networks, "build_main_net", build)
    results = run.main(
        ["--net_type=lenet", "--num_tasks=2", "--n_iter=150", "--lr=0.003", "--no_cuda",
         f"--out_dir={tmp_path / 'run'}", f"--data_dir={tmp_path}"]
    )  # fmt: skip
    assert results["seeds"][0]["accuracy"][0][0] > 90
