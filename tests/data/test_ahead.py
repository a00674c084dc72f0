"""Reading ahead: the same in the same order, and no further than asked."""

import threading

import pytest

from fopro_lab.data.batches import read_ahead


def test_all_items_come_in_order_from_one_other_thread():
    threads = set()

    def read(item):
        threads.add(threading.current_thread().name)
        return item * 2

    assert list(read_ahead(range(50), read, depth=4)) == [2 * item for item in range(50)]
    assert len(threads) == 1 and threading.current_thread().name not in threads


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_is_read_than_the_depth(depth):
    taken = []

    def items():
        for item in range(100):
            taken.append(item)
            yield item

    stream = read_ahead(items(), lambda item: item, depth=depth)
    assert next(stream) == 0
    assert len(taken) == depth + 1  # the one that came, and those ahead
    stream.close()
    assert len(taken) == depth + 1


def test_a_failure_comes_where_its_item_is():
    stream = read_ahead([1, 0, 2], lambda item: 2 // item)
    assert next(stream) == 2
    with pytest.raises(ZeroDivisionError):
        next(stream)


def test_nothing_to_read_yields_nothing():
    assert list(read_ahead([], str)) == []
