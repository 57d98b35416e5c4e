import pytest
from stored_runs import compared, results_of

from hypercl.report import plots
from hypercl.report.comparison import figures


@pytest.fixture(autouse=True)
def _own_defaults():
    with plots.own_defaults():
        yield


def test_lines_are_the_means_of_the_tasks_so_far_and_bands_their_standard_errors():
    comparison = compared(results_of("a"), results_of("b", lr=0.5, seeds=[1]))
    figure = figures.accuracy_over_time(comparison)
    (axes,) = figure.axes
    first = comparison.rows[0].variants[0].while_learning
    assert [*axes.lines[0].get_xdata()] == [1, 2, 3]
    for k, y in enumerate(axes.lines[0].get_ydata()):
        assert y == pytest.approx(sum(of_seed[k] for of_seed in first) / 6)
    assert len(axes.lines) == 2
    assert len(axes.collections) == 1  # one seed has no band
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        row.label for row in comparison.rows
    ]


def test_each_scenario_has_axes_of_its_own():
    comparison = compared(*(results_of("a", k) for k in (1, 2, 3)), results_of("b", 3))
    figure = figures.accuracy_over_time(comparison)
    assert [axes.get_title() for axes in figure.axes] == ["CL1", "CL2", "CL3"]
    assert [len(axes.lines) for axes in figure.axes] == [1, 1, 2]
    assert figure.axes[2].lines[0].get_color() == figure.axes[0].lines[0].get_color()


def test_a_point_at_which_not_all_tasks_were_tested_is_left_out():
    results = results_of()
    for seed in results["seeds"]:
        seed["accuracy"][1][0] = None
    (axes,) = figures.accuracy_over_time(compared(results)).axes
    assert [*axes.lines[0].get_xdata()] == [1, 3]
    figures.accuracy_matrices(compared(results))


def test_final_accuracies_have_their_intervals():
    comparison = compared(results_of(inferred=70.0), results_of("a", 3, level=80.0))
    figure = figures.final_accuracies(comparison)
    assert [axes.get_title() for axes in figure.axes] == ["CL1", "CL2", "CL3"]
    interval, point = figure.axes[0].lines
    assert tuple(interval.get_xdata()) == comparison.tested["cl1"][0].interval
    assert list(point.get_ydata()) == [0]
    assert len(figure.axes[2].lines) == 4


def test_memory_is_shown_where_it_is_known():
    runs = results_of("a", kept_bytes=0), results_of("b", kept_bytes=1024), results_of(form=1)
    figure = figures.accuracy_against_memory(compared(*runs))
    (axes,) = figure.axes
    assert [line.get_xdata()[0] for line in axes.lines] == [0, 1024]
    assert figure.get_suptitle().endswith("not known of hnet")
    assert figures.accuracy_against_memory(compared(results_of(form=1))) is None
    assert figures.accuracy_against_memory(compared(results_of(kept_bytes=0))) is not None


def test_rows_look_different_where_there_are_more_than_colors():
    comparison = compared(*(results_of(f"m{i}", seeds=[1]) for i in range(12)))
    (axes,) = figures.accuracy_over_time(comparison).axes
    assert len({(line.get_color(), line.get_marker()) for line in axes.lines}) == 12
    assert axes.lines[0].get_linestyle() != axes.lines[10].get_linestyle()


def test_rows_that_keep_the_same_lie_side_by_side():
    sizes = {"a": 1000, "b": 5000, "c": 1020, "d": 0, "e": 0}
    runs = [results_of(name, kept_bytes=size) for name, size in sizes.items()]
    figure = figures.accuracy_against_memory(compared(*runs))
    (axes,) = figure.axes
    figure.draw_without_rendering()
    places = [line.get_transform().transform(line.get_xydata()[0])[0] for line in axes.lines]
    aside = 5 / 72 * figure.dpi
    expected = axes.transData.transform([(kept, 0) for kept in sizes.values()])[:, 0]
    moved = [place - there for place, there in zip(places, expected, strict=True)]
    assert moved == pytest.approx([-aside / 2, 0, aside / 2, -aside / 2, aside / 2])
    intervals = [tested.interval for tested in compared(*runs).tested["cl1"]]
    low, high = axes.get_ylim()
    assert low < min(i.low for i in intervals) < max(i.high for i in intervals) < high < 110


def test_matrices_lie_side_by_side():
    comparison = compared(*(results_of(name, num_tasks=2 + i) for i, name in enumerate("abcde")))
    *matrices, scale = figures.accuracy_matrices(comparison).axes
    assert [axes.get_title() for axes in matrices] == [f"{c}, n\u00a0=\u00a06" for c in "abcde"]
    assert [len(axes.images[0].get_array()) for axes in matrices] == [2, 3, 4, 5, 6]
    assert {axes.images[0].get_clim() for axes in matrices} == {scale.get_ylim()}


@pytest.mark.parametrize("name", figures.FIGURES)
def test_any_comparison_can_be_drawn(name, tmp_path):
    """One task, labels that look like formulas or are long, and many rows."""
    many = [results_of("a", lr=0.1 * i, num_tasks=12, seeds=[1]) for i in range(1, 8)]
    names = [f"$x_{i} \\frac" + "long" * i for i in range(7)]
    for comparison in (compared(results_of(num_tasks=1)), compared(*many, names=names)):
        draw, _ = figures.FIGURES[name]
        draw(comparison).savefig(tmp_path / "figure.png", dpi=20)
        assert (tmp_path / "figure.png").stat().st_size > 0
