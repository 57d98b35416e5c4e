"""Images of bytes, images of floats and vectors go through every method, to the same results."""

from dataclasses import replace

import pytest
import torch
from helpers import CPU, GENERATIVE, OWN_WEIGHTS, make_experiment, make_sequence

import train
from hypercl.options import METHODS
from hypercl.registry import entries
from hypercl.rundir.checkpoint import Position
from hypercl.tasks.normalization import normalized
from hypercl.tasks.task import Split, as_floats

ALL = {"hnet": {}, **OWN_WEIGHTS}


def as_float_images(images):
    return as_floats(images)


def as_vectors(images):
    return as_floats(images).flatten(1)


def converted(tasks, convert):
    return [
        replace(
            task,
            **{name: Split(convert(split.images), split.labels) for name, split in parts(task)},
        )
        for task in tasks
    ]


def parts(task):
    return [(name, getattr(task, name)) for name in ("train", "validation", "test")]


def learned(tasks, name, scenario):
    given = {"n_iter": 5, "batch_size": 6, "lr": 0.01, "method": name, "cl_scenario": scenario}
    experiment = make_experiment(tasks, **given, **ALL[name])
    position = Position.start([[1, 2]]).on_device(CPU, experiment.method.init)
    for _ in tasks:
        training = train.TaskTraining.at(experiment, position)
        for _ in range(training.num_steps):
            training.step()
        position = training.result(position)
    params = position.ready_params
    return params, experiment.method.kept_bytes(params, position.memory, len(tasks))


@pytest.mark.parametrize("name", ALL)
def test_every_method_learns_the_same_from_floats_and_vectors(name):
    scenario = entries(METHODS)[name].scenarios[0]
    tasks = make_sequence(scenario)
    if name not in GENERATIVE:  # which generate pixels in [0, 1]
        tasks = normalized(tasks, (0.5, 0.25))
    params, kept = learned(tasks, name, scenario)
    for convert in (as_float_images, as_vectors):
        same = converted(tasks, convert)
        if name not in GENERATIVE:
            of_channel = tasks[0].mean.expand(1 if convert is as_float_images else 36)
            same = [replace(task, mean=of_channel, std=of_channel / 2) for task in same]
        others, more = learned(same, name, scenario)
        assert others.keys() == params.keys()
        for key, value in params.items():
            assert torch.equal(others[key], value)
        samples = name in ("joint", "replay", "der", "derpp")
        assert more > kept if samples else more == kept


def test_floats_are_kept_as_four_bytes():
    tasks = make_sequence(2)
    _, of_bytes = learned(tasks, "joint", 2)
    _, of_floats = learned(converted(tasks, as_vectors), "joint", 2)
    pixels = sum(task.train.images.numel() for task in tasks)
    assert of_floats - of_bytes == 3 * pixels
