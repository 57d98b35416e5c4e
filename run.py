"""Continual learning with a hypernetwork: the experiment, from command line to results.

python run.py --help
"""

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from continuing import (
    describe_position,
    load_checkpoint,
    require_same_options,
    resumed,
    save_checkpoint,
)
from hypercl import published
from hypercl.errors import RunFailed
from hypercl.interruption import Interruption
from hypercl.shell import command_line, end_process
from train_args import differing_options, parse_args, plain_options

# torch takes seconds to import. It is imported where the command line has been accepted, in the
# functions below, so that --help, a mistyped option and a finished run answer at once.


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the experiment that a command line describes, or what is left of it.

    Args:
        argv: The options; ``None`` takes those of the process.

    Returns:
        What results.json holds at the end; of a dry run, what it says.

    Raises:
        SystemExit: A bad option (code 2), or ``--help`` (code 0).
        InputError: Data or a directory that cannot be used.
        RunFailed: The loss was not finite, the results could not be written, or ``--eval`` found
            others.
        Interrupted: SIGINT or SIGTERM; what was learned has been saved.
    """
    started = time.monotonic()
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    from hypercl.rundir import RunDir

    with Interruption() as interruption:
        if args.eval is not None:
            import_torch(interruption)
            from learned import retest

            return retest(Path(args.eval), argv)
        if args.resume:
            args = resumed(args, argv)
        if args.dry_run:
            import_torch(interruption)
            from dry_run import try_out

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
        import experiment  # noqa: F401
        import hypercl.report  # noqa: F401


def learn(args, argv, run_dir, interruption, started: float) -> dict[str, Any]:
    """Learn all tasks with all seeds, from the beginning or from the last checkpoint."""
    from experiment import (
        build_hypernet,
        build_main_net,
        build_tasks,
        chunk_size,
        pick_device,
        split_seeds,
    )
    from hypercl.provenance import describe_run
    from hypercl.report import Report
    from hypercl.saving import Position
    from hypercl.screen import Screen
    from hypercl.tasks import fingerprint
    from learned import save_weights

    device = pick_device(args)
    tasks = build_tasks(args, device)
    mnet = build_main_net(args, tasks[0])
    module = build_hypernet(args, mnet, args.random_seed)
    num_weights = {"main": mnet.num_params, "hypernet": module.num_params}
    seeds = range(args.random_seed, args.random_seed + args.num_seeds)
    # A run that goes on keeps the options with which it began: --resume is none of its own.
    config = plain_options(args) if run_dir.config is None else run_dir.config["options"]
    described, data = describe_run(config, argv, device), fingerprint(tasks)
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
        groups = f"in {len(position.groups)} groups, each together"
        ways = {1: "together", len(seeds): "one by one"}
        screen.say(f"{len(seeds)} seeds, trained {ways.get(len(position.groups), groups)}")
    if args.preset is not None:
        screen.say(describe_preset(args.preset))
    report = Report(
        run_dir,
        screen,
        experiment=args.cl_exp,
        task_names=[task.name for task in tasks],
        config=config,
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
    from experiment import checkpoint_before, init_members, splits_to_test, training
    from hypercl.members import select_members, to_device
    from hypercl.networks import fresh_stats
    from hypercl.saving import Position
    from hypercl.scenarios import infer_tasks
    from train import TaskState, evaluate_tasks, train_task

    seeds = position.seeds
    hnet, params = init_members(args, mnet, seeds, device)
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

        def leave_if_pending(position=position) -> None:
            if interruption.pending:
                save(position)
                interruption.leave()

        seen = tasks[: task_id + 1]
        tested = hnet, mnet, params, seen, splits_to_test(args, seen), args.val_batch_size, stats
        rows = evaluate_tasks(*tested, between=leave_if_pending)
        rows = [[100 * accuracy for accuracy in row] for row in rows]
        inferred = None
        if task_id + 1 == len(tasks) or args.scenarios_every_task:
            found = infer_tasks(*tested, between=leave_if_pending)
            inferred = dict(zip(seeds, found, strict=True))
        report.end_task(task_id, dict(zip(seeds, rows, strict=True)), inferred)
        position = replace(
            position, seeds=seeds, task_id=task_id + 1, params=params, training=None, stats=stats
        )
        if task_id + 1 < len(tasks):
            save(position)
            interruption.leave_if_pending()
    # On the CPU, so that the next group has the device to itself.
    params, stats = to_device(params, "cpu"), [to_device(of_task, "cpu") for of_task in stats]
    learned = {seed: select_members(params, i) for i, seed in enumerate(seeds)}
    learned_stats = {
        seed: [select_members(of_task, i) for of_task in stats] for i, seed in enumerate(seeds)
    }
    return Position.start(
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


def show_again(run_dir) -> dict[str, Any]:
    """Say what a finished run has found; trains nothing."""
    from hypercl.screen import Screen
    from hypercl.summary import show_summary

    screen = Screen(lambda line: None)
    screen.say(f"finished before, {run_dir.config['started']}: {run_dir.config['command']}")
    show_summary(screen, run_dir.results, run_dir.path)
    return run_dir.results


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


def describe(checkpoint) -> str:
    """One remark on how the earlier tasks are regularized."""
    if checkpoint is None:
        return "no regularizer"
    form = "factored" if checkpoint.factored else "dense"
    return f"{form} regularizer, which keeps {checkpoint.num_bytes / 2**20:.1f} MiB"


if __name__ == "__main__":
    end_process(command_line(main))
