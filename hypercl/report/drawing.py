"""Which plots a run has, from results.json and metrics.jsonl, and from what the networks learned
make at the time: fits of regression, generated images. With or without breaks they are the same.

drawer.py has them drawn in another process. Neither imports torch, and this one imports matplotlib
only when something is drawn.
"""

import io
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hypercl.inference import RULES, confusion_of
from hypercl.measure import measure_of
from hypercl.report.summary import furthest, ranges

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

FORMATS = {"png": ("png",), "pdf": ("pdf",), "both": ("png", "pdf")}  # by --plot_format
_METADATA: Mapping[str, dict[str, None]] = {"png": {}, "pdf": {"CreationDate": None}}
_DPI = 150


class Fit(NamedTuple):
    """A task of regression with one input and one output, and what networks make of it."""

    name: str
    inputs: Sequence[float]  # [points], in their order
    outputs: Sequence[Sequence[float]]  # [seeds, points]
    train: Sequence[Sequence[float]]  # inputs and targets
    test: Sequence[Sequence[float]]  # the same


class Generated(NamedTuple):
    """Images that a seed's generator makes."""

    seed: int
    images: "np.ndarray"  # [tasks, N, H, W, C] uint8; of all tasks together [1, N, H, W, C]


class Drawing(NamedTuple):
    """What the plots of a run are to show."""

    results: Mapping[str, Any]  # as results.json has them
    metrics: Path  # metrics.jsonl, which may grow meanwhile
    metrics_length: int  # bytes of it that count
    formats: Sequence[str]
    fits: Sequence[Fit]  # of tasks of regression that can be drawn, by the seeds furthest on
    generated: Generated | None = None  # with methods that generate images


class Plot(NamedTuple):
    """A plot that has been drawn."""

    name: str
    files: Mapping[str, bytes]  # by format


class Drawn(NamedTuple):
    """What has become of a drawing."""

    plots: Sequence[Plot]
    error: str | None  # in one line, why there are no more; None where all are there
    warnings: Sequence[str]  # matplotlib's
    seconds: float


def draw(drawing: Drawing) -> Drawn:
    """Draw the plots of the seeds that have come furthest; writes no file."""
    started = time.monotonic()
    made, problem = [], None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        try:
            from hypercl.report.plots import own_defaults

            with own_defaults():
                for name, make in _figures(drawing):
                    made.append(Plot(name, files_of(make(), drawing.formats)))
        except Exception as error:
            problem = (str(error).strip().splitlines() or [type(error).__name__])[0]
    seconds = time.monotonic() - started
    return Drawn(made, problem, [str(warning.message) for warning in said], seconds)


def _figures(drawing: Drawing) -> Iterator[tuple[str, Callable[[], "Figure"]]]:
    """By name, what makes each figure."""
    from hypercl.report import plots

    results = drawing.results
    done, names, measure = furthest(results["seeds"]), results["tasks"], measure_of(results)
    seeds = [seed["seed"] for seed in done]
    plural = "s" if len(done) > 1 else ""
    title = f"{results['experiment']}, {results['tested_on']} sets, seed{plural} {ranges(seeds)}"
    of_training = f"{results['experiment']}, seed{plural} {ranges(seeds)}"
    matrices = [seed[measure.name] for seed in done]

    def losses() -> "Figure":
        # What ends in _accuracy is no loss.
        others = [n for n in results.get("other_losses", ()) if not n.endswith("_accuracy")]
        return plots.losses(plots.LossHistory.of(_rows(drawing), seeds, others), of_training)

    matrix, over_time = f"{measure.name}_matrix", f"{measure.name}_over_time"
    yield matrix, lambda: plots.accuracy_matrix(matrices, names, title, measure)
    yield over_time, lambda: plots.accuracy_over_time(matrices, names, title, measure)
    if drawing.fits:
        yield "fit", lambda: plots.fit(drawing.fits, title)
    if (generated := drawing.generated) is not None:
        of_seed = f"{results['experiment']}, generated, seed {generated.seed}"
        yield "replay", lambda: plots.replay(generated.images, names, of_seed)
    if "scenarios" in done[0]:
        inferred = [seed["scenarios"] for seed in done]
        by_rule = {
            rule: [of_seed[name] for of_seed in inferred]
            for rule in RULES
            if all((name := confusion_of(rule)) in of_seed for of_seed in inferred)
        }
        tested = names[: len(by_rule["entropy"][0])]
        yield "task_confusion", lambda: plots.task_confusion(by_rule, tested, title)
    yield "losses", losses


def _rows(drawing: Drawing) -> Iterator[dict[str, Any]]:
    """The lines of metrics.jsonl, those written before a break too."""
    with drawing.metrics.open("rb") as file:
        yield from map(json.loads, file.read(drawing.metrics_length).splitlines())


def files_of(figure: "Figure", formats: Sequence[str]) -> dict[str, bytes]:
    """A figure as files, by format: ``png`` or ``pdf``, the same bytes each time."""
    files = {}
    for kind in formats:
        file = io.BytesIO()
        figure.savefig(file, format=kind, dpi=_DPI, metadata=_METADATA[kind])
        files[kind] = file.getvalue()
    return files
