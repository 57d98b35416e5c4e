"""A grid for hypnettorch's hpsearch, the search that this package's sweeps replace.

    python -m hypnettorch.hpsearch.hpsearch --grid_module=hypercl.sweeps.hpsearch_config \\
        --visible_gpus=-1

To search something else, copy this file, change ``grid`` and ``conditions``, and give the copy as
``--grid_module``. docs/sweeps.rst says what of hpsearch works. The names are those that it asks
for; their meaning is in hypnettorch's hpsearch_config_template.py.
"""

from pathlib import Path
from typing import Any

from hypercl.report import overview

# An option's values; of a switch, [False, True]. Lists are in quotes, as a shell reads them.
grid: dict[str, list[Any]] = {
    "test_with_val_set": [True],  # what chooses sees no test samples
    "beta": [0.001, 0.01, 0.1],
    "lr": [0.0001, 0.001],
    "hnet_type": ["chunked_hmlp", "hmlp"],
}

# Where a point has the values on the left, it is replaced by points with those on the right.
conditions: list[tuple[dict[str, list[Any]], dict[str, list[Any]]]] = [
    ({"hnet_type": ["hmlp"]}, {"hmlp_arch": ['"10"']}),
]

_SCRIPT_NAME = "run.py"
_SUMMARY_FILENAME = "performance_overview.txt"
_SUMMARY_KEYWORDS = overview.keywords()  # of regression: overview.keywords(ERROR)
_OUT_ARG = "out_dir"
_PERFORMANCE_KEY = "final_accuracy"
_PERFORMANCE_SORT_ASC = False


def _summary(out_dir: str, cmd_ident: int) -> dict[str, list[float | str]]:
    """What a run has found, a number or a text a keyword, as a line of hpsearch's table.

    hpsearch's own parser takes what is not known for an empty text, by which a column cannot be
    sorted; here it is NaN.
    """
    found = overview.read_overview(Path(out_dir, _SUMMARY_FILENAME), _SUMMARY_KEYWORDS)
    return {
        name: [",".join(map(str, value)) if isinstance(value, list) else value]
        for name, value in found.items()
    }


def _is_good_enough(summary: dict[str, list[float | str]], least: float) -> bool:
    """Whether a run's final accuracy (%) is above a limit."""
    return float(summary[_PERFORMANCE_KEY][0]) > least


_SUMMARY_PARSER_HANDLE = _summary
_PERFORMANCE_EVAL_HANDLE = _is_good_enough
# hpsearch_postprocessing moves every folder without a config.pickle away, which runs do not write.
# Without this handle it ends before that.
_ARGPARSE_HANDLE = None
