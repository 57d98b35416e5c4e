"""The presets, and the comparison of a run with what was published."""

import math
import random
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import pytest

from hypercl import presets
from hypercl.measure import measure_of
from hypercl.report.metrics import summarize
from hypercl.report.screen import Screen
from hypercl.report.summary import show_published
from train_args import altered_options, parse_args

TABLE = Path(__file__).parent.parent.joinpath("docs", "published.rst").read_text()
MEASURED = [name for name in presets.names() if presets.measured(name) is not None]


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_a_command_line_that_is_accepted(name):
    preset = presets.load(name)
    values = parse_args([f"--preset={name}"]).values
    assert values["preset"] == name
    for option, value in preset.options.items():
        if isinstance(value, str) and isinstance(values[option], list):
            value = [int(item) for item in value.split(",") if item]
        assert values[option] == value, option
    assert all((preset.experiment, preset.networks, preset.source))
    for value in preset.published:
        if preset.measure == "mse":
            assert value.metric == "final_error"
            assert 0 < value.value < 0.1
        else:
            direct = ("cl1", "cl2", "cl3")
            assert value.metric in (*direct, "cl2_entropy", "cl3_entropy", "cl2_tir", "cl3_tir")
            assert 10 < value.value < 100
        assert value.printed
        assert (value.sem is None) == (value.n == 1)
        assert value.n == 1 or not value.best_of_search
    assert len({(value.n, value.best_of_search) for value in preset.published}) <= 1


def test_options_beside_a_preset_win():
    line = ["--preset=splitmnist-small"]
    assert parse_args(line).train.lr == 5e-4
    assert parse_args(["--lr=0.1", *line]).train.lr == 0.1
    assert parse_args([*line, "--lr=0.1", "--mlp_arch=7"]).main_net.kind.mlp_arch == (7,)
    train = parse_args(["--preset=splitcifar10-resnet", "--n_iter=3"]).train
    assert (train.n_iter, train.epochs) == (3, None)
    assert parse_args(["--preset=splitcifar10-resnet", "--epochs=2"]).train.epochs == 2


def test_a_run_is_compared_with_what_was_published():
    preset = presets.load("paper-splitmnist")
    summary = {
        "cl1": {"mean": 99.2, "std": 0.1, "n": 5},
        "cl3_entropy": {"mean": 67.5, "std": 1.5, "n": 5},
    }
    first, second = presets.compare(preset, summary)
    assert first["published"] == 99.79
    assert first["difference"] == pytest.approx(-0.59)
    assert first["standard_errors"] == pytest.approx(-0.59 / math.hypot(0.01, 0.1 / math.sqrt(5)))
    assert not first["within"]
    assert second["within"]  # 1.98 by a standard error of 1.04
    assert (second["std"], second["n"]) == (1.5, 5)
    assert (second["published_sem"], second["published_n"]) == (0.8, 20)
    assert presets.compare(preset, {}) == []
    assert presets.compare(presets.load("paper-permmnist-100"), summary) == []


def test_single_runs_are_taken_to_spread_as_the_other_side():
    mean = presets.Value("cl1", 90.0, "here", sem=0.5, n=16)
    single = presets.Value("cl1", 90.0, "here")
    # As in the variance of a mean's difference to one more draw: s² / n + s².
    assert presets.standard_error(single, 2.0, 4) == pytest.approx(math.sqrt(2**2 / 4 + 2**2))
    assert presets.standard_error(mean, None, 1) == pytest.approx(math.sqrt(0.5**2 + 2**2))
    assert presets.standard_error(single, None, 1) is None
    assert presets.standard_error(single, 0.0, 3) is None  # nothing is known of the spread
    assert presets.standard_error(mean, 0.0, 3) == 0.5


def test_the_same_experiment_published_twice_is_mostly_within():
    """Draws from one distribution: as often outside as Student's t with n - 1 degrees says."""
    preset, draw = presets.load("splitmnist-small"), random.Random(0)
    verdicts = []
    for _ in range(2000):
        published = [presets.Value("cl1", draw.gauss(70, 3), "here")]
        ours = summarize([draw.gauss(70, 3) for _ in range(5)])
        (row,) = presets.compare(replace(preset, published=published), {"cl1": ours})
        verdicts.append(row["within"])
    assert verdicts.count(False) / 2000 == pytest.approx(0.116, abs=0.02)


@pytest.mark.parametrize(
    ("name", "off_by", "verdict"),
    [
        ("paper-splitmnist", ["-5.0", "-5.1"], "outside"),
        ("splitmnist-large", ["-0.1", "-1.2"], "within"),
    ],
)
def test_the_screen_says_by_how_many_standard_errors(name, off_by, verdict, capsys):
    results = presets.measured(name)
    rows = presets.compare(presets.load(name), results["summary"])
    show_published(Screen(lambda line: None), name, rows)
    shown = capsys.readouterr().out
    for text in off_by:
        assert f"{text}, {verdict} two" in shown
    assert presets.kind(rows[0]["published_n"], best_of_search=rows[0]["best_of_search"]) in shown


def test_what_an_earlier_version_compared_shows_its_own_verdict(capsys):
    rows = presets.measured("paper-splitmnist")["published"]
    assert "spread" in rows[0]
    show_published(Screen(lambda line: None), "paper-splitmnist", rows)
    shown = capsys.readouterr().out
    assert "within by an earlier rule" in shown
    assert "outside by an earlier rule" in shown


def test_two_single_runs_say_nothing(capsys):
    rows = presets.compare(
        presets.load("permmnist-large"), {"cl1": {"mean": 90.0, "std": None, "n": 1}}
    )
    assert rows[0]["within"] is None
    show_published(Screen(lambda line: None), "permmnist-large", rows)
    assert "unknown" in capsys.readouterr().out


def test_no_preset_of_that_name():
    with pytest.raises(KeyError):
        presets.load("../splitmnist-small")


def test_the_list_shows_every_preset(capsys):
    with pytest.raises(SystemExit) as exit_info:
        parse_args(["--list_presets"])
    assert exit_info.value.code == 0
    shown = capsys.readouterr().out
    for name in presets.names():
        assert name in shown
        (line,) = [line for line in shown.splitlines() if line.split()[:1] == [name]]
        networks = presets.load(name).networks
        assert networks in line
    assert "99.79 / 69.48, mean of 20 runs" in shown  # the ± is kept for standard deviations
    assert "99.91 / 82.75, best of a search" in shown
    assert "CL2 87.01, mean of 20 runs" in shown
    assert "99.67 ± 0.10 / 63.14 ± 4.19, n = 20" in shown
    assert "-5.0 / -5.1" in " ".join(shown.split())
    assert "± standard deviation over n" in shown


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_the_list_fits_the_terminal(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        parse_args(["--list_presets"])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= columns
    assert "…" not in shown


@pytest.mark.parametrize("name", MEASURED)
def test_what_was_measured_is_of_the_preset_as_it_is_now(name):
    results = presets.measured(name)
    assert results["status"] == "finished"
    options = parse_args([], results["config"])
    assert options.run.preset == name
    assert altered_options(options) == []


@pytest.mark.parametrize("name", MEASURED)
def test_the_table_says_what_was_measured(name):
    results = presets.measured(name)
    lines = TABLE.split(f"* - {name}\n", 1)[1].splitlines()
    row = takewhile(lambda line: line.startswith("- "), map(str.strip, lines))
    cells = [line.removeprefix("- ") for line in row]
    compared = presets.compare(presets.load(name), results["summary"])
    by_metric, expected = {found["metric"]: found for found in compared}, []
    text = measure_of(results).text
    accuracies = ("cl1", "cl3_entropy")
    for metric in accuracies if by_metric.keys() & set(accuracies) else by_metric:
        if metric not in by_metric:  # nothing was published
            expected += ["none", "none", "none"]
            continue
        found = by_metric[metric]
        sem = f" ± {text(found['published_sem'])}" if found["published_sem"] else ""
        std = f" ± {text(found['std'])}" if found["n"] > 1 else ""
        off = found["standard_errors"]
        expected += [f"{text(found['published'])}{sem}", f"{text(found['measured'])}{std}"]
        expected += ["unknown" if off is None else f"{off:+.1f}"]
    n, minutes = results["summary"]["cl1"]["n"], results["seconds"]["total"] / 60
    assert cells == [*expected, str(n), f"{minutes:.0f}"]
