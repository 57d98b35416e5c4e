"""What is shown of a sweep while it goes."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from hypercl.sweeps import live
from hypercl.sweeps.live import Watch, line_of, states_of, table_of

SWEEP = SimpleNamespace(name="mine", labels=("hnet", "ewc"), metric=SimpleNamespace(name="cl1"))


def entry(number, state, value=None, **options):
    point = SimpleNamespace(number=number, name=None, options=options)
    return SimpleNamespace(point=point, state=state, value=value)


class Search:
    """Points that have ended, as a search has them."""

    def __init__(self, **entries):
        self.of = entries

    def entries(self, label):
        return self.of.get(label, [])

    def num_points(self, label):
        return 60

    def ranked(self, label):
        ended = [e for e in self.entries(label) if e.state == "finished"]
        return sorted(ended, key=lambda e: -e.value)


BEGUN = Search()
GOING = Search(
    hnet=[
        entry(0, "finished", 97.125, beta=0.01234, hmlp_arch="50,50"),
        entry(1, "stopped", 60.0, beta=3.0, hmlp_arch="200"),
        entry(2, "finished", 98.5, beta=0.5, hmlp_arch="200"),
        entry(3, "failed"),
        entry(4, "running"),
    ]
)


def test_how_far_a_method_is(monkeypatch):
    hnet, ewc = states_of(GOING, SWEEP, {"hnet": 1, "ewc": 0}, seconds=30)
    assert (hnet.ended, hnet.num_points, hnet.best) == (4, 60, 98.5)
    assert (hnet.per_minute, hnet.seconds_left) == (6.0, 560.0)
    assert line_of(hnet) == (
        "hnet: 4 of 60 points, 1 stopped, 1 failed, best 98.5 (beta=0.5, hmlp_arch=200), "
        "6 a minute, 0:09:20 left"
    )
    assert (ewc.best, ewc.per_minute, ewc.seconds_left) == (None, None, None)
    assert line_of(ewc) == "ewc: 0 of 60 points"
    monkeypatch.setattr(Search, "num_points", lambda self, label: 4)
    done = states_of(GOING, SWEEP, {"hnet": 1, "ewc": 0}, seconds=30)[0]
    assert (done.per_minute, done.seconds_left) == (None, None)  # a rate would sink from here on


def shown(width, states):
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(table_of(states, SWEEP, at_work=2, seconds=30))
    return console.file.getvalue()


def test_the_table_fits_a_terminal_of_80_columns():
    states = states_of(GOING, SWEEP, {"hnet": 1, "ewc": 0}, seconds=30)
    long = [s._replace(label="a_method_of_a_long_name", options="x=1.234, " * 20) for s in states]
    text = shown(80, [*states, *long])
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "mine, cl1: 2 points under way, 0:00:30"
    assert lines[1].split() == [
        "points", "stopped", "diverged", "failed", "best", "a", "minute", "left"
    ]  # fmt: skip
    assert lines[2].split() == ["hnet", "4/60", "1", "-", "1", "98.5", "6", "0:09:20"]
    assert "hnet: beta=0.5, hmlp_arch=200" in text
    assert "…" in text


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_said_on_a_terminal_and_elsewhere(terminal, monkeypatch):
    monkeypatch.setattr(live, "_TABLE_SECONDS", 0)
    monkeypatch.setattr(live, "_LINE_SECONDS", 0)
    console = Console(width=80, file=io.StringIO(), force_terminal=terminal, color_system=None)
    with Watch(SWEEP, BEGUN, "http://127.0.0.1:8787/status", console) as watch:
        for search in (BEGUN, GOING, GOING):
            watch.changed(search, 2)
        watch.say("point hnet/00003 failed: no luck")
    text = console.file.getvalue()
    assert text.startswith("\x1b[") == terminal  # the table hides the cursor
    assert "the workers can be looked at under http://127.0.0.1:8787/status" in text
    assert "point hnet/00003 failed: no luck" in text
    if terminal:
        assert text.count("mine, cl1: 2 points under way") >= 3
    else:
        assert text.count("hnet: 0 of 60 points") == 1
        assert text.count("hnet: 4 of 60 points, 1 stopped, 1 failed, best 98.5") == 1
