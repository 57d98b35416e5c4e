"""How exact is the drift's gradient in float32? Measured along real training.

    python -m benchmarks.precision

Trains the default job up to a task, then that task, and at several steps takes the drift and its
gradient in float32, in the factored and in the dense form, against the dense form in float64; and
the factored form in float64 against the dense one. Relative errors are of the gradient as a whole.
"""

import torch

import run
from benchmarks.common import print_table, save
from hypercl.hypernet import Params
from hypercl.regularizer import Checkpoint, take_checkpoint
from train import generate, train_task

STEPS = (0, 1, 100, 2000)
TASK_ID = 4  # the fifth task: four earlier ones


def main() -> None:
    torch.set_num_threads(2)
    results = []
    for hnet_type in ("chunked_hmlp", "hmlp"):
        for row in measure(["--no_cuda", f"--hnet_type={hnet_type}"]):
            results.append({"hypernetwork": hnet_type, **row})
            print(results[-1], flush=True)
    print_table(results)
    save("precision", {"rows": results})


def measure(options: list[str]) -> list[dict]:
    """One row for each of STEPS."""
    args = run.parse_args(options)
    device = torch.device("cpu")
    tasks = run.build_tasks(args, device)
    mnet = run.build_main_net(args, tasks[0], device)
    hnet, params = run.as_function(args, run.build_hypernet(args, mnet, 42), device)
    params = {name: value[None] for name, value in params.items()}
    for task_id in range(TASK_ID + 1):
        checkpoint = take_checkpoint(hnet, params, task_id)
        leaves = hnet.leaves(params, task_id + 1)
        rows, done = [], 0
        if task_id == TASK_ID:
            rows.append(compare(hnet, params, leaves, 0))
        args.n_iter = max(STEPS) if task_id == TASK_ID else 1001
        args.val_iter = 1  # a report after every step
        how = run.training(args, [42], len(tasks[task_id].train.labels))
        task = tasks[task_id]
        empty = type(task)(task.name, 2, task.train, task.validation, task.test)
        for progress in train_task(hnet, mnet, leaves, empty, task_id, checkpoint, how):
            done = progress.step
            if task_id == TASK_ID and done in STEPS:
                rows.append(compare(hnet, params, leaves, done))
        params = hnet.merged(params, leaves)
    return rows


def compare(hnet, star: Params, leaves: Params, step: int) -> dict:
    """The errors of the three other ways against the dense form in float64."""

    def gradient(dtype, factored: bool):
        at = {name: v.detach()[0].to(dtype).requires_grad_() for name, v in leaves.items()}
        converted = {name: value.to(dtype) for name, value in star.items()}
        checkpoint: Checkpoint = take_checkpoint(hnet, converted, TASK_ID, factored=factored)
        kept = {name: value[0] for name, value in checkpoint.kept.items()}
        _, drift = generate(hnet, checkpoint, at, kept, torch.arange(TASK_ID + 1))
        drift.backward()
        grads = [v.grad if v.grad is not None else torch.zeros_like(v) for v in at.values()]
        return drift.item(), torch.cat([g.flatten().double() for g in grads])

    value, exact = gradient(torch.float64, False)
    row = {"step": step, "drift": value, "gradient": exact.norm().item()}
    for name, dtype, factored in (
        ("factored float64", torch.float64, True),
        ("factored float32", torch.float32, True),
        ("dense float32", torch.float32, False),
    ):
        found_value, found = gradient(dtype, factored)
        error = (found - exact).norm()
        row[f"{name}: value"] = abs(found_value - value) / value if value else abs(found_value)
        row[f"{name}: gradient"] = (error / exact.norm()).item() if value else error.item()
    return row


if __name__ == "__main__":
    main()
