import csv
import io
import json
import math
from dataclasses import replace

import pytest
from stored_sweeps import StoredSearch, sweep_of, write_point

from hypercl.measure import ACCURACY
from hypercl.report.sweep.points import collect, validation
from hypercl.report.sweep.tables import as_csv, chosen_table, points_table, tried_table


def found(out_dir, *points, num_points=None, sweep=None, **search):
    """The findings of points, by their labels."""
    by_label = {}
    for point in points:
        by_label.setdefault(point.point.label, []).append(point)
    stored = StoredSearch(by_label, num_points, **search)
    return collect(out_dir, sweep or sweep_of(*by_label), stored, "the command")


@pytest.fixture
def two_methods(tmp_path):
    """Points of each kind; of hnet two are chosen and tested, of ewc one is."""
    points = [
        write_point(tmp_path, "hnet", 0, 90.0, sem=0.5, beta=0.1, lr=0.001, test=88.0),
        write_point(tmp_path, "hnet", 1, 92.0, sem=0.5, beta=0.01, lr=0.001, test=85.0),
        write_point(tmp_path, "hnet", 2, 60.0, state="stopped", sem=0.2, beta=1.0, lr=0.001),
        write_point(tmp_path, "hnet", 3, 0.0, state="diverged", beta=1.0, lr=9.0),
        write_point(tmp_path, "ewc", 0, 95.0, ewc_lambda=10.0, test=94.0),
        write_point(tmp_path, "ewc", 1, None, state="failed", ewc_lambda=2.0),
        write_point(tmp_path, "ewc", 2, None, state="running", ewc_lambda=3.0),
    ]
    return found(tmp_path, *points, num_points={"ewc": 9})


def test_points_have_what_their_runs_say(two_methods):
    hnet, ewc = two_methods.methods
    first = hnet.tried[0]
    assert (first.rank, first.num_tasks, first.seconds) == (2, 3, 120.0)
    assert len(first.curve) == 3
    assert first.curve[0] > first.curve[1] > first.curve[2]
    assert (first.test.n, first.test_seeds) == (3, (1042, 1043, 1044))
    assert (hnet.tried[2].num_tasks, len(hnet.tried[2].curve)) == (1, 1)
    assert hnet.tried[3].curve == ()
    assert (ewc.tried[1].seconds, ewc.tried[2].num_tasks) == (None, 1)
    assert [one.number for one in hnet.chosen] == [1, 0]
    assert hnet.counts == {"running": 0, "finished": 2, "stopped": 1, "diverged": 1, "failed": 0}
    assert (hnet.is_done, ewc.is_done, ewc.num_ended) == (True, False, 2)
    assert hnet.hours == 4 * 120 / 3600
    assert two_methods.best is ewc.tried[0]


def test_what_is_not_done_is_told(two_methods):
    assert two_methods.warnings == (
        "ewc is under way: 2 of 9 points",
        "ewc, point 1 failed: the disk is full",
    )
    assert not two_methods.is_done


def test_of_several_methods_the_best_on_validation_samples_are_compared(two_methods):
    comparison = two_methods.comparison
    assert [row.label for row in comparison.rows] == ["hnet", "ewc"]
    (variant,) = comparison.rows[0].variants
    assert {seed.path.parts[-3:] for seed in variant.seeds.values()} == {
        ("retest", "hnet", "00001")  # though point 0 is the better one on test samples
    }
    assert comparison.command == "the command"


def test_of_one_method_all_that_were_tested_are_compared(tmp_path):
    points = [
        write_point(tmp_path, "a", 0, 90.0, lr=0.1, test=88.0),
        write_point(tmp_path, "a", 1, 91.0, lr=0.2, test=87.0),
        write_point(tmp_path, "a", 2, 89.0, lr=0.3),
    ]
    findings = found(tmp_path, *points)
    assert [row.label for row in findings.comparison.rows] == ["point 1", "point 0"]
    assert findings.is_done
    assert findings.warnings == ()


def test_a_sweep_that_chooses_nothing_compares_its_points(tmp_path):
    points = [write_point(tmp_path, "ewc", k, 90.0, random_seed=k) for k in range(2)]
    for k in range(2):
        file = tmp_path / "points" / "ewc" / f"{k:05}" / "results.json"
        content = json.loads(file.read_text()) | {"tested_on": "test"}
        for seed in content["seeds"]:
            seed["seed"] += 100 * k
        rewrite(file, content)
    findings = found(tmp_path, *points, sweep=sweep_of("ewc", chooses=False))
    (row,) = findings.comparison.rows
    assert (row.label, len(row.variants[0].seeds)) == ("ewc", 6)
    assert findings.best is None
    (method,) = findings.methods
    assert [(one.rank, one.is_chosen) for one in method.tried] == [(None, False)] * 2
    assert (method.options, method.searched, method.importance) == (["random_seed"], [], {})
    assert not [name for name in tried_table(findings).header if name.startswith("best")]


def rewrite(file, content):
    from hypercl.rundir.stored import seal

    file.write_text(json.dumps(seal(content)))


def test_tests_that_are_missing_or_of_other_samples_do_not_count(tmp_path):
    points = [write_point(tmp_path, "a", 0, 90.0, lr=0.1, test=88.0)]
    file = tmp_path / "retest" / "a" / "00000" / "results.json"
    rewrite(file, json.loads(file.read_text()) | {"tested_on": "validation"})
    findings = found(tmp_path, *points)
    assert findings.comparison is None
    assert findings.methods[0].tried[0].test is None
    assert findings.warnings == ("the chosen points of a are not all tested yet",)


def test_a_test_that_diverged_is_one(tmp_path):
    points = [write_point(tmp_path, "a", 0, 90.0, lr=0.1, test=88.0)]
    file = tmp_path / "retest" / "a" / "00000" / "results.json"
    content = json.loads(file.read_text()) | {"status": "failed"}
    for seed in content["seeds"]:
        seed |= {"failed": "the loss is not finite", "accuracy": []}
    rewrite(file, content)
    findings = found(tmp_path, *points)
    assert findings.is_done
    assert findings.methods[0].tried[0].test.diverged
    assert findings.comparison is None
    assert chosen_table(findings).rows[0][5] == "diverged"


@pytest.mark.parametrize("content", [None, "{"])
def test_a_lost_run_leaves_the_journals_value(content, tmp_path):
    point = write_point(tmp_path, "a", 0, 90.0, lr=0.1)
    file = tmp_path / "points" / "a" / "00000" / "results.json"
    file.unlink() if content is None else file.write_text(content)
    findings = found(tmp_path, point)
    assert findings.methods[0].tried[0].value == 90.0
    what = "is missing" if content is None else "is damaged"
    assert f"{file} {what}: of this point the journal's value is known" in findings.warnings


def test_what_matters_is_found_by_optuna(tmp_path):
    """The metric follows from one of two options alone."""
    points = [
        write_point(tmp_path, "a", k, 90.0 - abs(k - 10), lr=10.0 ** (k / 10 - 3),
                    momentum=0.05 * (k * 7 % 20))
        for k in range(20)
    ]  # fmt: skip
    shares = found(tmp_path, *points).methods[0].importance
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["lr"] > 2 * shares["momentum"]
    assert found(tmp_path, *points[:3]).methods[0].importance == {}


def test_a_lower_value_is_better_where_the_metric_says_so(tmp_path):
    points = [write_point(tmp_path, "a", k, value, lr=0.1 * k) for k, value in ((1, 5.0), (2, 3.0))]
    findings = found(tmp_path, *points, sweep=sweep_of("a", higher=False), higher=False)
    assert findings.best.number == 2


def test_validations_are_means_over_seeds_at_steps_of_all_tasks(tmp_path):
    write_point(tmp_path, "a", 0, 90.0, num_tasks=2, lr=0.1)
    place = tmp_path / "points" / "a" / "00000"
    with (place / "metrics.jsonl").open("a") as file:
        file.write('{"seed": 42, "task"')  # being written
    points = validation(place, ACCURACY)
    assert [step for step, _ in points] == [1, 50, 100, 100, 101, 150, 200]
    assert math.isnan(points[3][1])  # between two tasks
    assert points[2] == (100, 75.0)
    assert validation(tmp_path / "nowhere", ACCURACY) == []


def test_the_csv_has_a_line_a_point_unrounded(two_methods):
    lines = list(csv.DictReader(io.StringIO(as_csv(two_methods))))
    assert [(line["label"], line["number"]) for line in lines] == [
        *(("hnet", str(k)) for k in range(4)), *(("ewc", str(k)) for k in range(3)),
    ]  # fmt: skip
    first, best, *_ = lines
    assert (first["beta"], first["lr"], first["ewc_lambda"]) == ("0.1", "0.001", "")
    assert (best["rank"], best["chosen"], best["value"], best["sem"]) == ("1", "yes", "92.0", "0.5")
    assert float(best["test_value"]) == two_methods.methods[0].tried[1].test.mean
    assert (best["test_seeds"], best["metric"], best["tested_on"]) == ("3", "cl1", "validation")
    assert [line["status"] for line in lines[2:]] == [
        "stopped", "diverged", "finished", "failed", "running",
    ]  # fmt: skip
    assert (lines[5]["message"], lines[5]["value"]) == ("the disk is full", "")
    assert lines[6]["rank"] == ""


def test_options_with_the_names_of_columns_have_columns_of_their_own(two_methods):
    """As a network of the user's may have them."""
    best = two_methods.methods[0].tried[1]
    row = two_methods._row(replace(best, options={"rank": 8, "width": 3}), ["rank", "width"])
    assert (row["rank"], row["option.rank"], row["width"]) == (1, 8, 3)


def test_the_tables_say_what_was_tried_chosen_and_tested(two_methods):
    tried = tried_table(two_methods)
    assert tried.header[1:7] == [
        "points tried", "running", "finished", "stopped", "diverged", "failed",
    ]  # fmt: skip
    assert tried.rows[0][:7] == ["hnet", "4", "0", "2", "1", "1", "0"]
    assert tried.rows[1][:7] == ["ewc", "2 of 9", "1", "1", "0", "0", "1"]
    assert tried.rows[0][7] == "92.00 ± 0.50"
    chosen = chosen_table(two_methods)
    assert [row[:4] for row in chosen.rows] == [
        ["hnet", "1", "1", "beta=0.01, lr=0.001"],
        ["hnet", "2", "0", "beta=0.1, lr=0.001"],
        ["ewc", "1", "0", "ewc_lambda=10"],
    ]
    assert chosen.rows[0][6] == "1042-1044"
    points = points_table(two_methods.methods[0], two_methods)
    assert [row[0] for row in points.rows] == ["1", "0", "2", "3"]
    assert points.rows[3][-3:] == ["0.00", "0", "120"]


def test_all_of_it_is_json(two_methods):
    content = json.loads(json.dumps(two_methods.as_json()))
    assert content["methods"]["hnet"]["chosen"] == [1, 0]
    assert len(content["points"]) == 7
    assert not content["done"]
