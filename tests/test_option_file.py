"""Options from a file: --config."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hypercl.rundir.stored import seal
from train_args import parse_args


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def toml(text, name="f.toml"):
    Path(name).write_text(text)
    return f"--config={name}"


def recorded(line, name="run/config.json", **other):
    """A run's config.json, or its results.json."""
    options = parse_args(line.split()).recorded | other
    content = {"options": options, "versions": {}}
    if name.endswith("results.json"):
        content = {"status": "finished", "config": options, "seeds": []}
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(json.dumps(seal(content)))


def refused(capsys, *argv):
    with pytest.raises(SystemExit) as exit_:
        parse_args(list(argv))
    assert exit_.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert message.startswith("run.py: error: ")
    return message.removeprefix("run.py: error: ").strip()


EVERY_KIND = """
lr = 1
beta = 0.5
n_iter = 7
net_type = "mlp"
mlp_arch = [3, 4]
hmlp_arch = []
lookahead = true
clip_grad_norm = -1
hnet_reg_batch_size = 0
data_dir = "~/data"
loglevel_info = true
"""


def test_values_of_every_kind(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    options = parse_args([toml(EVERY_KIND)])
    line = "--lr=1 --beta=.5 --n_iter=7 --mlp_arch=3,4 --hmlp_arch= --lookahead --data_dir=~/data"
    expected = parse_args([*line.split(), "--loglevel_info"])
    assert options.values == {**expected.values, "config": "f.toml"}
    assert type(options.values["lr"]) is float


@pytest.mark.parametrize("numbers", ["0.5,0.25", "0,1"])
def test_numbers_of_a_normalization_in_toml_and_in_a_run(numbers):
    expected = parse_args([f"--normalize={numbers}"])
    assert parse_args([toml(f"normalize = [{numbers}]")]).task == expected.task
    recorded(f"--normalize={numbers}")
    assert parse_args(["--config=run"]).task == expected.task


def test_the_command_line_wins_and_repeats_nothing():
    options = parse_args([toml("lr = 0.5\nlookahead = true\nepochs = 3"), "--lr=2", "--n_iter=9"])
    assert (options.train.lr, options.method.kind.lookahead) == (2, True)
    assert (options.train.n_iter, options.train.epochs) == (9, None)
    assert parse_args([toml("n_iter = 3"), "--epochs=2"]).train.epochs == 2


def test_a_preset_in_a_file_is_below_its_options(capsys):
    config = toml('preset = "paper-splitmnist"\nlr = 0.5\nlookahead = false\nepochs = 2')
    options = parse_args([config, "--beta=3"])
    plain = parse_args(["--preset=paper-splitmnist", "--lr=0.5", "--lookahead=off", "--beta=3",
                        "--epochs=2"])  # fmt: skip
    assert options.values == {**plain.values, "config": "f.toml"}
    assert parse_args([toml('preset = "splitcifar10-resnet"\nn_iter = 3')]).train.epochs is None
    other = parse_args([toml('preset = "paper-splitmnist"\nlr = 0.5'), "--preset=splitmnist-small"])
    assert (other.run.preset, other.train.lr, other.train.n_iter) == ("splitmnist-small", 0.5, 5000)
    message = refused(capsys, toml('preset = "splitmnist-smal"'))
    assert message.startswith("f.toml: preset=splitmnist-smal is not known (did you mean splitmni")


@pytest.mark.parametrize("name", ["run/config.json", "run/results.json", "renamed.json"])
def test_the_options_of_a_run(name):
    line = "--mlp_arch=3 --use_sgd --momentum=0.5 --epochs=2 --beta=0"
    recorded(f"{line} --out_dir=old --overwrite --loglevel_info", name, preset="gone")
    given = "run" if name == "run/config.json" else name
    options = parse_args([f"--config={given}", "--out_dir=new"])
    expected = parse_args([*line.split(), "--out_dir=new"])
    assert options.values == {**expected.values, "config": given, "preset": "gone"}
    again = parse_args([f"--config={given}", "--n_iter=3"])
    assert (again.run.out_dir, again.train.epochs, again.train.n_iter) == (None, None, 3)


def test_a_runs_options_are_not_changed_by_a_preset_that_has_changed_since(capsys):
    recorded("--preset=paper-splitmnist --lr=0.25")
    content = json.loads(Path("run/config.json").read_text())
    del content["options"]["hnet_reg_all_heads"]
    Path("run/config.json").write_text(json.dumps(seal(content)))
    options = parse_args(["--config=run"])
    assert (options.train.lr, options.method.kind.hnet_reg_all_heads) == (0.25, False)
    assert options.run.preset == "paper-splitmnist"
    message = refused(capsys, "--config=run", "--preset=splitmnist-small")
    assert message == (
        "--preset=splitmnist-small beside --config=run/config.json, which has all options of a "
        "run: leave one out"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lrr = 1\nseed = 1\nmlp-arch = [3]\nzzzzzz = 1\n[train]",
         ["f.toml: no such option: lrr (did you mean lr?), seed (did you mean random_seed?), "
          "mlp-arch (did you mean mlp_arch?), zzzzzz, train"]),
        ("lr = true", ["f.toml: lr = True is not a number"]),
        ('lr = "0.1"', ["f.toml: lr = '0.1' is not a number"]),
        ("lr = nan", ["f.toml: lr: 'nan' is not a number in (0, inf)"]),
        ("n_iter = 3.0", ["f.toml: n_iter = 3.0 is not a whole number"]),
        ("n_iter = 0", ["f.toml: n_iter: '0' is not a whole number of 1 or more"]),
        ("epochs = 0", ["f.toml: epochs: ", "nor -1"]),
        ("hnet_reg_batch_size = 1.5", ["f.toml: hnet_reg_batch_size = 1.5 is not a whole number"]),
        ("lookahead = 1", ["f.toml: lookahead = 1 is not true or false"]),
        ('lookahead = "on"', ["f.toml: lookahead = 'on' is not true or false"]),
        ('mlp_arch = "3,4"', ["f.toml: mlp_arch = '3,4' is not an array of whole numbers"]),
        ("mlp_arch = [3, 4.5]", ["f.toml: mlp_arch = [3, 4.5] is not an array of whole numbers"]),
        ("normalize = 0.5", ["f.toml: normalize = 0.5 is not a string or an array of numbers"]),
        ('normalize = [0.5, "a"]', ["is not a string or an array of numbers"]),
        ("mlp_arch = [3, 0]", ["f.toml: mlp_arch: '3,0'"]),
        ("resnet_channel_sizes = [1]", ["f.toml: resnet_channel_sizes: '1' has 1 numbers, not 4"]),
        ("cl_exp = 1979-05-27", ["f.toml: cl_exp = ", "is not a string"]),
        ('cl_exp = "mnist"', ["f.toml: cl_exp: 'mnist' is none of ", "splitmnist"]),
        ('out_dir = "x"\noverwrite = true', ["f.toml: out_dir, overwrite cannot be in a file"]),
        ('config = "f.toml"', ["f.toml: config cannot be in a file"]),
        ("n_iter = 3\nepochs = 2", ["f.toml: epochs replaces n_iter: leave one out"]),
        ("lr = ", ["--config: f.toml is not TOML (Invalid value"]),
        ("use_sgd = true\nuse_rmsprop = true",
         ["exclude each other", "(--config=f.toml has --use_sgd=on, --use_rmsprop=on; what is"]),
        ('padding = 3', ["f.toml: --padding goes with --cl_exp=permmnist"]),
        ("beta = 0\nlookahead = true", ["f.toml: --lookahead concerns the regularizer"]),
    ],
)  # fmt: skip
def test_refused_by_file_and_key(text, words, capsys):
    message = refused(capsys, toml(text))
    for word in words:
        assert word in message


def test_files_that_are_none(capsys, folder):
    assert "no.toml does not exist" in refused(capsys, "--config=no.toml")
    (folder / "empty").mkdir()
    assert "empty/config.json does not exist" in refused(capsys, "--config=empty")
    (folder / "binary").write_bytes(b"\xff\xfe")
    assert "binary is not TOML" in refused(capsys, "--config=binary")
    (folder / "under").mkdir()
    (folder / "under" / "config.json").mkdir()
    assert "cannot be read (Is a directory)" in refused(capsys, "--config=under")
    for content in ("{", "[" * 100_000, "[1]", '{"name": 1}', '{"options": [1]}'):
        (folder / "other.json").write_text(content)
        assert refused(capsys, "--config=other.json").startswith("--config: other.json is ")
    recorded("--lr=0.5", "run/config.json")
    text = (folder / "run" / "config.json").read_text().replace("0.5", "0.25")
    (folder / "run" / "config.json").write_text(text)
    assert "is not as the run wrote it" in refused(capsys, "--config=run")
    recorded("", "run/config.json", later=3)
    assert "run/config.json: no such option: later" in refused(capsys, "--config=run")


def test_what_a_file_has_without_effect_is_refused_only_with_its_own_choices(capsys):
    base = toml('cl_exp = "permmnist"\nnum_classes_per_task = 10\npadding = 3')
    options = parse_args([base, "--cl_exp=splitmnist", "--num_classes_per_task=2"])
    assert options.task.cl_exp == "splitmnist"
    config = toml("padding = 3")
    options = parse_args([config, "--cl_exp=permmnist", "--num_classes_per_task=10"])
    assert options.task.kind.padding == 3
    assert "--padding goes with" in refused(capsys, config)
    message = refused(capsys, base, "--lenet_type=cifar")  # the command line's own, as ever
    assert message.startswith("--lenet_type goes with")


def test_a_runs_options_may_be_without_effect_beside_another_choice():
    recorded("--net_type=lenet --hnet_reg_batch_size=1")
    options = parse_args(["--config=run", "--net_type=mlp", "--beta=0"])
    assert options.main_net.kind.name == "mlp"


def test_a_run_goes_on_without_the_file_and_beside_it(capsys):
    stored = parse_args([toml("lr = 0.5"), "--out_dir=x"]).recorded
    assert stored["config"] == "f.toml"
    Path("f.toml").unlink()
    options = parse_args(["--resume", "--out_dir=x"], stored)
    assert (options.train.lr, options.run.config) == (0.5, None)


def test_it_is_read_without_torch():
    toml("lr = 0.5")
    recorded("")
    code = (
        "import sys, train_args\n"
        "train_args.parse_args(['--config=f.toml'])\n"
        "train_args.parse_args(['--config=run'])\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(root)})
