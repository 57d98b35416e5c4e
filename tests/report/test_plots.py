import pytest

from hypercl.report.plots import accuracy_matrix, accuracy_over_time, task_confusion


def matrix(size, learned):
    return [[90.0 + (t + k) % 10 for k in range(t + 1)] for t in range(learned)]


@pytest.mark.parametrize(("size", "learned"), [(1, 1), (5, 2), (5, 5), (30, 30), (100, 3)])
def test_figures_hold_the_matrix(size, learned, tmp_path):
    accuracy = matrix(size, learned)
    names = [f"digits {i}" for i in range(size)]

    figure = accuracy_matrix([accuracy], names, "title")
    axes = figure.axes[0]
    cells = axes.images[0].get_array()
    assert cells.shape == (size, size)
    for t, row in enumerate(accuracy):
        assert cells[t, : t + 1].tolist() == row
        assert cells[t, t + 1 :].count() == 0  # masked, that is blank
    texts = [text.get_text() for text in axes.texts]
    assert texts == ([f"{v:.1f}" for row in accuracy for v in row] if size <= 20 else [])
    figure.savefig(tmp_path / "matrix.png")

    figure = accuracy_over_time([accuracy], names, "title")
    lines = figure.axes[0].lines
    assert len(lines) == learned + 1
    assert list(lines[0].get_ydata()) == [row[0] for row in accuracy]
    assert list(lines[-1].get_ydata()) == pytest.approx([sum(r) / len(r) for r in accuracy])
    assert "accuracy (%)" in figure.axes[0].get_ylabel()
    figure.savefig(tmp_path / "time.png")


def test_what_was_not_tested_is_left_out(tmp_path):
    seeds = [[[80.0], [None, 70.0], [60.0, 70.0, 50.0]]] * 2
    cells = accuracy_matrix(seeds, ["a", "b", "c"], "title").axes[0].images[0].get_array()
    assert cells[1].tolist() == [None, 70, None]
    figure = accuracy_over_time(seeds, ["a", "b", "c"], "title")
    lines = [line.get_xydata().tolist() for line in figure.axes[0].lines]
    assert lines[0] == [[1, 80], [3, 60]]
    assert lines[-1] == [[1, 80], [3, 60]]  # the means
    figure.savefig(tmp_path / "time.png")


def test_several_seeds_have_their_mean_and_a_band():
    seeds = [[[80.0], [90.0, 70.0]], [[84.0], [96.0, 70.0]]]
    names = ["a", "b"]
    cells = accuracy_matrix(seeds, names, "title").axes[0].images[0].get_array()
    assert cells[0, 0] == 82
    assert cells[1].tolist() == [93, 70]
    axes = accuracy_over_time(seeds, names, "title").axes[0]
    assert list(axes.lines[0].get_ydata()) == [82, 93]
    assert len(axes.collections) == 3  # a band for each task and for their mean
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(96)  # 93 and its standard error, 3
    alone = accuracy_over_time(seeds[:1], names, "title").axes[0]
    assert len(alone.collections) == 0


@pytest.mark.parametrize("size", [3, 30])
def test_task_confusion_shows_every_share(size):
    confusion = [[100.0 if k == t else 0.0 for k in range(size)] for t in range(size)]
    confusion[1][0], confusion[1][1] = 25.0, 75.0
    figure = task_confusion(confusion, [f"t{i}" for i in range(size)], "title")
    axes = figure.axes[0]
    assert axes.images[0].get_array()[1, 0] == 25
    shown = [text.get_text() for text in axes.texts]
    assert shown.count("25.0") == (size == 3)
    assert axes.get_ylabel() == "task"
