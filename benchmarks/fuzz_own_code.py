"""Code of a user's for :mod:`benchmarks.fuzz_own`, as texts: what works, and what does not.

The bad ones fail each in a way of its own: when they are made, tried out, called in training, or
only by what they return.
"""

MY = '''
"""Mine."""

import numpy as np
import torch
from hypercl.methods.base import OwnWeights
from sibling import SCALE
from torch import nn
from torch.utils.data import TensorDataset


def make(seed, number=24, classes=2):
    """Rows of numbers."""
    labels = np.arange(number) % classes
    inputs = np.random.default_rng(seed).normal(size=(number, 5)) * SCALE
    return (inputs + labels[:, None]).astype(np.float32), labels


def tasks(num_tasks=2, shift=0.0):
    """Tasks.

    shift: what is added.
    """
    rows = [make(seed) for seed in range(num_tasks)]
    return [(x + np.float32(shift), y, x[:10], y[:10]) for x, y in rows]


def datasets():
    """Pairs of Datasets."""
    pixels = torch.rand(24, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    part = TensorDataset(pixels, torch.arange(24) % 3)
    return [(part, part), (part, part)]


class Net(nn.Module):
    """One layer more.

    width: of it
    """

    def __init__(self, in_shape, num_classes, width=4, dropout=0.1):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(int(np.prod(in_shape)), width), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(width, num_classes),
        )

    def forward(self, x):
        return self.layers(x)


class Normed(Net):
    """The same with batch normalization."""

    def __init__(self, in_shape, num_classes, width=4):
        super().__init__(in_shape, num_classes, width)
        self.layers.insert(2, nn.BatchNorm1d(width))


def make_net(in_shape, num_classes):
    """A network."""
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(in_shape)), num_classes))


class Near(OwnWeights):
    """Near the last task.

    pull: strength of the penalty.
    """

    def __init__(self, setting, pull=0.1):
        super().__init__(setting, pull)

    def remember(self, params, memory, task_id):
        return params["weights"].clone() if task_id > 0 else None

    def penalty_and_gradient(self, weights, anchor):
        moved = weights - anchor
        return moved.square().sum(1) / 2, moved


class Counting(Near):
    """With a memory."""

    def after_task(self, params, memory, end):
        before = memory.get("sum", torch.zeros_like(params["weights"]))
        return {"sum": before + params["weights"]}
'''


def _net(name: str, body: str, base: str = "Net") -> str:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"class {name}({base}):\n{lines}"


def _method(name: str, body: str) -> str:
    return _net(name, body, "Near")


def _function(name: str, body: str, parameters: str = "") -> str:
    return f"def {name}({parameters}):\n    {body}\n"


_CALLS = "self.calls = getattr(self, 'calls', 0) + 1\n    "
NETS = {
    name: _net(name, body)
    for name, body in {
        "NoParameters": "def __init__(self, in_shape, num_classes):\n    nn.Module.__init__(self)",
        "Frozen": (
            "def __init__(self, in_shape, num_classes):\n"
            "    super().__init__(in_shape, num_classes)\n    self.requires_grad_(False)"
        ),
        "WrongOutputs": (
            "def __init__(self, in_shape, num_classes):\n"
            "    super().__init__(in_shape, num_classes + 1)"
        ),
        "RaisesWhenMade": "def __init__(self, in_shape, num_classes):\n    raise OSError('a\\nb')",
        "ExitsWhenMade": "def __init__(self, in_shape, num_classes):\n    raise SystemExit(0)",
        "Raises": "def forward(self, x):\n    raise ValueError('no')",
        "RaisesLater": (
            f"def forward(self, x):\n    {_CALLS}if self.calls > 12:\n"
            "        raise ValueError('later\\nand more')\n    return self.layers(x)"
        ),
        "RaisesOnFour": "def forward(self, x):\n    assert len(x) != 4\n    return self.layers(x)",
        "ExitsLater": (
            f"def forward(self, x):\n    {_CALLS}if self.calls > 12:\n"
            "        raise SystemExit(0)\n    return self.layers(x)"
        ),
        "ReturnsNothing": "def forward(self, x):\n    self.layers(x)",
        "ReturnsTwo": "def forward(self, x):\n    return self.layers(x), x",
        "ReturnsNothingLater": (
            f"def forward(self, x):\n    {_CALLS}return self.layers(x) if self.calls < 12 else None"
        ),
        "OtherShapeLater": (
            f"def forward(self, x):\n    {_CALLS}y = self.layers(x)\n"
            "    return y if self.calls < 12 else y[:, :1]"
        ),
        "Draws": "def forward(self, x):\n    return self.layers(x + torch.randn_like(x))",
        "NotFinite": "def forward(self, x):\n    return self.layers(x) * float('nan')",
        "Doubles": "def forward(self, x):\n    return self.layers(x).double()",
        "Detached": "def forward(self, x):\n    return self.layers(x).detach()",
        "Prints": "def forward(self, x):\n    print('forward')\n    return self.layers(x)",
        "Changes": "def forward(self, x):\n    x.mul_(2)\n    return self.layers(x)",
        "TrainReturnsNothing": "def train(self, mode=True):\n    super().train(mode)",
        "OtherEachTime": (
            "def __init__(self, in_shape, num_classes):\n"
            "    import os\n    super().__init__(in_shape, num_classes, 1 + os.urandom(1)[0])"
        ),
        "OtherNamesEachTime": (
            "def __init__(self, in_shape, num_classes):\n"
            "    import os\n    super().__init__(in_shape, num_classes)\n"
            "    setattr(self, 'x' + os.urandom(4).hex(), nn.Linear(2, 2))"
        ),
        "ViewOfAll": "def forward(self, x):\n    return self.layers(x.view(len(x), -1))",
        "FewPositions": "def __init__(self, width=3):\n    super().__init__((36,), 2, width)",
        "NoSuper": "def __init__(self, in_shape, num_classes):\n    self.layers = nn.Linear(3, 2)",
        "HelpIsAnOption": (
            "def __init__(self, in_shape, num_classes, help=3):\n"
            "    super().__init__(in_shape, num_classes)"
        ),
        "CodeIsAnOption": (
            "def __init__(self, in_shape, num_classes, code=3):\n"
            "    super().__init__(in_shape, num_classes)"
        ),
        "PercentInHelp": (
            "'''Mine.\n\nrate: 5% of all, %(x)s\n'''\n"
            "def __init__(self, in_shape, num_classes, rate=3):\n"
            "    super().__init__(in_shape, num_classes)"
        ),
        "InfiniteDefault": (
            "def __init__(self, in_shape, num_classes, most=float('inf')):\n"
            "    super().__init__(in_shape, num_classes)"
        ),
        "LargeDefault": (
            "def __init__(self, in_shape, num_classes, most=10**12):\n"
            "    super().__init__(in_shape, num_classes)"
        ),
        "Underscore": (
            "def __init__(self, in_shape, num_classes, _hidden=3, __more=4):\n"
            "    super().__init__(in_shape, num_classes)"
        ),
    }.items()
}

METHODS = {
    name: _method(name, body)
    for name, body in {
        "MethodRaises": "def __init__(self, setting):\n    raise OSError('a\\nb')",
        "MethodExits": "def __init__(self, setting):\n    raise SystemExit(3)",
        "NoSuperMethod": "def __init__(self, setting):\n    pass",
        "NoSetting": "def __init__(self, pull=1.0):\n    pass",
        "RaisesInInit": "def init(self, seeds):\n    raise ValueError('no')",
        "RaisesInRemember": "def remember(self, params, memory, task_id):\n    return 1 / task_id",
        "RaisesInPenalty": "def penalty_and_gradient(self, weights, anchor):\n    return {}[3]",
        "RaisesAfterTask": "def after_task(self, params, memory, end):\n    raise OSError('a\\nb')",
        "ExitsAfterTask": "def after_task(self, params, memory, end):\n    raise SystemExit(0)",
        "InitReturnsNothing": "def init(self, seeds):\n    pass",
        "InitReturnsList": "def init(self, seeds):\n    return [1]",
        "InitOtherSize": "def init(self, seeds):\n    return {'weights': torch.zeros(1, 3)}",
        "PenaltyNothing": "def penalty_and_gradient(self, weights, anchor):\n    pass",
        "PenaltyOtherShape": (
            "def penalty_and_gradient(self, weights, anchor):\n"
            "    return weights.sum(), weights[:, :1]"
        ),
        "PenaltyNotFinite": (
            "def penalty_and_gradient(self, weights, anchor):\n"
            "    return weights.sum(1) / 0, weights / 0"
        ),
        "AfterTaskNothing": "def after_task(self, params, memory, end):\n    pass",
        "AfterTaskList": "def after_task(self, params, memory, end):\n    return [1, 2]",
        "AfterTaskNumbers": "def after_task(self, params, memory, end):\n    return {'a': 3}",
        "AfterTaskNoMembers": (
            "def after_task(self, params, memory, end):\n    return {'a': torch.tensor(3.0)}"
        ),
        "AfterTaskObject": "def after_task(self, params, memory, end):\n    return {'a': self}",
        "RunningNothing": "def running(self, params, memory, task_id):\n    pass",
        "DescribesNothing": "def describe(self, anchor):\n    pass",
        "ScenariosNothing": "scenarios = None",
        "ScenariosText": "scenarios = 'all'",
        "NumTrainedNothing": "num_trained = property(lambda s: None, lambda s, v: None)",
        "WeightsOther": "def weights(self, params, task_ids):\n    return params['weights']",
        "ByTask": "network_by_task = True",
    }.items()
}
METHODS["Nothing"] = "class Nothing:\n    def __init__(self, setting):\n        pass\n"
METHODS["NotAClass"] = "def NotAClass(setting):\n    return Near(setting)\n"

_GOOD = "(*make(0), *make(1))"
FUNCTIONS = {
    name: _function(name, body)
    for name, body in {
        "returns_nothing": "pass",
        "returns_number": "return 3",
        "returns_text": "return 'tasks'",
        "returns_none_of_them": "return []",
        "returns_empty": "return [()]",
        "returns_three": "return [make(0) + (1,)]",
        "returns_dictionary": "return {'a': make(0)}",
        "returns_class": "return Net",
        "yields": f"yield {_GOOD}",
        "raises": "raise OSError('two\\nlines')",
        "raises_nothing_said": "raise ValueError",
        "raises_other": "raise type('Mine\\nerror', (Exception,), {})('a\\r\\nb')",
        "exits": "raise SystemExit(0)",
        "exits_with_text": "raise SystemExit('text')",
        "exits_with_three": "raise SystemExit(3)",
        "recurs": "return recurs()",
        "ragged": "return [([[1.0], [1.0, 2.0]], [0, 1], [[1.0]], [0])]",
        "text_labels": "return [(make(0)[0], ['a', 'b'] * 12) * 2]",
        "float_labels": "return [(make(0)[0], make(0)[1] / 1) * 2]",
        "labels_in_two_dimensions": "return [(make(0)[0], make(0)[1][:, None]) * 2]",
        "fewer_labels": "return [(make(0)[0], make(0)[1][:5]) * 2]",
        "objects": "return [(make(0)[0].astype(object), make(0)[1]) * 2]",
        "not_finite": "return [(make(0)[0] / 0 * 0, make(0)[1]) * 2]",
        "one_dimension": "return [(make(0)[0][:, 0], make(0)[1]) * 2]",
        "no_samples": "return [(make(0)[0][:0], make(0)[1][:0]) * 2]",
        "one_class": "return [(make(0)[0], make(0)[1] * 0) * 2]",
        "one_sample": "return [(make(0)[0][:1], make(0)[1][:1]) * 2]",
        "channels_first": "return [(np.zeros((24, 3, 6, 6), np.uint8), make(0)[1]) * 2]",
        "uint16": "return [(np.zeros((24, 6, 6), np.uint16), make(0)[1]) * 2]",
        "bool_images": "return [(np.zeros((24, 6, 6), bool), make(0)[1]) * 2]",
        "complex_tensors": "return [(torch.zeros(24, 5, dtype=torch.cfloat), make(0)[1]) * 2]",
        "half_tensors": "return [(torch.zeros(24, 5).half(), make(0)[1]) * 2]",
        "sparse": "return [(torch.zeros(24, 5).to_sparse(), make(0)[1]) * 2]",
        "with_gradient": "return [(torch.zeros(24, 5, requires_grad=True), make(0)[1]) * 2]",
        "of_unequal_shape": f"return [{_GOOD}, (make(0)[0][:, :3], make(0)[1]) * 2]",
        "unequal_classes": f"return [{_GOOD}, (*make(2, 24, 3), *make(3, 24, 3))]",
        "other_test_classes": "return [(*make(0, 24, 2), *make(0, 24, 3))]",
        "other_each_time": "import os\n    return [(*make(os.urandom(1)[0]), *make(0))] * 2",
        "other_number": f"import os\n    return [{_GOOD}] * (1 + os.urandom(1)[0] % 3)",
        "random_globally": (
            "np.random.seed(0), torch.manual_seed(0)\n"
            "    return [(torch.rand(24, 5), np.random.randint(0, 2, 24)) * 2]"
        ),
        "other_default_type": f"torch.set_default_dtype(torch.double)\n    return [{_GOOD}] * 2",
        "no_gradients": f"torch.set_grad_enabled(False)\n    return [{_GOOD}] * 2",
        "elsewhere": f"import os\n    os.chdir('/')\n    return [{_GOOD}] * 2",
        "many_threads": f"torch.set_num_threads(1)\n    return [{_GOOD}] * 2",
        "prints": f"print('a' * 500)\n    return [{_GOOD}] * 2",
        "warns": f"import warnings\n    warnings.warn('two\\nlines')\n    return [{_GOOD}] * 2",
        "numbers_as_datasets": "return [(3, 4)]",
        "lists_as_datasets": "return [([(np.zeros(3), i % 2) for i in range(24)],) * 2]",
        "odd_items": "return [([(np.zeros(3), 0), (np.zeros(4), 1)],) * 2]",
        "single_items": "return [([np.zeros(3), np.zeros(3)],) * 2]",
        "empty_datasets": "return [([], [])]",
        "deferred": "return lambda: 3",
    }.items()
}
FUNCTIONS["required"] = _function("required", f"return [{_GOOD}]", "path")
FUNCTIONS["positional"] = _function("positional", f"return [{_GOOD}] * num_tasks", "num_tasks=2, /")
FUNCTIONS["anything"] = _function("anything", f"return [{_GOOD}] * 2", "*args, **kwargs")
FUNCTIONS["help_parameter"] = _function("help_parameter", f"return [{_GOOD}] * 2", "help=1")
FUNCTIONS["lr_parameter"] = _function("lr_parameter", f"return [{_GOOD}] * 2", "lr=1")
FUNCTIONS["code_parameter"] = _function("code_parameter", f"return [{_GOOD}] * 2", "code=1")
FUNCTIONS["seed_parameter"] = _function("seed_parameter", f"return [{_GOOD}] * 2", "shift=10**20")
FUNCTIONS["infinite_parameter"] = _function(
    "infinite_parameter", f"return [{_GOOD}] * 2", "shift=float('nan')"
)
FUNCTIONS["number"] = "number = 3\n"
FUNCTIONS["waits"] = "async def waits():\n    return []\n"

BROKEN_FILES = {
    "syntax.py": b"def tasks(:\n    pass\n",
    "raises.py": b"raise OSError('two\\nlines')\n",
    "exits.py": b"import sys\nsys.exit(0)\n",
    "nothing.py": b"",
    "binary.py": bytes(range(256)),
    "latin.py": b"# \xff\ndef tasks():\n    return []\n",
    "imports.py": b"from nothing_like_it import x\n",
    "itself.py": b"from itself import tasks\n",
    "tabs.py": b"def tasks():\n\tpass\n        pass\n",
}
