"""The frame queue and the frame statistics."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.frame_queue import FrameQueue, parse_policy
from spatialnet_edge.runtime.frame_stats import FrameStats


@pytest.mark.parametrize(("text", "capacity", "drops"), [("every", 6, False), ("latest", 1, True), ("queue:5", 5, True)])
def test_policies(text: str, capacity: int, drops: bool) -> None:
    policy = parse_policy(text)
    assert (policy.capacity, policy.drop_oldest) == (capacity, drops)


@pytest.mark.parametrize("text", ["", "newest", "queue", "queue:0", "queue:-1", "queue:x", "queue:10001", "queue:²"])
def test_unknown_policies_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"every, latest or queue:N"):
        parse_policy(text)


@given(st.integers(1, 5), st.lists(st.integers(), max_size=40))
def test_dropping_keeps_the_newest_in_order_and_loses_none_uncounted(capacity: int, items: list[int]) -> None:
    queue: FrameQueue[int] = FrameQueue(capacity, drop_oldest=True)
    dropped = [gone for item in items if (gone := queue.put(item)) is not None]
    queue.close()
    kept = []
    while not queue.finished:
        kept.append(queue.get())
    assert dropped + kept == items
    assert len(kept) == min(capacity, len(items))


def test_waiting_holds_the_producer_until_there_is_room() -> None:
    queue: FrameQueue[int] = FrameQueue(2, drop_oldest=False)
    producer = threading.Thread(target=lambda: [queue.put(item) for item in range(5)])
    producer.start()
    time.sleep(0.1)
    assert len(queue) == 2
    assert [queue.get() for _ in range(5)] == list(range(5))
    producer.join(timeout=5)
    assert not producer.is_alive()


def test_who_waited_for_room_goes_on_when_half_of_it_is_free() -> None:
    queue: FrameQueue[int] = FrameQueue(4, drop_oldest=False)
    producer = threading.Thread(target=lambda: [queue.put(item) for item in range(6)])
    producer.start()
    time.sleep(0.1)
    queue.get()
    time.sleep(0.1)
    assert len(queue) == 3
    queue.get()
    producer.join(timeout=5)
    assert [queue.get() for _ in range(4)] == [2, 3, 4, 5]


def test_closing_frees_a_waiting_producer_and_hands_its_item_back() -> None:
    queue: FrameQueue[int] = FrameQueue(1, drop_oldest=False)
    queue.put(1)
    handed_back: list[int | None] = []
    producer = threading.Thread(target=lambda: handed_back.append(queue.put(2)))
    producer.start()
    time.sleep(0.05)
    queue.close()
    producer.join(timeout=5)
    assert handed_back == [2]


@given(st.lists(st.sampled_from(["capture", "emit", "skip a", "skip b"]), max_size=60))
def test_the_ledger_always_balances(events: list[str]) -> None:
    ledger = FrameStats()
    for event in events:
        name, _, reason = event.partition(" ")
        if name != "capture" and ledger.in_flight == 0:
            continue
        {"capture": ledger.capture, "emit": ledger.emit}.get(name, lambda reason=reason: ledger.skip(reason))()
        assert ledger.captured == ledger.emitted + sum(ledger.skipped.values()) + ledger.in_flight
        assert ledger.in_flight >= 0
    assert ledger.to_dict()["captured"] == ledger.captured
