import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from conftest import make_hypernet
from hypnettorch.utils.hnet_regularizer import calc_fix_target_reg, get_current_targets

import train
from hypercl.errors import RunFailed
from hypercl.hypernet import from_module, into_module
from hypercl.networks import ACTIVATIONS, build_hypernet, build_main_net
from hypercl.regularizer import take_checkpoint
from hypercl.tasks import Split, Task
from train import Training, evaluate, train_step, train_task

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
    seed=1,
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
    net_options = {name: options.pop(name) for name in list(options) if name in ("batchnorm",)}
    mnet = build_main_net(net, task.in_shape, 2, **small, **net_options)
    module = build_hypernet(
        hnet_type, mnet.param_shapes, num_tasks, hmlp_arch=(20, 20), **options
    )  # fmt: skip
    hnet, params = from_module(module, activation=ACTIVATIONS["relu"], dropout_rate=-1)
    return mnet, module, hnet, params


def run_task(task, task_id=0, how=HOW, **options):
    mnet, _, hnet, params = make_networks(task, **options)
    checkpoint = take_checkpoint(hnet, params, task_id)
    leaves = hnet.leaves(params, task_id + 1)
    reports = list(train_task(hnet, mnet, leaves, task, task_id, checkpoint, how))
    return reports, hnet, mnet, leaves


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
    checkpoint = take_checkpoint(hnet, params, 1)
    leaves = hnet.leaves(params, 2)
    optimizer = torch.optim.Adam(leaves.values(), lr=3e-3)
    inputs, labels = task.inputs(task.train.images[:16]), task.train.labels[:16]
    ids = {"task_id": torch.tensor([1]), "earlier": torch.tensor([0])}
    losses = [
        train_step(
            hnet, mnet, leaves, optimizer, inputs, labels, beta=0.01, checkpoint=checkpoint, **ids
        ).loss.item()
        for _ in range(12)
    ]
    assert all(math.isfinite(loss) for loss in losses)
    assert min(losses[-3:]) < losses[0]


@pytest.mark.parametrize("options", [{}, {"cond_chunk_embs": True}], ids=["shared", "conditional"])
def test_steps_equal_the_plain_loop_on_hypnettorchs_own_api(options):
    """Fifteen steps in float64: the parameters after them, and the losses on the way."""
    task = make_task((5, 5, 1))
    task_id, beta = 2, 0.05
    mnet, module, hnet, params = make_networks(task, chunk_size=30, **options)
    module.double()
    params = {name: value.double() for name, value in params.items()}
    inputs = task.inputs(task.train.images).double()
    batches = torch.randint(64, (15, 8), generator=torch.Generator().manual_seed(4))

    targets = get_current_targets(task_id, module)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    expected = []
    for batch in batches:
        optimizer.zero_grad()
        logits = mnet.forward(inputs[batch], weights=module.forward(cond_id=task_id))
        loss = F.cross_entropy(logits, task.train.labels[batch])
        loss = loss + beta * calc_fix_target_reg(module, task_id, targets=targets)
        loss.backward()
        optimizer.step()
        expected.append(loss.item())

    checkpoint = take_checkpoint(hnet, params, task_id)
    leaves = hnet.leaves(params, task_id + 1)
    optimizer = torch.optim.Adam(leaves.values(), lr=1e-2)
    losses = [
        train_step(
            hnet,
            mnet,
            leaves,
            optimizer,
            inputs[batch],
            task.train.labels[batch],
            torch.tensor([task_id]),
            checkpoint=checkpoint,
            earlier=torch.arange(task_id),
            beta=beta,
        ).loss.item()
        for batch in batches
    ]
    torch.testing.assert_close(losses, expected, rtol=1e-9, atol=0)
    theirs = [parameter.detach().clone() for parameter in module.internal_params]
    into_module(hnet.merged(params, leaves), module)
    for ours, plain in zip(module.internal_params, theirs, strict=True):
        torch.testing.assert_close(ours.detach(), plain, rtol=1e-7, atol=1e-10)


def test_a_task_is_learned_and_reported():
    task = make_task()
    reports, hnet, mnet, leaves = run_task(task, how=replace(HOW, num_steps=100, lr=3e-3))
    assert [report.step for report in reports] == [1, *range(10, 101, 10)]
    assert [report.validation_accuracy is None for report in reports] == [True, *[False] * 10]
    assert reports[-1].loss == reports[-1].task_loss < reports[0].task_loss
    assert reports[-1].validation_accuracy == 1.0
    assert evaluate(hnet, mnet, leaves, task, 0, task.test, 7) == 1.0


def test_reports_come_every_log_iter_steps_without_validation(monkeypatch):
    monkeypatch.setattr(train, "LOG_ITER", 8)
    task = make_task()
    task = Task("", 2, task.train, Split(task.test.images[:0], task.test.labels[:0]), task.test)
    reports, *_ = run_task(task)
    assert [report.step for report in reports] == [1, 8, 16, 20]
    assert all(report.validation_accuracy is None for report in reports)


def test_same_seed_same_losses_other_seed_others():
    task = make_task(CIFAR_SHAPE, augmented=True)
    how = replace(HOW, reg_batch_size=1)
    other = replace(how, seed=2)
    first, again, different = (run_task(task, task_id=2, how=h)[0] for h in (how, how, other))
    assert first == again
    assert first != different


def test_steps_draw_each_kind_of_randomness_from_a_stream_of_its_own():
    plain, augmented = make_task(CIFAR_SHAPE), make_task(CIFAR_SHAPE, augmented=True)
    _, hnet, params = make_hypernet(hnet_type="hmlp")
    checkpoint = take_checkpoint(hnet, params, 3)
    subset = replace(HOW, reg_batch_size=2)
    first = train.draw_steps(plain, 3, checkpoint, HOW)
    second = train.draw_steps(augmented, 3, checkpoint, subset)
    assert torch.equal(first.batches, second.batches)
    assert first.crops is None
    assert second.crops.offsets.shape == (20, 8, 2)
    assert first.earlier.tolist() == [[0, 1, 2]] * 20
    assert second.earlier.shape == (20, 2)
    assert not torch.equal(train.draw_steps(plain, 4, checkpoint, HOW).batches, first.batches)
    assert train.draw_steps(plain, 0, None, HOW).earlier.shape == (20, 0)


def test_a_subset_of_the_earlier_tasks_moves_their_embeddings_alone():
    task = make_task()
    mnet, _, hnet, params = make_networks(task, num_tasks=4)
    checkpoint = take_checkpoint(hnet, params, 3)
    leaves = hnet.leaves(params, 4)
    with torch.no_grad():
        for name, leaf in leaves.items():
            if name.startswith("weight"):
                leaf += 0.01
    before = leaves["task_embs"].detach().clone()
    optimizer = torch.optim.Adam(leaves.values(), lr=1e-3)
    train_step(
        hnet,
        mnet,
        leaves,
        optimizer,
        task.inputs(task.train.images[:8]),
        task.train.labels[:8],
        torch.tensor([3]),
        checkpoint=checkpoint,
        earlier=torch.tensor([1]),
        beta=1.0,
    )
    moved = (leaves["task_embs"] != before).any(dim=1)
    assert moved.tolist() == [False, True, False, True]


def test_divergence_names_task_and_step():
    how = replace(HOW, lr=1e30)
    with pytest.raises(RunFailed, match=r"not finite in task 3 at step \d+ .*--lr"):
        run_task(make_task(), task_id=2, how=how)


def test_the_first_step_that_is_not_finite_is_named():
    fine = [0.5, 0.1, 0.6, 1.0]
    train._require_finite([fine, fine], 0, 5)
    for bad in ([math.nan, 0.1, 0.6, 1.0], [0.5, math.inf, 0.6, 1.0]):
        with pytest.raises(RunFailed, match="task 1 at step 6 "):
            train._require_finite([fine, bad, bad], 0, 5)


@pytest.mark.parametrize("was_training", [True, False])
def test_evaluation_leaves_no_trace(was_training):
    task = make_task()
    mnet, _, hnet, params = make_networks(task)
    leaves = hnet.leaves(params, 1)
    mnet.train(was_training)
    state = torch.get_rng_state()
    accuracy = evaluate(hnet, mnet, leaves, task, 0, task.test, 7)
    assert mnet.training is was_training
    assert all(leaf.grad is None for leaf in leaves.values())
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(accuracy, float)


def test_evaluation_counts_every_sample_whatever_the_batches():
    task = make_task()
    mnet, _, hnet, params = make_networks(task)
    weights = hnet.split(hnet.weights(params, torch.tensor([1]))[0])
    logits = mnet.forward(task.inputs(task.test.images), weights=weights)
    expected = (logits.argmax(1) == task.test.labels).double().mean().item()
    for batch_size in (1, 7, 29, 30, 1000):
        assert evaluate(hnet, mnet, params, task, 1, task.test, batch_size) == expected
