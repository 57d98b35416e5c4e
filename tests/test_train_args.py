import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

from hypercl import ranges, registry
from hypercl.errors import InputError
from hypercl.options import GROUPS, METHODS, Options, all_options, defaults, differing
from hypercl.registry import Entry, entries
from train_args import altered_options, parse_args

DEFAULTS = {  # as JSON has them
    "method": "hnet",
    "cl_exp": "splitmnist",
    "task_type": None,
    "toy_seed": -1,
    "num_tasks": 5,
    "num_classes_per_task": 2,
    "beta": 0.01,
    "calc_hnet_reg_targets_online": False,
    "hnet_reg_batch_size": -1,
    "batch_size": 32,
    "n_iter": 1001,
    "epochs": -1,
    "lr": 0.0001,
    "momentum": 0.0,
    "weight_decay": 0,
    "adam_beta1": 0.9,
    "net_type": "mlp",
    "mlp_arch": [100, 100],
    "lenet_type": "mnist_small",
    "resnet_block_depth": 5,
    "resnet_channel_sizes": [16, 16, 32, 64],
    "wrn_block_depth": 4,
    "wrn_widening_factor": 10,
    "wrn_use_fc_bias": False,
    "net_act": "relu",
    "no_bias": False,
    "dropout_rate": -1,
    "specnorm": False,
    "batchnorm": False,
    "bn_no_running_stats": False,
    "bn_no_stats_checkpointing": False,
    "hnet_type": "chunked_hmlp",
    "hmlp_arch": [100, 100],
    "cond_emb_size": 8,
    "chmlp_chunk_size": 750,
    "chunk_emb_size": 8,
    "use_cond_chunk_embs": False,
    "hnet_net_act": "relu",
    "hnet_no_bias": False,
    "hnet_dropout_rate": -1,
    "val_iter": 500,
    "val_batch_size": 256,
    "val_set_size": 100,
    "val_split": None,
    "normalize": None,
    "test_with_val_set": False,
    "config": None,
    "out_dir": None,
    "continue_from": None,
    "keep_weights": False,
    "overwrite": False,
    "resume": False,
    "ckpt_iter": 500,
    "pause_after": -1,
    "sweep": None,
    "workers": None,
    "scheduler": None,
    "slurm": False,
    "lsf": False,
    "pbs": False,
    "retest": None,
    "retry_failed": False,
    "plot_format": "png",
    "eval": None,
    "compare": None,
    "label": None,
    "report": None,
    "export": None,
    "to": None,
    "format": "safetensors",
    "data_dir": "./datasets",
    "no_cuda": False,
    "loglevel_info": False,
    "num_threads": -1,
    "deterministic_run": False,
    "random_seed": 42,
    "num_seeds": 1,
    "tf32": False,
    "amp": False,
    "skip_tasks": 0,
    "num_train_samples": -1,
    "padding": 2,
    "no_augmentation": False,
    "multi_head": False,
    "hnet_reg_all_heads": False,
    "freeze_prev_embs": False,
    "lookahead": False,
    "lookahead_eps": "corrected",
    "task_loss": "mean",
    "use_sgd": False,
    "use_rmsprop": False,
    "clip_grad_value": -1,
    "clip_grad_norm": -1,
    "hnet_init": "default",
    "hyper_fan_init": False,
    "std_normal_temb": -1,
    "std_normal_emb": -1,
    "preset": None,
    "compression": -1,
    "dry_run": False,
    "keep_optimizer": False,
    "plateau_lr_scheduler": False,
    "lambda_lr_scheduler": False,
    "scenarios_every_task": False,
    "test_iter": 1,
    "class_order": "natural",
    "cl_scenario": -1,
    "mnet_init": "default",
    "separate_same_budget": False,
    "ewc_lambda": 100.0,
    "ewc_gamma": 1.0,
    "ewc_prior_variance": -1,
    "fisher_labels": "sample",
    "fisher_samples": -1,
    "fisher_total": False,
    "si_c": 1.0,
    "si_epsilon": 0.1,
    "lwf_temperature": 2.0,
    "lwf_lambda": -1,
    "lwf_mean_over_classes": False,
    "replay_budget": 2000,
    "replay_per_class": -1,
    "replay_sampling": "balanced",
    "replay_batch_size": -1,
    "replay_weight": 1.0,
    "der_alpha": 0.5,
    "der_beta": 0.5,
    "vae_encoder_arch": [400, 400],
    "vae_decoder_arch": [250, 350],
    "vae_latent_size": 100,
    "vae_condition_size": 100,
    "vae_beta": 0.01,
    "vae_hmlp_arch": [10, 10],
    "vae_hnet_act": "elu",
    "vae_chunk_size": 50000,
    "vae_emb_size": 96,
    "vae_chunk_emb_size": 96,
    "replay_share": 0.5,
    "tir_arch": [400, 400],
}


def test_defaults_are_those_of_the_script_it_replaces():
    assert dict(parse_args([]).values) == DEFAULTS


def test_lists():
    assert parse_args(["--mlp_arch=7"]).main_net.kind.mlp_arch == (7,)
    assert parse_args(["--hmlp_arch="]).hypernet.hmlp_arch == ()
    assert parse_args(["--mlp_arch", "3, 4"]).main_net.kind.mlp_arch == (3, 4)


def test_one_number_of_classes_is_an_int_and_several_are_a_list():
    """As config.json has had it, and goes on to compare."""
    for values in ({}, {"num_classes_per_task": 2}, {"num_classes_per_task": [2]}):
        options = Options.of(values)
        assert options.values["num_classes_per_task"] == options.task.num_classes_per_task == 2
        assert differing(dict(DEFAULTS), options.recorded) == []
    options = parse_args(["--num_classes_per_task=4,3,3"])
    assert options.values["num_classes_per_task"] == [4, 3, 3]
    assert options.values["num_tasks"] == options.task.num_tasks == 3
    again = parse_args([], stored=options.recorded)
    assert again.values == options.values
    late = parse_args(["--num_classes_per_task=4,3,3", "--skip_tasks=1"])
    assert late.task.num_tasks == 2


PERM = "--cl_exp=permmnist --num_classes_per_task=10"
CIFAR = "--cl_exp=splitcifar"


@pytest.mark.parametrize(
    "line",
    [
        "--num_tasks=10 --num_classes_per_task=1",
        "--num_tasks=3 --num_classes_per_task=3",
        "--num_tasks=3 --num_classes_per_task=4,3,3",
        "--num_tasks=2 --num_classes_per_task=4,3,3 --skip_tasks=1",
        f"{CIFAR} --num_classes_per_task=4,6,50,50 --class_order=random",
        "--class_order=9,8,7,6,5,4,3,2,1,0",
        f"{PERM} --num_tasks=100",
        f"{CIFAR} --num_tasks=11 --num_classes_per_task=10",
        f"{CIFAR} --num_tasks=55",
        f"{CIFAR} --net_type=lenet --lenet_type=cifar --dropout_rate=0.5",
        f"{CIFAR} --net_type=wrn --dropout_rate=0.3 --no_bias --wrn_use_fc_bias",
        "--net_type=lenet --lenet_type=mnist_large",
        "--batchnorm --bn_no_running_stats",
        "--use_cond_chunk_embs --cond_emb_size=0",
        "--momentum=0 --epochs=-1 --dropout_rate=-1.0",
        "--beta=0",
        "--num_tasks=2 --skip_tasks=3",
        f"{CIFAR} --num_tasks=10 --num_classes_per_task=10 --skip_tasks=1",
        f"{CIFAR} --net_type=zenke --dropout_rate=0.25",
        f"{PERM} --net_type=lenet --padding=0",
        "--use_sgd --momentum=0.9",
        "--batchnorm --val_set_size=1",
        "--batchnorm --bn_no_stats_checkpointing",
        "--use_rmsprop --momentum=0.5 --clip_grad_norm=1",
        "--lr=0.5 --lr=5e-1 --mlp_arch=3,4 --mlp_arch=3,4 --lookahead --lookahead=on",
        "--n_iter=3 --epochs=-1",
        "--preset=splitcifar10-resnet --n_iter=3",
        "--preset=splitmnist-small --epochs=2",
        "--preset=splitmnist-small --lr=1 --multi_head=off",
        *(f"--method={name}" for name in entries(METHODS)),
        "--cl_scenario=1 --multi_head",
        "--method=separate --cl_scenario=1 --separate_same_budget",
        "--method=separate --continue_from=a",
        "--method=ewc --cl_scenario=3 --fisher_labels=exact --fisher_samples=9 --ewc_lambda=0",
        "--method=online_ewc --ewc_gamma=1 --cl_scenario=2 --continue_from=a",
        "--method=lwf --lwf_lambda=0 --lwf_mean_over_classes --lwf_temperature=0.5",
        "--method=replay --replay_budget=10",
        "--method=replay --replay_budget=3 --replay_sampling=reservoir",
        "--method=der --replay_per_class=1 --replay_batch_size=3",
        "--method=derpp --num_classes_per_task=4,3,3 --skip_tasks=1 --replay_budget=6",
        "--method=derpp --num_classes_per_task=4,3,3 --replay_budget=10 --mnet_init=xavier",
    ],
)
def test_accepted(line):
    parse_args(line.split())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        # across options
        ("--num_tasks=6", ["--num_tasks=6", "--num_classes_per_task=2", "12 classes"]),
        ("--cl_exp=permmnist", ["permmnist", "--num_classes_per_task=10"]),
        (f"{CIFAR} --num_classes_per_task=3", ["splitcifar", "--num_classes_per_task"]),
        (f"{CIFAR} --num_tasks=12 --num_classes_per_task=10", ["--num_tasks=12", "110"]),
        ("--num_classes_per_task=4,3,4", ["--num_classes_per_task=4,3,4", "11 classes"]),
        ("--num_classes_per_task=4,3,3 --num_tasks=5", ["--num_tasks=5 is not the 3 of"]),
        ("--num_classes_per_task=4,3,3 --num_tasks=2", ["--num_tasks=2 is not the 3 of"]),
        ("--num_classes_per_task=4,3 --num_tasks=2 --skip_tasks=1", ["not the 1 of", "after"]),
        ("--num_classes_per_task=4,3,3 --skip_tasks=3", ["--skip_tasks=3 leaves none"]),
        (f"{CIFAR} --num_classes_per_task=4,3,5", ["task 3 would have 3 classes of CIFAR-10"]),
        (f"{PERM},10 --num_tasks=2", ["permmnist", "10,10", "--num_classes_per_task=10"]),
        ("--class_order=1,0", ["--class_order", "MNIST, 0 to 9,"]),
        ("--class_order=0,1,2,3,4,5,6,7,8,9,10", ["--class_order has 11 numbers"]),
        (f"{CIFAR} --class_order=0,1,2,3,4,5,6,7,8,9,11", ["CIFAR-100, 10 to 109,", "random"]),
        (f"{PERM} --class_order=random", ["--class_order goes with --cl_exp=splitcifar or"]),
        ("--class_order=3,3", ["--class_order", "3 more than once"]),
        ("--class_order=shuffled", ["--class_order", "neither natural nor random"]),
        ("--num_classes_per_task=4,x", ["--num_classes_per_task", "like 100,100"]),
        ("--num_classes_per_task=4,", ["--num_classes_per_task"]),
        ("--test_iter=0", ["--test_iter", "1 or more"]),
        ("--test_with_val_set --val_set_size=0", ["--test_with_val_set", "--val_set_size"]),
        ("--momentum=0.9", ["--momentum=0.9", "Adam"]),
        (f"{CIFAR} --net_type=lenet", ["--lenet_type=mnist_small", "--cl_exp=splitcifar"]),
        ("--net_type=lenet --lenet_type=cifar", ["--lenet_type=cifar", "--cl_exp=splitmnist"]),
        (f"{PERM} --net_type=lenet", ["--lenet_type=mnist_small", "--cl_exp=permmnist"]),
        (f"{CIFAR} --net_type=resnet --resnet_channel_sizes=16,8,32,64", ["16,8,32,64"]),
        (f"{CIFAR} --net_type=resnet --resnet_channel_sizes=16,16,32,32", ["16,16,32,32"]),
        (f"{CIFAR} --net_type=resnet --specnorm", ["--specnorm", "--net_type=resnet"]),
        ("--specnorm", ["--specnorm", "--net_type=mlp"]),
        ("--hyper_fan_init --hnet_init=xavier", ["--hyper_fan_init", "--hnet_init"]),
        ("--hyper_fan_init --std_normal_emb=1", ["--hyper_fan_init", "--std_normal_emb"]),
        (f"{CIFAR} --net_type=resnet --net_act=tanh", ["--net_act=tanh", "--net_type=resnet"]),
        ("--net_type=lenet --no_bias", ["--no_bias", "--net_type=lenet"]),
        (f"{CIFAR} --net_type=resnet --dropout_rate=.1", ["--dropout_rate=0.1", "=resnet"]),
        ("--net_type=lenet --batchnorm --bn_no_running_stats", ["--batchnorm", "=lenet"]),
        ("--bn_no_running_stats", ["--bn_no_running_stats", "--batchnorm"]),
        ("--bn_no_stats_checkpointing", ["--bn_no_stats_checkpointing", "--batchnorm"]),
        ("--method=ewc --batchnorm --bn_no_stats_checkpointing", ["--method=ewc has one for all"]),
        ("--method=ewc --scenarios_every_task", ["--scenarios_every_task", "cannot be inferred"]),
        (
            "--cond_emb_size=0 --use_cond_chunk_embs --std_normal_temb=1",
            ["--std_normal_temb concerns task embeddings", "--cond_emb_size=0"],
        ),
        ("--hnet_reg_all_heads", ["--hnet_reg_all_heads", "--multi_head"]),
        (
            "--batchnorm --bn_no_running_stats --bn_no_stats_checkpointing",
            ["--bn_no_stats_checkpointing", "--bn_no_running_stats"],
        ),
        ("--batchnorm --batch_size=1", ["--batch_size=1"]),
        ("--continue_from=a --num_tasks=3 --multi_head", ["--continue_from", "--multi_head"]),
        ("--continue_from=a --compression=1", ["--compression=1", "--continue_from"]),
        (
            "--continue_from=a --method=separate --separate_same_budget",
            ["--separate_same_budget", "--continue_from"],
        ),
        ("--continue_from=a/ --out_dir=./a", ["--continue_from=a is --out_dir too"]),
        # methods and scenarios
        ("--cl_scenario=0", ["--cl_scenario", "from 1 to 3"]),
        ("--cl_scenario=4", ["--cl_scenario", "from 1 to 3"]),
        ("--multi_head --cl_scenario=2", ["--multi_head is --cl_scenario=1, not --cl_scenario=2"]),
        ("--multi_head --method=si --cl_scenario=3", ["--multi_head", "not --cl_scenario=3"]),
        ("--cl_scenario=2", ["--cl_scenario=2", "--method=hnet", "in every run"]),
        ("--cl_scenario=3", ["--cl_scenario=3", "--method=hnet", "in every run"]),
        ("--method=separate --cl_scenario=2", ["--cl_scenario=2", "--method=separate"]),
        ("--continue_from=a --cl_scenario=1", ["--continue_from", "--cl_scenario=1"]),
        ("--continue_from=a --method=ewc --cl_scenario=3", ["--continue_from", "--cl_scenario=3"]),
        ("--continue_from=a --method=ewc --multi_head", ["--continue_from", "--multi_head"]),
        ("--method=joint --hmlp_arch=3", ["--hmlp_arch goes with --method=hnet"]),
        ("--method=finetune --compression=1", ["--compression goes with --method=hnet"]),
        ("--method=ewc --beta=1", ["--beta goes with --method=hnet"]),
        ("--method=ewc --lookahead", ["--lookahead goes with --method=hnet"]),
        ("--mnet_init=xavier", ["--mnet_init goes with --method=der or", "or --method=si"]),
        ("--method=ewc --ewc_gamma=1", ["--ewc_gamma goes with --method=online_ewc"]),
        ("--method=si --ewc_lambda=1", ["--ewc_lambda goes with --method=ewc or"]),
        ("--method=lwf --si_c=1", ["--si_c goes with --method=si"]),
        ("--method=lwf --lwf_temperature=0", ["--lwf_temperature"]),
        ("--method=ewc --fisher_labels=true", ["--fisher_labels", "predicted"]),
        ("--method=ewc --fisher_samples=0", ["--fisher_samples", "-1"]),
        ("--method=online_ewc --ewc_gamma=1.1", ["--ewc_gamma"]),
        (
            "--method=online_ewc --batchnorm --bn_no_running_stats",
            ["--bn_no_running_stats", "--method=online_ewc"],
        ),
        ("--method=der --der_beta=1", ["--der_beta goes with --method=derpp"]),
        ("--method=der --replay_weight=1", ["--replay_weight goes with --method=replay"]),
        ("--method=replay --replay_budget=9", ["--replay_budget=9", "10 classes", "reservoir"]),
        ("--method=der --num_tasks=4 --replay_budget=7", ["--replay_budget=7", "8 classes"]),
        (
            "--method=derpp --num_classes_per_task=4,3,3 --replay_budget=9",
            ["--replay_budget=9", "10 classes"],
        ),
        (
            "--method=replay --replay_per_class=2 --replay_budget=40",
            ["--replay_budget is chosen by --replay_per_class"],
        ),
        (
            "--method=der --replay_per_class=2 --replay_sampling=reservoir",
            ["--replay_sampling is chosen by --replay_per_class"],
        ),
        ("--method=naive", ["--method", "naive", "finetune"]),
        # given twice
        ("--lr=1 --lr=2", ["--lr is given as 1.0 and as 2.0: leave one out"]),
        ("--lookahead=off --lookahead", ["--lookahead is given as off and as on: leave one out"]),
        ("--epochs=2 --epochs=-1", ["--epochs is given as 2 and as -1: leave one out"]),
        ("--mlp_arch=3,4 --mlp_arch=", ["--mlp_arch is given as 3,4 and as : leave one out"]),
        ("--n_iter=3 --epochs=2", ["--epochs replaces --n_iter: leave one out"]),
        ("--resume --n_iter=3 --epochs=2", ["--epochs replaces --n_iter: leave one out"]),
        # without effect
        ("--lenet_type=cifar", ["--lenet_type goes with --net_type=lenet"]),
        ("--wrn_use_fc_bias=off", ["--wrn_use_fc_bias goes with --net_type=wrn"]),
        (f"{CIFAR} --net_type=resnet --mlp_arch=100,100", ["--mlp_arch goes with --net_type=mlp"]),
        ("--padding=0", ["--padding goes with --cl_exp=permmnist"]),
        (f"{PERM} --no_augmentation", ["--no_augmentation goes with --cl_exp=splitcifar"]),
        ("--hnet_type=hmlp --chmlp_chunk_size=9", ["--chmlp_chunk_size", "chunked_hmlp"]),
        ("--hnet_type=hmlp --chunk_emb_size=9", ["--chunk_emb_size", "chunked_hmlp"]),
        ("--beta=0 --hnet_reg_batch_size=1", ["--hnet_reg_batch_size", "--beta=0"]),
        ("--beta=0 --lookahead", ["--lookahead", "--beta=0"]),
        ("--plateau_lr_scheduler --val_set_size=0", ["--plateau_lr_scheduler", "--val_set_size"]),
        ("--batchnorm --bn_no_running_stats --batch_size=1", ["--batch_size=1", "--batchnorm"]),
        ("--hnet_type=hmlp --use_cond_chunk_embs", ["--use_cond_chunk_embs", "=hmlp"]),
        ("--cond_emb_size=0", ["--cond_emb_size=0"]),
        ("--compression=1 --hnet_type=hmlp", ["--compression=1", "--hnet_type=hmlp"]),
        ("--resume --overwrite", ["--resume", "--overwrite"]),
        ("--eval=out/a --out_dir=out/b", ["--eval", "--out_dir"]),
        ("--eval=out/a --pause_after=2", ["--pause_after", "--eval"]),
        ("--dry_run --pause_after=2", ["--pause_after", "--dry_run"]),
        ("--pause_after=0", ["--pause_after"]),
        ("--skip_tasks=1000000000", ["takes 2000000010 classes"]),
        ("--num_tasks=3 --skip_tasks=3", ["--skip_tasks=3", "12 classes"]),
        ("--use_sgd --use_rmsprop", ["--use_sgd", "--use_rmsprop"]),
        ("--use_sgd --adam_beta1=0.5", ["--adam_beta1=0.5"]),
        ("--use_rmsprop --lookahead", ["--lookahead", "Adam"]),
        ("--lookahead_eps=uncorrected", ["--lookahead_eps goes with --lookahead"]),
        (
            "--lookahead --lookahead_eps=uncorrected --weight_decay=0.1",
            ["--weight_decay=0.1", "--lookahead_eps=uncorrected"],
        ),
        ("--net_type=zenke", ["--net_type=zenke", "32x32x3", "28x28x1"]),
        (f"{CIFAR} --net_type=zenke --dropout_rate=0.6", ["--dropout_rate=0.6"]),
        (f"{CIFAR} --net_type=zenke --no_bias", ["--no_bias", "--net_type=zenke"]),
        (f"{PERM} --net_type=lenet --padding=1", ["30x30x1"]),
        ("--preset=splitmnist-smal", ["splitmnist-smal", "did you mean splitmnist-small"]),
        # ranges
        ("--clip_grad_norm=0", ["--clip_grad_norm"]),
        ("--num_train_samples=0", ["--num_train_samples"]),
        ("--mlp_arch=100,,x", ["--mlp_arch", "100,,x", "list"]),
        ("--mlp_arch=100,0", ["--mlp_arch"]),
        ("--resnet_channel_sizes=16,16", ["--resnet_channel_sizes", "2 numbers, not 4"]),
        ("--batch_size=0", ["--batch_size", "1 or more"]),
        ("--batch_size=3.5", ["--batch_size"]),
        ("--n_iter=0", ["--n_iter"]),
        ("--n_iter=--", ["--n_iter", "expected one argument"]),
        ("--cond_emb_size=10000000000000000000", ["--cond_emb_size", "larger than"]),
        ("--mlp_arch=4,10000000000", ["--mlp_arch", "larger than"]),
        ("--hnet_reg_batch_size=x", ["--hnet_reg_batch_size", "whole number"]),
        ("--epochs=0", ["--epochs", "-1"]),
        ("--lr=-1", ["--lr"]),
        ("--lr=0", ["--lr"]),
        ("--lr=nan", ["--lr"]),
        ("--beta=nan", ["--beta"]),
        ("--beta=inf", ["--beta"]),
        ("--weight_decay=-0.1", ["--weight_decay"]),
        ("--adam_beta1=1", ["--adam_beta1"]),
        ("--dropout_rate=1.5", ["--dropout_rate", "[0, 1)"]),
        ("--hnet_dropout_rate=nan", ["--hnet_dropout_rate"]),
        ("--chmlp_chunk_size=0", ["--chmlp_chunk_size"]),
        ("--val_iter=0", ["--val_iter"]),
        ("--ckpt_iter=-1", ["--ckpt_iter"]),
        ("--random_seed=-1", ["--random_seed"]),
        ("--net_type=vgg", ["--net_type", "vgg", "wrn"]),
        # names
        ("--momentun=0", ["--momentun", "did you mean --momentum"]),
        ("--num_task=5", ["--num_task", "did you mean --num_tasks"]),
        ("--zzzzzzz", ["--zzzzzzz", "--help"]),
        ("--seed=1", ["--seed", "did you mean --random_seed"]),
        ("--gpu", ["did you mean --no_cuda"]),
        ("--lr_hyper=1", ["did you mean --lr?"]),
        ("--dataset=mnist", ["did you mean --cl_exp"]),
        ("run", ["run", "--help"]),
    ],
)
def test_refused_in_one_line(line, words, capsys):
    with pytest.raises(SystemExit) as exit_:
        parse_args(line.split())
    assert exit_.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert message.startswith("run.py: error: ")
    for word in words:
        assert word in message


def test_an_empty_argument(capsys):
    """What an unset shell variable in quotes gives."""
    with pytest.raises(SystemExit) as exit_:
        parse_args([""])
    assert exit_.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_help_fits_the_terminal_and_breaks_no_word(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        parse_args(["--help"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= columns
    words = {word for field in all_options().values() for word in field.metadata["help"].split()}
    assert words <= set(text.split())


def test_help_groups_every_option_and_shows_its_default(capsys):
    with pytest.raises(SystemExit) as exit_:
        parse_args(["--help"])
    assert exit_.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for group in (
        "continual learning:",
        "training:",
        "main network:",
        "method:",
        "hypernetwork:",
        "evaluation:",
        "miscellaneous:",
    ):
        assert group in text
    for name in DEFAULTS:
        assert f"--{name} " in text
    shown = [name for name, d in DEFAULTS.items() if d is not False and name != "preset"]
    assert text.count("(default: ") == len(shown)
    examples = text.split("examples:")[1]
    assert examples.count("python run.py") == 12


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_help_fits_the_terminal(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        parse_args(["--help"])
    text = capsys.readouterr().out.split("examples:")[0]
    assert max(map(len, text.splitlines())) < min(columns, 112)


def test_help_imports_no_torch_and_is_quick():
    code = (
        "import sys\n"
        "import run\n"
        "try: run.main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    assert time.monotonic() - started < 5  # 0.1 s on a quiet machine


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--lr=1e-30 --mlp_arch= --hmlp_arch=7 --hnet_reg_batch_size=-3",
        "--no_cuda --amp --data_dir=/some/where --ckpt_iter=7 --random_seed=0",
        f"{CIFAR} --net_type=resnet --batchnorm --bn_no_running_stats --num_seeds=2",
        "--preset=paper-splitmnist --lookahead=off --lr=0.5",
    ],
)
def test_stored_options_give_a_command_line_that_gives_them(line):
    options = dict(parse_args(line.split()).values)
    assert dict(parse_args([], options).values) == options


def test_a_switch_can_be_turned_off_against_a_preset(capsys):
    assert parse_args(["--preset=paper-splitmnist"]).values["lookahead"]
    assert not parse_args(["--preset=paper-splitmnist", "--lookahead=off"]).values["lookahead"]
    with pytest.raises(SystemExit) as exit_:
        parse_args(["--lookahead", "maybe"])
    assert exit_.value.code == 2
    assert "'maybe' is neither on nor off" in capsys.readouterr().err


def test_a_stored_run_is_not_changed_by_a_preset_that_has_changed_since():
    stored = dict(parse_args(["--preset=paper-splitmnist"]).values)
    del stored["hnet_reg_all_heads"]  # as if that run had been before the option and the preset's
    args = parse_args([], stored)
    assert args.run.preset == "paper-splitmnist"
    assert not args.values["hnet_reg_all_heads"]
    assert args.values["lookahead"]


def test_options_beside_a_stored_run_are_checked_together_with_its_own(capsys):
    stored = dict(parse_args(["--use_sgd", "--momentum=0.9"]).values)
    for process in ("--resume", "--eval=there"):
        parse_args([process, "--momentum=0.9"])
        assert parse_args([process, "--momentum=0.5"], stored).train.momentum == 0.5
        with pytest.raises(SystemExit):
            parse_args([process, "--use_rmsprop"], stored)
    assert "--use_sgd and --use_rmsprop exclude each other" in capsys.readouterr().err


def test_a_conflict_with_a_preset_names_it(capsys):
    with pytest.raises(SystemExit):
        parse_args(["--preset=paper-splitmnist", "--use_sgd"])
    assert "(--preset=paper-splitmnist has --lookahead=on; what is" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse_args(["--preset=splitmnist-small", "--use_sgd", "--use_rmsprop"])
    assert "preset" not in capsys.readouterr().err
    assert parse_args(["--preset=paper-splitmnist", "--use_sgd", "--lookahead=off"]).train.use_sgd


def test_what_belongs_to_the_process_is_not_taken_from_a_stored_run():
    args = parse_args(["--out_dir=x", "--overwrite", "--loglevel_info", "--lr=0.5"])
    again = parse_args([], args.values)
    assert (again.run.out_dir, again.run.overwrite, again.run.loglevel_info) == (None, False, False)
    assert again.train.lr == 0.5


def test_options_that_bear_on_the_results_are_told_from_those_that_do_not():
    def options(line):
        return dict(parse_args(line.split()).values)

    stored = options("--lr=0.1 --mlp_arch=3,4 --out_dir=x")
    free = options(
        "--lr=0.1 --mlp_arch=3,4 --data_dir=y --plot_format=both --ckpt_iter=9 --loglevel_info "
        "--resume"
    )
    assert differing(stored, free) == []
    other = options("--lr=0.2 --mlp_arch=3 --no_cuda")
    assert differing(stored, other) == [
        "--lr (0.1 there, 0.2 here)",
        "--mlp_arch (3,4 there, 3 here)",
        "--no_cuda (off there, on here)",
    ]


def test_an_option_that_a_stored_run_does_not_know_counts_with_its_default():
    stored = dict(parse_args([]).values)
    del stored["tf32"]
    assert differing(stored, dict(parse_args([]).values)) == []
    assert differing(stored, dict(parse_args(["--tf32"]).values)) == ["--tf32 (off there, on here)"]
    assert differing({**stored, "later": 3}, stored) == ["--later (3 there, None here)"]


def test_not_set_is_none_inside():
    options = parse_args(["--epochs=-1", "--dropout_rate=-1.0", "--hnet_reg_batch_size=0"])
    assert options.train.epochs is None
    assert options.main_net.dropout_rate is None
    assert options.method.kind.hnet_reg_batch_size is None
    assert options.values["epochs"] == options.values["hnet_reg_batch_size"] == -1
    assert options.run.out_dir is None
    assert options.values["out_dir"] is None


def test_every_option_is_in_one_group_or_entry():
    names = [field for group in GROUPS for field in vars(getattr(Options.of({}), group))]
    assert len(names) == len(set(names)) + 2  # three groups have a kind
    assert defaults() == DEFAULTS
    for field in all_options().values():
        assert {"range", "help"} <= field.metadata.keys()


def test_options_with_other_values():
    options = parse_args(["--lr=0.5"])
    other = options.having(n_iter=7, mlp_arch=[3])
    assert (other.train.lr, other.train.n_iter, other.main_net.kind.mlp_arch) == (0.5, 7, (3,))
    assert options.train.n_iter == 1001
    assert other == Options.of(other.values)


def test_only_the_chosen_entrys_checks_are_made():
    parse_args([], {"resnet_channel_sizes": [16, 8, 8, 8]})  # of a network that is not built
    options = parse_args(["--cl_exp=splitcifar", "--net_type=resnet"])
    assert options.main_net.kind.name == "resnet"
    assert not hasattr(options.main_net.kind, "mlp_arch")


def test_a_presets_options_and_stored_ones_may_be_without_effect():
    parse_args(["--preset=splitmnist-small", "--beta=0"])
    parse_args(["--beta=0"], {"hnet_reg_batch_size": 1, "padding": 3})


def test_a_stored_runs_preset_may_be_gone(capsys):
    options = parse_args([], {"preset": "of-another-version", "lr": 0.5})
    assert altered_options(options) == []
    with pytest.raises(SystemExit):
        parse_args(["--use_sgd", "--use_rmsprop"], {"preset": "of-another-version"})
    assert "exclude each other" in capsys.readouterr().err


def test_values_have_one_spelling():
    options = Options.of({"hnet_reg_batch_size": 0, "mlp_arch": (5,), "epochs": -1})
    assert options.method.kind.hnet_reg_batch_size is None
    assert options.values["hnet_reg_batch_size"] == -1
    assert options.values["mlp_arch"] == [5]
    stored = {"hnet_reg_batch_size": -3, "mlp_arch": [5]}  # as an earlier version kept it
    assert differing(stored, options.values) == []
    with pytest.raises(InputError, match="--hnet_type=gru is none of chunked_hmlp, hmlp"):
        Options.of({"hnet_type": "gru"})


def test_what_is_recorded_concerns_the_run():
    """So that a run can be read where the file of an entry that it has not used is gone."""
    recorded = parse_args(["--net_type=lenet"]).recorded
    assert recorded["lenet_type"] == "mnist_small"
    assert {"mlp_arch", "resnet_block_depth", "padding"}.isdisjoint(recorded)
    assert differing(recorded, parse_args(["--net_type=lenet"]).values) == []


def test_an_entry_whose_fields_are_no_options_is_refused():
    class NoDataclass(Entry):
        strength: float = ranges.option(0.1, ranges.positive, "nobody sees it")

    @dataclass(frozen=True)
    class PlainField(Entry):
        strength: float = 0.1

    with pytest.raises(TypeError, match="NoDataclass is no @dataclass"):
        registry.require_options(NoDataclass)
    with pytest.raises(TypeError, match=r"PlainField\.strength is no option"):
        registry.require_options(PlainField)
