"""What a run tells of itself while it goes: the screen, the run directory, results.json."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from hypercl import metrics, plots
from hypercl.errors import RunFailed
from hypercl.rundir import RunDir
from hypercl.screen import Screen

FORMAT = 1  # of results.json
_MAX_COLUMNS = 10  # tasks beyond which the whole matrix is not shown on the screen


class Report:
    """Collects the results of a run; a context that ends with the right status in results.json.

    Args:
        config: Every option, as results.json repeats them.
        num_weights: ``{"main": int, "hypernet": int}``.
    """

    def __init__(
        self,
        run_dir: RunDir,
        screen: Screen,
        *,
        experiment: str,
        task_names: Sequence[str],
        config: Mapping[str, Any],
        num_weights: Mapping[str, int],
        seed: int,
        started: float,
    ) -> None:
        self._run_dir = run_dir
        self._screen = screen
        self._task_names = task_names
        self._started = started  # time.monotonic() when the program began
        self._task_started = 0.0
        self._steps_before = 0  # of the earlier tasks, for TensorBoard's axis
        self._validation = ""  # the last one of this task, as the screen says it
        self._accuracy: list[list[float]] = []
        self.results: dict[str, Any] = {
            "format": FORMAT,
            "status": "running",
            "error": None,
            "experiment": experiment,
            "config": dict(config),
            "num_weights": dict(num_weights),
            "compression_ratio": num_weights["hypernet"] / num_weights["main"],
            "seeds": [{"seed": seed, "accuracy": self._accuracy, **dict.fromkeys(metrics.METRICS)}],
            "summary": {},
            "seconds": {"total": 0.0, "train": [], "test": []},
        }

    def __enter__(self) -> "Report":
        self._write_results()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._screen.stop_progress()
        if error is None:
            self.results["status"] = "finished"
            self._show_summary()
        elif isinstance(error, KeyboardInterrupt):
            self.results["status"] = "interrupted"
        else:
            self.results["status"] = "failed"
            self.results["error"] = str(error) or type(error).__name__
        try:
            self._write_results()
        except RunFailed:
            if error is None:  # else the error that is under way says more
                raise
        finally:
            self._run_dir.close()

    def start_task(self, task_id: int, num_steps: int, num_samples: int) -> None:
        """Announce a task and start its clock."""
        number = f"task {task_id + 1}/{len(self._task_names)}"
        self._screen.debug(
            f"{number} ({self._task_names[task_id]}): {num_samples} training samples, "
            f"{num_steps} steps"
        )
        self._screen.start_progress(number, num_steps)
        self._task_started = time.monotonic()

    def step(
        self, task_id: int, step: int, *, validation_accuracy: float | None, **values: float
    ) -> None:
        """A logged step: metrics.jsonl, TensorBoard, the progress on the screen.

        Args:
            step: Steps done in this task.
            validation_accuracy: None where this step had no validation.
            values: Losses, and accuracies in [0, 1].
        """
        validated = validation_accuracy is not None
        row = {"seed": self.results["seeds"][0]["seed"], "task": task_id, "step": step, **values}
        scalars = {f"train/{name}": value for name, value in values.items()}
        if validated:
            self._validation = f", validation {100 * validation_accuracy:.1f} %"
            scalars["validation/accuracy"] = validation_accuracy
        self._run_dir.write_metrics({**row, "validation_accuracy": validation_accuracy})
        self._run_dir.write_scalars(self._steps_before + step, scalars)
        text = f"task loss {values['task_loss']:.4f}, drift {values['drift']:.4f}"
        self._screen.show_progress(step, text + self._validation, milestone=validated)

    def end_training(self, num_steps: int) -> None:
        """Stop the clock of a task's training and start that of its tests."""
        self._screen.stop_progress()
        now = time.monotonic()
        self.results["seconds"]["train"].append(now - self._task_started)
        self._task_started = now
        self._steps_before += num_steps
        self._validation = ""

    def end_task(self, accuracy: Sequence[float]) -> None:
        """Add a row of the accuracy matrix, in percent, and write down all that follows from it."""
        self.results["seconds"]["test"].append(time.monotonic() - self._task_started)
        self._accuracy.append(list(accuracy))
        for seed in self.results["seeds"]:
            seed.update({name: metric(self._accuracy) for name, metric in metrics.METRICS.items()})
        self.results["summary"] = {
            name: metrics.summarize([seed[name] for seed in self.results["seeds"]])
            for name in metrics.METRICS
        }
        self._write_results()
        self._write_plots()
        for k, value in enumerate(accuracy):
            self._run_dir.write_scalars(len(accuracy), {f"test/task_{k + 1}": value})
        mean = metrics.final_accuracy(self._accuracy)
        self._run_dir.write_scalars(len(accuracy), {"test/mean": mean})
        self._show_row()

    def _show_row(self) -> None:
        row = self._accuracy[-1]
        title = f"test accuracy (%) after task {len(row)}/{len(self._task_names)}"
        mean = metrics.final_accuracy(self._accuracy)
        if len(self._task_names) > _MAX_COLUMNS:
            worst = min(range(len(row)), key=row.__getitem__)
            self._screen.say(
                f"{title}: {row[-1]:.2f}, mean of all so far {mean:.2f}, "
                f"worst {row[worst]:.2f} (task {worst + 1})"
            )
            return
        self._screen.table(
            title,
            ["task", *(str(k + 1) for k in range(len(row))), "mean"],
            [["", *(f"{value:.2f}" for value in row), f"{mean:.2f}"]],
        )

    def _show_summary(self) -> None:
        num_tasks = len(self._task_names)
        matrix = self._accuracy
        if num_tasks <= _MAX_COLUMNS:
            self._screen.table(
                "accuracy matrix (%): rows after learning a task, columns tested on a task",
                ["after", *(str(k + 1) for k in range(num_tasks))],
                [
                    [str(t + 1), *(f"{v:.2f}" for v in row), *[""] * (num_tasks - len(row))]
                    for t, row in enumerate(matrix)
                ],
            )
        else:
            self._screen.table(
                "accuracy (%) on each task",
                ["task", "when learned", "at the end", "change"],
                [
                    [name, f"{matrix[k][k]:.2f}", f"{last:.2f}", f"{last - matrix[k][k]:+.2f}"]
                    for k, (name, last) in enumerate(zip(self._task_names, matrix[-1], strict=True))
                ],
            )
        values = {name: entry["mean"] for name, entry in self.results["summary"].items()}
        for name, value in values.items():
            shown = "undefined with one task" if value is None else f"{value:.2f} %"
            self._screen.say(f"{name.replace('_', ' ')}: {shown}")
        self._screen.say(f"everything is in {self._run_dir.path}")

    def _write_results(self) -> None:
        self.results["seconds"]["total"] = time.monotonic() - self._started
        self._run_dir.write_json("results.json", self.results)

    def _write_plots(self) -> None:
        title = f"{self.results['experiment']}, seed {self.results['seeds'][0]['seed']}"
        for plot in (plots.accuracy_matrix, plots.accuracy_over_time):
            figure = plot(self._accuracy, self._task_names, title)
            self._run_dir.write_figure(plot.__name__, figure)
