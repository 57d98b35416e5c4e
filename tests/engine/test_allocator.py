import subprocess
import sys
from pathlib import Path

import pytest

from hypercl.engine import allocator


def mebibytes_kept(keep):
    """Of a tensor of 20 MiB that has been freed, what the process still holds."""
    code = (
        "import torch\n"
        "from hypercl.engine.allocator import keep_freed_memory\n"
        f"{'keep_freed_memory()' if keep else ''}\n"
        "def held(): return int(open('/proc/self/statm').read().split()[1])\n"
        "before = held()\n"
        "torch.ones(20 << 18)\n"
        "print((held() - before) / 256)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no Linux")
def test_freed_memory_is_kept_for_the_next_step():
    assert mebibytes_kept(keep=True) > 15
    assert mebibytes_kept(keep=False) < 5


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    allocator.keep_freed_memory()
