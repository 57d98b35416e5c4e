"""Which points of a sweep may train as members of one step, and the way there. No torch.

A point stays an ordinary run: its draws are those of the point alone, its losses are the same up to
rounding, and its run directory can be continued, tested and compared by itself.
"""

from collections.abc import Sequence
from typing import Any

from hypercl.errors import InputError
from hypercl.options import Options, TrainOptions, all_options, options_of
from hypercl.ranges import as_argument

# What a run's process does with it, and where it begins: each point may have its own.
_OF_A_POINT = ("out_dir", "overwrite", "config", "continue_from", "pause_after")
# Read before the first step alone, so that it may be 0 for some, and not set for others.
_BEFORE_STEPS = ("random_seed", "std_normal_temb", "std_normal_emb")
_NO_TRAINING = ("resume", "eval", "compare", "export", "dry_run")


def may_share(first: Options, second: Options) -> bool:
    """Whether two points may train as members of one step: they differ in members' numbers alone,
    which are options with ``member=True``.

    A number that is 0 or not set takes something away, like the regularizer or the clipping. All
    members have it, or none has. Tasks that are drawn from the seed must be the same.
    """
    return _differing(first, second) is None


def _differing(first: Options, second: Options) -> str | None:
    """An option that keeps two points from sharing a step."""
    a, b = dict(first.recorded), dict(second.recorded)
    for name in a.keys() | b.keys():
        if name not in _OF_A_POINT and _to_share(first, a, name) != _to_share(second, b, name):
            return name
    # Only now are both known to be of the same kind.
    drawn = [each.task.kind.drawn(each.run.random_seed) for each in (first, second)]
    return None if drawn[0] == drawn[1] else "random_seed"


def _to_share(options: Options, recorded: dict[str, Any], name: str) -> Any:
    """What points that share a step have in common of an option."""
    if name not in recorded:
        return None
    field = all_options(options.values)[name]
    # Those that :func:`hypercl.sweeps.joined.joined_options` joins.
    of_members = (*options_of(TrainOptions), *options_of(type(options.method.kind)))
    is_number = name in _BEFORE_STEPS or name in (own.name for own in of_members)
    if not (is_number and field.metadata["member"]):
        return recorded[name]
    number = field.metadata["range"].from_plain(recorded[name])
    return "its own" if name in _BEFORE_STEPS or number not in (None, 0) else number


def require_sharing(points: Sequence[Options]) -> None:
    """Refuse points that may not train together.

    Raises:
        InputError: There are such, or points that train nothing, or two of one run directory.
    """
    folders = [point.run.out_dir for point in points]
    for point in points:
        if given := [name for name in _NO_TRAINING if point.values[name]]:
            raise InputError(f"--{given[0]} goes with no points that train together: leave it out")
        if point.run.out_dir is None:
            raise InputError("points that train together need an --out_dir each: give it")
        if folders.count(point.run.out_dir) > 1:
            raise InputError(
                f"--out_dir={point.run.out_dir} is there twice: give each point its own"
            )
        if (name := _differing(points[0], point)) is not None:
            here, there = (as_argument(each.values.get(name)) for each in (point, points[0]))
            raise InputError(
                f"--{name}={here} cannot share a step with --{name}={there}: train the points one "
                "by one"
            )


def learn_together(
    argvs: Sequence[Sequence[str]], until: int | None = None
) -> list[dict[str, Any]]:
    """Learn several points as members of one step, each as ``python run.py`` would by itself.

    More points than are faster together, or fit into memory, train in packs, one after the other.
    What was learned before goes on; a pack that was killed does so from the newest position that
    all its points have. Nothing appears on the screen; each point's logfile.txt has its lines.

    Args:
        argvs: A command line of each point, with an --out_dir of its own.
        until: Pause each after so many tasks, as --pause_after does.

    Returns:
        What results.json holds of each. Where all seeds of a point have failed, its status says so.

    Raises:
        InputError: Options, data or a directory cannot be used, or the points may not share a step;
            nothing has been learned then.
        RunFailed: The results of a point cannot be written, or the user's code failed.
        Interrupted: By a signal; what was learned has been saved.
    """
    from hypercl.program import scripts

    pause = [] if until is None else [f"--pause_after={until}"]
    with scripts() as run:
        try:
            results: list[dict[str, Any]] = run.learn_together([[*argv, *pause] for argv in argvs])
        except SystemExit as left:
            raise InputError(getattr(left, "message", str(left))) from None
    return results
