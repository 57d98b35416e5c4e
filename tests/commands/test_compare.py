import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from helpers import read_json
from stored_runs import results_of, write_run

import run
from hypercl.errors import InputError
from hypercl.rundir.stored import seal

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def compare(*argv):
    """What main returns; its warnings have been shown, too."""
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        found = run.main(["--compare", *argv])
    assert [str(warning.message) for warning in shown] == found["warnings"]
    return found


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_runs_are_found_in_folders_and_as_files(tmp_path):
    for name in ("out/a", "out/b", "out/deep/c", "d"):
        write_run(tmp_path / name, name)
    write(tmp_path / "kept.json", results_of("e"))
    (tmp_path / "out" / "deep" / "round").symlink_to(tmp_path / "out")
    (tmp_path / "out" / "link").symlink_to(write_run(tmp_path / "elsewhere" / "f", "f"))
    found = compare("d", "out", "d", "out/b/results.json", "kept.json")
    assert [row["label"] for row in found["rows"]] == [
        "d",
        "out/a",
        "out/b",
        "out/deep/c",
        "f",
        "e",
    ]
    assert found["rows"][1]["variants"][0]["runs"] == ["out/a"]


def test_what_main_returns_is_all_that_is_shown(tmp_path, capsys):
    write_run(tmp_path / "a", "a", level=90.0)
    write_run(tmp_path / "b", "b", level=95.0)
    found = compare("a", "b")
    assert found["warnings"] == []
    assert found["command"] == "python run.py --compare a b"
    assert found["compared"].startswith("splitmnist, 3 tasks, test sets: a; b (each n = 6, ")
    first, second = found["statistics"]["cl1"]
    assert first["difference"] is None
    assert second["difference"]["mean"] == pytest.approx(5, abs=0.5)
    assert second["difference"]["paired"]
    assert second["p_wilcoxon_holm"] == 2 / 2**6
    assert found["rows"][0]["cl1"]["n"] == 6
    assert found["rows"][0]["cl2"]["mean"] is None
    json.dumps(found, allow_nan=False)
    out = " ".join(capsys.readouterr().out.split())
    assert found["compared"] in out
    assert f"{found['rows'][1]['cl1']['mean']:.2f} ± {found['rows'][1]['cl1']['sem']:.2f}" in out
    assert f"{second['difference']['mean']:+.2f}" in out


def test_what_cannot_be_compared_is_named_and_left_out(tmp_path):
    write_run(tmp_path / "good")
    write_run(tmp_path / "going", status="running")
    write_run(tmp_path / "resting", status="paused")
    write_run(tmp_path / "failed", seeds=[1], failed=[1], status="failed")
    changed = results_of()
    write(tmp_path / "damaged" / "results.json", changed | {"tested_on": "validation"})
    write(tmp_path / "cut" / "results.json", json.dumps(changed)[:-9])
    write(tmp_path / "later" / "results.json", seal(changed | {"format": 3}))
    write(tmp_path / "other.json", {"status": "of a server"})
    write(tmp_path / "lacking" / "results.json", seal(changed | {"num_weights": {}}))
    write(tmp_path / "begun" / "config.json", {"options": {}, "versions": {}})
    (tmp_path / "empty").mkdir()
    left_out = ["going", "resting", "failed", "damaged", "cut", "later", "other.json", "lacking",
                "begun", "empty"]  # fmt: skip
    found = compare("good", *left_out)
    assert len(found["rows"]) == 1
    assert found["warnings"] == [
        "going is left out: the run is not finished, its status is running",
        "resting is left out: the run is not finished, its status is paused",
        "failed is left out: the run failed (the loss is not finite)",
        "damaged is left out: its results.json is damaged",
        "cut is left out: its results.json is damaged",
        "later is left out: its format is 3, and 1 and 2 are known",
        "other.json is left out: other.json is no run's",
        "lacking is left out: no run of this version has written it",
        "begun is left out: it has no results.json, the run has not begun",
        "empty is left out: there is no run",
    ]
    with pytest.raises(InputError, match=r"nothing to compare: going is left out: .*: give finis"):
        run.main(["--compare", *left_out])


def test_a_path_that_does_not_exist_is_refused(tmp_path):
    write_run(tmp_path / "a")
    with pytest.raises(InputError, match="--compare: b does not exist: give a finished run"):
        run.main(["--compare", "a", "b"])


def test_labels(tmp_path):
    for k in (1, 3):
        write_run(tmp_path / f"ewc/{k}", "ewc", k, strength=k)
    write_run(tmp_path / "a")
    found = compare("ewc", "a", "--label=EWC=ewc", "--label", "Ours, été =a")
    assert [row["label"] for row in found["rows"]] == ["EWC", "Ours, été"]
    assert found["rows"][0]["cl3"]["n"] == 6


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("A=b", "--label=A=b names a run that is not compared: give b to --compare too"),
        ("A=c", "--label: c does not exist"),
    ],
)
def test_a_label_that_fits_no_run_is_refused(label, words, tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b")
    with pytest.raises(InputError, match=words):
        run.main(["--compare", "a", f"--label={label}"])


def test_a_run_has_one_label(tmp_path):
    write_run(tmp_path / "out/a")
    with pytest.raises(InputError, match="has two labels, A and B: leave one out"):
        run.main(["--compare", "out", "--label=A=out", "--label=B=out/a"])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--compare", "expected at least one argument"),
        ("--compare=--", "expected at least one argument"),
        ("--compare=", "--compare: a path is empty"),
        ("--compare a --eval=a", "tests nothing: leave --eval out"),
        ("--compare a --dry_run", "tests nothing: leave --dry_run out"),
        ("--compare a --out_dir=b --resume", "tests nothing: leave --resume and --out_dir out"),
        ("--compare a --lr=1", "--lr has no effect beside --compare, which trains nothing"),
        ("--compare a --num_threads=1", "--num_threads has no effect beside --compare"),
        ("--compare a --report=", "--report is empty: give a directory"),
        ("--compare a --label=b", "'b' is not NAME=RUN"),
        ("--compare a --label==b", "'=b' is not NAME=RUN"),
        ("--compare a --label=b=", "'b=' is not NAME=RUN"),
        ("--label=a=b", "--label goes with --compare: give that too, or leave it out"),
        ("--report=b", "--report goes with --compare: give that too, or leave it out"),
        ("--resume --report=b", "--report goes with --compare"),
    ],
)
def test_command_lines_that_are_refused(line, words, capsys):
    with pytest.raises(SystemExit) as end:
        run.main(line.split())
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert words in message


def test_runs_may_be_given_one_by_one(tmp_path):
    write_run(tmp_path / "a", "a")
    write_run(tmp_path / "b", "b")
    found = run.main(["--compare=a", "--compare=b", "--label=X=b"])
    assert [row["label"] for row in found["rows"]] == ["a", "X"]


def test_a_report_is_written_and_said(tmp_path, capsys):
    write_run(tmp_path / "a", "a", kept_bytes=None)
    before = read_json(tmp_path / "a" / "results.json")
    found = compare("a", "--report=there")
    assert "the report is there/report.html" in capsys.readouterr().out
    assert found["compared"] in (tmp_path / "there" / "report.html").read_text()
    with pytest.raises(InputError, match=r"--report=a lies in .*, which is a run directory"):
        run.main(["--compare", "a", "--report=a"])
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["results.json"]
    assert read_json(tmp_path / "a" / "results.json") == before


def test_torch_is_not_imported(tmp_path):
    write_run(tmp_path / "a", "a")
    write_run(tmp_path / "b", "b")
    code = (
        "import sys, run\n"
        "run.main(['--compare', 'a', 'b', '--report', 'r'])\n"
        "sys.exit('torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "nonsense"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment,
                          capture_output=True, text=True)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    code = (
        "import sys, run\n"
        "run.parse_args(['--compare=a'])\n"
        "sys.exit('scipy' in sys.modules or 'jinja2' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_the_shell_gets_one_line_and_a_code(tmp_path):
    write_run(tmp_path / "a", status="interrupted")
    done = subprocess.run([sys.executable, ROOT / "run.py", "--compare", "a"], capture_output=True,
                          text=True)  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        "run.py: error: nothing to compare: a is left out: the run is not finished, its status is "
        "interrupted: give finished runs\n"
    )
