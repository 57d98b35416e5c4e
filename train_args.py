"""The command line, made from hypercl/options.py, and the checks across options. No torch."""

import argparse
import difflib
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Set
from typing import Any, NoReturn

from hypercl import presets
from hypercl.options import (
    GROUPS,
    Options,
    all_options,
    as_arguments,
    differing,
    options_of,
)
from hypercl.ranges import as_argument
from hypercl.registry import entries

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
    parser = make_parser()
    argv = sys.argv[1:] if argv is None else argv
    given_here = {argument[2:].split("=")[0] for argument in argv if argument.startswith("--")}
    argv = _with_preset(parser, argv)
    if stored is not None:  # with their preset's as they were when that run began
        argv = [*as_arguments(stored), *argv]
    given = vars(parser.parse_args(argv))
    for name, value in given.items():
        if isinstance(value, list):  # Python's argparse makes an empty one of --name=--
            parser.error(f"argument --{name}: expected one argument")
    known = all_options()
    options = Options.of({n: known[n].metadata["range"].to_plain(v) for n, v in given.items()})
    problems = [*_problems_of_process(options)]
    if stored is not None or not (options.run.resume or options.run.eval is not None):
        problems += _problems(options)
        problems += _without_effect(options, given_here)
    for problem in problems:
        parser.error(problem + _from_preset(options, problem))
    return options


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
    published = parser.add_argument_group("published runs")
    _add(published, "preset")
    published.add_argument(
        "--list_presets",
        action=_ListPresets,
        nargs=0,
        dest=argparse.SUPPRESS,
        help="show the presets, what was published and what was measured here, and exit",
    )
    for group in GROUPS.values():
        titled = parser.add_argument_group(group.title)
        own = [] if group.registry is None else entries(group.registry).values()
        owners = (group.options, *own)  # of which some may have inherited an option of another
        names = dict.fromkeys(field.name for owner in owners for field in options_of(owner))
        for name in names:
            if name != "preset":
                _add(titled, name)
    return parser


def _add(group: argparse._ArgumentGroup, name: str) -> None:
    """Add an option to the parser."""
    field = all_options()[name]
    allowed, help_text = field.metadata["range"], field.metadata["help"]
    if allowed.is_switch:
        group.add_argument(f"--{name}", action=_Switch, type=allowed.read, help=help_text)
        return
    default = allowed.to_plain(field.default)
    if default is not None:  # in the spelling of the command line, which --help shows
        default = as_argument(default)
    group.add_argument(
        f"--{name}",
        default=default,
        type=allowed.read,
        choices=allowed.choices,
        metavar=allowed.metavar,
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
                    "deterministic_run", "scenarios_every_task")  # fmt: skip


def _with_preset(parser: argparse.ArgumentParser, argv: list[str]) -> list[str]:
    """A preset's options before those given, which win over them."""
    chosen = _Parser(prog=parser.prog, add_help=False, allow_abbrev=False)
    chosen.add_argument("--preset")
    name = chosen.parse_known_args(argv)[0].preset
    if name is None:
        return argv
    if name not in presets.names():
        close = difflib.get_close_matches(name, presets.names(), n=1)
        parser.error(
            f"--preset={name} is not known"
            + (f" (did you mean {close[0]}?)" if close else "")
            + ": --list_presets shows all"
        )
    options = dict(presets.load(name).options)
    given = {argument.split("=")[0] for argument in argv}
    if "--n_iter" in given:  # or the preset's --epochs would win over it
        options.pop("epochs", None)
    return [*as_arguments(options), *argv]


def _from_preset(options: Options, problem: str) -> str:
    """A remark on which of the options that a problem names are as the preset has them."""
    if options.run.preset not in presets.names():
        return ""
    preset, here = presets.load(options.run.preset).options, options.values
    named = dict.fromkeys(re.findall(r"--(\w+)", problem))
    kept = [
        f"--{name}={as_argument(preset[name])}"
        for name in named
        if name in preset and as_argument(preset[name]) == as_argument(here[name])
    ]
    if not kept:
        return ""
    return f" (--preset={options.run.preset} has {', '.join(kept)}; what is given beside it wins)"


class _Switch(argparse.Action):
    """``--name`` and ``--name=on``, or ``--name=off`` against a preset that has it on."""

    def __init__(self, option_strings, dest, **options) -> None:
        super().__init__(option_strings, dest, nargs="?", const=True, default=False, **options)

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        setattr(namespace, self.dest, values)


class _ListPresets(argparse.Action):
    """Shows the presets and leaves."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        from hypercl.report.screen import show_presets

        show_presets()
        parser.exit(0)


def _problems_of_process(options: Options) -> Iterator[str]:
    """What is wrong across the options that say what to do, rather than with which settings."""
    run = options.run
    if run.resume and run.overwrite:
        yield "--resume continues a run and --overwrite replaces it: give one of them"
    if run.overwrite and run.out_dir is None:
        yield "--overwrite replaces the run in --out_dir: give that, too"
    if run.eval is not None and (
        run.resume or run.overwrite or run.dry_run or run.out_dir is not None
    ):
        yield (
            "--eval trains nothing and writes nothing: leave --out_dir, --resume, --overwrite and "
            "--dry_run out"
        )


def _problems(options: Options) -> Iterator[str]:
    """What is wrong across options, each in one line that names the options and the mend."""
    for kind in options.kinds:
        yield from kind.refusals(options)
    yield from options.task.kind.problems(options)
    if options.evaluation.test_with_val_set and options.task.val_set_size == 0:
        yield "--test_with_val_set needs a validation set: give --val_set_size above 0"
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


def _without_effect(options: Options, given: Set[str]) -> Iterator[str]:
    """Which of the options given on the command line nothing in the run would read.

    Defaults and a preset's options may be such.
    """
    chosen = [type(kind) for kind in options.kinds]
    for group in GROUPS.values():
        if group.registry is None:
            continue
        owners: dict[str, list[str]] = {}  # by option
        for name, entry in entries(group.registry).items():
            for field in options_of(entry):
                owners.setdefault(field.name, []).append(name)
        for option in sorted(owners.keys() & given):
            if not any(option in (field.name for field in options_of(e)) for e in chosen):
                with_ = " or ".join(f"--{group.chosen_by}={name}" for name in owners[option])
                yield f"--{option} goes with {with_}: give that too, or leave it out"
    for kind in options.kinds:
        unread = kind.unread(options)
        yield from (f"--{option} {unread[option]}" for option in sorted(unread.keys() & given))


def _problems_of_training(options: Options) -> Iterator[str]:
    train = options.train
    if train.plateau_lr_scheduler and options.task.val_set_size == 0:
        yield "--plateau_lr_scheduler looks at the validation accuracy: give --val_set_size above 0"
    if train.use_sgd and train.use_rmsprop:
        yield "--use_sgd and --use_rmsprop exclude each other: leave one out"
    adam = not (train.use_sgd or train.use_rmsprop)
    if options.is_given("momentum") and adam:
        yield (
            f"--momentum={train.momentum:g} has no effect with Adam: leave it at 0 (--adam_beta1 "
            "is Adam's counterpart), or add --use_sgd or --use_rmsprop"
        )
    if options.is_given("adam_beta1") and not adam:
        yield (
            f"--adam_beta1={train.adam_beta1:g} is an option of Adam: leave it out, or leave out "
            "--use_sgd and --use_rmsprop"
        )


def _problems_of_batchnorm(options: Options) -> Iterator[str]:
    net = options.main_net
    for name in ("bn_no_running_stats", "bn_no_stats_checkpointing"):
        if options.is_given(name) and not net.batchnorm:
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


# What other scripts call what this one calls otherwise; a name that is merely close would mislead.
_USUAL_NAMES = {
    "--seed": "--random_seed",
    "--gpu": "--no_cuda",
    "--cuda": "--no_cuda",
    "--use_cuda": "--no_cuda",
    "--device": "--no_cuda",
    "--lr_hyper": "--lr",
    "--learning_rate": "--lr",
    "--dataset": "--cl_exp",
    "--experiment": "--cl_exp",
    "--hidden": "--mlp_arch",
    "--emb_size": "--cond_emb_size",
    "--output_dir": "--out_dir",
    "--quiet": "--loglevel_info",
}


class _Parser(argparse.ArgumentParser):
    """Errors in one line on stderr, with the name that an unknown option may have meant."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            given = message.split(": ", 1)[1].split("=")[0].partition(" ")[0]
            close = difflib.get_close_matches(given, self._option_string_actions, n=1)
            close = [_USUAL_NAMES[given]] if given in _USUAL_NAMES else close
            message += f" (did you mean {close[0]}?)" if close else " (--help lists the options)"
        self.exit(2, f"{self.prog}: error: {message}\n")
