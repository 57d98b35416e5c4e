import os
import shutil
import time

import pytest
import torch
from conftest import read_json
from matplotlib.figure import Figure

from hypercl import rundir
from hypercl.errors import InputError, RunFailed
from hypercl.rundir import RunDir, check_out_dir


def make_run(path):
    run = RunDir(path)
    run.write_json("config.json", {"options": {}, "versions": {}})
    return run


def test_default_directories_of_one_second_differ(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda _: "run_2030-01-02_03-04-05")
    first = rundir.default_out_dir(tmp_path)
    first.mkdir()
    second = rundir.default_out_dir(tmp_path)
    assert first.name == "run_2030-01-02_03-04-05"
    assert second.name == "run_2030-01-02_03-04-05_2"


def test_fresh_directory_is_made_with_its_parents(tmp_path):
    path = tmp_path / "a" / "b"
    check_out_dir(path, overwrite=False)
    make_run(path).close()
    assert (path / "plots").is_dir()


def test_overwrite_replaces_a_run_and_nothing_else(tmp_path):
    path = tmp_path / "run"
    run = make_run(path)
    run.write_json("results.json", {"old": 1})
    run.write_metrics({"old": 1})
    run.write_scalars(1, {"old": 1.0})
    run.close()
    (path / "plots" / "old.png").write_text("")
    (path / "notes.txt").write_text("mine")
    check_out_dir(path, overwrite=True)
    RunDir(path, overwrite=True).close()
    assert sorted(p.name for p in path.iterdir()) == [
        "logfile.txt",
        "metrics.jsonl",
        "notes.txt",
        "plots",
    ]
    assert (path / "metrics.jsonl").read_text() == ""
    assert list((path / "plots").iterdir()) == []


def refused(path, *words, overwrite=False):
    before = sorted(str(p) for p in path.parent.rglob("*")) if path.parent.is_dir() else None
    with pytest.raises(InputError) as error:
        check_out_dir(path, overwrite=overwrite)
    for word in (f"--out_dir={path}", *words):
        assert word in str(error.value)
    if before is not None:
        assert sorted(str(p) for p in path.parent.rglob("*")) == before


def test_existing_directories(tmp_path):
    empty, run, other = tmp_path / "empty", tmp_path / "run", tmp_path / "other"
    empty.mkdir()
    make_run(run).close()
    other.mkdir()
    (other / "config.json").write_text('{"name": "of some other program"}')
    for path in (empty, run, other):
        refused(path, "exists", "--overwrite")
    refused(other, "not a run directory", overwrite=True)
    (other / "config.json").write_text("{broken")
    refused(other, "not a run directory", overwrite=True)
    check_out_dir(empty, overwrite=True)
    check_out_dir(run, overwrite=True)


def test_files_and_places_that_cannot_be_written(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    refused(file, "is a file")
    refused(file, "is a file", overwrite=True)
    refused(file / "below", "is a file")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    refused(tmp_path / "dangling", "file")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    refused(tmp_path / "new", "not writable")


def test_a_directory_that_cannot_be_made():
    with pytest.raises(InputError, match="/proc/run cannot be made"):
        RunDir(rundir.Path("/proc/run"))


def test_json_and_weights_and_figures_are_replaced_whole(tmp_path):
    run = make_run(tmp_path / "run")
    run.write_json("results.json", {"a": [1.5, None]})
    run.write_json("results.json", {"a": [2.5, None]})
    assert read_json(run.path / "results.json") == {"a": [2.5, None]}
    run.write_weights({"hnet": {"w": torch.ones(2)}, "options": {"lr": 0.1, "arch": [1, 2]}})
    loaded = torch.load(run.path / "weights.pt", weights_only=True)
    assert torch.equal(loaded["hnet"]["w"], torch.ones(2))
    assert loaded["options"] == {"lr": 0.1, "arch": [1, 2]}
    run.write_figure("empty", Figure())
    assert (run.path / "plots" / "empty.png").read_bytes().startswith(b"\x89PNG")
    run.close()
    assert not [p for p in run.path.rglob("*") if p.name.endswith(".part")]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    run = make_run(tmp_path / "run")
    run.write_json("results.json", {"a": 1})

    def fill_the_disk(part):
        part.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(RunFailed, match=r"results\.json cannot be written \(No space left"):
        run._replace("results.json", fill_the_disk)
    run.close()
    assert read_json(run.path / "results.json") == {"a": 1}
    assert not [p for p in run.path.iterdir() if p.name.endswith(".part")]


def test_directory_removed_while_running(tmp_path):
    run = make_run(tmp_path / "run")
    shutil.rmtree(run.path)
    with pytest.raises(RunFailed, match=r"results\.json cannot be written"):
        run.write_json("results.json", {})
    run.close()


def test_lines_are_on_disk_at_once(tmp_path):
    run = make_run(tmp_path / "run")
    run.write_metrics({"step": 1})
    run.write_log("hello")
    assert (run.path / "metrics.jsonl").read_text() == '{"step": 1}\n'
    assert (run.path / "logfile.txt").read_text() == "hello\n"
    run.close()


def test_a_directory_made_by_another_process_meanwhile(tmp_path):
    path = tmp_path / "run"
    check_out_dir(path, overwrite=False)
    make_run(path).close()  # the other process
    before = sorted(p.name for p in path.iterdir())
    with pytest.raises(InputError, match="cannot be made"):
        RunDir(path)
    assert sorted(p.name for p in path.iterdir()) == before


def test_a_name_that_is_too_long():
    with pytest.raises(InputError, match="File name too long"):
        check_out_dir(rundir.Path("x" * 300), overwrite=False)


def test_a_full_disk_is_one_failure(tmp_path):
    """/dev/full stands for a disk without space."""
    run = make_run(tmp_path / "run")
    run._metrics.close()
    run._metrics = rundir.Path("/dev/full").open("w", buffering=1)
    with pytest.raises(RunFailed, match="No space left"):
        run.write_metrics({"step": 1})
    run.close()
