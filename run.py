"""Continual learning with a hypernetwork: the experiment, from command line to results.

python run.py --help
"""

import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from math import ceil, prod
from pathlib import Path
from typing import Any, NamedTuple

from hypercl import published
from hypercl.errors import InputError, RunFailed
from hypercl.interruption import Interrupted, Interruption
from train_args import as_arguments, differing_options, parse_args, plain_options

# torch takes seconds to import. It is imported where the command line has been accepted, in the
# functions below, so that --help, a mistyped option and a finished run answer at once.


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the experiment that a command line describes, or what is left of it.

    Args:
        argv: The options; ``None`` takes those of the process.

    Returns:
        What results.json holds at the end.

    Raises:
        SystemExit: A bad option (code 2), or ``--help`` (code 0).
        InputError: Data or a directory that cannot be used.
        RunFailed: The loss was not finite, or the results could not be written.
        Interrupted: SIGINT or SIGTERM; what was learned has been saved.
    """
    started = time.monotonic()
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    from hypercl.rundir import RunDir

    with Interruption() as interruption:
        if args.eval is not None:
            import_torch(interruption)
            return test_again(Path(args.eval), argv)
        if args.resume:
            args = resumed(args, argv)
        if args.dry_run:
            import_torch(interruption)
            return try_out(args)
        out_dir = None if args.out_dir is None else Path(args.out_dir)
        with RunDir(out_dir, overwrite=args.overwrite) as run_dir:
            for stored in (run_dir.config, run_dir.results):
                if stored is not None:
                    options = stored["options" if stored is run_dir.config else "config"]
                    require_same_options(out_dir, options, args)
            if not args.overwrite:
                run_dir.require_config()
            if run_dir.finished:
                return show_again(run_dir)
            import_torch(interruption)
            return learn(args, argv, run_dir, interruption, started)


def import_torch(interruption) -> None:
    """Import what takes seconds; a signal waits until it is there.

    Raised within it, where torch's C++ calls Python, an exception would abort the process.
    """
    with interruption.grace():
        import hypercl.report  # noqa: F401
        import train  # noqa: F401


def learn(args, argv, run_dir, interruption, started: float) -> dict[str, Any]:
    """Learn all tasks with all seeds, from the beginning or from the last checkpoint."""
    from hypercl.report import Report
    from hypercl.saving import Position
    from hypercl.screen import Screen
    from hypercl.tasks import fingerprint

    device = pick_device(args)
    tasks = build_tasks(args, device)
    mnet = build_main_net(args, tasks[0], device)
    module = build_hypernet(args, mnet, args.random_seed)
    num_weights = {"main": mnet.num_params, "hypernet": module.num_params}
    seeds = range(args.random_seed, args.random_seed + args.num_seeds)
    described, data = describe_run(args, argv, device), fingerprint(tasks)
    saved = load_checkpoint(args, run_dir, described, data)
    if saved is None:
        groups = split_seeds(args, seeds, mnet, module, tasks, device)
        position, report_state, lengths = Position.start(groups), None, None
        # All input has been found good: from here on, there is a run directory.
        run_dir.begin(described)
    else:
        position, report_state, lengths = saved
    run_dir.open(lengths)

    screen = Screen(run_dir.write_log, show_debug=not args.loglevel_info)
    if saved is not None:
        screen.say(f"continues {run_dir.path} at {describe_position(position, len(tasks))}")
    screen.say(
        f"{args.cl_exp}: {len(tasks)} tasks of {tasks[0].num_classes} classes on {device}; "
        f"{args.net_type} with {num_weights['main']:,} weights from {args.hnet_type} with "
        f"{num_weights['hypernet']:,} (compression ratio "
        f"{num_weights['hypernet'] / num_weights['main']:.3f})"
    )
    if args.compression != -1:
        screen.say(f"--compression={args.compression:g} makes chunks of {chunk_size(args, mnet):,}")
    if len(seeds) > 1:
        together = f"in {len(position.groups)} group(s), each together"
        alone = len(position.groups) == len(seeds)
        screen.say(f"{len(seeds)} seeds, trained {'one by one' if alone else together}")
    if args.preset is not None:
        screen.say(describe_preset(args.preset))
    report = Report(
        run_dir,
        screen,
        experiment=args.cl_exp,
        task_names=[task.name for task in tasks],
        config=plain_options(args),
        num_weights=num_weights,
        seeds=seeds,
        tested_on="validation" if args.test_with_val_set else "test",
        preset=args.preset,
        altered=altered_options(args),
        started=started,
        state=report_state,
    )

    def save(position: Position) -> None:
        save_checkpoint(run_dir, position, report, described, data)

    with report, interruption.grace():
        if saved is None:
            save(position)
        while position.group < len(position.groups):
            report.start_group(position.groups[position.group])
            position = learn_tasks(args, position, tasks, mnet, device, report, save, interruption)
            if position.learned:
                save_weights(run_dir, args, module, position)
            save(position)
        if not position.learned:
            raise RunFailed(report.results["seeds"][0]["failed"])
    return report.results


def learn_tasks(args, position, tasks, mnet, device, report, save, interruption):
    """Learn, one after the other, the tasks that a group of seeds has yet to learn.

    Args:
        save: Writes a checkpoint from which the run can go on at a position.

    Returns:
        The position at which the next group starts.
    """
    from hypercl.members import select_members, stack_members, to_device
    from hypercl.networks import fresh_stats
    from hypercl.scenarios import infer_tasks
    from train import TaskState, evaluate, train_task

    seeds = position.seeds
    functions = [as_function(args, build_hypernet(args, mnet, seed), device) for seed in seeds]
    hnet, params = functions[0][0], stack_members([params for _, params in functions])
    if position.params is not None:
        params = to_device(position.params, device)
    stats = [to_device(of_task, device) for of_task in position.stats]
    start = TaskState(**position.training) if position.training is not None else None

    for task_id in range(position.task_id, len(tasks)):
        task = tasks[task_id]
        how = training(args, seeds, num_samples=len(task.train.labels))
        checkpoint = checkpoint_before(args, task_id, hnet, params, mnet, tasks)
        steps_done = 0 if start is None else start.step
        report.start_task(
            task_id, how.num_steps, len(task.train.labels), describe(checkpoint), steps_done
        )
        one_for_all = args.bn_no_stats_checkpointing and stats
        for progress in train_task(
            hnet, mnet, params, task, task_id, checkpoint, how,
            stats=stats[-1] if one_for_all else fresh_stats(mnet, len(seeds), device),
            start=start, wants_state=state_is_due(args, how, interruption),
        ):  # fmt: skip
            if progress.members:
                members = {seed: m._asdict() for seed, m in progress.members.items()}
                report.step(task_id, progress.step, members)
            if progress.state is not None:
                position = replace(
                    position, seeds=seeds, task_id=task_id, params=params,
                    training=progress.state._asdict(), stats=stats,
                )  # fmt: skip
                if progress.step < how.num_steps:
                    save(position)
                    interruption.leave_if_pending()
        report.end_training(task_id)

        for seed, reason in progress.failed.items():
            report.fail(seed, reason)
        going = [i for i, seed in enumerate(seeds) if seed not in progress.failed]
        params = select_members(hnet.merged(params, progress.trained), going)
        stats = [progress.stats] * (task_id + 1) if one_for_all else [*stats, progress.stats]
        stats = [select_members(of_task, going) for of_task in stats]
        seeds, start = [seeds[i] for i in going], None
        if not seeds:
            break
        seen = tasks[: task_id + 1]
        splits = [task.validation if args.test_with_val_set else task.test for task in seen]
        columns = []  # [tasks][members]

        def leave_if_pending(position=position) -> None:
            if interruption.pending:
                save(position)
                interruption.leave()

        for seen_id, (task, split, of_task) in enumerate(zip(seen, splits, stats, strict=True)):
            leave_if_pending()
            columns.append(
                evaluate(hnet, mnet, params, task, seen_id, split, args.val_batch_size, of_task)
            )
        rows = [[100 * a for a in row] for row in zip(*columns, strict=True)]
        inferred = None
        if task_id + 1 == len(tasks) or args.scenarios_every_task:
            found = infer_tasks(
                hnet, mnet, params, seen, splits, args.val_batch_size, stats,
                between=leave_if_pending,
            )  # fmt: skip
            inferred = dict(zip(seeds, found, strict=True))
        report.end_task(task_id, dict(zip(seeds, rows, strict=True)), inferred)
        position = replace(
            position, seeds=seeds, task_id=task_id + 1, params=params, training=None, stats=stats
        )
        if task_id + 1 < len(tasks):
            save(position)
            interruption.leave_if_pending()
    learned = {seed: select_members(params, i) for i, seed in enumerate(seeds)}
    learned_stats = {
        seed: [select_members(of_task, i) for of_task in stats] for i, seed in enumerate(seeds)
    }
    return type(position).start(
        position.groups,
        position.group + 1,
        learned={**position.learned, **learned},
        learned_stats={**position.learned_stats, **learned_stats},
    )


def state_is_due(args, how, interruption):
    """After which steps of a task the state is asked for; after the last it is, for the tests."""

    def is_due(step: int) -> bool:
        at_checkpoint = args.ckpt_iter > 0 and step % args.ckpt_iter == 0
        return at_checkpoint or step == how.num_steps or interruption.pending is not None

    return is_due


def save_checkpoint(run_dir, position, report, described, data: str) -> None:
    """checkpoint.pt: the position, the report's state, and what belongs to them."""
    from hypercl import saving

    content = {
        "format": saving.FORMAT,
        "made_by": json.dumps({name: described[name] for name in _MADE_BY}),
        "data": data,
        **vars(position),
        "report": json.dumps(report.state()),
        "lengths": run_dir.lengths(),
    }
    run_dir.write_checkpoint(saving.encode(content))


_MADE_BY = ("options", "versions", "device", "git_commit")


def load_checkpoint(args, run_dir, described, data: str):
    """Where the run that lies in the directory is to go on.

    Returns:
        Position, state of the report, lengths of the files that grow; None where nothing has been
        learned yet.

    Raises:
        InputError: The checkpoint is damaged, of another run, or there is none where one should be.
    """
    from dataclasses import fields

    from hypercl import saving

    if run_dir.config is None:
        return None
    path = run_dir.checkpoints[0]
    content = saving.load_newest(run_dir.checkpoints)
    if content is None:
        if run_dir.results is not None and run_dir.results["summary"]:
            raise InputError(f"{path} is missing: put it there, or start anew with --overwrite")
        return None
    if content.get("format") != saving.FORMAT:
        raise InputError(
            f"{path} is not of this version of the program: continue with the one that began the "
            "run, or start anew with --overwrite"
        )
    made_by = json.loads(content["made_by"])
    require_same_options(path, made_by["options"], args)
    if content["data"] != data:
        raise InputError(
            f"the data are not those with which {run_dir.path} began: give their --data_dir, or "
            "start anew with --overwrite"
        )
    there, here = ({**by, **by["versions"]} for by in (made_by, described))
    for name in (*here["versions"], "device", "git_commit"):
        if there.get(name) != here[name]:
            warnings.warn(
                f"the run was left with {name} {there.get(name)} and goes on with {here[name]}: "
                "it may differ from one without a break",
                stacklevel=2,
            )
    position = saving.Position(**{f.name: content[f.name] for f in fields(saving.Position)})
    return position, json.loads(content["report"]), content["lengths"]


def require_same_options(path, stored, args) -> None:
    """Refuse to go on with a run that was begun with other options."""
    differing = differing_options(stored, plain_options(args))
    if differing:
        raise InputError(
            f"{path} belongs to a run with other options: {', '.join(differing)}; choose another "
            "--out_dir, or replace that run with --overwrite"
        )


def resumed(args, argv: list[str]):
    """The options with which ``--resume`` continues a run: the stored ones, where none is given."""
    from hypercl import rundir

    path = args.out_dir
    if path is None and (path := rundir.newest_unfinished(Path("out"))) is None:
        raise InputError("--resume finds no unfinished run below ./out: give its --out_dir")
    stored = rundir.read_config(Path(path))["options"]
    return parse_args([*as_arguments(stored), *argv, f"--out_dir={path}"])


def show_again(run_dir) -> dict[str, Any]:
    """Say what a finished run has found; trains nothing."""
    from hypercl.screen import Screen
    from hypercl.summary import show_summary

    screen = Screen(lambda line: None)
    screen.say(f"finished before, {run_dir.config['started']}: {run_dir.config['command']}")
    show_summary(screen, run_dir.results, run_dir.path)
    return run_dir.results


class Learned(NamedTuple):
    """What a finished run has learned, ready for use."""

    args: Any  # its options
    tasks: list
    mnet: Any  # its forward(x, weights) takes inputs of a task and weights from an hnet
    hnets: dict[int, Any]  # hypnettorch's modules by seed; forward(cond_id=task) gives weights
    groups: list[list[int]]  # of seeds that were trained and tested together
    stats: dict[int, list[dict]]  # running statistics by seed and task, empty dicts without them


def load_run(path: str | Path, argv: Sequence[str] = ()) -> Learned:
    """Rebuild both networks of a finished run from its weights.pt.

    Args:
        path: The run directory.
        argv: Options that may differ, like ``--data_dir`` and ``--no_cuda``.

    Raises:
        InputError: weights.pt is missing or damaged, or an option does not fit.
    """
    from hypercl import saving
    from hypercl.members import to_device

    path = Path(path, "weights.pt")
    saved = saving.load_newest([path])
    if saved is None:
        raise InputError(f"{path} does not exist: --eval needs a finished run")
    if "hnet" not in saved:
        raise InputError(f"{path} holds no weights: put a good copy there")
    args = parse_args([*as_arguments(saved["options"]), *argv])
    differing = differing_options(saved["options"], {**plain_options(args), "no_cuda": False})
    if differing and not (len(differing) == 1 and differing[0].startswith("--no_cuda ")):
        raise InputError(f"{path} was learned with other options: {', '.join(differing)}")
    device = pick_device(args)
    tasks = build_tasks(args, device)
    mnet = build_main_net(args, tasks[0], device)
    mnet.eval()
    hnets = {}
    for seed, state in saved["hnet"].items():
        hnets[seed] = build_hypernet(args, mnet, seed)
        hnets[seed].load_state_dict(state)
        hnets[seed].to(device).eval()
    stats = {
        seed: [to_device(of_task, device) for of_task in by_task]
        for seed, by_task in saved["stats"].items()
    }
    return Learned(args, tasks, mnet, hnets, saved["groups"], stats)


def test_again(path: Path, argv: list[str]) -> dict[str, Any]:
    """Test a finished run's networks on all tasks, and compare with its results.

    Raises:
        RunFailed: An accuracy is not the one that was found when the run ended.
    """
    from hypercl.members import stack_members
    from hypercl.rundir import read_finished
    from hypercl.screen import Screen
    from hypercl.summary import show_row
    from train import evaluate

    results = read_finished(path)
    args, tasks, mnet, hnets, groups, stats = load_run(path, argv)
    device = tasks[0].test.labels.device
    found = {}
    for group in groups:
        functions = [as_function(args, hnets[seed], device) for seed in group]
        hnet, params = functions[0][0], stack_members([params for _, params in functions])
        columns = [
            evaluate(
                hnet, mnet, params, task, task_id,
                task.validation if args.test_with_val_set else task.test, args.val_batch_size,
                stack_members([stats[seed][task_id] for seed in group]),
            )
            for task_id, task in enumerate(tasks)
        ]  # fmt: skip
        for seed, row in zip(group, zip(*columns, strict=True), strict=True):
            found[seed] = [100 * accuracy for accuracy in row]
    show_row(Screen(lambda line: None), results["tested_on"], list(found.values()), len(tasks))
    stored = {s["seed"]: s["accuracy"][-1] for s in results["seeds"] if "failed" not in s}
    if found != stored:
        seed = next(seed for seed in stored if found.get(seed) != stored[seed])
        raise RunFailed(
            f"{path} stores other accuracies than were found now: of seed {seed} "
            f"{stored[seed]}, now {found.get(seed)}"
        )
    return results


def try_out(args) -> dict[str, Any]:
    """Say what a run would take; writes nothing.

    A step costs more with every earlier task, nearly in proportion, so that steps of the first and
    of the last task tell about all.

    Returns:
        What is said: numbers of weights, bytes, seconds.
    """
    import torch

    from hypercl.capture import StepRunner
    from hypercl.members import stack_members
    from hypercl.networks import fresh_stats
    from hypercl.screen import Screen
    from train import evaluate, make_step, new_history

    device = pick_device(args)
    tasks = build_tasks(args, device)
    mnet = build_main_net(args, tasks[0], device)
    module = build_hypernet(args, mnet, args.random_seed)
    member, free = member_and_free_bytes(args, mnet, module, tasks, device)
    groups = split_seeds(args, range(args.num_seeds), mnet, module, tasks, device)
    seeds = groups[0]
    made = [as_function(args, build_hypernet(args, mnet, seed), device) for seed in seeds]
    hnet, params = made[0][0], stack_members([params for _, params in made])
    stats = fresh_stats(mnet, len(seeds), device)

    def seconds(function, times: int) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(times):
            function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / times

    step_seconds = []
    for task_id in (0, len(tasks) - 1):
        task = tasks[task_id]
        how = replace(training(args, seeds, len(task.train.labels)), num_steps=_TRIED + _SLOW)
        checkpoint = checkpoint_before(args, task_id, hnet, params, mnet, tasks)
        flat, trained = hnet.to_train(params, task_id + 1)
        mnet.train()
        step = make_step(
            hnet, mnet, flat, trained, task, task_id, checkpoint, how,
            new_history(how, device), stats,
        )  # fmt: skip
        step = StepRunner(step, device)
        seconds(step, _SLOW)
        step_seconds.append(seconds(step, _TRIED))
    evaluation = seconds(
        lambda: evaluate(
            hnet, mnet, params, tasks[0], 0, tasks[0].test, args.val_batch_size, stats
        ),
        1,
    )
    steps = [training(args, seeds, len(task.train.labels)).num_steps for task in tasks]
    share = [i / max(1, len(tasks) - 1) for i in range(len(tasks))]
    first, last = step_seconds
    learning = sum(n * (first + s * (last - first)) for n, s in zip(steps, share, strict=True))
    ends = range(1, len(tasks) + 1)  # of tasks: how many are tested
    num_tests = sum(ends) + sum(n * n for n in (ends if args.scenarios_every_task else ends[-1:]))
    found = {
        "num_weights": {"main": mnet.num_params, "hypernet": module.num_params},
        "compression_ratio": module.num_params / mnet.num_params,
        "chunk_size": chunk_size(args, mnet) if args.hnet_type == "chunked_hmlp" else None,
        "bytes": len(seeds) * member,
        "step_seconds": step_seconds,
        "seconds": len(groups) * (learning + num_tests * evaluation),
    }
    screen = Screen(lambda line: None)
    screen.say(f"main network: {args.net_type} with {mnet.num_params:,} weights")
    chunks = f", chunks of {found['chunk_size']:,}" if found["chunk_size"] else ""
    screen.say(f"hypernetwork: {args.hnet_type} with {module.num_params:,} weights{chunks}")
    screen.say(f"compression ratio: {found['compression_ratio']:.3f}")
    screen.say(
        f"memory: about {found['bytes'] / 2**20:,.0f} MiB in the last task beside the images, of "
        f"{free / 2**20:,.0f} MiB free; {len(seeds)} of {args.num_seeds} seed(s) at a time"
    )
    screen.say(
        f"a step: {1e3 * first:.1f} ms in the first task, {1e3 * last:.1f} ms in the last; "
        f"{sum(steps):,} steps"
    )
    screen.say(f"the whole run: about {found['seconds'] / 60:.1f} minutes")
    return found


_TRIED, _SLOW = 10, 4  # steps of a task that are timed; before them, those with what is slow once


def split_seeds(args, seeds, mnet, module, tasks, device) -> list[list[int]]:
    """The groups of seeds that are trained together."""
    from hypercl.memory import split_into_groups
    from hypercl.networks import most_together

    most = most_together(mnet, device)
    if len(seeds) == 1 or most == 1:
        return [[seed] for seed in seeds]
    memory = member_and_free_bytes(args, mnet, module, tasks, device)
    return [list(group) for group in split_into_groups(seeds, *memory, most)]


_SAME_EXPERIMENT = ("random_seed", "num_seeds", "val_iter", "val_batch_size", "no_cuda",
                    "deterministic_run", "scenarios_every_task")  # fmt: skip


def describe_preset(name: str) -> str:
    """What a preset is of, in words."""
    preset = published.load(name)
    remarks = f"; {preset.remarks}" if preset.remarks else ""
    return f"preset {name}: {preset.experiment}, {preset.networks}; {preset.source}{remarks}"


def altered_options(args) -> list[str]:
    """Which options differ from the preset's, where that makes another experiment of it."""
    if args.preset is None:
        return []
    asked, here = (plain_options(a) for a in (parse_args([f"--preset={args.preset}"]), args))
    for name in _SAME_EXPERIMENT:
        asked[name] = here[name]
    return differing_options(asked, here)


def describe_position(position, num_tasks: int) -> str:
    """Where a run goes on, in words."""
    if position.group == len(position.groups):
        return "its end"
    step = 0 if position.training is None else position.training["step"]
    group = f" of group {position.group + 1}" if len(position.groups) > 1 else ""
    return f"task {position.task_id + 1}/{num_tasks}{group}, step {step}"


def describe(checkpoint) -> str:
    """One remark on how the earlier tasks are regularized."""
    if checkpoint is None:
        return "no regularizer"
    form = "factored" if checkpoint.factored else "dense"
    return f"{form} regularizer, which keeps {checkpoint.num_bytes / 2**20:.1f} MiB"


def pick_device(args):
    """The GPU where there is one and it is wanted, else the CPU; sets torch's global switches."""
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
        running_stats=not args.bn_no_running_stats,
    )  # without weights, and with batch normalization's counters on the CPU, where they are read


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
            chunk_size=chunk_size(args, mnet),
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


def chunk_size(args, mnet) -> int:
    """The one given, or the one that ``--compression`` asks for."""
    from hypercl import networks

    if args.compression == -1:
        return args.chmlp_chunk_size
    return networks.chunk_size_for(
        args.compression,
        mnet.num_params,
        args.num_tasks,
        hmlp_arch=args.hmlp_arch,
        cond_emb_size=args.cond_emb_size,
        chunk_emb_size=args.chunk_emb_size,
        cond_chunk_embs=args.use_cond_chunk_embs,
        bias=not args.hnet_no_bias,
    )


def heads_of(args, mnet, tasks):
    """Which generated weights are regularized for which task."""
    from hypercl.heads import head_of_each_task, one_head

    if not args.multi_head or args.hnet_reg_all_heads:
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


def checkpoint_before(args, task_id: int, hnet, params, mnet, tasks):
    """What the regularizer remembers before a task is learned; None where there is none."""
    from hypercl.regularizer import take_checkpoint

    if args.beta == 0:
        return None
    return take_checkpoint(
        hnet,
        params,
        task_id,
        subset_size=args.hnet_reg_batch_size,
        store_targets=not args.calc_hnet_reg_targets_online,
        heads=heads_of(args, mnet, tasks),
    )


def member_and_free_bytes(args, mnet, module, tasks, device) -> tuple[int, int]:
    """What one more seed takes of the device's memory, and what is free."""
    from hypercl.memory import available_bytes, estimate_member

    hnet, params = as_function(args, module, "cpu")
    per_member = estimate_member(
        hnet,
        params,
        mnet,
        num_tasks=args.num_tasks,
        subset_size=args.hnet_reg_batch_size,
        store_targets=not args.calc_hnet_reg_targets_online,
        heads=heads_of(args, mnet, tasks),
        num_inputs=prod(tasks[0].in_shape),
        batch_size=max(args.batch_size, args.val_batch_size),
        num_steps=training(args, [args.random_seed], len(tasks[0].train.labels)).num_steps,
    )
    return per_member, available_bytes(device)


def training(args, seeds, num_samples: int):
    """How a task with so many training samples is learned by these seeds."""
    from train import Training

    epoch = ceil(num_samples / args.batch_size)
    return Training(
        num_steps=args.n_iter if args.epochs == -1 else args.epochs * epoch,
        batch_size=args.batch_size,
        task_weight=num_samples if args.task_loss == "total" else 1,
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
        steps_per_epoch=epoch,
        plateau_lr_scheduler=args.plateau_lr_scheduler,
        lambda_lr_scheduler=args.lambda_lr_scheduler,
        val_iter=args.val_iter,
        val_batch_size=args.val_batch_size,
        seeds=seeds,
        amp=args.amp,
        tf32=args.tf32,
    )


def describe_run(args, argv: list[str], device) -> dict[str, Any]:
    """What config.json holds."""
    packages = ("torch", "numpy", "hypnettorch")
    return {
        "options": plain_options(args),
        "command": shlex.join(["python", "run.py", *argv]),
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


def save_weights(run_dir, args, module, position) -> None:
    """weights.pt: by seed, the hypernetwork's parameters in hypnettorch's naming; the options."""
    from copy import deepcopy

    from hypercl.hypernet import into_module
    from hypercl.saving import encode

    states = {}
    for seed, params in position.learned.items():
        into_module(params, module)
        states[seed] = deepcopy(dict(module.state_dict()))  # what has two names stays one tensor
    tested_together = [[seed for seed in group if seed in states] for group in position.groups]
    content = {
        "hnet": states,
        "stats": {seed: list(position.learned_stats[seed]) for seed in states},
        "groups": [group for group in tested_together if group],
        "options": plain_options(args),
    }
    run_dir.write_bytes("weights.pt", encode(content))


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, torch's CPU allocator or CUDA found no memory."""
    if isinstance(error, MemoryError):
        return True
    text = str(error)
    words = ("out of memory", "can't allocate memory", "calculation overflowed", "nteger overflow")
    return any(word in text for word in words)


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """A warning is for the user of the script: what it says, and not where in the code it was."""
    print(f"run.py: warning: {message}", file=sys.stderr)


def command_line() -> int:
    """Run :func:`main` for the shell: one line on stderr for what went wrong, and an exit code."""
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
    except KeyboardInterrupt as error:
        print("run.py: interrupted", file=sys.stderr)
        return error.exit_code if isinstance(error, Interrupted) else 130
    return 0


def end_process(code: int) -> None:
    """Exit with a code; after a Ctrl-C in a terminal, by the signal itself.

    The shell sees 130 in both cases, but a shell's loop ends only with a program that the signal
    has ended.
    """
    if code == 128 + signal.SIGINT and in_foreground():
        sys.stdout.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    sys.exit(code)


def in_foreground() -> bool:
    """Whether a terminal's Ctrl-C goes to this process."""
    try:
        with open("/dev/tty", "rb", buffering=0) as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


if __name__ == "__main__":
    end_process(command_line())
