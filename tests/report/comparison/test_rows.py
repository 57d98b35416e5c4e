from pathlib import Path

import pytest
from stored_runs import results_of, rows_of, runs_of

from hypercl.errors import InputError
from hypercl.report.comparison.results import compare_rows
from hypercl.report.comparison.rows import (
    about_inferred,
    differences_beside_method,
    is_comparable,
    make_rows,
    pool,
    settings,
)


def warnings_of(*results, names=()):
    return compare_rows(rows_of(*results, names=names), [], "").warnings


def test_runs_that_differ_in_their_seeds_alone_are_pooled():
    variants, warnings = pool(runs_of(results_of(seeds=[1, 2]), results_of(seeds=[5])))
    assert [list(variant.seeds) for variant in variants] == [[1, 2, 5]]
    assert warnings == []
    (row,) = make_rows(variants)
    assert row.label == "hnet"
    assert list(row.accuracy("cl1").values) == [1, 2, 5]


def test_what_does_not_bear_on_the_results_makes_no_row():
    others = [{"ckpt_iter": 7}, {"data_dir": "/x"}, {"preset": "gone"}, {"out_dir": "y"}]
    runs = [results_of(seeds=[i], **other) for i, other in enumerate(others)]
    assert [row.label for row in rows_of(*runs)] == ["hnet"]


def test_a_seed_that_occurs_twice_is_named_and_counted_once():
    runs = runs_of(results_of(seeds=[1, 2]), results_of(seeds=[2, 3], level=50.0))
    (variant,), warnings = pool(runs)
    assert list(variant.seeds) == [1, 2, 3]
    assert variant.accuracy("cl1").values[2] > 80  # of the first
    assert warnings == ["seed 2 is in a and in b, with the same options: the first counts"]


def test_a_seed_that_failed_is_named_and_left_out():
    (variant,), warnings = pool(runs_of(results_of(seeds=[1, 2], failed=[2])))
    assert list(variant.seeds) == [1]
    assert warnings == ["a: seed 2 failed (the loss is not finite): left out"]


def test_labels_are_the_options_that_differ():
    rows = rows_of(
        results_of(lr=0.1, beta=0.5), results_of(lr=0.2, beta=0.5), results_of("other", lr=0.2)
    )
    assert [row.label for row in rows] == ["hnet, lr=0.1", "hnet, lr=0.2", "other, lr=0.2"]
    rows = rows_of(results_of(lookahead=True), results_of())
    assert [row.label for row in rows] == ["hnet, lookahead=on", "hnet, lookahead=off"]


def test_of_many_options_a_label_has_those_that_tell_the_rows_apart():
    same = {"n_iter": 7, "batch_size": 3, "beta": 0.5, "mlp_arch": [7]}
    runs = [results_of(), results_of(lr=0.5, **same), results_of(lr=0.7, **same)]
    assert [row.label for row in rows_of(*runs)] == [
        "hnet, lr=0.0001", "hnet, lr=0.5", "hnet, lr=0.7",
    ]  # fmt: skip
    hidden = "--batch_size (32, 3), --n_iter (1001, 7), --mlp_arch (100,100, 7)"
    (warning,) = [w for w in warnings_of(*runs) if "labels leave out other options" in w]
    assert all(option in warning for option in hidden.split(", --"))
    assert "--lr" not in warning


def test_an_option_that_a_run_does_not_read_is_no_part_of_its_label():
    rows = rows_of(
        results_of(hnet_type="hmlp", chmlp_chunk_size=7), results_of(hnet_type="hmlp"),
        results_of(beta=0.2), results_of("other", strength=3),
    )  # fmt: skip
    assert [row.label for row in rows] == [
        "hnet, beta=0.01, hnet_type=hmlp",
        "hnet, beta=0.2, hnet_type=chunked_hmlp",
        "other, strength=3",
    ]


def test_an_option_that_an_earlier_version_did_not_know_has_its_default():
    old = results_of(form=1)
    del old["config"]["class_order"], old["config"]["method"]
    assert settings(old) == settings(results_of())
    assert len(rows_of(old, results_of(seeds=[7]))) == 1


def test_scenarios_of_one_method_share_a_row():
    runs = [results_of("other", k, level=90.0 - 10 * k) for k in (3, 1, 2)]
    (row,) = rows_of(*runs)
    assert row.label == "other"
    means = [sum(row.accuracy(f"cl{k}").values.values()) / 6 for k in (1, 2, 3)]
    assert means == pytest.approx([78, 68, 58], abs=1)
    assert [variant.scenario for variant in row.variants] == [1, 2, 3]


def test_a_name_gathers_scenarios_with_other_options_of_the_method():
    runs = [results_of("other", k, strength=k, multi_head=k == 1) for k in (1, 3)]
    assert len(rows_of(*runs)) == 2
    (row,) = rows_of(*runs, names=["Mine", "Mine"])
    assert row.label == "Mine"
    assert row.accuracy("cl2") is None


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ([results_of("a", 1, s=1), results_of("a", 1, s=2)], "the same scenario and differ in --s"),
        ([results_of("a", 1), results_of("a", 2, lr=0.5)], r"differ in --lr \(0.0001, 0.5\)"),
        ([results_of("a", 1), results_of("b", 2)], "several methods, a, b"),
    ],
)
def test_what_cannot_share_a_row_is_refused(runs, words):
    with pytest.raises(InputError, match=f"label Mine .*{words}.*--label"):
        rows_of(*runs, names=["Mine", "Mine"])


def test_outputs_of_ones_own_and_shared_ones_are_told_apart():
    """Both answer CL1 where each task has a network of its own."""
    shared, own = results_of(level=60.0), results_of(scenario=1)
    rows = rows_of(shared, own)
    assert [row.label for row in rows] == ["hnet, multi_head=off", "hnet, multi_head=on"]
    assert differences_beside_method(rows) == "--multi_head (off, on)"
    with pytest.raises(InputError, match=r"label Mine differ in --multi_head \(off, on\)"):
        rows_of(shared, own, names=["Mine", "Mine"])
    assert "--multi_head" in differences_beside_method(rows_of(shared, results_of("other", 1)))
    # but not what is inferred from what is answered directly
    rows = rows_of(results_of(scenario=1, inferred=70.0), results_of("other", 2))
    assert differences_beside_method(rows) == ""


def test_multi_head_is_the_first_scenario():
    by_switch = results_of("other", 1, multi_head=True)
    assert len(rows_of(by_switch, results_of("other", 1, seeds=[7]))) == 1
    (row,) = rows_of(results_of(form=1, multi_head=True), results_of(scenario=1, seeds=[7]))
    assert [*row.accuracy("cl1").values] == [7, *range(42, 48)]


def test_a_name_is_not_taken_for_a_label_that_was_made():
    rows = rows_of(results_of(), results_of(lr=0.5), names=[None, "hnet"])
    assert [row.label for row in rows] == ["hnet (without --label)", "hnet"]


def test_accuracies_with_the_task_inferred_are_marked():
    (row,) = rows_of(results_of(inferred=70.0))
    assert row.accuracy("cl1").by is None
    assert row.accuracy("cl3").by == "entropy"
    assert row.accuracy("cl3").values[42] == pytest.approx(70, abs=1)
    (row,) = rows_of(results_of("other", 3, inferred=70.0), results_of("other"))
    assert row.accuracy("cl3").by is None  # what a run answers directly goes first


def test_a_methods_own_rule_goes_before_the_entropy():
    results = results_of("other", inferred=70.0)
    for seed in results["seeds"]:
        seed["scenarios"]["cl3_tir"] = {"mean": 90.0}
    rows = rows_of(results_of(inferred=60.0), results)
    cells = [row.accuracy("cl3") for row in rows]
    assert [cell.by for cell in cells] == ["entropy", "tir"]
    assert {*cells[1].values.values()} == {90.0}
    assert about_inferred(cells[:1]) == "the task is inferred by entropy"
    assert about_inferred(cells).endswith("by entropy or a network of the method's own (tir)")
    assert about_inferred([rows[0].accuracy("cl1")]) == ""
    results["seeds"][0]["scenarios"]["cl3_tir"] = {"mean": "x"}
    assert not is_comparable(results)


def test_the_earlier_format_is_read():
    (row,) = rows_of(results_of(form=1, inferred=60.0))
    (variant,) = row.variants
    assert (variant.method, variant.scenario, variant.num_trained) == ("hnet", None, 900)
    assert variant.kept_bytes is None
    assert variant.accuracy("cl1").values[42] == variant.seeds[42].entry["final_accuracy"]
    assert variant.accuracy("cl2").by == "entropy"


@pytest.mark.parametrize("damage", [
    {"num_weights": {"main": 3}}, {"seeds": [{"cl1": "x"}]}, {"experiment": 3}, {"method": None},
    {"seeds": [{"cl1": 1.0, "cl2": 1.0, "cl3": None, "forgetting": None, "scenarios": {}}]},
])  # fmt: skip
def test_what_lacks_something_is_not_comparable(damage):
    assert is_comparable(results_of())
    assert not is_comparable(results_of() | damage)


def test_minutes_are_the_share_of_a_seed():
    (variant,), _ = pool(runs_of(results_of(seeds=[1, 2], seconds=240.0),
                                 results_of(seeds=[3], seconds=60.0)))  # fmt: skip
    assert variant.minutes.values == {1: 2.0, 2: 2.0, 3: 1.0}


def test_differences_in_more_than_the_method_are_named():
    rows = rows_of(results_of(), results_of("other", lr=0.5, mlp_arch=[7], strength=3))
    assert differences_beside_method(rows) == "--lr (0.0001, 0.5), --mlp_arch (100,100, 7)"
    rows = rows_of(results_of(), results_of(test_with_val_set=True, beta=3.0, val_iter=7))
    assert differences_beside_method(rows) == "--test_with_val_set (off, on)"
    # other options for another scenario are no difference within a column
    rows = rows_of(results_of("a", 1), results_of("b", 3, lr=0.5))
    assert differences_beside_method(rows) == ""
    assert any("differ in more than the method: --n_iter (1001, 7)" in warning
               for warning in warnings_of(results_of(), results_of("other", n_iter=7)))  # fmt: skip


def test_too_few_seeds_are_warned_of():
    def weak(*numbers):
        rows = [results_of(name, seeds=range(n)) for name, n in zip("abcd", numbers, strict=False)]
        return warnings_of(*rows)

    assert weak(6, 6) == []
    assert weak(5, 5) == [
        "CL1 of b: with n = 5 no p of Wilcoxon's test can be below 0.05, the least is 0.0625 (n = "
        "6 is enough)"
    ]
    assert weak(3, 1) == ["CL1 of b: a single pair of seeds gives neither an interval nor a p"]
    (warning,) = weak(6, 6, 6)
    assert warning.startswith("CL1 of b; c: with n = 6 and Holm's correction over 2 rows")
    assert weak(7, 7, 7) == []


def test_pairs_of_equals_do_not_count_among_those_that_are_enough():
    """Wilcoxon's test drops them: of six pairs, five are too few."""
    first, other = results_of("a"), results_of("b")
    for result in (first, other):
        result["seeds"][0] = {**first["seeds"][0]}
    assert warnings_of(first, other) == [
        "CL1 of b: with 5 pairs that differ (n = 6) no p of Wilcoxon's test can be below 0.05, the "
        "least is 0.0625 (n = 6 is enough)"
    ]
    other["seeds"] = first["seeds"]
    assert warnings_of(first, other) == ["CL1 of b: all pairs are equal"]


@pytest.mark.parametrize("name", ["method", "net_type", "cl_exp"])
def test_what_the_user_has_brought_is_not_executed(name, tmp_path, monkeypatch):
    """And no row has options that its method does not read."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("open('executed', 'w')\nclass Mine: pass\n")
    mine = results_of("mine.py:Mine" if name == "method" else "hnet", hmlp_arch=[7])
    others = [results_of(hmlp_arch=[9]), results_of("ewc", ewc_lambda=3.0)]
    for results in (mine, others[1])[: 1 if name == "method" else 2]:
        results["config"][name] = "mine.py:Mine"
        results["compression_ratio"] = None
        results["config"] |= {"num_tasks": -1} if name == "cl_exp" else {}
    labels = [row.label for row in rows_of(mine, *others)]
    assert settings(mine)[name] == "mine.py:Mine"
    assert "hmlp_arch" not in labels[2]
    assert ("hmlp_arch" in labels[0]) == (name != "method")
    assert not Path("executed").exists()


def test_independent_samples_and_missing_ones_are_told():
    first, other = results_of("a", seeds=[1, 2]), results_of("b", seeds=[3, 4])
    assert warnings_of(first, other) == [
        "CL1 of b: no seed in common: independent samples are compared (Welch), without Wilcoxon's "
        "test"
    ]
    rows = [results_of("a", 1), results_of("b", 3), results_of("c", 3)]
    assert warnings_of(*rows) == ["CL3 of b; c: no difference to a, which has no such number"]


def test_the_sentence_says_n_and_seeds():
    rows = rows_of(results_of("a", seeds=[1]), results_of("b", seeds=[1, 3]))
    compared = compare_rows(rows, [], "").sentence
    assert compared == "splitmnist, 3 tasks, test sets: a (n = 1, seed 1); b (n = 2, seeds 1, 3)"
    rows = rows_of(results_of("a"), results_of("b"))
    compared = compare_rows(rows, [], "").sentence
    assert compared == "splitmnist, 3 tasks, test sets: a; b (each n = 6, seeds 42-47)"


def test_holms_correction_is_over_the_rows_of_a_column():
    rows = rows_of(*(results_of(name, level=90.0 + i) for i, name in enumerate("abc")))
    first, *others = compare_rows(rows, [], "").tested["cl1"]
    assert first.difference is None
    for tested in others:
        assert tested.difference.p_wilcoxon == 2 / 2**6
        assert tested.holm_wilcoxon == 4 / 2**6
        assert tested.holm_t >= tested.difference.p_t
