"""What only a GPU can tell: that what is captured learns what uncaptured steps learn."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import FEW_STEPS, OWN_WEIGHTS, make_experiment, make_task, read_json
from test_capture import NETWORKS, SETTINGS

import run
from hypercl.engine.capture import StepRunner
from hypercl.rundir.checkpoint import Position
from train import TaskState, TaskTraining
from train_args import parse_args

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
    pytest.mark.filterwarnings("error::UserWarning"),  # "steps run eagerly, …"
]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
STEPS = 12


def training_on(device, members=1, task_id=2, steps=STEPS, **values):
    """Of the third task, with what is remembered of the first."""
    augmented = values.get("cl_exp") == "splitcifar"
    shape = (32, 32, 3) if augmented else (28, 28, 1)
    tasks = [make_task(shape, seed=i, augmented=augmented, outputs=slice(None)) for i in range(3)]
    tasks = [on_device(task, device) for task in tasks]
    values = {"n_iter": steps, "batch_size": 8, "num_tasks": 3, **values}
    experiment = make_experiment(tasks, device=device, **values)
    position = Position.start([list(range(members))]).on_device(device, experiment.init)
    first = TaskTraining.at(experiment, position)
    first.step()
    after = first.result(position)
    return TaskTraining.at(experiment, replace(after, task_id=task_id))


def on_device(task, device):
    splits = {
        name: type(split)(*(part.to(device) for part in split))
        for name, split in (
            ("train", task.train),
            ("validation", task.validation),
            ("test", task.test),
        )
    }
    return replace(task, **splits)


def taken(training, steps=STEPS, *, eager):
    """The parameters after so many steps, on the CPU."""
    step = StepRunner(training.step, training.device, training.generator, eager=eager)
    for _ in range(steps):
        step()
    return {name: value.cpu() for name, value in training.trained.items()}


def options_of(*options):
    return parse_args([*options, "--batch_size=8"]).values


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("network", NETWORKS)
def test_captured_steps_learn_what_eager_ones_learn(network, settings, members):
    if "heads" in settings:
        pytest.skip("tasks here share their outputs")
    values = options_of(*NETWORKS[network], *SETTINGS[settings])
    values = {name: values[name] for name in values if name not in ("n_iter", "num_tasks")}
    captured = taken(training_on(CUDA, members, **values), eager=False)
    eager = taken(training_on(CUDA, members, **values), eager=True)
    for name, value in captured.items():
        torch.testing.assert_close(value, eager[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", OWN_WEIGHTS)
def test_captured_steps_of_all_methods(method):
    values = {"method": method, **OWN_WEIGHTS[method]}
    captured = taken(training_on(CUDA, 2, **values), eager=False)
    eager = taken(training_on(CUDA, 2, **values), eager=True)
    for name, value in captured.items():
        torch.testing.assert_close(value, eager[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["hnet", "ewc", "si", "replay"])
def test_a_gpu_learns_what_a_cpu_learns(method):
    values = {"method": method, **OWN_WEIGHTS.get(method, {})}
    gpu = taken(training_on(CUDA, 2, **values), steps=5, eager=False)
    cpu = taken(training_on(CPU, 2, **values), steps=5, eager=True)
    for name, value in gpu.items():
        torch.testing.assert_close(value, cpu[name], rtol=1e-2, atol=1e-3)


def test_dropout_goes_on_from_what_was_saved():
    """Steps after the capture draw on from the generator's state, as it is saved."""
    whole = taken(training_on(CUDA, dropout_rate=0.3), eager=False)
    begun = training_on(CUDA, dropout_rate=0.3)
    taken(begun, steps=7, eager=False)
    state = TaskState(**begun.state(7))
    resumed = training_on(CUDA, dropout_rate=0.3)
    resumed.restore(state)
    rest = taken(resumed, steps=STEPS - 7, eager=False)
    for name, value in whole.items():
        torch.testing.assert_close(rest[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scheduler", ["lambda_lr_scheduler", "plateau_lr_scheduler"])
def test_rates_that_change_are_read_in_a_captured_step(scheduler):
    captured = taken(training_on(CUDA, 2, **{scheduler: True}), eager=False)
    eager = taken(training_on(CUDA, 2, **{scheduler: True}), eager=True)
    for name, value in captured.items():
        torch.testing.assert_close(value, eager[name], rtol=1e-4, atol=1e-5)


def test_a_run_goes_on_bit_for_bit(few_digits):
    given = [option for option in FEW_STEPS if option != "--no_cuda"]
    given += ["--num_tasks=2", "--num_seeds=2", "--deterministic_run"]
    whole = run.main([*given, "--out_dir=a"])
    run.main([*given, "--out_dir=b", "--pause_after=1"])
    again = run.main([*given, "--out_dir=b"])
    assert not read_json(Path("a", "config.json"))["device"].startswith("CPU")
    assert [seed["accuracy"] for seed in again["seeds"]] == [
        seed["accuracy"] for seed in whole["seeds"]
    ]
    assert run.main(["--eval=a"])["seeds"] == whole["seeds"]
