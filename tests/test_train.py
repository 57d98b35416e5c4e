import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypnettorch.utils.hnet_regularizer import calc_fix_target_reg, get_current_targets

import train
from hypercl.heads import head_of_each_task
from hypercl.hypernet import from_module, into_module
from hypercl.members import select_members, stack_members
from hypercl.networks import build_hypernet, build_main_net, fresh_stats
from hypercl.regularizer import take_checkpoint
from hypercl.tasks import Split, Task
from train import Training, evaluate, find_failures, make_step, train_task

HOW = Training(
    num_steps=20,
    batch_size=8,
    beta=0.01,
    reg_batch_size=-1,
    lr=1e-3,
    weight_decay=0.0,
    adam_beta1=0.9,
    val_iter=10,
    val_batch_size=16,
    seeds=[1],
)


def make_task(shape=(28, 28, 1), n=64, augmented=False, seed=0):
    """Two classes, dark and bright."""
    generator = torch.Generator().manual_seed(seed)

    def split(n):
        labels = torch.arange(n) % 2
        noise = torch.randint(100, (n, *shape), generator=generator)
        return Split((noise + 155 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels)

    return Task("dark or bright", 2, split(n), split(16), split(30), augmented=augmented)


def make_networks(task, net="mlp", hnet_type="chunked_hmlp", num_tasks=3, **options):
    torch.manual_seed(0)
    small = {
        "mlp_arch": (10,),
        "resnet_block_depth": 1,
        "resnet_channel_sizes": (4, 4, 6, 8),
        "wrn_block_depth": 1,
        "wrn_widening_factor": 1,
    }
    net_options = {
        name: options.pop(name)
        for name in list(options)
        if name in ("batchnorm", "running_stats", "dropout_rate")
    }
    num_outputs = 2 * num_tasks if options.pop("multi_head", False) else 2
    options.pop("all_heads", None)
    mnet = build_main_net(net, task.in_shape, num_outputs, **small, **net_options)
    module = build_hypernet(
        hnet_type, mnet.param_shapes, num_tasks, hmlp_arch=(20, 20), **options
    )  # fmt: skip
    hnet, params = from_module(module, activation="relu", dropout_rate=-1)
    return mnet, module, hnet, stack_members([params])


def run_task(task, task_id=0, how=HOW, factored=None, **options):
    """Train members that start alike, and return all that was reported."""
    mnet, _, hnet, params = make_networks(task, **options)
    params = {name: value.repeat_interleave(len(how.seeds), 0) for name, value in params.items()}
    checkpoint = take_checkpoint(
        hnet, params, task_id, subset_size=how.reg_batch_size, factored=factored
    )
    stats = fresh_stats(mnet, len(how.seeds), torch.device("cpu"))
    reports = list(train_task(hnet, mnet, params, task, task_id, checkpoint, how, stats=stats))
    return reports, hnet, mnet, reports[-1].trained


def losses_of(report, seed=1):
    return report.members[seed]


CIFAR_SHAPE = (32, 32, 3)


@pytest.mark.parametrize("hnet_type", ["chunked_hmlp", "hmlp", "conditional"])
@pytest.mark.parametrize("net", ["mlp", "lenet", "resnet", "resnet batchnorm", "wrn"])
def test_every_pair_of_networks_learns(net, hnet_type):
    task = make_task((28, 28, 1) if net == "lenet" else CIFAR_SHAPE)
    options = {"cond_chunk_embs": True} if hnet_type == "conditional" else {}
    if net == "resnet batchnorm":
        net, options = "resnet", {**options, "batchnorm": True}
    mnet, _, hnet, params = make_networks(
        task, net, "chunked_hmlp" if hnet_type == "conditional" else hnet_type, **options
    )
    how = replace(HOW, num_steps=12, batch_size=32)
    checkpoint = take_checkpoint(hnet, params, 1)
    flat, trained = hnet.to_train(params, 2)
    history = torch.zeros(12, 4, 1)
    step = make_step(hnet, mnet, flat, trained, task, 1, checkpoint, how, history)
    for _ in range(12):
        step()
    losses = history[:, 2, 0]
    assert losses.isfinite().all()
    assert losses[-3:].min() < losses[0]


VARIANTS = {
    "shared": ({}, {}),
    "conditional": ({"cond_chunk_embs": True}, {}),
    "multi-head": ({"multi_head": True}, {}),
    "all heads regularized": ({"multi_head": True, "all_heads": True}, {"lookahead": True}),
    "lookahead": ({"multi_head": True}, {"lookahead": True}),
    "frozen": ({"cond_chunk_embs": True}, {"freeze_prev_embs": True, "weight_decay": 0.1}),
    "clipped": ({}, {"clip_grad_norm": 0.05, "clip_grad_value": 0.01}),
    "clipped lookahead": ({}, {"clip_grad_norm": 0.05, "lookahead": True}),
    "weighted": ({}, {"task_weight": 64, "beta": 3.0}),
    "weighted lookahead": ({"multi_head": True}, {"task_weight": 64, "lookahead": True}),
    "sgd": ({}, {"optimizer": "sgd", "momentum": 0.5}),
}


class InDouble(Task):
    def inputs(self, images):
        return super().inputs(images).double()


@pytest.mark.parametrize("factored", [True, False], ids=["factored", "dense"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_equal_the_plain_loop_on_hypnettorchs_own_api(variant, factored):
    """Fifteen steps in float64: the losses on the way and the parameters after them."""
    options, training = VARIANTS[variant]
    task_id = 2
    multi_head = options.get("multi_head", False)
    own_heads = multi_head and not options.get("all_heads", False)
    task = make_task((5, 5, 1))
    task = InDouble(
        task.name, 2, task.train, task.validation, task.test,
        first_output=2 * task_id if multi_head else None,
    )  # fmt: skip
    how = replace(HOW, **{"num_steps": 15, "beta": 0.05, "lr": 1e-2, **training})
    mnet, module, hnet, params = make_networks(task, chunk_size=30, **options)
    module.double()
    params = {name: value.double() for name, value in params.items()}
    inputs = task.inputs(task.train.images)
    batches = train.draw_steps(task, task_id, None, how).batches[:, 0]
    outputs = [range(2 * i, 2 * i + 2) for i in range(3)]

    regularizer = {"targets": get_current_targets(task_id, module)}
    if own_heads:
        regularizer |= {"mnet": mnet, "inds_of_out_heads": [list(out) for out in outputs]}
    if how.optimizer == "sgd":
        optimizer = torch.optim.SGD(module.parameters(), lr=how.lr, momentum=how.momentum)
    else:
        optimizer = torch.optim.Adam(
            module.parameters(), lr=how.lr, weight_decay=how.weight_decay
        )  # fmt: skip
    frozen = [p for i, p in enumerate(module.conditional_params) if i % 3 < task_id]
    kept = [p.detach().clone() for p in frozen]
    expected = []
    for batch in batches:
        optimizer.zero_grad()
        logits = mnet.forward(inputs[batch], weights=module.forward(cond_id=task_id))
        entropy = F.cross_entropy(logits[:, task.outputs], task.train.labels[batch])
        task_loss = how.task_weight * entropy
        task_loss.backward()
        if how.lookahead:
            regularizer["dTheta"] = task_step(module, optimizer, how.clip_grad_norm)
        drift = calc_fix_target_reg(module, task_id, **regularizer)
        (how.beta * drift).backward()
        if how.freeze_prev_embs:
            for p in frozen:
                p.grad.zero_()
        if how.clip_grad_value > 0:
            torch.nn.utils.clip_grad_value_(module.parameters(), how.clip_grad_value)
        if how.clip_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_(module.parameters(), how.clip_grad_norm)
        optimizer.step()
        if how.freeze_prev_embs:
            for p, value in zip(frozen, kept, strict=True):
                p.data.copy_(value)
        expected.append([entropy.item(), (task_loss + how.beta * drift).item()])

    heads = None
    if own_heads:
        heads = head_of_each_task(mnet.param_shapes, outputs)
    checkpoint = take_checkpoint(hnet, params, task_id, factored=factored, heads=heads)
    flat, trained = hnet.to_train(params, task_id + 1)
    history = torch.zeros(15, 4, 1, dtype=torch.float64)
    step = make_step(hnet, mnet, flat, trained, task, task_id, checkpoint, how, history)
    for _ in range(15):
        step()
    # Inputs are computed in float32 in both, and then converted.
    torch.testing.assert_close(history[:, [0, 2], 0].tolist(), expected, rtol=1e-6, atol=0)
    theirs = [parameter.detach().clone() for parameter in module.internal_params]
    into_module(select_members(hnet.merged(params, trained), 0), module)
    for ours, plain in zip(module.internal_params, theirs, strict=True):
        torch.testing.assert_close(ours.detach(), plain, rtol=1e-5, atol=1e-8)


def task_step(module, optimizer, max_norm):
    """What the optimizer would add to the unconditional parameters with the gradients there are,
    clipped to a norm.
    """
    module_after, optimizer_after = copy.deepcopy([module, optimizer])
    for ahead, now in zip(module_after.parameters(), module.parameters(), strict=True):
        ahead.grad = None if now.grad is None else now.grad.clone()
    if max_norm > 0:
        torch.nn.utils.clip_grad_norm_(module_after.parameters(), max_norm)
    optimizer_after.step()
    pairs = zip(module_after.unconditional_params, module.unconditional_params, strict=True)
    return [(ahead - now).detach() for ahead, now in pairs]


def test_a_task_is_learned_and_reported():
    task = make_task()
    how = replace(HOW, num_steps=100, lr=3e-3)
    reports, hnet, mnet, trained = run_task(task, how=how)
    assert [report.step for report in reports] == [1, *range(10, 101, 10)]
    first, *others = [losses_of(report) for report in reports]
    assert first.validation_accuracy is None
    assert None not in [losses.validation_accuracy for losses in others]
    assert others[-1].loss == others[-1].task_loss < first.task_loss
    assert others[-1].validation_accuracy == 1.0
    assert evaluate(hnet, mnet, trained, task, 0, task.test, 7) == [1.0]


def test_reports_come_every_log_iter_steps_without_validation(monkeypatch):
    monkeypatch.setattr(train, "LOG_ITER", 8)
    task = make_task()
    task = Task("", 2, task.train, Split(task.test.images[:0], task.test.labels[:0]), task.test)
    reports, *_ = run_task(task)
    assert [report.step for report in reports] == [1, 8, 16, 20]
    assert all(losses_of(report).validation_accuracy is None for report in reports)


def test_same_seed_same_losses_other_seed_others():
    task = make_task(CIFAR_SHAPE, augmented=True)
    how = replace(HOW, reg_batch_size=1)
    first, again = ([losses_of(r) for r in run_task(task, 2, how)[0]] for _ in range(2))
    other = [losses_of(r, 2) for r in run_task(task, 2, replace(how, seeds=[2]))[0]]
    assert first == again
    assert first != other


@pytest.mark.parametrize("factored", [True, False], ids=["factored", "dense"])
@pytest.mark.parametrize("subset", [-1, 1], ids=["all earlier", "one earlier"])
@pytest.mark.parametrize("net", ["mlp", "resnet", "resnet running"])
def test_members_learn_what_their_seeds_learn_alone(net, subset, factored):
    """The same data, augmentation and subset exactly; losses to 1e-5; the same test results."""
    task = make_task(CIFAR_SHAPE, augmented=True)
    how = replace(HOW, num_steps=50, lr=1e-4, reg_batch_size=subset, val_iter=1, seeds=[5, 6, 7])
    options = {"net": net.split()[0], "factored": factored}
    if net == "resnet running":
        options |= {"batchnorm": True, "running_stats": True}
        how = replace(how, num_steps=8)  # it makes more of a rounding with every step
        if subset > 0 or not factored:
            pytest.skip("the regularizer has no part in it")
    together, hnet, mnet, trained = run_task(task, 2, how, **options)
    stats = together[-1].stats
    accuracy = evaluate(hnet, mnet, trained, task, 2, task.test, 100, stats)
    for member, seed in enumerate(how.seeds):
        single = replace(how, seeds=[seed])
        plan, plan_alone = (train.draw_steps(task, 2, None, h) for h in (how, single))
        assert torch.equal(plan.batches[:, member], plan_alone.batches[:, 0])
        assert torch.equal(plan.crops.offsets[:, member], plan_alone.crops.offsets[:, 0])
        assert torch.equal(plan.crops.flips[:, member], plan_alone.crops.flips[:, 0])
        alone, _, _, trained_alone = run_task(task, 2, single, **options)
        rel = 1e-4 if stats else 1e-5
        for report, report_alone in zip(together, alone, strict=True):
            assert losses_of(report, seed)[:3] == pytest.approx(
                losses_of(report_alone, seed)[:3], rel=rel, abs=1e-6
            )
        stats_alone = alone[-1].stats
        assert accuracy[member] == pytest.approx(
            evaluate(hnet, mnet, trained_alone, task, 2, task.test, 100, stats_alone)[0], abs=0.04
        )
        for name, value in stats_alone.items():
            torch.testing.assert_close(stats[name][member], value[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("net", ["mlp", "resnet", "wrn"])
def test_running_statistics_are_those_that_hypnettorch_tracks(net):
    """Five steps, and an evaluation by the statistics."""
    task = make_task(CIFAR_SHAPE)
    how = replace(HOW, num_steps=5)
    mnet, _, hnet, params = make_networks(task, net, batchnorm=True, running_stats=True)
    tracking = make_networks(task, net, batchnorm=True)[0]
    for layer in tracking.batchnorm_layers:
        layer._track_running_stats = True
        layer._num_stats -= layer._num_stats
        layer.checkpoint_stats()
    tracking._bn_track_stats = True
    before = fresh_stats(mnet, 1, torch.device("cpu"))
    untouched = {name: value.clone() for name, value in before.items()}
    flat, trained = hnet.to_train(params, 1)
    history = torch.zeros(5, 4, 1)
    stats = {name: value.clone() for name, value in before.items()}
    step = make_step(hnet, mnet, flat, trained, task, 0, None, how, history, stats)
    tracking.train()
    for batch in train.draw_steps(task, 0, None, how).batches[:, 0]:
        weights = hnet.split(hnet.weights(trained, torch.tensor([[0]]))[0, 0])
        tracking.forward(task.inputs(task.train.images[batch]), weights=weights)
        step()
    for layer, own in enumerate(tracking.batchnorm_layers):
        mean, variance = own.get_stats()
        torch.testing.assert_close(stats[f"mean{layer}"][0], mean)
        torch.testing.assert_close(stats[f"variance{layer}"][0], variance)
    tracking.eval()
    weights = hnet.split(hnet.weights(trained, torch.tensor([[0]]))[0, 0])
    logits = tracking.forward(task.inputs(task.test.images), weights=weights)
    expected = (logits.argmax(1) == task.test.labels).double().mean().item()
    after = {name: value.clone() for name, value in stats.items()}
    assert evaluate(hnet, mnet, trained, task, 0, task.test, 100, stats) == [expected]
    assert all(torch.equal(stats[name], after[name]) for name in stats)  # no trace
    assert all(torch.equal(before[name], untouched[name]) for name in before)


def rates_of(how, task, monkeypatch):
    """The learning rates of a task's steps, [steps][members]."""
    rates = []

    class Recorder:
        def __init__(self, flat, gradient, *, lr, **options):
            self.lr, self.state = lr, {}

        def step(self):
            rates.append(self.lr.tolist())

    monkeypatch.setitem(train.OPTIMIZERS, "adam", Recorder)
    run_task(task, how=how)
    return rates


def test_the_learning_rate_falls_after_fixed_epochs(monkeypatch):
    how = replace(
        HOW, num_steps=100, steps_per_epoch=1, lambda_lr_scheduler=True, seeds=[1, 2]
    )  # fmt: skip
    rates = rates_of(how, make_task((4, 4, 1)), monkeypatch)
    assert rates[80] == pytest.approx([1e-3] * 2)
    assert rates[81] == pytest.approx([1e-4] * 2)


def test_the_learning_rate_falls_when_the_validation_accuracy_stays(monkeypatch):
    """The parameters never move, so that accuracies never rise after the first epoch."""
    how = replace(
        HOW, num_steps=32, steps_per_epoch=2, plateau_lr_scheduler=True,
        lambda_lr_scheduler=True, val_iter=7,
    )  # fmt: skip
    rates = rates_of(how, make_task((4, 4, 1)), monkeypatch)
    falls = [step for step in range(1, 32) if rates[step] < rates[step - 1]]
    assert falls == [14, 26]  # after 7 epochs, and after 6 more
    assert rates[14] == pytest.approx([1e-3 * 10**-0.5])


def test_steps_draw_each_kind_of_randomness_from_a_stream_of_its_own():
    plain, augmented = make_task(CIFAR_SHAPE), make_task(CIFAR_SHAPE, augmented=True)
    _, _, hnet, params = make_networks(plain, num_tasks=5)
    checkpoint = take_checkpoint(hnet, params, 3)
    subset = replace(HOW, reg_batch_size=2)
    first = train.draw_steps(plain, 3, checkpoint, HOW)
    second = train.draw_steps(augmented, 3, checkpoint, subset)
    assert torch.equal(first.batches, second.batches)
    assert first.crops is None
    assert second.crops.offsets.shape == (20, 1, 8, 2)
    assert first.earlier.tolist() == [[[0, 1, 2]]]
    assert second.earlier.shape == (20, 1, 2)
    assert not torch.equal(train.draw_steps(plain, 4, checkpoint, HOW).batches, first.batches)
    assert train.draw_steps(plain, 0, None, HOW).earlier.shape == (1, 1, 0)


@pytest.mark.parametrize("factored", [True, False], ids=["factored", "dense"])
def test_a_subset_of_the_earlier_tasks_moves_their_embeddings_alone(factored):
    task = make_task()
    mnet, _, hnet, params = make_networks(task, num_tasks=4)
    how = replace(HOW, num_steps=2, beta=1.0, reg_batch_size=1)
    checkpoint = take_checkpoint(hnet, params, 3, subset_size=1, factored=factored)
    drawn = train.draw_steps(task, 3, checkpoint, how).earlier[1].item()
    flat, trained = hnet.to_train(params, 4)
    step = make_step(hnet, mnet, flat, trained, task, 3, checkpoint, how, torch.zeros(2, 4, 1))
    step()  # at the checkpoint itself, the drift pulls nowhere
    moved = (trained["task_embs"] != params["task_embs"]).any(dim=-1)[0]
    assert moved.nonzero().flatten().tolist() == [3]
    step()
    moved = (trained["task_embs"] != params["task_embs"]).any(dim=-1)[0]
    assert moved.nonzero().flatten().tolist() == [drawn, 3]


def test_divergence_ends_the_task_and_names_task_and_step():
    reports, *_ = run_task(make_task(), task_id=2, how=replace(HOW, lr=1e30, num_steps=200))
    assert reports[-1].step <= 10
    assert reports[-1].members == {}
    assert "not finite in task 3 at step" in reports[-1].failed[1]
    assert "--lr" in reports[-1].failed[1]


def test_one_member_may_fail_while_the_others_go_on():
    task = make_task()
    how = replace(HOW, seeds=[1, 2, 3])
    mnet, _, hnet, params = make_networks(task)
    params = {name: value.repeat_interleave(3, 0) for name, value in params.items()}
    params["weight2"][1] = float("nan")
    checkpoint = take_checkpoint(hnet, params, 1)
    reports = list(train_task(hnet, mnet, params, task, 1, checkpoint, how))
    assert [sorted(report.members) for report in reports] == [[1, 3]] * 3
    assert reports[-1].step == 20
    assert list(reports[-1].failed) == [2]
    assert "task 2 at step 1 " in reports[-1].failed[2]
    assert losses_of(reports[-1], 3).validation_accuracy > 0.4


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
    task = make_task()
    how = replace(HOW, num_steps=60, lr=3e-3, amp=True)
    reports, _, _, trained = run_task(task, task_id=2, how=how)
    exact, *_ = run_task(task, task_id=2, how=replace(how, amp=False))
    assert all(value.dtype == torch.float32 for value in trained.values())
    assert losses_of(reports[0]).task_loss == pytest.approx(losses_of(exact[0]).task_loss, rel=0.02)
    assert losses_of(reports[0]).task_loss != losses_of(exact[0]).task_loss
    assert losses_of(reports[-1]).task_loss < losses_of(reports[0]).task_loss


@pytest.mark.parametrize("was_training", [True, False])
def test_evaluation_leaves_no_trace(was_training):
    task = make_task()
    mnet, _, hnet, params = make_networks(task)
    params = {name: value.requires_grad_() for name, value in params.items()}
    mnet.train(was_training)
    state = torch.get_rng_state()
    generated = []
    forward = mnet.forward
    mnet.forward = lambda *args, **options: (
        generated.append(forward(*args, **options)) or generated[-1]
    )
    (accuracy,) = evaluate(hnet, mnet, params, task, 0, task.test, 7)
    assert mnet.training is was_training
    assert generated
    assert not any(value.requires_grad for value in generated)  # no graph is kept
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(accuracy, float)


def test_evaluation_counts_every_sample_whatever_the_batches():
    task = make_task()
    mnet, _, hnet, params = make_networks(task)
    weights = hnet.split(hnet.weights(params, torch.tensor([[1]]))[0, 0])
    logits = mnet.forward(task.inputs(task.test.images), weights=weights)
    expected = (logits.argmax(1) == task.test.labels).double().mean().item()
    for batch_size in (1, 7, 29, 30, 1000):
        assert evaluate(hnet, mnet, params, task, 1, task.test, batch_size) == [expected]
