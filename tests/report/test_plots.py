import math

import numpy as np
import pytest

from hypercl.report.plots import (
    LossHistory,
    accuracy_matrix,
    accuracy_over_time,
    losses,
    replay,
    task_confusion,
)


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
    assert len(lines) == learned + (2 if size > 20 else 1)  # with many, also that just learned
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
    assert band[:, 1].max() == pytest.approx(93 + 18**0.5)  # 93 and the standard deviation
    assert axes.get_title() == "title\nmean ± standard deviation, n = 2 seeds"
    alone = accuracy_over_time(seeds[:1], names, "title").axes[0]
    assert len(alone.collections) == 0
    assert alone.get_title() == "title"


def test_gaps_are_empty_cells_and_lines_join_the_points_that_there_are():
    seeds = [[[90.0], [None, 80.0], [70.0, 60.0, 50.0]]] * 2
    cells = accuracy_matrix(seeds, ["a", "b", "c"], "title").axes[0].images[0].get_array()
    assert cells.mask.tolist() == [[False, True, True], [True, False, True], [False] * 3]
    lines = accuracy_over_time(seeds, ["a", "b", "c"], "title").axes[0].lines
    assert [list(line.get_xdata()) for line in lines] == [[1, 3], [2, 3], [3], [1, 3]]
    assert [list(line.get_ydata()) for line in lines] == [[90, 70], [80, 60], [50], [90, 60]]


def loss_rows(seeds, tasks):
    return [
        {"seed": seed, "task": task, "step": step, "task_loss": 1.0 + seed, "penalty": float(task)}
        for task in range(tasks)
        for step in (1, 5, 8)
        for seed in seeds
    ]


def test_losses_run_over_the_steps_of_all_tasks():
    rows = loss_rows([1, 3], 2)
    history = LossHistory.of([*rows, {**rows[0], "step": 9}], [1, 3])  # of one seed alone
    assert [step for step in history.steps if not math.isnan(step)] == [1, 5, 8, 9, 13, 16]
    assert history.ends == [8, 16]
    assert history.task_loss[:, 0].tolist() == [2, 4]
    assert history.penalty[:, -1].tolist() == [1, 1]
    figure = losses(history, "title")
    top, bottom = figure.axes
    assert top.lines[0].get_ydata()[0] == 3
    assert top.get_yscale() == bottom.get_yscale() == "log"
    boundaries = top.collections[-1].get_segments()
    assert [segment[0][0] for segment in boundaries] == [8]
    assert figure.get_suptitle() == "title\nmean ± standard deviation, n = 2 seeds"


def test_a_methods_own_losses_have_a_panel_each():
    rows = [{**row, "of_encoder": 5.0 + row["step"]} for row in loss_rows([1, 3], 2)]
    del rows[0]["of_encoder"]  # as an earlier version has written it
    history = LossHistory.of(rows, [1, 3], ["of_encoder"])
    figure = losses(history, "title")
    assert [axes.get_ylabel() for axes in figure.axes][2:] == ["of encoder"]
    own = figure.axes[2].lines[0].get_ydata()
    assert list(own[1:3]) == [10, 13]
    assert math.isnan(own[0])
    assert figure.get_figheight() > losses(LossHistory.of(rows, [1, 3]), "title").get_figheight()


def test_a_penalty_that_is_rounding_does_not_stretch_the_axis():
    rows = loss_rows([1], 2)
    rows[3]["penalty"] = 1e-10
    bottom = losses(LossHistory.of(rows, [1]), "title").axes[1]
    assert bottom.get_ylim()[0] > 0.1


@pytest.mark.parametrize(("tasks", "seeds"), [(1, [1]), (100, [1, 2])])
def test_losses_of_one_task_and_of_many_can_be_drawn(tasks, seeds, tmp_path):
    figure = losses(LossHistory.of(loss_rows(seeds, tasks), seeds), "title")
    figure.savefig(tmp_path / "losses.png")


@pytest.mark.parametrize("size", [3, 30])
def test_task_confusion_shows_every_share(size):
    confusion = [[100.0 if k == t else 0.0 for k in range(size)] for t in range(size)]
    confusion[1][0], confusion[1][1] = 25.0, 75.0
    perfect = [[100.0 if k == t else 0.0 for k in range(size)] for t in range(size)]
    by_rule = {"entropy": [confusion], "scaled": [perfect]}
    figure = task_confusion(by_rule, [f"t{i}" for i in range(size)], "title")
    of_entropy, of_scaled, _ = figure.axes  # and the colors' scale
    assert of_entropy.images[0].get_array()[1, 0] == 25
    assert of_scaled.images[0].get_array()[1, 0] == 0
    shown = [text.get_text() for text in of_entropy.texts]
    assert shown.count("25.0") == (size == 3)
    assert of_entropy.get_ylabel() == "task"
    right = 100 * (1 - 0.25 / size)
    assert of_entropy.get_title() == f"by entropy: {right:.1f} % right"
    assert of_scaled.get_title() == "by scaled: 100.0 % right"


def test_rules_that_agree_share_a_heatmap():
    confusion, other = [[80.0, 20.0], [0.0, 100.0]], [[50.0, 50.0], [10.0, 90.0]]
    by_rule = {"entropy": [confusion], "confidence": [confusion], "scaled": [other]}
    first, second, _ = task_confusion(by_rule, ["digits 0-1", "digits 2-3"], "title").axes
    assert first.get_title() == "by entropy and confidence: 90.0 % right"
    assert second.get_title() == "by scaled: 70.0 % right"


@pytest.mark.parametrize("size", [2, 5, 10])
def test_nothing_around_the_heatmaps_overlaps_or_is_cut_off(size):
    drawn = np.random.default_rng(0)
    by_rule = {rule: [drawn.uniform(0, 100, (size, size)).tolist()] for rule in "abc"}
    figure = task_confusion(by_rule, [f"digits {i}-{i + 1}" for i in range(size)], "title")
    figure.draw_without_rendering()
    title = figure._suptitle.get_window_extent()
    for axes in figure.axes[:3]:
        assert axes.title.get_window_extent().y1 <= title.y0
        assert axes.xaxis.label.get_window_extent().y0 >= 0


@pytest.mark.parametrize(("rows", "channels"), [(1, 1), (3, 1), (30, 3)])
def test_generated_images_stand_in_a_row_for_each_task(rows, channels):
    images = np.random.default_rng(0).integers(0, 200, (rows, 4, 5, 6, channels), dtype=np.uint8)
    figure = replay(images, [f"task {i}" for i in range(rows)], "title")
    (axes,) = figure.axes
    (shown,) = (image.get_array() for image in axes.get_images())
    shown = np.asarray(shown).reshape(*shown.shape[:2], channels)
    assert shown.shape == (rows * 7 - 2, 4 * 8 - 2, channels)
    for row in range(rows):
        for column in range(4):
            there = shown[row * 7 : row * 7 + 5, column * 8 : column * 8 + 6]
            assert (there == images[row, column]).all()
    assert (shown[5:7] == 255).all() or rows == 1  # between the rows
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[0] == ("all tasks" if rows == 1 else "task 0" if rows < 20 else "task 2")
