"""--export: what is in the files, and which directories are left alone."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import FEW_STEPS, read_json

import run
from benchmarks.common import last_wins
from hypercl import load_run, whole
from hypercl.commands import export as command
from hypercl.errors import InputError, RunFailed

pytestmark = pytest.mark.usefixtures("few_digits")
TINY = [*FEW_STEPS, "--num_tasks=2", "--out_dir=run"]


def main(*options):
    return run.main(last_wins([*TINY, *options]))


def export(*options, to="exported"):
    return run.main(["--export=run", f"--to={to}", *options])


def names(path="exported"):
    return sorted(file.name for file in Path(path).iterdir())


def metadata(path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length])["__metadata__"]


def test_safetensors_of_every_task_and_seed():
    from safetensors.torch import load_file

    main("--num_seeds=2", "--batchnorm", "--multi_head", "--num_classes_per_task=2,3")
    index = export()
    assert index == read_json(Path("exported/export.json"))
    files = [f"task_0{task}_seed_{seed}.safetensors" for task in (1, 2) for seed in (42, 43)]
    assert names() == sorted(["export.json", *files])
    assert index["status"] == "finished"
    assert (index["method"], index["format"], index["image_shape"]) == (
        "hnet", "safetensors", [28, 28, 1],
    )  # fmt: skip
    learned = load_run("run", no_cuda=True)
    for entry in index["files"]:
        net = learned.main_net(entry["task"], entry["seed"])
        state = load_file(Path("exported", entry["file"]))
        assert state.keys() == net.state_dict().keys()
        assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())
        about = metadata(Path("exported", entry["file"]))
        assert json.loads(about["classes"]) == entry["classes"] == learned.classes(entry["task"])
        assert json.loads(about["outputs"]) == entry["outputs"]
        assert about["task_name"] == learned.tasks[entry["task"]].name
        assert (int(about["task"]), int(about["seed"])) == (entry["task"], entry["seed"])
        assert about["options_sha256"] == index["options_sha256"]
    assert [f["outputs"] for f in index["files"]] == [[0, 2], [2, 5]] * 2
    assert [f["classes"] for f in index["files"]] == [["0", "1"], ["2", "3", "4"]] * 2


def test_the_same_export_has_the_same_bytes():
    main("--num_tasks=1")
    export(to="a")
    export(to="b")
    assert names("a") == names("b") == ["export.json", "task_01_seed_42.safetensors"]
    for name in names("a"):
        assert Path("a", name).read_bytes() == Path("b", name).read_bytes()


def test_onnx_says_what_the_run_says():
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    onnxruntime = pytest.importorskip("onnxruntime")
    main("--cl_exp=permmnist", "--num_classes_per_task=10", "--padding=0")
    index = export("--format=onnx")
    learned = load_run("run", no_cuda=True)
    images = learned.tasks[0].test.images
    for entry in index["files"]:
        session = onnxruntime.InferenceSession(Path("exported", entry["file"]))
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        with torch.no_grad():
            expected = learned.main_net(entry["task"], entry["seed"])(images)
        np.testing.assert_allclose(logits, expected.numpy(), rtol=0, atol=1e-6)
        about = session.get_modelmeta().custom_metadata_map
        assert (about["method"], about["task_name"]) == ("hnet", entry["task_name"])
        assert session.get_inputs()[0].shape[1:] == [28, 28, 1]
    assert [entry["file"] for entry in index["files"]] == [
        "task_01_seed_42.onnx", "task_02_seed_42.onnx",
    ]  # fmt: skip


def test_an_earlier_export_is_replaced_and_other_files_stay():
    main("--num_seeds=2")
    export()
    Path("exported/notes.txt").write_text("mine")
    main("--num_tasks=1", "--overwrite")
    export()
    assert names() == ["export.json", "notes.txt", "task_01_seed_42.safetensors"]


def test_an_export_that_stopped_is_done_again(monkeypatch):
    main("--num_seeds=2")
    export()
    main("--num_tasks=1", "--overwrite", "--num_seeds=1")

    def refuse(path, content):
        if path.suffix == ".safetensors":
            raise RunFailed(f"{path} cannot be written (no space)")
        whole.replace_file(path, content)

    with monkeypatch.context() as full:
        full.setattr(command, "replace_file", refuse)
        with pytest.raises(RunFailed, match="no space"):
            export()
    assert read_json(Path("exported/export.json"))["status"] == "running"
    assert len(names()) == 5
    export()
    assert read_json(Path("exported/export.json"))["status"] == "finished"
    assert names() == ["export.json", "task_01_seed_42.safetensors"]


def test_directories_that_are_none_are_left_alone():
    main("--num_tasks=1")
    Path("file").write_text("")
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    Path("mine/export.json").write_text("[]")
    for to, message in {
        "file": r"--to=file is a file",
        "file/deeper": r"--to=file/deeper cannot be used",
        "mine": r"--to=mine has export\.json and is no export",
        "run": r"--to=run lies in .*, which is a run directory",
        "run/deeper": r"--to=run/deeper lies in .*, which is a run directory",
    }.items():
        with pytest.raises(InputError, match=message):
            export(to=to)
    assert names("mine") == ["export.json", "notes.txt"]
    Path("begun").mkdir()
    Path("begun/.export.json.part").write_text("")
    assert export(to="begun")["status"] == "finished"


def test_runs_that_cannot_be_exported_are_named():
    with pytest.raises(InputError, match="run does not exist"):
        export()
    main("--num_tasks=1")
    weights = Path("run/weights.pt").read_bytes()
    Path("run/weights.pt").write_bytes(weights[:-1])
    with pytest.raises(InputError, match=r"weights\.pt is damaged: .*--resume"):
        export()
    assert not Path("exported").exists()
    Path("run/results.json").write_text("{}")
    with pytest.raises(InputError, match=r"results\.json is damaged"):
        export()


def test_a_missing_package_is_named(monkeypatch):
    main("--num_tasks=1")
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    for format_, message in {
        "safetensors": r"safetensors needs safetensors, which is .*: python -m pip install safet",
        "onnx": "needs onnx and onnxscript, .* pip install onnx onnxscript",
    }.items():
        with pytest.raises(InputError, match=message):
            export(f"--format={format_}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--export=run", "--to says where: give a directory"),
        ("--export=run --to=", "--to says where: give a directory"),
        ("--to=exported", "--to goes with --export"),
        ("--format=onnx", "--format goes with --export"),
        ("--export=run --to=exported --eval=run", "--eval has no effect beside --export"),
        ("--export=run --to=exported --lr=0.1", "--lr has no effect beside --export"),
        ("--export=run --to=exported --format=pickle", "invalid choice: 'pickle'"),
    ],
)
def test_what_does_not_go_together(line, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        run.main(line.split())
    assert message in capsys.readouterr().err


def test_refusals_need_no_torch(tmp_path):
    root = Path(__file__).parent.parent.parent
    code = (
        "import sys; sys.argv[1:] = ['--export=missing', '--to=exported']\n"
        "import run\n"
        "from hypercl.shell import command_line\n"
        "assert command_line(run.main) == 2 and 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(root), "PATH": ""},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("run.py: error: ")
    assert done.stderr.count("\n") == 1
