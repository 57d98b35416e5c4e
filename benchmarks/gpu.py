"""Everything that is to be known of a GPU, in one command and within so many minutes.

    python -m benchmarks.gpu [--minutes 12] [--data_dir datasets] [OUT]

The parts, in order of worth: the tests that need CUDA; steps of the default networks, captured in a
CUDA graph and not, beside the plain loop's; the default job beside the plain loop's; 1, 8 and 64
seeds in a step; steps of a ResNet-32 in three precisions; permmnist-large, its steps and the preset
itself; splitcifar10-resnet, where CIFAR-10 is there.

OUT, by default benchmarks/results/gpu-<card>.json, is written after each part. The same command
goes on where it was stopped: what is in the file of the same card, torch and commit is not measured
again, but for parts that were left out or stopped. A part says beforehand how long it takes; what
does not fit into the minutes is cut, or left out, and the file says so. A part that takes longer
than it may is stopped, and what it has measured stays. Each part is a process of its own, so that
none is harmed by what another one does to the card.

Without CUDA the parts run on the CPU with tiny sizes, which tests the command and measures nothing.
gpu_parts.py has the parts.
"""

import argparse
import json
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from benchmarks import gpu_parts
from benchmarks.common import RESULTS
from benchmarks.gpu_parts import FULL, TINY, Row, Say, Sizes
from hypercl.whole import replace_file
from train_args import parse_args

_SLACK = 2.0  # times as long as it said, a part may take
_DONE = ("measured", "failed")  # and not again


class Part(NamedTuple):
    """Something to measure.

    ``measure`` takes sizes, the share of it that there is time for, in (0, 1], and ``say``, which
    takes each row when it is there. ``seconds`` takes sizes and the rows of the parts before it by
    their names, and says how long the whole takes.
    """

    name: str
    measure: Callable[[Sizes, float, Say], None]
    seconds: Callable[[Sizes, Mapping[str, Sequence[Row]]], float]
    least: float = 1.0  # share below which it is left out


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--data_dir", default=FULL.data_dir)
    args = parser.parse_args(argv)
    # This process never asks for CUDA itself: one that has could not be forked.
    _, reason, rows = in_process(gpu_parts.describe, None, 1.0, 120.0)
    if reason:
        raise SystemExit(f"the machine cannot be described: {reason}")
    (facts,) = rows
    sizes = (FULL if facts["cuda"] else TINY)._replace(data_dir=args.data_dir)
    card = re.sub(r"[^a-z0-9]+", "-", facts["card"].lower()).strip("-")
    out = args.out or RESULTS / f"gpu-{card}.json"
    measure_all(PARTS, sizes, facts, out, 60 * args.minutes)


def measure_all(
    parts: Sequence[Part], sizes: Sizes, facts: Row, out: Path, seconds: float
) -> dict[str, Any]:
    """Measure what the file lacks, and write it after each part.

    Args:
        facts: Of the machine; of another card, torch or commit, what the file has is not kept.
        seconds: In all.

    Returns:
        What the file holds.
    """
    ends = time.monotonic() + seconds
    content: dict[str, Any] = {"facts": dict(facts), "parts": {}}
    with suppress(OSError, ValueError):
        before = json.loads(out.read_text())
        if all(before["facts"][key] == facts[key] for key in ("card", "torch", "commit")):
            content["parts"] = before["parts"]
    for part in parts:
        known = content["parts"].get(part.name, {})
        if known.get("status") in _DONE:
            print(f"{part.name}: {known['status']} before", flush=True)
            continue
        entry = _measure(part, sizes, content["parts"], ends - time.monotonic())
        content["parts"][part.name] = {"date": time.strftime("%Y-%m-%d"), **entry}
        replace_file(out, (json.dumps(content, indent=1) + "\n").encode())
        _show(part.name, entry)
    return content


def _measure(
    part: Part, sizes: Sizes, known: Mapping[str, Mapping[str, Any]], left: float
) -> dict[str, Any]:
    """What the file has of a part: its status, rows, seconds, and what was cut."""
    rows = {name: entry.get("rows", []) for name, entry in known.items()}
    whole = part.seconds(sizes, rows)
    share = min(1.0, (left - sizes.begin) / whole)
    if share < part.least:
        reason = f"takes about {sizes.begin + part.least * whole:.0f} s, and {left:.0f} are left"
        return {"status": "left out", "reason": reason}
    limit = min(left, sizes.begin + _SLACK * share * whole)
    started = time.monotonic()
    status, reason, measured = in_process(part.measure, sizes, share, limit)
    entry = {"status": status, "seconds": time.monotonic() - started}
    entry |= {"expected": sizes.begin + share * whole, "share": share}
    return entry | ({"reason": reason} if reason else {}) | {"rows": measured}


def _show(name: str, entry: Mapping[str, Any]) -> None:
    cut = f", cut to {100 * entry['share']:.0f} %" if entry.get("share", 1) < 1 else ""
    print(f"{name}: {entry['status']}{cut} {entry.get('reason', '')}".strip(), flush=True)
    for row in entry.get("rows", []):
        print(f"  {dict(row)}", flush=True)


def in_process(
    measure: Callable, sizes: Sizes | None, share: float, limit: float
) -> tuple[str, str, list[Row]]:
    """Measure in a new process, which is killed with all that it began after ``limit`` seconds.

    Returns:
        "measured", "left out", "failed" or "stopped"; why; the rows that came.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.gpu_parts"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=gpu_parts.work, args=(theirs, measure, sizes, share))
    process.start()
    theirs.close()
    until, rows = time.monotonic() + limit, []
    status, reason = "stopped", f"took longer than the {limit:.0f} s that it might"
    try:
        while ours.poll(max(0.0, until - time.monotonic())):
            kind, value = ours.recv()
            if kind == "row":
                rows.append(value)
            else:
                status, reason = kind, value
                break
    except EOFError:
        process.join()
        status, reason = "failed", f"its process ended with exit code {process.exitcode}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it and what it began
        process.kill()  # where it has not come to have a group
        process.join()
    return status, reason, rows


# How long that takes.


def of_steps(num_points: int, sizes: Sizes, rows: Mapping[str, Sequence[Row]]) -> float:
    """Three ways for so many points, and before that networks, captures and warm-up."""
    return num_points * (3 * sizes.seconds + sizes.begin)


def of_preset(name: str, sizes: Sizes, rows: Mapping[str, Sequence[Row]]) -> float:
    """Its steps, at the time that steps took, or a guess, and its tests."""
    guess = {"permmnist-large": 2.0, "splitcifar10-resnet": 12.0}[name]
    known = rows.get(f"{name} steps") or rows.get("ResNet-32 steps" if "cifar" in name else "")
    times = [
        row["captured ms"] for row in known or () if row.get("precision", "float32") == "float32"
    ]
    if sizes.n_iter is not None:
        return 6 * sizes.begin
    return 1.2 * fmean(times or [guess]) / 1e3 * num_steps(name) + 3 * sizes.begin


def num_steps(name: str) -> int:
    """Of all tasks of a preset, of the data sets as they are."""
    options = parse_args([f"--preset={name}"])
    if options.train.epochs is None:
        return options.task.num_tasks * options.train.n_iter
    return options.task.num_tasks * options.train.epochs * -(-10_000 // options.train.batch_size)


PARTS = (
    Part("tests", gpu_parts.run_tests, lambda sizes, rows: 15 * sizes.begin),
    Part("default steps", partial(gpu_parts.steps, ()), partial(of_steps, len(FULL.earlier)), 0.1),
    Part("default job", gpu_parts.job, lambda sizes, rows: 6 * sizes.begin, 0.2),
    Part("seeds", gpu_parts.seeds, partial(of_steps, len(FULL.seeds)), 0.1),
    Part("ResNet-32 steps", gpu_parts.resnet, partial(of_steps, 3), 0.1),
    Part(
        "permmnist-large steps",
        partial(gpu_parts.steps, ("--preset=permmnist-large",)),
        partial(of_steps, len(FULL.earlier)),
        0.1,
    ),
    Part(
        "permmnist-large",
        partial(gpu_parts.preset, "permmnist-large"),
        partial(of_preset, "permmnist-large"),
        0.05,
    ),
    Part(
        "splitcifar10-resnet",
        partial(gpu_parts.preset, "splitcifar10-resnet"),
        partial(of_preset, "splitcifar10-resnet"),
        0.05,
    ),
)


if __name__ == "__main__":
    main()
