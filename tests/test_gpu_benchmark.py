"""benchmarks/gpu.py where there is no GPU: all its parts with tiny sizes, stops, failures, time."""

import os
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers import read_json

from benchmarks import gpu, gpu_parts
from benchmarks.gpu import PARTS, Part, measure_all
from benchmarks.gpu_parts import FULL, TINY, LeftOut

FACTS = {"card": "a card", "torch": "2", "commit": "c"}
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="for the CPU")


def quick(sizes, share, say, *, name):
    say({"name": name, "share": share})


def fails(sizes, share, say):
    say({"came": 1})
    raise ValueError("no such thing")


def dies(sizes, share, say):
    os._exit(7)


def hangs(sizes, share, say):
    say({"came": 1})
    child = os.fork()  # what it began is stopped with it
    say({"pid": child or os.getpid()})
    time.sleep(600)


def is_not_there(sizes, share, say):
    raise LeftOut("there is no data")


def runs(pid):
    """Whether there is such a process that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def part(name, measure=None, seconds=1.0, least=1.0):
    return Part(name, measure or partial(quick, name=name), lambda *_: seconds, least)


def test_all_parts_run_on_a_cpu(tmp_path):
    """In this process, which has torch already; the tests are those of a file of two."""
    few = tmp_path / "test_few.py"
    few.write_text("def test_one():\n    pass\n\ndef test_two():\n    assert 1 == 2\n")
    sizes = TINY._replace(tests=(str(few),), data_dir=str(tmp_path))
    rows = {}
    for name, measure, *_ in PARTS[:-1]:
        rows[name] = []
        measure(sizes, 1.0, rows[name].append)
    assert rows["tests"][0] == {"exit": 1, "passed": 1, "failed": 1}
    assert any("test_two" in row["said"] for row in rows["tests"][1:])
    for name in ("default steps", "permmnist-large steps"):
        assert [row["earlier"] for row in rows[name]] == list(TINY.earlier)
        assert all(min(row["captured ms"], row["plain ms"]) > 0 for row in rows[name])
    assert [row["seeds"] for row in rows["seeds"]] == list(TINY.seeds)
    assert [row["precision"] for row in rows["ResNet-32 steps"]] == ["float32", "amp"]
    # On a CPU, both ways are the same.
    assert all(row["apart"] == 0 for of_part in rows.values() for row in of_part if "apart" in row)
    assert [row["way"] for row in rows["default job"]] == ["run.py", "plain loop"]
    assert rows["permmnist-large"][0]["accuracy"] > 0
    assert [p.name for p in PARTS][-1] == "splitcifar10-resnet"


def test_without_cifar_its_part_is_left_out(tmp_path, monkeypatch):
    def missing(name, data_dir):
        raise gpu_parts.InputError(f"{data_dir} has no {name}")

    monkeypatch.setattr(gpu_parts, "load_images", missing)
    with pytest.raises(LeftOut, match="has no cifar10"):
        PARTS[-1].measure(TINY._replace(data_dir=str(tmp_path)), 1.0, print)


def test_a_real_run_is_cut_by_its_share(monkeypatch):
    given = []
    monkeypatch.setattr(gpu_parts, "run_whole", lambda options: given.append(options) or {})
    monkeypatch.setattr(gpu_parts, "load_images", lambda *args: None)
    for name in ("permmnist-large", "splitcifar10-resnet"):
        for share in (1.0, 0.3):
            gpu_parts.preset(name, FULL, share, print)
    assert [options[-1] for options in given] == [
        "--preset=permmnist-large", "--n_iter=1500", "--data_dir=datasets", "--epochs=12",
    ]  # fmt: skip


def test_what_is_expected_of_a_real_run_follows_from_the_steps_that_were_timed():
    steps = {"permmnist-large steps": [{"captured ms": 1.0}, {"captured ms": 3.0}]}
    expected = gpu.of_preset("permmnist-large", FULL, steps)
    assert expected == pytest.approx(1.2 * 0.002 * 50_000 + 30)
    steps = {"ResNet-32 steps": [{"precision": "float32", "captured ms": 4.0},
                                 {"precision": "amp", "captured ms": 99.0}]}  # fmt: skip
    expected = gpu.of_preset("splitcifar10-resnet", FULL, steps)
    assert expected == pytest.approx(1.2 * 0.004 * 5 * 40 * 313 + 30)


def test_it_goes_on_where_it_was_stopped(tmp_path):
    out = tmp_path / "gpu.json"

    def stop(*_):
        raise KeyboardInterrupt

    parts = [part("a"), part("b", fails), part("c", is_not_there)]
    stopping = part("d")._replace(seconds=stop)
    with pytest.raises(KeyboardInterrupt):
        measure_all([*parts, stopping], TINY, FACTS, out, 1000)
    first = read_json(out)["parts"]
    statuses = {name: entry["status"] for name, entry in first.items()}
    assert statuses == {"a": "measured", "b": "failed", "c": "left out"}
    assert first["b"]["reason"] == "ValueError: no such thing"
    assert (first["b"]["rows"], first["c"]["reason"]) == ([{"came": 1}], "there is no data")

    parts = [part("a", dies), part("b", dies), part("c"), part("d", dies)]
    again = measure_all(parts, TINY, FACTS, out, 1000)
    assert again == read_json(out)
    assert {name: again["parts"][name] for name in "ab"} == {name: first[name] for name in "ab"}
    assert again["parts"]["c"]["status"] == "measured"
    assert again["parts"]["d"]["status"] == "failed"
    assert again["parts"]["d"]["reason"] == "its process ended with exit code 7"

    other = measure_all([part("a")], TINY, FACTS | {"commit": "another"}, out, 1000)
    assert list(other["parts"]) == ["a"]


def test_the_minutes_are_kept(tmp_path):
    out = tmp_path / "gpu.json"
    sizes = TINY._replace(begin=1.0)
    parts = [
        part("whole", seconds=50),
        part("cut", seconds=400, least=0.1),
        part("no", seconds=400),
    ]
    content = measure_all(parts, sizes, FACTS, out, 201)["parts"]
    assert content["whole"]["share"] == 1
    assert content["cut"]["share"] == pytest.approx(200 / 400, rel=0.3)
    assert content["no"]["status"] == "left out"
    assert "takes about 401 s, and" in content["no"]["reason"]


def test_a_part_that_overruns_is_stopped_with_all_that_it_began(tmp_path):
    out = tmp_path / "gpu.json"
    sizes = TINY._replace(begin=8.0)  # seconds in which the process begins on a busy machine
    stopped, after = part("stopped", hangs, seconds=0.1), part("after")
    parts = measure_all([stopped, after], sizes, FACTS, out, 1000)["parts"]
    assert parts["stopped"]["status"] == "stopped"
    assert {"came": 1} in parts["stopped"]["rows"]
    for row in parts["stopped"]["rows"][1:]:
        assert not runs(row["pid"])
    assert parts["after"]["status"] == "measured"
