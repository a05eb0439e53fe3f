"""Signals to an agent: how urgent each one is, and none handled outside the main thread."""

import os
import select
import signal
from concurrent.futures import ThreadPoolExecutor

from fer_sweep.agent.interrupts import Interrupts, heard


def test_each_ctrl_c_is_more_urgent_and_wakes_a_select() -> None:
    interrupts = Interrupts()
    before = signal.getsignal(signal.SIGINT)
    with heard(interrupts) as wakeup:
        for level in (1, 2, 3, 3):
            os.kill(os.getpid(), signal.SIGINT)
            assert select.select([wakeup], [], [], 10)[0]
            os.read(wakeup, 4096)
            assert interrupts.level == level
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_ends_waiting_until_it_is_acted_on_and_a_second_one_for_good() -> None:
    interrupts = Interrupts()
    assert not interrupts.end_waiting
    interrupts.ctrl_c(signal.SIGINT, None)
    assert interrupts.end_waiting
    interrupts.heeded = 1
    assert not interrupts.end_waiting, "what runs may take its time"
    interrupts.ctrl_c(signal.SIGINT, None)
    interrupts.heeded = 2
    assert interrupts.end_waiting


def test_outside_the_main_thread_signal_handlers_stay_as_they_were() -> None:
    def handler() -> object:
        with heard(Interrupts()):
            return signal.getsignal(signal.SIGINT)

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(handler).result() is signal.getsignal(signal.SIGINT)
