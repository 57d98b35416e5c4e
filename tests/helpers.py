"""What several test files use."""

import json
import math
from types import SimpleNamespace

import numpy as np
import torch

from hypercl.engine.members import Params
from hypercl.experiment import Experiment
from hypercl.networks import hnet_modules
from hypercl.networks.main_net import MainNetwork
from hypercl.options import Options
from hypercl.tasks import images
from hypercl.tasks.task import Split, Task

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


def build_main_net(net_type, in_shape, num_outputs, **values) -> MainNetwork:
    """A main network, with options as JSON has them."""
    options = Options.of({"net_type": net_type, **values}).main_net
    return MainNetwork(options.kind.build(options, in_shape, num_outputs))


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
