"""In which line of a TOML file a key stands."""

import tomllib

from hypercl.sweeps.lines import line_of, lines_of

TEXT = '''# a comment
name = "x"   # [not.a.table]

options = [  # of several lines
    "--a=1",
    "--b=[2]",
]
text = """
[space]
lr = 1
"""
a.b = 3

[space]
lr = {log = [1, 2]}
"quoted key" = 1

[[methods]]
method = "one"
[methods.space]
beta = [
    1,
    2]
[[methods]]
[methods.space]
beta = 7
[[when]]
if = {c = 1}
'''


def test_every_key_has_the_line_in_which_it_begins():
    lines = lines_of(TEXT)
    assert {
        ("name",): 2, ("options",): 4, ("options", 0): 5, ("options", 1): 6, ("text",): 8,
        ("a", "b"): 12, ("space",): 14, ("space", "lr"): 15, ("space", "lr", "log"): 15,
        ("space", "quoted key"): 16, ("methods", 0): 18, ("methods", 0, "method"): 19,
        ("methods", 0, "space"): 20, ("methods", 0, "space", "beta"): 21, ("methods", 1): 24,
        ("methods", 1, "space", "beta"): 26, ("when", 0): 27, ("when", 0, "if", "c"): 28,
    }.items() <= lines.items()  # fmt: skip
    assert ("methods", 1, "method") not in lines


def test_what_is_not_there_has_the_line_of_what_it_would_lie_in():
    lines = lines_of(TEXT)
    assert line_of(lines, ("methods", 1, "method")) == 24
    assert line_of(lines, ("missing",)) == 1


def test_every_key_of_a_file_is_found():
    found = set(lines_of(TEXT))

    def keys(value, path=()):
        items = value.items() if isinstance(value, dict) else ()
        items = enumerate(value) if isinstance(value, list) else items
        for key, inside in items:
            yield (*path, key)
            yield from keys(inside, (*path, key))

    assert set(keys(tomllib.loads(TEXT))) <= found
