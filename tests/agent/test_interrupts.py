"""Signals to an agent: how urgent each one is, and none handled outside the main thread."""

import os
import select
import signal
import threading

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
    before = signal.getsignal(signal.SIGINT)
    woken: list[object] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with heard(Interrupts()) as wakeup:
                woken.extend(select.select([wakeup], [], [], 0.01)[0])
                assert signal.getsignal(signal.SIGINT) is before
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed and not woken
