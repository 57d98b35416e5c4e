"""Continual learning with a hypernetwork: the experiment, from command line to results.

python run.py --help
"""

import platform
import shlex
import signal
import subprocess
import sys
import time
import warnings
from importlib.metadata import version
from math import ceil, prod
from pathlib import Path
from typing import Any

from hypercl.errors import InputError, RunFailed
from train_args import parse_args

# torch takes seconds to import. It is imported where the command line has been accepted, in the
# functions below, so that --help and a mistyped option answer at once.


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the experiment that a command line describes.

    Args:
        argv: The options; ``None`` takes those of the process.

    Returns:
        What results.json holds at the end.

    Raises:
        SystemExit: A bad option (code 2), or ``--help`` (code 0).
        InputError: Data or a directory that cannot be used.
        RunFailed: The loss was not finite, or the results could not be written.
    """
    started = time.monotonic()
    args = parse_args(argv)
    from hypercl import rundir
    from hypercl.memory import split_into_groups
    from hypercl.report import Report
    from hypercl.screen import Screen

    out_dir = Path(args.out_dir) if args.out_dir else rundir.default_out_dir()
    rundir.check_out_dir(out_dir, overwrite=args.overwrite)
    device = pick_device(args)
    tasks = build_tasks(args, device)
    mnet = build_main_net(args, tasks[0], device)
    module = build_hypernet(args, mnet, args.random_seed)
    num_weights = {"main": mnet.num_params, "hypernet": module.num_params}
    seeds = range(args.random_seed, args.random_seed + args.num_seeds)
    groups = [seeds]
    if len(seeds) > 1:
        memory = member_and_free_bytes(args, mnet, module, tasks[0], device)
        groups = split_into_groups(seeds, *memory)

    # All input has been found good: from here on, there is a run directory.
    run_dir = rundir.RunDir(out_dir, overwrite=args.overwrite)
    run_dir.write_json("config.json", describe_run(args, argv, device))
    screen = Screen(run_dir.write_log, show_debug=not args.loglevel_info)
    screen.say(
        f"{args.cl_exp}: {len(tasks)} tasks of {tasks[0].num_classes} classes on {device}; "
        f"{args.net_type} with {num_weights['main']:,} weights from {args.hnet_type} with "
        f"{num_weights['hypernet']:,} (compression ratio "
        f"{num_weights['hypernet'] / num_weights['main']:.3f})"
    )
    if len(seeds) > 1:
        screen.say(f"{len(seeds)} seeds in {len(groups)} group(s), each trained together")
    with Report(
        run_dir,
        screen,
        experiment=args.cl_exp,
        task_names=[task.name for task in tasks],
        config=vars(args),
        num_weights=num_weights,
        seeds=seeds,
        tested_on="validation" if args.test_with_val_set else "test",
        started=started,
    ) as report:
        learned = {}
        for group in groups:
            report.start_group(group)
            learned |= learn_tasks(args, group, tasks, mnet, device, report)
            if learned:
                save_weights(run_dir, args, module, learned)
        if not learned:
            raise RunFailed(report.results["seeds"][0]["failed"])
    return report.results


def learn_tasks(args, seeds, tasks, mnet, device, report) -> dict[int, dict]:
    """Learn one task after the other with all ``seeds`` at once.

    Returns:
        The hypernetwork's parameters at the end, by seed, without the seeds that failed.
    """
    from hypercl.members import select_members, stack_members
    from hypercl.regularizer import take_checkpoint
    from train import evaluate, train_task

    functions = [as_function(args, build_hypernet(args, mnet, seed), device) for seed in seeds]
    hnet, params = functions[0][0], stack_members([params for _, params in functions])
    for task_id, task in enumerate(tasks):
        how = training(args, seeds, num_samples=len(task.train.labels))
        checkpoint = None
        if args.beta > 0:
            checkpoint = take_checkpoint(
                hnet,
                params,
                task_id,
                subset_size=args.hnet_reg_batch_size,
                store_targets=not args.calc_hnet_reg_targets_online,
                heads=heads_of(args, mnet, tasks),
            )
        report.start_task(task_id, how.num_steps, len(task.train.labels), describe(checkpoint))
        for progress in train_task(hnet, mnet, params, task, task_id, checkpoint, how):
            if progress.members:
                members = {seed: m._asdict() for seed, m in progress.members.items()}
                report.step(task_id, progress.step, members)
        params = hnet.merged(params, progress.trained)
        report.end_training(task_id, how.num_steps)

        for seed, reason in progress.failed.items():
            report.fail(seed, reason)
        going = [i for i, seed in enumerate(seeds) if seed not in progress.failed]
        params, seeds = select_members(params, going), [seeds[i] for i in going]
        if not seeds:
            return {}
        columns = [  # [tasks][members]
            evaluate(
                hnet, mnet, params, seen, seen_id,
                seen.validation if args.test_with_val_set else seen.test,
                args.val_batch_size,
            )
            for seen_id, seen in enumerate(tasks[: task_id + 1])
        ]  # fmt: skip
        rows = zip(*columns, strict=True)
        report.end_task(
            task_id, {s: [100 * a for a in row] for s, row in zip(seeds, rows, strict=True)}
        )
    return {seed: select_members(params, i) for i, seed in enumerate(seeds)}


def describe(checkpoint) -> str:
    """One remark on how the earlier tasks are regularized."""
    if checkpoint is None:
        return "no regularizer"
    form = "factored" if checkpoint.factored else "dense"
    return f"{form} regularizer, which keeps {checkpoint.num_bytes / 2**20:.1f} MiB"


def pick_device(args):
    """The GPU where there is one and it is wanted, else the CPU; sets torch's global switches."""
    import os

    import torch

    from hypercl.precision import forbid_tf32

    if args.deterministic_run:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it once
        torch.use_deterministic_algorithms(True)
    forbid_tf32()
    device = torch.device("cuda" if not args.no_cuda and torch.cuda.is_available() else "cpu")
    if args.tf32 and device.type != "cuda":
        warnings.warn("--tf32 has no effect on a CPU", stacklevel=2)
    return device


def build_tasks(args, device) -> list:
    """The sequence of tasks, on the device."""
    from hypercl.tasks import permuted_mnist, split_cifar, split_mnist, with_heads

    common = {
        "num_tasks": args.num_tasks,
        "skip_tasks": args.skip_tasks,
        "val_set_size": args.val_set_size,
        "num_train_samples": args.num_train_samples,
        "device": device,
    }
    classes = {"num_classes_per_task": args.num_classes_per_task}
    if args.cl_exp == "permmnist":
        tasks = permuted_mnist(args.data_dir, padding=args.padding, **common)
    elif args.cl_exp == "splitmnist":
        tasks = split_mnist(args.data_dir, **classes, **common)
    else:
        augmented = not args.no_augmentation
        tasks = split_cifar(args.data_dir, augmented=augmented, **classes, **common)
    return with_heads(tasks) if args.multi_head else tasks


def build_main_net(args, task, device):
    """The main network for the images and classes of a task."""
    from hypercl import networks

    return networks.build_main_net(
        args.net_type,
        task.in_shape,
        task.num_classes * (args.num_tasks if args.multi_head else 1),
        mlp_arch=args.mlp_arch,
        lenet_type=args.lenet_type,
        resnet_block_depth=args.resnet_block_depth,
        resnet_channel_sizes=args.resnet_channel_sizes,
        wrn_block_depth=args.wrn_block_depth,
        wrn_widening_factor=args.wrn_widening_factor,
        wrn_use_fc_bias=args.wrn_use_fc_bias,
        net_act=args.net_act,
        bias=not args.no_bias,
        dropout_rate=args.dropout_rate,
        batchnorm=args.batchnorm,
    ).to(device)  # it has no weights, but batch normalization has counters


def build_hypernet(args, mnet, seed: int):
    """hypnettorch's module of the hypernetwork, freshly initialized from a seed, on the CPU."""
    import torch

    from hypercl import networks
    from hypercl.seeding import derive_seed

    with torch.random.fork_rng(devices=[]):  # hypnettorch initializes from the global generator
        torch.manual_seed(derive_seed(seed, "initialization"))
        module = networks.build_hypernet(
            args.hnet_type,
            mnet.param_shapes,
            args.num_tasks,
            hmlp_arch=args.hmlp_arch,
            cond_emb_size=args.cond_emb_size,
            chunk_size=args.chmlp_chunk_size,
            chunk_emb_size=args.chunk_emb_size,
            cond_chunk_embs=args.use_cond_chunk_embs,
            activation=args.hnet_net_act,
            bias=not args.hnet_no_bias,
            dropout_rate=args.hnet_dropout_rate,
        )
        networks.initialize_hypernet(
            module,
            mnet,
            scheme=args.hnet_init,
            std_task_embs=args.std_normal_temb,
            std_chunk_embs=args.std_normal_emb,
            hyperfan=args.hyper_fan_init,
        )
    return module


def heads_of(args, mnet, tasks):
    """Which generated weights matter to which task."""
    from hypercl.heads import head_of_each_task, one_head

    if not args.multi_head:
        return one_head(mnet.param_shapes)
    outputs = [range(task.outputs.start, task.outputs.stop) for task in tasks]
    return head_of_each_task(mnet.param_shapes, outputs)


def as_function(args, module, device) -> tuple:
    """The hypernetwork as a pure function, and its parameters on the device."""
    from hypercl.hypernet import from_module

    hnet, params = from_module(
        module, activation=args.hnet_net_act, dropout_rate=args.hnet_dropout_rate
    )
    return hnet, {name: value.to(device) for name, value in params.items()}


def member_and_free_bytes(args, mnet, module, task, device) -> tuple[int, int]:
    """What one more seed takes of the device's memory, and what is free."""
    from hypercl.memory import available_bytes, estimate_member

    hnet, params = as_function(args, module, "cpu")
    per_member = estimate_member(
        hnet,
        params,
        mnet,
        num_tasks=args.num_tasks,
        subset_size=args.hnet_reg_batch_size,
        num_inputs=prod(task.in_shape),
        batch_size=max(args.batch_size, args.val_batch_size),
        num_steps=training(args, [args.random_seed], len(task.train.labels)).num_steps,
    )
    return per_member, available_bytes(device)


def training(args, seeds, num_samples: int):
    """How a task with so many training samples is learned by these seeds."""
    from train import Training

    epoch = ceil(num_samples / args.batch_size)
    return Training(
        num_steps=args.n_iter if args.epochs == -1 else args.epochs * epoch,
        batch_size=args.batch_size,
        beta=args.beta,
        reg_batch_size=args.hnet_reg_batch_size,
        lr=args.lr,
        weight_decay=args.weight_decay,
        optimizer="sgd" if args.use_sgd else "rmsprop" if args.use_rmsprop else "adam",
        adam_beta1=args.adam_beta1,
        momentum=args.momentum,
        clip_grad_value=args.clip_grad_value,
        clip_grad_norm=args.clip_grad_norm,
        freeze_prev_embs=args.freeze_prev_embs,
        lookahead=args.lookahead,
        val_iter=args.val_iter,
        val_batch_size=args.val_batch_size,
        seeds=seeds,
        amp=args.amp,
        tf32=args.tf32,
    )


def describe_run(args, argv: list[str] | None, device) -> dict[str, Any]:
    """What config.json holds."""
    packages = ("torch", "numpy", "hypnettorch")
    return {
        "options": vars(args),
        "command": shlex.join(["python", "run.py", *(sys.argv[1:] if argv is None else argv)]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "device": device_name(device),
        "git_commit": git_commit(),
    }


def device_name(device) -> str:
    """The GPU's or the processor's name."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads, {platform.machine()}"


def git_commit() -> str | None:
    """The commit of this code, with "+" behind it where files differ; None outside a checkout."""
    if not Path(__file__).with_name(".git").exists():  # a copy inside some other checkout
        return None
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"],
            cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


def save_weights(run_dir, args, module, learned: dict[int, dict]) -> None:
    """weights.pt: by seed, the hypernetwork's parameters in hypnettorch's naming; the options."""
    from hypercl.hypernet import into_module

    states = {}
    for seed, params in learned.items():
        into_module(params, module)
        states[seed] = {name: value.clone() for name, value in module.state_dict().items()}
    options = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(args).items()}
    run_dir.write_weights({"hnet": states, "options": options})


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, torch's CPU allocator or CUDA found no memory."""
    if isinstance(error, MemoryError):
        return True
    text = str(error)
    return "out of memory" in text or "can't allocate memory" in text


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """A warning is for the user of the script: what it says, and not where in the code it was."""
    print(f"run.py: warning: {message}", file=sys.stderr)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a run as Ctrl-C does but for the exit code."""


def _terminate(signum, frame) -> None:
    raise _Terminated


def command_line() -> int:
    """Run :func:`main` for the shell: one line on stderr for what went wrong, and an exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    warnings.showwarning = _show_warning
    try:
        main()
    except InputError as error:
        print(f"run.py: error: {error}", file=sys.stderr)
        return 2
    except RunFailed as error:
        print(f"run.py: failed: {error}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise  # a bug: the traceback is what helps
        print(
            "run.py: failed: out of memory: lower --batch_size, --val_batch_size or --num_seeds, "
            "or take a smaller network",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt as interrupt:
        print("run.py: interrupted", file=sys.stderr)
        return 143 if isinstance(interrupt, _Terminated) else 130
    return 0


if __name__ == "__main__":
    sys.exit(command_line())
