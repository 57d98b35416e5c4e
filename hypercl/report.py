"""What a run tells of itself while it goes: the screen, the run directory, results.json."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from hypercl import metrics, plots
from hypercl.errors import RunFailed
from hypercl.rundir import RunDir
from hypercl.screen import Screen

FORMAT = 1  # of results.json
_PLOT_SECONDS = 30  # at least, from one drawing of the plots to the next; one takes half a second
_MAX_COLUMNS = 10  # tasks beyond which the whole matrix is not shown on the screen


class Report:
    """Collects the results of a run; a context that ends with the right status in results.json.

    Args:
        config: Every option, as results.json repeats them.
        num_weights: ``{"main": int, "hypernet": int}``.
        tested_on: What the accuracies are of: ``"test"`` or ``"validation"``.
        started: ``time.monotonic()`` when the program began.
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
        seeds: Sequence[int],
        tested_on: str,
        started: float,
    ) -> None:
        self._run_dir = run_dir
        self._screen = screen
        self._task_names = task_names
        self._started = started
        self._tested_on = tested_on
        self._task_started = 0.0
        self._plotted = started
        self._steps_before = 0  # of the earlier tasks, for TensorBoard's axis
        self._tag = ""  # before TensorBoard's tags, where there are several groups of seeds
        self._validation = ""  # the last one of this task, as the screen says it
        self._seeds: dict[int, dict[str, Any]] = {
            seed: {"seed": seed, "accuracy": [], **dict.fromkeys(metrics.METRICS)} for seed in seeds
        }
        self.results: dict[str, Any] = {
            "format": FORMAT,
            "status": "running",
            "error": None,
            "experiment": experiment,
            "config": dict(config),
            "num_weights": dict(num_weights),
            "compression_ratio": num_weights["hypernet"] / num_weights["main"],
            "seeds": list(self._seeds.values()),
            "tested_on": tested_on,
            "summary": {},
            "seconds": {"total": 0.0, "train": [], "test": []},
        }

    def __enter__(self) -> "Report":
        self._write_results()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        try:
            self._screen.stop_progress()
            if error is None:
                self.results["status"] = "finished"
            elif isinstance(error, KeyboardInterrupt):
                self.results["status"] = "interrupted"
            else:
                self.results["status"] = "failed"
                self.results["error"] = str(error) or type(error).__name__
            self._write_results()
            if error is None:
                self._show_summary()
        except RunFailed:
            if error is None:  # else the error that is under way says more
                raise
        finally:
            self._run_dir.close()

    def start_group(self, seeds: Sequence[int]) -> None:
        """From now on, these seeds are trained together."""
        self._steps_before = 0
        self._tag = "" if len(seeds) == len(self._seeds) else f"seeds {_ranges(seeds)}/"
        if len(seeds) < len(self._seeds):
            self._screen.say(f"seeds {_ranges(seeds)}")

    def start_task(self, task_id: int, num_steps: int, num_samples: int, remark: str) -> None:
        """Announce a task and start its clock."""
        number = f"task {task_id + 1}/{len(self._task_names)}"
        self._screen.debug(
            f"{number} ({self._task_names[task_id]}): {num_samples} training samples, "
            f"{num_steps} steps; {remark}"
        )
        self._screen.start_progress(number, num_steps)
        self._validation = ""
        self._task_started = time.monotonic()

    def step(
        self, task_id: int, step: int, members: Mapping[int, Mapping[str, float | None]]
    ) -> None:
        """A logged step: metrics.jsonl, TensorBoard, the progress on the screen.

        Args:
            step: Steps done in this task.
            members: By seed, losses and accuracies in [0, 1]; ``validation_accuracy`` is None where
                this step had no validation.
        """
        for seed, values in members.items():
            self._run_dir.write_metrics({"seed": seed, "task": task_id, "step": step, **values})
        summary = {
            name: metrics.summarize([values[name] for values in members.values()])
            for name in next(iter(members.values()))
        }
        scalars = {
            f"{self._tag}train/{name}": entry["mean"]
            for name, entry in summary.items()
            if entry["n"] > 0
        }
        self._run_dir.write_scalars(self._steps_before + step, scalars)

        validation = summary["validation_accuracy"]
        if validation["n"]:
            self._validation = f", validation {_mean_and_sem(validation, 100, 1)} %"
        losses = (f"{name} {summary[key]['mean']:.4f}" for name, key in _SHOWN_LOSSES.items())
        text = ", ".join(losses) + self._validation
        self._screen.show_progress(step, text, milestone=validation["n"] > 0)

    def end_training(self, task_id: int, num_steps: int) -> None:
        """Stop the clock of a task's training and start that of its tests."""
        self._screen.stop_progress()
        self._add_seconds("train", task_id)
        self._steps_before += num_steps

    def fail(self, seed: int, reason: str) -> None:
        """Mark a seed as failed; the others go on without it."""
        self._seeds[seed]["failed"] = reason
        self._screen.say(f"seed {seed} failed: {reason}")

    def end_task(self, task_id: int, accuracy: Mapping[int, Sequence[float]]) -> None:
        """Add a row to each seed's accuracy matrix, and write down all that follows from it.

        Args:
            accuracy: By seed, in percent, on the tasks 0 … task_id.
        """
        self._add_seconds("test", task_id)
        for seed, row in accuracy.items():
            entry = self._seeds[seed]
            entry["accuracy"].append(list(row))
            entry |= {name: metric(entry["accuracy"]) for name, metric in metrics.METRICS.items()}
        done = self._done()
        self.results["summary"] = {
            name: metrics.summarize([seed[name] for seed in done]) for name in metrics.METRICS
        }
        self._write_results()
        at_end = task_id + 1 == len(self._task_names)
        if at_end or time.monotonic() - self._plotted > _PLOT_SECONDS:
            self._write_plots()
        columns = [metrics.summarize(column) for column in zip(*accuracy.values(), strict=True)]
        mean = metrics.summarize([metrics.final_accuracy([row]) for row in accuracy.values()])
        scalars = {f"task_{k + 1}": column["mean"] for k, column in enumerate(columns)}
        scalars = {**scalars, "mean": mean["mean"]}
        tag = f"{self._tag}{self._tested_on}/"
        self._run_dir.write_scalars(task_id + 1, {tag + k: v for k, v in scalars.items()})
        self._show_row(columns, mean)

    def _done(self) -> list[dict[str, Any]]:
        """The seeds that have come furthest, without those that failed."""
        alive = [seed for seed in self._seeds.values() if "failed" not in seed]
        furthest = max((len(seed["accuracy"]) for seed in alive), default=0)
        return [seed for seed in alive if len(seed["accuracy"]) == furthest]

    def _show_row(self, columns: Sequence[dict], mean: dict) -> None:
        title = f"{self._tested_on} accuracy (%) after task {len(columns)}/{len(self._task_names)}"
        if len(self._task_names) > _MAX_COLUMNS:
            worst = min(range(len(columns)), key=lambda k: columns[k]["mean"])
            self._screen.say(
                f"{title}: {_mean_and_sem(columns[-1])}, mean of all so far {_mean_and_sem(mean)}, "
                f"worst {_mean_and_sem(columns[worst])} (task {worst + 1})"
            )
            return
        self._screen.table(
            title,
            ["task", *(str(k + 1) for k in range(len(columns))), "mean"],
            [["", *(_mean_and_sem(column) for column in columns), _mean_and_sem(mean)]],
        )

    def _show_summary(self) -> None:
        done = self._done()
        mean = metrics.mean_matrix([seed["accuracy"] for seed in done])
        of_seeds = f", mean of {len(done)} seeds" if len(done) > 1 else ""
        num_tasks = len(self._task_names)
        if num_tasks <= _MAX_COLUMNS:
            self._screen.table(
                f"accuracy matrix (%{of_seeds}): rows after learning a task, columns tested on one",
                ["after", *(str(k + 1) for k in range(num_tasks))],
                [
                    [str(t + 1), *(f"{v:.2f}" for v in row), *[""] * (num_tasks - len(row))]
                    for t, row in enumerate(mean)
                ],
            )
        else:
            self._screen.table(
                f"accuracy (%{of_seeds}) on each task",
                ["task", "when learned", "at the end", "change"],
                [
                    [name, f"{mean[k][k]:.2f}", f"{last:.2f}", f"{last - mean[k][k]:+.2f}"]
                    for k, (name, last) in enumerate(zip(self._task_names, mean[-1], strict=True))
                ],
            )
        for name, entry in self.results["summary"].items():
            shown = f"{_mean_and_sem(entry)} %" if entry["n"] else "undefined with one task"
            self._screen.say(f"{name.replace('_', ' ')}: {shown}")
        if len(done) < len(self._seeds):
            self._screen.say(f"seeds that failed: {len(self._seeds) - len(done)}")
        self._screen.say(f"everything is in {self._run_dir.path}")

    def _add_seconds(self, what: str, task_id: int) -> None:
        """Enter the time since the last call; groups of seeds add up, task by task."""
        now = time.monotonic()
        seconds = self.results["seconds"][what]
        if len(seconds) <= task_id:
            seconds.append(0.0)
        seconds[task_id] += now - self._task_started
        self._task_started = now

    def _write_results(self) -> None:
        self.results["seconds"]["total"] = time.monotonic() - self._started
        self._run_dir.write_json("results.json", self.results)

    def _write_plots(self) -> None:
        self._plotted = time.monotonic()
        done = self._done()
        seeds = _ranges([seed["seed"] for seed in done])
        plural = "s" if len(done) > 1 else ""
        title = f"{self.results['experiment']}, {self._tested_on} sets, seed{plural} {seeds}"
        for plot in (plots.accuracy_matrix, plots.accuracy_over_time):
            figure = plot([seed["accuracy"] for seed in done], self._task_names, title)
            self._run_dir.write_figure(plot.__name__, figure)


_SHOWN_LOSSES = {"task loss": "task_loss", "drift": "drift"}


def _mean_and_sem(summary: Mapping[str, float | None], scale: float = 1, digits: int = 2) -> str:
    text = f"{scale * summary['mean']:.{digits}f}"
    return text if summary["n"] == 1 else f"{text} ± {scale * summary['sem']:.{digits}f}"


def _ranges(seeds: Sequence[int]) -> str:
    """``1-4`` for neighbours, ``1, 3`` otherwise."""
    if len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1:
        return f"{seeds[0]}-{seeds[-1]}"
    return ", ".join(map(str, seeds))
