import json
import os
import shutil
import time

import pytest
from helpers import read_json
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from hypercl.errors import InputError, RunFailed
from hypercl.report.metrics import METRICS
from hypercl.rundir import checksum, curves
from hypercl.rundir import directory as rundir
from hypercl.rundir.directory import RunDir
from hypercl.rundir.growing import Grown
from hypercl.rundir.stored import (
    find_config,
    newest_unfinished,
    read_config,
    read_finished,
    seal,
)

CONFIG = {
    "options": {}, "versions": {}, "device": "CPU", "git_commit": None, "command": "python run.py",
    "started": "2030-01-02",
}  # fmt: skip
GROWING = ["logfile.txt", "metrics.jsonl", curves.NAME]
ONE = {"mean": 98.5, "std": None, "sem": None, "n": 1}
RESULTS = {
    "status": "finished", "config": {"preset": None}, "tasks": ["0 or 1"], "tested_on": "test",
    "seeds": [{"seed": 42, "accuracy": [[98.5]]}],
    "summary": dict.fromkeys(METRICS, ONE),
    "seconds": {"total": 1.5, "train": [1.0], "test": [0.5]},
}  # fmt: skip


def make_run(path, *, overwrite=False):
    run = RunDir(path, overwrite=overwrite)
    run.begin(CONFIG)
    run.open()
    return run


def finish(path, status="finished"):
    with make_run(path) as run:
        if status == "finished":
            run.write_bytes("weights.pt", b"weights" + checksum.comment(b"weights"))
        run.write_json("results.json", {**RESULTS, "status": status})


def names(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())


def test_default_directories_of_one_second_differ(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda _: "run_2030-01-02_03-04-05")
    with make_run(None) as first, make_run(None) as second:
        assert str(first.path) == "out/run_2030-01-02_03-04-05"
        assert str(second.path) == "out/run_2030-01-02_03-04-05_2"


def test_nothing_is_made_before_it_begins(tmp_path):
    path = tmp_path / "a" / "b"
    with RunDir(path) as run:
        assert run.config is None
        assert list(tmp_path.iterdir()) == []
        run.begin(CONFIG)
        run.open()
    assert names(path) == ["config.json", *GROWING]
    assert (path / "plots").is_dir()


def test_what_is_there_is_read(tmp_path):
    finish(tmp_path / "run")
    with RunDir(tmp_path / "run") as run:
        assert run.config == seal(CONFIG)
        assert run.finished
    finish(tmp_path / "other", status="failed")
    with RunDir(tmp_path / "other") as run:
        assert run.results["status"] == "failed"
        assert not run.finished


def test_overwrite_replaces_a_run_and_nothing_else(tmp_path):
    path = tmp_path / "run"
    with make_run(path) as run:
        run.write_json("results.json", {"old": 1})
        run.write_metrics({"old": 1})
        run.write_scalars(1, {"old": 1.0})
        run.write_checkpoint(b"old")
        run.write_checkpoint(b"older")
        run.write_weights_by_task("task_01.pt", b"old")
        (path / "weights" / ".task_02.pt.part").write_text("half")
        (path / "plots" / "old.png").write_text("")
        (path / "notes.txt").write_text("mine")
        (path / ".results.json.part").write_text("half")
    with RunDir(path, overwrite=True) as run:
        assert run.config is None
        assert "results.json" in names(path)  # until all input has been found good
        run.begin(CONFIG)
        run.open()
        assert names(path) == [
            "config.json", "logfile.txt", "metrics.jsonl", "notes.txt", "run.lock", curves.NAME,
        ]  # fmt: skip
        assert (path / "metrics.jsonl").read_text() == ""


def test_overwriting_ends_in_a_run_directory_whenever_it_is_killed(tmp_path, monkeypatch):
    path = tmp_path / "run"
    finish(path)
    (path / "notes.txt").write_text("mine")

    class Killed(BaseException):
        pass

    def kill(*_):
        raise Killed

    monkeypatch.setattr(RunDir, "_replace", kill)
    with RunDir(path, overwrite=True) as run, pytest.raises(Killed):
        run.begin(CONFIG)
    monkeypatch.undo()
    RunDir(path, overwrite=True).close()
    with RunDir(path) as run:
        assert run.config == seal(CONFIG)
        assert run.results is None


def refused(path, *words, overwrite=False):
    before = sorted(str(p) for p in path.parent.rglob("*")) if path.parent.is_dir() else None
    with pytest.raises(InputError) as error:
        RunDir(path, overwrite=overwrite)
    for word in (str(path), *words):
        assert word in str(error.value)
    assert "\n" not in str(error.value)
    if before is not None:
        assert sorted(str(p) for p in path.parent.rglob("*")) == before


def test_directories_of_others(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for content in ('{"name": "of some other program"}', "{broken", "[1]", "[" * 100_000):
        (other / "config.json").write_text(content)
        refused(other, "is not a run directory")
        refused(other, "is not a run directory", "--overwrite", overwrite=True)


def test_an_empty_directory_and_one_of_a_run_that_ended_as_it_began(tmp_path):
    with make_run(tmp_path):
        pass
    empty, begun = tmp_path / "empty", tmp_path / "begun"
    empty.mkdir()
    begun.mkdir()
    (begun / "run.lock").write_text("process 1 on earth")
    (begun / ".config.json.part").write_text("{")
    for path in (empty, begun):
        make_run(path).close()
        assert names(path) == ["config.json", *GROWING]


def without_times(data):
    content = json.loads(data)
    content.pop("seconds", None)
    return content


@pytest.mark.parametrize("name", ["config.json", "results.json"])
def test_damage_is_noticed_in_every_value(name, tmp_path):
    path = tmp_path / "run"
    with make_run(path) as run:
        run.write_json("results.json", {**RESULTS, "status": "running"})
    good = (path / name).read_bytes()
    noticed = 0
    for position in range(0, len(good), 2):
        flipped = bytearray(good)
        flipped[position] ^= 1
        (path / name).write_bytes(flipped)
        try:
            changed = without_times(flipped) != without_times(good)
        except ValueError:
            changed = True
        if not changed:  # a space that became another
            continue
        noticed += 1
        if name == "config.json":
            refused(path, "config.json is damaged", "--overwrite")
        else:
            with RunDir(path) as run:
                assert run.results is None
                assert run.lost == {"results.json": "is damaged"}
    assert noticed > 50


def test_a_good_file_in_another_ones_place_is_damage(tmp_path):
    path = tmp_path / "run"
    finish(path)
    shutil.copy(path / "config.json", path / "results.json")
    with RunDir(path) as run:
        assert run.results is None
        assert run.lost == {"results.json": "is damaged"}


def test_times_are_not_under_the_seal():
    first, second = ({"a": 1, "seconds": {"total": t}} for t in (1.0, 2.0))
    assert seal(first)["sha256"] == seal(second)["sha256"] != seal({"a": 2})["sha256"]
    assert seal(seal(first)) == seal(first)


def test_files_and_places_that_cannot_be_written(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    refused(file, "is a file")
    refused(file, "is a file", overwrite=True)
    refused(file / "below", "is a file")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    refused(tmp_path / "dangling", "is a link to nothing")
    refused(tmp_path / "dangling" / "below", "below", "is a link to nothing")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    refused(tmp_path / "new", "not writable")


def test_a_directory_that_cannot_be_written(tmp_path, monkeypatch):
    finish(tmp_path / "run", status="interrupted")
    finish(tmp_path / "done")
    before = names(tmp_path)

    def refuse(path, **_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(rundir, "Lock", refuse)
    refused(tmp_path / "run", "Permission denied", "choose another directory")
    with RunDir(tmp_path / "done") as run:  # nothing needs to be written
        assert run.finished
    assert names(tmp_path) == before


def test_a_directory_that_cannot_be_made():
    with RunDir(rundir.Path("/proc/run")) as run, pytest.raises(InputError, match="/proc/run cann"):
        run.begin(CONFIG)


def test_a_second_process_is_told_which_one_is_first(tmp_path):
    path = tmp_path / "run"
    with make_run(path):
        for overwrite in (False, True):
            refused(path, f"in use by process {os.getpid()} on", overwrite=overwrite)
    RunDir(path).close()


def test_a_directory_made_by_another_process_meanwhile(tmp_path):
    path = tmp_path / "run"
    with RunDir(path) as late:
        with make_run(path):  # the other process
            before = names(path)
            with pytest.raises(InputError, match="in use by process"):
                late.begin(CONFIG)
            assert names(path) == before
        with pytest.raises(InputError, match="made by another process meanwhile"):
            late.begin(CONFIG)


def test_a_name_that_is_too_long():
    with pytest.raises(InputError, match="File name too long"):
        RunDir(rundir.Path("x" * 300))


def test_json_and_figures_are_replaced_whole(tmp_path):
    with make_run(tmp_path / "run") as run:
        run.write_json("results.json", {"a": [1.5, None]})
        run.write_json("results.json", {"a": [2.5, None]})
        assert read_json(run.path / "results.json") == seal({"a": [2.5, None]})
        run.write_plot("empty", {"png": b"older"})
        run.write_plot("empty", {"png": b"newer"})
        assert (run.path / "plots" / "empty.png").read_bytes() == b"newer"
    assert not [p for p in run.path.rglob("*") if p.name.endswith(".part")]


def test_checkpoints_keep_the_one_before(tmp_path):
    with make_run(tmp_path / "run") as run:
        for content in (b"1", b"2", b"3"):
            run.write_checkpoint(content)
        assert [path.read_bytes() for path in run.checkpoints] == [b"3", b"2"]


@pytest.mark.parametrize("place", ["write_bytes", "replace first", "replace second", "fsync"])
def test_a_kill_in_the_write_of_a_checkpoint_leaves_a_good_one(place, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(*_):
        raise Killed

    with make_run(tmp_path / "run") as run:
        run.write_checkpoint(b"1")
        run.write_checkpoint(b"2")
        if place == "fsync":
            monkeypatch.setattr(os, "fsync", kill)
        elif place == "write_bytes":
            monkeypatch.setattr(rundir.Path, place, kill)
        else:
            moves = iter([rundir.Path.replace, kill] if place == "replace second" else [kill])
            monkeypatch.setattr(rundir.Path, "replace", lambda a, b: next(moves)(a, b))
        with pytest.raises(Killed):
            run.write_checkpoint(b"3")
        monkeypatch.undo()
        found = [path.read_bytes() for path in run.checkpoints if path.exists()]
        assert found in ([b"2", b"1"], [b"2"])
        run.write_checkpoint(b"4")
        assert run.checkpoints[0].read_bytes() == b"4"


def test_a_failed_write_leaves_the_old_file(tmp_path):
    with make_run(tmp_path / "run") as run:
        run.write_checkpoint(b"good")

        def fill_the_disk(part):
            part.write_text("half")
            raise OSError(28, "No space left on device")

        with pytest.raises(RunFailed, match=r"checkpoint\.pt cannot be written \(No space left"):
            run._replace("checkpoint.pt", fill_the_disk, keep="checkpoint.before.pt")
        assert (run.path / "checkpoint.pt").read_bytes() == b"good"
        assert not [p for p in run.path.iterdir() if p.name.endswith(".part")]


def test_directory_removed_while_running(tmp_path):
    with make_run(tmp_path / "run") as run:
        shutil.rmtree(run.path)
        with pytest.raises(RunFailed, match="run was removed while"):
            run.write_json("results.json", {})
        run.path.mkdir()
        with pytest.raises(RunFailed, match="run was removed while"):  # another's by now
            run.write_json("results.json", {})
        assert list(run.path.iterdir()) == []


def test_lines_are_on_disk_at_once(tmp_path):
    with make_run(tmp_path / "run") as run:
        run.write_metrics({"step": 1})
        run.write_log("hello")
        assert (run.path / "metrics.jsonl").read_text() == '{"step": 1}\n'
        assert (run.path / "logfile.txt").read_text() == "hello\n"


def test_files_that_grow_are_cut_back_to_a_checkpoint(tmp_path):
    path = tmp_path / "run"
    with make_run(path) as run:
        run.write_metrics({"step": 1})
        run.write_log("one")
        run.write_scalars(1, {"loss": 1.0})
        grown = run.grown()
        kept = {name: (path / name).read_bytes() for name in grown}
        run.write_metrics({"step": 2})
        run.write_log("two")
        run.write_scalars(2, {"loss": 1.0})
    assert [name.split("/")[0] for name in grown] == ["metrics.jsonl", "logfile.txt", "summary"]
    (path / "summary" / "notes.txt").write_text("mine")
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"half a li')
    (path / ".checkpoint.pt.part").write_text("half")
    with RunDir(path) as run:
        run.open(grown)
        assert {name: (path / name).read_bytes() for name in grown} == kept
        assert (path / "summary" / "notes.txt").exists()
        assert len(list((path / "summary").iterdir())) == 2
        assert not (path / ".checkpoint.pt.part").exists()
        run.write_metrics({"step": 2})
    assert (path / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_plot_is_there_in_the_newest_formats_alone(tmp_path):
    with make_run(tmp_path / "run") as run:
        made = []
        for formats in (("png",), ("pdf",), ("png", "pdf")):
            run.write_plot("empty", {kind: kind.encode() for kind in formats})
            made.append({p.name: p.read_bytes() for p in (run.path / "plots").iterdir()})
    assert [sorted(files) for files in made] == [
        ["empty.png"], ["empty.pdf"], ["empty.pdf", "empty.png"],
    ]  # fmt: skip
    assert made[2] == made[0] | made[1] == {"empty.png": b"png", "empty.pdf": b"pdf"}


def test_settings_lie_in_the_same_file_as_the_scalars(tmp_path):
    settings = {"lr": 0.1, "use_sgd": True, "mlp_arch": [7, 8], "preset": None}
    with make_run(tmp_path / "run") as run:
        run.write_scalars(3, {"a": 1.0, "b": 2.0})
        run.write_settings(settings, {**settings, "wrn_block_depth": 4}, {"a": 1.0})
        (file,) = (run.path / "summary").iterdir()
    events = [event.summary.value for event in EventFileLoader(str(file)).Load()]
    assert [[v.tag for v in values] for values in events if len(values)] == [
        ["a", "b"],
        ["_hparams_/experiment"],
        ["_hparams_/session_start_info"],
        ["_hparams_/session_end_info"],
    ]
    contents = [
        HParamsPluginData.FromString(values[0].metadata.plugin_data.content)
        for values in events[-3:]
    ]
    columns = [info.name for info in contents[0].experiment.hparam_infos]
    assert columns == ["lr", "use_sgd", "mlp_arch", "wrn_block_depth"]
    assert [info.name.tag for info in contents[0].experiment.metric_infos] == ["a"]
    started = contents[1].session_start_info.hparams
    assert started["lr"].number_value == 0.1
    assert (started["use_sgd"].string_value, started["mlp_arch"].string_value) == ("on", "7,8")


def test_what_was_lost_of_files_that_grow_is_said(tmp_path):
    path = tmp_path / "run"
    make_run(path).close()
    (path / "metrics.jsonl").write_text("short")
    (path / "logfile.txt").unlink()
    with (
        RunDir(path) as run,
        pytest.warns(UserWarning, match=r"metrics\.jsonl has become shorter"),
        pytest.warns(UserWarning, match=r"logfile\.txt is gone"),
    ):
        run.open({"metrics.jsonl": Grown(10), "logfile.txt": Grown(10)})


def test_a_full_disk_is_one_failure(tmp_path):
    """/dev/full stands for a disk without space."""
    with make_run(tmp_path / "run") as run:
        file = run._growing["metrics.jsonl"]
        file.close()
        file._file = rundir.Path("/dev/full").open("wb")
        with pytest.raises(RunFailed, match="No space left"):
            run.write_metrics({"step": 1})


def test_the_newest_unfinished_run_is_found(tmp_path):
    assert newest_unfinished(tmp_path / "out") is None
    root = tmp_path / "out"
    finish(root / "finished")
    assert newest_unfinished(root) is None
    for age, (name, status) in enumerate([("new", "failed"), ("old", "interrupted")]):
        finish(root / name, status)
        os.utime(root / name / "config.json", (2e9 - age, 2e9 - age))
    (root / "other").mkdir()
    (root / "file").write_text("")
    with make_run(root / "in use"):
        assert newest_unfinished(root) == root / "new"


def test_reading_single_files(tmp_path):
    with pytest.raises(InputError, match="is not a run directory"):
        read_config(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_config(tmp_path / "missing")
    finish(tmp_path / "run", status="failed")
    assert read_config(tmp_path / "run") == seal(CONFIG)
    with pytest.raises(InputError, match=r"is not a finished run: .*--resume"):
        read_finished(tmp_path / "run")
    finish(tmp_path / "done")
    assert read_finished(tmp_path / "done") == seal(RESULTS)
    (tmp_path / "done" / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json is damaged: put a good copy there"):
        read_config(tmp_path / "done")
    (tmp_path / "done" / "checkpoint.pt").write_text("")
    assert find_config(tmp_path / "done") is None
    with pytest.raises(InputError, match=r"damaged: python run\.py --resume .* writes it anew"):
        read_config(tmp_path / "done")


def test_a_checkpoint_alone_makes_a_run_directory_and_a_foreign_one_does_not(tmp_path):
    """Where config.json and results.json are lost; the comment is what no other program writes."""
    ours, other = tmp_path / "ours", tmp_path / "other"
    for path, data in ((ours, b"tensors" + checksum.comment(b"tensors")), (other, b"PK" * 100)):
        path.mkdir()
        (path / "checkpoint.pt").write_bytes(data)
    refused(other, "is not a run directory")
    refused(other, "is not a run directory", "--overwrite", overwrite=True)
    with RunDir(ours) as run:
        assert run.config is None
        assert run.lost.keys() == {"config.json", "results.json"}
        run.restore(CONFIG)
        with pytest.warns(UserWarning, match=r"(config|results)\.json is missing: it is written"):
            run.open()
    assert read_config(ours) == seal(CONFIG)


def test_the_plots_are_made_anew_and_the_directory_is_not(tmp_path):
    with make_run(tmp_path / "run") as run:
        shutil.rmtree(run.path / "plots")
        run.write_plot("empty", {"png": b""})
        assert (run.path / "plots" / "empty.png").exists()
        shutil.rmtree(run.path)
        with pytest.raises(RunFailed, match="run was removed while"):
            run.write_plot("empty", {"png": b""})
        with pytest.raises(RunFailed, match="run was removed while"):
            run.grown()
        assert not run.path.exists()


def test_a_lock_that_was_removed_is_made_anew(tmp_path):
    with make_run(tmp_path / "run") as run:
        (run.path / "run.lock").unlink()
        run.write_json("results.json", RESULTS)
        refused(run.path, "in use by process")
    assert not (run.path / "run.lock").exists()


def test_curves_go_on_where_their_folder_is_removed(tmp_path):
    with make_run(tmp_path / "run") as run:
        run.write_scalars(1, {"loss": 1.0})
        run.grown()
        shutil.rmtree(run.path / "summary")
        run.write_scalars(2, {"loss": 2.0})
        with pytest.warns(UserWarning, match=r"summary/events\S* was removed or replaced while"):
            run.grown()
        run.write_scalars(3, {"loss": 3.0})
        run.grown()
        (file,) = (run.path / "summary").iterdir()
        events = list(EventFileLoader(str(file)).Load())
    assert events[0].file_version == "brain.Event:2"
    assert [event.step for event in events[1:]] == [3]


def test_curves_of_a_run_that_goes_on_are_one_file_without_gaps_or_repeats(tmp_path):
    with make_run(tmp_path / "run") as run:
        run.write_scalars(1, {"loss": 1.0})
        grown = run.grown()
        run.write_scalars(2, {"loss": 2.0})
    with RunDir(tmp_path / "run") as run:
        run.open(grown)
        run.write_scalars(2, {"loss": 4.0})
        run.write_scalars(3, {})
    (file,) = (tmp_path / "run" / "summary").iterdir()
    values = [(e.step, v.tensor.float_val[0]) for e in EventFileLoader(str(file)).Load()
              for v in e.summary.value]  # fmt: skip
    assert values == [(1, 1.0), (2, 4.0)]
