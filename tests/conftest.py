"""Fixtures that several test files use."""

import signal

import numpy as np
import pytest
from helpers import HYPERNETS, fake_images, make_hypernet

from hypercl.engine import groups
from hypercl.interruption import ENDING
from hypercl.report import drawer
from hypercl.report.results import Report
from hypercl.tasks import images
from hypercl.tasks.mixture import Mixture
from hypercl.tasks.task import Task


@pytest.fixture(params=HYPERNETS)
def hypernet(request):
    """Each kind of hypernetwork in turn, in float64."""
    return make_hypernet(**HYPERNETS[request.param])


@pytest.fixture
def cifar_dir(tmp_path, monkeypatch):
    """A data directory with small stand-ins for CIFAR-10 and CIFAR-100."""
    for name, num_classes in (("cifar10", 10), ("cifar100", 100)):
        made = fake_images(num_classes, 12, (32, 32, 3))
        np.savez(tmp_path / f"{name}.npz", **made._asdict())
    not_checked = images._DATASETS["cifar10"]._replace(md5=None)
    monkeypatch.setitem(images._DATASETS, "cifar10", not_checked)
    return tmp_path


@pytest.fixture
def few_digits(tmp_path, monkeypatch):
    """A working directory of its own, few images in MNIST's place, and no plots, which are most of
    a tiny run's time.
    """
    made = fake_images(10, 40, (28, 28))
    monkeypatch.setattr(images, "load_images", lambda name, data_dir: made)
    monkeypatch.setattr(Report, "_write_plots", lambda self: None)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def drawn_here(monkeypatch):
    """Plots are drawn in this process, as where no other one can be started."""

    def refuse():
        raise OSError

    monkeypatch.setattr(drawer, "start", refuse)


@pytest.fixture
def double_inputs(monkeypatch):
    """Inputs of main networks are computed in float32, and then converted."""
    for owner in (Task, Mixture):
        inputs = owner.inputs
        monkeypatch.setattr(owner, "inputs", lambda *args, inputs=inputs: inputs(*args).double())


@pytest.fixture
def one_by_one(monkeypatch):
    """Each seed is a group."""
    monkeypatch.setattr(groups, "available_bytes", lambda device: 1)


def pytest_configure():
    """Have signals the effect that they have in a terminal, also below nohup and in the background
    of a script, where some are ignored and would be by the processes of the tests.
    """
    for number in ENDING:
        if signal.getsignal(number) == signal.SIG_IGN:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)
