"""The ways in which a run ends badly by plan, which shell.py turns into exit codes; and what an
error of somebody else's says, in one line.
"""

from collections.abc import Iterator, Sequence


class InputError(Exception):
    """Something the user gave cannot be used; the message names it and the mend (exit code 2)."""


class NotThere(InputError):  # noqa: N818
    """A file or folder that the user names does not exist."""


class InUse(InputError):  # noqa: N818
    """Another process works on what the user names; when it has ended, this can be used."""


class InputErrors(InputError):  # noqa: N818
    """Several such mistakes; ``problems`` has each in a line of its own."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class RunFailed(Exception):  # noqa: N818 - it is what results.json calls it
    """The run itself went wrong, for example by diverging (exit code 1)."""


def reason(error: BaseException) -> str:
    """The first line of an error's message; its type where it says nothing."""
    return next(_lines(error), type(error).__name__)


def typed_reason(error: BaseException) -> str:
    """An error's type, and the first line of its message where it says something."""
    return ": ".join([type(error).__name__, *list(_lines(error))[:1]])


def _lines(error: BaseException) -> Iterator[str]:
    return (line.strip() for line in str(error).splitlines() if line.strip())
