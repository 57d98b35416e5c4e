"""What a run has learned after every task: --keep_weights, and load_run with after_task."""

import shutil
from pathlib import Path

import pytest
import torch
from helpers import FEW_STEPS, read_json

import run
import train
from benchmarks.common import last_wins
from hypercl import load_run
from hypercl.errors import InputError
from hypercl.evaluation import evaluate_tasks

pytestmark = pytest.mark.usefixtures("few_digits")
TINY = [*FEW_STEPS, "--num_tasks=3", "--batchnorm", "--num_seeds=2", "--keep_weights"]


def main(*options, out_dir="run"):
    return run.main(last_wins([*TINY, *options, f"--out_dir={out_dir}"]))


def files(path="run"):
    return {p.name: p.read_bytes() for p in Path(path, "weights").iterdir()}


def accuracies(loaded):
    experiment = loaded.experiment
    tested = experiment.tasks[: loaded.num_tasks], experiment.splits_to_test(loaded.num_tasks)
    rows = {}
    for group in loaded.groups:
        rows |= dict(zip(group, evaluate_tasks(loaded.of(group), *tested, 256), strict=True))
    return rows


def check_every_task(results):
    for task in range(3):
        loaded = load_run("run", after_task=task, no_cuda=True)
        expected = {seed["seed"]: seed["accuracy"][task] for seed in results["seeds"]}
        assert accuracies(loaded) == expected
        assert repr(loaded) == f"<run of {task + 1} tasks with the seeds [42, 43]>"


def test_the_networks_after_every_task_are_those_that_were_tested():
    results = main()
    assert sorted(files()) == ["task_01.pt", "task_02.pt", "task_03.pt"]
    check_every_task(results)
    end, last = load_run("run", no_cuda=True), load_run("run", after_task=2, no_cuda=True)
    for one, other in zip(end.weights(1, 43), last.weights(1, 43), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(InputError, match="there is no task 2, the last is 1"):
        load_run("run", after_task=1, no_cuda=True).weights(task=2, seed=42)
    assert run.main(["--eval=run", "--no_cuda"]) == results


def test_seeds_in_groups_have_a_file_each(one_by_one):
    results = main()
    names = [f"task_0{task}_group_0{group}.pt" for task in (1, 2, 3) for group in (1, 2)]
    assert sorted(files()) == names
    check_every_task(results)


def test_without_it_there_are_none_and_a_missing_or_damaged_one_is_named():
    main("--keep_weights=off", "--num_tasks=1", "--num_seeds=1")
    assert not Path("run", "weights").exists()
    with pytest.raises(InputError, match=r"task_01\.pt is missing: .* with --keep_weights"):
        load_run("run", after_task=0)
    main("--num_tasks=1", "--num_seeds=1", "--overwrite")
    path = Path("run", "weights", "task_01.pt")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"task_01\.pt is damaged"):
        load_run("run", after_task=0)
    main("--num_tasks=1", "--num_seeds=1", "--keep_weights=off", "--overwrite")
    assert not Path("run", "weights").exists()


def test_the_results_are_the_same_and_it_may_be_asked_for_later():
    main("--keep_weights=off")
    with_ = main(out_dir="with")
    assert with_["seeds"] == read_json(Path("run/results.json"))["seeds"]
    assert Path("run/weights.pt").stat().st_size == Path("with/weights.pt").stat().st_size
    assert main()["status"] == "finished"  # with another --keep_weights


class Killed(BaseException):
    """Stands for a signal."""


@pytest.mark.parametrize("step", [6, 20])
def test_a_run_that_goes_on_has_the_same_files(step, one_by_one, monkeypatch):
    """Bit for bit; killed within tasks and between them, in the first group and in the second."""
    main()
    expected = files()
    shutil.rmtree("run")
    steps, take = iter(range(step)), train.TaskTraining.step

    def kill(self):
        if next(steps, None) is None:
            raise Killed
        take(self)

    monkeypatch.setattr(train.TaskTraining, "step", kill)
    with pytest.raises(Killed):
        main()
    monkeypatch.setattr(train.TaskTraining, "step", take)
    if step > 6:  # what is there is good before the end
        assert accuracies(load_run("run", after_task=0, no_cuda=True)).keys() == {42}
    run.main(["--resume", "--out_dir=run", "--loglevel_info"])
    assert {name for name, data in files().items() if data != expected[name]} == set()
