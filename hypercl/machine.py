"""What the machine has, or its container (a control group, version 2) if that is less. No torch."""

import math
from pathlib import Path

FLOAT, INDEX = 4, 8  # bytes of a float32, and of an int64

_MEMORY, _GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def total_memory() -> int | None:
    """Bytes; None where it is not known."""
    known = [_memory("MemTotal"), _limit("memory.max")]
    return min((number for number in known if number is not None), default=None)


def free_memory() -> int | None:
    """Bytes that are not in use, or could be given up; None where it is not known."""
    known, limit, used = [_memory("MemAvailable")], _limit("memory.max"), _limit("memory.current")
    if limit is not None and used is not None:
        known.append(max(0, limit - used))
    return min((number for number in known if number is not None), default=None)


def processor_quota() -> float:
    """Processors' worth of time that the process may take; infinite without a limit."""
    try:
        limit, period = _text(_GROUP / "cpu.max").split()
        return int(limit) / int(period)
    except ValueError:  # no such group, or "max"
        return math.inf


def _memory(name: str) -> int | None:
    lines = (line.split() for line in _text(_MEMORY).splitlines())
    return next((1024 * int(words[1]) for words in lines if words[0] == f"{name}:"), None)


def _limit(name: str) -> int | None:
    text = _text(_GROUP / name).strip()
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
