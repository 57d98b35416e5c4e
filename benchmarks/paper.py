"""Table 1 of the paper, cell by cell: what was published, and what is measured here.

    python -m benchmarks.paper [OUT]
    python -m benchmarks.paper OUT --run [--presets paper-splitmnist,...] [--seeds 42-46] [--jobs 1]

A cell is a number of a preset. Its seeds are those of benchmarks/results: of the preset's own
results.json, of baselines-<experiment>.json and of paper.json; and those of the finished runs
anywhere in OUT that have the preset's settings. Where a seed is there twice, OUT's counts.

``--run`` trains what is missing in OUT/<preset>-<seed>, a process with one thread for each; all
presets of a seed come before those of the next one. The same command goes on where it was stopped.
``--save`` keeps the numbers of OUT in paper.json, beside those that are there. ``--rst`` prints the
table of docs/published.rst.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.baselines import (
    EXPERIMENTS,
    as_options,
    finished,
    mean_and_sem,
    rst_row,
    seeds_in,
    train,
)
from benchmarks.common import RESULTS, print_table, save
from hypercl import presets
from hypercl.errors import InputError
from hypercl.report.metrics import summarize
from train_args import altered_options, parse_args

EACH = ("cl1", "cl2", "cl3")
# By method, for CL1, CL2 and CL3: the preset, with {} for the experiment, and its number in
# results.json's summary.
METHODS = {
    "HNET+ENT": [
        ("paper-{}", "cl1"),
        ("paper-{}-cl2", "cl2_entropy"),
        ("paper-{}", "cl3_entropy"),
    ],
    "HNET+TIR": [
        ("paper-{}-tir-cl3", "cl1"),
        ("paper-{}-tir-cl2", "cl2_tir"),
        ("paper-{}-tir-cl3", "cl3_tir"),
    ],
    "HNET+R": [(f"paper-{{}}-r-{name}", name) for name in EACH],
    "DGR+distill": [(f"vandeven-{{}}-dgr-{name}", name) for name in EACH],
    "EWC": [(f"vandeven-{{}}-ewc-{name}", name) for name in EACH],
    "online EWC": [(f"vandeven-{{}}-online_ewc-{name}", name) for name in EACH],
    "SI": [(f"vandeven-{{}}-si-{name}", name) for name in EACH],
}
TITLE = (
    "published; measured (n seeds); off by so many standard errors of the difference, within two "
    "or outside"
)

Measured = Mapping[str, Mapping[str, Mapping[int, float]]]  # [preset][metric][seed]


class Cell(NamedTuple):
    """A number of table 1."""

    preset: str
    metric: str

    def compared(self, measured: Measured) -> dict[str, Any] | None:
        """What was published beside what was measured (:func:`presets.compare`)."""
        seeds = measured.get(self.preset, {}).get(self.metric)
        if not seeds:
            return None
        summary = {self.metric: summarize(list(seeds.values()))}
        (row,) = presets.compare(presets.load(self.preset), summary)
        return row

    @property
    def published(self) -> presets.Value:
        """As the preset has it."""
        values = presets.load(self.preset).published
        return next(value for value in values if value.metric == self.metric)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?", help="folder of runs with presets")
    parser.add_argument("--run", action="store_true", help="train what is missing")
    parser.add_argument("--presets", help="with --run: these alone, with commas between them")
    parser.add_argument("--seeds", default="42-46", help="with --run: first-last (42-46)")
    parser.add_argument("--jobs", type=int, default=1, help="with --run: runs at once")
    parser.add_argument("--save", action="store_true", help="keep the numbers of OUT")
    parser.add_argument("--rst", action="store_true", help="print the table of docs/published.rst")
    args = parser.parse_args(argv)
    if args.out is None and (args.run or args.save):
        parser.error("--run and --save need OUT")
    every = list(metrics_by_preset())
    chosen = every if args.presets is None else args.presets.split(",")
    if unknown := [name for name in chosen if name not in every]:
        parser.error(f"--presets: {', '.join(unknown)} not in the table, which has {every}")
    if args.run:
        known = merged(committed(), runs_in(args.out))
        with ThreadPoolExecutor(args.jobs) as pool:
            jobs = [
                pool.submit(_train, args.out, name, seed)
                for name, seed in missing(known, chosen, seeds_in(args.seeds))
            ]
            for job in jobs:
                job.result()
    found = {} if args.out is None else runs_in(args.out)
    if args.save:
        save("paper", {"presets": merged(kept(), found)})
    measured = merged(committed(), found)
    if args.rst:
        print("\n".join(as_rst(measured)))
    else:
        show(measured)


def table() -> Iterator[tuple[str, list[Cell]]]:
    """The rows: name, and one cell a method."""
    for experiment in EXPERIMENTS:
        for scenario in range(3):
            cells = [
                Cell(name.format(experiment), metric)
                for name, metric in (of_method[scenario] for of_method in METHODS.values())
            ]
            yield f"{presets.load(cells[0].preset).experiment}, CL{scenario + 1}", cells


def missing(
    known: Measured, names: Sequence[str], seeds: Sequence[int]
) -> Iterator[tuple[str, int]]:
    """Presets and seeds of which a number of the table is not known."""
    metrics = metrics_by_preset()
    for seed in seeds:
        for name in names:
            if any(seed not in known.get(name, {}).get(metric, {}) for metric in metrics[name]):
                yield name, seed


def _train(out: Path, name: str, seed: int) -> None:
    place = out / f"{name}-{seed}"
    train(place, as_options({"preset": name}), seed, name)


def runs_in(out: Path) -> Measured:
    """The numbers of all finished runs below a folder that have a preset's settings."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for path in sorted(out.rglob("results.json")):
        results = finished(path.parent)
        if results is None or not results.get("published"):  # no preset's, or not of the test sets
            continue
        if altered := differences(results):
            print(f"{path.parent} is left out, its settings are others: {altered}")
        else:
            found = merged(numbers_of(results), found)  # where a seed is twice, the first counts
    return found


def differences(results: Mapping[str, Any]) -> str:
    """From the settings of its preset as they are now, which may not be those of then."""
    try:
        return ", ".join(altered_options(parse_args([], results["config"])))
    except InputError as error:
        return str(error)


def numbers_of(results: Mapping[str, Any]) -> dict[str, dict[str, dict[int, float]]]:
    """Of a results.json, by preset, metric and seed, the numbers that the table has."""
    name = results["config"]["preset"]
    numbers: dict[str, dict[int, float]] = {}
    for metric in metrics_by_preset().get(name, ()):
        for entry in results["seeds"]:
            value = entry.get(metric, entry.get("scenarios", {}).get(metric, {}).get("mean"))
            if value is not None:
                numbers.setdefault(metric, {})[entry["seed"]] = round(value, 4)
    return {name: numbers} if numbers else {}


def metrics_by_preset() -> dict[str, list[str]]:
    """The numbers of the table."""
    metrics: dict[str, list[str]] = {}
    for _, cells in table():
        for cell in cells:
            metrics.setdefault(cell.preset, []).append(cell.metric)
    return metrics


def committed() -> Measured:
    """What is kept with the benchmarks."""
    of_baselines: dict[str, dict[str, dict[int, float]]] = {}
    for experiment in EXPERIMENTS:
        content = json.loads((RESULTS / f"baselines-{experiment}.json").read_text())
        for row in content["rows"]:
            name = f"vandeven-{experiment}-{row['method']}-cl{row['scenario']}"
            metric = f"cl{row['scenario']}"
            by_seed = dict(zip(row["seeds"], row["accuracies"][metric], strict=True))
            of_baselines[name] = {metric: by_seed}
    stored = {name: presets.measured(name) for name in presets.names()}
    of_presets = [numbers_of(results) for results in stored.values() if results]
    return merged(of_baselines, *of_presets, kept())


def kept() -> Measured:
    """What ``--save`` has kept."""
    path = RESULTS / "paper.json"
    content = json.loads(path.read_text())["presets"] if path.exists() else {}
    return {
        name: {
            metric: {int(seed): value for seed, value in by_seed.items()}
            for metric, by_seed in of_preset.items()
        }
        for name, of_preset in content.items()
    }


def merged(*sources: Measured) -> dict[str, dict[str, dict[int, float]]]:
    """All of them; where a seed is in several, the last one counts."""
    result: dict[str, dict[str, dict[int, float]]] = {}
    for source in sources:
        for name, of_preset in source.items():
            for metric, by_seed in of_preset.items():
                both = result.setdefault(name, {}).get(metric, {}) | dict(by_seed)
                result[name][metric] = dict(sorted(both.items()))
    return result


def lines_of(cell: Cell, measured: Measured) -> list[str]:
    """Published; measured, and of how many seeds; off by so many standard errors."""
    lines = [mean_and_sem(cell.published.value, cell.published.sem)]
    row = cell.compared(measured)
    if row is None:
        return [*lines, "not measured"]
    seeds = measured[cell.preset][cell.metric].values()
    lines.append(f"{mean_and_sem(row['measured'], summarize(list(seeds))['sem'])} ({row['n']})")
    if row["standard_errors"] is not None:
        verdict = "within" if row["within"] else "outside"
        lines.append(f"{row['standard_errors']:+.1f}, {verdict}")
    return lines


def notes(measured: Measured) -> Iterator[str]:
    """What is known of the cells that lie outside, a line a preset."""
    outside: dict[str, list[str]] = {}
    for name, cells in table():
        for method, cell in zip(METHODS, cells, strict=True):
            row = cell.compared(measured)
            if row is not None and row["within"] is False:
                outside.setdefault(cell.preset, []).append(f"{method}, {name}")
    for preset, names in outside.items():
        remarks = presets.load(preset).remarks or "It is not known why."
        yield f"{preset} ({'; '.join(names)}) lies outside. {remarks}"


def show(measured: Measured) -> None:
    """Print the table and what is known of the cells that lie outside."""
    rows = [
        {
            "": name,
            **{
                method: "\n".join([*lines_of(cell, measured), ""])
                for method, cell in zip(METHODS, cells, strict=True)
            },
        }
        for name, cells in table()
    ]
    print_table(rows, f"{TITLE}\n(%, mean ± standard error of the mean)")
    for note in notes(measured):
        print(note)


def as_rst(measured: Measured) -> Iterator[str]:
    """The same table in reStructuredText."""
    yield from (".. list-table::", "   :header-rows: 1", "")
    yield from rst_row(["Scenario", *METHODS])
    for name, cells in table():
        blocks = ("\n       ".join(f"| {x}" for x in lines_of(cell, measured)) for cell in cells)
        yield from rst_row([name, *blocks])


if __name__ == "__main__":
    main()
