"""The GPU's way of taking steps, with CUDA's part played by stand-ins."""

from contextlib import contextmanager

import pytest
import torch

from hypercl.capture import StepRunner
from hypercl.precision import forbid_tf32, tf32

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Stream:
    def wait_stream(self, other):
        pass


@pytest.fixture
def cuda(monkeypatch):
    """Records what is asked of CUDA; a graph replays the step that was captured."""
    log = []

    class Graph:
        def replay(self):
            log.append("replay")
            self.recorded()

    @contextmanager
    def graph(captured, stream):
        captured.recorded = recording[0]
        log.append("capture")
        capturing.append(True)
        try:
            yield
        finally:
            capturing.pop()

    recording, capturing = [], []
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextmanager(lambda: iter([0]))())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    return log, recording, capturing


def test_cpu_runs_the_step_itself():
    calls = []
    run_step = StepRunner(lambda: calls.append(1), CPU)
    for _ in range(5):
        run_step()
    assert len(calls) == 5


def test_cuda_warms_up_captures_once_and_replays(cuda):
    log, recording, capturing = cuda
    done = []

    def step():
        if not capturing:  # what is captured is recorded, not run
            done.append(1)

    recording.append(step)
    run_step = StepRunner(step, CUDA)
    for i in range(10):
        run_step()
        assert len(done) == i + 1  # every call is one step, none is lost or done twice
    assert log == ["capture", *["replay"] * 7]


def test_cuda_stays_eager_where_capture_fails_and_says_why_once(cuda):
    log, recording, capturing = cuda
    done = []

    def step():
        if capturing:
            raise RuntimeError("operation not permitted when stream is capturing\nlong story")
        done.append(1)

    recording.append(step)
    run_step = StepRunner(step, CUDA)
    for _ in range(3):
        run_step()
    with pytest.warns(UserWarning, match="eagerly, .*: operation not permitted"):
        run_step()
    for _ in range(4):
        run_step()
    assert len(done) == 8
    assert "replay" not in log


def test_tf32_is_off_but_inside_its_context():
    flags = lambda: (  # noqa: E731
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
    )
    forbid_tf32()
    assert flags() == (False, False)
    with tf32(False):
        assert flags() == (False, False)
    with tf32(True):
        assert flags() == (True, True)
    assert flags() == (False, False)
