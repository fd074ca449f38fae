"""One device that several channels read, such as a sound card or a board on a serial port.

`Devices` opens a device for the first channel that uses it and closes it behind the last one. `DeviceThread` is such a
device for drivers that are a plain loop: it reads on a thread of its own, and gives every channel a `Feed`.
"""

import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Hashable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from fisher_edge.errors import BadInputError, UsageError

__all__ = ["DeviceThread", "Devices", "Feed", "SharedDevice"]

LONGEST_FEED = 600
JOIN_S = 5.0

log = logging.getLogger(__name__)


class SharedDevice(Protocol):
    """An open device."""

    @property
    def failure(self) -> Exception | None:
        """What ended it, if anything has; a device that has failed is of no use any more."""
        ...

    def close(self) -> None:
        """Close it and wait for its threads to end; closing it twice does nothing."""
        ...


D = TypeVar("D", bound=SharedDevice)
T = TypeVar("T")


@dataclass
class _Slot(Generic[D]):
    """One device and how many use it; the lock is held while it is opened or closed, which may take seconds."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    device: D | None = None
    settings: object = None
    users: int = 0


class Devices(Generic[D]):
    """The open devices of one kind, by a key that is the same for everybody who means the same device."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots: defaultdict[Hashable, _Slot[D]] = defaultdict(_Slot)

    @contextmanager
    def use(self, key: Hashable, open_device: Callable[[], D], settings: object = None) -> Iterator[D]:
        """Give a device, the same one to everybody while it works. It is closed before it is opened again.

        Raises what `open_device` raises, and UsageError when others use the device with other settings.
        """
        with self._lock:
            slot = self._slots[key]
        with slot.lock:
            device = self._joined(key, slot, open_device, settings)
        try:
            yield device
        finally:
            with slot.lock:
                if slot.device is device:  # a device that failed may have been replaced, and is closed then
                    slot.users -= 1
                    if not slot.users:
                        slot.device = None
                        device.close()

    def _joined(self, key: Hashable, slot: _Slot[D], open_device: Callable[[], D], settings: object) -> D:
        """Return the device of a slot for one more user, opened if need be."""
        if slot.device is not None and slot.device.failure is not None:
            failed, slot.device, slot.users = slot.device, None, 0
            failed.close()
        if slot.device is None:
            slot.device, slot.settings = open_device(), settings
        elif slot.settings != settings:
            raise UsageError(f"{key} is used with {slot.settings} and {settings}; give all its channels the same")
        slot.users += 1
        return slot.device


class Feed(Generic[T]):
    """What a device delivers to one consumer, in order. `dropped` counts what the consumer did not take in time.

    `size` says how much an item counts there, such as its number of samples.
    """

    def __init__(self, most: int = LONGEST_FEED, size: Callable[[T], int] = lambda _: 1) -> None:
        self.dropped = 0
        self._most = most
        self._size = size
        self._waiting: deque[T] = deque()
        self._ready = threading.Condition()
        self._failure: Exception | None = None

    def put(self, item: T) -> None:
        """Add an item; when the consumer is far behind, the oldest one leaves."""
        with self._ready:
            if len(self._waiting) >= self._most:
                self.dropped += self._size(self._waiting.popleft())
            self._waiting.append(item)
            self._ready.notify()

    def fail(self, failure: Exception) -> None:
        """End the feed with an error, which is raised once everything that waits has been taken."""
        with self._ready:
            self._failure = failure
            self._ready.notify()

    def take(self, timeout_s: float) -> list[T]:
        """Return what waits, after `timeout_s` at most; raises the error that ended the feed."""
        with self._ready:
            if not self._waiting and self._failure is None:
                self._ready.wait(timeout_s)
            taken = list(self._waiting)
            self._waiting.clear()
            if not taken and self._failure is not None:
                raise self._failure
            return taken


class DeviceThread(Generic[T]):
    """Reads a device on a thread of its own, and hands what it delivers to the feeds of its channels.

    `read` is the driver: a generator that opens the device, yields pairs of a channel and what came for it (usually a
    `Block`), and closes the device when it is closed itself. It looks at its event at least every second. When it
    raises or ends, every feed ends with that error.
    """

    def __init__(self, name: str, read: Callable[[threading.Event], Generator[tuple[int, T], None, None]]) -> None:
        self.name = name
        self.failure: Exception | None = None
        self._read = read
        self._feeds: list[tuple[int, Feed[T]]] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @contextmanager
    def feed(self, channel: int) -> Iterator[Feed[T]]:
        """Give what comes for a channel from now on."""
        entry = channel, Feed[T]()
        with self._lock:
            if self.failure is not None:
                raise self.failure
            self._feeds.append(entry)
        try:
            yield entry[1]
        finally:
            with self._lock:
                self._feeds.remove(entry)

    def close(self) -> None:
        """Stop reading, and wait until the device is closed."""
        self._stop.set()
        self._thread.join(JOIN_S)
        if self._thread.is_alive():
            log.error("%s does not stop: its driver is stuck", self.name)

    def _run(self) -> None:
        try:
            self._hand_on()
            if not self._stop.is_set():
                raise BadInputError(f"{self.name} delivers no more; check the device")
        except Exception as error:  # noqa: BLE001 -- handed on to every consumer
            with self._lock:
                self.failure = error
                for _, feed in self._feeds:
                    feed.fail(error)

    def _hand_on(self) -> None:
        with closing(self._read(self._stop)) as items:
            for channel, item in items:
                with self._lock:
                    for wanted, feed in self._feeds:
                        if wanted == channel:
                            feed.put(item)
                if self._stop.is_set():
                    return
