"""What is compared: runs that differ in their seeds alone are one variant, variants with the same
label are one row.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from hypercl.errors import InputError
from hypercl.inference import OF_METHODS, names_by
from hypercl.measure import ACCURACY, Measure, is_known, measure_of
from hypercl.options import (
    GROUPS,
    HypernetOptions,
    Options,
    all_options,
    bearing_on_results,
    defaults,
    options_of,
)
from hypercl.ranges import as_argument, is_reference
from hypercl.registry import entries
from hypercl.report.metrics import mean_of_whole
from hypercl.rundir.forms import fits, matrix_of

FORMATS = (1, 2)  # of results.json, that can be read here
# Accuracies in percent, or errors: what a run answers where it is told so much.
SCENARIOS = ("cl1", "cl2", "cl3")
TRANSFERS = ("forgetting", "backward_transfer", "forward_transfer")  # in the same unit
_SEEDS = ("random_seed", "num_seeds")
_HEADS = "multi_head"
# A preset's options are all there; a variant has its scenario apart from its settings.
_SAID_BY_DATA = ("num_tasks", "num_classes_per_task")  # the user's
_NO_SETTINGS = (*_SEEDS, "preset", "cl_scenario", _HEADS)
_BESIDE_METHOD = ("task", "main_net", "train")  # groups of options; and one that is in another:
_MOST_SHOWN = 4  # options in a label, where fewer tell the rows apart
_TESTED_ON = "test_with_val_set"
_OTHER_HEADS = f"--{_HEADS} (off, on)"

_ANY_FORMAT = {"experiment": str, "seeds": [{"forgetting": (float, None)}]}
_FORMS: Mapping[int, dict[str, Any]] = {
    1: {**_ANY_FORMAT, "num_weights": {"hypernet": int}},
    2: {
        **_ANY_FORMAT,
        "method": str,
        "scenario": (int, None),
        "num_weights": {"trained": int},
        "kept_bytes": (int, None),
    },
}
_SEED_2 = dict.fromkeys(SCENARIOS, (float, None))
_INFERRED = {name: {"mean": float} for name in ("cl2_entropy", "cl3_entropy")}
_BY_METHODS = {name: {"mean": float} for name in names_by(OF_METHODS)}  # which a run may lack


class StoredRun(NamedTuple):
    """A finished run's results, and the name that was given to it."""

    path: Path
    results: Mapping[str, Any]
    name: str | None = None


class Seed(NamedTuple):
    """What a run has found with a seed."""

    entry: Mapping[str, Any]  # in results.json
    format: int  # of it
    minutes: float
    path: Path  # of the run


class Cell(NamedTuple):
    """A number of a row, by seed."""

    values: Mapping[int, float]
    by: str | None = None  # how the task was inferred; None: the run answers this directly


@dataclass(frozen=True)
class Variant:
    """Runs that differ in their seeds alone; ``settings`` are the options that they share."""

    name: str | None  # that was given to them
    method: str
    # None: a network for each task, which is known when it is tested, and outputs that tasks share.
    scenario: int | None
    settings: Mapping[str, Any]
    experiment: str
    tasks: Sequence[str]
    tested_on: str
    num_trained: int  # weights
    kept_bytes: int | None  # of the earlier tasks, for each seed, while the last one is learned
    seeds: Mapping[int, Seed]
    measure: Measure = ACCURACY

    def accuracy(self, column: str) -> Cell | None:
        """The accuracies of one of SCENARIOS, where there are any: what the runs answer directly,
        otherwise with the task inferred, by the method's own rule where it has one, or by entropy.
        """
        direct = {seed: _direct(found, column) for seed, found in self.seeds.items()}
        known = {seed: value for seed, value in direct.items() if value is not None}
        if known:
            return Cell(known)
        for rule in (*OF_METHODS, "entropy"):
            name = f"{column}_{rule}"
            found = {
                seed: of_seed.entry["scenarios"][name]["mean"]
                for seed, of_seed in self.seeds.items()
                if name in of_seed.entry.get("scenarios", {})
            }
            if found:
                return Cell(found, rule)
        return None

    def transfer(self, column: str) -> Cell | None:
        """The values of one of TRANSFERS, where there are any."""
        stored = {seed: found.entry.get(column) for seed, found in self.seeds.items()}
        known = {seed: value for seed, value in stored.items() if value is not None}
        return Cell(known) if known else None

    @property
    def minutes(self) -> Cell:
        """By seed, its share of its run's time."""
        return Cell({seed: found.minutes for seed, found in self.seeds.items()})

    @property
    def matrices(self) -> list[Sequence[Sequence[float | None]]]:
        """The matrix of accuracies, or errors, of each seed."""
        return [matrix_of(found.entry) for found in self.seeds.values()]

    @property
    def while_learning(self) -> list[list[float | None]]:
        """Of each seed, the mean accuracy, or error, on the tasks so far after each task."""
        return [[mean_of_whole(row) for row in matrix] for matrix in self.matrices]


class Row(NamedTuple):
    """What is compared under one label; several variants differ in their scenario."""

    label: str
    variants: tuple[Variant, ...]

    def accuracy(self, column: str) -> Cell | None:
        """Of the variant that is of this scenario, or else of one that answers it."""
        chosen = self.variant(column)
        return None if chosen is None else chosen.accuracy(column)

    def variant(self, column: str) -> Variant | None:
        """The one whose accuracies stand in a column of SCENARIOS."""
        having = [(v, cell) for v in self.variants if (cell := v.accuracy(column)) is not None]
        by_merit = sorted(
            having, key=lambda one: (f"cl{one[0].scenario}" != column, one[1].by is not None)
        )
        return by_merit[0][0] if by_merit else None


def about_inferred(cells: Iterable[Cell]) -> str:
    """How the tasks were inferred, in words; empty where they were in no cell."""
    rules = {cell.by for cell in cells} - {None}
    said = ["entropy"] if "entropy" in rules else []
    said += [f"a network of the method's own ({rule})" for rule in OF_METHODS if rule in rules]
    return f"the task is inferred by {' or '.join(said)}" if said else ""


def scenario_name(variant: Variant) -> str:
    """The column that a variant's own accuracies belong to."""
    return f"CL{variant.scenario or 1}"


def is_comparable(results: Mapping[str, Any]) -> bool:
    """Whether results of one of FORMATS have all that is compared."""
    if not fits(results, _FORMS[results["format"]]) or not is_known(results):
        return False
    alive = [seed for seed in results["seeds"] if "failed" not in seed]
    if results["format"] > 1 and not fits(alive, [_SEED_2]):
        return False
    inferred = [seed["scenarios"] for seed in alive if "scenarios" in seed]
    by_methods = [{name: own[name] for name in _BY_METHODS if name in own} for own in inferred]
    return fits(inferred, [_INFERRED]) and all(
        fits(own, {name: _BY_METHODS[name] for name in own}) for own in by_methods
    )


def pool(runs: Sequence[StoredRun]) -> tuple[list[Variant], list[str]]:
    """Put runs together that differ in their seeds alone, and have the same name.

    Returns:
        The variants in the order of their first runs, and warnings: of seeds that failed and of
        those that occur twice, of which the first counts.
    """
    by_key: dict[str, list[tuple[StoredRun, dict[str, Any]]]] = {}
    for run in runs:
        own = settings(run.results)
        key = json.dumps([run.name, _scenario(run.results), own], sort_keys=True)
        by_key.setdefault(key, []).append((run, own))
    warnings: list[str] = []
    variants = []
    for same in by_key.values():
        seeds: dict[int, Seed] = {}
        for run, _ in same:
            for seed, found, problem in _seeds_of(run):
                if problem is not None:
                    warnings.append(problem)
                elif seed in seeds:
                    warnings.append(
                        f"seed {seed} is in {seeds[seed].path} and in {run.path}, with the same "
                        "options: the first counts"
                    )
                else:
                    seeds[seed] = found
        first, own = same[0]
        results = first.results
        variants.append(
            Variant(
                name=first.name,
                method=_method(results),
                scenario=_scenario(results),
                settings=own,
                experiment=results["experiment"],
                tasks=results["tasks"],
                tested_on=results["tested_on"],
                num_trained=results["num_weights"]["hypernet" if _is_1(results) else "trained"],
                kept_bytes=results.get("kept_bytes"),
                seeds=dict(sorted(seeds.items())),
                measure=measure_of(results),
            )
        )
    return variants, warnings


def _seeds_of(run: StoredRun) -> Iterator[tuple[int, Seed, str | None]]:
    """Each seed of a run, and why it is left out where it is."""
    entries_ = run.results["seeds"]
    minutes = run.results["seconds"]["total"] / 60 / len(entries_)
    for entry in entries_:
        problem = None
        if "failed" in entry:
            problem = f"{run.path}: seed {entry['seed']} failed ({entry['failed']}): left out"
        yield entry["seed"], Seed(entry, run.results["format"], minutes, run.path), problem


def make_rows(variants: Sequence[Variant]) -> list[Row]:
    """One row a label, which is the name given, or else made of the options that differ.

    Raises:
        InputError: A name was given to runs that cannot share a row.
    """
    nameless = [variant for variant in variants if variant.name is None]
    shown = shown_settings(nameless)
    given = {variant.name for variant in variants}
    answered = {(_label(variant, shown), variant.scenario) for variant in nameless}
    by_label: dict[str, list[Variant]] = {}
    for variant in variants:
        label = variant.name or _label(variant, shown)
        if variant.name is None and {(label, None), (label, 1)} <= answered:
            label += f", {_HEADS}={as_argument(variant.scenario == 1)}"  # both would be CL1
        if variant.name is None and label in given:
            label += " (without --label)"
        by_label.setdefault(label, []).append(variant)
    rows = []
    for label, same in by_label.items():
        _require_one_row(label, same)
        by_scenario = sorted(same, key=lambda variant: variant.scenario or 0)
        rows.append(Row(label, tuple(by_scenario)))
    return rows


def shown_settings(variants: Sequence[Variant]) -> list[str]:
    """The options of which labels are made: those that differ, and of many as few as tell all
    variants apart.
    """
    names = differing_settings(variants)
    if len(names) <= _MOST_SHOWN:
        return names
    shown: list[str] = []

    def labels(more: str) -> int:
        return len({_label(variant, [*shown, more]) for variant in variants})

    while len({_label(variant, shown) for variant in variants}) < len(
        {_label(variant, names) for variant in variants}
    ):
        shown.append(max((name for name in names if name not in shown), key=labels))
    return [name for name in names if name in shown]


def _label(variant: Variant, shown: Sequence[str]) -> str:
    own = variant.settings
    parts = [f"{name}={as_argument(own[name])}" for name in shown if name in own]
    return ", ".join([variant.method, *parts])


def _require_one_row(label: str, variants: Sequence[Variant]) -> None:
    """Refuse variants of which two would fill the same columns, or that are no one method."""
    mend = "give them names of their own with --label"
    names = differing_settings(variants)
    if beside := [name for name in names if _group(name) is not None]:
        described = describe_differences(variants, beside)
        raise InputError(f"runs with the label {label} differ in {described}: {mend}")
    if len({variant.method for variant in variants}) > 1:
        methods = ", ".join(dict.fromkeys(variant.method for variant in variants))
        raise InputError(f"runs with the label {label} have several methods, {methods}: {mend}")
    if {None, 1} <= {variant.scenario for variant in variants}:
        raise InputError(f"runs with the label {label} differ in {_OTHER_HEADS}: {mend}")
    if len({variant.scenario for variant in variants}) < len(variants):
        raise InputError(
            f"runs with the label {label} are of the same scenario and differ in "
            f"{describe_differences(variants, names)}: {mend}"
        )


def differing_settings(variants: Sequence[Variant]) -> list[str]:
    """The options in which variants differ, but for the method.

    An option that concerns only some of them, as those of another method do, is compared among
    these.
    """
    names = dict.fromkeys(n for variant in variants for n in variant.settings if n != "method")
    differing = []
    for name in names:
        having = [v.settings[name] for v in variants if name in v.settings]
        unknown = name not in defaults() and len(having) < len(variants)
        if unknown or len({as_argument(value) for value in having}) > 1:
            differing.append(name)
    return differing


def describe_differences(variants: Sequence[Variant], names: Sequence[str]) -> str:
    """The values of options: ``--lr (0.1, 0.2)`` each."""
    described = []
    for name in names:
        values = (as_argument(v.settings.get(name)) for v in variants if name in v.settings)
        described.append(f"--{name} ({', '.join(dict.fromkeys(values))})")
    return ", ".join(described)


def differences_without_label(rows: Sequence[Row]) -> str:
    """The options in which runs differ, and that their labels leave out: ``--lr (0.1, 0.2)`` each;
    empty where they leave nothing out.
    """
    nameless = [v for row in rows for v in row.variants if v.name is None]
    shown = shown_settings(nameless)
    names = [name for name in differing_settings(nameless) if name not in shown]
    return describe_differences(nameless, names)


def differences_beside_method(rows: Sequence[Row]) -> str:
    """What the data, the main network and the training differ in between rows that fill the same
    column: ``--lr (0.1, 0.2)`` each; empty where nothing.
    """
    named: dict[str, str] = {}
    for column in SCENARIOS:
        variants = [v for row in rows if (v := row.variant(column)) is not None]
        for name in differing_settings(variants):
            if _group(name) in _BESIDE_METHOD or name == _TESTED_ON:
                named.setdefault(name, describe_differences(variants, [name]))
        # A star tells apart what is answered directly and what is inferred.
        heads = {
            (cell.by is not None, v.scenario == 1) for v in variants if (cell := v.accuracy(column))
        }
        if len(heads) > len({by for by, _ in heads}):
            named.setdefault(_HEADS, _OTHER_HEADS)
    return ", ".join(named.values())


def settings(results: Mapping[str, Any]) -> dict[str, Any]:
    """The options on which a run's results depend and that its choices read, but for its seeds.

    What the user has brought is not looked at, as that would execute it: a choice of the project
    stands in for it, and its own options all count.
    """
    stored = {n: v for n, v in bearing_on_results(results["config"]).items() if v is not None}
    known = {name: value for name, value in stored.items() if name in defaults()}
    choices = [group.chosen_by for group in GROUPS.values() if group.chosen_by]
    brought = [name for name in choices if is_reference(str(known.get(name, "")))]
    of_data = _SAID_BY_DATA if "cl_exp" in brought else ()
    own = {name: known[name] for name in (*brought, *of_data) if name in known}
    try:
        options = Options.of({name: value for name, value in known.items() if name not in own})
    except InputError:  # a value, or an entry, of another version
        ranges = {name: all_options()[name].metadata["range"] for name in known}
        used = {name: ranges[name].normal(value) for name, value in known.items()}
    else:
        unread: set[str] = set()
        for kind in options.kinds:
            if kind.chosen_by not in brought:
                unread |= kind.unread(options).keys()
            else:  # the one that stands in
                unread |= {field.name for field in options_of(type(kind))} - known.keys()
        if "method" in brought and results["compression_ratio"] is None:
            unread |= {field.name for field in options_of(HypernetOptions)}
        recorded = {**options.recorded, **own}
        used = {n: v for n, v in bearing_on_results(recorded).items() if n not in unread}
    unknown = {name: value for name, value in stored.items() if name not in defaults()}
    return {n: v for n, v in {**used, **unknown}.items() if n not in _NO_SETTINGS and v is not None}


@cache
def _group(name: str) -> str | None:
    """The group of an option, by attribute of Options; None for one of the method."""
    for attribute, group in GROUPS.items():
        owners = [group.options]
        owners += entries(group.registry).values() if group.registry is not None else []
        if any(name == field.name for owner in owners for field in options_of(owner)):
            return None if attribute in ("method", "hypernet") else attribute
    return None


def _direct(found: Seed, column: str) -> float | None:
    """What a run answers itself; before there were several methods, that was CL1."""
    if found.format > 1:
        return found.entry[column]
    return found.entry["final_accuracy"] if column == "cl1" else None


def _scenario(results: Mapping[str, Any]) -> int | None:
    """As :class:`Variant` has it; before there were scenarios, --multi_head was CL1."""
    if not _is_1(results):
        return results["scenario"]
    return 1 if results["config"].get(_HEADS) else None


def _is_1(results: Mapping[str, Any]) -> bool:
    return results["format"] == 1


def _method(results: Mapping[str, Any]) -> str:
    return "hnet" if _is_1(results) else results["method"]
