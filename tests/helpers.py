"""What several test files use."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from hypercl.engine.members import Params
from hypercl.experiment import Experiment
from hypercl.methods.base import TaskEnd
from hypercl.networks import hnet_modules
from hypercl.networks.main_net import MainNetwork, main_network
from hypercl.options import Options
from hypercl.rundir.saving import encode
from hypercl.tasks import images
from hypercl.tasks.task import (
    Split,
    Task,
    with_growing_outputs,
    with_heads,
    with_shared_outputs,
)

CPU = torch.device("cpu")
MNIST_SHAPE, CIFAR_SHAPE = (28, 28, 1), (32, 32, 3)

# Of a run on few images that takes a tenth of a second.
FEW_STEPS = [
    "--no_cuda", "--loglevel_info", "--n_iter=6", "--ckpt_iter=4", "--val_iter=3",
    "--val_set_size=20", "--batch_size=8", "--mlp_arch=6", "--hmlp_arch=6",
    "--chmlp_chunk_size=500", "--lr=0.01",
]  # fmt: skip

# A small hypernetwork of each kind; 3 * 7 + 3 + 5 = 29 weights, so that the last chunk of 8 is cut.
TARGET_SHAPES = [[3, 7], [3], [5]]
HYPERNETS = {
    "hmlp": {"hnet_type": "hmlp"},
    "hmlp linear": {"hnet_type": "hmlp", "hmlp_arch": []},
    "chunked": {},
    "chunked linear": {"hmlp_arch": []},
    "chunked conditional": {"use_cond_chunk_embs": True},
    "chunked conditional alone": {"use_cond_chunk_embs": True, "cond_emb_size": 0},
    "chunked tanh no bias": {"hnet_net_act": "tanh", "hnet_no_bias": True},
}


# A small generator of samples.
SMALL_VAE = {
    "vae_encoder_arch": [9], "vae_decoder_arch": [7], "vae_latent_size": 4,
    "vae_condition_size": 5, "vae_hmlp_arch": [6], "vae_emb_size": 3, "vae_chunk_emb_size": 4,
    "vae_chunk_size": 900,
}  # fmt: skip

# Methods whose main network has weights of its own, strong enough to tell in a few steps.
OWN_WEIGHTS = {
    "finetune": {},
    "separate": {},
    "joint": {},
    "ewc": {"ewc_lambda": 50.0},
    "online_ewc": {"ewc_lambda": 50.0, "ewc_gamma": 0.9},
    "si": {"si_c": 5.0},
    "lwf": {},
    "replay": {"replay_budget": 14, "replay_batch_size": 5},
    "der": {"replay_budget": 14, "replay_sampling": "reservoir"},
    "derpp": {"replay_per_class": 3, "replay_batch_size": 5},
    "dgr": {"vae_encoder_arch": [9], "vae_decoder_arch": [7], "vae_latent_size": 4},
    "hnet_r": SMALL_VAE,
}
GENERATIVE = ("dgr", "hnet_r")  # which have networks of their own beside the main network
BY_SCENARIO = {1: with_heads, 2: with_shared_outputs, 3: with_growing_outputs}


def build_main_net(net_type, in_shape, num_outputs, **values) -> MainNetwork:
    """A main network, with options as JSON has them."""
    options = Options.of({"net_type": net_type, **values}).main_net
    return main_network(options.kind.build(options, in_shape, num_outputs))


def build_module(shapes, num_tasks, seed=0, **values):
    """hypnettorch's module of a hypernetwork for tensors of any shapes, initialized from a seed."""
    numbers = sum(math.prod(shape) for shape in shapes)
    net = SimpleNamespace(shapes=shapes, num_weights=numbers, module=None)
    return hnet_modules.build_module(Options.of(values).hypernet, net, num_tasks, seed)


def make_hypernet(num_tasks=4, dtype=torch.float64, seed=0, target_shapes=TARGET_SHAPES, **values):
    """A small hypernetwork: hypnettorch's module, the pure function and its parameters."""
    small = {"hmlp_arch": [6, 9], "cond_emb_size": 4, "chmlp_chunk_size": 8, "chunk_emb_size": 5}
    values = {**small, **values}
    module = build_module(target_shapes, num_tasks, seed, **values).to(dtype)
    hnet, params = hnet_modules.as_function(module, Options.of(values).hypernet)
    return module, hnet, params


def make_task(shape=MNIST_SHAPE, n=64, augmented=False, seed=0, **more):
    """Two classes, dark and bright."""
    generator = torch.Generator().manual_seed(seed)

    def split(n):
        labels = torch.arange(n) % 2
        noise = torch.randint(100, (n, *shape), generator=generator)
        return Split((noise + 155 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels)

    return Task(
        "dark or bright", 2, split(n), split(16), split(30), augmented=augmented, **more
    )  # fmt: skip


def make_sequence(scenario, sizes=(2, 2, 2), shape=(6, 6, 1), n=24, **more):
    """Tasks of so many classes, told apart by their brightness, as a scenario has them."""
    tasks = []
    for seed, size in enumerate(sizes):
        made = make_task(shape, n, seed=seed, **more)
        splits = [
            Split((images // 2 + 60 * (labels := torch.arange(len(images)) % size).view(-1, 1, 1, 1)
                   ).clamp(max=255).to(torch.uint8), labels)
            for images in (made.train.images, made.validation.images, made.test.images)
        ]  # fmt: skip
        tasks.append(Task(f"task {seed}", size, *splits, augmented=made.augmented))
    return BY_SCENARIO[scenario](tasks)


def as_regression(tasks):
    """The same samples with random targets, as many numbers as there were classes."""
    changed = []
    for seed, task in enumerate(tasks):
        generator = torch.Generator().manual_seed(seed)
        splits = {
            name: split._replace(
                labels=torch.randn(len(split.labels), task.num_classes, generator=generator)
            )
            for name in ("train", "validation", "test")
            for split in [getattr(task, name)]
        }
        changed.append(replace(task, **splits))
    return changed


def random_weights(net, members, seed, dtype=torch.float64):
    """Of main networks, [members, num_weights], at the scale of an initialization."""
    drawn = [
        net.fresh_weights(torch.Generator().manual_seed(100 * seed + i)) for i in range(members)
    ]
    return torch.stack(drawn).to(dtype)


def task_end(experiment, task_id, seeds, stats=None, running=None):
    """What a method is told at the end of a task."""
    task = experiment.tasks[task_id]
    if stats is None:
        stats = in_double(experiment.net.fresh_stats(len(seeds), CPU))
    return TaskEnd(task_id, task, experiment.task_loss(task), seeds, stats, running or {})


def make_experiment(tasks, *, device=CPU, **values) -> Experiment:
    """Small networks for tasks that are given, with options as JSON has them."""
    small = {
        "num_tasks": len(tasks),
        "mlp_arch": [10],
        "resnet_block_depth": 1,
        "resnet_channel_sizes": [4, 4, 6, 8],
        "wrn_block_depth": 1,
        "wrn_widening_factor": 1,
        "hmlp_arch": [20, 20],
    }
    return Experiment.of(Options.of({**small, **values}), tasks, device)


def in_double(params: Params) -> Params:
    """The parameters in float64."""
    return {name: value.double() for name, value in params.items()}


def fake_images(num_classes, per_class, image_shape, seed=0):
    """Random images whose mean brightness tells the class, so that networks can learn them."""
    random = np.random.default_rng(seed)

    def split(n):
        labels = np.tile(np.arange(num_classes, dtype=np.uint8), n)
        noise = random.integers(0, 60, (len(labels), *image_shape))
        level = (labels * (190 / num_classes)).reshape(-1, *[1] * len(image_shape))
        return (noise + level).astype(np.uint8), labels

    return images.Images(*split(per_class), *split(max(1, per_class // 2)))


def read_json(path):
    """A JSON file's content; constants that are no JSON (NaN) are refused."""

    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


class Silent:
    """A report that nobody reads."""

    def __getattr__(self, name):
        return lambda *args, **options: None


class Stopped(Exception):  # noqa: N818
    """Stands for a signal."""


class SavedAt:
    """Checkpoints at every step, into bytes; the run ends after so many of them."""

    def __init__(self, last):
        self.last, self.saved, self.data = last, 0, b""

    def due(self, step):
        return True

    def pauses_at(self, position):
        return False

    def save(self, position):
        self.data = encode(vars(position))
        self.saved += 1
        if self.saved == self.last:
            raise Stopped

    def leave_at(self, position):
        if self.saved >= self.last:
            self.save(position)


def scalars(path):
    """TensorBoard's points of a run, by tag and step."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return {
        (value.tag, event.step): value.tensor.float_val[0]
        for file in Path(path, "summary").iterdir()
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
        if value.tensor.float_val
    }
