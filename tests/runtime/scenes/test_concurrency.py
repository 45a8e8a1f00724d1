import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from sfiin.runtime.scenes.concurrency import Behind, ahead


def test_items_come_in_order_and_are_made_in_a_thread_of_their_own() -> None:
    makers = set()

    def items() -> Iterator[int]:
        for i in range(50):
            makers.add(threading.get_ident())
            yield i

    assert list(ahead(items(), 3)) == list(range(50))
    assert makers.isdisjoint({threading.get_ident()})
    assert len(makers) == 1


def test_no_more_are_made_than_there_is_room_for() -> None:
    made = []

    def items() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    stream = ahead(items(), 2)
    assert next(stream) == 0
    time.sleep(0.05)
    assert len(made) <= 4  # one taken, two waiting, one in hand
    stream.close()
    count = len(made)
    time.sleep(0.05)
    assert len(made) == count
    assert not [thread for thread in threading.enumerate() if thread.name == "reader"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failure_is_raised_where_its_item_was_asked_for(failure: type[BaseException]) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise failure("no more")

    stream = ahead(items(), 5)
    assert next(stream) == 1
    with pytest.raises(failure, match="no more"):
        next(stream)


def test_work_is_done_in_order_before_the_block_ends() -> None:
    done: list[int] = []

    def slowly(i: int) -> None:
        time.sleep(0.001)
        done.append(i)

    with Behind(2) as behind:
        for i in range(20):
            behind.do(partial(slowly, i))
    assert done == list(range(20))
    assert not [thread for thread in threading.enumerate() if thread.name == "writer"]


def test_after_a_failure_nothing_more_is_done_and_it_is_raised() -> None:
    done: list[int] = []

    def fail() -> None:
        raise OSError("full")

    def work() -> None:
        with Behind(1) as behind:
            behind.do(lambda: done.append(1))
            behind.do(fail)
            for _ in range(100):
                behind.do(lambda: done.append(2))

    with pytest.raises(OSError, match="full"):
        work()
    assert done == [1]


def test_a_failure_of_the_last_piece_is_raised_too() -> None:
    def fail() -> None:
        raise OSError("full")

    def work() -> None:
        with Behind(1) as behind:
            behind.do(fail)

    with pytest.raises(OSError, match="full"):
        work()


def test_an_error_in_the_block_drops_what_waits() -> None:
    done: list[int] = []

    def work() -> None:
        with Behind(50) as behind:
            behind.do(lambda: time.sleep(0.05))
            for i in range(40):
                behind.do(partial(done.append, i))
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        work()
    assert not done
