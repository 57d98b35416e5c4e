from helpers import CIFAR_SHAPE, CPU, MNIST_SHAPE, make_experiment, make_task

from hypercl.engine.groups import available_bytes, split_into_groups

PUBLISHED = {
    "mlp_arch": [100, 100],
    "resnet_block_depth": 5,
    "resnet_channel_sizes": [16, 16, 32, 64],
    "hmlp_arch": [100, 100],
}


def test_groups_fit_and_are_of_nearly_equal_size():
    seeds = range(10, 20)
    assert split_into_groups(seeds, 1, 10**9) == [list(seeds)]
    groups = split_into_groups(seeds, 100, 500)  # three at once, in 60 % of the memory
    assert groups == [[10, 11], [12, 13, 14], [15, 16, 17], [18, 19]]
    assert [len(group) for group in split_into_groups(seeds, 1000, 1)] == [1] * 10
    assert [len(group) for group in split_into_groups(seeds, 1, 10**9, most=4)] == [3, 4, 3]


def estimate(shape=MNIST_SHAPE, num_tasks=5, **values):
    values = {**PUBLISHED, "batch_size": 32, "val_batch_size": 32, "n_iter": 1000, **values}
    return make_experiment([make_task(shape)] * num_tasks, **values).bytes_per_member()


def test_estimate_grows_with_what_takes_memory():
    base = estimate()
    assert 5 * 4 * 88_542 < base < 100 * 4 * 88_542  # at least parameters, gradient and Adam
    assert base < estimate(num_tasks=50)
    assert estimate(num_tasks=50, hnet_reg_batch_size=1) < estimate(num_tasks=50)
    assert base < estimate(batch_size=512)
    assert base < estimate(val_batch_size=512)
    assert base < estimate(lookahead=True)
    own = {"method": "der", "mlp_arch": [6]}
    few, many, all_, more = (estimate(replay_budget=n, **own) for n in (20, 100, 320, 10**9))
    assert few + 80 * (28 * 28) <= many <= few + 5 * 80 * (28 * 28 + 99)
    assert many < all_ == more  # of 5 tasks, 64 samples each
    # a ResNet-32 keeps 31 maps of 32x32x16, 16x16x32 or 8x8x64 numbers and their activations
    assert estimate(CIFAR_SHAPE, net_type="resnet") > 2 * 4 * 32 * 11 * 32 * 32 * 16


def test_free_memory_is_that_of_a_machine():
    assert 1 << 26 < available_bytes(CPU) < 1 << 50
