"""What the files of a run may hold: their forms, for content whose checksum is right.

Such content is not damaged, but may have been made by hand or by another version. A form is

- a type; ``float`` takes whole numbers too, and ``int`` no booleans;
- ``None``, or a tuple of forms, one of which it must be;
- ``[form]``: a list of such values;
- ``{key: form, …}``: a dict that has these keys, and maybe others; with a type for the key, a dict
  with such keys alone.
"""

from collections.abc import Mapping
from typing import Any

from hypercl.inference import names_by, rules_in
from hypercl.measure import is_known, measure_of


def fits(value: Any, form: Any) -> bool:
    """Whether a value has a form."""
    if isinstance(form, tuple):
        return any(fits(value, one) for one in form)
    if isinstance(form, list):
        return isinstance(value, list | tuple) and all(fits(item, form[0]) for item in value)
    if isinstance(form, dict):
        return isinstance(value, Mapping) and all(
            all(fits(k, key) and fits(v, item) for k, v in value.items())
            if isinstance(key, type)
            else key in value and fits(value[key], item)
            for key, item in form.items()
        )
    if form is None:
        return value is None
    if form in (int, float):
        numbers = int if form is int else int | float
        return isinstance(value, numbers) and not isinstance(value, bool)
    return isinstance(value, form)


MADE_BY = {
    "options": {str: object},
    "versions": {str: object},
    "device": str,
    "git_commit": (str, None),
}
CONFIG = {**MADE_BY, "command": str, "started": str}
_SUMMARY = {"mean": (float, None), "std": (float, None), "sem": (float, None), "n": int}
# What the report of a run goes on from; the matrix of a seed is of accuracies or of errors.
PROGRESS = {
    "seeds": [tuple({"seed": int, name: [[(float, None)]]} for name in ("accuracy", "error"))],
    "summary": {str: _SUMMARY},
    "seconds": {"total": float, "train": [float], "test": [float]},
}
RESULTS = {
    **PROGRESS,
    "status": str,
    "config": {str: object, "preset": (str, None)},
    "tasks": [str],
    "tested_on": str,
}
_COMPARED = {
    "metric": str,
    "published": float,
    "measured": float,
    "std": (float, None),
    "n": int,
    "difference": float,
}
_PUBLISHED = {
    **_COMPARED,
    "published_n": int,
    "best_of_search": bool,
    "standard_errors": (float, None),
    "within": (bool, None),
}
# Of versions that judged by half a point, or by the published spread.
_PUBLISHED_BEFORE = {**_COMPARED, "spread": (float, None), "within": bool}


def matrix_of(seed: Mapping[str, Any]) -> Any:
    """The accuracies, or errors, of a seed in results.json."""
    return seed["accuracy"] if "accuracy" in seed else seed["error"]


def is_config(content: Any) -> bool:
    """Whether this is what config.json holds."""
    return fits(content, CONFIG)


def is_progress(content: Any, num_tasks: int) -> bool:
    """Whether a report can go on from this: rows of numbers that belong to so many tasks."""
    if not fits(content, PROGRESS):
        return False
    rows_fit = all(
        len(matrix_of(seed)) <= num_tasks
        and all(len(row) == t + 1 and fits(row[-1], float) for t, row in enumerate(matrix_of(seed)))
        and fits(seed.get("failed", ""), str)
        and _fits_unlearned(seed, num_tasks)
        for seed in content["seeds"]
    )
    summary = content["summary"]
    rules = rules_in(summary)
    shown = ["cl1", *names_by(rules)] if rules else []
    means = all(summary.get(name, {}).get("mean") is not None for name in shown)
    counts = all((entry["mean"] is not None) == (entry["n"] > 0) for entry in summary.values())
    return rows_fit and means and counts


def _fits_unlearned(seed: Mapping[str, Any], num_tasks: int) -> bool:
    """Whether a seed's numbers before its tasks are such; an earlier version has none."""
    measured = "accuracy" if "accuracy" in seed else "error"
    before, untrained = (seed.get(f"{measured}_{name}", []) for name in ("before", "untrained"))
    each = [(float, None)]
    numbers = fits(before, each) and fits(untrained, each)
    return numbers and max(len(before), len(untrained)) <= num_tasks


def is_results(content: Any) -> bool:
    """Whether this is what results.json holds; of a finished run, all that is shown of it."""
    if not fits(content, RESULTS) or not is_progress(content, len(content["tasks"])):
        return False
    if not is_known(content):
        return False
    measure = measure_of(content)
    if any(measure.name not in seed for seed in content["seeds"]):
        return False
    if not fits(content.get("published") or [], [(_PUBLISHED, _PUBLISHED_BEFORE)]):
        return False
    if not fits(content.get("altered") or [], [str]):
        return False
    if content["status"] != "finished":
        return True
    going = [seed for seed in content["seeds"] if "failed" not in seed]
    complete = all(
        len(matrix_of(seed)) == len(content["tasks"]) and fits(matrix_of(seed)[-1], [float])
        for seed in going
    )
    names = (f"final_{measure.name}", f"during_{measure.name}", "backward_transfer", "forgetting")
    return bool(going) and complete and all(name in content["summary"] for name in names)
