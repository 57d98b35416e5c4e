"""A process that draws, so that no training waits for matplotlib.

It imports no torch, and writes no file: what it has drawn comes back as bytes, for the run to write
where it may. So nothing of a run goes on when the run has ended, whatever has ended it.
"""

import atexit
import os
import pickle
import select
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import SimpleQueue

from hypercl.report.drawing import Drawing, Drawn, draw
from hypercl.shell import importing


class Drawer:
    """A process that draws for all runs of this one, one drawing after the other.

    It is one that Python starts anew, and not a fork, which torch's threads would not survive.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        code = f"import sys; sys.path[:] = {sys.path}; from {__name__} import serve; serve("
        try:
            # In a session of its own: a terminal's Ctrl-C is not for it, whose run may be saving.
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"{code}{theirs.fileno()})"],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, "MPLBACKEND": "agg", "OPENBLAS_NUM_THREADS": "1"},
            )
        except BaseException:
            self._connection.close()
            raise
        finally:
            theirs.close()
        self._asked: SimpleQueue[tuple[Future[Drawn], bytes] | None] = SimpleQueue()
        # A daemon: concurrent.futures' own would have Python wait for a drawing before it ends.
        self._thread = threading.Thread(target=self._ask_in_turn, daemon=True)
        self._thread.start()

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone, and draws nothing any more."""
        return self._process.poll() is not None

    def submit(self, drawing: Drawing) -> "Future[Drawn]":
        """Have it draw when it has done what it was given before.

        What is handed in may change afterwards. A drawing that is cancelled before it is begun is
        not made.
        """
        drawn: Future[Drawn] = Future()
        self._asked.put((drawn, pickle.dumps(drawing)))
        return drawn

    def _ask_in_turn(self) -> None:
        while (asked := self._asked.get()) is not None:
            drawn, drawing = asked
            if drawn.set_running_or_notify_cancel():
                drawn.set_result(self._ask(drawing))

    def _ask(self, drawing: bytes) -> Drawn:
        """Have a pickled drawing drawn, and wait for it."""
        try:
            self._connection.send_bytes(drawing)
            drawn: Drawn = self._connection.recv()
        except (EOFError, OSError):
            return Drawn([], "the process that draws has ended", [], 0.0)
        return drawn

    def close(self) -> None:
        """End the process, within a drawing too, and wait for its end."""
        self._process.kill()
        self._process.wait()
        self._asked.put(None)
        self._thread.join()
        self._connection.close()

    def forget(self) -> None:
        """Let go of the process in a fork of this one, whose it is not."""
        self._connection.close()
        self._process.returncode = 0  # or its end would be waited for


_drawer: Drawer | None = None
_changing = threading.Lock()


def start() -> None:
    """Start the process that draws, if there is none: it is ready after a second.

    Raises:
        OSError: It cannot be started.
    """
    global _drawer
    with _changing:
        if _drawer is not None and _drawer.has_ended:
            _drawer.close()
            _drawer = None
        if _drawer is None:
            _drawer = Drawer()


def submit(drawing: Drawing) -> "Future[Drawn]":
    """Have it drawn in another process; in this one, before this returns, where none can be
    started.
    """
    try:
        start()
    except OSError:
        drawn: Future[Drawn] = Future()
        with importing():
            drawn.set_result(draw(drawing))
        return drawn
    assert _drawer is not None
    return _drawer.submit(drawing)


def stop() -> None:
    """End the process that draws, and what it is drawing; the next drawing starts another one."""
    global _drawer
    with _changing:
        if _drawer is not None:
            _drawer.close()
            _drawer = None


def _forget() -> None:
    global _drawer, _changing
    _changing = threading.Lock()
    if _drawer is not None:
        _drawer.forget()
        _drawer = None


atexit.register(stop)
os.register_at_fork(after_in_child=_forget)


def serve(file: int) -> None:
    """What the process does: draw what comes, until whoever asks for it has ended.

    Args:
        file: Descriptor of its end of the connection.
    """
    threading.Thread(target=_end_with, args=[file], daemon=True).start()
    with suppress(Exception):  # else the first drawing says why
        from hypercl.report import plots  # noqa: F401
    with Connection(file) as connection, suppress(EOFError, OSError):
        while True:
            connection.send(draw(pickle.loads(connection.recv_bytes())))


def _end_with(file: int) -> None:
    """End this process, within a drawing too, when the other end of a connection is closed."""
    closed = select.poll()
    closed.register(file, 0)  # of its events, a hang-up is always told
    closed.poll()
    os._exit(0)
