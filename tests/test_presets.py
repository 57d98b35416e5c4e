"""The presets, and the comparison of a run with what was published."""

from itertools import takewhile
from pathlib import Path

import pytest

from hypercl import presets
from hypercl.measure import measure_of
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
            assert value.metric in ("cl1", "cl2", "cl3", "cl3_entropy")
            assert 10 < value.value < 100
        assert value.printed


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
        "cl3_entropy": {"mean": 68.75, "std": 1.5, "n": 5},
    }
    first, second = presets.compare(preset, summary)
    assert first["published"] == 99.79
    assert first["difference"] == pytest.approx(-0.59)
    assert not first["within"]  # half a point is wider than the published spread
    assert second["within"]  # the published spread, 0.8, is wider than half a point
    assert (second["std"], second["n"]) == (1.5, 5)
    assert presets.compare(preset, {}) == []
    assert presets.compare(presets.load("paper-permmnist-100"), summary) == []


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
    assert "99.79 / 69.48" in shown  # without the spread, which may be a standard error
    assert "99.67 ± 0.10 / 63.14 ± 4.19, n = 20" in shown
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
            expected += ["none", "none"]
            continue
        found = by_metric[metric]
        spread = f" ± {text(found['spread'])}" if found["spread"] else ""
        std = f" ± {text(found['std'])}" if found["n"] > 1 else ""
        expected += [f"{text(found['published'])}{spread}", f"{text(found['measured'])}{std}"]
    n, minutes = results["summary"]["cl1"]["n"], results["seconds"]["total"] / 60
    assert cells == [*expected, str(n), f"{minutes:.0f}"]
