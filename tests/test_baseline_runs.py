"""Each method with weights of its own from the command line, on few images."""

from pathlib import Path

import pytest
import torch
from helpers import FEW_STEPS, GENERATIVE, OWN_WEIGHTS, read_json

import run
from hypercl import load_run
from hypercl.errors import InputError
from hypercl.evaluation import evaluate_tasks
from hypercl.options import METHODS
from hypercl.ranges import as_argument
from hypercl.registry import entries

pytestmark = pytest.mark.usefixtures("few_digits")

SHORT = [option for option in FEW_STEPS if "hmlp" not in option]
LAST = {name: entries(METHODS)[name].scenarios[-1] for name in OWN_WEIGHTS}


def line(method, *more):
    own = [f"--{name}={as_argument(value)}" for name, value in OWN_WEIGHTS[method].items()]
    return [*SHORT, "--num_tasks=3", f"--method={method}", *own, *more]


@pytest.mark.parametrize("method", OWN_WEIGHTS)
def test_a_run_and_its_test_again(method, capsys):
    scenario = LAST[method]
    given = line(method, f"--cl_scenario={scenario}", "--num_seeds=2", "--out_dir=a")
    dry = run.main([*given, "--dry_run"])
    assert not Path("a").exists()
    assert "weights" in capsys.readouterr().out
    results = run.main(given)
    assert results == read_json(Path("a", "results.json"))
    assert results["format"] == 2
    assert (results["method"], results["scenario"]) == (method, scenario)
    assert results["num_weights"] == dry["num_weights"]
    main, trained = results["num_weights"]["main"], results["num_weights"]["trained"]
    if method in GENERATIVE:
        assert trained > main
    else:
        assert trained == main * (3 if method == "separate" else 1)
    assert results["compression_ratio"] is None is dry["compression_ratio"]
    assert (results["kept_bytes"] > 0) == (method not in ("finetune", "separate"))
    direct = f"cl{scenario}"
    for seed in results["seeds"]:
        assert [len(row) for row in seed["accuracy"]] == [1, 2, 3]
        for name in ("cl1", "cl2", "cl3"):
            assert seed[name] == (seed["final_accuracy"] if name == direct else None)
        assert ("scenarios" in seed) == (scenario == 1)
    assert results["summary"][direct]["mean"] == results["summary"]["final_accuracy"]["mean"]
    assert ("cl3_entropy" in results["summary"]) == (scenario == 1)
    stored = torch.load("a/weights.pt", weights_only=True)[method]
    assert sorted(stored) == [42, 43]
    assert run.main(["--eval=a", "--no_cuda"]) == results
    loaded = load_run("a", no_cuda=True)
    assert sum(value.numel() for value in loaded.params[42].values()) == trained
    tested = loaded.experiment.tasks_to_test(3), loaded.experiment.splits_to_test(3)
    rows = evaluate_tasks(loaded.of([42, 43]), *tested, 256)
    assert rows == [seed["accuracy"][-1] for seed in results["seeds"]]


def test_separate_networks_with_shared_outputs_have_no_scenario_but_the_first():
    results = run.main(line("separate"))
    assert results["scenario"] is None
    (seed,) = results["seeds"]
    assert seed["cl1"] == seed["final_accuracy"]
    assert seed["scenarios"]["cl1"]["mean"] == pytest.approx(seed["cl1"])


def test_a_budget_that_cannot_be_kept_leaves_no_run_directory():
    given = ["--method=separate", "--separate_same_budget", "--mlp_arch=1", "--val_set_size=9"]
    with pytest.raises(InputError, match="--separate_same_budget"):
        run.main([*given, "--out_dir=a"])
    assert not Path("a").exists()


def test_of_a_hypernetwork_heads_have_two_names():
    given = [*FEW_STEPS, "--num_tasks=2"]
    first, second = (run.main([*given, name]) for name in ("--multi_head", "--cl_scenario=1"))
    assert first["scenario"] == second["scenario"] == 1
    assert first["seeds"] == second["seeds"]
    assert first["summary"] == second["summary"]


OTHERS = {
    "the batch's statistics": ["--batchnorm", "--bn_no_running_stats"],
    "running statistics": ["--batchnorm"],
    "bfloat16": ["--amp"],
}


@pytest.mark.parametrize("net", OTHERS)
@pytest.mark.parametrize("method", OWN_WEIGHTS)
def test_with_other_main_networks(method, net, capsys):
    if "ewc" in method and "--bn_no_running_stats" in OTHERS[net]:  # nothing to test but that
        with pytest.raises(SystemExit) as refused:
            run.main(line(method, *OTHERS[net]))
        assert refused.value.code == 2
        assert "single samples" in capsys.readouterr().err
        return
    results = run.main(line(method, *OTHERS[net]))
    assert results["status"] == "finished"
    assert results["seeds"][0]["accuracy"][2][2] is not None
