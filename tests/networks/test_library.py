"""hypnettorch is imported without pyplot, which comes where somebody wants it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

UNHARMED = """
from hypnettorch.utils import misc
import matplotlib, matplotlib.pyplot as plt
misc.matplotlib.rcParams["font.size"] = 17
assert matplotlib.rcParams["font.size"] == 17
assert misc.plt.figure is plt.figure is matplotlib.pyplot.figure
assert misc.matplotlib.rcParams is matplotlib.rcParams
"""
WANTED_BEFORE = {
    "nothing": "",
    "matplotlib": "import matplotlib.figure",
    "pyplot": "import matplotlib.pyplot; before = matplotlib.pyplot",
    "hypnettorch": "import hypnettorch.mnets",
}


@pytest.mark.parametrize("before", WANTED_BEFORE)
def test_pyplot_is_unharmed(before):
    code = (
        f"import sys\n{WANTED_BEFORE[before]}\n"
        "there = {name: m for name, m in sys.modules.items() if name.startswith('matplotlib')}\n"
        "from hypercl.networks import library, main_net, hypernet\n"
        "now = {name: m for name, m in sys.modules.items() if name.startswith('matplotlib')}\n"
        f"assert now == there\n{UNHARMED}"
    )
    environment = {"MPLBACKEND": "agg", "PYTHONWARNINGS": "ignore", "PATH": "/usr/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
