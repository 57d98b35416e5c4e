"""The program as a shell sees it: one line for what went wrong, an exit code, signals."""

import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hypercl.errors import InputError, InputErrors, RunFailed
from hypercl.interruption import Interrupted

_environment = threading.Lock()  # of the process, which its threads share


def command_line(main: Callable[[], object]) -> int:
    """Run the program: one line on stderr for what went wrong, and an exit code."""
    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the terminal's encoding lacks is replaced
            stream.reconfigure(errors="replace")
    try:
        main()
    except InputError as error:
        for problem in error.problems if isinstance(error, InputErrors) else (error,):
            print(f"run.py: error: {one_line(problem)}", file=sys.stderr)
        return 2
    except RunFailed as error:
        print(f"run.py: failed: {one_line(error)}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "hypercl":
            raise
        print(
            f"run.py: error: {error.name} is not installed: source .venv/bin/activate, or python "
            "-m pip install -r requirements.txt",
            file=sys.stderr,
        )
        return 2
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise  # a bug: the traceback is what helps
        print(
            "run.py: failed: out of memory: lower --batch_size, --val_batch_size, --num_seeds or "
            "the number of steps, whose samples are drawn beforehand, or take a smaller network",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt as error:
        print("run.py: interrupted", file=sys.stderr)
        return error.exit_code if isinstance(error, Interrupted) else 130
    return 0


def one_line(message: object) -> str:
    """A message in one line: file names, and what others' code says, may have several."""
    return " ".join(line.strip() for line in str(message).splitlines())


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


@contextmanager
def importing() -> Iterator[None]:
    """A context in which to import torch and what imports matplotlib, which read the environment.

    No window will be opened: MPLBACKEND, which processes inherit from notebooks, may name a backend
    that is not there, and the import would fail. And torch's threads sleep while they wait for each
    other, rather than keep others from the processors they wait for.
    """
    wanted = {"MPLBACKEND": "agg"}
    if "OMP_WAIT_POLICY" not in os.environ:
        wanted["OMP_WAIT_POLICY"] = "passive"
    with _environment:
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            yield
        finally:
            for name, value in before.items():
                del os.environ[name]
                if value is not None:
                    os.environ[name] = value


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, torch's CPU allocator or CUDA found no memory."""
    if isinstance(error, MemoryError):
        return True
    text = str(error)
    words = ("out of memory", "can't allocate memory", "calculation overflowed", "nteger overflow")
    return any(word in text for word in words)


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """A warning is for the user of the script: what it says, and not where in the code it was."""
    print(f"run.py: warning: {one_line(message)}", file=sys.stderr)
