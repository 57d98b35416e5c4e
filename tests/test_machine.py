"""What the machine and its container have, from files of a system that is made up."""

import math

import pytest

from hypercl import machine

GIBIBYTE = 1 << 30
MEMINFO = "MemTotal:       25165824 kB\nMemFree:         1048576 kB\nMemAvailable:   12582912 kB\n"


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A function that writes the files given; the others are missing."""
    monkeypatch.setattr(machine, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "_GROUP", tmp_path)

    def write(**files):
        for name, text in files.items():
            (tmp_path / name.replace("_", ".")).write_text(text)

    return write


def test_the_machines_memory(system):
    assert (machine.total_memory(), machine.free_memory()) == (None, None)
    system(meminfo=MEMINFO)
    assert (machine.total_memory(), machine.free_memory()) == (24 * GIBIBYTE, 12 * GIBIBYTE)


def test_a_containers_memory_where_it_is_less(system):
    system(meminfo=MEMINFO, memory_max="max\n", memory_current="5\n")
    assert (machine.total_memory(), machine.free_memory()) == (24 * GIBIBYTE, 12 * GIBIBYTE)
    system(memory_max=f"{4 * GIBIBYTE}\n", memory_current=f"{GIBIBYTE}\n")
    assert (machine.total_memory(), machine.free_memory()) == (4 * GIBIBYTE, 3 * GIBIBYTE)
    system(memory_current=f"{5 * GIBIBYTE}\n")
    assert machine.free_memory() == 0


@pytest.mark.parametrize(
    ("text", "quota"),
    [("max 100000", math.inf), ("350000 100000", 3.5), ("20000 100000", 0.2), ("", math.inf)],
)
def test_the_share_of_the_processors(text, quota, system):
    assert machine.processor_quota() == math.inf
    system(cpu_max=text)
    assert machine.processor_quota() == quota


def test_of_this_machine():
    assert machine.free_memory() < machine.total_memory() < 1 << 50
