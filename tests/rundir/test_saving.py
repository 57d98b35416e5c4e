import pickle
import subprocess
import sys

import pytest
import torch

from hypercl.errors import InputError
from hypercl.rundir.checkpoint import Position
from hypercl.rundir.checksum import is_whole
from hypercl.rundir.saving import Damaged, decode, encode, load_newest

CONTENT = {
    "tensor": torch.arange(6.0).view(2, 3),
    "dict": {42: {"weight0": torch.ones(3, dtype=torch.int64)}},
    "plain": [1, 2.5, "text", None, True, [], {}],
}


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    return a == b


def test_what_is_written_is_read():
    assert equal(decode(encode(CONTENT)), CONTENT)


def test_equal_content_gives_equal_bytes():
    """Whichever of its strings are one object: a run that goes on has read some of them."""
    content = {"one": {"name": torch.ones(2)}, "two": [{"name": "name"}]}
    name = [str(b"name", "utf-8") for _ in range(3)]
    copied = {"one": {name[0]: torch.ones(2)}, "two": [{name[1]: name[2]}]}
    assert encode(content) == encode(copied) == encode(decode(encode(content)))


def test_torch_reads_such_a_file_as_any_other(tmp_path):
    (tmp_path / "weights.pt").write_bytes(encode(CONTENT))
    assert equal(torch.load(tmp_path / "weights.pt", weights_only=True), CONTENT)


def test_every_flipped_byte_and_every_cut_is_noticed():
    data = encode(CONTENT)
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        with pytest.raises(Damaged):
            decode(bytes(flipped))
    for length in range(0, len(data), 7):
        with pytest.raises(Damaged):
            decode(data[:length])
    with pytest.raises(Damaged):
        decode(data + b" ")


class Trap:
    def __reduce__(self):
        return (print, ("executed",))


def test_nothing_in_a_file_is_executed(capsys):
    """Not even where the sum over it is right."""
    with pytest.raises(Damaged):
        decode(pickle.dumps(Trap()))
    with pytest.raises(Damaged):
        decode(encode({"tensor": Trap()}))
    assert capsys.readouterr().out == ""


def test_the_newest_good_file_is_taken(tmp_path):
    newest, before = tmp_path / "checkpoint.pt", tmp_path / "checkpoint.before.pt"
    assert load_newest([newest, before]) is None
    before.write_bytes(encode({"step": 1}))
    assert load_newest([newest, before]) == {"step": 1}
    newest.write_bytes(encode({"step": 2}))
    assert load_newest([newest, before]) == {"step": 2}


def test_a_damaged_newest_file_gives_way_to_the_one_before(tmp_path):
    newest, before = tmp_path / "checkpoint.pt", tmp_path / "checkpoint.before.pt"
    before.write_bytes(encode({"step": 1}))
    newest.write_bytes(encode({"step": 2})[:-1])
    with pytest.warns(UserWarning, match=r"checkpoint\.pt is damaged: the one before, .*before"):
        assert load_newest([newest, before]) == {"step": 1}
    assert not newest.exists()  # or the next checkpoint would put it in the good one's place


def test_a_file_that_cannot_be_read_is_left_where_it_is(tmp_path):
    newest, before = tmp_path / "checkpoint.pt", tmp_path / "checkpoint.before.pt"
    before.write_bytes(encode({"step": 1}))
    newest.mkdir()
    with pytest.raises(InputError, match=r"checkpoint\.pt cannot be read \(Is a directory\)"):
        load_newest([newest, before])
    assert newest.exists()


def test_where_all_are_damaged_the_message_says_so_and_nothing_is_removed(tmp_path):
    newest, before = tmp_path / "checkpoint.pt", tmp_path / "checkpoint.before.pt"
    newest.write_bytes(b"")
    before.write_bytes(b"PK")
    with pytest.raises(InputError, match=r"checkpoint\.pt and .* are damaged: .*--overwrite"):
        load_newest([newest, before])
    assert newest.exists()
    assert before.exists()


def test_positions_before_a_group_and_behind_the_last():
    groups = [[1, 2], [3]]
    assert Position.start(groups).seeds == [1, 2]
    second = Position.start(groups, 1, learned={1: {}})
    assert (second.seeds, second.task_id, second.params, second.learned) == ([3], 0, None, {1: {}})
    assert Position.start(groups, 2).seeds == []


def test_damage_is_noticed_without_torch(tmp_path):
    path = tmp_path / "weights.pt"
    good = encode(CONTENT)
    path.write_bytes(good)
    assert is_whole(path)
    for position in range(0, len(good), 50):
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        assert not is_whole(path)
    for data in (b"", good[:50], good[:-1], good + b" "):
        path.write_bytes(data)
        assert not is_whole(path)
    names = "import hypercl.rundir.directory, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", names], check=False).returncode == 0


def test_memory_that_runs_out_is_no_damage(monkeypatch):
    """Or a good checkpoint would be removed for it."""

    def run_out(*args, **options):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch, "load", run_out)
    with pytest.raises(RuntimeError, match="memory"):
        decode(encode(CONTENT))
