"""Every option of run.py, its range, and the checks across options. Imports no torch."""

import argparse
import difflib
import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from hypercl import published

EXAMPLES = """\
examples:
  SplitMNIST, 5 tasks of 2 digits, default networks
    python run.py
  the same over five seeds: in one process, or in a shell loop
    python run.py --num_seeds=5
    for s in 1 2 3 4 5; do python run.py --random_seed=$s --out_dir=out/s$s --loglevel_info; done
  PermutedMNIST, 10 tasks, one random earlier task regularized per step
    python run.py --cl_exp=permmnist --num_classes_per_task=10 --num_tasks=10 \\
        --hnet_reg_batch_size=1
  SplitCIFAR-10/100, 6 tasks of 10 classes, ResNet-32
    python run.py --cl_exp=splitcifar --num_classes_per_task=10 --num_tasks=6 --net_type=resnet
  a convolutional main network whose weights come from a full, linear hypernetwork
    python run.py --net_type=lenet --hnet_type=hmlp --hmlp_arch= --epochs=1
  what is forgotten without the regularizer
    python run.py --beta=0 --out_dir=out/no_regularizer
"""


_MAX_INT = 10**9  # for any number that counts something; the product of two fits 64 bits

# The experiments, and what their images measure (without --padding).
IMAGE_SIZES = {"splitmnist": "28x28x1", "permmnist": "28x28x1", "splitcifar": "32x32x3"}


def parse_args(
    argv: list[str] | None = None, stored: Mapping[str, Any] | None = None
) -> argparse.Namespace:
    """Read and check the command line.

    Args:
        argv: The arguments without the program's name; ``None`` takes ``sys.argv``.
        stored: Options of an earlier run, which count where they are not given. A command line that
            names such a run, with --resume or --eval, is checked as a whole with them alone.

    Returns:
        One attribute an option; lists are tuples of int.

    Raises:
        SystemExit: With code 2 and one line on stderr for a bad option, with code 0 for ``--help``.
    """
    parser = make_parser()
    argv = sys.argv[1:] if argv is None else argv
    argv = _with_preset(parser, argv)
    if stored is not None:  # with their preset's as they were when that run began
        argv = [*as_arguments(stored), *argv]
    args = parser.parse_args(argv)
    for name, value in vars(args).items():
        if isinstance(value, list):  # Python's argparse makes an empty one of --name=--
            parser.error(f"argument --{name}: expected one argument")
    complete = stored is not None or not (args.resume or args.eval is not None)
    for problem in [*_problems_of_process(args), *(_problems(args) if complete else ())]:
        parser.error(problem + _from_preset(args, problem))
    return args


def make_parser() -> argparse.ArgumentParser:
    """The parser of all options, without the checks across them."""
    parser = _Parser(
        prog="run.py",
        usage="python run.py [options]",
        description="Continual learning with a hypernetwork (von Oswald et al., ICLR 2020).",
        epilog=EXAMPLES,
        formatter_class=_Formatter,
        allow_abbrev=False,  # an option added later must not change what an old script means
    )
    _add_options(parser)
    return parser


# What these say of a run, it may say otherwise when it is continued: the results are the same.
_OF_THE_PROCESS = ("out_dir", "overwrite", "resume", "eval", "dry_run", "loglevel_info")
_WITHOUT_EFFECT = (*_OF_THE_PROCESS, "data_dir", "ckpt_iter")


def plain_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options as JSON has them."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(args).items()}


def as_arguments(options: Mapping[str, Any]) -> list[str]:
    """A command line that gives these options, but for those of a run's process."""
    return [
        f"--{name}={_as_argument(value)}"
        for name, value in options.items()
        if value is not None and name not in _OF_THE_PROCESS
    ]


def differing_options(stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Which options that bear on the results differ: ``--lr (0.1 there, 0.2 here)`` each.

    Options that one of the two does not know, being of another version, count with their default.
    """
    defaults = plain_options(make_parser().parse_args([]))
    return [
        f"--{name} ({_as_argument(there)} there, {_as_argument(here)} here)"
        for name in dict.fromkeys([*defaults, *stored, *given])
        if name not in _WITHOUT_EFFECT
        and (there := stored.get(name, defaults.get(name)))
        != (here := given.get(name, defaults.get(name)))
    ]


def _as_argument(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _with_preset(parser: argparse.ArgumentParser, argv: list[str]) -> list[str]:
    """A preset's options before those given, which win over them."""
    chosen = _Parser(prog=parser.prog, add_help=False, allow_abbrev=False)
    chosen.add_argument("--preset")
    name = chosen.parse_known_args(argv)[0].preset
    if name is None:
        return argv
    if name not in published.names():
        close = difflib.get_close_matches(name, published.names(), n=1)
        parser.error(
            f"--preset={name} is not known"
            + (f" (did you mean {close[0]}?)" if close else "")
            + ": --list_presets shows all"
        )
    options = dict(published.load(name).options)
    given = {argument.split("=")[0] for argument in argv}
    if "--n_iter" in given:  # or the preset's --epochs would win over it
        options.pop("epochs", None)
    return [*as_arguments(options), *argv]


def _from_preset(args: argparse.Namespace, problem: str) -> str:
    """A remark on which of the options that a problem names are as the preset has them."""
    if args.preset is None:
        return ""
    options, here = published.load(args.preset).options, plain_options(args)
    named = dict.fromkeys(re.findall(r"--(\w+)", problem))
    kept = [
        f"--{name}={_as_argument(options[name])}"
        for name in named
        if name in options and _as_argument(options[name]) == _as_argument(here[name])
    ]
    if not kept:
        return ""
    return f" (--preset={args.preset} has {', '.join(kept)}; what is given beside it wins)"


class _Switch(argparse.Action):
    """``--name`` and ``--name=on``, or ``--name=off`` against a preset that has it on."""

    def __init__(self, option_strings, dest, **options) -> None:
        super().__init__(
            option_strings, dest, nargs="?", const=True, default=False, type=_on_or_off, **options
        )

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        setattr(namespace, self.dest, values)


class _ListPresets(argparse.Action):
    """Shows the presets and leaves."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        from hypercl.screen import show_presets

        show_presets()
        parser.exit(0)


# fmt: off
def _add_options(parser: argparse.ArgumentParser) -> None:
    count, natural = _int_at_least(1), _int_at_least(0)
    non_negative, positive = _float_in("[0, inf)"), _float_in("(0, inf)")

    group = parser.add_argument_group("published runs")
    add = group.add_argument
    add("--preset", metavar="NAME", help="settings of a published run; options given beside it win over them, a switch as in --lookahead=off")
    add("--list_presets", action=_ListPresets, nargs=0, dest=argparse.SUPPRESS, help="show the presets, what was published and what was measured here, and exit")

    group = parser.add_argument_group("continual learning")
    add = group.add_argument
    add("--cl_exp", default="splitmnist", choices=list(IMAGE_SIZES), help="sequence of tasks")
    add("--num_tasks", type=count, default=5, metavar="N", help="number of tasks")
    add("--num_classes_per_task", type=count, default=2, metavar="N", help="number of classes a task has")
    add("--skip_tasks", type=natural, default=0, metavar="N", help="leave out the first N tasks of the sequence")
    add("--num_train_samples", type=_minus_one_or(count), default=-1, metavar="N", help="training samples per task, the first ones; -1: all")
    add("--padding", type=natural, default=2, metavar="N", help="permmnist: black pixels added on each side")
    add("--no_augmentation", action=_Switch, help="splitcifar: train on the images as they are, without flips and crops")
    add("--multi_head", action=_Switch, help="a main network with the outputs of all tasks, of which each trains, tests and regularizes its own")
    add("--beta", type=non_negative, default=0.01, metavar="X", help="strength of the regularizer")
    add("--task_loss", choices=["mean", "total"], default="mean", help="what --beta weighs the regularizer against, and what is clipped: the batch's mean cross-entropy, or that times the task's training samples")
    add("--calc_hnet_reg_targets_online", action=_Switch, help="where the regularizer compares weights with targets, recompute these at each step instead of storing them")
    add("--hnet_reg_batch_size", type=_any_int, default=-1, metavar="N", help="regularize at most N random earlier tasks per step; 0 or less: all")
    add("--hnet_reg_all_heads", action=_Switch, help="with --multi_head, regularize of an earlier task the outputs of the others too")
    add("--freeze_prev_embs", action=_Switch, help="train the embeddings of the current task alone")
    add("--lookahead", action=_Switch, help="regularize at the parameters that a step of Adam on the task loss alone would lead to, as in equation 2 of the paper")

    group = parser.add_argument_group("training")
    add = group.add_argument
    add("--batch_size", type=count, default=32, metavar="N", help="training samples per step")
    add("--n_iter", type=count, default=1001, metavar="N", help="steps per task")
    add("--epochs", type=_minus_one_or(count), default=-1, metavar="N", help="epochs per task, of ceil(samples / batch_size) steps each, instead of --n_iter; -1: not set")
    add("--lr", type=positive, default=0.0001, metavar="X", help="learning rate")
    add("--use_sgd", action=_Switch, help="gradient descent with --momentum instead of Adam")
    add("--use_rmsprop", action=_Switch, help="RMSprop with --momentum instead of Adam")
    add("--momentum", type=_float_in("[0, 1)"), default=0.0, metavar="X", help="momentum of --use_sgd and --use_rmsprop; Adam has none")
    add("--weight_decay", type=non_negative, default=0.0, metavar="X", help="L2 penalty on the hypernetwork's parameters")
    add("--adam_beta1", type=_float_in("[0, 1)"), default=0.9, metavar="X", help="decay of Adam's running mean of gradients")
    add("--plateau_lr_scheduler", action=_Switch, help="multiply the learning rate by sqrt(0.1) when the validation accuracy has not risen for more than 5 epochs")
    add("--lambda_lr_scheduler", action=_Switch, help="multiply the learning rate by 0.1, 0.01, 0.001, 0.0005 from the 82nd, 122nd, 162nd, 182nd epoch of a task on")
    add("--clip_grad_value", type=_minus_one_or(positive), default=-1, metavar="X", help="bring each number of the gradient into [-X, X]; -1: leave it")
    add("--clip_grad_norm", type=_minus_one_or(positive), default=-1, metavar="X", help="scale gradients down to a norm of X; -1: leave them")

    group = parser.add_argument_group("main network")
    add = group.add_argument
    add("--net_type", default="mlp", choices=["mlp", "lenet", "resnet", "wrn", "zenke"], help="architecture")
    add("--mlp_arch", type=_int_list(), default="100,100", metavar="LIST", help="mlp: sizes of the hidden layers; empty: none")
    add("--lenet_type", default="mnist_small", choices=["mnist_small", "mnist_large", "cifar"], help="lenet: variant, which must fit the images")
    add("--resnet_block_depth", type=count, default=5, metavar="N", help="resnet: blocks per group; 6 N + 2 layers in all")
    add("--resnet_channel_sizes", type=_int_list(length=4), default="16,16,32,64", metavar="LIST", help="resnet: feature maps of the first layer and of the three groups")
    add("--wrn_block_depth", type=count, default=4, metavar="N", help="wrn: blocks per group")
    add("--wrn_widening_factor", type=count, default=10, metavar="N", help="wrn: multiplies the feature maps of the three groups")
    add("--wrn_use_fc_bias", action=_Switch, help="wrn: keep the last layer's bias despite --no_bias")
    add("--net_act", default="relu", choices=["linear", "sigmoid", "relu", "elu", "tanh"], help="activation function (mlp; the others have relu)")
    add("--no_bias", action=_Switch, help="no bias terms (not lenet, not zenke)")
    add("--dropout_rate", type=_minus_one_or(_float_in("[0, 1)")), default=-1, metavar="X", help="dropout rate (not resnet); -1: no dropout")
    add("--specnorm", action=_Switch, help="kept for old scripts; refused, as no generated network can have spectral normalization")
    add("--batchnorm", action=_Switch, help="batch normalization (not lenet, not zenke), in evaluation by running statistics of each task")
    add("--bn_no_running_stats", action=_Switch, help="batch normalization by the batch's statistics, in evaluation too")
    add("--bn_no_stats_checkpointing", action=_Switch, help="one set of running statistics for all tasks")

    group = parser.add_argument_group("hypernetwork")
    add = group.add_argument
    add("--hnet_type", default="chunked_hmlp", choices=["chunked_hmlp", "hmlp"], help="all weights at once (hmlp) or chunk by chunk (chunked_hmlp)")
    add("--hmlp_arch", type=_int_list(), default="100,100", metavar="LIST", help="sizes of the hidden layers; empty: a linear hypernetwork")
    add("--cond_emb_size", type=natural, default=8, metavar="N", help="size of a task embedding; 0 only with --use_cond_chunk_embs")
    add("--chmlp_chunk_size", type=count, default=750, metavar="N", help="chunked_hmlp: weights per chunk")
    add("--compression", type=_minus_one_or(positive), default=-1, metavar="X", help="chunked_hmlp: choose the chunk size such that the hypernetwork has X times the weights of the main network; -1: as --chmlp_chunk_size says")
    add("--chunk_emb_size", type=count, default=8, metavar="N", help="chunked_hmlp: size of a chunk embedding")
    add("--use_cond_chunk_embs", action=_Switch, help="chunked_hmlp: chunk embeddings of its own for each task")
    add("--hnet_net_act", default="relu", choices=["linear", "sigmoid", "relu", "elu", "tanh"], help="activation function")
    add("--hnet_no_bias", action=_Switch, help="no bias terms")
    add("--hnet_dropout_rate", type=_minus_one_or(_float_in("[0, 1)")), default=-1, metavar="X", help="dropout rate of the hidden layers; -1: no dropout")
    add("--hnet_init", default="default", choices=["default", "xavier"], help="initialization of the layers: hypnettorch's, or Xavier-uniform weights and zero biases")
    add("--hyper_fan_init", action=_Switch, help="hypnettorch's hyperfan initialization of layers and chunk embeddings: the generated weights start nearly at the scale of a common initialization (with chunks, where task embeddings are small: --std_normal_temb=0.03)")
    add("--std_normal_temb", type=_minus_one_or(non_negative), default=-1, metavar="X", help="standard deviation of initial task embeddings; -1: 1")
    add("--std_normal_emb", type=_minus_one_or(non_negative), default=-1, metavar="X", help="standard deviation of initial chunk embeddings; -1: 1")

    group = parser.add_argument_group("evaluation")
    add = group.add_argument
    add("--val_iter", type=count, default=500, metavar="N", help="steps from one validation to the next")
    add("--val_batch_size", type=count, default=256, metavar="N", help="samples per batch in validation and test")
    add("--val_set_size", type=natural, default=100, metavar="N", help="first training samples of a task, held out for validation; 0: no validation")
    add("--test_with_val_set", action=_Switch, help="test on the validation sets, for choosing hyperparameters")
    add("--scenarios_every_task", action=_Switch, help="infer the tasks of all test samples after each task, not only after the last")

    group = parser.add_argument_group("miscellaneous")
    add = group.add_argument
    add("--out_dir", metavar="DIR", help="run directory to make, or to continue with the same options (default: ./out/run_<timestamp>)")
    add("--overwrite", action=_Switch, help="if --out_dir is an earlier run's directory, replace that run")
    add("--resume", action=_Switch, help="continue the run in --out_dir, or without it the newest unfinished one in ./out, with its options")
    add("--ckpt_iter", type=natural, default=500, metavar="N", help="steps from one checkpoint to the next; 0: after each task alone")
    add("--eval", metavar="RUN", help="test the networks of a finished run again, and compare with its results (default: train)")
    add("--data_dir", default="./datasets", metavar="DIR", help="where cifar10.npz and cifar100.npz lie or are put (and mnist.npz, without the package that carries it)")
    add("--dry_run", action=_Switch, help="say how large the networks are, and what memory and time the run would take, without running it")
    add("--no_cuda", action=_Switch, help="run on the CPU even where there is a GPU")
    add("--loglevel_info", action=_Switch, help="hide the debug lines on the screen; logfile.txt keeps them")
    add("--deterministic_run", action=_Switch, help="use deterministic algorithms alone; slower on a GPU")
    add("--random_seed", type=natural, default=42, metavar="N", help="seed from which all randomness of the run is derived")
    add("--num_seeds", type=count, default=1, metavar="N", help="train the seeds random_seed … random_seed + N - 1 together, in one process")
    add("--tf32", action=_Switch, help="on a GPU, TF32 for the main network's products and convolutions; never for the hypernetwork")
    add("--amp", action=_Switch, help="bfloat16 for the main network, on a CPU too; never for the hypernetwork")
# fmt: on


def _problems_of_process(args: argparse.Namespace) -> list[str]:
    """What is wrong across the options that say what to do, rather than with which settings."""
    if args.resume and args.overwrite:
        return ["--resume continues a run and --overwrite replaces it: give one of them"]
    if args.overwrite and args.out_dir is None:
        return ["--overwrite replaces the run in --out_dir: give that, too"]
    if args.eval is not None and (
        args.resume or args.overwrite or args.dry_run or args.out_dir is not None
    ):
        return [
            "--eval trains nothing and writes nothing: leave --out_dir, --resume, --overwrite and "
            "--dry_run out"
        ]
    return []


def _problems(args: argparse.Namespace) -> list[str]:
    """What is wrong across options, each in one line that names the options and the mend."""
    problems = []

    def refuse(condition: bool, text: str) -> None:
        if condition:
            problems.append(text)

    # Tasks.
    tasks, classes = args.skip_tasks + args.num_tasks, args.num_classes_per_task
    skipped = f" after --skip_tasks={args.skip_tasks}" if args.skip_tasks else ""
    options = f"--num_tasks={args.num_tasks}{skipped} with --num_classes_per_task={classes}"
    if args.cl_exp == "splitmnist":
        refuse(
            tasks * classes > 10,
            f"{options} takes {tasks * classes} classes, and MNIST has 10: lower one of them",
        )
    elif args.cl_exp == "permmnist":
        refuse(
            classes != 10,
            f"--cl_exp=permmnist has 10 classes in every task, not {classes}: "
            "give --num_classes_per_task=10",
        )
    elif args.cl_exp == "splitcifar" and classes not in (1, 2, 5, 10):
        refuse(
            True,
            f"--cl_exp=splitcifar splits into 1, 2, 5 or 10 classes per task, not {classes}: "
            "change --num_classes_per_task",
        )
    elif args.cl_exp == "splitcifar":
        refuse(
            tasks * classes > 110,
            f"{options} takes {tasks * classes} classes, and CIFAR-10 and CIFAR-100 have 110: "
            "lower one of them",
        )
    refuse(
        args.test_with_val_set and args.val_set_size == 0,
        "--test_with_val_set needs a validation set: give --val_set_size above 0",
    )

    refuse(
        args.hnet_reg_all_heads and not args.multi_head,
        "--hnet_reg_all_heads concerns outputs of other tasks, and there are none: "
        "add --multi_head, or leave it out",
    )

    # Optimizer.
    refuse(
        args.plateau_lr_scheduler and args.val_set_size == 0,
        "--plateau_lr_scheduler looks at the validation accuracy: give --val_set_size above 0",
    )
    refuse(
        args.use_sgd and args.use_rmsprop,
        "--use_sgd and --use_rmsprop exclude each other: leave one out",
    )
    adam = not (args.use_sgd or args.use_rmsprop)
    refuse(
        args.momentum != 0 and adam,
        f"--momentum={args.momentum:g} has no effect with Adam: leave it at 0 "
        "(--adam_beta1 is Adam's counterpart), or add --use_sgd or --use_rmsprop",
    )
    refuse(
        args.adam_beta1 != 0.9 and not adam,
        f"--adam_beta1={args.adam_beta1:g} is an option of Adam: leave it out, or leave out "
        "--use_sgd and --use_rmsprop",
    )
    refuse(
        args.lookahead and not adam,
        "--lookahead looks at a step of Adam: leave it out, or leave out --use_sgd and "
        "--use_rmsprop",
    )

    # What the main networks cannot do.
    net = f"--net_type={args.net_type}"
    size = IMAGE_SIZES[args.cl_exp]
    if args.cl_exp == "permmnist":
        size = "x".join([str(28 + 2 * args.padding)] * 2 + ["1"])
    lenet_size = "32x32x3" if args.lenet_type == "cifar" else "28x28x1"
    refuse(
        args.net_type == "lenet" and lenet_size != size,
        f"--lenet_type={args.lenet_type} takes {lenet_size} images and --cl_exp={args.cl_exp} has "
        f"{size} ones: choose another --lenet_type or --net_type",
    )
    c = args.resnet_channel_sizes
    refuse(  # hypnettorch's shortcuts subsample only where the number of feature maps changes
        args.net_type == "resnet" and not c[0] <= c[1] < c[2] < c[3],
        f"--resnet_channel_sizes={','.join(map(str, c))} must grow, from the second number on, "
        "for the shortcuts of --net_type=resnet: like 16,16,32,64",
    )
    refuse(
        args.hyper_fan_init and (args.hnet_init != "default" or args.std_normal_emb != -1),
        "--hyper_fan_init initializes the layers and the chunk embeddings itself: leave out "
        "--hnet_init and --std_normal_emb",
    )
    refuse(
        args.specnorm,
        f"--specnorm cannot be used with {net}: spectral normalization needs weights of the "
        "network's own, and these are generated; leave --specnorm out",
    )
    refuse(
        args.net_act != "relu" and args.net_type != "mlp",
        f"--net_act={args.net_act} cannot be used with {net}, which has relu: "
        "leave --net_act out or take --net_type=mlp",
    )
    refuse(
        args.net_type == "zenke" and size != "32x32x3",
        f"--net_type=zenke takes 32x32x3 images and --cl_exp={args.cl_exp} has {size} ones: "
        "choose another --net_type",
    )
    refuse(
        args.net_type == "zenke" and args.dropout_rate > 0.5,
        f"--dropout_rate={args.dropout_rate:g} is doubled in one layer of {net}: give 0.5 or less",
    )
    refuse(
        args.no_bias and args.net_type in ("lenet", "zenke"),
        f"--no_bias cannot be used with {net}: leave it out or take another --net_type",
    )
    refuse(
        args.dropout_rate != -1 and args.net_type == "resnet",
        f"--dropout_rate={args.dropout_rate:g} cannot be used with {net}: "
        "leave it out or take --net_type=wrn",
    )
    refuse(
        args.batchnorm and args.net_type in ("lenet", "zenke"),
        f"--batchnorm cannot be used with {net}: leave it out or take another --net_type",
    )
    for name in ("bn_no_running_stats", "bn_no_stats_checkpointing"):
        refuse(
            getattr(args, name) and not args.batchnorm,
            f"--{name} needs --batchnorm: add it, or leave this one out",
        )
    refuse(
        args.bn_no_running_stats and args.bn_no_stats_checkpointing,
        "--bn_no_stats_checkpointing concerns running statistics, and --bn_no_running_stats leaves "
        "none: leave one out",
    )
    by_batch = ["batch_size"]
    if args.bn_no_running_stats:
        by_batch += ["val_batch_size", "val_set_size"]
    for name in by_batch:
        size = getattr(args, name)
        refuse(
            args.batchnorm and 0 < size < 4,
            f"--{name}={size} is too small for --batchnorm by batch statistics: take 4 or more",
        )

    # What the hypernetworks cannot do.
    refuse(
        args.use_cond_chunk_embs and args.hnet_type == "hmlp",
        "--use_cond_chunk_embs cannot be used with --hnet_type=hmlp, which has no chunks: "
        "leave it out or take --hnet_type=chunked_hmlp",
    )
    refuse(
        args.compression != -1 and args.hnet_type == "hmlp",
        f"--compression={args.compression:g} chooses a chunk size, and --hnet_type=hmlp has no "
        "chunks: leave it out or take --hnet_type=chunked_hmlp",
    )
    refuse(
        args.cond_emb_size == 0 and not args.use_cond_chunk_embs,
        "--cond_emb_size=0 leaves nothing that tells the tasks apart: "
        "give a size, or add --use_cond_chunk_embs",
    )
    return problems


def _on_or_off(text: str) -> bool:
    if text not in ("on", "off"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither on nor off")
    return text == "on"


def _int_at_least(minimum: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        value = _int_or(text, minimum - 1)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {minimum} or more")
        return value

    return convert


def _any_int(text: str) -> int:
    value = _int_or(text, None)
    if value is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return value


def _int_or(text: str, otherwise: int | None) -> int | None:
    try:
        value = int(text)
    except ValueError:
        return otherwise
    if abs(value) > _MAX_INT:
        raise argparse.ArgumentTypeError(f"{text!r} is larger than {_MAX_INT:,}")
    return value


def _float_in(interval: str) -> Callable[[str], float]:
    """A finite float in an interval written as ``[low, high)`` or ``(low, high)``."""
    low, high = (float(bound) for bound in interval[1:-1].split(","))

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (low < value < high or (value == low and interval[0] == "[")):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number in {interval}")
        return value

    return convert


def _minus_one_or(convert: Callable) -> Callable:
    """Accept -1, which means "not set", beside what ``convert`` accepts."""

    def convert_or_unset(text: str) -> float:
        try:
            return convert(text)
        except argparse.ArgumentTypeError as error:
            if text in ("-1", "-1.0"):
                return -1
            raise argparse.ArgumentTypeError(f"{error}, nor -1 (not set)") from None

    return convert_or_unset


def _int_list(length: int | None = None) -> Callable[[str], tuple[int, ...]]:
    def convert(text: str) -> tuple[int, ...]:
        items = text.split(",") if text.strip() else []
        for item in items:
            _int_or(item, None)
        if not all(item.strip().isdecimal() and int(item) > 0 for item in items):
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a comma-separated list of positive whole numbers, like 100,100"
            )
        if length is not None and len(items) != length:
            raise argparse.ArgumentTypeError(f"{text!r} has {len(items)} numbers, not {length}")
        return tuple(int(item) for item in items)

    return convert


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Shows each option's default, but for switches, which are off by default."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36, width=110)

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.nargs == 0 or action.default is None or isinstance(action, _Switch):
            return action.help
        return f"{action.help} (default: %(default)s)"

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return "" if isinstance(action, _Switch) else super()._format_args(action, default_metavar)


class _Parser(argparse.ArgumentParser):
    """Errors in one line on stderr, with the name that an unknown option may have meant."""

    def error(self, message: str) -> None:
        if message.startswith("unrecognized arguments: "):
            given = message.split(": ", 1)[1].split("=")[0].partition(" ")[0]
            close = difflib.get_close_matches(given, self._option_string_actions, n=1)
            message += f" (did you mean {close[0]}?)" if close else " (--help lists the options)"
        self.exit(2, f"{self.prog}: error: {message}\n")
