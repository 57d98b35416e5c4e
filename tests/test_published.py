"""The presets, and the comparison of a run with what was published."""

import pytest

from hypercl import published
from train_args import parse_args


@pytest.mark.parametrize("name", published.names())
def test_every_preset_is_a_command_line_that_is_accepted(name):
    preset = published.load(name)
    args = vars(parse_args([f"--preset={name}"]))
    assert args["preset"] == name
    for option, value in preset.options.items():
        if isinstance(value, str) and isinstance(args[option], tuple):
            value = tuple(int(item) for item in value.split(",") if item)
        assert args[option] == value, option
    assert all((preset.experiment, preset.networks, preset.source))
    for value in preset.published:
        assert value.metric in ("cl1", "cl3_entropy")
        assert 30 < value.value < 100
        assert value.printed


def test_options_beside_a_preset_win():
    line = ["--preset=splitmnist-small"]
    assert parse_args(line).lr == 5e-4
    assert parse_args(["--lr=0.1", *line]).lr == 0.1
    assert parse_args([*line, "--lr=0.1", "--mlp_arch=7"]).mlp_arch == (7,)
    args = parse_args(["--preset=splitcifar10-resnet", "--n_iter=3"])
    assert (args.n_iter, args.epochs) == (3, -1)
    assert parse_args(["--preset=splitcifar10-resnet", "--epochs=2"]).epochs == 2


def test_a_run_is_compared_with_what_was_published():
    preset = published.load("paper-splitmnist")
    summary = {
        "cl1": {"mean": 99.2, "std": 0.1, "n": 5},
        "cl3_entropy": {"mean": 68.75, "std": 1.5, "n": 5},
    }
    first, second = published.compare(preset, summary)
    assert first["published"] == 99.79
    assert first["difference"] == pytest.approx(-0.59)
    assert not first["within"]  # half a point is wider than the published spread
    assert second["within"]  # the published spread, 0.8, is wider than half a point
    assert (second["std"], second["n"]) == (1.5, 5)
    assert published.compare(preset, {}) == []
    assert published.compare(published.load("paper-permmnist-100"), summary) == []


def test_no_preset_of_that_name():
    with pytest.raises(KeyError):
        published.load("../splitmnist-small")


def test_the_list_shows_every_preset(capsys):
    with pytest.raises(SystemExit) as exit_info:
        parse_args(["--list_presets"])
    assert exit_info.value.code == 0
    shown = capsys.readouterr().out
    for name in published.names():
        assert name in shown
        (line,) = [line for line in shown.splitlines() if line.split()[:1] == [name]]
        networks = published.load(name).networks
        assert networks in line
    assert "99.79 ± 0.01" in shown
