from hypercl.heads import head_of_each_task, one_head

SHAPES = [[3, 4], [3], [6, 3], [6]]  # the output layer has weights 15 … 32 and biases 33 … 38
OUTPUTS = [range(0, 2), range(2, 4), range(4, 6)]


def test_one_head_uses_all():
    heads = one_head(SHAPES)
    assert heads.num_weights == heads.shared == 39
    assert heads.of_task(5) == [range(39)]
    assert heads.mask(5).sum() == 39


def test_a_head_of_each_task():
    heads = head_of_each_task(SHAPES, OUTPUTS)
    assert heads.shared == 15
    assert heads.of_task(1) == [range(15), range(21, 27), range(35, 37)]
    assert heads.mask(1).nonzero().flatten().tolist() == [*range(15), *range(21, 27), 35, 36]


def test_an_output_layer_without_bias():
    heads = head_of_each_task([[3, 4], [6, 3]], OUTPUTS)
    assert heads.of_task(2) == [range(12), range(24, 30)]
