"""Where results come from: what config.json holds."""

import platform
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]


def describe_run(
    options: Mapping[str, Any], argv: Sequence[str], device: torch.device, code: Mapping[str, Any]
) -> dict[str, Any]:
    """What config.json holds.

    Args:
        code: Of the user's files of code.
    """
    packages = ("torch", "numpy", "hypnettorch")
    return {
        "options": dict(options),
        "command": shlex.join(["python", "run.py", *argv]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "device": device_name(device),
        "git_commit": git_commit(),
        **({"code": dict(code)} if code else {}),
    }


def device_name(device: torch.device) -> str:
    """The GPU's name; of processors, how many threads compute and which instructions they have."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads, {platform.machine()}"


def git_commit() -> str | None:
    """The commit of this code, with "+" behind it where files of the code differ or are no part of
    it; None outside a checkout.
    """
    if not Path(ROOT, ".git").exists():  # a copy inside some other checkout
        return None
    try:
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--", "hypercl", "*.py")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
