"""Signals: at once where nothing would be lost, else after a grace in which to save."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

_Handler = Callable[[int, FrameType | None], Any] | int | None  # of a signal, as Python has them


# Ctrl-C and kill; a terminal that is closed; what SLURM sends before its time limit, or a limit of
# processor time.
ENDING = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
)


_asked = threading.Event()  # of the process; what runs in its threads gets no signals


def ask_to_leave(*, leave: bool = True) -> None:
    """Have the runs in all threads of this process save and leave, as after SIGTERM.

    Args:
        leave: False: those that begin from now on stay.
    """
    if leave:
        _asked.set()
    else:
        _asked.clear()


class Interrupted(KeyboardInterrupt):
    """A signal ends the run."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Interruption:
    """A context in which the signals that end a run raise :class:`Interrupted`.

    Inside :meth:`grace` the first signal is only noted in ``pending``, for the work to save what it
    has and to call :meth:`leave`; the second raises at once. One that comes while a run ends
    because of another has the effect it has in any program.
    """

    def __init__(self) -> None:
        self._pending: int | None = None
        self._in_grace = False
        self._handlers: dict[int, _Handler] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # Python allows no other
            for number in ENDING:
                if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has SIGHUP
                    self._handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_) -> None:
        self._restore()

    @property
    def pending(self) -> int | None:
        """The signal that waits for the work to save; None where there is none."""
        if self._pending is None and _asked.is_set():
            return signal.SIGTERM
        return self._pending

    @contextmanager
    def grace(self) -> Iterator[None]:
        """Work that looks at ``pending`` and ends itself; a signal it overlooks counts after it."""
        self._in_grace = True
        try:
            yield
        finally:
            self._in_grace = False
        self.leave_if_pending()

    def leave_if_pending(self) -> None:
        """:meth:`leave`, where there is a signal."""
        if self.pending is not None:
            self.leave()

    def leave(self) -> NoReturn:
        """End the run because of the pending signal.

        Raises:
            Interrupted: Always.
        """
        number = self.pending
        assert number is not None
        self._restore()
        raise Interrupted(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._in_grace and self._pending is None:
            self._pending = number
            return
        self._restore()
        raise Interrupted(number)

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
