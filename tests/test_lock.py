import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from hypercl import lock
from hypercl.lock import Held, Lock, is_held


def test_a_lock_is_had_once_and_names_its_owner(tmp_path):
    path = tmp_path / "run.lock"
    first = Lock(path)
    assert is_held(path)
    with pytest.raises(Held, match=f"process {os.getpid()} on "):
        Lock(path)
    first.release()
    assert not is_held(path)
    assert not path.exists()
    Lock(path).release()


def test_who_only_looks_is_in_nobodys_way(tmp_path):
    path = tmp_path / "run.lock"
    path.touch()
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        threading.Timer(0.05, fcntl.flock, (file, fcntl.LOCK_UN)).start()
        Lock(path).release()


def test_a_lock_dies_with_its_owner(tmp_path):
    path = tmp_path / "run.lock"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom hypercl.lock import Lock\n"
        "Lock(Path(sys.argv[1]))\nprint('locked', flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as owner:
        assert owner.stdout.readline() == b"locked\n"
        with pytest.raises(Held, match=f"process {owner.pid} on "):
            Lock(path)
        owner.send_signal(signal.SIGKILL)
    assert path.exists()
    assert not is_held(path)
    Lock(path).release()


def test_one_that_waits_gets_the_lock_on_the_file_in_place(tmp_path):
    """The first owner removes the file for which the second waits."""
    path = tmp_path / "lock"
    first, got = Lock(path), []
    thread = threading.Thread(target=lambda: got.append(Lock(path, wait=True)))
    thread.start()
    time.sleep(0.2)
    assert got == []
    first.release()
    thread.join(10)
    assert got[0].in_place
    assert is_held(path)
    got[0].release()


def test_a_lock_knows_that_its_folder_was_removed(tmp_path):
    (tmp_path / "run").mkdir()
    held = Lock(tmp_path / "run" / "lock")
    assert held.in_place
    shutil.rmtree(tmp_path / "run")
    assert not held.in_place
    (tmp_path / "run").mkdir()
    other = Lock(tmp_path / "run" / "lock")
    assert not held.in_place
    held.release()
    assert other.in_place
    other.release()


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(file, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match=r"run\.lock cannot be locked \(Operation not supported"):
        held = Lock(tmp_path / "run.lock")
    held.release()
    assert not is_held(tmp_path / "run.lock")


def test_a_place_where_no_lock_can_be_made(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        Lock(tmp_path / "missing" / "lock")
