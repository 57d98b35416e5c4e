"""What of a sweep's file has changed since it began, and whether that contradicts the journal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hypercl.options import bearing_on_results
from hypercl.sweeps.space import Domain, Plain, Space, frozen, is_same, options_text
from hypercl.sweeps.spec import Point, Searched, Sweep

FORMAT = 1  # of what :func:`described` returns
_MEND = "put it back, or choose another --out_dir"
# What must be as it was, of what is described.
_FIXED = ("options", "seeds", "first_seed", "metric", "search", "seed", "stop", "chooses")


def described(sweep: Sweep, searched: Searched, at_once: int, block: int) -> dict[str, Any]:
    """What is searched, as the journal has it in JSON.

    Args:
        at_once, block: As ``Search`` has them, which is what counts where the file says nothing.
    """
    space = searched.space
    when = [
        [{n: list(v) for n, v in w.conditions.items()}, sorted(w.then), sorted(w.without)]
        for w in space.when
    ]
    return {
        "format": FORMAT,
        "options": sorted(_bearing([*sweep.options, *searched.options])),
        "seeds": sweep.seeds,
        "first_seed": sweep.first_seed,
        "metric": sweep.metric.name,
        "search": sweep.search,
        "seed": sweep.seed,
        "stop": sweep.stop,
        "chooses": sweep.chooses,
        "at_once": at_once,
        "block": block,
        "points": searched.points,
        "space": {key: domain.as_json() for key, (_, domain) in space.keyed().items()},
        "when": when,
    }


def contradictions(
    noted: Mapping[str, Any],
    sweep: Sweep,
    label: str,
    tried: Sequence[Point],
    all_points: Sequence[Mapping[str, Plain]],
) -> Iterator[str]:
    """What of the file is not as it was when points were tried, a line each.

    Args:
        noted: What was searched then, of this version's format.
        label: Of what was searched.
        tried: Its points.
        all_points: Of a grid, as it is now.
    """
    if label not in sweep.labels:
        yield f"{label} has been searched, and is gone: {_MEND}"
        return
    searched, at_once, block = sweep.of(label), noted.get("at_once", 1), noted.get("block", 1)
    now = described(sweep, searched, at_once, block)
    for key in _FIXED:
        if now[key] != noted[key]:
            there, here = _in_words(noted[key], now[key])
            yield f"{key} of {label} was {there}, and is {here}: {_MEND}"
    if sweep.at_once is not None and max(sweep.at_once, block) != at_once:
        yield f"at_once was {at_once}, and is {sweep.at_once}: {_MEND}"
    if searched.points is not None and searched.points < len(tried):
        yield (
            f"points of {label} = {searched.points} are fewer than the {len(tried)} that have been "
            f"tried: {_MEND}"
        )
    if sweep.search in ("grid", "list"):
        yield from _gone(searched, tried, all_points)
    elif now["when"] != noted["when"]:
        yield f"the conditions of {label} have changed: {_MEND}"
    else:
        yield from _shrunk(label, noted["space"], searched.space)


def _gone(
    searched: Searched, tried: Sequence[Point], all_points: Sequence[Mapping[str, Plain]]
) -> Iterator[str]:
    """Points of a grid or a list that have been tried and are in the file no more."""
    there = {frozen(options) for options in all_points}
    for point in tried:
        if point.name is not None:
            named = searched.named.get(point.name)
            if named is None or frozen(named) != frozen(point.options):
                yield (
                    f"point {point.name} of {point.label} has been tried, and has changed: {_MEND}"
                )
        elif frozen(point.options) not in there:
            words = options_text(point.options)
            yield f"{words} of {point.label} has been tried, and is in the grid no more: {_MEND}"


def _shrunk(label: str, noted: Mapping[str, Any], space: Space) -> Iterator[str]:
    """What a space no longer has of what it had, and what it has beside."""
    now = {key: domain for key, (_, domain) in space.keyed().items()}
    for key in dict.fromkeys((*noted, *now)):
        if key not in now:
            yield f"{key} of {label} has been searched, and is gone: {_MEND}"
        elif key not in noted:
            yield f"{key} of {label} is new, and earlier points have no value of it: {_MEND}"
        elif not _has_grown(noted[key], now[key]):
            yield f"{key} of {label} has lost values that it had: {_MEND}"


def _has_grown(noted: Mapping[str, Any], domain: Domain) -> bool:
    """Whether a domain has all that it had."""
    if domain.choices is not None or "choices" in noted:
        had = noted.get("choices")
        return (
            had is not None
            and domain.choices is not None
            and all(any(is_same(value, choice) for choice in domain.choices) for value in had)
        )
    low, high = map(float, domain.ends)
    same = noted["log"] == domain.log and bool(noted.get("int")) == domain.is_int
    return same and low <= noted["low"] and noted["high"] <= high


def _bearing(options: Sequence[str]) -> list[str]:
    """Those of a command line on which results depend."""
    names = {option.removeprefix("--").partition("=")[0]: option for option in options}
    return list(bearing_on_results(names).values())


def _in_words(there: Any, here: Any) -> tuple[str, str]:
    """Two values that differ; of lists what one of them has and the other has not."""
    if not isinstance(there, list):
        return str(there), str(here)
    gone, new = ([v for v in a if v not in b] for a, b in ((there, here), (here, there)))
    return " ".join(gone) or "not given", " ".join(new) or "not given"
