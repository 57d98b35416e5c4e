"""Continual learning with hypernetworks: an experiment, from the command line to the results.

python run.py --help
"""

import sys
import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypercl.errors import RunFailed
from hypercl.interruption import Interruption
from hypercl.options import Options, require_same
from hypercl.rundir.directory import RunDir
from hypercl.shell import command_line, end_process, importing
from hypercl.sizes import require_memory
from train_args import altered_options, parse_args

if TYPE_CHECKING:
    from hypercl.begun import Begun, Data
    from hypercl.experiment import Experiment
    from hypercl.rundir.checkpoint import Position

# torch takes seconds to import. It is imported where the command line has been accepted, in the
# functions below, so that --help, a mistyped option and a finished run answer at once.


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the experiment that a command line describes, or what is left of it.

    Args:
        argv: The options; ``None`` takes those of the process.

    Returns:
        What results.json holds at the end or at a pause; of a dry run, a sweep, a comparison or an
        export, what it says.

    Raises:
        SystemExit: A bad option (code 2), or ``--help`` (code 0).
        InputError: Data or a directory that cannot be used.
        RunFailed: The loss was not finite, the user's network or method failed, the results could
            not be written, or ``--eval`` found others.
        Interrupted: By a signal; what was learned has been saved.
    """
    started, used = time.monotonic(), time.process_time()
    argv = sys.argv[1:] if argv is None else argv
    options = parse_args(argv)
    with Interruption() as interruption:
        if options.run.compare is not None:
            from hypercl.commands.compare import compare

            return compare(options.run, argv)
        if options.run.sweep is not None:
            from hypercl.commands.sweep import sweep

            return sweep(options.run, argv, parse_args, interruption)
        if options.run.export is not None:
            return export_run(options, interruption)
        if options.run.eval is not None:
            import_torch(interruption)
            return retest_run(Path(options.run.eval), argv)
        if options.run.resume:
            from hypercl.commands.resume import resumed

            options = resumed(options, argv, parse_args, partial(import_torch, interruption))
        if options.run.dry_run:
            require_memory(options)
            import_torch(interruption)
            return try_out_run(options, used)
        with open_run_dir(options) as run_dir:
            if run_dir.finished:
                from hypercl.report.summary import show_again

                return show_again(run_dir)
            require_memory(options)
            start_drawer()
            import_torch(interruption)
            return learn(options, argv, run_dir, interruption, started)


def learn(
    options: Options,
    argv: list[str],
    run_dir: RunDir,
    interruption: Interruption,
    started: float,
) -> dict[str, Any]:
    """Learn all tasks with all seeds, from the beginning or from the last checkpoint."""
    from hypercl.code import within_run
    from train import learn_tasks

    run = begin(options, argv, run_dir, interruption, started)
    position, report, checkpoints = run.position, run.report, run.checkpoints
    with report, interruption.grace(), within_run(options.kinds[1:]):
        if run.is_new:
            checkpoints.save(position)
        while position.group < len(position.groups) and not checkpoints.pauses_at(position):
            report.start_group(position.groups[position.group])
            position = learn_tasks(run.experiment, position, report, checkpoints, run.keep)
            run.save_weights(position)
            checkpoints.save(position)
        if (reason := run.end(position)) is not None:
            raise RunFailed(reason)
    return report.results


def begin(
    options: Options,
    argv: list[str],
    run_dir: RunDir,
    interruption: Interruption,
    started: float,
    data: "Data | None" = None,
) -> "Begun":
    """Make all that a run needs, and find where it begins or goes on.

    Args:
        data: Of points that train together, which say nothing on the screen.
    """
    from hypercl.begun import Begun
    from hypercl.commands.resume import require_fitting
    from hypercl.experiment import Experiment
    from hypercl.report.results import Report
    from hypercl.rundir.checkpoint import Checkpoints, load_checkpoint, restore_config
    from hypercl.rundir.provenance import describe_run
    from hypercl.rundir.sources import describe_sources, keep_sources, sources_of
    from hypercl.tasks.task import fingerprint
    from train import TaskTraining

    restore_config(run_dir)
    experiment = Experiment.build(options, None if data is None else data.tasks)
    # A run that goes on keeps the options with which it began: --resume is none of its own.
    config = options.recorded if run_dir.config is None else run_dir.config["options"]
    sources = sources_of(options.kinds)
    described = describe_run(config, argv, experiment.device, describe_sources(sources))
    checksum = fingerprint(experiment.tasks) if data is None else data.checksum
    saved = load_checkpoint(run_dir, options.recorded, described, checksum)
    if saved is None:
        position, report_state = first_position(experiment, described)
        grown = None
        # All input has been found good: from here on, there is a run directory.
        run_dir.begin(described)
    else:
        position, report_state, grown = saved
        path = run_dir.checkpoints[0]
        require_fitting(path, experiment, position, report_state, TaskTraining.at)
    run_dir.open(grown)
    keep_sources(run_dir, sources)
    altered, silent = altered_options(options), data is not None
    report = Report(run_dir, experiment, config, altered, started, report_state, silent=silent)
    report.announce(position, goes_on=saved is not None)
    checkpoints = Checkpoints(
        run_dir,
        described,
        checksum,
        report.state,
        options.run.ckpt_iter,
        interruption,
        options.run.pause_after,
    )
    return Begun(run_dir, experiment, config, position, report, checkpoints, saved is None)


def first_position(
    experiment: "Experiment", described: dict[str, Any]
) -> tuple["Position", dict[str, Any] | None]:
    """Before the first task, or behind the last one of the run that is continued; the state of the
    report, where there is one.
    """
    from hypercl.commands.continue_from import find_source, start_after
    from hypercl.rundir.checkpoint import Position
    from train import TaskTraining

    if experiment.options.run.continue_from is None:
        return Position.start(experiment.groups_of_seeds()), None
    source = find_source(experiment.options)
    return start_after(source, experiment, described, TaskTraining.at)


def learn_together(argvs: list[list[str]]) -> list[dict[str, Any]]:
    """Learn several points of a sweep as members of one step; see hypercl/sweeps/together.py."""
    from hypercl.sweeps.together import require_sharing

    started = time.monotonic()
    points = [parse_args(argv) for argv in argvs]
    require_sharing(points)
    with Interruption() as interruption, ExitStack() as stack:
        run_dirs = [stack.enter_context(open_run_dir(options)) for options in points]
        require_memory(points[0])
        with interruption.grace(), importing():
            from hypercl.sweeps.pack import learn_in_packs
            from train import learn_next_task

        def begin_point(i: int, data: "Data") -> "Begun":
            return begin(points[i], argvs[i], run_dirs[i], interruption, started, data)

        return learn_in_packs(points[0], run_dirs, begin_point, learn_next_task, interruption)


def open_run_dir(options: Options) -> RunDir:
    """The run directory, which may hold a run with these options and no other."""
    from hypercl.rundir.sources import require_unchanged

    path = None if options.run.out_dir is None else Path(options.run.out_dir)
    run_dir = RunDir(path, overwrite=options.run.overwrite)
    try:
        if run_dir.config is not None:
            require_unchanged(run_dir.path, run_dir.config)
            require_same(path, run_dir.config["options"], options.recorded)
        if run_dir.results is not None:
            require_same(path, run_dir.results["config"], options.recorded)
        if not options.run.overwrite:
            run_dir.require_config()
        if options.run.continue_from is not None and run_dir.config is None:
            from hypercl.commands.continue_from import find_source

            find_source(options)  # refused at once, before torch is imported
    except BaseException:
        run_dir.close()
        raise
    return run_dir


def import_torch(interruption: Interruption) -> None:
    """Import what takes seconds; a signal waits until it is there.

    Raised within it, where torch's C++ calls Python, an exception would abort the process.
    """
    if "torch" not in sys.modules:
        from hypercl.report.screen import Screen

        Screen(lambda line: None).say("loading torch, which takes some seconds")
    with interruption.grace(), importing():
        import train  # noqa: F401


def start_drawer() -> None:
    """Have another process import matplotlib while this one imports torch.

    Where torch is there already, that can wait for the first plots.
    """
    if "torch" not in sys.modules:
        from hypercl.report import drawer

        with suppress(OSError):  # they will be drawn in this process
            drawer.start()


def retest_run(path: Path, argv: list[str]) -> dict[str, Any]:
    """``--eval``: test a finished run again."""
    from hypercl.commands.eval import retest

    return retest(path, lambda stored: parse_args(argv, stored))


def export_run(options: Options, interruption: Interruption) -> dict[str, Any]:
    """``--export``: a finished run's networks, for other programs."""
    from hypercl.commands.export import export, require_export

    require_export(options.run)
    import_torch(interruption)
    return export(options)


def try_out_run(options: Options, used: float) -> dict[str, Any]:
    """``--dry_run``: say what a run would take.

    Args:
        used: Seconds of the processor that the process had taken before.
    """
    from hypercl.code import within_run
    from hypercl.commands.continue_from import find_source, require_same_network
    from hypercl.commands.dry_run import try_out
    from hypercl.experiment import Experiment
    from train import TaskTraining

    source = None if options.run.continue_from is None else find_source(options)
    experiment, num_learned = Experiment.build(options), 0
    if source is not None:
        require_same_network(source, experiment)
        num_learned = source.num_tasks
    with within_run(options.kinds[1:]):
        return try_out(experiment, TaskTraining.at, num_learned, used)


if __name__ == "__main__":
    end_process(command_line(main))
