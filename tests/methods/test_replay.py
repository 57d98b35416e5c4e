"""What the buffer of replay keeps, and of what it is filled."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from helpers import make_experiment, make_sequence, random_weights, task_end

from hypercl.methods import replay as module
from hypercl.methods.replay import reservoir_sources
from hypercl.tasks.mixture import network_labels
from hypercl.tasks.task import Split

SEEDS = [3, 8]
SIZES, N = (2, 3, 2), 24


def fill(options, scenario=1, method="replay", tasks=None, seeds=SEEDS, dtype=torch.float64):
    """The experiment; the buffer after each task; the weights then."""
    tasks = make_sequence(scenario, SIZES, n=N) if tasks is None else tasks
    experiment = make_experiment(tasks, method=method, cl_scenario=scenario, **options)
    memory, buffers, weights = {}, [], []
    for task_id in range(len(tasks)):
        weights.append(random_weights(experiment.net, len(seeds), task_id, dtype))
        end = task_end(experiment, task_id, seeds)
        with experiment.net.evaluating():
            memory = experiment.method.after_task({"weights": weights[-1]}, memory, end)
        buffers.append(memory)
    return experiment, buffers, weights


def classes_in(buffer, member):
    """How many samples there are of each class of each task."""
    pairs = zip(buffer["task_ids"][member].tolist(), buffer["labels"][member].tolist(), strict=True)
    return Counter(pairs)


def test_a_budget_is_shared_by_all_classes_so_far():
    _, buffers, _ = fill({"replay_budget": 20})
    first = {(0, 0): 10, (0, 1): 10}
    second = dict.fromkeys([(0, 0), (0, 1), (1, 2), (1, 3), (1, 4)], 4)
    third = dict.fromkeys([*second, (2, 5), (2, 6)], 2)  # 20 // 7
    for buffer, expected in zip(buffers, (first, second, third), strict=True):
        for member in range(2):
            assert classes_in(buffer, member) == expected
    assert not torch.equal(buffers[0]["images"][0], buffers[0]["images"][1])  # of other seeds


@pytest.mark.parametrize("options", [{"replay_budget": 40}, {"replay_per_class": 9}])
def test_of_a_class_with_few_samples_all_are_kept(options):
    tasks = make_sequence(1, SIZES, n=N)
    few = tasks[1].train
    kept = torch.cat([(few.labels == 0).nonzero()[:3], (few.labels > 0).nonzero()]).flatten()
    tasks[1] = replace(tasks[1], train=Split(few.images[kept], few.labels[kept]))
    _, buffers, _ = fill(options, tasks=tasks)
    most = [20, 8, 5] if "replay_budget" in options else [9, 9, 9]
    there = {(0, 0): 12, (0, 1): 12, (1, 2): 3, (1, 3): 8, (1, 4): 8, (2, 5): 12, (2, 6): 12}
    for task_id, buffer in enumerate(buffers):
        expected = {
            pair: min(number, most[task_id]) for pair, number in there.items() if pair[0] <= task_id
        }
        assert classes_in(buffer, 0) == expected


def rows(buffer, member, pair):
    task_ids, labels = buffer["task_ids"][member], buffer["labels"][member]
    return [
        image
        for image, *here in zip(
            buffer["images"][member], task_ids.tolist(), labels.tolist(), strict=True
        )
        if tuple(here) == pair
    ]


def test_when_the_buffer_shrinks_the_first_samples_of_each_class_stay():
    """They were drawn in a random order, so that these are random ones."""
    _, buffers, _ = fill({"replay_budget": 20})
    for before, after in pairwise(buffers):
        for pair, number in classes_in(before, 1).items():
            old, new = rows(before, 1, pair), rows(after, 1, pair)
            assert len(new) < number
            assert all(map(torch.equal, new, old[: len(new)]))


@pytest.mark.parametrize("scenario", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [{"replay_budget": 21}, {"replay_per_class": 5},
     {"replay_budget": 30, "replay_sampling": "reservoir"},
     {"replay_budget": 1000, "replay_sampling": "reservoir"}],
    ids=str,
)  # fmt: skip
def test_samples_are_the_tasks_own_and_logits_those_after_the_task(
    scenario, options, double_inputs, monkeypatch
):
    monkeypatch.setattr(module, "_AT_ONCE", 7)
    experiment, buffers, weights = fill(options, scenario, method="der")
    last, net = buffers[-1], experiment.net
    for member in range(2):
        seen = set()
        for image, label, task_id, logits in zip(
            *(last[name][member] for name in ("images", "labels", "task_ids", "logits")),
            strict=True,
        ):
            task = experiment.tasks[task_id]
            same = (task.train.images == image).flatten(1).all(1).nonzero().flatten()
            assert len(same) == 1
            assert label == network_labels(task, task.train.labels, net.num_outputs)[same]
            assert (task_id.item(), same.item()) not in seen  # none twice
            seen.add((task_id.item(), same.item()))
            expected = net.logits(weights[task_id][member], task.inputs(image[None]), {})[0]
            torch.testing.assert_close(logits, expected)
        if options["replay_budget" if "replay_budget" in options else "replay_per_class"] == 1000:
            assert len(seen) == 3 * N
    assert last["labels"].shape == last["images"].shape[:2]


def test_a_seed_keeps_what_it_would_keep_alone():
    for options in ({"replay_budget": 20}, {"replay_budget": 20, "replay_sampling": "reservoir"}):
        (_, together, _), (_, alone, _) = fill(options), fill(options, seeds=SEEDS[1:])
        for name, value in alone[-1].items():
            assert torch.equal(together[-1][name][1:], value)


def algorithm_r(stream, capacity, draw):
    """Vitter (1985): the i-th sample, from 0, takes the place ``draw(i)`` where there is one."""
    reservoir = []
    for i, sample in enumerate(stream):
        if i < capacity:
            reservoir.append(sample)
        elif (place := draw(i)) < capacity:
            reservoir[place] = sample
    return reservoir


@pytest.mark.parametrize("capacity", [1, 5, 12, 100])
@pytest.mark.parametrize("sizes", [(4, 9, 13), (30,), (1, 1, 40)])
def test_the_reservoir_is_algorithm_rs(sizes, capacity):
    """With the same random numbers: an order of each task's samples, and a number a sample."""
    stream, uniform, reservoir = [], [], torch.empty(0, 2, dtype=torch.int64)
    for task_id, size in enumerate(sizes):
        draw = torch.Generator().manual_seed(task_id)
        order = torch.randperm(size, generator=draw)
        uniform += torch.rand(size, generator=draw, dtype=torch.float64).tolist()
        generator = torch.Generator().manual_seed(task_id)
        source = reservoir_sources(len(stream), size, capacity, generator)
        samples = torch.stack([torch.full((size,), task_id), torch.arange(size)], dim=1)
        reservoir = torch.cat([reservoir, samples])[source]
        stream += [(task_id, i) for i in order.tolist()]
        expected = algorithm_r(stream, capacity, lambda i, u=uniform: int(u[i] * (i + 1)))
        assert [tuple(row) for row in reservoir.tolist()] == expected


def test_each_sample_has_the_same_chance_to_be_in_the_reservoir():
    """The statistic is chi-square's with 39 degrees of freedom, times the share that is left out,
    three quarters: its mean is 30, its standard deviation 6.8.
    """
    sizes, capacity, times = (7, 20, 13), 10, 2000
    counts = torch.zeros(sum(sizes))
    generator = torch.Generator().manual_seed(0)
    for _ in range(times):
        reservoir, seen = torch.empty(0, dtype=torch.int64), 0
        for size in sizes:
            source = reservoir_sources(seen, size, capacity, generator)
            reservoir = torch.cat([reservoir, seen + torch.arange(size)])[source]
            seen += size
        counts[reservoir] += 1
    assert counts.sum() == times * capacity
    expected = times * capacity / sum(sizes)
    chi_square = ((counts - expected).square() / expected).sum().item()
    assert 30 - 3 * 6.8 < chi_square < 30 + 3 * 6.8


def test_steps_run_through_the_whole_buffer_before_they_repeat():
    experiment, buffers, _ = fill(
        {"replay_budget": 21, "replay_batch_size": 7}, dtype=torch.float32
    )
    anchor = experiment.method.remember({}, buffers[1], 2)
    drawn = experiment.method.draw(anchor, 2, 6, torch.Generator().manual_seed(0))
    assert drawn.shape == (6, 7, 1)
    slots = buffers[1]["labels"].shape[1]
    assert sorted(drawn.flatten()[:slots].tolist()) == list(range(slots))
    twice = make_experiment(experiment.tasks, method="derpp", replay_batch_size=7).method
    assert twice.draw(anchor, 2, 6, torch.Generator().manual_seed(0)).shape == (6, 14, 1)
