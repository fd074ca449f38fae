"""A device that several channels share: opened by the first, closed behind the last, each gets its own blocks."""

import threading
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import pytest

from fisher_edge.dsp.blocks import Block
from fisher_edge.errors import BadInputError, UsageError
from fisher_edge.sources.shared import Devices, DeviceThread, Feed

WAIT_S = 20.0


@dataclass
class Card:
    """A sound card of two channels, on which every sample is the number of its channel times its index.

    What happens to it is written down in order. It delivers a block whenever `ticks` lets it.
    """

    events: list[str] = field(default_factory=list)
    ticks: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    delivered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    opened: threading.Event = field(default_factory=threading.Event)
    broken: threading.Event = field(default_factory=threading.Event)

    def read(self, stop: threading.Event) -> Generator[tuple[int, Block], None, None]:
        """Open the card, yield blocks of both channels, close the card."""
        self.events.append("opened")
        self.opened.set()
        try:
            index = 0
            while not stop.is_set():
                if not self.ticks.acquire(timeout=0.05):
                    continue
                if self.broken.is_set():
                    raise BadInputError("the card is gone; plug it in again")
                for channel in (1, 2):
                    yield channel, Block(channel * np.arange(index, index + 10, dtype=np.float32), 8000, index, 0.0)
                index += 10
                self.delivered.release()
        finally:
            self.events.append("closed")

    def open(self) -> DeviceThread[Block]:
        """Return the card as a device that can be shared."""
        return DeviceThread("card", self.read)


def taken(feed: Feed[Block], samples: int) -> np.ndarray:
    """Take so many samples of a feed."""
    blocks: list[Block] = []
    while sum(len(block.samples) for block in blocks) < samples:
        got = feed.take(WAIT_S)
        assert got, "nothing came"
        blocks += got
    return np.concatenate([block.samples for block in blocks])


def test_two_channels_share_a_device() -> None:
    """Each channel, on a thread of its own, gets its samples; the card is opened once and closed once."""
    card, devices = Card(), Devices[DeviceThread[Block]]()
    ready, done = threading.Barrier(3), threading.Barrier(3)
    got: dict[int, np.ndarray] = {}

    def channel(number: int) -> None:
        with devices.use("hw:1", card.open) as device, device.feed(number) as feed:
            ready.wait(WAIT_S)
            got[number] = taken(feed, 50)
            done.wait(WAIT_S)

    threads = [threading.Thread(target=channel, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    ready.wait(WAIT_S)
    card.ticks.release(5)
    done.wait(WAIT_S)
    for thread in threads:
        thread.join(WAIT_S)
    assert {number: list(samples) for number, samples in got.items()} == {
        1: list(range(50)),
        2: list(range(0, 100, 2)),
    }
    assert card.events == ["opened", "closed"]


def test_last_channel_closes_the_device() -> None:
    """Whichever channel leaves first, the other goes on; behind the last one the card is closed when `use` returns."""
    card, devices = Card(), Devices[DeviceThread[Block]]()
    for first_to_leave in (0, 1):
        card.events.clear()
        stacks = [ExitStack(), ExitStack()]
        opened = [stack.enter_context(devices.use("hw:1", card.open)) for stack in stacks]
        assert opened[0] is opened[1]
        stacks[first_to_leave].close()
        staying = opened[1 - first_to_leave]
        with staying.feed(1) as feed:
            card.ticks.release()
            assert len(taken(feed, 10)) == 10
        assert card.events == ["opened"]
        stacks[1 - first_to_leave].close()
        assert card.events == ["opened", "closed"]
        assert not [thread for thread in threading.enumerate() if thread.name == "card"]


def test_device_is_closed_before_it_is_opened_again() -> None:
    """A channel that comes while the last one leaves waits until the card is free; other devices need not wait."""
    card, other, devices = Card(), Card(), Devices[DeviceThread[Block]]()
    closes, may_close = threading.Event(), threading.Event()

    class Slow(DeviceThread[Block]):
        def close(self) -> None:
            closes.set()
            assert may_close.wait(WAIT_S)
            super().close()

    def leave() -> None:
        with devices.use("hw:1", lambda: Slow("slow card", card.read)):
            pass

    def come() -> None:
        with devices.use("hw:1", card.open):
            pass

    leaving, coming = threading.Thread(target=leave), threading.Thread(target=come)
    leaving.start()
    assert closes.wait(WAIT_S)
    coming.start()
    assert card.opened.wait(WAIT_S)
    with devices.use("hw:2", other.open):
        assert card.events == ["opened"]
    may_close.set()
    leaving.join(WAIT_S)
    coming.join(WAIT_S)
    assert card.events == ["opened", "closed", "opened", "closed"]


def test_failure_reaches_every_channel_and_the_next_one_opens_again() -> None:
    """When the card goes all its channels get that error after what had come; a later channel gets a new card."""
    card, devices = Card(), Devices[DeviceThread[Block]]()
    with ExitStack() as stack:
        device = stack.enter_context(devices.use("hw:1", card.open))
        feeds = [stack.enter_context(device.feed(number)) for number in (1, 2)]
        card.ticks.release()
        assert card.delivered.acquire(timeout=WAIT_S)
        card.broken.set()
        card.ticks.release()
        for feed in feeds:
            assert len(taken(feed, 10)) == 10
            with pytest.raises(BadInputError, match="the card is gone"):
                feed.take(WAIT_S)
        with pytest.raises(BadInputError, match="the card is gone"), device.feed(1):
            pass
        card.broken.clear()
        new = stack.enter_context(devices.use("hw:1", card.open))
        assert new is not device
        with new.feed(2) as feed:
            card.ticks.release()
            assert len(taken(feed, 10)) == 10
    assert card.events == ["opened", "closed", "opened", "closed"]


class Port:
    """A device that does not close itself when it fails; what happens to it is written down."""

    def __init__(self, name: str, events: list[str]) -> None:
        self.name = name
        self.events = events
        self.failure: Exception | None = None
        events.append(f"{name} opened")

    def close(self) -> None:
        """Write it down."""
        self.events.append(f"{self.name} closed")


def test_device_that_failed_is_closed_before_its_successor_is_opened() -> None:
    """Channels that still hold the device that failed do not touch its successor when they leave."""
    devices, events = Devices[Port](), list[str]()
    old_channel, new_channel = ExitStack(), ExitStack()
    old = old_channel.enter_context(devices.use("/dev/ttyACM0", lambda: Port("first", events)))
    old.failure = BadInputError("/dev/ttyACM0 is gone; plug it in again")
    new = new_channel.enter_context(devices.use("/dev/ttyACM0", lambda: Port("second", events)))
    assert events == ["first opened", "first closed", "second opened"]
    old_channel.close()
    assert len(events) == 3
    with devices.use("/dev/ttyACM0", lambda: Port("third", events)) as joined:
        assert joined is new
    new_channel.close()
    assert events[3:] == ["second closed"]


def test_device_that_ends_has_failed() -> None:
    """A live device does not end by itself."""
    device = DeviceThread[Block]("card", lambda _stop: (item for item in list[tuple[int, Block]]()))
    device._thread.join(WAIT_S)
    assert isinstance(device.failure, BadInputError)
    assert str(device.failure) == "card delivers no more; check the device"


def test_device_that_cannot_be_opened_is_tried_again() -> None:
    """An error while opening is the opener's alone, and leaves nothing behind."""
    card, devices = Card(), Devices[DeviceThread[Block]]()

    def busy() -> DeviceThread[Block]:
        raise BadInputError("hw:1 is busy; close the other program")

    with pytest.raises(BadInputError, match="is busy"), devices.use("hw:1", busy):
        pass
    with devices.use("hw:1", card.open):
        pass
    assert card.events == ["opened", "closed"]


def test_other_settings_are_refused() -> None:
    """One device cannot run with two settings; with the device closed the settings may change."""
    card, devices = Card(), Devices[DeviceThread[Block]]()
    with devices.use("hw:1", card.open, settings="48000 Hz"):
        expected = "hw:1 is used with 48000 Hz and 96000 Hz; give all its channels the same"
        with pytest.raises(UsageError, match=expected), devices.use("hw:1", card.open, settings="96000 Hz"):
            pass
    with devices.use("hw:1", card.open, settings="96000 Hz"):
        pass


def test_consumer_that_falls_behind_loses_the_oldest() -> None:
    """A feed is bounded: what is not taken in time is dropped, oldest first, and counted."""
    feed: Feed[list[int]] = Feed(most=3, size=len)
    for number in range(5):
        feed.put([number] * 10)
    assert [item[0] for item in feed.take(0)] == [2, 3, 4]
    assert feed.dropped == 20
    assert feed.take(0) == []
