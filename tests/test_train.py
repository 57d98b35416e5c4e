import copy
import math

import pytest
import torch
import torch.nn.functional as F
from helpers import CIFAR_SHAPE, CPU, MNIST_SHAPE, in_double, make_experiment, make_task
from hypnettorch.utils.hnet_regularizer import calc_fix_target_reg, get_current_targets

import train
from hypercl import testing
from hypercl.engine import optimizers
from hypercl.engine.members import select_members
from hypercl.evaluation import Learned, evaluate
from hypercl.methods.hnet.choice import take_anchor
from hypercl.networks.hnet_modules import into_module
from hypercl.rundir.checkpoint import Position
from hypercl.tasks.task import Split, Task
from train import TaskTraining, find_failures

# As JSON has them; what a test does not say.
INITIAL = 4  # seed of the parameters that members start from
FEW = {"n_iter": 20, "batch_size": 8, "lr": 1e-3, "val_iter": 10, "val_batch_size": 16}


def few(tasks, **values):
    """An experiment of few steps; the same task three times, or tasks that are given."""
    tasks = [tasks] * 3 if isinstance(tasks, Task) else tasks
    return make_experiment(tasks, **{**FEW, **values})


def begin(experiment, task_id=0, seeds=(1,), params=None, factored=None):
    """The training of a task, by members that start alike unless parameters are given."""
    if params is None:
        params = experiment.method.init([INITIAL] * len(seeds))
    stats = experiment.net.fresh_stats(len(seeds), CPU)
    training = TaskTraining(experiment, task_id, list(seeds), params, stats, memory={})
    if factored is not None:
        options = experiment.options.method.kind
        anchor = take_anchor(
            experiment.method.hnet, params, task_id, factored=factored,
            subset_size=options.hnet_reg_batch_size, heads=experiment.method.heads,
        )  # fmt: skip
        training.anchor = training.anchor._replace(outputs=anchor)
    return training


def finish(training):
    """Take all steps; what was logged, by step."""
    reports = {}
    for step in range(1, training.num_steps + 1):
        training.step()
        if training.is_logged(step):
            reports[step] = training.log(step)
        if len(training.failed) == len(training.seeds):
            break
    return reports


def learned(experiment, training, task_id=0):
    """What a training has learned, to be tested on its task."""
    params = experiment.method.merged(training._before, training.trained, task_id)
    stats = [training.stats] * (task_id + 1)
    return Learned(experiment.net, experiment.method, params, stats)


@pytest.mark.parametrize("hnet_type", ["chunked_hmlp", "hmlp", "conditional"])
@pytest.mark.parametrize("net", ["mlp", "lenet", "resnet", "resnet batchnorm", "wrn"])
def test_every_pair_of_networks_learns(net, hnet_type):
    task = make_task(MNIST_SHAPE if net == "lenet" else CIFAR_SHAPE)
    options = {"net_type": net.split()[0], "hnet_type": hnet_type}
    if hnet_type == "conditional":
        options |= {"hnet_type": "chunked_hmlp", "use_cond_chunk_embs": True}
    if net == "resnet batchnorm":
        options |= {"batchnorm": True, "bn_no_running_stats": True}
    training = begin(few(task, n_iter=12, batch_size=32, **options), 1)
    finish(training)
    losses = training.history[:, 2, 0]
    assert losses.isfinite().all()
    assert losses[-3:].min() < losses[0]


VARIANTS = {
    "shared": {},
    "conditional": {"use_cond_chunk_embs": True},
    "multi-head": {"multi_head": True},
    "all heads regularized": {"multi_head": True, "hnet_reg_all_heads": True, "lookahead": True},
    "lookahead": {"multi_head": True, "lookahead": True},
    "frozen": {"use_cond_chunk_embs": True, "freeze_prev_embs": True, "weight_decay": 0.1},
    "frozen lookahead": {"freeze_prev_embs": True, "lookahead": True, "clip_grad_norm": 0.05},
    "clipped": {"clip_grad_norm": 0.05, "clip_grad_value": 0.01},
    "clipped lookahead": {"clip_grad_norm": 0.05, "lookahead": True},
    "weighted": {"task_loss": "total", "beta": 3.0},
    "weighted lookahead": {"multi_head": True, "task_loss": "total", "lookahead": True},
    "sgd": {"use_sgd": True, "momentum": 0.5},
}


class InDouble(Task):
    def inputs(self, images):
        return super().inputs(images).double()


def tasks_in_double(multi_head):
    """The same task three times, its inputs computed in float32 and then converted."""
    task = make_task((5, 5, 1))
    splits = task.train, task.validation, task.test
    heads = [slice(0, 2), slice(2, 4), slice(4, 6)] if multi_head else [slice(None)] * 3
    return [InDouble(task.name, 2, *splits, outputs=outputs) for outputs in heads]


@pytest.mark.parametrize("factored", [True, False], ids=["factored", "dense"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_equal_the_plain_loop_on_hypnettorchs_own_api(variant, factored):
    """Fifteen steps in float64: the losses on the way and the parameters after them."""
    values = {"n_iter": 15, "beta": 0.05, "lr": 1e-2, "chmlp_chunk_size": 30, **VARIANTS[variant]}
    multi_head, task_id = values.get("multi_head", False), 2
    tasks = tasks_in_double(multi_head)
    experiment, task = few(tasks, **values), tasks[task_id]
    module = experiment.method.fresh_module(seed=INITIAL).double()
    params = in_double(experiment.method.init([INITIAL]))
    training = begin(experiment, task_id, params=params, factored=factored)
    training.history = training.history.double()

    theirs = plain_steps(experiment, module, task, task_id, training.plan.batches[:, 0])
    finish(training)
    # Inputs are computed in float32 in both, and then converted.
    ours = training.history[:, [0, 2], 0].tolist()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
    after = [parameter.detach().clone() for parameter in module.internal_params]
    merged = experiment.method.merged(params, training.trained, task_id)
    into_module(select_members(merged, 0), module)
    for our_value, plain in zip(module.internal_params, after, strict=True):
        torch.testing.assert_close(our_value.detach(), plain, rtol=1e-5, atol=1e-8)


def plain_steps(experiment, module, task, task_id, batches):
    """The same steps with hypnettorch's regularizer and torch's optimizers; losses of each step."""
    train_options, method = experiment.options.train, experiment.options.method.kind
    mnet, inputs = experiment.net.module, task.inputs(task.train.images)
    weight = experiment.task_loss(task).weight
    regularizer = {"targets": get_current_targets(task_id, module)}
    if experiment.options.task.multi_head and not method.hnet_reg_all_heads:
        heads = [list(range(2 * i, 2 * i + 2)) for i in range(3)]
        regularizer |= {"mnet": mnet, "inds_of_out_heads": heads}
    if train_options.use_sgd:
        optimizer = torch.optim.SGD(
            module.parameters(), lr=train_options.lr, momentum=train_options.momentum
        )
    else:
        optimizer = torch.optim.Adam(
            module.parameters(), lr=train_options.lr, weight_decay=train_options.weight_decay
        )
    frozen = [p for i, p in enumerate(module.conditional_params) if i % 3 < task_id]
    kept = [p.detach().clone() for p in frozen]
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        logits = mnet.forward(inputs[batch], weights=module.forward(cond_id=task_id))
        entropy = F.cross_entropy(logits[:, task.outputs], task.train.labels[batch])
        task_loss = weight * entropy
        task_loss.backward()
        if method.lookahead:
            regularizer["dTheta"] = task_step(module, optimizer, train_options.clip_grad_norm)
        penalty = calc_fix_target_reg(module, task_id, **regularizer)
        (method.beta * penalty).backward()
        if method.freeze_prev_embs:
            for p in frozen:
                p.grad.zero_()
        if train_options.clip_grad_value is not None:
            torch.nn.utils.clip_grad_value_(module.parameters(), train_options.clip_grad_value)
        if train_options.clip_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(module.parameters(), train_options.clip_grad_norm)
        optimizer.step()
        if method.freeze_prev_embs:
            for p, value in zip(frozen, kept, strict=True):
                p.data.copy_(value)
        losses.append([entropy.item(), (task_loss + method.beta * penalty).item()])
    return losses


def task_step(module, optimizer, max_norm):
    """What the optimizer would add to the unconditional parameters with the gradients there are,
    clipped to a norm.
    """
    module_after, optimizer_after = copy.deepcopy([module, optimizer])
    for ahead, now in zip(module_after.parameters(), module.parameters(), strict=True):
        ahead.grad = None if now.grad is None else now.grad.clone()
    if max_norm is not None:
        torch.nn.utils.clip_grad_norm_(module_after.parameters(), max_norm)
    optimizer_after.step()
    pairs = zip(module_after.unconditional_params, module.unconditional_params, strict=True)
    return [(ahead - now).detach() for ahead, now in pairs]


def test_a_task_is_learned_and_reported():
    task = make_task()
    experiment = few(task, n_iter=100, lr=3e-3)
    training = begin(experiment)
    reports = finish(training)
    assert list(reports) == [1, *range(10, 101, 10)]
    first, *others = [report[1] for report in reports.values()]
    assert first.validation_accuracy is None
    assert None not in [losses.validation_accuracy for losses in others]
    assert others[-1].loss == others[-1].task_loss < first.task_loss
    assert others[-1].validation_accuracy == 1.0
    assert evaluate(learned(experiment, training), task, 0, task.test, 7) == [1.0]


def test_reports_come_every_log_iter_steps_without_validation(monkeypatch):
    monkeypatch.setattr(train, "LOG_ITER", 8)
    task = make_task()
    task = Task("", 2, task.train, Split(task.test.images[:0], task.test.labels[:0]), task.test)
    reports = finish(begin(few(task)))
    assert list(reports) == [1, 8, 16, 20]
    assert all(report[1].validation_accuracy is None for report in reports.values())


def test_same_seed_same_losses_other_seed_others():
    task = make_task(CIFAR_SHAPE, augmented=True)
    experiment = few(task, hnet_reg_batch_size=1)
    first, again = (finish(begin(experiment, 2)) for _ in range(2))
    other = finish(begin(experiment, 2, seeds=[2]))
    assert first == again
    assert [r[1] for r in first.values()] != [r[2] for r in other.values()]


@pytest.mark.parametrize("factored", [True, False], ids=["factored", "dense"])
@pytest.mark.parametrize("subset", [-1, 1], ids=["all earlier", "one earlier"])
@pytest.mark.parametrize("net", ["mlp", "resnet", "resnet running"])
def test_members_learn_what_their_seeds_learn_alone(net, subset, factored):
    """The same data, augmentation and subset exactly; losses to 2e-5; the same test results."""
    task = make_task(CIFAR_SHAPE, augmented=True)
    values = {"net_type": net.split()[0], "n_iter": 50, "lr": 1e-4, "val_iter": 1}
    if net == "resnet running":
        values |= {"batchnorm": True, "n_iter": 8}  # it makes more of a rounding with every step
        if subset > 0 or not factored:
            pytest.skip("the regularizer has no part in it")
    experiment, seeds = few(task, hnet_reg_batch_size=subset, **values), [5, 6, 7]
    together = begin(experiment, 2, seeds, factored=factored)
    reports = finish(together)
    accuracy = evaluate(learned(experiment, together, 2), task, 2, task.test, 100)
    for member, seed in enumerate(seeds):
        alone = begin(experiment, 2, [seed], factored=factored)
        plan, plan_alone = together.plan, alone.plan
        assert torch.equal(plan.batches[:, member], plan_alone.batches[:, 0])
        assert torch.equal(plan.crops.offsets[:, member], plan_alone.crops.offsets[:, 0])
        assert torch.equal(plan.crops.flips[:, member], plan_alone.crops.flips[:, 0])
        assert torch.equal(plan.drawn[:, member % len(plan.drawn[0])], plan_alone.drawn[:, 0])
        rel = 1e-4 if together.stats else 2e-5
        for step, report in finish(alone).items():
            assert reports[step][seed][:3] == pytest.approx(report[seed][:3], rel=rel, abs=1e-6)
        tested = evaluate(learned(experiment, alone, 2), task, 2, task.test, 100)
        assert accuracy[member] == pytest.approx(tested[0], abs=0.04)
        for name, value in alone.stats.items():
            torch.testing.assert_close(together.stats[name][member], value[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("net", ["mlp", "resnet", "wrn"])
def test_running_statistics_are_those_that_hypnettorch_tracks(net):
    """Five steps, and an evaluation by the statistics."""
    task = make_task(CIFAR_SHAPE)
    experiment = few(task, n_iter=5, net_type=net, batchnorm=True)
    tracking = few(task, net_type=net, batchnorm=True, bn_no_running_stats=True).net.module
    for layer in tracking.batchnorm_layers:
        layer._track_running_stats = True
        layer._num_stats -= layer._num_stats
        layer.checkpoint_stats()
    tracking._bn_track_stats = True
    training = begin(experiment)
    current = torch.tensor([[0]])

    def weights():
        return experiment.net.split(experiment.method.weights(training.trained, current)[0, 0])

    tracking.train()
    for batch in training.plan.batches[:, 0]:
        tracking.forward(task.inputs(task.train.images[batch]), weights=weights())
        training.step()
    for layer, own in enumerate(tracking.batchnorm_layers):
        mean, variance = own.get_stats()
        torch.testing.assert_close(training.stats[f"mean{layer}"][0], mean)
        torch.testing.assert_close(training.stats[f"variance{layer}"][0], variance)
    tracking.eval()
    logits = tracking.forward(task.inputs(task.test.images), weights=weights())
    expected = (logits.argmax(1) == task.test.labels).double().mean().item()
    after = {name: value.clone() for name, value in training.stats.items()}
    assert evaluate(learned(experiment, training), task, 0, task.test, 100) == [expected]
    assert all(torch.equal(training.stats[name], after[name]) for name in after)  # no trace


def test_a_task_starts_from_statistics_that_stay():
    experiment = few(make_task(), batchnorm=True)
    before = experiment.net.fresh_stats(1, CPU)
    training = TaskTraining(experiment, 0, [1], experiment.method.init([INITIAL]), before, {})
    finish(training)
    assert any((training.stats[name] != before[name]).any() for name in before)
    fresh = experiment.net.fresh_stats(1, CPU)
    assert all(torch.equal(before[name], fresh[name]) for name in before)


def rates_of(monkeypatch, seeds=(1,), **values):
    """The learning rates of a task's steps, [steps][members]."""
    rates = []

    class Recorder:
        def __init__(self, flat, gradient, *, lr, **options):
            self.lr, self.state = lr, {}

        def step(self):
            rates.append(self.lr.tolist())

    monkeypatch.setattr(optimizers, "Adam", Recorder)
    finish(begin(few(make_task((4, 4, 1)), **values), seeds=seeds))
    return rates


def test_the_learning_rate_falls_after_fixed_epochs(monkeypatch):
    rates = rates_of(
        monkeypatch, [1, 2], n_iter=100, batch_size=64, lambda_lr_scheduler=True
    )  # fmt: skip
    assert rates[80] == pytest.approx([1e-3] * 2)
    assert rates[81] == pytest.approx([1e-4] * 2)


def test_the_learning_rate_falls_when_the_validation_accuracy_stays(monkeypatch):
    """The parameters never move, so that accuracies never rise after the first epoch."""
    rates = rates_of(
        monkeypatch, n_iter=32, batch_size=32, plateau_lr_scheduler=True,
        lambda_lr_scheduler=True, val_iter=7,
    )  # fmt: skip
    falls = [step for step in range(1, 32) if rates[step] < rates[step - 1]]
    assert falls == [14, 26]  # after 7 epochs, and after 6 more
    assert rates[14] == pytest.approx([1e-3 * 10**-0.5])


def test_steps_draw_each_kind_of_randomness_from_a_stream_of_its_own():
    plain = few([make_task(CIFAR_SHAPE)] * 5)
    subset = few([make_task(CIFAR_SHAPE, augmented=True)] * 5, hnet_reg_batch_size=2)
    first, second = (begin(experiment, 3).plan for experiment in (plain, subset))
    assert torch.equal(first.batches, second.batches)
    assert first.crops is None
    assert second.crops.offsets.shape == (20, 1, 8, 2)
    assert first.drawn.tolist() == [[[0, 1, 2, 3]]]  # the earlier tasks and the current one
    assert second.drawn.shape == (20, 1, 3)
    assert (second.drawn[..., -1] == 3).all()
    assert not torch.equal(begin(plain, 4).plan.batches, first.batches)
    assert begin(plain, 0).plan.drawn.tolist() == [[[0]]]


@pytest.mark.parametrize("factored", [True, False], ids=["factored", "dense"])
def test_a_subset_of_the_earlier_tasks_moves_their_embeddings_alone(factored):
    experiment = few([make_task()] * 4, n_iter=2, beta=1.0, hnet_reg_batch_size=1)
    params = experiment.method.init([INITIAL])
    training = begin(experiment, 3, params=params, factored=factored)
    drawn = training.plan.drawn[1, 0, 0].item()

    def moved():
        changed = (training.trained["task_embs"] != params["task_embs"]).any(dim=-1)[0]
        return changed.nonzero().flatten().tolist()

    training.step()  # at the anchor itself, the penalty pulls nowhere
    assert moved() == [3]
    training.step()
    assert moved() == [drawn, 3]


def test_frozen_embeddings_are_not_among_what_is_trained():
    experiment = few(make_task(), freeze_prev_embs=True, use_cond_chunk_embs=True, beta=1.0)
    params = experiment.method.init([INITIAL])
    training = begin(experiment, 2, params=params)
    assert training.trained["task_embs"].shape[1] == training.trained["chunk_embs"].shape[1] == 1
    finish(training)
    merged = experiment.method.merged(params, training.trained, 2)
    for name in ("task_embs", "chunk_embs"):
        assert torch.equal(merged[name][:, :2], params[name][:, :2])
        assert not torch.equal(merged[name][:, 2], params[name][:, 2])
    assert not torch.equal(merged["weight0"], params["weight0"])


@pytest.mark.parametrize("frozen", [False, True])
def test_what_is_trained_is_merged_back_and_the_rest_stays(frozen):
    experiment = few([make_task()] * 4, freeze_prev_embs=frozen)
    params = experiment.method.init([0, 1])
    before = {name: value.clone() for name, value in params.items()}
    training = begin(experiment, 2, [1, 2], params=params)
    training._flat.add_(1)  # what the parameters trained are views of
    merged = experiment.method.merged(params, training.trained, 2)
    training._flat.add_(1)  # what was merged stays
    for name, value in merged.items():
        assert torch.equal(params[name], before[name])
        learned_rows = slice(2 if frozen else 0, 3) if name == "task_embs" else slice(None)
        expected = before[name].clone()
        expected[:, learned_rows] += 1
        assert torch.equal(value, expected)


def test_divergence_ends_the_task_and_names_task_and_step():
    training = begin(few(make_task(), lr=1e30, n_iter=200), 2)
    reports = finish(training)
    last = max(reports)
    assert last <= 10
    assert reports[last] == {}
    assert "not finite in task 3 at step" in training.failed[1]
    assert "--lr" in training.failed[1]


def test_one_member_may_fail_while_the_others_go_on():
    experiment = few(make_task())
    params = experiment.method.init([INITIAL] * 3)
    params["weight2"][1] = float("nan")
    training = begin(experiment, 1, [1, 2, 3], params=params)
    reports = finish(training)
    assert [sorted(report) for report in reports.values()] == [[1, 3]] * 3
    assert max(reports) == 20
    assert list(training.failed) == [2]
    assert "task 2 at step 1 " in training.failed[2]
    assert reports[20][3].validation_accuracy > 0.4


def test_the_first_step_that_is_not_finite_is_named():
    fine = [[0.5, 0.5], [0.1, 0.1], [0.6, 0.6], [1.0, 1.0]]
    assert find_failures([fine, fine], [8, 9], 0, 5) == {}
    for field, value in ((0, math.nan), (1, math.inf)):
        bad = [list(row) for row in fine]
        bad[field][1] = value
        failures = find_failures([fine, bad, bad], [8, 9], 0, 5)
        assert list(failures) == [9]
        assert "task 1 at step 6 " in failures[9]


def test_bfloat16_for_the_main_network_learns_too_and_leaves_the_rest_in_float32():
    task, values = make_task(), {"n_iter": 60, "lr": 3e-3}
    training = begin(few(task, amp=True, **values), 2)
    reports, exact = finish(training), finish(begin(few(task, **values), 2))
    assert all(value.dtype == torch.float32 for value in training.trained.values())
    first, exact_first = reports[1][1].task_loss, exact[1][1].task_loss
    assert first == pytest.approx(exact_first, rel=0.02)
    assert first != exact_first
    assert reports[60][1].task_loss < first


class Ledger:
    """Stands for the report and for the checkpoints."""

    def __init__(self):
        self.positions, self.rows, self.inferred = [], [], []
        self.at_start, self.accuracy_before = None, {}  # the second by task and seed
        self.leave_at = self.start_task = self.end_training = self.step = lambda *_: None
        self.draw_generated = lambda *_: None
        self.due = self.pauses_at = lambda *_: False
        self.save = self.positions.append

    def lacks_untrained(self, seeds, task_ids):
        return self.at_start is None

    def untrained(self, task_id, task_ids, accuracy):
        self.at_start = accuracy

    def lacks_before(self, seeds, task_id):
        return task_id > 0

    def before(self, task_id, accuracy):
        self.accuracy_before[task_id] = accuracy

    def end_task(self, task_id, accuracy, inferred, kept):
        self.rows.append(accuracy)
        self.inferred.append(inferred is not None)


def learn_all(experiment, seeds=(1,)):
    ledger = Ledger()
    done = train.learn_tasks(experiment, Position.start([list(seeds)]), ledger, ledger)
    return ledger, done


STATS = {"net_type": "resnet", "batchnorm": True, "n_iter": 4}


@pytest.mark.parametrize("values", [{}, STATS, {**STATS, "bn_no_stats_checkpointing": True}])
def test_tasks_are_tested_before_they_are_learned(values, monkeypatch):
    """By hand: the task's embedding as initialized, and statistics as training would start."""
    experiment = few([make_task(CIFAR_SHAPE, seed=seed) for seed in range(3)], **values)
    ledger, done = learn_all(experiment, [1, 2])
    fresh = experiment.net.fresh_stats(2, CPU)

    def by_hand(params, stats, task_id):
        networks = Learned(experiment.net, experiment.method, params, [stats] * 3)
        task = experiment.tasks[task_id]
        accuracies = evaluate(networks, task, task_id, task.test, 16)
        return dict(zip([1, 2], [100 * accuracy for accuracy in accuracies], strict=True))

    initial = experiment.method.init([1, 2])
    for k in (1, 2):
        expected = by_hand(initial, fresh, k)
        assert {seed: row[k - 1] for seed, row in ledger.at_start.items()} == expected
        after = ledger.positions[k - 1]  # all tasks before k
        stats = after.stats[-1] if "bn_no_stats_checkpointing" in values else fresh
        expected = by_hand(after.params, stats, k)
        assert {seed: row[0] for seed, row in ledger.accuracy_before[k].items()} == expected
    monkeypatch.setattr(testing, "before_task", lambda *_: None)
    _, without = learn_all(experiment, [1, 2])
    for seed in (1, 2):
        for name, value in done.learned[seed].items():
            assert torch.equal(without.learned[seed][name], value)
        for ours, theirs in zip(done.learned_stats[seed], without.learned_stats[seed], strict=True):
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_members_are_tested_as_they_would_be_alone():
    experiment = few([make_task(seed=seed) for seed in range(3)])
    together, _ = learn_all(experiment, [1, 2])
    alone, _ = learn_all(experiment, [2])
    assert together.at_start[2] == alone.at_start[2]
    before = [ledger.accuracy_before[1][2] for ledger in (together, alone)]
    assert before[0] == pytest.approx(before[1], abs=4)  # one of 30


@pytest.mark.parametrize("every", [1, 2, 5])
def test_all_tasks_are_tested_every_so_often_and_at_the_end(every):
    tasks = [make_task((6, 6, 1), seed=seed) for seed in range(5)]
    values = {"n_iter": 2, "scenarios_every_task": True}
    (all_rows, done), (some, same) = (
        learn_all(few(tasks, test_iter=n, **values)) for n in (1, every)
    )
    for number, (rows, expected) in enumerate(zip(some.rows, all_rows.rows, strict=True), start=1):
        tested = number % every == 0 or number == 5
        missing = 0 if tested else number - 1
        assert rows[1] == [None] * missing + expected[1][missing:]
        assert some.inferred[number - 1] == tested
    assert some.accuracy_before == all_rows.accuracy_before
    for name, value in done.learned[1].items():
        assert torch.equal(same.learned[1][name], value)
