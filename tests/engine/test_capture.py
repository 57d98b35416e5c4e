"""The GPU's way of taking steps, with CUDA's part played by stand-ins."""

from contextlib import contextmanager

import pytest
import torch
from helpers import make_experiment, make_task

from hypercl.engine.capture import StepRunner
from hypercl.engine.precision import forbid_tf32, tf32
from hypercl.methods.hnet.dense import DenseAnchor
from hypercl.methods.hnet.factored import FactoredAnchor
from hypercl.networks import plain_mlp
from hypercl.networks.hypernet import Hypernet
from hypercl.networks.main_net import MainNetwork
from hypercl.tasks.task import Split, Task
from train import TaskTraining
from train_args import parse_args

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Generator:
    """Of CUDA's kind."""

    def __init__(self, name, log):
        self.name, self._log = name, log

    def clone_state(self):
        return f"{self.name} as before the capture"

    def graphsafe_set_state(self, state):
        self._log.append(f"{self.name}: {state}")


@pytest.fixture
def cuda(monkeypatch):
    """Records what is asked of CUDA; a graph replays the step that was captured."""
    log = []

    class Stream:
        """The side stream; ``current`` is that of everything else."""

        def __init__(self, name="side"):
            self.name = "side" if name == 0 else name  # or the device's number

        def wait_stream(self, other):
            log.append(f"{self.name} waits for {other.name}")

    @contextmanager
    def stream(chosen):
        log.append(f"on {chosen.name}")
        yield
        log.append(f"off {chosen.name}")

    class Graph:
        def register_generator_state(self, generator):
            log.append(f"the graph knows {generator.name}")

        def replay(self):
            log.append("replay")
            self.recorded()

    @contextmanager
    def graph(captured, stream):
        captured.recorded = recording[0]
        log.append(f"capture on {stream.name}")
        capturing.append(True)
        try:
            yield
        except RuntimeError:  # as torch's: what it says is of the capture alone
            raise RuntimeError("the capture ended in an error") from None
        finally:
            capturing.pop()

    recording, capturing = [], []
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream("current"))
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "default_generators", (Generator("global", log),))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    return log, recording, capturing


def test_cpu_runs_the_step_itself():
    calls = []
    run_step = StepRunner(lambda: calls.append(1), CPU, torch.Generator())
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
    run_step = StepRunner(step, CUDA, Generator("own", log))
    for i in range(10):
        run_step()
        assert len(done) == i + 1  # every call is one step, none is lost or done twice
    warm_up = ["side waits for current", "on side", "off side", "current waits for side"]
    capture = ["the graph knows own", "on current", "capture on side", "off current"]
    assert log == [*warm_up * 3, *capture, *["replay"] * 7]


def test_cuda_stays_eager_where_capture_fails_and_says_why_once(cuda):
    log, recording, capturing = cuda
    done = []

    def step():
        if capturing:
            raise RuntimeError("operation not permitted when stream is capturing\nlong story")
        done.append(1)

    recording.append(step)
    run_step = StepRunner(step, CUDA, Generator("own", log))
    for _ in range(3):
        run_step()
    with pytest.warns(UserWarning, match="eagerly, .*: operation not permitted"):
        run_step()
    for _ in range(4):
        run_step()
    assert len(done) == 8
    assert "replay" not in log
    assert log[-2:] == [
        "global: global as before the capture", "own: own as before the capture",
    ]  # fmt: skip


NETWORKS = {
    "mlp": [],
    "mlp, dropout": ["--dropout_rate=0.1", "--hnet_dropout_rate=0.1"],
    "mlp, batch normalization": ["--batchnorm"],
    "lenet": ["--net_type=lenet"],
    "resnet": ["--cl_exp=splitcifar", "--net_type=resnet", "--resnet_block_depth=1"],
    "resnet, the batch's statistics": [
        "--cl_exp=splitcifar", "--net_type=resnet", "--resnet_block_depth=1", "--batchnorm",
        "--bn_no_running_stats",
    ],
    "wrn": [
        "--cl_exp=splitcifar", "--net_type=wrn", "--wrn_block_depth=1", "--wrn_widening_factor=1",
        "--batchnorm",
    ],
}  # fmt: skip
SETTINGS = {
    "default": [],
    "dense, online": ["--chmlp_chunk_size=30000", "--calc_hnet_reg_targets_online"],
    "subset, heads": ["--hnet_reg_batch_size=1", "--multi_head"],
    "conditional, lookahead, frozen": [
        "--use_cond_chunk_embs", "--lookahead", "--freeze_prev_embs", "--task_loss=total",
    ],
    "clipped": ["--clip_grad_norm=1", "--clip_grad_value=1", "--use_sgd", "--momentum=0.5"],
}  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("members", [1, 2])
def test_a_step_stays_on_its_device_and_never_waits_for_it(network, settings, members):
    """On a device whose tensors have no values: reading one, or mixing devices, is an error."""
    device = torch.device("meta")
    options = [*NETWORKS[network], *SETTINGS[settings], "--n_iter=3", "--num_tasks=3"]
    values = parse_args([*options, "--batch_size=4"]).values
    shape = (32, 32, 3) if values["cl_exp"] == "splitcifar" else (28, 28, 1)
    images = torch.zeros(20, *shape, dtype=torch.uint8, device=device)
    split = Split(images, torch.zeros(20, dtype=torch.int64, device=device))
    heads = [slice(0, 2), slice(2, 4), slice(4, 6)]
    outputs = heads if values["multi_head"] else [slice(None)] * 3
    tasks = [
        Task("", 2, split, split, split, augmented=len(shape) == 3, outputs=own) for own in outputs
    ]
    experiment = make_experiment(tasks, device=device, **values)
    params = experiment.method.init(range(members))
    stats = experiment.net.fresh_stats(members, device)
    training = TaskTraining(experiment, 2, range(members), params, stats, memory={})
    training.step()
    training.step()
    assert all(value.device == device for value in training.trained.values())


def test_tf32_reaches_the_main_network_and_nothing_else(monkeypatch):
    seen = []

    def watch(holder, name):
        original = getattr(holder, name)

        def watched(*args, **options):
            seen.append((name, torch.backends.cuda.matmul.allow_tf32))
            return original(*args, **options)

        monkeypatch.setattr(holder, name, watched)

    watch(plain_mlp, "loss_and_gradient")
    watch(MainNetwork, "logits")
    watch(Hypernet, "forward")
    watch(Hypernet, "backward")
    watch(DenseAnchor, "penalty")
    watch(FactoredAnchor, "penalty")
    for net in ("mlp", "lenet"):
        experiment = make_experiment(
            [make_task()] * 3, net_type=net, tf32=True, n_iter=2, batch_size=8
        )
        params = experiment.method.init([1])
        training = TaskTraining(experiment, 1, [1], params, {}, memory={})
        training.step()
        training.step()
    of_main = {"loss_and_gradient", "logits"}
    assert {name for name, _ in seen} == of_main | {"forward", "backward", "penalty"}
    for name, on in seen:
        if name not in of_main:
            assert not on
    assert ("loss_and_gradient", True) in seen
    assert ("logits", True) in seen


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
