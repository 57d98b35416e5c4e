"""Using what was learned: networks of tasks as modules, predictions, the accuracy matrix."""

import builtins
import math
import shutil
from pathlib import Path

import pytest
import torch
from helpers import FEW_STEPS, read_json

import run
from benchmarks.common import last_wins
from hypercl import load_run
from hypercl.errors import InputError
from hypercl.evaluation import infer_tasks
from hypercl.rundir import saving
from hypercl.tasks import images as files_of_images

load_images = files_of_images.load_images  # the fixture few_digits replaces it
pytestmark = pytest.mark.usefixtures("few_digits")
TINY = [*FEW_STEPS, "--num_tasks=3", "--n_iter=12"]
PERMUTED = ["--cl_exp=permmnist", "--num_classes_per_task=10", "--padding=0"]

RUNS = {
    "hnet, two seeds": ["--num_seeds=2"],
    "hnet, statistics": ["--batchnorm"],
    "hnet, by batch": ["--batchnorm", "--bn_no_running_stats"],
    "hnet, heads of several sizes": ["--multi_head", "--num_classes_per_task=2,3,4"],
    "hnet, outputs of several sizes": ["--num_classes_per_task=4,3,2"],
    "hnet, permuted": PERMUTED,
    "separate": ["--method=separate", "--mlp_arch=10,10"],
    "ewc, heads": ["--method=ewc", "--ewc_lambda=1", "--cl_scenario=1"],
    "replay, heads, statistics": ["--method=replay", "--replay_budget=14", "--cl_scenario=1",
                                  "--batchnorm"],
    "finetune": ["--method=finetune"],
    "si, all classes": ["--method=si", "--cl_scenario=3"],
    "joint, all classes": ["--method=joint", "--cl_scenario=3", "--batchnorm"],
}  # fmt: skip


def main(*options):
    own = any(option.startswith("--method=") for option in options)
    tiny = [option for option in TINY if not (own and "hmlp" in option)]
    return run.main(last_wins([*tiny, *options, "--out_dir=run"]))


def loaded(**options):
    return load_run("run", no_cuda=True, **options)


def check_networks(learned, results):
    """Their accuracies are those in the results, of every task and seed."""
    for entry in results["seeds"]:
        for task_id, task in enumerate(learned.tasks):
            images, labels = task.test
            net = learned.main_net(task_id, entry["seed"])
            with torch.no_grad():
                logits = net(images)
            assert logits.shape == (len(images), len(learned.classes(task_id)))
            right = (logits.argmax(1) == labels).double().mean().item()
            assert 100 * right == pytest.approx(entry["accuracy"][-1][task_id])
            by_predict = learned.predict(images, task=task_id, seed=entry["seed"])
            assert torch.equal(by_predict.classes, logits.argmax(1))
            assert by_predict.tasks.unique().tolist() == [task_id]


def check_inference(learned):
    """Predictions with the task inferred are those that the scenarios' accuracies are of."""
    experiment, tasks = learned.experiment, learned.tasks
    splits = experiment.splits_to_test(len(tasks))
    for seed in learned.params:
        (expected,) = infer_tasks(learned.of([seed]), tasks, splits, learned._batch_size)
        for rule, right_by in expected.by_rule.items():
            inferred, classes, both = [], [], []
            for task_id, (images, labels) in enumerate(splits):
                inputs_of = None if tasks[1].permutation is None else task_id
                got = learned.predict(images, rule=rule, seed=seed, inputs_of=inputs_of)
                of_task, of_class = got.tasks == task_id, got.classes == labels
                for rows, right in (
                    (inferred, of_task),
                    (classes, of_class),
                    (both, of_task & of_class),
                ):
                    rows.append(100 * right.double().mean().item())
            assert inferred == pytest.approx(right_by.task_inference)
            assert classes == pytest.approx(right_by.cl2)
            assert both == pytest.approx(right_by.cl3)


def check_all_classes(learned):
    """Of one network for all classes: the task is the one that has the class."""
    tasks = learned.tasks
    for task in tasks:
        got = learned.predict(task.test.images)
        with torch.no_grad():
            classes = learned.main_net(0)(task.test.images).argmax(1)
        assert torch.equal(got.classes, classes)
        assert torch.equal(got.tasks, classes // 2)
    assert learned.classes(1) == [
        "digits 0-1: 0", "digits 0-1: 1", "digits 2-3: 2", "digits 2-3: 3", "digits 4-5: 4",
        "digits 4-5: 5",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", RUNS)
def test_networks_and_predictions(kind):
    results = main(*RUNS[kind])
    learned = loaded()
    check_networks(learned, results)
    if kind == "finetune":
        with pytest.raises(InputError, match=r"--method=finetune has one network, .* give task"):
            learned.predict(learned.tasks[0].test.images)
    elif "all classes" in kind:
        check_all_classes(learned)
    else:
        check_inference(learned)


def test_the_rule_that_needs_scales_where_there_are_none():
    """Of a run that an earlier version left, and where a task has one class."""
    main("--num_seeds=2")
    content = saving.decode(Path("run/weights.pt").read_bytes())
    assert {seed: own["margin"].shape for seed, own in content["scales"].items()} == {
        42: (3,), 43: (3,)
    }  # fmt: skip
    del content["scales"]
    Path("run/weights.pt").write_bytes(saving.encode(content))
    learned = loaded()
    check_inference(learned)
    images = learned.tasks[0].test.images
    with pytest.raises(InputError, match=r"rule='scaled' needs the scale .* take another rule"):
        learned.predict(images, rule="scaled")
    content["scales"] = {42: {"margin": torch.ones(2)}, 43: {}}
    Path("run/weights.pt").write_bytes(saving.encode(content))
    with pytest.raises(InputError, match="holds what no run of this version has written"):
        loaded()
    shutil.rmtree("run")
    results = run.main(last_wins([*FEW_STEPS, "--num_classes_per_task=1,2", "--out_dir=run"]))
    assert "cl3_entropy" in results["summary"]
    assert "cl3_scaled" not in results["summary"]


CONVOLUTIONAL = {
    "zenke": ["--method=finetune"],
    "resnet": ["--method=hnet", "--batchnorm", "--resnet_block_depth=1", "--hmlp_arch=4",
               "--resnet_channel_sizes=4,4,6,8"],
    "wrn": ["--method=si", "--cl_scenario=1", "--batchnorm", "--bn_no_running_stats",
            "--wrn_block_depth=1", "--wrn_widening_factor=1"],
}  # fmt: skip


@pytest.mark.parametrize("net_type", CONVOLUTIONAL)
def test_networks_of_colored_images(net_type, cifar_dir, monkeypatch):
    """With normalized inputs; runs, not networks alone."""
    monkeypatch.setattr(files_of_images, "load_images", load_images)
    results = run.main(
        ["--cl_exp=splitcifar", f"--net_type={net_type}", *CONVOLUTIONAL[net_type], "--n_iter=2",
         "--num_tasks=2", "--val_set_size=4", "--batch_size=4", "--no_cuda", "--loglevel_info",
         f"--data_dir={cifar_dir}", "--out_dir=run"]
    )  # fmt: skip
    learned = loaded()
    check_networks(learned, results)
    assert "preprocessing.mean" in learned.main_net(0).state_dict()
    if net_type != "zenke":
        check_inference(learned)


def test_permuted_images_need_the_task_whose_they_are():
    main(*PERMUTED)
    learned = loaded()
    images = learned.tasks[0].test.images
    with pytest.raises(InputError, match=r"differ in their images' permutation, .* or inputs_of"):
        learned.predict(images)
    with pytest.raises(InputError, match="leave it or task out"):
        learned.predict(images, task=0, inputs_of=0)
    assert learned.predict(images, task=1).classes.shape == (len(images),)


@pytest.mark.parametrize("scenario", [1, 3])
def test_one_network_has_one_set_of_statistics(scenario):
    """Which no test chooses by the task of a sample, and which is that of the weights tested."""
    results = main("--method=joint", f"--cl_scenario={scenario}", "--batchnorm")
    learned = loaded()
    first, *others = learned.stats[42]
    for other in others:
        assert all(torch.equal(value, other[name]) for name, value in first.items())
    for task, own in enumerate(results["seeds"][0]["accuracy"][-1]):
        images, labels = learned.tasks[task].test
        found = learned.predict(images, task=task) if scenario == 1 else learned.predict(images)
        right = 100 * (found.classes == labels).double().mean().item()
        assert right == pytest.approx(own)


def test_images_are_taken_as_the_data_set_has_them():
    main("--num_tasks=2")
    learned = loaded()
    images = learned.tasks[1].test.images
    expected = learned.predict(images, task=1)
    for same in (images.numpy(), images[..., 0], images.double()):
        assert torch.equal(learned.predict(same, task=1).classes, expected.classes)
    for wrong in (images / 255, images[:0], images.float() - 300):
        with pytest.raises(InputError, match=r"which are torch\.uint8"):
            learned.predict(wrong)
    with pytest.raises(InputError, match="rule='maximum' is none of entropy, confidence"):
        learned.predict(images, rule="maximum")
    for task, seed, message in ((2, 42, "no task 2"), (-1, 42, "no task -1"), (0, 7, "no seed 7")):
        with pytest.raises(InputError, match=message):
            learned.main_net(task, seed)
        with pytest.raises(InputError, match=message):
            learned.predict(images, task=task, seed=seed)


def test_the_first_seed_is_taken_where_none_is_named():
    main("--num_seeds=2", "--num_tasks=1", "--random_seed=7")
    learned = loaded()
    first, second = (learned.main_net(0, seed).state_dict() for seed in (7, 8))
    assert not torch.equal(first["layers.0.weight"], second["layers.0.weight"])
    for name, tensor in learned.main_net(0).state_dict().items():
        assert torch.equal(tensor, first[name])
    assert learned.classes(0) == ["0", "1"]


@pytest.fixture
def without_pandas(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **options):
        if name == "pandas":
            raise ModuleNotFoundError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_the_accuracy_matrix_is_that_of_the_results(without_pandas):
    results = main("--num_seeds=2", "--test_iter=2", "--keep_weights")
    learned = loaded()
    names = results["tasks"]
    rows = [seed["accuracy"] for seed in results["seeds"]]
    of_second, mean = learned.accuracy(43), learned.accuracy()
    assert list(mean) == list(mean[names[0]]) == names
    for column, tested in enumerate(names):
        for row, after in enumerate(names):
            if column > row or rows[0][row][column] is None:
                assert math.isnan(mean[tested][after])
                assert math.isnan(of_second[tested][after])
            else:
                assert of_second[tested][after] == rows[1][row][column]
                there = (rows[0][row][column] + rows[1][row][column]) / 2
                assert mean[tested][after] == pytest.approx(there)
    assert math.isnan(mean[names[0]][names[0]]) == (rows[0][0][0] is None)
    assert list(loaded(after_task=1).accuracy(42)) == names[:2]
    with pytest.raises(InputError, match="no seed 1"):
        learned.accuracy(1)
    (learned.path / "results.json").unlink()
    with pytest.raises(InputError, match=r"results\.json is missing: .*--resume"):
        learned.accuracy()


def test_with_pandas_it_is_a_table_that_is_indexed_in_the_same_way(monkeypatch):
    pandas = pytest.importorskip("pandas")
    main("--num_tasks=2")
    table = loaded().accuracy()
    assert isinstance(table, pandas.DataFrame)
    rows = read_json(loaded().path / "results.json")["seeds"][0]["accuracy"]
    assert table["digits 0-1"]["digits 2-3"] == rows[1][0]
    assert (table.index.name, table.columns.name) == ("after", "task")
