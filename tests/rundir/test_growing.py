import hashlib

import pytest

from hypercl.rundir.growing import GrowingFile, Grown


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def test_the_checksum_is_that_of_the_file_and_of_what_it_goes_on_with(path):
    file = GrowingFile(path, None)
    file.append(b"one\n")
    file.append("± ?\n".encode())
    first = file.grown()
    file.append(b"three\n")
    file.close()
    data = path.read_bytes()
    assert data == "one\n± ?\nthree\n".encode()
    assert first == Grown(9, hashlib.sha256(data[:9]).hexdigest())
    file = GrowingFile(path, first)
    assert path.read_bytes() == data[:9]
    file.append(b"three\n")
    assert file.grown() == Grown(len(data), hashlib.sha256(data).hexdigest())
    file.close()


def test_every_changed_byte_is_noticed_and_named_once(path):
    file = GrowingFile(path, None)
    file.append(b"0123456789\n")
    grown = file.grown()
    file.close()
    good = path.read_bytes()
    for position in range(len(good)):
        changed = bytearray(good)
        changed[position] ^= 1
        path.write_bytes(changed)
        with pytest.warns(UserWarning, match=r"metrics\.jsonl was changed since") as said:
            file = GrowingFile(path, grown)
        assert len(said) == 1
        again = file.grown()
        file.close()
        GrowingFile(path, again).close()  # without a warning, which would be an error
    path.write_bytes(good)
    GrowingFile(path, grown).close()
    GrowingFile(path, grown._replace(sha256=None)).close()  # of an earlier version's checkpoint


def test_a_file_that_is_removed_or_emptied_meanwhile_goes_on(path):
    file = GrowingFile(path, None)
    file.append(b"one\n")
    path.unlink()
    file.append(b"lost\n")
    with pytest.warns(UserWarning, match=r"metrics\.jsonl was removed or replaced while"):
        assert file.grown().length == 0
    file.append(b"two\n")
    assert path.read_text() == "two\n"
    path.write_text("")
    with pytest.warns(UserWarning, match=r"metrics\.jsonl was changed while"):
        assert file.grown().length == 0
    file.append(b"three\n")
    assert file.grown().length == len("three\n")
    file.close()
    assert path.read_text() == "three\n"
