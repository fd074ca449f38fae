"""What the ends of connections show: a refused message, a refused topic, another client of the same name."""

from fisher_edge.names import ChannelKey
from fisher_edge.publish.refusals import (
    HOLD_S,
    REFUSED_AFTER,
    SHORT_S,
    TAKEN_OVER_AFTER,
    TOPIC_AFTER,
    InFlight,
    Refusals,
)
from fisher_edge.store.records import Row

KEY = ChannelKey("pump-1", "vib-de")


def row(number: int, topic: str = "result") -> InFlight:
    """Return a row on its way."""
    return InFlight(Row("result", number, KEY, 1, number, 0.0, 0, b"{}"), topic, 100)


def close_at(refusals: Refusals, each: InFlight, times: int = REFUSED_AFTER) -> list[bool]:
    """Close connections with one row on its way; return whether it had to be set aside."""
    return [refusals.closed([each], 1.0) for _ in range(times)]


def test_row_is_refused_after_three_closings_in_a_row() -> None:
    """Only a row that was alone three times in a row is refused, and then it is counted from the start."""
    refusals = Refusals()
    assert close_at(refusals, row(1)) == [False, False, True]
    assert close_at(refusals, row(1)) == [False, False, True]
    assert close_at(refusals, row(2), 2) == [False, False]
    assert not refusals.closed([row(2), row(3)], 1.0)
    assert close_at(refusals, row(2)) == [False, False, True]
    assert close_at(refusals, row(3), 2) == [False, False]
    assert not refusals.closed([row(4)], 1.0)
    assert not refusals.closed([None], 1.0)
    assert not refusals.closed([row(4)], 1.0)


def test_rows_on_their_way_are_in_doubt_until_one_is_accepted() -> None:
    """What was on its way when a connection was closed is sent alone, until the broker has taken it."""
    refusals = Refusals()
    refusals.closed([row(1), None, row(2)], 1.0)
    refusals.closed([row(1)], 1.0)
    assert [refusals.doubts(row(number).row) for number in (1, 2, 3)] == [True, True, False]
    refusals.accepted(row(1))
    assert [refusals.doubts(row(number).row) for number in (1, 2)] == [False, True]


def test_topic_is_held_after_two_refused_rows_for_a_time() -> None:
    """Two rows of a topic in a row are refused: the topic rests for an hour, then one row is tried."""
    now_s = 0.0
    refusals = Refusals(lambda: now_s)
    for number in range(TOPIC_AFTER):
        assert not refusals.holds("result")
        close_at(refusals, row(number))
    assert refusals.holds("result")
    assert not refusals.holds("event")
    now_s += HOLD_S + 1.0
    assert not refusals.holds("result")
    close_at(refusals, row(9))
    assert refusals.holds("result")
    refusals.accepted(row(10))
    assert not refusals.holds("result")


def test_rows_that_a_user_sends_again_are_tried() -> None:
    """After rows were sent again nothing is held, until the broker refuses it once more."""
    refusals = Refusals()
    for number in range(TOPIC_AFTER):
        close_at(refusals, row(number))
    refusals.resent(0)
    assert refusals.holds("result")
    refusals.resent(1)
    assert not refusals.holds("result")
    for number in range(TOPIC_AFTER):
        close_at(refusals, row(number))
    refusals.resent(1)
    assert refusals.holds("result")


def test_accepted_row_between_refused_ones_keeps_the_topic() -> None:
    """Single large messages do not stop a topic."""
    refusals = Refusals()
    for number in range(5):
        close_at(refusals, row(number))
        refusals.accepted(row(number + 100))
    assert not refusals.holds("result")


def test_short_connections_in_a_row_show_another_client() -> None:
    """Accepted connections that are closed soon, again and again, are those of a client with the same name."""
    refusals = Refusals()
    for _ in range(TAKEN_OVER_AFTER):
        assert not refusals.taken_over
        refusals.closed([], 1.0)
    assert refusals.taken_over


def test_other_ends_show_no_other_client() -> None:
    """A broker that is away in between, a long connection or a refused row is another story."""
    refusals = Refusals()
    for end in (
        refusals.failed,
        lambda: refusals.closed([], SHORT_S + 1.0),
        lambda: refusals.closed([row(1)], 1.0),
    ):
        for _ in range(TAKEN_OVER_AFTER - 1):
            refusals.closed([], 1.0)
        end()
        for _ in range(TAKEN_OVER_AFTER - 1):
            refusals.closed([], 1.0)
        assert not refusals.taken_over
        refusals.failed()
