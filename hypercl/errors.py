"""The ways in which a run ends badly by plan; shell.py turns them into exit codes."""


class InputError(Exception):
    """Something the user gave cannot be used; the message names it and the mend (exit code 2)."""


class NotThere(InputError):  # noqa: N818
    """A file or folder that the user names does not exist."""


class RunFailed(Exception):  # noqa: N818 - it is what results.json calls it
    """The run itself went wrong, for example by diverging (exit code 1)."""
