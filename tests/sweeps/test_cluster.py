"""Who works: what the environment of a worker has, what a job is, and what is refused."""

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import dask
import pytest

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
