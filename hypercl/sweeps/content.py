"""The content of a sweep's file, and what is wrong with it, by line."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypercl.options import all_options
from hypercl.sweeps.lines import Place, line_of

KEYS = (  # above the first table
    "name", "options", "preset", "seeds", "metric", "search", "points", "stop", "seed", "together",
    "at_once", "chooses", "retest", "retest_seeds", "space", "when", "methods", "point",
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")
ABOVE = "it stands above the first [table] of the file"
_KINDS: dict[type, str] = {
    str: "a text", int: "a whole number", bool: "true or false", list: "an array, in [ ]",
    dict: "a table",
}  # fmt: skip


@dataclass
class Content:
    """Values at places of a file's content; those that are bad become problems, and a default.

    Attributes:
        lines: Where the places are.
        problems: The number of a line, and what is wrong there; each once.
    """

    file: Path
    content: Mapping[str, Any]
    lines: Mapping[Place, int]
    problems: dict[tuple[int, str], None] = field(default_factory=dict, init=False)

    def _add(self, path: Place, text: str) -> None:
        self.problems[line_of(self.lines, path), text] = None

    def _refuse_unknown(self, path: Place, table: Any, known: Collection[str]) -> None:
        for key in table:
            if key not in known:
                close = did_you_mean(key, known)
                meant = close or f": there are {', '.join(known)}"
                value = table[key]
                of_tables = isinstance(value, list) and any(isinstance(v, Mapping) for v in value)
                if key in all_options() and not (of_tables and close):
                    meant = f': an option goes into options, as "--{key}=...", or into [space]'
                if path and key in KEYS:
                    meant = f" in this table: {ABOVE}"
                self._add((*path, key), f"there is no key {key}{meant}")

    def _at(self, path: Place) -> Any:
        inside: Any = self.content
        for key in path:
            if isinstance(key, int):
                inside = inside[key]
            else:
                inside = inside.get(key) if isinstance(inside, Mapping) else None
        return inside

    def _get(self, path: Place, kind: type, default: Any) -> Any:
        value = self._at(path)
        if value is None:
            return default
        if type(value) is not kind:
            self._add(path, f"{path[-1]} = {value!r} is not {_KINDS[kind]}")
            return default
        return value

    def _count(self, path: Place, default: Any, least: int = 1) -> Any:
        value = self._get(path, int, default)
        if value is not None and not least <= value <= 10**6:
            self._add(path, f"{path[-1]} = {value} is not a number from {least} to 1000000")
            return default
        return value

    def _one_of(self, key: str, names: tuple[str, ...], default: str = "") -> str:
        value = self._get((key,), str, default)
        if key not in self.content and not default:
            self._add((), f"{key} is missing: give one of {', '.join(names)}")
        elif key in self.content and value not in names:
            meant = did_you_mean(value, names)
            self._add((key,), f"{key} = {value!r} is none of {', '.join(names)}{meant}")
            return default
        return value

    def _label(self, path: Place, default: str) -> str:
        """A name of a folder."""
        value = self._get(path, str, default)
        if not _NAME.fullmatch(value):
            self._add(path, f"{value!r} is no name: take letters, digits, and -_.+ between them")
        return value


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A remark on which of some names may have been meant."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
