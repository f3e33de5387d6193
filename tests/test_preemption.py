"""What a signal does to a run: one end, whatever libraries make of the exception."""

import os
import signal
import threading
import time

import pytest

from tokenmill.preemption import StoppedError, ended_by_signals, exit_code_of


def hit(number):
    os.kill(os.getpid(), number)
    time.sleep(5)


def beam_does(number):
    """As a runner that catches whatever a step raises, and raises a type of its own."""
    try:
        hit(number)
    except BaseException:
        raise RuntimeError("in a stage") from None


def tfx_does(number):
    """As a library that catches what is an Exception and goes on."""
    try:
        hit(number)
    except Exception:
        time.sleep(5)


@pytest.mark.parametrize("step", [hit, beam_does, tfx_does])
def test_sigterm_is_told_and_gives_75(step):
    handler = signal.getsignal(signal.SIGTERM)
    started = time.monotonic()
    with pytest.raises(StoppedError, match="stopped by SIGTERM") as caught, ended_by_signals():
        step(signal.SIGTERM)
    assert time.monotonic() - started < 4
    assert exit_code_of(caught.value) == 75
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.parametrize("step", [hit, beam_does, tfx_does])
def test_ctrl_c_stays_one(step):
    with pytest.raises(KeyboardInterrupt) as caught, ended_by_signals():
        step(signal.SIGINT)
    assert exit_code_of(caught.value) == 130


def test_an_error_without_a_signal_stays_what_it_is():
    with pytest.raises(ValueError, match="no row") as caught, ended_by_signals():
        raise ValueError("no row")
    assert exit_code_of(caught.value) == 1


def test_where_ctrl_c_is_ignored_it_still_is():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ended_by_signals():
            os.kill(os.getpid(), signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_is_handled():
    came = []

    def body():
        with ended_by_signals():
            came.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert came == [signal.getsignal(signal.SIGTERM)]
