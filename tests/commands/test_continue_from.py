"""More tasks after a finished run: --continue_from."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import FEW_STEPS, OWN_WEIGHTS, read_json, scalars

import run
import train
from benchmarks.common import last_wins
from hypercl.commands.continue_from import find_source
from hypercl.commands.dry_run import count_tests
from hypercl.errors import InputError
from hypercl.methods.base import OwnWeights
from hypercl.methods.hnet import Hnet
from hypercl.methods.hnet.output_regularizer import OutputRegularizer
from hypercl.options import EvaluationOptions
from hypercl.ranges import as_argument
from hypercl.rundir import saving
from hypercl.rundir.stored import seal
from train_args import parse_args

pytestmark = pytest.mark.usefixtures("few_digits")


def learn(num_tasks, out_dir, *options, after=None):
    line = last_wins([*FEW_STEPS, f"--num_tasks={num_tasks}", *options, f"--out_dir={out_dir}"])
    if "--hnet_type=hmlp" in options:
        line.remove("--chmlp_chunk_size=500")
    if any(option.startswith("--method=") for option in options):
        line = [option for option in line if "hmlp" not in option]
    return run.main(line if after is None else [*line, f"--continue_from={after}"])


def outcome(path, first=0):
    """All that must be the same, of the tasks from ``first`` on where it is of one task."""
    results = read_json(Path(path, "results.json"))
    for name in ("config", "seconds", "sha256", "continued_from"):
        results.pop(name, None)
    end = saving.decode(Path(path, "checkpoint.pt").read_bytes())
    tensors = saving.decode(Path(path, "weights.pt").read_bytes())
    for content in (end, tensors):
        for name in ("options", "made_by", "config", "report", "lengths", "sums"):
            content.pop(name, None)
    rows = map(json.loads, Path(path, "metrics.jsonl").read_text().splitlines())
    return {
        "results": results,
        "tensors": as_bytes([end, tensors]),
        "metrics": [row for row in rows if row["task"] >= first],
        "scalars": {
            (tag, step): value
            for (tag, step), value in scalars(path).items()
            if step > first * (6 if "train" in tag else 1)
        },
    }


def as_bytes(content):
    if isinstance(content, torch.Tensor):
        return content.numpy().tobytes()
    if isinstance(content, dict):
        return {name: as_bytes(value) for name, value in content.items()}
    return [as_bytes(value) for value in content] if isinstance(content, list) else content


class Summed(OwnWeights):
    """Held near the mean of the weights after all earlier tasks, which it keeps."""

    def remember(self, params, memory, task_id):
        return memory["sum"] / task_id if task_id > 0 else None

    def penalty_and_gradient(self, weights, anchor):
        moved = weights - anchor
        return moved.square().sum(1) / 2, moved

    def after_task(self, params, memory, end):
        return {"sum": memory.get("sum", 0) + params["weights"]}


@pytest.fixture
def own_weights(monkeypatch):
    """A method whose parameters do not depend on the number of tasks."""
    monkeypatch.setattr(Hnet, "build", lambda self, setting: Summed(setting, 0.1))
    monkeypatch.setattr(Hnet, "network_by_task", False)


@pytest.fixture
def same_start(monkeypatch):
    """A run of four tasks starts with the hypernetwork of one of two tasks."""
    init = OutputRegularizer.init

    def shorter(self, seeds):
        if len(self.setting.tasks) == 2:
            return init(self, seeds)
        setting = self.setting._replace(tasks=self.setting.tasks[:2])
        params = init(OutputRegularizer(self.options, setting), seeds)
        return self.extended(params, {}, seeds, 2)[0]

    monkeypatch.setattr(OutputRegularizer, "init", shorter)


MANY = ["--num_seeds=2", "--batchnorm", "--dropout_rate=0.2"]


@pytest.mark.parametrize("options", [[], MANY], ids=["alone", "seeds, statistics, dropout"])
def test_a_method_with_weights_of_its_own_learns_as_if_it_had_all_tasks_from_the_start(
    options, own_weights
):
    learn(4, "whole", *options)
    learn(2, "a", *options)
    learn(4, "b", *options, after="a")
    assert outcome("b", 2) == outcome("whole", 2)


# The initial hypernetwork of hnet_r depends on the number of tasks, as that of hnet does.
@pytest.mark.parametrize("method", sorted(OWN_WEIGHTS.keys() - {"hnet_r"}))
def test_each_method_learns_as_if_it_had_all_tasks_from_the_start(method):
    """Each seed by itself; the memory goes on, too."""
    options = [f"--method={method}", *MANY]
    options += [f"--{name}={as_argument(value)}" for name, value in OWN_WEIGHTS[method].items()]
    learn(3, "whole", *options)
    learn(2, "a", *options)
    results = learn(3, "b", *options, after="a")
    assert outcome("b", 2) == outcome("whole", 2)
    assert results["kept_bytes"] == read_json(Path("whole", "results.json"))["kept_bytes"]


def test_the_same_of_seeds_in_groups(own_weights, one_by_one):
    options = ["--num_seeds=2", "--batchnorm"]
    learn(3, "whole", *options)
    learn(2, "a", *options)
    learn(3, "b", *options, after="a")
    assert outcome("b", 2) == outcome("whole", 2)


@pytest.mark.parametrize(
    "options",
    [
        ["--num_seeds=2", "--hnet_reg_batch_size=1", "--hnet_dropout_rate=0.2"],
        ["--use_cond_chunk_embs", "--hyper_fan_init", "--std_normal_temb=0.03", "--batchnorm"],
        ["--use_cond_chunk_embs", "--cond_emb_size=0", "--std_normal_emb=0.5", "--lookahead"],
        ["--hnet_type=hmlp", "--freeze_prev_embs", "--weight_decay=0.01", "--hnet_init=xavier"],
    ],
    ids=lambda options: options[0],
)
def test_a_hypernetwork_does_from_the_same_start(options, same_start):
    learn(4, "whole", *options)
    learn(2, "a", *options)
    learn(4, "b", *options, after="a")
    assert outcome("b", 2) == outcome("whole", 2)


def test_it_does_not_matter_where_the_earlier_runs_ended(same_start):
    """A later task's embedding follows from the seed and the task alone."""
    learn(2, "a")
    learn(4, "b", after="a")
    learn(3, "c", after="a")
    learn(4, "d", after="c")
    assert outcome("d", 3) == outcome("b", 3)


class Killed(BaseException):
    """Stands for a signal."""


def test_it_is_an_ordinary_run_from_then_on(monkeypatch, one_by_one, capsys):
    """Killed in its second group, and continued where the earlier run is gone; tested again."""
    options = ["--num_seeds=2", "--batchnorm"]
    learn(2, "a", *options)
    before = {path: path.read_bytes() for path in Path("a").rglob("*") if path.is_file()}
    learn(3, "b", *options, after="a")
    for step in (3, 9):
        steps = iter(range(step))
        take = train.TaskTraining.step

        def kill(self, steps=steps, take=take):
            if next(steps, None) is None:
                raise Killed
            take(self)

        monkeypatch.setattr(train.TaskTraining, "step", kill)
        with pytest.raises(Killed):
            learn(3, f"c{step}", *options, after="a")
        monkeypatch.setattr(train.TaskTraining, "step", take)
    assert {path: path.read_bytes() for path in Path("a").rglob("*") if path.is_file()} == before
    shutil.rmtree("a")
    learn(3, "c3", *options, after="a")
    run.main(["--resume", "--out_dir=c9", "--loglevel_info"])
    for path in ("c3", "c9"):
        assert outcome(path) == outcome("b")
        assert read_json(Path(path, "results.json"))["continued_from"]["run"] == "a"
    capsys.readouterr()
    assert learn(3, "b", *options, after="a") == run.main(["--eval=b", "--no_cuda"])
    learn(4, "d", *options, after="b")
    with pytest.raises(InputError, match="a does not exist"):
        learn(3, "b", *options, "--overwrite", after="a")


def test_results_say_where_it_comes_from(capsys):
    first = learn(2, "a")
    capsys.readouterr()
    results = learn(3, "b", after="./a/")
    assert "goes on from a, which has learned 2 tasks" in capsys.readouterr().out
    source = {"run": "a", "num_tasks": 2, "sha256": first["sha256"]}
    assert results["continued_from"] == source
    assert results["seeds"][0]["accuracy"][:2] == first["seeds"][0]["accuracy"]
    for what in ("train", "test"):
        assert len(results["seconds"][what]) == 3
        assert results["seconds"][what][:2] == first["seconds"][what]
    with pytest.raises(InputError, match=r"--continue_from \(a there, None here\)"):
        learn(3, "b")


def test_seeds_that_failed_stay_behind(monkeypatch, own_weights):
    def fail(rows, seeds, task_id, first_step):
        return {43: "for a test"} if 43 in seeds and task_id == 1 else {}

    monkeypatch.setattr(train, "find_failures", fail)
    options = ["--num_seeds=3"]
    learn(3, "whole", *options)
    learn(2, "a", *options)
    results = learn(3, "b", *options, after="a")
    outcomes = [outcome("b", 2), outcome("whole", 2)]
    for content in outcomes:  # of a task that this seed does not reach
        content["results"]["seeds"][1].pop("accuracy_untrained")
    assert outcomes[0] == outcomes[1]
    assert [len(seed["accuracy"]) for seed in results["seeds"]] == [3, 1, 3]
    assert results["seeds"][1]["failed"] == "for a test"


def test_a_dry_run_counts_the_tasks_to_come(capsys):
    learn(2, "a")
    capsys.readouterr()
    learn(3, "b", "--dry_run", after="a")
    assert "; 6 steps" in capsys.readouterr().out
    assert not Path("b").exists()
    # All tasks learned after each of the new ones, and each of these twice before.
    options = EvaluationOptions()
    assert count_tests(range(3, 6), options, inferred=False) == 3 + 4 + 5 + 2 * 3


def damage(name):
    path = Path("a", name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def of_seed(**values):
    """Other values in a seed's results, or none."""
    path = Path("a", "results.json")
    results = read_json(path)
    seed = results["seeds"][0] | values
    results["seeds"] = [{k: v for k, v in seed.items() if v is not None or k not in values}]
    path.write_text(json.dumps(seal(results)))


def unfinished():
    results = read_json(Path("a", "results.json"))
    Path("a", "results.json").write_text(json.dumps(seal({**results, "status": "interrupted"})))


def change(**values):
    path = Path("a", "checkpoint.pt")
    content = saving.decode(path.read_bytes()) | values
    left = {k: v for k, v in content.items() if k not in values or v is not None}
    path.write_bytes(saving.encode(left))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two tasks that the refusals below harm in copies."""
    return tmp_path_factory.mktemp("finished")


@pytest.mark.parametrize(
    ("harm", "options", "words"),
    [
        (None, ["--num_tasks=2"], "--num_tasks=2 leaves nothing to learn after the 2 tasks of"),
        (None, ["--lr=0.5", "--num_seeds=2"],
         r"with other options: --lr \(0.01 there, 0.5 here\), --num_seeds .*\(--config=a has them"),
        (unfinished, [], "a is not a finished run: "),
        (lambda: shutil.rmtree("a"), [], "a does not exist"),
        (lambda: damage("results.json"), [], r"a/results\.json is damaged"),
        (lambda: damage("checkpoint.pt"), [], r"a/checkpoint\.pt is damaged: put a good copy"),
        (lambda: Path("a/checkpoint.pt").unlink(), [], r"a/checkpoint\.pt is missing"),
        (lambda: shutil.copy("a/checkpoint.before.pt", "a/checkpoint.pt"), [],
         r"a/checkpoint\.pt is not of that run's end"),
        (lambda: shutil.copy("a/weights.pt", "a/checkpoint.pt"), [], "not of this version"),
        (lambda: change(learned_memory=None), [], "not of this version"),
        (lambda: change(format=1), [], "not of this version"),
        (lambda: change(made_by="{"), [], "holds what no run of this version has written"),
        (lambda: change(seeds=None), [], "holds what no run of this version has written"),
        (lambda: change(learned={42: {}}), [], "holds what no run of this version has written"),
        (lambda: change(learned={42: {"weight0": torch.zeros(3)}}), [],
         "holds what no run of this version has written"),
        (lambda: change(learned_stats={42: []}), [],
         "holds what no run of this version has written"),
        (lambda: of_seed(accuracy_before="x"), [], r"a/results\.json is damaged"),
        (lambda: of_seed(accuracy_untrained=[None] * 3), [], r"a/results\.json is damaged"),
        (lambda: of_seed(accuracy_untrained=None), [], "holds what no run of this version"),
        (lambda: change(data="other"), [], "the data are not those with which a was learned"),
    ],
)  # fmt: skip
def test_refused_in_one_line(harm, options, words, finished):
    if not (finished / "a").exists():
        learn(2, finished / "a")
    shutil.copytree(finished / "a", "a")
    if harm is not None:
        harm()
    with pytest.raises(InputError, match=words) as refused:
        learn(3, "b", *options, after="a")
    assert "\n" not in str(refused.value)
    assert not Path("b").exists()


def test_tasks_for_which_the_network_would_have_to_grow_are_refused():
    """As many chunks generate it with three outputs as with two, at other places."""
    tasks = np.arange(3).repeat(60)
    labels = np.arange(180) % np.array([2, 2, 3]).repeat(60)
    images = np.random.default_rng(0).integers(0, 255, (180, 6, 6)).astype(np.uint8)
    arrays = {"images": images, "labels": labels, "tasks": tasks}
    np.savez("own.npz", **{f"{s}_{n}": a for s in ("train", "test") for n, a in arrays.items()})
    given = [*FEW_STEPS, "--cl_exp=own.npz"]
    run.main([*given, "--num_tasks=2", "--out_dir=a"])
    more = [*given, "--continue_from=a", "--out_dir=b"]
    for whole in ([], ["--dry_run"]):
        with pytest.raises(InputError, match=r"--continue_from=a have 3 classes, .* has 2 outputs"):
            run.main([*more, "--num_tasks=3", *whole])
    run.main([*given, "--out_dir=all"])
    with pytest.raises(InputError, match="--num_tasks=3 leaves nothing to learn after the 3 tasks"):
        run.main([*given, "--continue_from=all", "--out_dir=c"])


def test_what_cannot_be_known_later_is_refused_before_torch_is_imported(monkeypatch):
    monkeypatch.setattr(run, "import_torch", None)
    with pytest.raises(InputError, match="a does not exist"):
        learn(3, "b", after="a")


def test_versions_that_differ_are_said():
    learn(2, "a")
    made_by = json.loads(saving.decode(Path("a/checkpoint.pt").read_bytes())["made_by"])
    made_by["versions"]["torch"] = "0.1"
    change(made_by=json.dumps(made_by))
    with pytest.warns(UserWarning, match=r"left with torch 0\.1 and goes on with"):
        learn(3, "b", after="a")


def test_a_checkpoint_keeps_of_later_groups_what_they_wait_with(one_by_one):
    options = ["--num_seeds=2"]
    learn(2, "a", *options)
    learn(3, "b", *options, after="a")
    end = saving.decode(Path("b/checkpoint.pt").read_bytes())
    before = saving.decode(Path("b/checkpoint.before.pt").read_bytes())
    assert (end["group"], end["waiting"], sorted(end["learned"])) == (2, {}, [42, 43])
    assert (before["group"], before["waiting"], before["task_id"]) == (1, {}, 2)


def test_the_source_is_named_in_one_spelling():
    assert parse_args(["--continue_from=./out//a/"]).run.continue_from == "out/a"
    assert parse_args(["--continue_from="]).run.continue_from is None
    learn(2, "a")
    options = parse_args([*FEW_STEPS, "--continue_from=a", "--num_tasks=4"])
    assert find_source(options).num_tasks == 2
