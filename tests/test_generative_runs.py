"""HNET+TIR from the command line, on few images; HNET+R and DGR are in test_baseline_runs.py."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import FEW_STEPS, SMALL_VAE, make_sequence, read_json, scalars

import run
import train
from hypercl import load_run
from hypercl.errors import InputError
from hypercl.evaluation import Learned, generated_images
from hypercl.ranges import as_argument
from hypercl.rundir import saving

pytestmark = pytest.mark.usefixtures("few_digits")

LINE = [
    *FEW_STEPS, "--method=hnet_tir", "--tir_arch=8", "--freeze_prev_embs", "--lookahead",
    *(f"--{name}={as_argument(value)}" for name, value in SMALL_VAE.items()),
]  # fmt: skip


def without_times(results):
    return {seed["seed"]: (seed["accuracy"], seed["scenarios"]) for seed in results["seeds"]}


def learned(path):
    return torch.load(Path(path, "weights.pt"), weights_only=True)["hnet_tir"]


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for seed, state in one.items():
        assert state.keys() == other[seed].keys()
        assert all(torch.equal(value, other[seed][name]) for name, value in state.items())


def test_a_run_its_test_again_and_its_predictions():
    given = [*LINE, "--num_tasks=3", "--multi_head", "--num_seeds=2", "--out_dir=a"]
    results = run.main(given)
    assert results == read_json(Path("a", "results.json"))
    for seed in results["seeds"]:
        inferred = seed["scenarios"]
        assert {"cl3_entropy", "cl3_scaled", "cl3_tir", "task_inference_tir"} <= inferred.keys()
        assert [round(sum(row)) for row in inferred["task_confusion_tir"]] == [100] * 3
    assert "cl2_tir" in results["summary"]
    assert run.main(["--eval=a", "--no_cuda"]) == results
    loaded = load_run("a", no_cuda=True)
    numbers = sum(value.numel() for value in loaded.params[42].values())
    assert results["num_weights"]["trained"] == numbers
    test = loaded.tasks[1].test
    found = loaded.predict(test.images, rule="tir")
    share = 100 * (found.tasks == 1).double().mean()
    assert share.item() == pytest.approx(
        results["seeds"][0]["scenarios"]["task_inference_tir"]["tasks"][1]
    )


def test_what_else_learns_is_logged():
    results = run.main([*LINE, "--num_tasks=2", "--num_seeds=2", "--out_dir=a"])
    names = [
        "generator_reconstruction", "generator_divergence", "generator_penalty",
        "inference_loss", "inference_accuracy",
    ]  # fmt: skip
    assert results["other_losses"] == names
    rows = [json.loads(line) for line in Path("a", "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        assert list(row)[-5:] == names
        reconstruction, divergence, penalty, loss, accuracy = (row[name] for name in names)
        assert reconstruction > 0.1
        assert divergence > 0
        assert (penalty > 0) == (row["task"] > 0)
        assert (loss > 0) == (row["task"] > 0)
        assert accuracy <= 1
        total = row["task_loss"] + 0.01 * row["penalty"] + reconstruction + divergence + loss
        assert row["loss"] == pytest.approx(total + 0.01 * penalty, rel=1e-5)
    last = [row for row in rows if row["task"] == 1][-2:]
    assert {row["seed"] for row in last} == {42, 43}
    mean = sum(100 * row["inference_accuracy"] for row in last) / 2
    assert scalars("a")["train/inference_accuracy", 12] == pytest.approx(mean, rel=1e-5)


def test_a_checkpoint_that_has_fewer_losses_goes_on(monkeypatch):
    """As one of an earlier version has, of which some are not yet logged."""
    given = [*LINE, "--num_tasks=2"]
    whole = run.main([*given, "--out_dir=a"])

    class Killed(BaseException):
        pass

    def log(self, step):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(train.TaskTraining, "is_logged", lambda self, step: step == 6)
        patch.setattr(train.TaskTraining, "log", log)
        with pytest.raises(Killed):
            run.main([*given, "--out_dir=b"])
    path = Path("b", "checkpoint.pt")
    content = saving.decode(path.read_bytes())
    history = content["training"]["history"]
    assert history.shape == (4, 9, 1)
    content["training"]["history"] = history[:, :4]
    path.write_bytes(saving.encode(content))
    assert without_times(run.main([*given, "--out_dir=b"])) == without_times(whole)
    assert_equal(learned("a"), learned("b"))


def test_a_method_without_that_rule_says_so():
    run.main([*FEW_STEPS, "--num_tasks=2", "--out_dir=a"])
    loaded = load_run("a", no_cuda=True)
    with pytest.raises(InputError, match="--method=hnet has none"):
        loaded.predict(loaded.tasks[0].test.images, rule="tir")


def test_members_learn_what_they_would_alone():
    together = run.main([*LINE, "--num_tasks=2", "--num_seeds=2", "--out_dir=a"])
    alone = run.main([*LINE, "--num_tasks=2", "--random_seed=43", "--out_dir=b"])
    assert together["seeds"][1]["seed"] == alone["seeds"][0]["seed"] == 43
    for name, value in learned("b")[43].items():
        torch.testing.assert_close(learned("a")[43][name], value, rtol=1e-3, atol=1e-4)


def test_paused_and_resumed_is_as_not_stopped():
    whole = run.main([*LINE, "--num_tasks=3", "--out_dir=a"])
    run.main([*LINE, "--num_tasks=3", "--out_dir=b", "--pause_after=2"])
    resumed = run.main([*LINE, "--num_tasks=3", "--out_dir=b"])
    assert without_times(whole) == without_times(resumed)
    assert_equal(learned("a"), learned("b"))


def test_pictures_of_permuted_images_are_put_back_in_order():
    """Of a generator that returns a batch as it is: each task's own images."""
    tasks = make_sequence(2)
    permuted = [
        replace(task, permutation=torch.randperm(36, generator=torch.Generator().manual_seed(i)))
        for i, task in enumerate(tasks)
    ]
    inputs = torch.stack([task.inputs(task.train.images[:4]) for task in permuted])

    class Copies:
        def generate(self, params, num_learned, num_samples):
            return inputs[None].clone()

    learned = Learned(None, Copies(), {"weights": torch.zeros(2, 1)}, [])
    images = generated_images(learned, permuted, 0)
    assert torch.equal(images, torch.stack([task.train.images[:4] for task in tasks]))


def test_more_tasks_later():
    run.main([*LINE, "--num_tasks=2", "--out_dir=a"])
    before = learned("a")[42]
    results = run.main([*LINE, "--num_tasks=3", "--continue_from=a", "--out_dir=b"])
    after = learned("b")[42]
    assert len(results["seeds"][0]["accuracy"]) == 3
    assert after["inference.2"].shape[0] == 3 == before["inference.2"].shape[0] + 1
    assert "cl3_tir" in results["summary"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--num_tasks=6", "--num_classes_per_task=1"], "--vae_condition_size=5 leaves some of"),
        (["--keep_optimizer"], "--keep_optimizer cannot be used with --method=hnet_tir"),
        (["--cl_exp=toyregression"], "regression"),
        (["--cl_scenario=3"], "--cl_scenario=3"),
    ],
)
def test_what_cannot_be(more, message, capsys):
    with pytest.raises(SystemExit) as refused:
        run.main([*LINE, *more])
    assert refused.value.code == 2
    assert message in capsys.readouterr().err
