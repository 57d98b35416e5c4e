"""All methods on one network, in the settings of van de Ven and Tolias, beside what they published.

    python -m benchmarks.baselines OUT [--experiment splitmnist] [--seeds 42-61] [--methods ewc,si]
        [--scenarios 1,2,3] [--jobs 2]
    python -m benchmarks.baselines OUT --collect

A run is a process with one thread and one seed, and leaves its run directory in OUT. SplitMNIST's
order of classes is drawn anew for each seed, as they did. Methods with published numbers have the
options of their presets, the others those of fine-tuning; the hypernetwork has those of the preset
paper-*, with the same order of classes. All runs of a seed come before those of the next one. The
same command goes on where it was stopped. ``python run.py --compare OUT`` compares what is there.

benchmarks/results/baselines-<experiment>.json has what every finished run has measured: those in
OUT, and the seeds that it had before. ``--collect --rst`` prints it as the table of
docs/methods.rst.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import RESULTS, print_table, save
from hypercl import presets
from hypercl.report.metrics import summarize

ROOT = Path(__file__).parent.parent
EXPERIMENTS = ("splitmnist", "permmnist")
PUBLISHED = ("finetune", "joint", "ewc", "online_ewc", "si", "lwf")
BUFFERS = ("replay", "der", "derpp")
NETWORK_EACH = ("hnet", "separate")
METHODS = (*NETWORK_EACH, *PUBLISHED, *BUFFERS)
INFERRED = ("cl1", "cl2_entropy", "cl3_entropy")


class Cell(NamedTuple):
    """A method in a scenario."""

    experiment: str
    method: str
    scenario: int

    @property
    def name(self) -> str:
        return f"{self.experiment}-{self.method}-cl{self.scenario}"

    @property
    def preset(self) -> presets.Preset:
        """Whose options it has."""
        if self.method == "hnet":
            return presets.load(f"paper-{self.experiment}")
        method = self.method if self.method in PUBLISHED else "finetune"
        return presets.load(f"vandeven-{self.experiment}-{method}-cl{self.scenario}")

    def options(self) -> list[str]:
        """The command line, but for the seed."""
        chosen = dict(self.preset.options)
        if self.experiment == "splitmnist":
            chosen["class_order"] = "random"
        if self.method != "hnet":
            chosen["method"] = self.method
        if self.method == "separate":
            chosen.pop("keep_optimizer")
        return as_options(chosen)

    @property
    def published(self) -> Sequence[presets.Value]:
        return self.preset.published if self.method in ("hnet", *PUBLISHED) else ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--experiment", choices=EXPERIMENTS, default="splitmnist")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--scenarios", default="1,2,3")
    parser.add_argument("--seeds", default="42-61", help="first and last")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--collect", action="store_true", help="run nothing")
    parser.add_argument("--rst", action="store_true", help="print the table of docs/methods.rst")
    args = parser.parse_args()
    if not args.collect:
        chosen = list(cells(args.experiment, args.methods.split(","), args.scenarios.split(",")))
        with ThreadPoolExecutor(args.jobs) as pool:
            jobs = [
                pool.submit(run_cell, args.out, cell, seed)
                for seed in seeds_in(args.seeds)
                for cell in chosen
            ]
            for job in jobs:
                job.result()
    rows = collect(args.out, args.experiment)
    if args.rst:
        print("\n".join(as_rst(args.experiment, rows)))


def cells(experiment: str, methods: list[str], scenarios: list[str]) -> Iterator[Cell]:
    """All that differ: a method with a network for each task is one run, with the task inferred."""
    for scenario in map(int, scenarios):
        for method in methods:
            if scenario == 1 or method not in NETWORK_EACH:
                yield Cell(experiment, method, scenario)


def seeds_in(text: str) -> range:
    """``42-61`` and ``42``."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def run_cell(out: Path, cell: Cell, seed: int) -> None:
    train(out / cell.name / str(seed), cell.options(), seed, cell.name)


def train(place: Path, options: Sequence[str], seed: int, name: str) -> None:
    """A run in a process with one thread; it goes on where it was stopped, and says how it ended.

    Args:
        name: For what is said.
    """
    if finished(place) is not None:
        return
    place.mkdir(parents=True, exist_ok=True)
    own = [f"--random_seed={seed}", f"--out_dir={place.resolve()}", "--num_threads=1"]
    command = [sys.executable, "run.py", *options, *own, "--no_cuda", "--loglevel_info"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    said = done.stderr.strip().splitlines()[-1:] if done.returncode else [_accuracy(place)]
    print(f"{name} seed {seed}: exit {done.returncode}, {''.join(said)}", flush=True)


def collect(out: Path, experiment: str) -> list[dict[str, Any]]:
    """Write the file of results, print it beside what was published, and return its rows."""
    file = RESULTS / f"baselines-{experiment}.json"
    kept = json.loads(file.read_text())["rows"] if file.exists() else []
    by_cell = {(row["method"], row["scenario"]): row for row in kept}
    rows, lines = [], []
    for cell in cells(experiment, list(METHODS), ["1", "2", "3"]):
        before = by_cell.get((cell.method, cell.scenario))
        if before is not None and before["options"] != shlex.join(cell.options()):
            print(f"{cell.name}: the seeds measured before had other options, and go")
            before = None
        elif before is not None:  # what was published is what the preset says now
            before = before | {"published": [value._asdict() for value in cell.published]}
        row = with_seeds_of(before, row_of(cell, out))
        if row is None:
            continue
        rows.append(row)
        shown = INFERRED if cell.method in NETWORK_EACH else (f"cl{cell.scenario}",)
        lines += [_line(cell, name, row["accuracies"][name], row) for name in shown]
    save(f"baselines-{experiment}", {"rows": rows})
    if lines:
        print_table(lines, f"{experiment}: mean ± standard error of the mean (%)")
    return rows


def row_of(cell: Cell, out: Path) -> dict[str, Any] | None:
    """What the finished runs of a cell have measured, with a list over seeds each; None where there
    are none.
    """
    places = sorted((out / cell.name).glob("*"), key=lambda place: int(place.name))
    found = [(int(p.name), results) for p in places if (results := finished(p)) is not None]
    if not found:
        return None
    first = found[0][1]
    return {
        "method": cell.method,
        "scenario": cell.scenario,
        "options": shlex.join(cell.options()),
        "published": [value._asdict() for value in cell.published],
        "trained": first["num_weights"]["trained"],
        "kept bytes": first["kept_bytes"],
        "seeds": [seed for seed, _ in found],
        "seconds": [round(results["seconds"]["total"], 1) for _, results in found],
        "accuracies": {
            name: [round(results["summary"][name]["mean"], 4) for _, results in found]
            for name in first["summary"]
        },
    }


def with_seeds_of(
    before: dict[str, Any] | None, row: dict[str, Any] | None
) -> dict[str, Any] | None:
    """A row of :func:`row_of` with the seeds that another one has and it has not, in order; None of
    none. Numbers that one of the two does not have are left out.
    """
    if before is None or row is None:
        return row or before
    seeds = sorted({*before["seeds"], *row["seeds"]})

    def joined(was: list[float], now: list[float]) -> list[float]:
        by_seed = dict(zip(before["seeds"], was, strict=True))
        by_seed |= zip(row["seeds"], now, strict=True)
        return [by_seed[seed] for seed in seeds]

    accuracies = {
        name: joined(was, row["accuracies"][name])
        for name, was in before["accuracies"].items()
        if name in row["accuracies"]
    }
    seconds = joined(before["seconds"], row["seconds"])
    return row | {"seeds": seeds, "seconds": seconds, "accuracies": accuracies}


def as_rst(experiment: str, rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A row a method: published and measured in each scenario, and the numbers of seeds."""
    by_cell = {(row["method"], row["scenario"]): row for row in rows}
    scenarios = sorted({scenario for _, scenario in by_cell})
    heads = [f"CL{s} {what}" for s in scenarios for what in ("published", "measured")]
    yield from (".. list-table::", "   :header-rows: 1", "")
    yield from rst_row(["Method", *heads, "n"])
    for method in METHODS:
        texts, counts = [method], []
        for scenario in scenarios:
            inferred = method in NETWORK_EACH and scenario > 1
            metric = INFERRED[scenario - 1] if inferred else f"cl{scenario}"
            cell = Cell(experiment, method, 1 if method in NETWORK_EACH else scenario)
            printed = next((p for p in cell.published if p.metric == metric), None)
            texts.append("none" if printed is None else mean_and_sem(printed.value, printed.sem))
            row = by_cell.get((method, cell.scenario))
            if row is None:
                texts.append("")
                continue
            values = row["accuracies"][metric]
            measured = mean_and_sem(statistics.fmean(values), summarize(values)["sem"])
            texts.append(measured + (r"\*" if inferred else ""))
            counts.append(len(values))
        if counts:
            same = len(set(counts)) == 1
            yield from rst_row([*texts, str(counts[0]) if same else ", ".join(map(str, counts))])


def rst_row(texts: Sequence[str]) -> Iterator[str]:
    """Lines of a row of a list-table."""
    for i, text in enumerate(texts):
        yield f"   {'*' if i == 0 else ' '} - {text}".rstrip()


def mean_and_sem(mean: float, sem: float | None) -> str:
    """``98.12 ± 0.34``, the standard error of the mean; of a single run ``98.12``."""
    return f"{mean:.2f}" + ("" if sem is None else f" ± {sem:.2f}")


def _line(cell: Cell, metric: str, values: list[float], row: dict[str, Any]) -> dict[str, Any]:
    summary = summarize(values)
    mean = statistics.fmean(values)
    published = next((value for value in cell.published if value.metric == metric), None)
    line = {
        "method": cell.method,
        "metric": metric,
        "n": len(values),
        "published": "",
        "measured": mean_and_sem(mean, summary["sem"]),
        "difference": "",
        "standard errors": "",
        "s a seed": f"{statistics.median(row['seconds']):.0f}",
    }
    if published is not None:
        line["published"] = mean_and_sem(published.value, published.sem)
        line["difference"] = f"{mean - published.value:+.2f}"
        error = presets.standard_error(published, summary["std"], summary["n"])
        line["standard errors"] = f"{(mean - published.value) / error:+.1f}" if error else ""
    return line


def as_options(values: Mapping[str, Any]) -> list[str]:
    """Options of the command line; a switch is ``--name`` or ``--name=off``."""
    return [
        f"--{name}" + ("" if value is True else f"={'off' if value is False else value}")
        for name, value in values.items()
    ]


def finished(place: Path) -> dict[str, Any] | None:
    """The results of the run in a folder; None where none has finished."""
    file = place / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {"status": None}
    return results if results["status"] == "finished" else None


def _accuracy(place: Path) -> str:
    results = finished(place)
    if results is None:
        return "not finished"
    seconds = results["seconds"]["total"]
    return f"{results['summary']['final_accuracy']['mean']:.2f} % in {seconds:.0f} s"


if __name__ == "__main__":
    main()
