"""What a finished run has learned: its file weights.pt, written, read, and tested again."""

import warnings
from argparse import Namespace
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

from hypnettorch.hnets import HyperNetInterface
from hypnettorch.mnets import MainNetInterface

from experiment import (
    as_function,
    build_hypernet,
    build_main_net,
    build_tasks,
    pick_device,
    splits_to_test,
)
from hypercl import saving
from hypercl.errors import InputError, RunFailed
from hypercl.hypernet import into_module
from hypercl.members import Params, stack_members, to_device
from hypercl.provenance import device_name
from hypercl.rundir import RunDir, read_config, read_finished
from hypercl.saving import Position
from hypercl.screen import Screen
from hypercl.summary import show_row
from hypercl.tasks import Task
from train import evaluate_tasks
from train_args import differing_options, parse_args, plain_options

_ROUNDED = 2  # samples of a task that another device may classify otherwise


def save_weights(
    run_dir: RunDir, args: Namespace, module: HyperNetInterface, position: Position
) -> None:
    """weights.pt: by seed, the hypernetwork's parameters in hypnettorch's naming; the options."""
    states = {}
    for seed, params in position.learned.items():
        into_module(params, module)
        states[seed] = deepcopy(dict(module.state_dict()))  # what has two names stays one tensor
    tested_together = [[seed for seed in group if seed in states] for group in position.groups]
    content = {
        "hnet": states,
        "stats": {seed: list(position.learned_stats[seed]) for seed in states},
        "groups": [group for group in tested_together if group],
        "options": plain_options(args),
    }
    run_dir.write_bytes("weights.pt", saving.encode(content))


class Learned(NamedTuple):
    """What a finished run has learned, ready for use."""

    args: Namespace  # its options
    tasks: list[Task]
    mnet: MainNetInterface  # its forward(x, weights) takes a task's inputs, an hnet's weights
    hnets: dict[int, HyperNetInterface]  # by seed; forward(cond_id=task) gives weights
    groups: list[list[int]]  # of seeds that were trained and tested together
    stats: dict[int, list[Params]]  # running statistics by seed and task, empty dicts without them


def load_run(path: str | Path, argv: Sequence[str] = ()) -> Learned:
    """Rebuild both networks of a finished run from its weights.pt.

    Args:
        path: The run directory.
        argv: Options that may differ, like ``--data_dir`` and ``--no_cuda``.

    Raises:
        InputError: weights.pt is missing or damaged, or an option does not fit.
    """
    path = Path(path, "weights.pt")
    saved = saving.load_newest([path])
    if saved is None:
        raise InputError(f"{path} does not exist: --eval needs a finished run")
    if "hnet" not in saved:
        raise InputError(f"{path} holds no weights: put a good copy there")
    args = parse_args(argv, saved["options"])
    differing = differing_options(
        {**saved["options"], "no_cuda": args.no_cuda}, plain_options(args)
    )
    if differing:
        raise InputError(f"{path} was learned with other options: {', '.join(differing)}")
    device = pick_device(args)
    tasks = build_tasks(args, device)
    mnet = build_main_net(args, tasks[0])
    mnet.eval()
    hnets = {}
    for seed, state in saved["hnet"].items():
        hnets[seed] = build_hypernet(args, mnet, seed)
        hnets[seed].load_state_dict(state)
        hnets[seed].to(device).eval()
    stats = {
        seed: [to_device(of_task, device) for of_task in by_task]
        for seed, by_task in saved["stats"].items()
    }
    return Learned(args, tasks, mnet, hnets, saved["groups"], stats)


def retest(path: Path, argv: list[str]) -> dict[str, Any]:
    """Test a finished run's networks on all tasks, and compare with its results.

    Raises:
        RunFailed: An accuracy is not the one that was found when the run ended; on another device
            or with another number of threads, it is off by more than rounding can explain.
    """
    results = read_finished(path)
    args, tasks, mnet, hnets, groups, stats = load_run(path, argv)
    device, splits = tasks[0].test.labels.device, splits_to_test(args, tasks)
    found = {}
    for group in groups:
        functions = [as_function(args, hnets[seed], device) for seed in group]
        hnet, params = functions[0][0], stack_members([params for _, params in functions])
        of_tasks = [stack_members([stats[s][k] for s in group]) for k in range(len(tasks))]
        rows = evaluate_tasks(hnet, mnet, params, tasks, splits, args.val_batch_size, of_tasks)
        for seed, row in zip(group, rows, strict=True):
            found[seed] = [100 * accuracy for accuracy in row]
    show_row(Screen(lambda line: None), results["tested_on"], list(found.values()), len(tasks))
    stored = {s["seed"]: s["accuracy"][-1] for s in results["seeds"] if "failed" not in s}
    there, here = read_config(path)["device"], device_name(device)
    allowed = 0.0
    if there != here:
        allowed = 100 * _ROUNDED / min(len(split.labels) for split in splits)
    wrong = [
        seed
        for seed, row in stored.items()
        if seed not in found
        or any(abs(a - b) > allowed for a, b in zip(found[seed], row, strict=True))
    ]
    if not wrong and found != stored:
        warnings.warn(
            f"some accuracies differ by rounding: the run was tested on {there}, this is {here}",
            stacklevel=2,
        )
    if wrong:
        seed = wrong[0]
        raise RunFailed(
            f"{path} stores other accuracies than were found now: of seed {seed} "
            f"{stored[seed]}, now {found.get(seed)}"
        )
    return results
