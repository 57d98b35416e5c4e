"""Tasks of regression, from the command line to what a run leaves."""

import json
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CPU, GENERATIVE, OWN_WEIGHTS, read_json
from matplotlib.figure import Figure

import run
import train
from hypercl import load_run
from hypercl.errors import InputError
from hypercl.options import Options
from hypercl.report import plots
from hypercl.report.results import Report
from hypercl.rundir.stored import seal
from train_args import parse_args

WRITE_PLOTS, FIT = Report._write_plots, plots.fit
SMALL = ["--no_cuda", "--loglevel_info", "--val_set_size=12", "--batch_size=8", "--mlp_arch=6",
         "--net_act=tanh", "--val_iter=3"]  # fmt: skip
FEW_STEPS = ["--lr=0.01", "--n_iter=6", "--ckpt_iter=4"]
OF_HNET = ["--hnet_type=hmlp", "--hmlp_arch=6"]
OF_ANY_LENGTH = ["--cl_exp=toyregression", *SMALL]
TOY = [*OF_ANY_LENGTH, *FEW_STEPS]
BY_FUNCTION = ["--cl_exp=my.py:tasks", "--task_type=regression", *SMALL, *FEW_STEPS]
MY = """
import numpy as np


def tasks(num_tasks=3, outputs=2):
    random = np.random.default_rng(0)
    made = []
    for k in range(num_tasks):
        x = random.normal(size=(40, 3)).astype(np.float32)
        y = np.stack([x.sum(1) + k, x[:, 0] - k], 1)[:, :outputs]
        made.append((x, y, x[:10], y[:10]))
    return made


def flat():
    return [(x, y[:, 0], u, v[:, 0]) for x, y, u, v in tasks()]


def ragged():
    (x, y, u, v), *_ = tasks()
    return [(x, y, u, v[:, :1])]


def words():
    return [(x, y.astype(str), u, v.astype(str)) for x, y, u, v in tasks()]


def infinite():
    return [(x, y / 0, u, v) for x, y, u, v in tasks()]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working directory of its own with tasks of a user's, and no plots."""
    (tmp_path / "my.py").write_text(MY)
    monkeypatch.setattr(Report, "_write_plots", lambda self: None)
    monkeypatch.chdir(tmp_path)


def of_method(method):
    if method == "hnet":
        return OF_HNET
    own = {"replay_budget": 15} if method in ("replay", "der", "derpp") else OWN_WEIGHTS[method]
    own |= {"replay_sampling": "reservoir"} if "replay_budget" in own else {}
    return [f"--method={method}", *(f"--{name}={value}" for name, value in own.items())]


def test_the_recipe_of_the_docs():
    """With less training than would fit it."""
    page = Path(__file__).parent.parent / "docs" / "data.rst"
    text = page.read_text().split("Regression\n---")[1]
    (code, *_) = re.findall(r"::\n\n((?:    .*\n|\n)+)", text)
    Path("my.py").write_text(textwrap.dedent(code))
    given = [*BY_FUNCTION, *OF_HNET, "--num_tasks=2", "--noise=0.01"]
    results = run.main([*given, "--out_dir=a"])
    assert results["config"]["noise"] == 0.01
    task = load_run("a", no_cuda=True).tasks[1]
    for (x, y), least in ((task.test, 0), (task.train, 0.008)):
        noise = (y - torch.exp(-x) * torch.sin(3 * x)).std()
        assert least <= noise < least + 0.004


def test_the_samples_of_the_toy():
    options = Options.of({"cl_exp": "toyregression"}).task
    drawn = options.kind.drawn(42)
    tasks = drawn.build(options, CPU)
    ends = [(-4, -2), (-1, 1), (2, 4)]
    functions = (lambda x: x + 3, lambda x: 2 * x**2 - 1, lambda x: (x - 3) ** 3)
    for task, (low, high), function in zip(tasks, ends, functions, strict=True):
        assert task.is_regression
        assert [len(split.labels) for split in (task.train, task.validation, task.test)] == [
            100, 100, 50,
        ]  # fmt: skip
        x, y = task.test
        assert (x[0].item(), x[-1].item()) == (low, high)
        assert x.diff(dim=0).std() < 1e-6
        torch.testing.assert_close(y, function(x))
        for x, y in (task.train, task.validation):
            assert low <= x.min() < low + 0.2 < high - 0.2 < x.max() <= high
            assert 0.035 < (y - function(x)).std() < 0.065
    other, again = (options.kind.drawn(seed).build(options, CPU)[0] for seed in (43, 42))
    assert torch.equal(again.train.images, tasks[0].train.images)
    assert not torch.equal(other.train.images, tasks[0].train.images)
    fewer = Options.of({"cl_exp": "toyregression", "val_set_size": 3, "num_train_samples": 100})
    assert torch.equal(drawn.build(fewer.task, CPU)[0].train.labels, tasks[0].train.labels)


@pytest.mark.parametrize("scenario", [1, 2])
@pytest.mark.parametrize(
    "method", ["hnet", *(m for m in OWN_WEIGHTS if m not in ("lwf", *GENERATIVE))]
)
def test_a_run_of_each_method_and_its_test_again(method, scenario):
    given = [*BY_FUNCTION, "--num_tasks=2", *of_method(method), "--num_seeds=2", "--out_dir=a"]
    by_task = method in ("hnet", "separate")
    if scenario == 1 or not by_task:
        given.append(f"--cl_scenario={scenario}")
    results = run.main(given)
    assert results == read_json(Path("a", "results.json"))
    for seed in results["seeds"]:
        assert [len(row) for row in seed["error"]] == [1, 2]
        assert all(0 < value < 10 for row in seed["error"] for value in row)
    assert run.main(["--eval=a", "--no_cuda"]) == results
    loaded = load_run("a", no_cuda=True)
    task = loaded.tasks[0]
    predicted = loaded.predict(task.test.images, task=0, seed=43)
    error = (predicted.values - task.test.labels).square().mean()
    assert error.item() == pytest.approx(results["seeds"][1]["error"][-1][0], rel=1e-5)
    torch.testing.assert_close(predicted.values, loaded.main_net(0, 43)(task.test.images))


def test_the_form_of_results_and_logs(capsys):
    given = [*TOY, *OF_HNET, "--num_tasks=3", "--plateau_lr_scheduler", "--num_seeds=2"]
    results = run.main([*given, "--out_dir=a"])
    assert (results["measure"], results["format"], results["scenario"]) == ("mse", 2, None)
    assert "accuracy" not in json.dumps(results)
    for seed in results["seeds"]:
        last, learned = seed["error"][-1], [row[-1] for row in seed["error"]]
        assert seed["final_error"] == seed["cl1"] == pytest.approx(np.mean(last))
        assert seed["during_error"] == pytest.approx(np.mean(learned))
        grown = np.mean(np.subtract(last, learned)[:2])
        assert seed["backward_transfer"] == pytest.approx(-grown)
        best = [min(row[t] for row in seed["error"][t:-1]) for t in range(2)]
        assert seed["forgetting"] == pytest.approx(np.mean(np.subtract(last[:2], best)))
        change = np.subtract(seed["error_untrained"][1:], seed["error_before"][1:])
        assert seed["forward_transfer"] == pytest.approx(np.mean(change))
        assert "scenarios" not in seed
    row = json.loads(Path("a/metrics.jsonl").read_text().splitlines()[-1])
    assert row["train_error"] == row["task_loss"]
    assert 0 < row["validation_error"] < 10
    assert "train_accuracy" not in row
    log, shown = Path("a/logfile.txt").read_text(), capsys.readouterr().out
    for text in (log, shown):
        assert "accurac" not in text
        assert "%" not in text
        assert "test mean squared error after task 3/3" in text
        assert re.search(r"final error: \d\.\d{3,} ± ", text)
    assert "3 tasks of 1 output of regression" in shown
    assert "validation error" in log
    again = run.main([*given, "--out_dir=a"])
    assert again == results


def test_a_run_that_was_stopped_goes_on_to_the_same(monkeypatch):
    given = [*TOY, *OF_HNET, "--num_seeds=2", "--plateau_lr_scheduler"]
    drawn = []
    monkeypatch.setattr(Report, "_write_plots", lambda self: drawn.append(self._drawn_fits()))
    whole = run.main([*given, "--out_dir=a"])
    of_whole = drawn[-1]
    report = Report.end_task

    def stopped(self, task_id, *more):
        if task_id == 1:
            raise KeyboardInterrupt
        report(self, task_id, *more)

    with monkeypatch.context() as patched:
        patched.setattr(Report, "end_task", stopped)
        with pytest.raises(KeyboardInterrupt):
            run.main([*given, "--out_dir=b"])
    assert read_json(Path("b", "results.json"))["status"] == "interrupted"
    resumed = run.main(["--resume", "--out_dir=b"])
    assert drawn[-1] == of_whole
    assert [len(fit.outputs) for fit in of_whole] == [2, 2, 2]
    assert resumed["seeds"] == whole["seeds"]
    assert resumed["summary"] == whole["summary"]


def test_a_run_that_was_stopped_within_a_task(monkeypatch):
    """The plateau's state, too, is where it was."""
    given = [*OF_ANY_LENGTH, *of_method("ewc"), "--n_iter=40", "--ckpt_iter=25", "--lr=0.5",
             "--num_train_samples=8", "--plateau_lr_scheduler"]  # fmt: skip
    whole = run.main([*given, "--out_dir=a"])
    log = train.TaskTraining.log

    def stopped(self, step):
        if (self.task_id, step) == (1, 30):
            raise KeyboardInterrupt
        return log(self, step)

    with monkeypatch.context() as patched:
        patched.setattr(train.TaskTraining, "log", stopped)
        with pytest.raises(KeyboardInterrupt):
            run.main([*given, "--out_dir=b"])
    resumed = run.main(["--resume", "--out_dir=b"])
    assert resumed["seeds"] == whole["seeds"]
    rows = [json.loads(line) for line in Path("b/metrics.jsonl").read_text().splitlines()]
    assert Path("a/metrics.jsonl").read_text() == Path("b/metrics.jsonl").read_text()
    assert len({row["learning_rate"] for row in rows}) > 1


def test_seeds_together_are_what_each_is_alone():
    given = [*OF_ANY_LENGTH, *OF_HNET, "--n_iter=20", "--lr=0.01", "--toy_seed=1"]
    together = run.main([*given, "--num_seeds=2", "--out_dir=a"])["seeds"]
    for seed, entry in zip((42, 43), together, strict=True):
        (alone,) = run.main([*given, f"--random_seed={seed}", f"--out_dir={seed}"])["seeds"]
        for name in ("final_error", "during_error", "forgetting"):
            assert alone[name] == pytest.approx(entry[name], rel=1e-4)


def test_more_tasks_after_those_of_a_finished_run():
    given = [*TOY, *of_method("si")]
    run.main([*given, "--num_tasks=2", "--out_dir=a", "--keep_weights"])
    more = run.main([*given, "--num_tasks=3", "--continue_from=a", "--out_dir=b"])
    whole = run.main([*given, "--num_tasks=3", "--out_dir=c"])
    assert [seed["error"] for seed in more["seeds"]] == [seed["error"] for seed in whole["seeds"]]
    early = load_run("a", after_task=0, no_cuda=True)
    assert early.predict(np.zeros((1, 1), np.float32), task=0).values.shape == (1, 1)


def test_what_was_learned_can_be_used():
    run.main([*TOY, *OF_HNET, "--num_tasks=2", "--out_dir=a"])
    results = read_json(Path("a", "results.json"))
    loaded = load_run("a", no_cuda=True)
    table = loaded.error()
    assert table["x + 3"]["2 x² - 1"] == results["seeds"][0]["error"][1][0]
    images = loaded.tasks[0].test.images
    for call, message in (
        (lambda: loaded.accuracy(), "the run has no accuracy: call error()"),
        (lambda: loaded.predict(images), "cannot be inferred in regression"),
        (lambda: loaded.classes(0), "have no classes"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            call()
    index = run.main(["--export=a", "--to=b"])
    assert index["task_type"] == "regression"
    assert [(f["classes"], f["outputs"]) for f in index["files"]] == [([], [0, 1])] * 2


def test_runs_of_regression_are_compared_with_each_other(monkeypatch, capsys):
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **_: file.write(b"a picture"))
    few = [*TOY, "--num_tasks=2", "--num_seeds=2"]
    for method in ("finetune", "ewc"):
        run.main([*few, *of_method(method), f"--out_dir={method}"])
    capsys.readouterr()
    with pytest.warns(UserWarning, match="with n = 2"):
        found = run.main(["--compare", "finetune", "ewc", "--report=c"])
    shown = capsys.readouterr().out
    assert found["measure"] == "mse"
    assert "mean squared error (lower is better), forgetting and transfer" in shown
    assert "CL2 (mean squared error: lower is better), differences to finetune" in shown
    assert "accuracy" not in shown
    captions = re.findall("<figcaption>(.*?)<", Path("c/report.html").read_text())
    assert captions == ["Error over time", "Final errors", "Error against memory", "Error matrices"]
    assert ",cl2,mean squared error," in Path("c/table.csv").read_text()
    text = Path("ewc", "results.json").read_text().replace('"error": [', '"accuracy": [')
    other = json.loads(re.sub(r'(final|during)_error"', r'\1_accuracy"', text))
    other.pop("measure")
    Path("d").mkdir()
    Path("d/results.json").write_text(json.dumps(seal(other)))
    with pytest.warns(UserWarning, match=r"d is left out: its tasks' accuracy is no mean squared"):
        mixed = run.main(["--compare", "finetune", "d"])
    assert len(mixed["rows"]) == 1


REFUSED = {
    "--cl_exp=splitmnist --task_type=regression": "whose labels are classes: leave it out, or",
    "--cl_exp=toyregression --task_type=classification": "whose labels are numbers: leave it out",
    "--cl_exp=toyregression --num_tasks=4": "is more than the 3 tasks of toyregression",
    "--cl_exp=toyregression --num_classes_per_task=2": "--num_classes_per_task=2 counts classes",
    "--cl_exp=toyregression --class_order=random": "--class_order goes with",
    "--cl_exp=toyregression --val_split=stratified": "--val_split=stratified holds out samples of",
    "--cl_exp=toyregression --scenarios_every_task": "--scenarios_every_task infers tasks from",
    "--cl_exp=toyregression --method=finetune --cl_scenario=3": "--cl_scenario=3 tells the classes",
    "--cl_exp=toyregression --method=lwf": "--method=lwf distills probabilities of classes",
    "--cl_exp=toyregression --method=replay": "add --replay_sampling=reservoir",
    "--cl_exp=toyregression --method=der --replay_per_class=3": "--replay_per_class=3 keeps",
    "--cl_exp=toyregression --method=ewc --fisher_labels=predicted": "gives no Fisher information",
    "--cl_exp=toyregression --plateau_lr_scheduler --val_set_size=0": "the validation error",
    "--cl_exp=splitmnist --toy_seed=1": "--toy_seed goes with --cl_exp=toyregression",
}


@pytest.mark.parametrize("given", REFUSED)
def test_what_makes_no_sense_is_refused_in_one_line(given, capsys):
    with pytest.raises(SystemExit) as refused:
        parse_args(given.split())
    assert refused.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert REFUSED[given] in line


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("ragged", "has 2 numbers in a training label and 1 in a test label: make them alike"),
        (
            "words",
            "labels of shape [40, 2] and type <U32: for --task_type=regression, give numbers",
        ),
        ("infinite", "has labels that are not finite in float32: take these out"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_targets_that_cannot_be(function, message):
    with pytest.raises(InputError, match=re.escape(message)):
        run.main([f"--cl_exp=my.py:{function}", *BY_FUNCTION[1:], *OF_HNET, "--out_dir=a"])
    assert not Path("a").exists()


def test_targets_may_be_a_single_number():
    results = run.main(["--cl_exp=my.py:flat", *BY_FUNCTION[1:], *OF_HNET, "--out_dir=a"])
    assert results["tasks"] == ["task 0", "task 1", "task 2"]
    assert load_run("a", no_cuda=True).tasks[0].train.labels.shape == (28, 1)


def test_the_toy_is_learned_and_drawn(tmp_path, monkeypatch, drawn_here):
    monkeypatch.setattr(Report, "_write_plots", WRITE_PLOTS)
    fits = []
    monkeypatch.setattr(plots, "fit", lambda *given: fits.append(given[0]) or FIT(*given))
    given = ["--no_cuda", "--loglevel_info", "--cl_exp=toyregression", "--method=separate",
             "--mlp_arch=20", "--net_act=tanh", "--lr=0.02", "--n_iter=300", "--num_seeds=2",
             "--random_seed=1", "--num_tasks=2"]  # fmt: skip
    results = run.main([*given, "--out_dir=a"])
    assert results["summary"]["final_error"]["mean"] < 0.02
    assert sorted(path.name for path in Path("a/plots").iterdir()) == [
        "error_matrix.png", "error_over_time.png", "fit.png", "losses.png",
    ]  # fmt: skip
    first, second = fits[-1]
    assert (first.name, second.name) == ("x + 3", "2 x² - 1")
    assert second.inputs[0] == pytest.approx(-1.4)
    assert second.inputs[-1] == pytest.approx(1.4)
    inner = [i for i, x in enumerate(second.inputs) if abs(x) < 0.9]
    for outputs in second.outputs:
        for i in inner:
            assert outputs[i] == pytest.approx(2 * second.inputs[i] ** 2 - 1, abs=0.35)
