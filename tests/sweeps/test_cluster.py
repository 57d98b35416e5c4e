"""Who works: what the environment of a worker has, what a job is, and what is refused."""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import dask
import pytest

from hypercl import interruption
from hypercl.errors import InputError
from hypercl.sweeps import cluster
from hypercl.sweeps.cluster import environment_of, gpus, open_workers, processors
from hypercl.sweeps.work import Job

cluster.import_jobqueue()  # it has defaults in the configuration


def options(**given):
    base = {"workers": None, "scheduler": None, "slurm": False, "lsf": False, "pbs": False}
    return SimpleNamespace(**base | given)


def test_a_worker_has_one_thread_and_one_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-1a2b")
    assert gpus() == ["3", "GPU-1a2b"]
    environments = [environment_of(i, gpus()) for i in range(3)]
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments] == ["3", "GPU-1a2b", "3"]
    assert {e["OMP_NUM_THREADS"] for e in environments} == {"1"}
    for none in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert gpus() == []
    assert "CUDA_VISIBLE_DEVICES" not in environment_of(0, [])
    assert 1 <= processors() <= os.cpu_count()


def test_a_scheduler_that_does_not_answer_is_refused(monkeypatch):
    monkeypatch.setattr(cluster, "_CONNECT_SECONDS", 1)
    with (
        pytest.raises(InputError, match=r"--scheduler=tcp://127\.0\.0\.1:9 does not answer"),
        open_workers(options(scheduler="tcp://127.0.0.1:9")),
    ):
        pass
    for address in ("nonsense://x", "host"):
        with (
            pytest.raises(InputError, match=rf"--scheduler={address} does not answer"),
            open_workers(options(scheduler=address)),
        ):
            pass


def test_ctrl_c_stays_with_whom_it_was(monkeypatch):
    """dask_jobqueue takes it when it is imported."""
    for name in [name for name in sys.modules if name.startswith("dask_jobqueue")]:
        monkeypatch.delitem(sys.modules, name)
    before = signal.getsignal(signal.SIGINT)
    cluster.import_jobqueue()
    assert signal.getsignal(signal.SIGINT) is before


def test_jobs_without_a_size_are_refused():
    with (
        dask.config.set({"jobqueue.slurm.cores": None, "jobqueue.slurm.memory": None}),
        pytest.raises(InputError, match="--slurm: it is not known what cores and memory a job"),
        open_workers(options(slurm=True, workers=1)),
    ):
        pass


def test_a_job_of_slurm_is_submitted_where_there_is_work(tmp_path, monkeypatch):
    """``sbatch`` is a stub that keeps what it is given."""
    for name, text in {
        "sbatch": f'cp "$1" {tmp_path}/job.sh\necho "Submitted batch job 7"\n',
        "scancel": f'echo "$@" >> {tmp_path}/cancelled.txt\n',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    job = {"cores": 1, "memory": "2GB", "walltime": "01:00:00", "queue": "normal"}
    settings = {f"jobqueue.slurm.{name}": value for name, value in job.items()}
    script = tmp_path / "job.sh"
    with dask.config.set(settings), open_workers(options(slurm=True, workers=3)) as workers:
        assert workers.number == 3
        workers.hand_out(Job((("--out_dir=x",),), None))
        until = time.monotonic() + 30
        while not script.exists() and time.monotonic() < until:
            time.sleep(0.05)
        text = script.read_text()
    assert "#SBATCH -p normal" in text
    assert "#SBATCH -t 01:00:00" in text
    assert "distributed.cli.dask_worker tcp://" in text
    assert text.rstrip().endswith("--nthreads 1")
    assert Path(tmp_path, "cancelled.txt").read_text().split() == ["7"]


def test_signals_of_a_group_are_the_drivers_affair(tmp_path, monkeypatch):
    """Also for a worker that is started in the place of one that was killed."""
    monkeypatch.chdir(tmp_path)

    def handlers():
        return {number: signal.getsignal(number) for number in interruption.ENDING}

    with open_workers(options(workers=1)) as workers:
        client = workers._client
        [first] = client.run(os.getpid).values()
        [before] = client.run(handlers).values()
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: not Path("/proc", str(first)).exists() and not client.nthreads())
        client.wait_for_workers(1)
        [second] = client.run(os.getpid).values()
        [after] = client.run(handlers).values()
    assert first != second
    assert set(before.values()) == set(after.values()) == {signal.SIG_IGN}


def test_a_job_whose_worker_is_killed_is_done_by_the_next(tmp_path, monkeypatch):
    """The worker reads options from a pipe: so it is at work when it is killed."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("options.toml")
    with open_workers(options(workers=1)) as workers:
        assert workers.dashboard.startswith("http://127.0.0.1:")
        ticket = workers.hand_out(Job((("--config=options.toml", "--out_dir=x"),), None))
        with wait_for(lambda: to_reader("options.toml")):
            [killed] = workers._client.run(os.getpid).values()
            os.kill(killed, signal.SIGKILL)
            wait_for(lambda: not Path("/proc", str(killed)).exists())
        wait_for(lambda: has_come_back(workers, "options.toml"))
        done = workers.come_back.get(timeout=60)
        workers.require_there()
        assert workers.leave()
    assert (done.ticket, done.error, done.lost) == (ticket, "", False)
    [outcome] = done.outcomes
    assert (outcome.status, "options.toml" in outcome.message) == ("failed", True)


def wait_for(happens, seconds=60):
    until = time.monotonic() + seconds
    while not (found := happens()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


def to_reader(pipe):
    """A file to write to who reads from a pipe; None where nobody does."""
    with suppress(OSError):
        return open(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK), "wb", buffering=0)
    return None


def has_come_back(workers, pipe):
    """Whether a job is done, which may read more than once from a pipe what is no option."""
    if (end := to_reader(pipe)) is not None:
        with end:
            end.write(b"nonsense = 1")
    return not workers.come_back.empty()
