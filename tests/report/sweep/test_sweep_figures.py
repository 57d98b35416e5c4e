from dataclasses import replace

import pytest
from stored_sweeps import StoredSearch, sweep_of, write_point

from hypercl.measure import ERROR
from hypercl.report import plots
from hypercl.report.sweep import figures
from hypercl.report.sweep.figures import Scale
from hypercl.report.sweep.points import collect


@pytest.fixture(autouse=True)
def _own_defaults():
    with plots.own_defaults():
        yield


def found(out_dir, *points, sweep=None, **search):
    by_label = {}
    for point in points:
        by_label.setdefault(point.point.label, []).append(point)
    return collect(out_dir, sweep or sweep_of(*by_label), StoredSearch(by_label, **search))


@pytest.fixture
def findings(tmp_path):
    points = [
        write_point(tmp_path, "a", 0, 90.0, sem=0.5, lr=0.001, mlp_arch="50,50"),
        write_point(tmp_path, "a", 1, 92.0, sem=0.5, lr=0.01, mlp_arch="200"),
        write_point(tmp_path, "a", 2, 91.0, lr=0.1),
        write_point(tmp_path, "a", 3, 60.0, state="stopped", lr=1.0, mlp_arch="200"),
        write_point(tmp_path, "a", 4, 0.0, state="diverged", lr=9.0, mlp_arch="200"),
        write_point(tmp_path, "b", 0, 80.0, momentum=0.1),
        write_point(tmp_path, "b", 1, None, state="running", momentum=0.2),
    ]
    return found(tmp_path, *points)


def legend_of(figure):
    return {text.get_text() for text in figure.legends[0].get_texts()}


def test_a_scale_is_linear_logarithmic_or_of_choices():
    linear, log, choices = Scale.of([1, 3]), Scale.of([1e-4, 1e-2]), Scale.of(["b", "a", "b"])
    assert (linear.is_log, log.is_log) == (False, True)
    assert [scale.share(v) for scale, v in ((linear, 2), (log, 1e-3))] == pytest.approx([0.5] * 2)
    assert [choices.at(name) for name in "ab"] == [0, 1]
    assert [text for _, text in log.ticks()][::2] == ["0.0001", "0.001", "0.01"]
    assert Scale.of([True, False]).names == ("on", "off")
    assert (Scale.of([5, 5]).share(5), Scale.of([5, 5]).ticks()) == (0.5, [(0.5, "5")])
    assert Scale.of([0.0, 100.0]).is_log is False


def test_the_best_so_far_never_falls(findings):
    figure = figures.history(findings)
    first, second = figure.axes
    (steps,) = [line for line in first.lines if line.get_label() == "best so far"]
    assert [*steps.get_ydata()] == [90, 92, 92, 92]
    assert [axes.get_title() for axes in (first, second)] == ["a", "b"]
    assert legend_of(figure) == {"finished", "stopped", "diverged", "best", "best so far"}


def test_less_is_better_where_the_metric_says_so(tmp_path):
    points = [write_point(tmp_path, "a", k, 5.0 - k, lr=0.1 + k) for k in range(3)]
    findings = found(tmp_path, *points, sweep=sweep_of("a", higher=False), higher=False)
    (axes,) = figures.history(findings).axes
    (steps,) = [line for line in axes.lines if line.get_label() == "best so far"]
    assert [*steps.get_ydata()] == [5, 4, 3, 3]


def test_errors_of_several_sizes_have_a_logarithmic_axis(tmp_path):
    points = [write_point(tmp_path, "a", k, 10.0**-k, sem=1e-3, lr=0.1 + k) for k in range(4)]
    sweep = sweep_of("a", higher=False)
    in_percent = found(tmp_path, *points, sweep=sweep, higher=False)
    for findings, scale in ((replace(in_percent, measure=ERROR), "log"), (in_percent, "linear")):
        for name in ("history", "metric_against_options", "learning_curves"):
            draw, *_ = figures.FIGURES[name]
            assert draw(findings).axes[0].get_yscale() == scale, name


def test_importance_has_a_bar_an_option(tmp_path):
    points = [write_point(tmp_path, "a", k, 90.0 + k, lr=0.1 + k, momentum=0.1) for k in range(6)]
    (axes,) = figures.importance(found(tmp_path, *points)).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["lr", "momentum"]
    assert [round(bar.get_width(), 6) for bar in axes.patches] == [1, 0]


def test_parallel_lines_go_through_the_values(findings):
    figure = figures.parallel_coordinates(findings)
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["lr", "mlp_arch", "cl1"]
    lines = [line for line in axes.lines if len(line.get_ydata()) == 3]
    assert len(lines) == 4  # without the one that diverged
    (best,) = [line for line in lines if line.get_color() == "crimson"]
    scale = Scale.of([0.001, 0.01, 0.1, 1.0, 9.0])
    assert best.get_ydata()[0] == pytest.approx(scale.share(0.01))
    assert best.get_ydata()[2] == 1.0
    without = [line for line in lines if line.get_ydata()[1] < 0]
    assert len(without) == 1  # mlp_arch is not given
    assert "not given" in {text.get_text() for text in axes.texts}


def test_each_option_has_axes_of_its_own(findings):
    figure = figures.metric_against_options(findings)
    assert [axes.get_xlabel() for axes in figure.axes] == ["lr", "mlp_arch", "momentum"]
    assert figure.axes[0].get_xscale() == "log"
    assert [t.get_text() for t in figure.axes[1].get_xticklabels()] == ["200", "50,50"]
    low, _ = figure.axes[0].get_ylim()
    assert low > 50  # what diverged, with 0 %, is marked at the edge


def test_axes_of_few_decades_have_few_ticks(tmp_path):
    rates = (2e-4, 1e-3, 6e-3)
    figure = figures.metric_against_options(
        found(tmp_path, *(write_point(tmp_path, "a", i, 90.0, lr=lr) for i, lr in enumerate(rates)))
    )
    figure.canvas.draw()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    shown = [t.get_text() for t in axes.get_xticklabels() if low <= t.get_position()[0] <= high]
    assert shown == ["0.0003", "0.001", "0.003"]
    assert not any(t.get_text() for t in axes.get_xticklabels(minor=True))


def test_validations_have_gaps_between_tasks(findings):
    axes = figures.validation_curves(findings).axes[0]
    (best,) = [line for line in axes.lines if line.get_color() == "crimson"]
    assert len(best.get_xdata()) == 3 * 3 + 2
    assert sum(y != y for y in best.get_ydata()) == 2


def test_learning_curves_are_the_metric_after_each_task(findings):
    figure = figures.learning_curves(findings)
    axes = figure.axes[0]
    (best,) = [line for line in axes.lines if line.get_color() == "crimson"]
    assert tuple(best.get_ydata()) == findings.methods[0].best.curve
    assert len(axes.lines) == 4
    assert legend_of(figure) == {"best", "running", "stopped"}  # the last two are gray


@pytest.mark.parametrize("name", figures.FIGURES)
def test_any_findings_can_be_drawn(name, findings, tmp_path):
    """None, one point, names that look like formulas, and many methods."""
    draw, *_ = figures.FIGURES[name]
    assert draw(found(tmp_path, sweep=sweep_of())) is None
    one = found(tmp_path, write_point(tmp_path, "$x_1", 0, 90.0, num_tasks=1, lr=0.1))
    several = found(tmp_path, *(write_point(tmp_path, f"m{k}", 0, 90.0, lr=0.1) for k in range(5)))
    for some in (several, findings):
        assert (draw(some) is None) == (name == "importance")  # of too few points
    if (figure := draw(one)) is not None:
        figure.savefig(tmp_path / "figure.png", dpi=20)
        assert (tmp_path / "figure.png").stat().st_size > 0
