"""How exact is the penalty's gradient in float32? Measured along real training.

    python -m benchmarks.precision

Trains the default job up to its fifth task, then that task, and at several steps takes the penalty
and its gradient in float32, in the factored and in the dense form, against the dense form in
float64; and the factored form in float64 against the dense one. Relative errors are of the gradient
as a whole.
"""

from dataclasses import replace

import torch

from benchmarks.common import print_table, save
from hypercl.engine.members import Params
from hypercl.experiment import Experiment
from hypercl.methods.hnet.choice import take_anchor
from hypercl.methods.hnet.output_regularizer import penalty_and_gradient
from hypercl.networks.hypernet import Hypernet
from hypercl.rundir.checkpoint import Position
from train import TaskTraining
from train_args import parse_args

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
    chosen = parse_args(options)
    experiment = Experiment.build(chosen)
    longer = replace(experiment, options=chosen.having(n_iter=max(STEPS)))
    position = Position.start([[42]]).on_device(experiment.device, experiment.method.init)
    for _ in range(TASK_ID):
        training = TaskTraining.at(experiment, position)
        for _ in range(training.num_steps):
            training.step()
        position = training.result(position)
    training, rows = TaskTraining.at(longer, position), []
    for done in range(max(STEPS) + 1):
        if done > 0:
            training.step()
        if done in STEPS:
            rows.append(compare(experiment.method.hnet, position.params, training.trained, done))
    return rows


def compare(hnet: Hypernet, star: Params, trained: Params, step: int) -> dict:
    """The errors of the three other ways against the dense form in float64."""

    def gradient(dtype: torch.dtype, factored: bool) -> tuple[float, torch.Tensor]:
        params = {name: value.to(dtype, copy=True) for name, value in trained.items()}
        before = {name: value.to(dtype) for name, value in star.items()}
        anchor = take_anchor(hnet, before, TASK_ID, factored=factored)
        earlier = torch.arange(TASK_ID)[None]
        penalty, found = penalty_and_gradient(anchor, params, earlier, 1.0)
        return penalty.item(), torch.cat([found[name].flatten().double() for name in params])

    value, exact = gradient(torch.float64, False)
    row = {"step": step, "penalty": value, "gradient": exact.norm().item()}
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
