"""How exact is the drift's gradient in float32? Measured along real training.

    python -m benchmarks.precision

Trains the default job up to its fifth task, then that task, and at several steps takes the drift
and its gradient in float32, in the factored and in the dense form, against the dense form in
float64; and the factored form in float64 against the dense one. Relative errors are of the gradient
as a whole.
"""

import experiment
import torch
from hypercl.methods.hnet.regularizer import drift_and_gradient, take_checkpoint

import run
from benchmarks.common import print_table, save
from hypercl.engine.members import Params
from train import make_step, new_history

STEPS = (0, 1, 100, 2000)
TASK_ID = 4  # the fifth task: four earlier ones


def main() -> None:
    rows = []
    for hnet_type in ("chunked_hmlp", "hmlp"):
        for row in measure(["--no_cuda", f"--hnet_type={hnet_type}"]):
            rows.append({"hypernetwork": hnet_type, **row})
            print(rows[-1], flush=True)
    print_table(rows)
    save("precision", {"rows": rows})


def measure(options: list[str]) -> list[dict]:
    """One row for each of STEPS."""
    args = run.parse_args(options)
    device = torch.device("cpu")
    tasks = experiment.build_tasks(args, device)
    mnet = experiment.build_main_net(args, tasks[0])
    hnet, params = experiment.as_function(args, experiment.build_hypernet(args, mnet, 42), device)
    params = {name: value[None] for name, value in params.items()}
    rows = []
    for task_id in range(TASK_ID + 1):
        task, last = tasks[task_id], task_id == TASK_ID
        args.n_iter = max(STEPS) if last else 1001
        how = experiment.training(args, [42], len(task.train.labels))
        checkpoint = take_checkpoint(hnet, params, task_id)
        flat, trained = hnet.to_train(params, task_id + 1)
        history = new_history(how, torch.device("cpu"))
        step = make_step(hnet, mnet, flat, trained, task, task_id, checkpoint, how, history)
        for done in range(how.num_steps + 1):
            if last and done in STEPS:
                rows.append(compare(hnet, params, trained, done))
            if done < how.num_steps:
                step()
        params = hnet.merged(params, trained)
    return rows


def compare(hnet, star: Params, trained: Params, step: int) -> dict:
    """The errors of the three other ways against the dense form in float64."""

    def gradient(dtype: torch.dtype, factored: bool) -> tuple[float, torch.Tensor]:
        params = {name: value.to(dtype, copy=True) for name, value in trained.items()}
        converted = {name: value.to(dtype) for name, value in star.items()}
        checkpoint = take_checkpoint(hnet, converted, TASK_ID, factored=factored)
        earlier = torch.arange(TASK_ID)[None]
        drift, found = drift_and_gradient(checkpoint, params, earlier, 1.0)
        return drift.item(), torch.cat([found[name].flatten().double() for name in params])

    value, exact = gradient(torch.float64, False)
    row = {"step": step, "drift": value, "gradient": exact.norm().item()}
    for name, dtype, factored in (
        ("factored float64", torch.float64, True),
        ("factored float32", torch.float32, True),
        ("dense float32", torch.float32, False),
    ):
        found_value, found = gradient(dtype, factored)
        error = (found - exact).norm().item()
        row[f"{name}: value"] = abs(found_value - value) / (value if step else 1)
        row[f"{name}: gradient"] = error / (exact.norm().item() if step else 1)
    return row


if __name__ == "__main__":
    main()
