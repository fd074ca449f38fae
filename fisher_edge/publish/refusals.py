"""Why connections end: a message the broker refuses, or another client of the same name. Start at `Refusals.closed`.

Under MQTT 3.1.1 a broker that does not want a message closes the connection and does not say why.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fisher_edge.store.records import Row

__all__ = ["InFlight", "Refusals"]

# Connections in a row that end with the same message alone on its way before that message is set aside.
REFUSED_AFTER = 3
# Rows in doubt that are kept in mind; more than a few are those of a network that breaks all the time.
MOST_DOUBTFUL = 1000
# Messages of one topic in a row that are set aside before the topic counts as refused, and for how long it does.
TOPIC_AFTER = 2
HOLD_S = 3600.0
# Accepted connections in a row that are closed within this time before another client of this name is suspected.
TAKEN_OVER_AFTER = 4
SHORT_S = 90.0


@dataclass(frozen=True)
class InFlight:
    """A row on its way, its topic and the size of its message."""

    row: Row
    topic: str
    payload_bytes: int


class Refusals:
    """What the last connections have shown; belongs to the publisher's thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._doubtful: set[tuple[str, int]] = set()
        self._suspect: tuple[str, int] | None = None
        self._closings = 0
        self._short = 0
        self._resends = 0
        self._topics: dict[
            str, tuple[int, float]
        ] = {}  # messages set aside in a row, and when the topic is tried again

    @property
    def taken_over(self) -> bool:
        """Whether another client of the same name seems to use the broker."""
        return self._short >= TAKEN_OVER_AFTER

    def closed(self, on_their_way: Sequence[InFlight | None], lasted_s: float) -> bool:
        """Note that the broker closed an accepted connection, and what was on its way (None: an announcement).

        True when a row was alone on its way so often that it has to be set aside.
        """
        doubtful = {(each.row.kind, each.row.id) for each in on_their_way if each}
        self._doubtful = doubtful | (self._doubtful if len(self._doubtful) < MOST_DOUBTFUL else set())
        alone = on_their_way[0] if len(on_their_way) == 1 else None
        suspect = (alone.row.kind, alone.row.id) if alone else None
        self._closings = self._closings + 1 if suspect == self._suspect else 1
        self._suspect = suspect
        if alone is None:
            self._short = self._short + 1 if lasted_s < SHORT_S else 0
            return False
        self._short = 0
        if self._closings < REFUSED_AFTER:
            return False
        self._suspect = None
        refused = self._topics.get(alone.topic, (0, 0.0))[0] + 1
        self._topics[alone.topic] = (refused, self._clock() + HOLD_S if refused >= TOPIC_AFTER else 0.0)
        return True

    def doubts(self, row: Row) -> bool:
        """Whether a row was on its way when a connection was closed: it has to be sent alone."""
        return (row.kind, row.id) in self._doubtful

    def failed(self) -> None:
        """Note that no connection came about, or that one ended in another way: nobody has taken it over."""
        self._short = 0

    def accepted(self, done: InFlight) -> None:
        """Note that the broker has taken a row."""
        self._topics.pop(done.topic, None)
        self._doubtful.discard((done.row.kind, done.row.id))

    def resent(self, resends: int) -> None:
        """Take note of how often a user had rows sent again: the broker may have been corrected, so all is tried."""
        if resends != self._resends:
            self._resends = resends
            self._topics.clear()

    def holds(self, topic: str) -> bool:
        """Whether the broker refuses a topic: its messages are set aside unsent until it is tried again."""
        return topic in self._topics and self._clock() < self._topics[topic][1]
