import math
import re

import pytest
from stored_runs import results_of

from hypercl.measure import ACCURACY, ERROR
from hypercl.report.overview import keywords, overview, read_overview


def read(results, tmp_path, measure=ACCURACY):
    (tmp_path / "overview.txt").write_text(overview(results))
    return read_overview(tmp_path / "overview.txt", keywords(measure))


def test_it_says_what_the_results_say(tmp_path):
    results = results_of("ewc", 3, seeds=[1, 2], num_tasks=3)
    found = read(results, tmp_path)
    for name in ("final_accuracy", "during_accuracy", "forgetting", "cl3"):
        assert found[name] == results["summary"][name]["mean"]
    assert found["final_accuracy_sem"] == results["summary"]["final_accuracy"]["sem"]
    rows = [seed["accuracy"][-1] for seed in results["seeds"]]
    means = [sum(pair) / 2 for pair in zip(*rows, strict=True)]
    assert found["accuracy_list_final"] == pytest.approx(means)
    assert math.isnan(found["cl1"])
    assert math.isnan(found["cl3_entropy"])
    names = ("num_weights_trained", "num_seeds", "num_seeds_failed", "seconds", "finished")
    assert [found[name] for name in names] == [900, 2, 0, 120, 1]


def test_keywords_are_lines_in_their_order_and_numbers_have_no_exponent():
    results = results_of("ewc", 3, seeds=[1, 2])
    for name, value in (("final_accuracy", 1.5e-7), ("backward_transfer", -3e-5)):
        results["summary"][name]["mean"] = value
    results["summary"]["forgetting"]["mean"] = math.inf
    lines = overview(results).splitlines()
    assert [line.split(" ")[0] for line in lines] == keywords()
    by_name = dict(line.split(" ", maxsplit=1) for line in lines)
    assert by_name["final_accuracy"] == "0.00000015"
    # As hypnettorch's hpsearch takes numbers out of a line.
    assert re.findall(r"[-+]?\d*\.\d+|\d+", by_name["backward_transfer"]) == ["-0.00003"]
    assert by_name["forgetting"] == "nan"


def test_a_run_that_failed_says_so(tmp_path):
    results = results_of("ewc", 3, seeds=[1], failed=[1], status="failed") | {"summary": {}}
    found = read(results, tmp_path)
    assert (found["finished"], found["num_seeds_failed"]) == (0, 1)
    assert math.isnan(found["final_accuracy"])
    assert math.isnan(found["accuracy_list_final"])


def test_of_regression_it_has_errors(tmp_path):
    results = results_of("ewc", seeds=[1]) | {"measure": "mse"}
    (seed,) = results["seeds"]
    del seed["accuracy"]
    seed["error"] = [[0.1], [0.3, 0.2]]
    results["summary"] = {"final_error": {"mean": 0.25, "sem": None}}
    found = read(results, tmp_path, ERROR)
    assert (found["final_error"], found["error_list_final"]) == (0.25, [0.3, 0.2])
    assert not [name for name in found if "accuracy" in name]


def test_what_is_no_overview_is_refused(tmp_path):
    (tmp_path / "overview.txt").write_text("final_accuracy high\n")
    with pytest.raises(ValueError, match="high"):
        read_overview(tmp_path / "overview.txt", ["final_accuracy"])
    with pytest.raises(FileNotFoundError):
        read_overview(tmp_path / "nowhere.txt", ["final_accuracy"])
