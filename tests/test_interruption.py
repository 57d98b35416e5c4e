import os
import signal
import threading

import pytest

from hypercl.interruption import Interrupted, Interruption


def send(*numbers):
    for number in numbers:
        os.kill(os.getpid(), number)


def at_once(*numbers):
    with Interruption():
        send(*numbers)


def in_grace(work):
    with Interruption() as interruption, interruption.grace():
        work(interruption)


ENDING = {"INT": 130, "TERM": 143, "HUP": 129, "USR1": 138, "USR2": 140, "XCPU": 152}


@pytest.mark.parametrize(
    ("number", "code"), [(signal.Signals[f"SIG{name}"], code) for name, code in ENDING.items()]
)
def test_a_signal_outside_a_grace_counts_at_once(number, code):
    with pytest.raises(Interrupted) as error:
        at_once(number)
    assert error.value.exit_code == code
    assert str(error.value) == signal.Signals(number).name


def test_a_signal_that_is_ignored_stays_so():
    """As nohup ignores SIGHUP for the program that it starts."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        at_once(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_first_signal_in_a_grace_is_noted():
    def work(interruption):
        interruption.leave_if_pending()
        send(signal.SIGTERM)
        assert interruption.pending == signal.SIGTERM
        interruption.leave_if_pending()
        pytest.fail("not reached")

    with pytest.raises(Interrupted) as error:
        in_grace(work)
    assert error.value.exit_code == 143


def test_a_second_signal_in_a_grace_counts_at_once():
    def work(interruption):
        send(signal.SIGTERM, signal.SIGINT)
        pytest.fail("not reached")

    with pytest.raises(Interrupted) as error:
        in_grace(work)
    assert error.value.exit_code == 130


def test_a_signal_overlooked_in_a_grace_counts_after_it():
    done = []

    def work(interruption):
        send(signal.SIGINT)
        done.append("work")

    with pytest.raises(Interrupted):
        in_grace(work)
    assert done == ["work"]


def test_an_error_in_a_grace_goes_before_a_signal():
    def work(interruption):
        send(signal.SIGINT)
        raise ValueError("own")

    with pytest.raises(ValueError, match="own"):
        in_grace(work)


def test_handlers_are_put_back():
    def handlers():
        return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    before = handlers()
    with Interruption():
        assert handlers() != before
    assert handlers() == before
    with pytest.raises(Interrupted):
        in_grace(lambda _: send(signal.SIGINT, signal.SIGINT))
    assert handlers() == before


def test_in_another_thread_nothing_is_installed():
    found = []

    def use():
        with Interruption() as interruption, interruption.grace():
            found.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert found == [before]
