"""Every option does something, or is refused: each is changed in a small run, and all that the run
leaves is compared.

A run is told by its results, metrics, log, weights' shapes and screen. An option that is ignored
inside leaves them as they were, and its row fails.
"""

import json
import re

import numpy as np
import pytest
import torch
from helpers import fake_images

import run
from hypercl.errors import InputError, RunFailed
from hypercl.options import all_options
from hypercl.report.results import Report
from hypercl.rundir.directory import RunDir
from hypercl.tasks import images

SMALL = {
    "no_cuda": None, "n_iter": 8, "num_tasks": 2, "mlp_arch": 6, "hmlp_arch": 6, "batch_size": 8,
    "val_set_size": 8, "lr": 0.01,
}  # fmt: skip
EPOCHS_OF_ONE_STEP = {"num_train_samples": 8, "num_tasks": 1}
CIFAR = {"cl_exp": "splitcifar", "mlp_arch": ()}  # (): not given
RESNET = {**CIFAR, "net_type": "resnet", "resnet_block_depth": 1, "num_tasks": 1, "n_iter": 2}
WRN = {
    **CIFAR, "net_type": "wrn", "wrn_block_depth": 1, "wrn_widening_factor": 1, "num_tasks": 1,
    "n_iter": 2,
}  # fmt: skip
BATCHNORM = {"batchnorm": None}


# Tasks whose labels can be taken for classes and for numbers.
MY = """
import numpy as np


def tasks():
    inputs = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    labels = np.arange(40) % 2
    return [(inputs + labels[:, None], labels, inputs, labels)] * 2
"""


VAE = {
    "vae_encoder_arch": 8, "vae_decoder_arch": 7, "vae_latent_size": 4, "vae_condition_size": 2,
    "vae_hmlp_arch": 6, "vae_emb_size": 4, "vae_chunk_emb_size": 4, "vae_chunk_size": 700,
}  # fmt: skip


def of(method, **more):
    """What is given to a method without a hypernetwork."""
    return {"method": method, "hmlp_arch": (), **more}


# By option: a value, and what else is given in both runs where the small run does not read it.
CHANGED = {
    "cl_exp": ("permmnist", {"num_tasks": 1, "num_classes_per_task": 10}),
    "num_tasks": (3, {}),
    "num_classes_per_task": ("3,2", {}),
    "skip_tasks": (1, {}),
    "num_train_samples": (5, {}),
    "val_set_size": (4, {}),
    "normalize": ("dataset", {}),
    "multi_head": (None, {}),
    "data_dir": ("other", {}),
    "task_loss": ("total", {}),
    "batch_size": (9, {}),
    "n_iter": (9, {}),
    "epochs": (2, {"n_iter": ()}),
    "lr": (0.02, {}),
    "use_sgd": (None, {}),
    "use_rmsprop": (None, {}),
    "momentum": (0.5, {"use_sgd": None}),
    "weight_decay": (0.1, {}),
    "adam_beta1": (0.5, {}),
    "keep_optimizer": (None, of("finetune")),
    "plateau_lr_scheduler": (None, {**EPOCHS_OF_ONE_STEP, "n_iter": 30}),
    "lambda_lr_scheduler": (None, {**EPOCHS_OF_ONE_STEP, "n_iter": 90}),
    "clip_grad_value": (1e-5, {}),
    "clip_grad_norm": (1e-3, {"use_sgd": None}),
    "net_type": ("lenet", {"mlp_arch": ()}),
    "net_act": ("tanh", {}),
    "no_bias": (None, {}),
    "dropout_rate": (0.5, {}),
    "batchnorm": (None, {}),
    "bn_no_running_stats": (None, BATCHNORM),
    "bn_no_stats_checkpointing": (None, BATCHNORM),
    "hnet_type": ("hmlp", {}),
    "hmlp_arch": (7, {}),
    "cond_emb_size": (5, {}),
    "chmlp_chunk_size": (500, {}),
    "compression": (0.5, {}),
    "chunk_emb_size": (5, {}),
    "use_cond_chunk_embs": (None, {}),
    "hnet_net_act": ("tanh", {}),
    "hnet_no_bias": (None, {}),
    "hnet_dropout_rate": (0.5, {}),
    "hnet_init": ("xavier", {}),
    "hyper_fan_init": (None, {"std_normal_temb": 0.03}),
    "std_normal_temb": (0.5, {}),
    "std_normal_emb": (0.5, {}),
    "val_iter": (3, {}),
    "val_batch_size": (5, {**BATCHNORM, "bn_no_running_stats": None}),
    "test_with_val_set": (None, {}),
    "test_iter": (3, {"num_tasks": 3}),
    "scenarios_every_task": (None, {}),
    "keep_weights": (None, {}),
    "ckpt_iter": (3, {}),
    "num_threads": (2, {}),
    "loglevel_info": (None, {}),
    "deterministic_run": (None, {}),
    "random_seed": (1, {}),
    "num_seeds": (2, {}),
    "amp": (None, {}),
    "task_type": ("regression", {"cl_exp": "my.py:tasks", "num_tasks": (), "val_split": "first"}),
    "toy_seed": (1, {"cl_exp": "toyregression"}),
    "padding": (1, {"cl_exp": "permmnist", "num_tasks": 1, "num_classes_per_task": 10}),
    "class_order": ("1,0,2,3,4,5,6,7,8,9", {}),
    "no_augmentation": (None, {**CIFAR, "mlp_arch": 6}),
    "lenet_type": ("mnist_large", {"net_type": "lenet", "mlp_arch": ()}),
    "mlp_arch": (7, {}),
    "resnet_block_depth": (2, RESNET),
    "resnet_channel_sizes": ("4,4,6,8", RESNET),
    "wrn_block_depth": (2, WRN),
    "wrn_widening_factor": (2, WRN),
    "wrn_use_fc_bias": (None, {**WRN, "no_bias": None}),
    "beta": (1.0, {}),
    "calc_hnet_reg_targets_online": (None, {"hnet_type": "hmlp", "hmlp_arch": 20}),
    "hnet_reg_batch_size": (1, {"num_tasks": 3}),
    "hnet_reg_all_heads": (None, {"multi_head": None}),
    "freeze_prev_embs": (None, {}),
    "lookahead": (None, {}),
    "lookahead_eps": ("uncorrected", {"lookahead": None}),
    "cl_scenario": (3, of("finetune")),
    "mnet_init": ("xavier", of("finetune")),
    "separate_same_budget": (None, of("separate")),
    "vae_encoder_arch": (9, of("hnet_r", **VAE)),
    "vae_decoder_arch": (9, of("hnet_r", **VAE)),
    "vae_latent_size": (5, of("hnet_r", **VAE)),
    "vae_condition_size": (3, of("hnet_r", **VAE)),
    "vae_beta": (5.0, of("hnet_r", **VAE)),
    "vae_hmlp_arch": (5, of("hnet_r", **VAE)),
    "vae_hnet_act": ("tanh", of("hnet_r", **VAE)),
    "vae_chunk_size": (900, of("hnet_r", **VAE)),
    "vae_emb_size": (3, of("hnet_r", **VAE)),
    "vae_chunk_emb_size": (3, of("hnet_r", **VAE)),
    "replay_share": (0.2, of("hnet_r", **VAE)),
    "tir_arch": (9, {**VAE, "method": "hnet_tir", "multi_head": None}),
    "ewc_lambda": (1e4, of("ewc")),
    "fisher_labels": ("exact", of("ewc", ewc_lambda=1e4)),
    "fisher_total": (None, of("ewc")),
    "ewc_prior_variance": (0.1, of("ewc")),
    "fisher_samples": (5, of("ewc", ewc_lambda=1e4)),
    "ewc_gamma": (0.5, of("online_ewc", ewc_lambda=1e4)),
    "si_c": (100, of("si")),
    "si_epsilon": (0.001, of("si", si_c=100)),
    "lwf_temperature": (1, of("lwf")),
    "lwf_lambda": (1, of("lwf")),
    "lwf_mean_over_classes": (None, of("lwf")),
    "replay_budget": (40, of("replay")),
    "replay_per_class": (3, of("replay")),
    "replay_sampling": ("reservoir", of("replay", replay_budget=20)),
    "replay_batch_size": (5, of("replay")),
    "replay_weight": (2, of("replay")),
    "der_alpha": (2, of("der")),
    "der_beta": (2, of("derpp")),
}
# What these do is no part of what one run on a CPU leaves; tests of their own see to it.
ELSEWHERE = {
    "method", "preset", "config", "out_dir", "overwrite", "resume", "continue_from", "eval",
    "compare", "label", "report", "export", "to", "format", "dry_run", "no_cuda", "plot_format",
    "specnorm", "tf32", "val_split", "pause_after", "sweep", "workers", "scheduler", "slurm",
    "lsf", "pbs", "retest", "retry_failed",
}  # fmt: skip


def test_every_option_is_changed_here_or_elsewhere():
    assert CHANGED.keys() | ELSEWHERE == all_options().keys()
    assert not CHANGED.keys() & ELSEWHERE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Small images in MNIST's and CIFAR's place, and others in the folder "other"."""
    folder = tmp_path_factory.mktemp("effects")
    for seed, name in enumerate(("datasets", "other")):
        (folder / name).mkdir()
        for data_set, shape in (("mnist", (28, 28)), ("cifar10", (32, 32, 3))):
            made = fake_images(10, 30, shape, seed=seed)
            np.savez(folder / name / f"{data_set}.npz", **made._asdict())
    (folder / "my.py").write_text(MY)
    return folder


@pytest.fixture
def leave(folder, monkeypatch, capsys):
    """A function that runs with some options and returns all that is left, but for times."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(images, "_packaged_mnist_path", lambda: None)
    for name, data_set in images._DATASETS.items():
        small = data_set._replace(md5=None, num_train=300, num_test=150)
        monkeypatch.setitem(images._DATASETS, name, small)
    monkeypatch.setattr(Report, "_write_plots", lambda self: None)
    for name in ("write_scalars", "write_settings"):
        monkeypatch.setattr(RunDir, name, lambda *_: None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    write = RunDir.write_checkpoint
    threads = torch.get_num_threads()

    def of_run(options, path):
        monkeypatch.setattr(
            RunDir, "write_checkpoint", lambda *args: (saved.append(1), write(*args))
        )
        saved = []
        given = [
            f"--{name}" if value is None else f"--{name}={value}"
            for name, value in options.items()
            if value != ()
        ]
        results = run.main([*given, f"--out_dir=out/{path}"])
        weights = torch.load(folder / "out" / path / "weights.pt", weights_only=True)
        left = {
            "results": {k: results[k] for k in results if k not in ("config", "seconds", "sha256")},
            "metrics": (folder / "out" / path / "metrics.jsonl").read_text(),
            "files": sorted(p.name for p in (folder / "out" / path).rglob("*")),
            "log": without_times((folder / "out" / path / "logfile.txt").read_text(), path),
            "screen": without_times(capsys.readouterr().out, path),
            "weights": weights[results["method"]],
            "device": json.loads((folder / "out" / path / "config.json").read_text())["device"],
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "checkpoints": len(saved),
        }
        torch.use_deterministic_algorithms(False)
        return {name: repr(value) for name, value in left.items()}

    yield of_run
    torch.set_num_threads(threads)


def without_times(text, path):
    """Nor lines that name the run directory."""
    times = r"^[\d-]+ [\d:]+ |, [\d:]+ left|.*" + re.escape(f"out/{path}") + ".*"
    return re.sub(times, "", text, flags=re.M)


@pytest.mark.parametrize("option", CHANGED)
def test_an_option_changes_what_a_run_leaves(option, leave):
    value, needs = CHANGED[option]
    base = {**SMALL, **needs}
    before = leave(base, f"{option} before")
    after = leave({**base, option: value}, f"{option} after")
    changed = [name for name in before if before[name] != after[name]]
    assert changed


# Worlds in which much is not read. What is given there does something or is refused, but for what
# is read without consequence: how many are tested at a time or in turn, or what two tasks of this
# size make no difference to.
WORLDS = {
    "nothing": {"beta": 0, "val_set_size": 0, "hmlp_arch": "", "mlp_arch": "", "no_cuda": None},
    "hmlp, three tasks": {"hnet_type": "hmlp", "num_tasks": 3},
    "compressed, heads": {"compression": 0.5, "multi_head": None, "use_rmsprop": None},
    "a buffer by classes": of("derpp", replay_per_class=3, multi_head=None),
}
WITHOUT_CONSEQUENCE = {
    "nothing": {"val_batch_size", "test_iter", "freeze_prev_embs"},
    "hmlp, three tasks": {"val_batch_size"},
    "a buffer by classes": {"val_batch_size", "test_iter", "lambda_lr_scheduler"},
    "compressed, heads": {
        "val_batch_size", "test_iter", "calc_hnet_reg_targets_online", "hnet_reg_batch_size",
    },
}  # fmt: skip


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.filterwarnings("ignore:Note, hypernetwork inputs", "ignore:Initial variance")
def test_an_option_that_nothing_reads_is_refused(world, leave):
    base, silent = {**SMALL, **WORLDS[world]}, set()
    before = leave(base, f"{world}, world")
    for option in sorted(CHANGED.keys() - WORLDS[world].keys()):
        given = {**base, option: CHANGED[option][0]}
        if option == "epochs":
            del given["n_iter"]
        try:
            after = leave(given, f"{world}, {option}")
        except (SystemExit, InputError, RunFailed):  # the last: a loss that is not finite
            continue
        if after == before:
            silent.add(option)
    assert silent == WITHOUT_CONSEQUENCE[world]


def test_nothing_changes_by_itself(leave):
    assert leave(SMALL, "once") == leave(SMALL, "twice")
