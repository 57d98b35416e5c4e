"""Which plots a run has, from results.json and metrics.jsonl, and of regression from what is kept
with the checkpoint: with or without breaks the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hypercl.inference import RULES, confusion_of
from hypercl.measure import measure_of
from hypercl.report import plots
from hypercl.report.summary import furthest, ranges
from hypercl.rundir.directory import RunDir

_FORMATS = {"png": ("png",), "pdf": ("pdf",), "both": ("png", "pdf")}  # by --plot_format


def draw_all(
    run_dir: RunDir,
    results: Mapping[str, Any],
    plot_format: str,
    fits: Sequence[plots.Fit] = (),
) -> None:
    """Write the plots of the seeds that have come furthest.

    Args:
        plot_format: As ``--plot_format`` has it.
        fits: Of tasks of regression that can be drawn, by the same seeds.

    Raises:
        RunFailed: A file cannot be written.
    """
    done, names = furthest(results["seeds"]), results["tasks"]
    seeds = [seed["seed"] for seed in done]
    plural = "s" if len(done) > 1 else ""
    title = f"{results['experiment']}, {results['tested_on']} sets, seed{plural} {ranges(seeds)}"

    def write(name: str, figure: plots.Figure) -> None:
        run_dir.write_figure(name, figure, _FORMATS[plot_format])

    with plots.own_defaults():
        measure = measure_of(results)
        matrices = [seed[measure.name] for seed in done]
        write(f"{measure.name}_matrix", plots.accuracy_matrix(matrices, names, title, measure))
        over_time = plots.accuracy_over_time(matrices, names, title, measure)
        write(f"{measure.name}_over_time", over_time)
        if fits:
            write("fit", plots.fit(fits, title))
        if "scenarios" in done[0]:
            inferred = [seed["scenarios"] for seed in done]
            by_rule = {
                rule: [of_seed[name] for of_seed in inferred]
                for rule in RULES
                if all((name := confusion_of(rule)) in of_seed for of_seed in inferred)
            }
            tested = names[: len(by_rule["entropy"][0])]
            write("task_confusion", plots.task_confusion(by_rule, tested, title))
        history = plots.LossHistory.of(run_dir.read_metrics(), seeds)
        of_training = f"{results['experiment']}, seed{plural} {ranges(seeds)}"
        write("losses", plots.losses(history, of_training))
