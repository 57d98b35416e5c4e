"""What a run would take, without running it."""

import time
from argparse import Namespace
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from experiment import (
    build_hypernet,
    build_main_net,
    build_tasks,
    checkpoint_before,
    chunk_size,
    init_members,
    member_and_free_bytes,
    pick_device,
    split_seeds,
    training,
)
from hypercl.capture import StepRunner
from hypercl.networks import fresh_stats
from hypercl.screen import Screen
from train import evaluate, make_step, new_history

_TRIED = 20  # steps that are timed in all
_SLOW = 4  # before them in each task, those with what is slow once


def try_out(args: Namespace) -> dict[str, Any]:
    """Say what a run would take; makes no run directory.

    A step costs more with the first two earlier tasks, as the regularizer sets in and takes its
    form, and from then on nearly in proportion to them: so steps of the first three tasks and of
    the last are timed, and those between interpolated.

    Returns:
        What is said: numbers of weights, bytes, seconds.
    """
    device = pick_device(args)
    tasks = build_tasks(args, device)
    mnet = build_main_net(args, tasks[0])
    module = build_hypernet(args, mnet, args.random_seed)
    member, free = member_and_free_bytes(args, mnet, module, tasks, device)
    groups = split_seeds(args, range(args.num_seeds), mnet, module, tasks, device)
    seeds = groups[0]
    hnet, params = init_members(args, mnet, seeds, device)
    stats = fresh_stats(mnet, len(seeds), device)

    def seconds(function, times: int) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(times):
            function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / times

    step_seconds = []
    timed = sorted({*range(min(3, len(tasks))), len(tasks) - 1})
    tried = _TRIED // len(timed)
    for task_id in timed:
        task = tasks[task_id]
        how = replace(training(args, seeds, len(task.train.labels)), num_steps=tried + _SLOW)
        checkpoint = checkpoint_before(args, task_id, hnet, params, mnet, tasks)
        flat, trained = hnet.to_train(params, task_id + 1)
        mnet.train()
        step = make_step(
            hnet, mnet, flat, trained, task, task_id, checkpoint, how,
            new_history(how, device), stats,
        )  # fmt: skip
        step = StepRunner(step, device)
        seconds(step, _SLOW)
        step_seconds.append(seconds(step, tried))
    evaluation = seconds(
        lambda: evaluate(
            hnet, mnet, params, tasks[0], 0, tasks[0].test, args.val_batch_size, stats
        ),
        1,
    )
    steps = [training(args, seeds, len(task.train.labels)).num_steps for task in tasks]
    learning = float(np.dot(steps, np.interp(range(len(tasks)), timed, step_seconds)))
    ends = range(1, len(tasks) + 1)  # of tasks: how many are tested
    num_tests = sum(ends) + sum(n * n for n in (ends if args.scenarios_every_task else ends[-1:]))
    found = {
        "num_weights": {"main": mnet.num_params, "hypernet": module.num_params},
        "compression_ratio": module.num_params / mnet.num_params,
        "chunk_size": chunk_size(args, mnet) if args.hnet_type == "chunked_hmlp" else None,
        "bytes": len(seeds) * member,
        "step_seconds": step_seconds,
        "seconds": len(groups) * (learning + num_tests * evaluation),
    }
    screen = Screen(lambda line: None)
    screen.say(f"main network: {args.net_type} with {mnet.num_params:,} weights")
    chunks = f", chunks of {found['chunk_size']:,}" if found["chunk_size"] else ""
    screen.say(f"hypernetwork: {args.hnet_type} with {module.num_params:,} weights{chunks}")
    screen.say(f"compression ratio: {found['compression_ratio']:.3f}")
    screen.say(
        f"memory: about {found['bytes'] / 2**20:,.0f} MiB in the last task beside the images, of "
        f"{free / 2**20:,.0f} MiB free; {len(seeds)} of {args.num_seeds} seed(s) at a time"
    )
    screen.say(
        f"a step: {1e3 * step_seconds[0]:.1f} ms in the first task, "
        f"{1e3 * step_seconds[-1]:.1f} ms in the last; "
        f"{sum(steps):,} steps"
    )
    screen.say(f"the whole run: about {found['seconds'] / 60:.1f} minutes")
    return found
