"""Who works: Dask's workers, on this machine, at an address, or as jobs of a scheduler of jobs.

What is ours here is small: one thread a worker, one GPU a worker, and what is said where a cluster
cannot be had. Dask is imported inside functions, as it takes a second.
"""

import builtins
import contextlib
import logging
import os
import queue
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

from hypercl.errors import InputError, RunFailed
from hypercl.options import RunOptions
from hypercl.shell import one_line
from hypercl.sweeps import entry
from hypercl.sweeps.work import Job, Outcome

if TYPE_CHECKING:
    from distributed import Client

ROOT = Path(__file__).parents[2]
_JOB_SCHEDULERS = {"slurm": "SLURMCluster", "lsf": "LSFCluster", "pbs": "PBSCluster"}
_SIZES = ("cores", "memory")  # of a job, without which there is none
_CONNECT_SECONDS = 20
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Done:
    """A job that has come back: its outcomes, or why there are none."""

    ticket: int
    outcomes: list[Outcome] | None
    error: str = ""
    lost: bool = False  # several workers that had the job have died


class Workers:
    """The workers of a sweep, of which each does a job at a time.

    Attributes:
        number: How many there are, or will be.
        dashboard: Where to look at them; None: nowhere.
        come_back: Jobs that are done, as :class:`Done`.
    """

    def __init__(self, client: "Client", number: int) -> None:
        self._client, self.number = client, number
        self._session = uuid.uuid4().hex
        self._futures: dict[int, Any] = {}
        self._next = 0
        self.come_back: queue.Queue[Done] = queue.Queue()
        shown = "dashboard" in client.scheduler_info().get("services", {})
        self.dashboard: str | None = client.dashboard_link if shown else None

    def hand_out(self, job: Job) -> int:
        """Have a job done some time; its ticket comes back with what becomes of it."""
        ticket, self._next = self._next, self._next + 1
        future = self._client.submit(
            _whole(entry.do_job),
            str(ROOT),
            os.getcwd(),
            self._session,
            job.argvs,
            job.until,
            key=f"points-{self._session}-{ticket}",
            pure=False,
        )
        self._futures[ticket] = future
        future.add_done_callback(lambda future: self._take_back(ticket, future))
        return ticket

    def _take_back(self, ticket: int, future: Any) -> None:
        """Called by a thread of Dask's."""
        try:
            done = Done(ticket, future.result(timeout=60))
        except BaseException as error:
            lost = type(error).__name__ == "KilledWorker"
            text = one_line(error) or type(error).__name__
            if "Cancelled" in type(error).__name__:
                text = "its scheduler has dropped the points"
            done = Done(ticket, None, text, lost)
        self._futures.pop(ticket, None)
        self.come_back.put(done)

    def points_together(self, argv: Sequence[str]) -> int:
        """How many points like one are learned in one step, on a worker's machine.

        Raises:
            RunFailed: No worker can say it.
        """
        future = self._client.submit(
            _whole(entry.points_together), str(ROOT), os.getcwd(), tuple(argv), pure=False
        )
        try:
            return future.result()
        except Exception as error:
            raise RunFailed(
                f"a worker cannot work ({one_line(error)}): mend that, and start again"
            ) from None

    def require_there(self) -> None:
        """Refuse to wait for a scheduler that is gone.

        Raises:
            RunFailed: That is so.
        """
        if self._client.status not in ("running", "connecting"):
            raise RunFailed("the scheduler of the workers is gone: start it, and the sweep, again")

    def leave(self) -> bool:
        """Have the points that are learned saved and left; they come back as interrupted.

        Returns:
            Whether there are workers, of which some may learn.
        """
        with contextlib.suppress(Exception):  # workers that have died meanwhile
            return bool(
                self._client.run(_whole(entry.leave), str(ROOT), self._session, on_error="ignore")
            )
        return False


def _whole(function: Callable) -> Callable:
    """A copy that Dask sends as code, rather than as a name that the other side must know."""
    copy = FunctionType(function.__code__, {"__builtins__": builtins}, function.__name__)
    copy.__module__ = "__main__"
    return copy


@contextlib.contextmanager
def open_workers(options: RunOptions) -> Iterator[Workers]:
    """The workers that the command line asks for; those on this machine end with the context.

    Raises:
        InputError: They cannot be had.
    """
    import warnings

    for name in ("distributed", "dask_jobqueue", "tornado", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    kind = next((name for name in _JOB_SCHEDULERS if getattr(options, name)), None)
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module=r"distributed|dask|tornado|bokeh")
        if options.scheduler is not None:
            yield stack.enter_context(_at_address(options.scheduler))
        elif kind is not None:
            number = options.workers or processors()
            yield stack.enter_context(_as_jobs(kind, number))
        else:
            yield stack.enter_context(_on_this_machine(options.workers or processors()))


def processors() -> int:
    """That this process may use."""
    from hypercl.machine import processor_quota

    return max(1, int(min(len(os.sched_getaffinity(0)), processor_quota())))


def gpus() -> list[str]:
    """Those that this process may use, as CUDA_VISIBLE_DEVICES names them. No torch."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    numbers = [p.name.removeprefix("nvidia") for p in Path("/dev").glob("nvidia[0-9]*")]
    return sorted(filter(str.isdecimal, numbers), key=int)


def environment_of(worker: int, devices: list[str]) -> dict[str, str]:
    """What the environment of a worker on this machine has of its own: a thread, a GPU."""
    own = dict.fromkeys(_ONE_THREAD, "1")
    if devices:
        own["CUDA_VISIBLE_DEVICES"] = devices[worker % len(devices)]
    return own


@contextlib.contextmanager
def _on_this_machine(number: int) -> Iterator[Workers]:
    """Processes that die with this one, however that ends: Dask's nannies live in it."""
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    devices = gpus()
    where = {"host": "127.0.0.1", "protocol": "tcp://"}
    workers = {
        i: {
            "cls": Nanny,
            "options": {
                **where,
                "nthreads": 1,
                "memory_limit": None,  # what a run needs is checked by the run itself
                "silence_logs": logging.CRITICAL,
                "env": environment_of(i, devices),
            },
        }
        for i in range(number)
    }
    scheduler = {
        "cls": Scheduler,
        "options": {**where, "port": 0, "dashboard": True, "dashboard_address": "127.0.0.1:0"},
    }
    quiet = {"distributed.worker.daemon": True, "distributed.admin.log-length": 0}
    with (
        dask.config.set(quiet),
        SpecCluster(
            workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL, name="sweep"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.register_plugin(_ignoring_signals())
        yield Workers(client, number)


def _ignoring_signals() -> Any:
    """A plugin of workers, also of those that are started anew: a terminal's Ctrl-C, its end, and
    what a batch system sends go to all processes of a group, of which the driver is to answer.
    """
    import signal

    from distributed import WorkerPlugin

    from hypercl.interruption import ENDING

    class IgnoringSignals(WorkerPlugin):
        def setup(self, worker: Any) -> None:
            for number in ENDING:
                signal.signal(number, signal.SIG_IGN)

    return IgnoringSignals()


@contextlib.contextmanager
def _at_address(address: str) -> Iterator[Workers]:
    """A cluster that runs; it goes on when the sweep ends."""
    from distributed import Client
    from distributed.comm import get_address_host_port

    mend = "start one with dask scheduler, or give its address as tcp://host:port"
    try:
        get_address_host_port(address, strict=True)  # a client tries a bad one for 40 s
        client = Client(address, set_as_default=False, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(
            f"--scheduler={address} does not answer ({one_line(error)}): {mend}"
        ) from None
    with client:
        threads = client.nthreads()
        if not threads:
            raise InputError(
                f"--scheduler={address} has no workers: start some with dask worker {address} "
                "--nthreads=1"
            )
        if several := [worker for worker, n in threads.items() if n != 1]:
            raise InputError(
                f"--scheduler={address}: the worker {several[0]} has {threads[several[0]]} "
                "threads, and points take a process each: start it with --nthreads=1 and --nworkers"
            )
        yield Workers(client, len(threads))


def import_jobqueue() -> Any:
    """dask_jobqueue, whose import takes Ctrl-C for itself, and with it what a run would save."""
    import signal

    before = signal.getsignal(signal.SIGINT)
    try:
        import dask_jobqueue
    finally:
        signal.signal(signal.SIGINT, before)
    return dask_jobqueue


@contextlib.contextmanager
def _as_jobs(kind: str, number: int) -> Iterator[Workers]:
    """Jobs that dask-jobqueue submits, as many as there is work for, at most ``number`` workers."""
    import dask
    from distributed import Client

    dask_jobqueue = import_jobqueue()
    mend = (
        f"say what a job has in ~/.config/dask/jobqueue.yaml, under jobqueue and {kind}: cores, "
        "memory, walltime"
    )
    if missing := [n for n in _SIZES if dask.config.get(f"jobqueue.{kind}.{n}", None) is None]:
        raise InputError(
            f"--{kind}: it is not known what {' and '.join(missing)} a job has: {mend}"
        )
    make = getattr(dask_jobqueue, _JOB_SCHEDULERS[kind])
    try:
        cluster = make(worker_extra_args=["--nthreads", "1"])
    except (ValueError, TypeError, OSError) as error:
        raise InputError(f"--{kind}: no jobs can be made ({one_line(error)}): {mend}") from None
    with cluster, Client(cluster, set_as_default=False) as client:
        cluster.adapt(minimum=0, maximum=number)
        yield Workers(client, number)
