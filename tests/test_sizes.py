"""Sizes that cannot be meant: refused at once, with what they would take."""

import subprocess
import sys
from pathlib import Path

import pytest

from hypercl import sizes
from hypercl.errors import InputError
from train_args import parse_args

PERMUTED = "--cl_exp=permmnist --num_classes_per_task=10"
CIFAR = "--cl_exp=splitcifar"


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    monkeypatch.setattr(sizes, "total_memory", lambda: 24 << 30)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--num_seeds=1000000000", "--num_seeds=1000000000 with --num_tasks=5 takes 1,118 GiB"),
        ("--n_iter=1000000000", "--n_iter=1000000000 with --batch_size=32 takes 238 GiB for the"),
        ("--epochs=1000000000", "--epochs=1000000000 with --batch_size"),
        ("--batch_size=1000000000", "--n_iter=1001 with --batch_size=1000000000 takes"),
        ("--mlp_arch=100000,100000", "--mlp_arch=100000,100000 takes 75 GiB for the main net"),
        ("--hmlp_arch=1000000,1000000", "--hmlp_arch=1000000,1000000 with --cond_emb_size=8 and"),
        ("--cond_emb_size=1000000000", "--cond_emb_size=1000000000"),
        ("--chunk_emb_size=1000000000", "--chunk_emb_size=1000000000"),
        ("--chmlp_chunk_size=1000000000", "--chmlp_chunk_size=1000000000 with --hmlp_arch"),
        ("--mlp_arch=10000,10000 --hnet_type=hmlp", "the hypernetwork's last layer"),
        (f"{PERMUTED} --padding=100000", "--padding=100000 takes 2,608,433 GiB for the images"),
        (f"{PERMUTED} --num_tasks=100000000", "--num_tasks=100000000 takes"),
        (f"{CIFAR} --net_type=resnet --resnet_block_depth=1000000000", "--resnet_block_depth"),
        (f"{CIFAR} --net_type=wrn --wrn_widening_factor=1000000", "--wrn_widening_factor"),
    ],
)
def test_what_does_not_fit_is_refused_and_says_what_it_would_take(options, said):
    with pytest.raises(InputError) as error:
        sizes.require_memory(parse_args(options.split()))
    assert said in str(error.value)
    assert "this machine has 24 GiB: lower" in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        "", "--num_seeds=1000", "--n_iter=1000000", "--mlp_arch=1000,1000 --hnet_type=hmlp",
        f"{PERMUTED} --num_tasks=1000", f"{CIFAR} --net_type=wrn --chmlp_chunk_size=10000",
        "--val_batch_size=1000000000",
    ],
)  # fmt: skip
def test_what_may_fit_is_not(options, monkeypatch):
    sizes.require_memory(parse_args(options.split()))
    monkeypatch.setattr(sizes, "total_memory", lambda: None)  # of a system that does not say it
    sizes.require_memory(parse_args(["--num_seeds=1000000000"]))


@pytest.mark.parametrize("more", [[], ["--dry_run"]])
def test_the_answer_comes_without_torch_and_nothing_is_written(more, tmp_path):
    code = (
        "import sys, run\n"
        "from hypercl.errors import InputError\n"
        f"try: run.main(['--num_seeds=1000000000', *{more}])\n"
        "except InputError: sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r})\n{code}"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    assert not any(tmp_path.iterdir())
