import csv
import io
import re
from statistics import fmean

import pytest
from rich.console import Console
from stored_runs import compared, results_of

from hypercl.commands.compare import show
from hypercl.report.comparison.table import (
    Table,
    as_csv,
    as_latex,
    as_markdown,
    bytes_as_text,
    in_latex,
    main_table,
    p_as_text,
    statistics_table,
)
from hypercl.report.screen import Screen


@pytest.fixture
def several():
    """Methods in several scenarios, some with the task inferred, one with a long label."""
    runs = [
        results_of(inferred=70.0),
        results_of(form=1, level=93.0, inferred=60.0, hmlp_arch=[50, 50]),
    ]
    runs += [
        results_of("other", k, level=90.0 - k, forgotten=k, seeds=range(42, 45)) for k in (1, 2)
    ]
    return compared(*runs)


def test_a_table_worked_by_hand():
    table = main_table(compared(results_of("a", 3, seeds=[1], level=90.0, forgotten=0.0)))
    assert table.title == "accuracy, forgetting and transfer (%), n = 1"
    assert table.header == [
        "", "CL3", "forgetting", "backward transfer", "forward transfer", "trained weights",
        "kept of earlier tasks", "minutes per seed",
    ]  # fmt: skip
    (row,) = table.rows
    assert row[0] == "a"
    assert row[5:] == ("900", "4.0 KiB", "2.0")
    assert all(re.fullmatch(r"-?\d+\.\d\d", cell) for cell in row[1:5])


def test_n_is_said_once_where_it_is_one_number(several):
    table = main_table(compared(results_of(), results_of(lr=0.5)))
    assert table.title.endswith("mean ± standard error of the mean, n = 6")
    assert "n" not in table.header
    table = main_table(several)
    assert table.title.endswith("mean ± standard error of the mean")
    assert [row[-1] for row in table.rows] == ["6", "6", "3"]


def test_what_is_inferred_and_what_is_of_several_runs_is_explained(several):
    table = main_table(several)
    cl2 = [row[table.header.index("CL2")] for row in table.rows]
    assert [cell.endswith("*") for cell in cl2] == [True, True, False]
    forgetting = [row[table.header.index("forgetting")] for row in table.rows]
    assert [cell.count("/") for cell in forgetting] == [0, 0, 1]
    assert table.notes == [
        "* the task is inferred by entropy",
        "forgetting, transfer and what follows are of the runs for CL1 (hnet, hmlp_arch=100,100; "
        "hnet, hmlp_arch=50,50), and CL1 / CL2 (other)",
    ]
    assert main_table(compared(results_of("a", 2), results_of("b", 2))).notes == []


def test_the_statistics_of_a_column(several):
    table = statistics_table(several, "cl1")
    assert table.title == "CL1 (%), differences to hnet, hmlp_arch=100,100"
    first, second, third = table.rows
    assert first[3:] == [""] * 8
    assert [second[i] for i in (5, 6)] == ["6", "by seed"]
    assert third[5] == "3"
    assert second[7] == "0.031"
    alone = statistics_table(compared(results_of()), "cl1")
    assert alone.header == ["", "mean", "95 % interval"]
    assert len(alone.rows[0]) == 3


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("terminal", [False, True])
def test_no_line_is_wider_than_the_screen_and_no_number_is_cut(width, terminal, several):
    of_all = [
        results_of("a", k, level=100.0, forgotten=30.0 + k, seeds=range(9)) for k in (1, 2, 3)
    ]
    long = [results_of("b", mlp_arch=[100] * 9, lr=0.1 / i) for i in range(1, 28)]
    for comparison in (several, compared(*long), compared(*of_all, *long[:2])):
        file = io.StringIO()
        console = Console(file=file, width=width, force_terminal=terminal, highlight=False)
        show(Screen(lambda line: None, console=console), comparison)
        text = re.sub("\x1b\\[[0-9;]*m", "", file.getvalue())
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
        tables = [
            main_table(comparison),
            *(statistics_table(comparison, c) for c in comparison.columns),
        ]
        for cell in (cell for table in tables for row in table.rows for cell in row[1:]):
            assert cell in text


def test_labels_that_leave_no_room_are_letters_that_are_explained(several):
    lines = []
    screen = Screen(lambda line: lines.append(line[26:]),
                    console=Console(file=io.StringIO(), width=45))  # fmt: skip
    show(screen, several)
    assert {"A: hnet, hmlp_arch=100,100", "C: other"} <= {*lines}
    assert any(re.match(r"  B +\d", line) for line in lines)


def test_csv_has_all_numbers_unrounded(several):
    lines = list(csv.DictReader(io.StringIO(as_csv(several))))
    (line,) = [x for x in lines if x["metric"] == "cl1" and x["label"] == "other"]
    tested = several.tested["cl1"][2]
    assert float(line["mean"]) == fmean(tested.cell.values.values())
    assert float(line["difference"]) == tested.difference.mean
    assert float(line["p_t_holm"]) == tested.holm_t
    assert (line["reference"], line["paired"]) == ("hnet, hmlp_arch=100,100", "yes")
    assert (line["pairs"], line["seeds"], line["scenario"]) == ("3", "42-44", "1")
    inferred = {x["task_inferred_by"] for x in lines if x["metric"] == "cl3"}
    assert inferred == {"entropy"}
    assert len([x for x in lines if x["label"] == "other" and x["metric"] == "forgetting"]) == 2
    kept = [x["mean"] for x in lines if x["metric"] == "kept_of_earlier_tasks"]
    assert kept == ["4096", "4096", "4096"]  # not known of the earlier format


def test_latex_shows_text_as_it_is():
    assert in_latex(r"a_b & 5% #1 {x} $y$ ~ ^ \z") == (
        r"a\_b \& 5\% \#1 \{x\} \$y\$ \textasciitilde{} \textasciicircum{} \textbackslash{}z"
    )
    assert in_latex("-1.50 ± 0.20") == r"$-$1.50 $\pm$ 0.20"
    assert in_latex("[-0.5, +1]") == "{[}$-$0.5, +1{]}"
    assert in_latex("*best*") == "{*}best*"
    assert in_latex("<0.001") == "$<$0.001"
    assert in_latex("seeds 42-47, --lr") == "seeds 42-47, -{}-lr"


def test_latex_tables_are_whole(several):
    text = as_latex([main_table(several), statistics_table(several, "cl1")])
    assert text.isascii()
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 2
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(rule) == 2
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    for block in re.findall(r"\\begin\{tabular\}\{(l?r*)\}(.*?)\\end\{tabular\}", text, re.S):
        lines = [line for line in block[1].splitlines() if line.endswith(r" \\")]
        assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {len(block[0]) - 1}


def test_markdown_shows_text_as_it_is():
    table = Table("a_b (%)", ["", "x"], [["p|q", "1.0*"]], ["* a note"])
    assert as_markdown([table]) == (
        "a\\_b (%)\n\n|  | x |\n| :-- | --: |\n| p\\|q | 1.0\\* |\n\n\\* a note\n"
    )


def test_numbers_in_words():
    sizes = [None, 0, 1023, 1024, 1536 * 1024, 3 * 2**40, 2**60]
    assert [*map(bytes_as_text, sizes)] == [
        "-", "0 B", "1023 B", "1.0 KiB", "1.5 MiB", "3.0 TiB", "1048576.0 TiB",
    ]  # fmt: skip
    assert [*map(p_as_text, [None, 0.0, 0.0009, 0.001, 0.25, 1.0])] == [
        "-", "<0.001", "<0.001", "0.001", "0.250", "1.000",
    ]  # fmt: skip
