"""The command line, made from hypercl/options.py, and the checks across options. No torch."""

import argparse
import difflib
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import Field
from functools import partial
from types import MappingProxyType
from typing import Any, NoReturn

from hypercl import option_file, presets
from hypercl.errors import InputError
from hypercl.option_file import OptionFile
from hypercl.options import (
    GROUPS,
    OF_THE_PROCESS,
    Options,
    all_options,
    brought,
    differing,
    options_of,
)
from hypercl.ranges import Range, as_argument
from hypercl.registry import entries
from hypercl.shell import one_line
from hypercl.tasks.sequences.brought import FolderSplit, OwnSplit

_CHOICES = 60  # characters that --help shows of an option's choices beside its name, at most

EXAMPLES = """\
examples:
  SplitMNIST, 5 tasks of 2 digits, default networks
    python run.py
  the same over five seeds, in one process
    python run.py --num_seeds=5
  or in a shell loop
    for s in 1 2 3 4 5; do
      python run.py --random_seed=$s --out_dir=out/s$s
    done
  PermutedMNIST, one random earlier task regularized per step
    python run.py --cl_exp=permmnist \\
        --num_classes_per_task=10 --num_tasks=10 \\
        --hnet_reg_batch_size=1
  SplitCIFAR-10/100, 6 tasks of 10 classes, ResNet-32
    python run.py --cl_exp=splitcifar --net_type=resnet \\
        --num_classes_per_task=10 --num_tasks=6
  a convolutional main network from a full, linear hnet
    python run.py --net_type=lenet --hnet_type=hmlp \\
        --hmlp_arch= --epochs=1
  what is forgotten without the regularizer
    python run.py --beta=0 --out_dir=out/no_regularizer
  EWC on the same network and data, and both compared
    python run.py --cl_scenario=1 --num_seeds=6 --out_dir=out/hnet
    python run.py --method=ewc --ewc_lambda=1e5 --cl_scenario=1 \\
        --num_seeds=6 --out_dir=out/ewc
    python run.py --compare out/hnet out/ewc
  data, a network and a method of your own (docs/own.rst)
    python run.py --cl_exp=path/to/data.npz ...
    python run.py --net_type=my.py:Net --method=my.py:Mine ...
"""


def parse_args(argv: list[str] | None = None, stored: Mapping[str, Any] | None = None) -> Options:
    """Read and check the command line.

    Args:
        argv: The arguments without the program's name; ``None`` takes ``sys.argv``.
        stored: Options of an earlier run, which count where they are not given. A command line that
            names such a run, with --resume or --eval, is checked as a whole with them alone.

    Raises:
        SystemExit: With code 2 and one line on stderr for a bad option, with code 0 for ``--help``.
    """
    argv = sys.argv[1:] if argv is None else argv
    choices = _first_look(argv, stored or {})
    try:
        parser = make_parser(choices)
    except InputError as error:  # of what the user brings
        make_parser().error(str(error))
    given = _read(parser, argv, choices)
    try:
        file = None
        if given.get("config") is not None:
            file = option_file.read(given["config"], choices)
        preset = _chosen_preset(given, file)
        # With their preset's as they were when that run began.
        layers = [_of_stored(stored or {}), preset, file.options if file else {}]
        options = Options.of(_joined(*layers, given))
        problems = [*_problems_of_process(options, given), *_problems_of_number(options, given)]
        if stored is not None or not (options.run.resume or options.run.eval is not None):
            problems += _problems(options)
            unread = _without_effect(options)
            problems += [problem for name, problem in unread.items() if name in given]
            if file is not None and not file.of_run:
                problems += _without_effect_in(file, unread, Options.of(_joined(*layers[1:])))
    except InputError as error:
        parser.error(str(error))
    for problem in problems:
        parser.error(problem + _from_preset(options, problem) + _from_file(file, options, problem))
    return options


def _first_look(argv: Sequence[str], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Which entries the command line, a file of options or a stored run chooses: they say which
    options there are. What is wrong with any of these is left to be found.
    """
    names = [group.chosen_by for group in GROUPS.values() if group.chosen_by is not None]
    parser = _Quiet(add_help=False, allow_abbrev=False)
    for name in ("config", *names):
        parser.add_argument(f"--{name}")
    look: dict[str, Any] = {}
    with suppress(InputError):
        look = vars(parser.parse_known_args(argv)[0])
    layers = [stored]
    if look.get("config") is not None:
        with suppress(InputError):
            layers.append(option_file.choices_in(os.path.expanduser(look["config"]), names))
    chosen = {n: v for layer in (*layers, look) for n, v in layer.items() if n in names and v}
    for name, value in chosen.items():
        with suppress(argparse.ArgumentTypeError):
            chosen[name] = all_options()[name].metadata["range"].parsed(value)
    return chosen


class _Quiet(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def _read(
    parser: argparse.ArgumentParser, argv: Sequence[str], choices: Mapping[str, Any]
) -> dict[str, Any]:
    """The options that a command line gives, by name, as JSON has them."""
    given: dict[str, Any] = {}
    parser.parse_args(argv, argparse.Namespace(given=given))
    known = all_options(choices)
    for name, value in given.items():
        if isinstance(value, list):  # Python's argparse makes an empty one of --name=--
            parser.error(f"argument --{name}: expected one argument")
    return {name: known[name].metadata["range"].to_plain(v) for name, v in given.items()}


def _joined(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Options from the weakest layer to the strongest, each of which wins over those before it."""
    values: dict[str, Any] = {}
    for layer in layers:
        if "n_iter" in layer:  # or the epochs before it would win over it
            values.pop("epochs", None)
        values |= layer
    return values


def _of_stored(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A run's options, without those of its process."""
    return {n: v for n, v in stored.items() if v is not None and n not in OF_THE_PROCESS}


def make_parser(choices: Mapping[str, Any] = MappingProxyType({})) -> argparse.ArgumentParser:
    """The parser of all options, without the checks across them.

    Args:
        choices: Of entries; the options of those that the user brings are among all.

    Raises:
        InputError: What the user brings cannot be used.
    """
    known, own_kinds = all_options(choices), list(brought(choices))
    parser = _Parser(
        prog="run.py",
        usage="python run.py [options]",
        description="Continual learning with a hypernetwork (von Oswald et al., ICLR 2020).",
        epilog=EXAMPLES,
        formatter_class=_Formatter,
        allow_abbrev=False,  # an option added later must not change what an old script means
    )
    published = parser.add_argument_group("published runs")
    _add(published, "preset", known)
    shown = "show the presets, what was published and what was measured here, and exit"
    _add_list(published, "list_presets", _ListPresets, shown)
    for group in GROUPS.values():
        titled = parser.add_argument_group(group.title)
        own = [] if group.registry is None else [*entries(group.registry).values()]
        own += [kind for kind in own_kinds if kind.chosen_by == group.chosen_by]
        owners = (group.options, *own)  # of which some may have inherited an option of another
        names = dict.fromkeys(field.name for owner in owners for field in options_of(owner))
        for name in names:
            if name != "preset":
                _add(titled, name, known)
            if name == "sweep":
                shown = "show the sweeps that come with the project, and exit"
                _add_list(titled, "list_sweeps", _ListSweeps, shown)
    return parser


def _add_list(
    group: argparse._ArgumentGroup, name: str, action: type[argparse.Action], help_text: str
) -> None:
    """Add an option that shows what there is, and leaves."""
    group.add_argument(f"--{name}", action=action, nargs=0, dest=argparse.SUPPRESS, help=help_text)


def _add(group: argparse._ArgumentGroup, name: str, known: Mapping[str, Field]) -> None:
    """Add an option to the parser."""
    field = known[name]
    allowed, help_text = field.metadata["range"], field.metadata["help"]
    if allowed.is_switch:
        switch: Any = partial(_Switch, allowed=allowed)
        group.add_argument(f"--{name}", action=switch, type=allowed.read, help=help_text)
        return
    metavar = allowed.metavar
    shown = ", ".join(allowed.choices or ())
    if allowed.brings or len(shown) > _CHOICES:
        metavar, help_text = "NAME", f"{help_text} ({shown})"
    default = allowed.to_plain(field.default)
    if default is not None:  # in the spelling of the command line, which --help shows
        default = as_argument(default)
    action: Any = partial(_Several if allowed.several else _Once, allowed=allowed)
    group.add_argument(
        f"--{name}",
        action=action,
        nargs="+" if name == "compare" else None,
        default=default,
        type=allowed.read,
        choices=None if allowed.brings else allowed.choices,
        metavar=metavar,
        help=help_text,
    )


def altered_options(options: Options) -> list[str]:
    """Which options differ from the preset's, where that makes another experiment of it."""
    if options.run.preset not in presets.names():  # a stored run's may be gone since
        return []
    asked = dict(parse_args([f"--preset={options.run.preset}"]).values)
    for name in _SAME_EXPERIMENT:
        asked[name] = options.values[name]
    return differing(asked, options.values)


_SAME_EXPERIMENT = ("random_seed", "num_seeds", "val_iter", "val_batch_size", "no_cuda",
                    "deterministic_run", "scenarios_every_task", "test_iter")  # fmt: skip


def _chosen_preset(given: Mapping[str, Any], file: OptionFile | None) -> dict[str, Any]:
    """The options of the preset that is given on the command line, or else in a TOML file.

    Raises:
        InputError: There is none of that name, or all options are a run's.
    """
    name, option = given.get("preset"), "--preset"
    if file is not None and file.of_run:  # with its preset's as they were when that run began
        if name is not None:
            raise InputError(
                f"--preset={name} beside --config={file.path}, which has all options of a run: "
                "leave one out"
            )
        return {}
    if name is None and file is not None:
        name, option = file.options.get("preset"), f"{file.path}: preset"
    if name is None:
        return {}
    if name not in presets.names():
        close = difflib.get_close_matches(name, presets.names(), n=1)
        raise InputError(
            f"{option}={name} is not known"
            + (f" (did you mean {close[0]}?)" if close else "")
            + ": --list_presets shows all"
        )
    options = {"preset": name, **presets.load(name).options}
    return {n: all_options()[n].metadata["range"].parsed(v) for n, v in options.items()}


def _from_preset(options: Options, problem: str) -> str:
    """A remark on which of the options that a problem names are as the preset has them."""
    if options.run.preset not in presets.names():
        return ""
    name = options.run.preset
    return _remark(f"--preset={name}", presets.load(name).options, options, problem)


def _from_file(file: OptionFile | None, options: Options, problem: str) -> str:
    """The same of a file."""
    if file is None:
        return ""
    return _remark(f"--config={file.path}", file.options, options, problem)


def _remark(source: str, has: Mapping[str, Any], options: Options, problem: str) -> str:
    here = options.values
    named = dict.fromkeys(re.findall(r"--(\w+)", problem))
    kept = [
        f"--{name}={as_argument(has[name])}"
        for name in named
        if name in has and as_argument(has[name]) == as_argument(here[name])
    ]
    return f" ({source} has {', '.join(kept)}; what is given beside it wins)" if kept else ""


class _Once(argparse.Action):
    """Notes what is given in the namespace's ``given``; refuses a second value for an option."""

    def __init__(self, option_strings, dest, *, allowed: Range, **options) -> None:
        super().__init__(option_strings, dest, **options)
        self.allowed = allowed

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        before = namespace.given.setdefault(self.dest, values)
        if before != values:
            first, second = (as_argument(self.allowed.to_plain(v)) for v in (before, values))
            parser.error(f"--{self.dest} is given as {first} and as {second}: leave one out")


class _Several(_Once):
    """Notes what is given in the namespace's ``given``, behind what was given before."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        values = values if isinstance(values, list) else [values]
        if not values:  # Python's argparse makes this of --name=--
            parser.error(f"argument --{self.dest}: expected at least one argument")
        before = namespace.given.get(self.dest, ())
        namespace.given[self.dest] = (*before, *values)


class _Switch(_Once):
    """``--name`` and ``--name=on``, or ``--name=off`` against a preset that has it on."""

    def __init__(self, option_strings, dest, **options) -> None:
        super().__init__(option_strings, dest, nargs="?", const=True, default=False, **options)


class _ListPresets(argparse.Action):
    """Shows the presets and leaves."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        from hypercl.report.screen import show_presets

        show_presets()
        parser.exit(0)


class _ListSweeps(argparse.Action):
    """Shows the sweeps and leaves."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        from hypercl.commands.sweep import show_sweeps

        show_sweeps()
        parser.exit(0)


def _problems_of_process(options: Options, given: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong across the options that say what to do, rather than with which settings.

    Args:
        given: Those on the command line.
    """
    run = options.run
    yield from _problems_of_compare(given)
    yield from _problems_of_export(given)
    yield from _problems_of_sweep(given)
    if "n_iter" in given and given.get("epochs", -1) != -1:
        yield "--epochs replaces --n_iter: leave one out"
    if run.resume and run.overwrite:
        yield "--resume continues a run and --overwrite replaces it: give one of them"
    if run.overwrite and run.out_dir is None:
        yield "--overwrite replaces the run in --out_dir: give that, too"
    both = run.continue_from, run.out_dir
    if None not in both and len({os.path.realpath(path) for path in both if path}) == 1:
        yield (
            f"--continue_from={run.continue_from} is --out_dir too, and stays as it is: give "
            "another --out_dir"
        )
    if run.eval is not None and (
        run.resume or run.overwrite or run.dry_run or run.out_dir is not None
    ):
        yield (
            "--eval trains nothing and writes nothing: leave --out_dir, --resume, --overwrite and "
            "--dry_run out"
        )
    if run.pause_after is not None and (run.eval is not None or run.dry_run):
        instead = "--dry_run" if run.eval is None else "--eval"
        yield f"--pause_after has no effect beside {instead}, which trains nothing: leave it out"


def _problems_of_compare(given: Mapping[str, Any]) -> Iterator[str]:
    """What is given beside --compare and is none of its own, and the reverse."""
    own = ("label", "report")
    if "compare" not in given:
        for name in own:
            if name in given:
                yield f"--{name} goes with --compare: give that too, or leave it out"
        return
    if given.get("report") == "":
        yield "--report is empty: give a directory"
    instead = ("eval", "resume", "out_dir", "overwrite", "dry_run")
    if beside := [f"--{name}" for name in instead if name in given]:
        yield f"--compare trains nothing and tests nothing: leave {' and '.join(beside)} out"
    for name in given:
        if name not in ("compare", *own, *instead):
            yield f"--{name} has no effect beside --compare, which trains nothing: leave it out"


def _problems_of_sweep(given: Mapping[str, Any]) -> Iterator[str]:
    """What is given beside --sweep and is none of its own, and the reverse."""
    clusters = ("scheduler", "slurm", "lsf", "pbs")
    own = ("workers", *clusters, "retest", "retry_failed")
    if "sweep" not in given:
        for name in own:
            if name in given:
                yield f"--{name} goes with --sweep: give that too, or leave it out"
        return
    if not given["sweep"]:
        yield "--sweep is empty: give a file, or a name that --list_sweeps shows"
    chosen = [name for name in clusters if given.get(name)]
    if len(chosen) > 1:
        both = " and ".join(f"--{name}" for name in chosen)
        yield f"{both} say both who does the work: leave one out"
    if "scheduler" in chosen and "workers" in given:
        yield "--scheduler has workers of its own: leave --workers out"
    for name in given:
        if name not in ("sweep", "out_dir", "dry_run", *own):
            yield (
                f"--{name} cannot be given beside --sweep, whose file has the options of all "
                "points: write it there"
            )


def _problems_of_export(given: Mapping[str, Any]) -> Iterator[str]:
    """What is given beside --export and is none of its own, and the reverse."""
    if "export" not in given:
        for name in ("to", "format"):
            if name in given:
                yield f"--{name} goes with --export: give that too, or leave it out"
        return
    if not given.get("to"):
        yield "--export writes files, and --to says where: give a directory"
    for name in given:
        if name not in ("export", "to", "format", "data_dir"):
            yield f"--{name} has no effect beside --export, which trains nothing: leave it out"


def _problems_of_number(options: Options, given: Mapping[str, Any]) -> Iterator[str]:
    """Whether the number of tasks given is another one than a list of their sizes has."""
    if "num_tasks" in given and given["num_tasks"] != options.task.num_tasks:
        yield (
            f"--num_tasks={given['num_tasks']} is not the {options.task.num_tasks} of "
            f"{options.spelled('num_classes_per_task')}: leave it out"
        )


def _problems(options: Options) -> Iterator[str]:
    """What is wrong across options, each in one line that names the options and the mend."""
    for kind in options.kinds:
        yield from kind.refusals(options)
    yield from _problems_of_regression(options)
    yield from options.task.kind.problems(options)
    if options.evaluation.test_with_val_set and options.task.val_set_size == 0:
        yield "--test_with_val_set needs a validation set: give --val_set_size above 0"
    yield from _problems_of_scenario(options)
    yield from _problems_of_training(options)
    if options.main_net.specnorm:
        yield (
            f"--specnorm cannot be used with --net_type={options.main_net.net_type}: spectral "
            "normalization needs weights of the network's own, and these are generated; leave "
            "--specnorm out"
        )
    yield from options.main_net.kind.problems(options)
    yield from _problems_of_batchnorm(options)
    yield from options.method.kind.problems(options)


def _problems_of_regression(options: Options) -> Iterator[str]:
    """What makes no sense of labels that are numbers; methods have more."""
    task, method = options.task, options.method
    if task.task_type not in (None, *task.kind.task_types):
        of_numbers = "whose labels are numbers: leave it out"
        of_classes = "whose labels are classes: leave it out, or bring a function"
        remark = of_classes if task.is_regression else of_numbers
        yield f"--task_type={task.task_type} cannot be used with --cl_exp={task.cl_exp}, {remark}"
    if not task.is_regression:
        return
    without = "and tasks of regression have no classes: "
    if task.num_classes_per_task is not None:
        yield (f"{options.spelled('num_classes_per_task')} counts classes, {without}leave it out")
    if task.val_split == "stratified":
        yield (f"--val_split=stratified holds out samples of each class, {without}take first")
    if task.has_growing_outputs:
        yield f"--cl_scenario=3 tells the classes of all tasks apart, {without}take 1 or 2"
    if options.evaluation.scenarios_every_task:
        yield (
            "--scenarios_every_task infers tasks from the probabilities of classes, "
            f"{without}leave it out"
        )
    if reason := method.kind.no_regression:
        yield f"--method={method.method} {reason}, {without}take another method"


def _problems_of_scenario(options: Options) -> Iterator[str]:
    task, method = options.task, options.method
    if task.multi_head and task.cl_scenario not in (None, 1):
        yield (
            f"--multi_head is --cl_scenario=1, not --cl_scenario={task.cl_scenario}: leave one out"
        )
    elif task.cl_scenario is not None and task.cl_scenario not in method.kind.scenarios:
        yield (
            f"--cl_scenario={task.cl_scenario} trains one network for all tasks, and "
            f"--method={method.method} has one for each: leave it out; CL2 and CL3 are measured in "
            "every run, with the task inferred"
        )
    if options.run.continue_from is not None and not task.shares_outputs:
        given = "--multi_head" if task.multi_head else f"--cl_scenario={task.cl_scenario}"
        yield (
            f"--continue_from cannot be used with {given}: the main network of that run has no "
            "outputs for more tasks; train all tasks from the start"
        )


def _without_effect(options: Options) -> dict[str, str]:
    """Which options nothing in the run would read: by name, what each goes with.

    Defaults, a preset's options and a stored run's may be such; what is given may not.
    """
    unread: dict[str, str] = {}
    chosen = [type(kind) for kind in options.kinds]
    for group in GROUPS.values():
        if group.registry is None:
            continue
        owners: dict[str, list[str]] = {}  # by option
        for name, entry in entries(group.registry).items():
            for field in options_of(entry):
                owners.setdefault(field.name, []).append(name)
        for option in sorted(owners):
            if not any(option in (field.name for field in options_of(e)) for e in chosen):
                names = [f"--{group.chosen_by}={name}" for name in owners[option]]
                if option in (field.name for field in options_of(OwnSplit)):
                    names.append("data of your own that are split")
                with_ = " or ".join(names)
                unread[option] = f"--{option} goes with {with_}: give that too, or leave it out"
    for kind in options.kinds:
        for option, remark in sorted(kind.unread(options).items()):
            unread.setdefault(option, f"--{option} {remark}")
    if options.task.val_set_size == 0:
        unread["val_iter"] = (
            "--val_iter concerns validation, and --val_set_size=0 leaves none: leave one out"
        )
        unread["val_split"] = unread["val_iter"].replace("--val_iter", "--val_split")
    if not options.tells_tasks_apart:
        unread["scenarios_every_task"] = (
            "--scenarios_every_task concerns the inference of tasks, and here they cannot be "
            "inferred: leave it out, or take outputs or a network for each task"
        )
    if not options.method.kind.network_by_task:
        unread["bn_no_stats_checkpointing"] = (
            "--bn_no_stats_checkpointing concerns a network for each task, and --method="
            f"{options.method.method} has one for all, with one set of statistics: leave it out"
        )
    if options.run.no_cuda:
        unread["tf32"] = "--tf32 concerns GPUs, and --no_cuda leaves them alone: leave one out"
    return unread


def _without_effect_in(
    file: OptionFile, unread: Mapping[str, str], alone: Options
) -> Iterator[str]:
    """Which options of a file nothing reads, be it with the file's own choices or with those of
    the command line: with another method given beside it, one file serves both.

    Args:
        unread: Of the run; ``alone``: the options without the command line's.
    """
    unread_alone = _without_effect(alone)
    for option in file.options:
        if option in unread and option in unread_alone:
            yield f"{file.path}: {unread[option]}"


def _problems_of_training(options: Options) -> Iterator[str]:
    train = options.train
    if train.plateau_lr_scheduler and options.task.val_set_size == 0:
        looked_at = f"the validation {options.task.measure.name}"
        yield f"--plateau_lr_scheduler looks at {looked_at}: give --val_set_size above 0"
    if train.use_sgd and train.use_rmsprop:
        yield "--use_sgd and --use_rmsprop exclude each other: leave one out"
    adam = not (train.use_sgd or train.use_rmsprop)
    if options.is_changed("momentum") and adam:
        yield (
            f"--momentum={train.momentum:g} has no effect with Adam: leave it at 0 (--adam_beta1 "
            "is Adam's counterpart), or add --use_sgd or --use_rmsprop"
        )
    if options.is_changed("adam_beta1") and not adam:
        yield (
            f"--adam_beta1={train.adam_beta1:g} is an option of Adam: leave it out, or leave out "
            "--use_sgd and --use_rmsprop"
        )


def _problems_of_batchnorm(options: Options) -> Iterator[str]:
    net = options.main_net
    for name in ("bn_no_running_stats", "bn_no_stats_checkpointing"):
        has_it = net.batchnorm or (net.kind.brings_stats and name == "bn_no_stats_checkpointing")
        if options.is_changed(name) and not has_it:
            yield f"--{name} needs --batchnorm: add it, or leave this one out"
    if net.bn_no_running_stats and net.bn_no_stats_checkpointing:
        yield (
            "--bn_no_stats_checkpointing concerns running statistics, and --bn_no_running_stats "
            "leaves none: leave one out"
        )
    by_batch = ["batch_size"]
    if net.bn_no_running_stats:
        by_batch += ["val_batch_size", "val_set_size"]
    for name in by_batch if net.batchnorm else ():
        if 0 < (size := options.values[name]) < 4:
            yield (
                f"--{name}={size} is too small for --batchnorm by batch statistics: take 4 or more"
            )


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Shows each option's default, but for switches, which are off by default."""

    def __init__(self, prog: str) -> None:
        columns = shutil.get_terminal_size().columns - 2
        super().__init__(prog, max_help_position=min(36, columns // 2), width=min(110, columns))

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = text.splitlines()  # of the description and the examples, as they are where they fit
        return "\n".join(textwrap.fill(x, width) if len(x) > width else x for x in lines) + "\n"

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.nargs == 0 or action.default is None or isinstance(action, _Switch):
            return action.help
        return f"{action.help} (default: %(default)s)"

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return "" if isinstance(action, _Switch) else super()._format_args(action, default_metavar)


class _Parser(argparse.ArgumentParser):
    """Errors in one line on stderr, with the name that an unknown option may have meant."""

    def error(self, message: str) -> NoReturn:
        message = one_line(message)
        if message.startswith("unrecognized arguments: "):
            given = message.split(": ", 1)[1].split("=")[0].partition(" ")[0]
            names = [option.removeprefix("--") for option in self._option_string_actions]
            meant = option_file.nearest(given.lstrip("-"), names) if given[:1] == "-" else None
            if given.lstrip("-") in (field.name for field in options_of(FolderSplit)):
                meant = f"{given.lstrip('-')} with --cl_exp=path/to/folder"
            message += f" (did you mean --{meant}?)" if meant else " (--help lists the options)"
        self._print_message(f"{self.prog}: error: {message}\n", sys.stderr)
        raise Refused(message)


class Refused(SystemExit):
    """A bad option: exit code 2; stderr has the message already."""

    def __init__(self, message: str) -> None:
        super().__init__(2)
        self.message = message
