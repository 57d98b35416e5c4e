"""How many threads a run computes with."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import CIFAR_SHAPE, MNIST_SHAPE, build_main_net

import run
from hypercl.engine import threads
from hypercl.engine.threads import processor, use_threads

SMALL, LARGE = 2_860_800, 2_203_602_944  # multiplications of the default network, of a ResNet-32


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch):
    """A quiet environment on a large machine; the process's number of threads is put back."""
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "_processors", lambda: 8)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("wanted", "work", "number"),
    [(None, SMALL, 1), (None, LARGE, 8), (3, SMALL, 3), (3, LARGE, 3), (1, LARGE, 1)],
)
def test_the_number_follows_from_the_option_or_the_work(wanted, work, number):
    use_threads(wanted, work)
    assert torch.get_num_threads() == number


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_the_environment_wins_over_the_choice_and_the_option_over_both(name, monkeypatch):
    monkeypatch.setenv(name, "2")  # as torch has read it
    use_threads(None, LARGE)
    assert torch.get_num_threads() == 2
    use_threads(4, SMALL)
    assert torch.get_num_threads() == 4


def test_no_more_than_the_process_may_have(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(6)))
    for quota, number in ((math.inf, 6), (3.5, 3), (0.2, 1)):
        monkeypatch.setattr(threads, "processor_quota", lambda quota=quota: quota)
        assert threads._processors.__wrapped__() == number


def test_multiplications_of_a_forward_pass():
    mlp = build_main_net("mlp", MNIST_SHAPE, 2, mlp_arch=[100, 100])
    assert mlp.count_multiplications(784) == (784 * 100 + 100 * 100 + 100 * 2)
    assert mlp.count_multiplications(784) * 32 < threads._WORTH_IT
    resnet = build_main_net("resnet", CIFAR_SHAPE, 10, resnet_block_depth=1)
    first, rest = 16 * 3 * 9 * 32 * 32, 16 * 16 * 9 * 32 * 32
    assert resnet.count_multiplications(math.prod(CIFAR_SHAPE)) > first + 2 * rest


def test_a_run_says_and_records_its_threads(tmp_path, capsys):
    options = ["--no_cuda", "--n_iter=2", "--num_tasks=1", "--mlp_arch=5", "--hmlp_arch=5"]
    for given, said in (([], "cpu with 1 thread;"), (["--num_threads=3"], "cpu with 3 threads;")):
        out_dir = tmp_path / said[9]
        run.main([*options, *given, f"--out_dir={out_dir}"])
        assert said in capsys.readouterr().out
        assert f"CPU, {said[9]} threads" in (out_dir / "config.json").read_text()
    assert processor(torch.device("cuda")) == "cuda"


def test_a_run_goes_on_with_other_threads_and_a_warning(tmp_path, monkeypatch):
    from hypercl.rundir.directory import RunDir

    options = ["--no_cuda", "--n_iter=6", "--num_tasks=1", "--mlp_arch=5", "--hmlp_arch=5"]
    options += ["--ckpt_iter=3", f"--out_dir={tmp_path / 'run'}"]

    def die(self, lengths):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "write_metrics", die)
        with pytest.raises(KeyboardInterrupt):
            run.main([*options, "--num_threads=2"])
    with pytest.warns(UserWarning, match="with device CPU, 2 threads.* goes on with CPU, 1 thr"):
        assert run.main([*options, "--num_threads=1"])["status"] == "finished"


def test_the_choice_does_not_import_what_takes_seconds():
    code = (
        "import sys; from hypercl.networks.main_net import MainNetwork\n"
        "from hypercl.options import Options\n"
        "options = Options.of({'net_type': 'resnet'}).main_net\n"
        "net = MainNetwork(options.kind.build(options, (32, 32, 3), 10))\n"
        "assert net.count_multiplications(3072) > 0\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
