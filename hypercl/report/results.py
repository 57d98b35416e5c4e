"""What a run tells of itself while it goes: the screen, the run directory, results.json."""

import shlex
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from traceback import format_exception
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from hypercl import presets
from hypercl.engine.threads import processor
from hypercl.errors import RunFailed
from hypercl.evaluation import Inference, as_json, curve_inputs
from hypercl.experiment import Experiment
from hypercl.inference import RULES, names_by
from hypercl.measure import ACCURACY, Measure
from hypercl.methods.base import LearnsMore
from hypercl.options import bearing_on_results
from hypercl.report import drawer, metrics
from hypercl.report.drawing import FORMATS, Drawing, Drawn, Fit, Generated
from hypercl.report.overview import overview
from hypercl.report.screen import Screen
from hypercl.report.summary import (
    furthest,
    ranges,
    show_row,
    show_scenarios,
    show_summary,
)
from hypercl.rundir.checkpoint import Position
from hypercl.rundir.directory import RunDir
from hypercl.rundir.stored import seal
from hypercl.tasks.task import describe

FORMAT = 2  # of results.json
_MILESTONE = 500  # steps from one line of progress to the next, where nothing is validated
PLOT_SECONDS = 30  # at least, from one drawing of the plots to the next; one takes a second
_PLOT_SHARE = 50  # and so many times as long as the last drawing took: long runs have more to draw


class MemberProgress(NamedTuple):
    """What is known of a member after a logged step; accuracies are in [0, 1], and of regression
    mean squared errors.
    """

    task_loss: float
    penalty: float
    loss: float
    train_accuracy: float  # of this step's batch
    validation_accuracy: float | None  # None at steps without validation
    learning_rate: float
    others: Mapping[str, float]  # of what else the method learns; see methods.base.LearnsMore


class Report:
    """Collects the results of a run; a context that ends with the right status in results.json.

    Args:
        config: The options that concern the run, as results.json repeats them.
        altered: Which options differ from those of the run's preset.
        started: ``time.monotonic()`` when the program began.
        state: From :meth:`state` at the checkpoint from which the run goes on.
        silent: Nothing appears on the screen; the log has all.
    """

    def __init__(
        self,
        run_dir: RunDir,
        experiment: Experiment,
        config: Mapping[str, Any],
        altered: Sequence[str],
        started: float,
        state: Mapping[str, Any] | None = None,
        *,
        silent: bool = False,
    ) -> None:
        options = experiment.options
        self._run_dir, self._experiment = run_dir, experiment
        self._measure = measure = experiment.measure
        self._metrics = metrics.metrics_of(measure)
        self._fits: dict[int, list[list[float]]] = {}  # by seed, by task; see evaluation.curves
        self._generated: dict[int, list] = {}  # by the one seed; see evaluation.generated_images
        self._screen = Screen(
            run_dir.write_log, show_debug=not options.run.loglevel_info, silent=silent
        )
        self._task_names = [task.name for task in experiment.tasks]
        self._tested_on = "validation" if options.evaluation.test_with_val_set else "test"
        self._altered = list(altered)
        known = options.run.preset in presets.names()  # a stored run's may be gone since
        self._preset = options.run.preset if known else None
        self._task_started = time.monotonic()
        self._next_plots = started + PLOT_SECONDS
        self._drawings: list[Future[Drawn]] = []  # under way, the oldest first; two at most
        self._undrawn = False  # whether there are results that no drawing shows
        self._pauses = False
        self._steps_before = 0  # of the earlier tasks, for TensorBoard's axis
        self._tag = ""  # before TensorBoard's tags, where there are several groups of seeds
        self._validation = ""  # the last one of this task, as the screen says it
        main, method = experiment.net.num_weights, experiment.method
        self.results: dict[str, Any] = {
            "format": FORMAT,
            "status": "running",
            "error": None,
            "experiment": options.task.cl_exp,
            "config": dict(config),
            "method": options.method.method,
            "scenario": options.scenario,
            **({} if measure == ACCURACY else {"measure": measure.key}),
            "tasks": self._task_names,
            "num_weights": {"main": main, "trained": method.num_trained},
            "compression_ratio": method.compression_ratio,
            **(
                {"other_losses": list(method.other_losses)}
                if isinstance(method, LearnsMore)
                else {}
            ),
            "kept_bytes": 0,
            "seeds": [
                {
                    "seed": seed,
                    measure.name: [],
                    **dict.fromkeys((*self._metrics, *metrics.BY_SCENARIO)),
                }
                | self._not_yet_learned(num_learned=0)
                for seed in experiment.seeds
            ],
            "tested_on": self._tested_on,
            "summary": {},
            "seconds": {"total": 0.0, "train": [], "test": []},
        }
        self._restored_seconds = 0.0  # of the task in which the run goes on
        if state is not None:
            self.results |= state["results"]
            self._restored_seconds = state["task_seconds"]
            self._fits, self._generated = (
                {int(seed): drawn for seed, drawn in state.get(name, {}).items()}  # JSON's are text
                for name in ("fits", "generated")
            )
            # The last drawing may have been under way when the run was stopped.
            self._undrawn = any(seed.get(measure.name) for seed in self.results["seeds"])
        for seed in self.results["seeds"]:  # an earlier version's may lack it
            seed |= self._not_yet_learned(len(seed[measure.name])) | seed
        self._seeds = {seed["seed"]: seed for seed in self.results["seeds"]}
        self._started = started - self.results["seconds"]["total"]

    def __enter__(self) -> "Report":
        self._write_results()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._screen.stop_progress()
        try:
            self._end_plots(complete=error is None and not self._pauses, wait=error is None)
        except BaseException as problem:  # a plot cannot be written, or a second signal has come
            self._end(error or problem)
            if error is None:
                raise
        else:
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        """Write and say how the run has ended."""
        try:
            if error is None and self._pauses:
                self.results["status"] = "paused"
            elif error is None:
                self.results["status"] = "finished"
                self._compare()
                self._write_settings()
            elif isinstance(error, KeyboardInterrupt):
                self.results["status"] = "interrupted"
            else:
                self.results["status"] = "failed"
                self.results["error"] = str(error) or type(error).__name__
            self._count_total()
            # Before the status: a finished run has all its files, whenever it is killed.
            self._run_dir.write_overview(overview(self.results))
            self._write_results()
            if error is not None and error.__cause__ is not None:  # where in the user's code it was
                self._screen.log("".join(format_exception(error.__cause__)))
            resume = f"python run.py --resume --out_dir={shlex.quote(str(self._run_dir.path))}"
            if error is None and self._pauses:
                learned = max(len(seed[self._measure.name]) for seed in self.results["seeds"])
                of = f"task{'s' if learned != 1 else ''}"
                self._screen.say_command(f"paused after {learned} {of}, continue with", resume)
            elif error is None:
                show_summary(self._screen, self.results, self._run_dir.path)
            elif isinstance(error, KeyboardInterrupt):
                self._screen.say_command("continue with", resume)
        except RunFailed:
            if error is None:  # else the error that is under way says more
                raise

    def announce(self, position: Position, *, goes_on: bool) -> None:
        """Say what is about to be learned, and where a run goes on."""
        options, tasks = self._experiment.options, self._experiment.tasks
        say = self._screen.say
        if goes_on:
            say(f"continues {self._run_dir.path} at {position.describe(len(tasks))}")
        elif (source := self.results.get("continued_from")) is not None:
            say(f"goes on from {source['run']}, which has learned {source['num_tasks']} tasks")
        say(
            f"{options.task.cl_exp}: {describe(tasks)} on "
            f"{processor(self._experiment.device)}; {options.main_net.net_type} with "
            f"{self._experiment.method.describe_size()}"
        )
        num_seeds, num_groups = len(self._seeds), len(position.groups)
        if num_seeds > 1:
            ways = {1: "together", num_seeds: "one by one"}
            way = ways.get(num_groups, f"in {num_groups} groups, each together")
            say(f"{num_seeds} seeds, trained {way}")
        if self._preset is not None:
            say(presets.load(self._preset).describe())

    def state(self) -> dict[str, Any]:
        """What a report needs that goes on from here, as JSON has it."""
        self._count_total()
        fits: dict[str, Any] = {"fits": dict(self._fits)} if self._fits else {}
        if self._generated:
            fits["generated"] = dict(self._generated)
        return {
            "results": {name: self.results[name] for name in _KEPT if name in self.results},
            "task_seconds": time.monotonic() - self._task_started,
            **fits,
        }

    def pause(self) -> None:
        """The run has been saved before its end, and is left there."""
        self._pauses = True

    def start_group(self, seeds: Sequence[int]) -> None:
        """From now on, these seeds are trained together."""
        self._tag = "" if len(seeds) == len(self._seeds) else f"seeds {ranges(seeds)}/"
        if len(seeds) < len(self._seeds):
            self._screen.say(f"seed{'s' if len(seeds) > 1 else ''} {ranges(seeds)}")

    def _not_yet_learned(self, num_learned: int) -> dict[str, list[float | None]]:
        """What is known of tasks that are yet to be learned, where nothing was tested."""
        return {
            self._untrained: [None] * len(self._task_names),
            self._before: [None] * min(num_learned + 1, len(self._task_names)),
        }

    @property
    def _untrained(self) -> str:
        return f"{self._measure.name}_untrained"

    @property
    def _before(self) -> str:
        return f"{self._measure.name}_before"

    def lacks_untrained(self, seeds: Sequence[int], task_ids: Sequence[int]) -> bool:
        """Whether a task has yet to be tested without any training."""
        entries = [self._seeds[seed][self._untrained] for seed in seeds]
        return any(of_seed[k] is None for of_seed in entries for k in task_ids)

    def untrained(
        self, task_id: int, task_ids: Sequence[int], measured: Mapping[int, Sequence[float]]
    ) -> None:
        """Enter the accuracies, or errors, without any training.

        Args:
            task_id: To be learned next.
            measured: By seed, accuracies in percent, on the tasks ``task_ids``.
        """
        self._add_seconds("test", task_id)
        for seed, row in measured.items():
            for k, value in zip(task_ids, row, strict=True):
                self._seeds[seed][self._untrained][k] = value

    def lacks_before(self, seeds: Sequence[int], task_id: int) -> bool:
        """Whether a task behind the first has yet to be tested right before it is learned."""
        entries = [self._seeds[seed][self._before] for seed in seeds]
        return task_id > 0 and any(of_seed[task_id:] in ([], [None]) for of_seed in entries)

    def before(self, task_id: int, measured: Mapping[int, Sequence[float]]) -> None:
        """Enter the accuracies on a task right before it is learned, by seed, in percent, or the
        errors.
        """
        self._add_seconds("test", task_id)
        for seed, row in measured.items():
            self._seeds[seed][self._before][task_id:] = row

    def start_task(
        self, task_id: int, num_steps: int, num_samples: int, remark: str, steps_done: int = 0
    ) -> None:
        """Announce a task, of which ``steps_done`` may have been taken earlier; start its clock."""
        number = f"task {task_id + 1}/{len(self._task_names)}"
        self._screen.debug(
            f"{number} ({self._task_names[task_id]}): {num_samples} training samples, "
            f"{num_steps} steps; {remark}"
        )
        self._screen.start_progress(number, num_steps, steps_done)
        self._validation = ""
        lengths = map(self._experiment.length, self._experiment.tasks[:task_id])
        self._steps_before = sum(length.num_steps for length in lengths)
        self._task_started = time.monotonic() - self._restored_seconds
        self._restored_seconds = 0.0

    def step(self, task_id: int, step: int, members: Mapping[int, MemberProgress]) -> None:
        """A logged step: metrics.jsonl, TensorBoard, the progress on the screen.

        Args:
            step: Steps done in this task.
            members: By seed, of those that have not failed.
        """
        self._take_plots()
        if not members:
            return
        for seed, values in members.items():
            row = {"seed": seed, "task": task_id, "step": step, **_named(values, self._measure)}
            self._run_dir.write_metrics(row)
        curves = {seed: _as_written(values, self._measure) for seed, values in members.items()}
        means = self._write_curves(self._steps_before + step, "train/", curves)
        validation = means.get(f"validation_{self._measure.name}")
        if validation is not None:
            shown_value = (
                f"{validation:.1f} %"
                if self._measure == ACCURACY
                else (f"error {self._measure.text(validation)}")
            )
            self._validation = f", validation {shown_value}"
        shown = (f"{name} {means[key]:.4f}" for name, key in _SHOWN_LOSSES.items())
        text = ", ".join(shown) + self._validation
        unvalidated = not self._experiment.options.task.val_set_size and step % _MILESTONE == 0
        milestone = validation is not None or unvalidated
        self._screen.show_progress(step, text, milestone=milestone)

    def _write_curves(
        self, step: int, prefix: str, by_seed: Mapping[int, Mapping[str, float | None]]
    ) -> dict[str, float]:
        """Points of TensorBoard's curves: the means over seeds and, of several, each seed's.

        Args:
            by_seed: Numbers by name, the same names for all; None where there is no point.

        Returns:
            The means.
        """
        means, scalars = {}, {}
        for name in next(iter(by_seed.values())):
            values = {seed: numbers[name] for seed, numbers in by_seed.items()}
            mean = metrics.mean_of_whole(list(values.values()))
            if mean is None:
                continue
            means[name] = scalars[f"{self._tag}{prefix}{name}"] = mean
            if len(self._seeds) > 1:
                for seed, value in values.items():
                    assert value is not None  # or the mean were none
                    scalars[f"seed {seed}/{prefix}{name}"] = value
        self._run_dir.write_scalars(step, scalars)
        return means

    def end_training(self, task_id: int, failed: Mapping[int, str]) -> None:
        """Stop the clock of a task's training and start that of its tests.

        Args:
            failed: By seed, why it goes no further; the others do.
        """
        self._screen.stop_progress()
        self._add_seconds("train", task_id)
        for seed, reason in failed.items():
            self._seeds[seed]["failed"] = reason
            self._screen.say(f"seed {seed} failed: {reason}")

    def draw_generated(
        self, seeds: Sequence[int], images_of: Callable[[int], Tensor | None]
    ) -> None:
        """Have the next plots show the images that the first of some seeds generates.

        Args:
            images_of: From its position among the seeds; see :func:`evaluation.generated_images`.
        """
        if (images := images_of(0)) is not None:
            self._generated = {seeds[0]: images.tolist()}

    def draw_fits(self, fits: Mapping[int, list[list[float]]]) -> None:
        """What the next plots are to show of tasks that can be drawn: by seed, their
        :func:`~hypercl.evaluation.curves`.
        """
        self._fits |= fits

    def end_task(
        self,
        task_id: int,
        measured: Mapping[int, Sequence[float | None]],
        inferred: Mapping[int, Inference] | None = None,
        kept_bytes: int = 0,
    ) -> None:
        """Add a row to each seed's matrix of accuracies or errors, and write down all that follows
        from it.

        Args:
            measured: By seed, accuracies in percent, on the tasks 0 … task_id; None where not
                tested.
            inferred: By seed, where the task of each sample was inferred.
            kept_bytes: What a seed has to keep of the tasks learned so that the next can be.
        """
        direct = metrics.BY_SCENARIO[(self.results["scenario"] or 1) - 1]
        self.results["kept_bytes"] = kept_bytes
        self._add_seconds("test", task_id)
        for seed, row in measured.items():
            entry = self._seeds[seed]
            entry[self._measure.name].append(list(row))
            entry |= {name: metric(entry) for name, metric in self._metrics.items()}
            entry[direct] = entry[f"final_{self._measure.name}"]
            entry.pop("scenarios", None)  # of fewer tasks
            if inferred is not None:
                entry["scenarios"] = as_json(inferred[seed])
        done = furthest(self.results["seeds"])
        self.results["summary"] = {
            name: metrics.summarize([seed[name] for seed in done])
            for name in (*self._metrics, direct)
        }
        if all("scenarios" in seed for seed in done):
            self.results["summary"] |= summary_of_inferred([seed["scenarios"] for seed in done])
        at_end = task_id + 1 == len(self._task_names)
        self._write_results()
        self._undrawn = True
        self._take_plots()
        if at_end or (not self._drawings and time.monotonic() > self._next_plots):
            self._write_plots()
        rows = list(measured.values())
        curves: dict[int, dict[str, float | None]] = {
            seed: {
                **{f"task_{k + 1}": value for k, value in enumerate(row)},
                "mean": metrics.mean_of_whole(row),
            }
            for seed, row in measured.items()
        }
        scenarios = {seed: self._seeds[seed]["scenarios"] for seed in inferred or ()}
        for seed, of_seed in scenarios.items():
            names = _inferred_in(list(scenarios.values()))
            curves[seed] |= {name: of_seed[name]["mean"] for name in names}
        self._write_curves(task_id + 1, f"{self._tested_on}/", curves)
        show_row(self._screen, self._tested_on, rows, len(self._task_names), self._measure)
        if inferred is not None and not at_end:  # the summary shows the last ones
            numbers = summary_of_inferred(list(map(as_json, inferred.values())))
            show_scenarios(self._screen, numbers)

    def _compare(self) -> None:
        """Enter what was published beside what was measured, on test sets."""
        if self._preset is not None and self._tested_on == "test":
            preset = presets.load(self._preset)
            self.results["published"] = presets.compare(preset, self.results["summary"])
            self.results["altered"] = self._altered

    def _write_settings(self) -> None:
        """Enter in TensorBoard what compares finished runs: options and final metrics."""
        final = {
            f"final/{name}": entry["mean"]
            for name, entry in self.results["summary"].items()
            if entry["mean"] is not None
        }
        self._run_dir.write_scalars(len(self._task_names), final)
        options = self._experiment.options
        self._run_dir.write_settings(
            bearing_on_results(options.recorded), bearing_on_results(options.values), final
        )

    def _add_seconds(self, what: str, task_id: int) -> None:
        """Enter the time since the last call; groups of seeds add up, task by task."""
        now = time.monotonic()
        seconds = self.results["seconds"][what]
        if len(seconds) <= task_id:
            seconds.append(0.0)
        seconds[task_id] += now - self._task_started
        self._task_started = now

    def _write_results(self) -> None:
        self._count_total()
        self.results = seal(self.results)
        self._run_dir.write_json("results.json", self.results)

    def _count_total(self) -> None:
        self.results["seconds"]["total"] = time.monotonic() - self._started

    def _drawn_fits(self) -> list[Fit]:
        """Of the tasks learned so far, by the seeds that have come furthest; none where they cannot
        be drawn.
        """
        done = [entry["seed"] for entry in furthest(self.results["seeds"])]
        if not done or any(seed not in self._fits for seed in done):
            return []
        fits = []
        for task_id, task in enumerate(self._experiment.tasks[: len(self._fits[done[0]])]):
            inputs = curve_inputs(task)[:, 0].tolist()
            outputs = [self._fits[seed][task_id] for seed in done]
            samples = [[v[:, 0].tolist() for v in split] for split in (task.train, task.test)]
            fits.append(Fit(task.name, inputs, outputs, *samples))
        return fits

    def _drawn_images(self) -> Generated | None:
        """Those generated by a seed that has come furthest, where there are any."""
        done = {entry["seed"] for entry in furthest(self.results["seeds"])}
        for seed, images in self._generated.items():
            if seed in done:
                return Generated(seed, np.array(images, dtype=np.uint8))
        return None

    def _write_plots(self) -> None:
        """Have the plots drawn, and written when they are there."""
        for drawing in self._drawings:
            drawing.cancel()  # what is not begun yet would be older
        self._drawings = [drawing for drawing in self._drawings if not drawing.cancelled()]
        path, length = self._run_dir.metrics_so_far()
        formats = FORMATS[self._experiment.options.run.plot_format]
        fits, generated = self._drawn_fits(), self._drawn_images()
        newest = Drawing(self.results, path, length, formats, fits, generated)
        self._drawings.append(drawer.submit(newest))
        self._undrawn = False

    def _take_plots(self, *, wait: bool = False) -> None:
        """Write the plots that have been drawn; what cannot be drawn costs a warning, never a
        training.

        Args:
            wait: For those that are being drawn.
        """
        while self._drawings and (wait or self._drawings[0].done()):
            drawn = self._drawings[0].result()
            del self._drawings[0]
            for plot in drawn.plots:
                self._run_dir.write_plot(plot.name, plot.files)
            for text in drawn.warnings:
                warnings.warn(text, stacklevel=2)
            if drawn.error is not None:
                warnings.warn(f"the plots could not be drawn ({drawn.error})", stacklevel=2)
            pause = max(PLOT_SECONDS, _PLOT_SHARE * drawn.seconds)
            self._next_plots = time.monotonic() + pause

    def _end_plots(self, *, complete: bool, wait: bool) -> None:
        """Write the last plots.

        Args:
            complete: They are to show all results.
            wait: False: what is being drawn is given up, as a signal or an error ends the run.
        """
        try:
            if complete and self._undrawn:
                self._write_plots()
            self._take_plots(wait=wait)
        finally:  # also where a second signal ends the waiting
            for drawing in self._drawings:
                drawing.cancel()  # what is begun ends by itself, for nobody
            self._drawings = []


def _named(values: MemberProgress, measure: Measure) -> dict[str, float | None]:
    """By name, as metrics.jsonl has them."""
    named = values._asdict()
    others = named.pop("others")
    return {name.replace("accuracy", measure.name): value for name, value in named.items()} | others


def summary_of_inferred(scenarios: Sequence[Mapping[str, Any]]) -> dict[str, metrics.Summary]:
    """Of each number its mean over tasks, summarized over the seeds whose scenarios are given."""
    return {
        name: metrics.summarize([of_seed[name]["mean"] for of_seed in scenarios])
        for name in _inferred_in(scenarios)
    }


def _inferred_in(scenarios: Sequence[Mapping[str, Any]]) -> list[str]:
    """The numbers that all seeds have; what an earlier version left has fewer."""
    names = ("cl1", *names_by(RULES))
    return [name for name in names if all(name in of_seed for of_seed in scenarios)]


# Of the results, in a checkpoint.
_KEPT = ("kept_bytes", "seeds", "summary", "seconds", "continued_from")
_SHOWN_LOSSES = {"task loss": "task_loss", "penalty": "penalty"}


def _as_written(values: MemberProgress, measure: Measure) -> dict[str, float | None]:
    """By name, as TensorBoard has them: accuracies in percent there, as after the tasks."""
    return {
        name: measure.factor * value
        if value is not None and name.endswith(f"_{measure.name}")
        else value
        for name, value in _named(values, measure).items()
    }
