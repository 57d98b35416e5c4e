"""benchmarks/paper.py: the table of the paper from what is committed and from runs."""

import json
import shlex
from pathlib import Path

import pytest

import run
from benchmarks import baselines, paper
from hypercl import presets
from hypercl.whole import replace_file
from train_args import parse_args

PAGE = Path(__file__).parent.parent.joinpath("docs", "published.rst").read_text()
PRESET = "vandeven-splitmnist-ewc-cl3"
TINY = ["--n_iter=3", "--num_train_samples=50", "--mlp_arch=10", "--no_cuda"]


def write(place, options=(f"--preset={PRESET}",), **changed):
    """A finished run's results.json with one seed, 50, of the preset of EWC."""
    content = {
        "status": "finished",
        "config": parse_args(options).recorded,
        "published": [{"metric": "cl3"}],
        "seeds": [{"seed": 50, "cl3": 30.0}],
    }
    place.mkdir(parents=True)
    (place / "results.json").write_text(json.dumps(content | changed))


def test_every_cell_has_a_published_mean_of_twenty_runs():
    rows = dict(paper.table())
    assert len(rows) == 6
    for cells in rows.values():
        assert len(cells) == len(paper.METHODS) == 7
        for cell in cells:
            assert cell.published.n == 20
    assert rows["SplitMNIST, CL3"][0].published.value == 69.48
    assert rows["PermutedMNIST-10, CL1"][1].preset == "paper-permmnist-tir-cl3"


def test_docs_have_the_table_of_what_is_committed():
    """``python -m benchmarks.paper --rst`` prints it."""
    assert "\n".join(paper.as_rst(paper.committed())) in PAGE


def test_baselines_keep_the_seeds_that_were_measured_before():
    def row(seeds, first):
        values = [first + seed for seed in seeds]
        accuracies = {"cl1": values, f"only of {first}": values}
        of_cell = {"method": "ewc", "scenario": 1}
        return of_cell | {"seeds": seeds, "seconds": values, "accuracies": accuracies}

    before, now = row([42, 43, 45], 100), row([44, 43], 200)
    both = baselines.with_seeds_of(before, now)
    expected = [142, 243, 244, 145]
    assert both == now | {
        "seeds": [42, 43, 44, 45], "seconds": expected, "accuracies": {"cl1": expected}
    }  # fmt: skip
    assert baselines.with_seeds_of(None, now) == now
    assert baselines.with_seeds_of(before, None) == before
    assert baselines.with_seeds_of(None, None) is None


def test_baselines_measured_with_other_options_go(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(baselines, "RESULTS", tmp_path)
    saved = []
    monkeypatch.setattr(baselines, "save", lambda name, content: saved.append(content["rows"]))
    cell = baselines.Cell("permmnist", "ewc", 3)
    accuracies = {"cl3": [25.0]}
    row = {"method": "ewc", "scenario": 3, "options": shlex.join(cell.options()), "published": []}
    row |= {"seeds": [42], "seconds": [9.0], "accuracies": accuracies}
    for options, left in ((row["options"], [row]), ("--lr=7", [])):
        content = json.dumps({"rows": [row | {"options": options}]})
        tmp_path.joinpath("baselines-permmnist.json").write_text(content)
        found = baselines.collect(tmp_path, "permmnist")
        assert found == saved[-1]
        assert [kept["accuracies"] for kept in found] == [kept["accuracies"] for kept in left]
        assert all(kept["published"][0]["value"] == 25.04 for kept in found)
    assert "permmnist-ewc-cl3: the seeds measured before had other" in capsys.readouterr().out


def test_what_is_committed_is_what_was_measured():
    summary = presets.measured("paper-splitmnist")["summary"]
    cell = paper.Cell("paper-splitmnist", "cl3_entropy")
    row = cell.compared(paper.committed())
    assert row["measured"] == pytest.approx(summary["cl3_entropy"]["mean"], abs=1e-4)
    assert row["std"] == pytest.approx(summary["cl3_entropy"]["std"], abs=1e-4)
    assert row["n"] == 20
    (line,) = [x for x in paper.notes(paper.committed()) if x.startswith("paper-splitmnist (")]
    assert "CL1" in line
    assert presets.load("paper-splitmnist").remarks in line


def test_runs_join_what_is_committed(tmp_path, capsys):
    known = paper.committed()[PRESET]["cl3"]
    assert 50 not in known
    write(tmp_path / "a")
    write(tmp_path / "b", seeds=[{"seed": 42, "cl3": 1.0}, {"seed": 51, "failed": "not finite"}])
    write(tmp_path / "unfinished", status="running")
    write(tmp_path / "of no preset", [], published=None)
    write(tmp_path / "other", [f"--preset={PRESET}", "--n_iter=3"])
    write(tmp_path / "of another table", ["--preset=splitmnist-small"])
    write(tmp_path / "of another version", config={"preset": PRESET, "gone": 3})
    found = paper.runs_in(tmp_path)
    assert found == {PRESET: {"cl3": {42: 1.0, 50: 30.0}}}
    shown = capsys.readouterr().out
    assert "--n_iter (2000 there, 3 here)" in shown
    assert "of another version is left out" in shown
    both = paper.merged(paper.committed(), found)[PRESET]["cl3"]
    assert both == {**known, 42: 1.0, 50: 30.0}
    paper.main([str(tmp_path)])
    assert f"({len(both)})" in capsys.readouterr().out


def test_what_is_missing_is_trained_once(tmp_path, monkeypatch):
    trained = []

    def train(place, options, seed, name):
        trained.append((place.name, options, seed))
        write(place, options, seeds=[{"seed": seed, "cl3": 20.0}])

    monkeypatch.setattr(paper, "train", train)
    line = [str(tmp_path), "--run", f"--presets={PRESET},paper-splitmnist", "--seeds=61-62"]
    with pytest.raises(SystemExit):
        paper.main([*line, "--presets=splitmnist-small"])
    paper.main([*line, f"--presets={PRESET}"])
    paper.main([*line, f"--presets={PRESET}"])
    assert trained == [(f"{PRESET}-{seed}", [f"--preset={PRESET}"], seed) for seed in (61, 62)]
    # Of the twenty seeds of paper-splitmnist that are committed, the last is 61.
    names = [PRESET, "paper-splitmnist"]
    assert list(paper.missing(paper.committed(), names, [45, 61])) == [(PRESET, 61)]


def test_saved_numbers_are_kept_beside_the_older_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "RESULTS", tmp_path)
    monkeypatch.setattr("benchmarks.common.RESULTS", tmp_path)
    for name in ("baselines-splitmnist", "baselines-permmnist"):
        replace_file(tmp_path / f"{name}.json", b'{"rows": []}')
    for seed in (50, 52):
        write(tmp_path / f"out{seed}" / "run", seeds=[{"seed": seed, "cl3": 30.0}])
        paper.main([str(tmp_path / f"out{seed}"), "--save"])
    assert paper.kept() == {PRESET: {"cl3": {50: 30.0, 52: 30.0}}}
    assert paper.committed()[PRESET] == {"cl3": {50: 30.0, 52: 30.0}}


@pytest.mark.parametrize(("preset", "metric"), [(PRESET, "cl3"), ("paper-splitmnist-cl2", None)])
def test_a_real_run_has_the_numbers_of_the_table(preset, metric, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(run.__file__).parent)
    results = run.main([f"--preset={preset}", *TINY, f"--out_dir={tmp_path / 'run'}"])
    metric = metric or "cl2_entropy"
    assert paper.runs_in(tmp_path) == {}  # with three steps
    monkeypatch.setattr(paper, "differences", lambda results: "")
    by_seed = paper.runs_in(tmp_path)[preset][metric]
    assert by_seed == {42: pytest.approx(results["summary"][metric]["mean"], abs=1e-4)}
