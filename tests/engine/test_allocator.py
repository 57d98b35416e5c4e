import resource
import subprocess
import sys

import pytest

from hypercl.engine import allocator


def faults(keep):
    """Page faults of twenty rounds in which forty tensors of a megabyte are made and freed."""
    code = (
        "import resource, torch\n"
        "from hypercl.engine.allocator import keep_freed_memory\n"
        f"{'keep_freed_memory()' if keep else ''}\n"
        "def round(): return [torch.ones(1 << 18) for _ in range(40)] and None\n"
        "round()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(20): round()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(resource, "RUSAGE_SELF"), reason="no Unix")
def test_memory_is_taken_again_without_page_faults():
    assert 4 * faults(keep=True) < faults(keep=False)


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    allocator.keep_freed_memory()
