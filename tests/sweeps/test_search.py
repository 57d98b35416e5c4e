"""What is tried next: the same whatever the order of results and whenever the process is killed."""

import json
import math
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.storages.journal import JournalFileBackend

from hypercl.errors import InputError, InputErrors
from hypercl.measure import ERROR
from hypercl.sweeps.search import Entry, Search
from hypercl.sweeps.space import Domain, Space, When, frozen
from hypercl.sweeps.spec import Point, Searched, Sweep
from hypercl.sweeps.values import Value, metric_named

BETA, LR = Domain(None, 1e-4, 10.0, log=True), Domain(None, 1e-5, 1e-2, log=True)
SPACE = Space(
    {"beta": BETA, "lr": LR, "net": Domain(("a", "b"))},
    (When({"net": ("b",)}, {"width": Domain(None, 1, 64, log=True, is_int=True)}),),
)


def a_sweep(space=SPACE, points=12, named=None, labels=("m",), **changes):
    searched = tuple(Searched(label, (), space, named or {}, points, 5) for label in labels)
    sweep = Sweep(
        path=Path("f.toml"), name="s", options=("--n_iter=5",), seeds=3, first_seed=42,
        metric=metric_named("cl1"), search="tpe", seed=0, stop="none", together=None, at_once=None,
        chooses=True, retest=3, retest_seeds=3, searched=searched,
    )  # fmt: skip
    return replace(sweep, **changes)


def a_list(**named):
    return a_sweep(Space({}), None, named, search="list")


def goal(options):
    """The best is beta = 0.1 and lr = 0.001."""
    distance = (math.log10(options["beta"]) + 1) ** 2 + 5 * (math.log10(options["lr"]) + 3) ** 2
    return 100 - distance - (options.get("net") == "a")


def measured(point, num_tasks=5):
    noise = random.Random(f"{point.number} {num_tasks}").gauss(0, 0.3)
    return Value(goal(point.options) + noise, 0.1, 3, diverged=False)


def advance(search, point):
    """Take a point as far as it can go at once: to a decision, a rung, or its end."""
    entry = search.entries(point.label)[point.number]
    if entry.rungs and max(entry.rungs) not in entry.decisions:
        if search.decide(point) == "stop":
            search.tell(point, "stopped")
        return
    if "stop" in entry.decisions.values():  # killed before it was told
        search.tell(point, "stopped")
        return
    left = [rung for rung in search.sweep.rungs(point.label) if rung not in entry.rungs]
    if left:
        search.report(point, left[0], measured(point, left[0]))
    elif point.number % 7 == 3:
        search.tell(point, "diverged", message="the loss is not finite")
    else:
        search.tell(point, "finished", measured(point))


def play(search, order=None, label="m"):
    """Run all points, the one that goes on next drawn by ``order``; without it, the first."""
    for _ in range(10_000):
        while search.next(label) is not None:
            pass
        if search.done(label):
            return seen(search, label)
        pending = search.pending(label)
        for point in (order.sample(pending, len(pending)) if order else pending)[:2]:
            advance(search, point)
    raise AssertionError("it does not end")


def seen(search, label="m"):
    return [replace(entry, trial=0) for entry in search.entries(label)]


def opened(journal, sweep, **how):
    return Search.open(journal, sweep, **{"at_once": 3, **how})


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda file: None)


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "journal.log"


@pytest.mark.parametrize("how", ["qmc", "tpe"])
def test_points_do_not_depend_on_which_result_comes_first(how, tmp_path):
    sweep = a_sweep(search=how, stop="halving", points=16)
    expected = play(opened(tmp_path / "first", sweep))
    assert len({frozen(entry.point.options) for entry in expected}) == 16
    assert {entry.state for entry in expected} == {"finished", "stopped", "diverged"}
    for i in range(2):
        assert play(opened(tmp_path / str(i), sweep), random.Random(i)) == expected


def test_a_point_is_told_those_before_the_ones_at_work_and_no_others(tmp_path):
    sweep = a_sweep(points=20)

    def point_15(changed):
        search = opened(tmp_path / f"{changed}", sweep, at_once=4)
        for number in range(16):
            point = search.next("m")
            assert point.number == number
            bonus = 50 if number == changed else 0
            search.tell(point, "finished", Value(goal(point.options) + bonus, 0.1, 3, False))
        return search.entries("m")[15].point

    unchanged = point_15(None)
    assert point_15(12) == unchanged
    assert point_15(10) != unchanged


def test_it_waits_for_results_and_asks_for_blocks_whole(journal):
    search = opened(journal, a_sweep(), at_once=4, block=2)
    points = [search.next("m") for _ in range(4)]
    assert search.next("m") is None
    assert search.pending("m") == points
    search.tell(points[0], "finished", measured(points[0]))
    search.tell(points[3], "finished", measured(points[3]))
    assert search.next("m") is None  # the first block is not told
    search.tell(points[1], "failed", message="no such file")
    assert [search.next("m").number for _ in range(2)] == [4, 5]
    assert search.next("m") is None
    assert not search.done("m")


def test_other_searches_wait_for_nothing_but_a_free_place(journal):
    search = opened(journal, a_sweep(search="random"), at_once=2)
    points = [search.next("m") for _ in range(2)]
    assert search.next("m") is None
    search.tell(points[1], "finished", measured(points[1]))
    assert search.next("m").number == 2


def test_what_is_at_work_at_once_is_kept(journal):
    assert opened(journal, a_sweep(), at_once=3, block=4).at_once == 4
    again = opened(journal, a_sweep(), at_once=9, block=1)
    assert (again.at_once, again.block) == (4, 4)
    assert opened(journal.parent / "of the file", a_sweep(at_once=6), at_once=2).at_once == 6


def test_a_kill_at_any_line_changes_nothing(tmp_path):
    """The journal is cut behind each of its lines, and within one at each byte."""
    sweep = a_sweep(search="qmc", stop="halving", points=6)
    expected = play(opened(tmp_path / "whole", sweep))
    lines = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    assert len(lines) > 20
    cut = tmp_path / "cut"
    for number in range(len(lines)):
        cut.write_bytes(b"".join(lines[:number]) + lines[number][: len(lines[number]) // 2])
        assert play(opened(cut, sweep)) == expected, number
    before, last = b"".join(lines[:9]), lines[9]
    known = None
    for length in range(len(last)):
        cut.write_bytes(before + last[:length])
        known = known or seen(opened(cut, sweep))
        assert seen(opened(cut, sweep)) == known
        assert cut.read_bytes() == before
    cut.write_bytes(before + b"\0\0\0\n")  # after a loss of power
    assert seen(opened(cut, sweep)) == known


def test_a_kill_changes_no_choice_of_tpe(tmp_path):
    sweep = a_sweep(stop="halving", points=15)
    expected = play(opened(tmp_path / "whole", sweep))
    lines = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    cut = tmp_path / "cut"
    for number in range(30, len(lines), 12):
        cut.write_bytes(b"".join(lines[:number]))
        assert play(opened(cut, sweep)) == expected, number


def test_tpe_learns(tmp_path):
    """It comes nearer to the best than points at random, with as many of them."""

    def regret(how, seed):
        search = opened(tmp_path / f"{how}{seed}", a_sweep(search=how, seed=seed, points=36))
        play(search)
        values = [entry.value for entry in search.entries("m")[18:] if entry.state == "finished"]
        return 100 - sum(values) / len(values)

    tpe, at_random = (sum(regret(how, s) for s in range(2)) / 2 for how in ("tpe", "random"))
    assert tpe < at_random / 2


def test_less_may_be_better(journal):
    metric = metric_named("final_error", ERROR)
    search = opened(journal, a_sweep(points=3, metric=metric))
    for value in (0.5, 0.2, math.inf):
        point = search.next("m")
        search.tell(point, "finished", Value(value, 0.1, 3, diverged=value == math.inf))
    assert [entry.value for entry in search.ranked("m")] == [0.2, 0.5]
    again = opened(journal, a_sweep(points=3, metric=metric))
    assert again.entries("m")[2].state == "diverged"
    assert again.entries("m")[2].value == math.inf
    assert again.study("m").best_value == 0.2


def test_qmc_covers_the_space_more_evenly_than_chance(journal):
    search = opened(journal, a_sweep(search="qmc", points=32), at_once=32)
    points = [search.next("m") for _ in range(32)]
    for name, domain in (("beta", BETA), ("lr", LR)):
        low, high = map(math.log, domain.ends)
        places = [(math.log(p.options[name]) - low) / (high - low) for p in points]
        counts = [sum(int(8 * place) == part for place in places) for part in range(8)]
        assert counts == [4] * 8
    assert sum(point.options["net"] == "a" for point in points) == 16


def test_numbers_are_as_they_are_printed_and_in_their_range(journal):
    edges = Domain(None, 0.12345678, 0.1234567801)
    space = Space({"lr": LR, "x": edges, "n": Domain(None, 3, 5, is_int=True)})
    search = opened(journal, a_sweep(space, search="random"), at_once=12)
    for _ in range(12):
        options = search.next("m").options
        assert options["lr"] == float(f"{options['lr']:.4g}")
        assert edges.low <= options["x"] <= edges.high
        assert options["n"] in (3, 4, 5)
        assert type(options["n"]) is int


def test_a_grid_has_each_point_once_and_goes_on_where_it_grows(journal):
    when = (When({"net": ("b",)}, {}, without=("lr",)),)
    small = a_sweep(Space({"net": Domain(("a", "b")), "lr": Domain((1, 2))}, when), None)
    small = replace(small, search="grid")
    search = opened(journal, small)
    assert search.num_points("m") == 3
    assert None not in [search.next("m") for _ in range(3)]
    options = [dict(entry.point.options) for entry in search.entries("m")]
    assert options == [{"net": "a", "lr": 1}, {"net": "a", "lr": 2}, {"net": "b"}]
    grown = Space({"net": Domain(("b", "c", "a")), "lr": Domain((0, 1, 2))}, when)
    search = opened(journal, replace(small, searched=(Searched("m", (), grown, {}, None, 5),)))
    for point in search.pending("m"):
        search.tell(point, "finished", Value(1.0, None, 1, diverged=False))
    while (point := search.next("m")) is not None:
        search.tell(point, "finished", Value(2.0, None, 1, diverged=False))
    assert [dict(entry.point.options) for entry in search.entries("m")][3:] == [
        {"net": "c", "lr": 0}, {"net": "c", "lr": 1}, {"net": "c", "lr": 2}, {"net": "a", "lr": 0}
    ]  # fmt: skip
    assert search.done("m")


def test_a_list_goes_on_with_new_names(journal):
    search = opened(journal, a_list(weak={"lr": 1}, strong={"lr": 2, "beta": 0}))
    points = [search.next("m") for _ in range(2)]
    assert search.next("m") is None
    assert points[1] == Point("m", 1, {"lr": 2, "beta": 0}, "strong")
    search = opened(journal, a_list(new={"lr": 3}, strong={"lr": 2, "beta": 0}, weak={"lr": 1}))
    assert search.next("m") == Point("m", 2, {"lr": 3}, "new")
    assert search.pending("m")[:2] == points
    assert len(search.study("m").trials) == 3


def test_a_space_of_few_points_is_not_searched_twice(journal):
    space = Space({"x": Domain(("a", "b", "c")), "y": Domain((1, 2))})
    search = opened(journal, a_sweep(space, points=50, search="random"), at_once=50)
    assert search.num_points("m") == 6
    points = [search.next("m").options for _ in range(6)]
    assert len({frozen(options) for options in points}) == 6
    assert search.next("m") is None


def test_methods_are_searched_on_their_own(journal):
    both = a_sweep(labels=("m", "other"), search="random")
    search = opened(journal, both)
    first = play(search)
    assert search.entries("other") == []
    assert not search.done("other")
    assert search.next("other").options != first[0].point.options
    alone = opened(journal.parent / "alone", a_sweep(search="random"))
    assert play(alone) == first  # a method more changes nothing
    again = opened(journal.parent / "alone", both)
    assert (seen(again), seen(again, "other")) == (first, [])


def test_the_better_half_goes_on_in_order_of_numbers(journal):
    sweep = a_sweep(search="random", stop="halving", points=6)
    search = opened(journal, sweep, at_once=6)
    points = [search.next("m") for _ in range(6)]

    def report(number, value, rung=1):
        search.report(points[number], rung, Value(value, None, 1, diverged=False))

    assert search.decide(points[0]) is None  # nothing to decide on
    report(1, 90.0)
    report(4, 99.0)
    assert search.decide(points[1]) is None
    report(0, 80.0)
    report(0, 10.0)  # again: no change
    assert search.decide(points[1]) == "go on"
    assert search.decide(points[0]) == "go on"  # the first, with nothing to compare it with
    search.tell(points[2], "diverged")
    assert search.decide(points[4]) is None
    search.tell(points[3], "failed", message="a bug")
    assert search.decide(points[4]) == "go on"
    report(5, 85.0)
    again = opened(journal, sweep)
    assert again.decide(points[5]) == "stop"  # the third of 80, 90, 0, 99, 85
    assert again.decide(points[4]) == "go on"
    again.tell(points[5], "stopped")
    again.tell(points[5], "stopped")
    entry = again.entries("m")[5]
    assert (entry.state, entry.value, entry.decisions) == ("stopped", 85.0, {1: "stop"})
    assert seen(opened(journal, sweep)) == seen(again)


def test_decisions_are_those_of_a_plain_halving(journal):
    """At each rung, of a point and those before it the better half goes on, the first always."""
    sweep = a_sweep(search="random", stop="halving", points=40)
    entries = play(opened(journal, sweep, at_once=5), random.Random(0))
    for rung in (1, 2, 4):
        so_far = []
        for entry in entries:
            reached = rung in entry.rungs
            lost_here = entry.state == "diverged" and len(entry.rungs) == (1, 2, 4).index(rung)
            if not reached and not lost_here:
                continue
            so_far.append(entry.rungs[rung] if reached else 0.0)
            better = sum(value > so_far[-1] for value in so_far)
            if reached:
                goes_on = better < max(1, len(so_far) // 2)
                assert entry.decisions[rung] == ("go on" if goes_on else "stop")


def test_failed_points_may_be_tried_again_and_have_come_as_far_as_before(journal):
    sweep = a_sweep(search="random", stop="halving", points=2)
    search = opened(journal, sweep)
    points = [search.next("m") for _ in range(2)]
    for point, value in zip(points, (50.0, 60.0), strict=True):
        search.report(point, 1, Value(value, None, 1, diverged=False))
        assert search.decide(point) == "go on"
    search.tell(points[0], "failed", message="the disk is full")
    search.tell(points[1], "finished", measured(points[1]))
    assert search.done("m")
    assert search.entries("m")[0].message == "the disk is full"
    search = opened(journal, sweep)
    assert search.retry_failed("m") == [points[0]] == search.pending("m")
    assert search.retry_failed("m") == []
    entry = opened(journal, sweep).entries("m")[0]
    assert (entry.state, entry.attempt, entry.rungs) == ("running", 2, {1: 50.0})
    assert search.decide(points[0]) == "go on"
    search.tell(points[0], "finished", measured(points[0]))
    assert [e.point.number for e in opened(journal, sweep).entries("m")] == [0, 1]
    assert len(search.ranked("m")) == 2


def test_a_point_that_fails_before_its_decision_has_it_when_it_is_tried_again(journal):
    search = opened(journal, a_sweep(search="random", stop="halving", points=3))
    points = [search.next("m") for _ in range(3)]
    for point, value in zip(points, (70.0, 60.0, 80.0), strict=True):
        search.report(point, 1, Value(value, None, 1, diverged=False))
    search.tell(points[1], "failed")
    assert search.decide(points[2]) == "go on"
    search.retry_failed("m")
    assert search.decide(points[1]) == "stop"
    assert search.decide(points[2]) == "go on"


def told(journal, *values, sem=0.5, **changes):
    sweep = a_sweep(search="random", points=len(values), **changes)
    search = opened(journal, sweep, at_once=len(values))
    for value in values:
        point = search.next("m")
        state = "finished" if value is not None else "diverged"
        search.tell(point, state, None if value is None else Value(value, sem, 3, diverged=False))
    return search


def test_the_best_and_its_runners_up_are_chosen(journal):
    search = told(journal, 98.0, 99.0, None, 98.6, 99.0, 98.5)
    assert [entry.point.number for entry in search.ranked("m")] == [1, 4, 3, 5, 0]
    assert [entry.point.number for entry in search.chosen("m")] == [1, 4, 3]
    for retest, number in ((1, 1), (0, 0), (9, 4)):
        search.sweep = replace(search.sweep, retest=retest)
        assert len(search.chosen("m")) == number


def test_without_a_standard_error_none_is_excluded(journal):
    assert len(told(journal, 98.0, 50.0, 97.0, 10.0, sem=None).chosen("m")) == 3
    assert told(journal.parent / "none", None).chosen("m") == []


def test_a_point_ends_with_what_it_must_have(journal):
    search = opened(journal, a_sweep())
    point = search.next("m")
    for state in ("finished", "done"):
        with pytest.raises(ValueError, match=f"cannot end as {state}"):
            search.tell(point, state)
    assert search.pending("m") == [point]


def extended(before=SPACE, after=SPACE, journal=None, **changes):
    """A sweep of which two points were asked, opened again with other settings."""
    search = opened(journal, a_sweep(before, search="random"))
    for _ in range(2):
        search.next("m")
    return opened(journal, replace(a_sweep(after, search="random"), **changes))


def test_a_sweep_goes_on_where_the_space_grew_and_the_points_rose(journal):
    wider = {"beta": Domain(None, 1e-9, 10.0, log=True), "net": Domain(("c", "b", "a")), "lr": LR}
    search = extended(SPACE, Space(wider, SPACE.when), journal, retest=7, name="another")
    assert search.num_points("m") == 12
    play(search)
    more = a_sweep(Space(wider, SPACE.when), points=20, search="random")
    assert len(play(opened(journal, more))) == 20
    assert json.loads(journal.read_bytes().splitlines()[-1])  # whole lines


@pytest.mark.parametrize(
    ("space", "changes", "words"),
    [
        ({"beta": BETA, "lr": LR}, {}, "net of m has been searched, and is gone"),
        ({**SPACE.domains, "x": LR}, {}, "x of m is new, and earlier points have no value"),
        ({**SPACE.domains, "net": Domain(("b",))}, {}, "net of m has lost values"),
        ({**SPACE.domains, "lr": Domain(None, 1e-4, 1.0, log=True)}, {}, "lr of m has lost"),
        ({**SPACE.domains, "lr": Domain(None, 1e-5, 1e-2)}, {}, "lr of m has lost values"),
        ({**SPACE.domains, "lr": Domain((1e-5,))}, {}, "lr of m has lost values"),
        (None, {"metric": metric_named("forgetting")}, "metric of m was cl1, and is forgetting"),
        (None, {"seeds": 5}, "seeds of m was 3, and is 5: put it back, or choose another --out_d"),
        (None, {"seed": 1}, "seed of m was 0, and is 1"),
        (None, {"stop": "halving"}, "stop of m was none, and is halving"),
        (None, {"options": ()}, "options of m was --n_iter=5, and is not given"),
        (None, {"options": ("--n_iter=5", "--lr=1")}, "options of m was not given, and is"),
        (None, {"at_once": 8}, "at_once was 3, and is 8"),
        (None, {"search": "tpe"}, "search of m was random, and is tpe"),
        (None, {"first_seed": 7}, "first_seed of m was 42, and is 7"),
    ],
)
def test_a_file_that_contradicts_is_refused(journal, space, changes, words):
    after = SPACE if space is None else Space(space, SPACE.when)
    with pytest.raises(InputErrors) as refused:
        extended(SPACE, after, journal, **changes)
    assert f"f.toml: {words}" in str(refused.value)
    assert len(seen(opened(journal, a_sweep(search="random")))) == 2  # nothing was written


def test_other_contradictions(journal):
    def refused(sweep, words):
        with pytest.raises(InputErrors, match=words):
            opened(journal, sweep)

    play(opened(journal, a_sweep(search="random", points=5)))
    refused(a_sweep(search="random", points=4), "= 4 are fewer than the 5 that have been tried")
    refused(a_sweep(search="random", labels=("n",)), "m has been searched, and is gone")
    refused(a_sweep(Space(SPACE.domains), search="random"), "the conditions of m have changed")
    journal.unlink()
    opened(journal, a_list(a={"lr": 1}, b={"lr": 2})).next("m")
    refused(a_list(b={"lr": 2}), "point a of m has been tried, and has changed")
    refused(a_list(a={"lr": 7}, b={"lr": 2}), "point a of m has been tried, and has changed")
    journal.unlink()
    grid = a_sweep(Space({"lr": Domain((1, 2))}), None, search="grid")
    opened(journal, grid).next("m")
    refused(a_sweep(Space({"lr": Domain((2, 3))}), None, search="grid"), "lr=1 of m has been tried")
    data = journal.read_bytes()
    journal.write_bytes(data.replace(b'"format":1', b'"format":9'))
    refused(grid, "is of another version")


def test_options_that_change_no_result_may_change(journal):
    sweep = a_sweep(search="random")
    opened(journal, sweep).next("m")
    opened(journal, replace(sweep, options=("--ckpt_iter=9", "--n_iter=5"))).next("m")
    assert len(opened(journal, sweep).entries("m")) == 2


def test_a_full_disk_leaves_the_journal_as_it_was(journal, monkeypatch):
    sweep = a_sweep()
    search = opened(journal, sweep)
    point = search.next("m")
    before = journal.read_bytes()

    def half(self, logs):
        with open(self._file_path, "ab") as file:
            file.write(b'{"op_code":')
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(JournalFileBackend, "append_logs", half)
        with pytest.raises(OSError, match="No space left"):
            search.tell(point, "finished", measured(point))
    assert journal.read_bytes() == before
    assert opened(journal, sweep).pending("m") == [point]


def test_a_journal_may_be_looked_at_while_it_grows(journal):
    sweep = a_sweep()
    with pytest.raises(InputError, match="does not exist"):
        Search.look(journal, sweep)
    search = opened(journal, sweep)
    point = search.next("m")
    with journal.open("ab") as file:
        file.write(b'{"op_code": 4')  # a line that is being written
    data = journal.read_bytes()
    looked = Search.look(journal, sweep)
    assert looked.pending("m") == [point]
    assert (looked.at_once, looked.path) == (3, journal)
    with pytest.raises(RuntimeError, match="opened to be read"):
        looked.tell(point, "finished", measured(point))
    assert journal.read_bytes() == data


def test_a_damaged_journal_is_named(journal):
    search = opened(journal, a_sweep())
    for _ in range(3):
        search.next("m")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:2], b"{]\n", *lines[3:]]))
    with pytest.raises(InputError, match=r"journal\.log is damaged"):
        opened(journal, a_sweep())


def test_the_study_has_the_domains_of_now(journal):
    search = extended(SPACE, SPACE, journal)
    play(search)
    study = search.study("m")
    assert len(study.trials) == 12
    assert study.best_value == search.ranked("m")[0].value
    distributions = [trial.distributions["net"] for trial in study.trials]
    assert all(distribution.choices == ("a", "b") for distribution in distributions)
    states = {trial.state.name for trial in study.trials}
    assert states == {"COMPLETE"}


def test_a_thousand_points_stay_fast(journal):
    search = opened(journal, a_sweep(points=1000), at_once=4)
    drawn = random.Random(0)
    for number in range(500):
        options = {"beta": round(10 ** drawn.uniform(-4, 1), 9), "lr": 1e-3, "net": "a"}
        entry = Entry(Point("m", number, options), "finished", goal(options), 0.1, {}, "", 1, {}, 0)
        search._note(entry)
    seconds = []
    for number in (500, 501):
        started = time.process_time()
        assert search.next("m").number == number
        seconds.append(time.process_time() - started)
    assert min(seconds) < 0.3
