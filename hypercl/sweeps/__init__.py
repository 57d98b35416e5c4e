"""Sweeps: what a file of one says, what is tried next, who works on it; and the ones that come
with the project, a TOML file each, whose first line says in a comment what it is.

``spec.py`` has what a sweep is, ``space.py`` the options that it searches, ``values.py`` the
metrics by which it chooses. ``reading.py`` reads it from a file, and ``read_space.py`` its space;
``content.py`` and ``lines.py`` say in which line a mistake is. ``search.py`` chooses the points and
decides which stop, ``journal.py`` keeps what was tried, and ``changes.py`` says how a file may
change afterwards.

``driver.py`` hands the points out and takes them back, ``cluster.py`` has the workers, ``entry.py``
is their door, and ``work.py`` what they do; ``live.py`` shows how it goes. Points that train in one
step: ``together.py`` says which may, ``pack.py`` learns them, ``joined.py`` joins their numbers and
takes them apart. ``hpsearch_config.py`` is for hypnettorch's own search.

To add a sweep that comes with the project is to add a file to this folder; docs/sweeps.rst has the
format.
"""

from pathlib import Path

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The sweeps that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def describe(name: str) -> str:
    """What a sweep that comes with the project is, in a line.

    Raises:
        KeyError: There is none of this name.
    """
    if name not in names():
        raise KeyError(name)
    first = (FOLDER / f"{name}.toml").read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip()
