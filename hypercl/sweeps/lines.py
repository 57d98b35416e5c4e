"""Where in a TOML file a key stands, which the standard library's reader does not say."""

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

Place = tuple[str | int, ...]  # of keys and of positions in arrays


def lines_of(text: str) -> dict[Place, int]:
    """The number of the line, from 1, in which each key, table and text in an array begins.

    The reader itself says how far a statement goes: lines are added until it takes them.

    Args:
        text: Valid TOML.
    """
    lines = text.splitlines()
    found: dict[Place, int] = {(): 1}
    arrays: dict[Place, int] = {}  # of tables: the position of the last one
    table: Place = ()
    at = 0
    while at < len(lines):
        end, content = _statement(lines, at)
        if lines[at].lstrip().startswith("["):
            table = _opened(content, arrays)
            for length in range(1, len(table) + 1):
                found.setdefault(table[:length], at + 1)
        else:
            for path, value in _paths(content, table):
                found.setdefault(path, at + 1)
                if path and isinstance(path[-1], int) and isinstance(value, str):
                    found[path] = _line_with(value, lines, at, end)
        at = end
    return found


def line_of(found: Mapping[Place, int], path: Place) -> int:
    """The line of a path, or of what it lies in."""
    while path not in found:
        path = path[:-1]
    return found[path]


def _statement(lines: list[str], start: int) -> tuple[int, dict[str, Any]]:
    """Behind which line a statement ends, and what it says."""
    for end in range(start + 1, len(lines) + 1):
        try:
            return end, tomllib.loads("\n".join(lines[start:end]))
        except tomllib.TOMLDecodeError:
            if end == len(lines):
                raise
    raise AssertionError("there is a line")


def _opened(header: Mapping[str, Any], arrays: dict[Place, int]) -> Place:
    """The table that ``[a.b]`` or ``[[a.b]]`` begins."""
    path: Place = ()
    inside: Any = header
    while inside:
        if isinstance(inside, list):  # the header's own
            arrays[path] = arrays.get(path, -1) + 1
            return (*path, arrays[path])
        if path in arrays:
            path = (*path, arrays[path])
        ((key, inside),) = inside.items()
        path = (*path, key)
    return path


def _paths(value: Any, path: Place) -> Iterator[tuple[Place, Any]]:
    """All that lies in a value, and itself."""
    if path:
        yield path, value
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inside in items:
        yield from _paths(inside, (*path, key))


def _line_with(text: str, lines: list[str], start: int, end: int) -> int:
    """The first of some lines that has a text; the first at all, where it is written otherwise."""
    return next((i + 1 for i in range(start, end) if text in lines[i]), start + 1)
