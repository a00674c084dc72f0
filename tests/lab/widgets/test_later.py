import asyncio
import threading
import time

from fopro_lab.widgets.networks import Later


def later_of(work, told, failed, **kwargs):
    return Later(work, told.append, fail=failed.append, **kwargs)


def test_without_a_loop_the_answer_waits_for_flush():
    told, failed = [], []
    later = later_of(lambda x, wanted: 2 * x, told, failed)
    later.ask(1)
    later.ask(2)
    assert later.pending and told == []
    later.flush()
    later.flush()
    assert told == [4] and not later.pending and failed == []


def test_in_a_loop_the_last_question_alone_is_answered_beside_it():
    told, failed, threads = [], [], []

    def work(x, wanted):
        threads.append(threading.current_thread() is threading.main_thread())
        return x

    async def move():
        later = later_of(work, told, failed, wait=0.05)
        for number in range(20):
            later.ask(number)
            await asyncio.sleep(0.001)
        while later.pending:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(move(), 20))
    assert told == [19] and threads == [False]


def test_an_overtaken_answer_is_dropped_and_told_to_stop():
    told, failed, stopped = [], [], threading.Event()

    def work(x, wanted):
        if x == "slow":
            begun = time.monotonic()
            while wanted() and time.monotonic() - begun < 10:
                time.sleep(0.005)
            stopped.set()
        return x

    async def move():
        later = later_of(work, told, failed, wait=0.01)
        later.ask("slow")
        await asyncio.sleep(0.1)  # it is at work now, and the loop is free
        later.ask("quick")
        while later.pending:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(move(), 20))
    assert stopped.is_set() and told == ["quick"]


def test_a_failure_is_told_and_the_next_question_answered():
    told, failed = [], []
    later = later_of(lambda x, wanted: 1 / x, told, failed)
    for number in (0, 1):
        later.ask(number)
        later.flush()
    assert told == [1.0] and len(failed) == 1 and not later.pending
