import csv
import os
import random
import runpy
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from hypercl.report.overview import read_overview
from hypercl.sweeps import hpsearch_config as config
from train_args import parse_args

ROOT = Path(__file__).parents[2]
TOOL = "hypnettorch.hpsearch.hpsearch"


def start(module, *arguments):
    """A program of hypnettorch's, in this process: nobody waits 10 s for jobs that have ended."""
    drawn, state = random.getstate(), np.random.get_state()
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # of what is not installed, and that there is no GPU
        patch.setattr(sys, "argv", [module, *map(str, arguments)])
        patch.setattr(time, "sleep", lambda seconds: None)
        patch.delitem(sys.modules, module, raising=False)
        try:
            runpy.run_module(module, run_name="__main__")
        finally:
            random.setstate(drawn)
            np.random.set_state(state)


def test_hpsearch_searches_with_it(tmp_path, monkeypatch, capfd):
    """The real tool on two points, of which the second is refused by run.py."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    grid = {"num_tasks": [2], "n_iter": [2], "no_cuda": [True], "batchnorm": [False]}
    monkeypatch.setattr(config, "grid", {**grid, "lr": [0.001, 0.01]})
    monkeypatch.setattr(config, "conditions", [({"lr": [0.01]}, {"lr": [-1]})])
    start(TOOL, f"--grid_module={config.__name__}", "--visible_gpus=-1", "--deterministic_search",
          "--force_out_dir", f"--out_dir={tmp_path / 'out'}")  # fmt: skip
    assert "--lr" in capfd.readouterr().err  # why the second point was refused
    with (tmp_path / "out" / "search_results.csv").open() as file:
        (line,) = csv.DictReader(file, delimiter=";")
    (run,) = (tmp_path / "out").glob("sim_*")
    assert (line["out_dir"], line["lr"], float(line["finished"])) == (str(run), "0.001", 1)
    found = read_overview(run / "performance_overview.txt", config._SUMMARY_KEYWORDS)
    assert float(line["final_accuracy"]) == found["final_accuracy"]
    assert line["accuracy_list_final"] == ",".join(map(str, found["accuracy_list_final"]))
    assert line["cl2"] == ""  # not what this run answers


def test_every_point_of_the_grid_is_a_run():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from hypnettorch.hpsearch import hpsearch
    commands = hpsearch._grid_to_commands(config.grid)
    ((condition, others),) = config.conditions
    ((name, values),) = condition.items()
    for command in commands:
        more = hpsearch._grid_to_commands(others)[0] if command[name] in values else {}
        text = hpsearch._args_to_cmd_str({**command, **more})
        options = parse_args([word.replace('"', "") for word in text.split()[2:]])
        assert options.evaluation.test_with_val_set
        assert options.train.lr in config.grid["lr"]


def test_a_run_is_judged_by_its_final_accuracy():
    assert config._is_good_enough({"final_accuracy": [91.5]}, 90.0)
    assert not config._is_good_enough({"final_accuracy": [float("nan")]}, 90.0)


def test_what_would_move_runs_away_ends_before_that(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(ROOT)
    with pytest.raises(AssertionError):
        start(f"{TOOL}_postprocessing", tmp_path, f"--grid_module={config.__name__}")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
