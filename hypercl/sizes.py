"""What a run takes at least, by arithmetic: sizes that cannot be meant are refused at once.

The estimate of ``Experiment.bytes_per_member`` is closer, and needs torch. Here entries say in
``takes`` what their own options make of a run; what all runs have in common follows below.
"""

from collections.abc import Iterator

from hypercl.errors import InputError
from hypercl.machine import INDEX, total_memory
from hypercl.options import Options
from hypercl.registry import Part

_OF_A_SEED = 1000  # bytes of its results in Python, before there is one


def require_memory(options: Options) -> None:
    """Refuse what does not fit into the machine's memory by far.

    Raises:
        InputError: A part of the run alone takes more than there is.
    """
    limit = total_memory()
    for part in parts(options):
        if limit is not None and part.num_bytes > limit:
            first, *others = (options.spelled(name) for name in part.options)
            named = f"{first} with {' and '.join(others)}" if others else first
            plural = "it" if len(part.options) == 1 else "one of them"
            mend = part.mend or f"lower {plural}"
            raise InputError(
                f"{named} takes {_gibibytes(part.num_bytes)} for {part.what}, and this machine has "
                f"{_gibibytes(limit)}: {mend}"
            )


def parts(options: Options) -> Iterator[Part]:
    """The parts of a run that may be large, in bytes that it takes at least."""
    train, task, run = options.train, options.task, options.run
    of_seeds = run.num_seeds * (_OF_A_SEED + INDEX * (task.num_tasks or 1) ** 2)
    yield Part(of_seeds, "the results", ("num_seeds", "num_tasks"))
    # An epoch has a step or more.
    steps, name = (train.n_iter, "n_iter") if train.epochs is None else (train.epochs, "epochs")
    yield Part(
        INDEX * steps * train.batch_size, "the samples of a task's steps", (name, "batch_size")
    )
    for kind in options.kinds:
        yield from kind.takes(options)


def _gibibytes(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:,.0f} GiB"
