import torch

from hypercl.hypernet import from_module
from hypercl.memory import available_bytes, estimate_member, split_into_groups
from hypercl.networks import build_hypernet, build_main_net


def test_groups_fit_and_are_of_nearly_equal_size():
    seeds = range(10, 20)
    assert split_into_groups(seeds, 1, 10**9) == [seeds]
    groups = split_into_groups(seeds, 100, 500)  # three at once, in 60 % of the memory
    assert [list(group) for group in groups] == [[10, 11], [12, 13, 14], [15, 16, 17], [18, 19]]
    assert [len(group) for group in split_into_groups(seeds, 1000, 1)] == [1] * 10
    assert [len(group) for group in split_into_groups(seeds, 1, 10**9, most=4)] == [3, 4, 3]


def estimate(net="mlp", num_tasks=5, subset_size=-1, batch_size=32, store_targets=True):
    shape = (28, 28, 1) if net == "mlp" else (32, 32, 3)
    mnet = build_main_net(net, shape, 2)
    module = build_hypernet("chunked_hmlp", mnet.param_shapes, num_tasks)
    hnet, params = from_module(module, activation="relu", dropout_rate=-1)
    return estimate_member(
        hnet,
        params,
        mnet,
        num_tasks=num_tasks,
        subset_size=subset_size,
        store_targets=store_targets,
        heads=None,
        num_inputs=shape[0] * shape[1] * shape[2],
        batch_size=batch_size,
        num_steps=1000,
    )


def test_estimate_grows_with_what_takes_memory():
    base = estimate()
    assert 5 * 4 * 88_542 < base < 100 * 4 * 88_542  # at least parameters, gradient and Adam
    assert base < estimate(num_tasks=50)
    assert estimate(num_tasks=50, subset_size=1) < estimate(num_tasks=50)
    assert base < estimate(batch_size=512)
    # a ResNet-32 keeps 31 maps of 32x32x16, 16x16x32 or 8x8x64 numbers and their activations
    assert estimate("resnet") > 2 * 4 * 32 * 11 * 32 * 32 * 16


def test_free_memory_is_that_of_a_machine():
    assert 1 << 26 < available_bytes(torch.device("cpu")) < 1 << 50
