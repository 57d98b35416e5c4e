"""What all methods with weights of their own have in common."""

import itertools
import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from helpers import (
    CPU,
    GENERATIVE,
    OWN_WEIGHTS,
    SavedAt,
    Silent,
    Stopped,
    make_experiment,
    make_sequence,
)

import train
from hypercl.engine.members import select_members
from hypercl.evaluation import Learned, evaluate
from hypercl.networks.main_net import TaskLoss
from hypercl.options import METHODS
from hypercl.registry import entries
from hypercl.rundir.checkpoint import Position
from hypercl.rundir.saving import decode
from hypercl.tasks.task import Split

N_ITER = 8
CASES = [(name, scenario) for name in OWN_WEIGHTS for scenario in entries(METHODS)[name].scenarios]
LAST = dict(CASES)  # of each method's scenarios, the last
every_case = pytest.mark.parametrize(("name", "scenario"), CASES)
every_method = pytest.mark.parametrize("name", OWN_WEIGHTS)


def build(name, scenario=1, sizes=(2, 2, 2), augmented=False, **values):
    tasks = make_sequence(scenario, sizes, augmented=augmented)
    given = {"n_iter": N_ITER, "batch_size": 6, "lr": 0.01, "val_batch_size": 16}
    own = {"method": name, "cl_scenario": scenario, **OWN_WEIGHTS[name]}
    return make_experiment(tasks, **given, **own, **values)


def learn(experiment, seeds, num_tasks=3):
    """The position after so many tasks, and the training of the last one."""
    position = Position.start([list(seeds)]).on_device(CPU, experiment.method.init)
    for _ in range(num_tasks):
        training = train.TaskTraining.at(experiment, position)
        for _ in range(training.num_steps):
            training.step()
        position = training.result(position)
    return position, training


def test_these_are_all_the_methods_but_the_hypernetwork():
    assert OWN_WEIGHTS.keys() == entries(METHODS).keys() - {"hnet", "hnet_tir"}


@every_case
def test_the_first_task_is_fine_tunings(name, scenario):
    position, _ = learn(build(name, scenario), [1, 2], num_tasks=1)
    plain, _ = learn(build("finetune", scenario), [1, 2], num_tasks=1)
    weights = position.params["weights"]
    if name == "separate":
        weights = weights[:, 0]
    assert torch.equal(weights, plain.params["weights"])


@every_case
def test_later_tasks_are_not(name, scenario):
    """Each method does something of its own."""
    position, training = learn(build(name, scenario), [1], num_tasks=2)
    plain, _ = learn(build("finetune", scenario), [1], num_tasks=2)
    weights = position.params["weights"]
    if name == "separate":
        weights = weights[:, 1]
    assert (name == "finetune") == torch.equal(weights, plain.params["weights"])
    assert training.history.isfinite().all()


@every_case
def test_members_learn_what_they_would_alone(name, scenario):
    """With plain gradient descent: Adam makes much of what is zero but for rounding, as penalties'
    gradients are at first.
    """
    experiment = build(name, scenario, (2, 3, 2), augmented=True, use_sgd=True)
    seeds = [5, 6]
    together, training = learn(experiment, seeds)
    for member, seed in enumerate(seeds):
        alone, own = learn(experiment, [seed])
        assert torch.equal(training.plan.batches[:, member], own.plan.batches[:, 0])
        if training.plan.drawn.numel() > 0:
            assert torch.equal(training.plan.drawn[:, member], own.plan.drawn[:, 0])
        losses = training.history[:, :3, member], own.history[:, :3, 0]
        torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            together.params["weights"][member], alone.params["weights"][0], rtol=1e-4, atol=1e-5
        )
        for kind, value in alone.memory.items():
            torch.testing.assert_close(
                together.memory[kind][member], value[0], rtol=1e-2, atol=1e-3
            )


@cache
def not_stopped(name):
    """Where a run ends."""
    start = Position.start([[1, 2]])
    return train.learn_tasks(build(name, LAST[name], augmented=True), start, Silent(), Never())


class Never(SavedAt):
    """No checkpoints."""

    def __init__(self):
        super().__init__(math.inf)

    def due(self, step):
        return False


# Behind the first task, within the second (at its first step, too), and behind that.
@pytest.mark.parametrize("last", [N_ITER, N_ITER + 1, N_ITER + 5, 2 * N_ITER])
@every_method
def test_stopped_and_continued_is_as_not_stopped(name, last):
    experiment, checkpoints = build(name, LAST[name], augmented=True), SavedAt(last)
    with pytest.raises(Stopped):
        train.learn_tasks(experiment, Position.start([[1, 2]]), Silent(), checkpoints)
    left = Position(**decode(checkpoints.data))
    again, expected = train.learn_tasks(experiment, left, Silent(), Never()), not_stopped(name)
    for seed in (1, 2):
        assert torch.equal(again.learned[seed]["weights"], expected.learned[seed]["weights"])
        before, after = expected.learned_memory[seed], again.learned_memory[seed]
        assert before.keys() == after.keys()
        assert all(torch.equal(after[kind], value) for kind, value in before.items())


def test_what_steps_change_is_saved_within_a_task():
    checkpoints = SavedAt(N_ITER + 3)
    with pytest.raises(Stopped):
        train.learn_tasks(build("si"), Position.start([[1, 2]]), Silent(), checkpoints)
    left = Position(**decode(checkpoints.data))
    assert left.memory.keys() == {"weights", "importance"}
    running = {name for name in left.training["changed"] if name.startswith("running.")}
    assert running == {f"running.{name}" for name in ("path", "start", "before", "gradient")}


@pytest.mark.parametrize("name", ["lwf", "dgr", "hnet_r"])
def test_the_network_before_the_task_answers_without_dropout(name, monkeypatch):
    experiment = build(name, dropout_rate=0.5)
    position, _ = learn(experiment, [1, 2], num_tasks=1)
    training = train.TaskTraining.at(experiment, position)
    asked, logits = [], TaskLoss.logits

    def asking(self, weights, inputs, stats):
        asked.append((weights, inputs, logits(self, weights, inputs, stats)))
        return asked[-1][-1]

    monkeypatch.setattr(TaskLoss, "logits", asking)
    training.step()
    ((weights, inputs, found),) = asked
    assert torch.equal(weights, position.params["weights"])
    with experiment.net.evaluating():
        torch.testing.assert_close(found, logits(training.task_loss, weights, inputs, {}))


@every_method
def test_memory_is_without_the_seeds_that_failed(name):
    experiment = build(name)
    position, _ = learn(experiment, [1, 2, 3], num_tasks=1)
    training = train.TaskTraining.at(experiment, position)
    for _ in range(training.num_steps):
        training.step()
    training.failed = {2: "for a test"}
    after = training.result(position)
    assert after.seeds == [1, 3]
    all_going, _ = learn(experiment, [1, 2, 3], num_tasks=2)
    assert after.memory.keys() == all_going.memory.keys()
    for kind, value in all_going.memory.items():
        torch.testing.assert_close(after.memory[kind], value[[0, 2]])
    following = train.TaskTraining.at(experiment, after)
    following.step()
    assert following.history[0].isfinite().all()


@every_method
def test_parameters_survive_the_way_into_a_file_and_back(name):
    experiment = build(name)
    method = experiment.method
    params = select_members(method.init([5, 6]), 1)
    state = method.state_dict(params)
    shapes = [list(shape) for shape in experiment.net.shapes]
    if name == "separate":
        shapes *= 3
    stored = [list(value.shape) for value in state.values()]
    assert stored[: len(shapes)] == shapes
    assert (len(stored) > len(shapes)) == (name in GENERATIVE)
    again = method.load_state_dict(state)
    assert again.keys() == params.keys()
    assert all(torch.equal(again[key], value) for key, value in params.items())


@every_method
def test_arguments_stay_as_they_are(name):
    """Weights, memory and running statistics before a task, and what a step is given."""
    experiment = build(name, batchnorm=True)
    position, _ = learn(experiment, [1, 2], num_tasks=2)
    kept = [position.params, position.memory, *position.stats]
    before = [{key: value.clone() for key, value in values.items()} for values in kept]
    training = train.TaskTraining.at(experiment, position)
    for _ in range(3):
        training.step()
    training.result(position)
    for values, copies in zip(kept, before, strict=True):
        assert all(torch.equal(values[key], value) for key, value in copies.items())


@every_method
def test_it_learns_all_tasks_where_each_has_outputs_of_its_own(name):
    """At least as well as not at all: better than chance on average over the tasks."""
    experiment = make_experiment(
        make_sequence(1), method=name, cl_scenario=1, n_iter=30, batch_size=12, lr=0.01,
        **OWN_WEIGHTS[name],
    )  # fmt: skip
    position, _ = learn(experiment, [1, 2])
    learned = Learned(experiment.net, experiment.method, position.params, position.stats)
    accuracies = torch.tensor(
        [
            evaluate(learned, task, task_id, task.test, 100)
            for task_id, task in enumerate(experiment.tasks)
        ]
    )
    assert accuracies[-1].min() > 0.9
    assert accuracies.mean() > 0.7


IMAGE = 36  # bytes
KEPT = {  # after two tasks of 24 samples; number of weights, of outputs
    "finetune": lambda n, outputs: 0,
    "separate": lambda n, outputs: 0,
    "joint": lambda n, outputs: 2 * 24 * (IMAGE + 8),
    "ewc": lambda n, outputs: 4 * (3 * n + 1),
    "online_ewc": lambda n, outputs: 4 * 2 * n,
    "si": lambda n, outputs: 4 * 2 * n,
    "lwf": lambda n, outputs: 4 * n,
    # Of a buffer, labels and tasks have eight bytes each.
    "replay": lambda n, outputs: 4 * (14 // 4) * (IMAGE + 16),
    "der": lambda n, outputs: 14 * (IMAGE + 16 + 4 * outputs),
    "derpp": lambda n, outputs: 4 * 3 * (IMAGE + 16 + 4 * outputs),
    # And a decoder of 4 latents, 7 units and 36 pixels,
    "dgr": lambda n, outputs: 4 * (n + 4 * 7 + 7 + 7 * IMAGE + IMAGE),
    # or a hypernetwork: embeddings of three tasks and a chunk, 6 units, 900 outputs.
    "hnet_r": lambda n, outputs: 4 * (n + 3 * 3 + 4 + 7 * 6 + 6 + 6 * 900 + 900),
}


@every_case
def test_what_is_kept_in_bytes(name, scenario):
    experiment = build(name, scenario)
    position, _ = learn(experiment, [1, 2], num_tasks=2)
    kept = experiment.method.kept_bytes(position.params, position.memory, 2)
    outputs = experiment.net.num_outputs
    assert outputs == (2 if scenario == 2 else 6)
    assert kept == KEPT[name](experiment.net.num_weights, outputs)


ON_META = {
    "batch normalization": {"batchnorm": True},
    "lenet": {"net_type": "lenet"},
    "dropout, weighted": {"dropout_rate": 0.2, "task_loss": "total"},
}


@pytest.mark.parametrize(
    ("name", "scenario", "net", "members"),
    [(*case, None, 2) for case in CASES]
    + [(name, LAST[name], net, 1) for name in OWN_WEIGHTS for net in ON_META],
)
def test_a_step_stays_on_its_device_and_never_waits_for_it(name, scenario, net, members):
    """On a device whose tensors have no values: reading one, or mixing devices, is an error.

    The memory comes from the CPU: what is done after a task may wait.
    """
    device, shape = torch.device("meta"), (28, 28, 1) if net == "lenet" else (6, 6, 1)
    on_cpu = make_sequence(scenario, (2, 3, 2), shape, n=12, augmented=net is None)
    values = {"method": name, "cl_scenario": scenario, "n_iter": 2, "batch_size": 4}
    values |= {**OWN_WEIGHTS[name], **ON_META.get(net, {})}
    seeds = list(range(members))
    memory = learn(make_experiment(on_cpu, **values), seeds, num_tasks=2)[0].memory

    def moved(task):
        splits = {name: getattr(task, name) for name in ("train", "validation", "test")}
        return replace(task, **{n: Split(*(v.to(device) for v in s)) for n, s in splits.items()})

    tasks = [moved(task) for task in on_cpu]
    experiment = make_experiment(tasks, device=device, **values)
    params, stats = experiment.method.init(seeds), experiment.net.fresh_stats(members, device)
    memory = {kind: value.to(device) for kind, value in memory.items()}
    training = train.TaskTraining(experiment, 2, seeds, params, stats, memory)
    training.step()
    training.step()
    changed = itertools.chain(training.trained.values(), training.running.values())
    assert all(value.device == device for value in changed)
