"""The README's promises that can be checked without running an experiment."""

import re
import shlex
from pathlib import Path

import pytest

from train_args import EXAMPLES, parse_args

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.rst").read_text()


def commands(text):
    """Every ``python run.py ...``, with the lines that a backslash continues."""
    joined = re.sub(r"\\\n\s*", " ", text)
    found = re.findall(r"python run\.py([^\n;`|]*)", joined)
    made = re.findall(r'make run ARGS="([^"]*)"', joined)
    return [re.sub(r"\$\w+", "1", options) for options in found + made]


@pytest.mark.parametrize("text", [README, EXAMPLES], ids=["README.rst", "--help"])
def test_every_command_parses(text):
    found = commands(text)
    assert len(found) >= 6
    for options in found:
        if "--help" not in options and "..." not in options:
            parse_args(shlex.split(options, comments=True))


def test_the_house_is_as_drawn():
    drawn = set(re.findall(r"^\s+(\w+\.py)\s", README, flags=re.MULTILINE))
    built = {path.name for path in [*ROOT.glob("*.py"), *ROOT.glob("hypercl/*.py")]}
    assert drawn == built - {"__init__.py"}


def test_pictures_are_there():
    pictures = re.findall(r"^\.\. (?:image|figure):: (\S+)", README, flags=re.MULTILINE)
    assert len(pictures) >= 2
    for picture in pictures:
        assert (ROOT / picture).read_bytes().startswith(b"\x89PNG")


def test_every_option_of_the_readme_exists():
    known = set(vars(parse_args([])))
    for option in re.findall(r"--(\w+)", README):
        assert option in known | {"help"}, option
