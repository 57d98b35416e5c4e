"""What several test files use."""

import json

import numpy as np
import pytest
import torch

from hypercl import datasets
from hypercl.hypernet import from_module
from hypercl.networks import build_hypernet

# A small hypernetwork of each kind; 3 * 7 + 3 + 5 = 29 weights, so that the last chunk of 8 is cut.
TARGET_SHAPES = [[3, 7], [3], [5]]
HYPERNETS = {
    "hmlp": {"hnet_type": "hmlp"},
    "hmlp linear": {"hnet_type": "hmlp", "hmlp_arch": ()},
    "chunked": {"hnet_type": "chunked_hmlp"},
    "chunked linear": {"hnet_type": "chunked_hmlp", "hmlp_arch": ()},
    "chunked conditional": {"hnet_type": "chunked_hmlp", "cond_chunk_embs": True},
    "chunked conditional alone": {
        "hnet_type": "chunked_hmlp",
        "cond_chunk_embs": True,
        "cond_emb_size": 0,
    },
    "chunked tanh no bias": {"hnet_type": "chunked_hmlp", "activation": "tanh", "bias": False},
}


def make_hypernet(num_tasks=4, dtype=torch.float64, seed=0, **options):
    """hypnettorch's module, the pure function and its parameters."""
    torch.manual_seed(seed)
    options = {"hmlp_arch": (6, 9), "cond_emb_size": 4, "target_shapes": TARGET_SHAPES, **options}
    if options["hnet_type"] == "chunked_hmlp":
        options = {"chunk_size": 8, "chunk_emb_size": 5, **options}
    module = build_hypernet(num_tasks=num_tasks, **options).to(dtype)
    hnet, params = from_module(
        module,
        activation=options.get("activation", "relu"),
        dropout_rate=options.get("dropout_rate", -1),
    )
    return module, hnet, params


@pytest.fixture(params=HYPERNETS)
def hypernet(request):
    """Each kind of hypernetwork in turn, in float64."""
    return make_hypernet(**HYPERNETS[request.param])


def fake_images(num_classes, per_class, image_shape, seed=0):
    """Random images whose mean brightness tells the class, so that networks can learn them."""
    random = np.random.default_rng(seed)

    def split(n):
        labels = np.tile(np.arange(num_classes, dtype=np.uint8), n)
        noise = random.integers(0, 60, (len(labels), *image_shape))
        level = (labels * (190 / num_classes)).reshape(-1, *[1] * len(image_shape))
        return (noise + level).astype(np.uint8), labels

    return datasets.Images(*split(per_class), *split(max(1, per_class // 2)))


@pytest.fixture
def cifar_dir(tmp_path, monkeypatch):
    """A data directory with small stand-ins for CIFAR-10 and CIFAR-100."""
    for name, num_classes in (("cifar10", 10), ("cifar100", 100)):
        images = fake_images(num_classes, 12, (32, 32, 3))
        np.savez(tmp_path / f"{name}.npz", **images._asdict())
    not_checked = datasets._DATASETS["cifar10"]._replace(md5=None)
    monkeypatch.setitem(datasets._DATASETS, "cifar10", not_checked)
    return tmp_path


def read_json(path):
    """A JSON file's content; constants that are no JSON (NaN) are refused."""

    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)
