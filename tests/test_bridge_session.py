"""The session, fed by a device written here from the document: meeting, loss, wrap-around, runs, boots, the clock."""

import random
from itertools import pairwise
from typing import Any

import pytest
from bridge_reference import KINDS, frame, little, message
from scripted_board import Board

from fisher_bridge.framing import FrameDecoder, Message
from fisher_bridge.messages import Kind
from fisher_bridge.session import RATE_ATTEMPTS, Session

BAUD = 10_000_000


def meet(device: Board) -> Session:
    """Meet a device and start its stream."""
    session = Session(BAUD, 0.0)
    session.want(0, None, 0.0)
    for _ in range(3):
        session.receive(device.hear(session.due(0.0)), 0.0)
    assert session.hello is not None
    assert session.hello.streams[0].running
    return session


def taken(session: Session) -> list[tuple[int, int]]:
    """Index and number of samples of what has arrived, after checking every value."""
    found = []
    for samples in session.take_untimed():
        first = samples.raw[:, 0]
        assert first.tolist() == [(int(first[0]) + i) % 1000 for i in range(len(first))]
        assert samples.raw[:, 1].tolist() == (-first).tolist()
        found.append((samples.index, len(first)))
    return found


def test_device_is_asked_started_and_read() -> None:
    """WHO until there is a HELLO, START once, then samples joined over frames."""
    device = Board()
    session = meet(device)
    assert [one.kind for one in device.heard if one.kind != Kind.PING] == [Kind.WHO, Kind.START]
    session.receive(device.data() + device.data() + device.data(1), 0.1)
    assert taken(session) == [(0, 9)]
    session.receive(device.data(), 0.2)
    assert taken(session) == [(9, 4)]


def test_questions_are_repeated_until_answered() -> None:
    """A lost command is sent again after half a second, not at once."""
    session = Session(BAUD, 0.0)
    asked = [len(FrameDecoder().feed(session.due(now_s))) for now_s in (0.0, 0.1, 0.4, 0.6, 0.7, 1.2)]
    assert asked == [1, 0, 0, 1, 0, 1]


def test_device_that_says_hello_at_once_is_not_answered_in_a_storm() -> None:
    """Each HELLO that shows no running stream does not bring a START: one in half a second does."""
    device, session = Board(), Session(BAUD, 0.0)
    session.want(0, None, 0.0)
    starts = 0
    for step in range(200):
        session.receive(device.hello(), step * 0.01)
        starts += sum(one.kind == Kind.START for one in FrameDecoder().feed(session.due(step * 0.01)))
    assert 3 <= starts <= 6


def test_lost_frames_and_samples_are_counted_exactly() -> None:
    """Whatever frames are lost, the counts are theirs, and nothing is joined over them."""
    chance = random.Random(5)
    device = Board(sequence=2**32 - 50)  # and both counters wrap on the way
    session = meet(device)
    device.index = 2**32 // 1000 - 100
    session.receive(device.data(), 0.0)
    lost_frames = lost_samples = 0
    for step in range(400):
        count = chance.randint(1, 6)
        data = device.data(count)
        if step < 399 and chance.random() < 0.3:
            lost_frames, lost_samples = lost_frames + 1, lost_samples + count
        else:
            session.receive(data, step * 0.01)
    assert (session.counts.lost_frames, session.counts.lost_samples) == (lost_frames, lost_samples)
    # the first frame of the run was not at index 0: the device left the rest out
    assert session.counts.dropped_samples == 2**32 // 1000 - 100
    pieces = taken(session)
    assert all(index + count < after for (index, count), (after, _) in pairwise(pieces))
    missing = sum(after - index - count for (index, count), (after, _) in pairwise(pieces))
    assert missing == lost_samples


def test_samples_the_device_left_out_are_counted_apart() -> None:
    """An index that jumps while the sequence goes on is no loss of the line."""
    device = Board()
    session = meet(device)
    session.receive(device.data(), 0.0)
    device.index += 17
    session.receive(device.data(), 0.0)
    assert (session.counts.lost_samples, session.counts.dropped_samples) == (0, 17)
    assert taken(session) == [(0, 4), (21, 4)]


def test_loss_of_one_stream_is_not_blamed_on_another() -> None:
    """The frame after a loss may be of any stream: each finds its own gap."""
    device = Board()
    session = meet(device)
    session.receive(device.data(), 0.0)
    device.data()  # lost
    session.receive(device.say("STATS", 0, 0, bytes(20)), 0.0)
    session.receive(device.data(), 0.0)
    assert (session.counts.lost_frames, session.counts.lost_samples, session.counts.dropped_samples) == (1, 4, 0)


def test_damaged_frame_counts_once_as_lost() -> None:
    """A damaged frame shows as a damaged piece and as missing in the sequence."""
    device = Board()
    session = meet(device)
    good, hurt, after = device.data(), bytearray(device.data()), device.data()
    hurt[8] ^= 0x10
    session.receive(good + bytes(hurt) + after, 0.0)
    counts = session.counts
    assert (counts.damaged, counts.lost_frames, counts.lost_samples) == (1, 1, 4)
    assert taken(session) == [(0, 4), (8, 4)]


def test_new_run_is_not_joined_to_the_old_one() -> None:
    """After STOP and START the index begins at 0; ours goes on, with a gap."""
    device = Board()
    session = meet(device)
    session.receive(device.data() + device.data(), 0.0)
    device.running = 0
    session.receive(device.hello(), 1.0)
    session.receive(device.hear(session.due(1.6)), 1.6)
    session.receive(device.data(), 2.0)
    assert device.run == 2
    ((_, before), (index, count)) = taken(session)
    assert (before, count) == (8, 4)
    assert index > 8
    assert session.counts.lost_samples == session.counts.dropped_samples == 0


def test_unannounced_run_is_left_out_and_asked_for() -> None:
    """When the HELLO of a run is lost, its samples are dropped and counted as lost until a WHO brings the HELLO."""
    device = Board()
    session = meet(device)
    session.receive(device.data(), 0.0)
    device.run, device.index = 2, 0
    device.sequence += 1  # the HELLO that was lost
    session.receive(device.data(), 1.0)
    assert session.counts.unannounced_samples == 4
    session.receive(device.hear(session.due(1.6)), 1.6)
    session.receive(device.data(), 2.0)
    assert [count for _, count in taken(session)] == [4, 4]
    assert session.counts.lost_samples == 4


def test_boot_in_between_is_met_anew() -> None:
    """A device that boots is asked and started again; nothing is joined, and no loss is made up."""
    device = Board(sequence=5000)
    session = meet(device)
    session.receive(device.data(), 0.0)
    again = Board(sequence=0, boot=2)
    session.receive(b"rst:0x1 (POWERON)\r\n" + again.hello(), 1.0)
    session.receive(again.hear(session.due(1.0)), 1.0)
    session.receive(again.data(), 1.1)
    pieces = taken(session)
    assert [count for _, count in pieces] == [4]
    assert session.boots == 2
    assert (session.counts.lost_frames, session.counts.lost_samples) == (0, 0)
    session.receive(again.data(), 1.2)
    assert [count for _, count in taken(session)] == [4]


def test_boot_whose_hello_is_lost_is_waited_for_anew() -> None:
    """The time a HELLO may take counts from the boot, not from the first meeting, and WHO is asked at once."""
    board = Board(sequence=5000)
    session = meet(board)
    again = Board(sequence=0, boot=2)
    session.receive(again.data(), 100.0)
    assert session.hello is None
    assert session.asked_s == 100.0
    assert again.hear(session.due(100.0)) != b""
    assert again.heard[0].kind == Kind.WHO


@pytest.mark.parametrize("sequence", [2**31 - 1, 2**31 + 5000, 2**32 - 1])
def test_boot_after_any_number_of_frames_is_no_loss(sequence: int) -> None:
    """The boot number of the HELLO decides, not how far the sequence is from the one expected."""
    session = meet(Board(sequence=sequence))
    again = Board(sequence=0, boot=2)
    session.receive(again.hello(), 1.0)
    session.receive(again.hear(session.due(1.0)), 1.0)
    session.receive(again.data(), 1.1)
    assert (session.boots, session.counts.lost_frames) == (2, 0)
    assert taken(session) == [(0, 4)]


@pytest.mark.parametrize("sequence", [2**31 - 1, 2**31 + 5000])
def test_boot_after_many_frames_whose_hello_is_lost_is_no_loss(sequence: int) -> None:
    """A frame that is far ahead brings a WHO instead of a loss; the HELLO tells that the device has booted."""
    session = meet(Board(sequence=sequence))
    again = Board(sequence=1, boot=2)
    session.receive(again.say("STATS", 0, 0, bytes(20)), 10.0)
    assert session.counts.lost_frames == 0
    session.receive(again.hear(session.due(10.0)), 10.0)
    assert again.heard[0].kind == Kind.WHO
    assert (session.boots, session.counts.lost_frames) == (2, 0)


def test_very_long_loss_is_counted_once_the_device_has_said_that_it_did_not_boot() -> None:
    """A million and a half frames of one boot that never came are lost, to the frame."""
    board = Board()
    session = meet(board)
    board.sequence += 1_500_000
    session.receive(board.data(), 5000.0)
    session.receive(board.hear(session.due(5000.0)), 5000.0)
    assert session.counts.lost_frames == 1_500_000
    board.sequence += 2_000_000
    session.receive(board.hello(), 9000.0)
    assert session.counts.lost_frames == 3_500_000


def test_rate_asked_for_is_set_before_the_start() -> None:
    """SET_RATE goes out before START, and neither again once the HELLO shows them."""
    device, session = Board(), Session(BAUD, 0.0)
    session.want(0, 3200.0, 0.0)
    for step in range(6):
        session.receive(device.hear(session.due(step * 0.6)), step * 0.6)
    kinds = [one.kind for one in device.heard if one.kind != Kind.PING]
    assert kinds == [Kind.WHO, Kind.SET_RATE, Kind.START]
    assert session.hello is not None
    assert session.hello.streams[0].rate_hz == 3200


def rates_asked_in_a_minute(board: Board, rate_hz: float, *, answers: bool = True) -> tuple[Session, list[float]]:
    """Ask a device for a rate, and return what it was sent in a minute."""
    session = Session(BAUD, 0.0)
    session.want(0, rate_hz, 0.0)
    session.receive(board.hear(session.due(0.0)), 0.0)
    for step in range(600):
        said = board.hear(session.due(step * 0.1))
        session.receive(said if answers else b"", step * 0.1)
    asked = [int.from_bytes(one.body, "little") / 1000 for one in board.heard if one.kind == Kind.SET_RATE]
    return session, asked


def test_rate_that_a_timer_can_nearly_do_is_accepted() -> None:
    """A device that reports its real timer rate is asked once, and that rate is accepted."""
    board = Board()
    board.timer_error_mhz = 205
    session, asked = rates_asked_in_a_minute(board, 12_800.0)
    assert asked == [12_800.0]
    assert session.achieved == {0: 12_800.205}
    assert session.missed_rate is None


def test_rate_close_to_the_one_asked_for_is_still_asked_for_once() -> None:
    """A rate that is close before the first request is still requested: the device may have a closer one."""
    board = Board()
    board.rate_mhz = 12_801_000
    session, asked = rates_asked_in_a_minute(board, 12_800.0)
    assert asked == [12_800.0]
    assert session.achieved == {}
    assert session.hello is not None
    assert session.hello.streams[0].rate_hz == 12_800


@pytest.mark.parametrize("answers", [True, False])
def test_rate_that_is_not_reached_is_given_up(answers: bool) -> None:
    """A device whose rate stays elsewhere, or that never answers, is asked a few times and then named."""
    board = Board()
    board.timer_error_mhz = 20_000
    session, asked = rates_asked_in_a_minute(board, 12_800.0, answers=answers)
    assert asked == RATE_ATTEMPTS * [12_800.0]
    assert session.missed_rate is not None
    assert session.missed_rate.number == 0
    assert session.achieved == {}
    session.want(0, 6400.0, 60.0)  # another rate has its own attempts
    assert session.missed_rate is None
    board.timer_error_mhz = 0
    session.receive(board.hear(session.due(60.0)), 60.0)
    assert session.hello is not None
    assert session.hello.streams[0].rate_hz == 6400


def test_refusal_is_kept() -> None:
    """A refusal is kept with the text of the device."""
    device = Board()
    session = meet(device)
    body = KINDS["ERROR"][1]({"code": 3, "sequence": 1, "text": "rate 100 Hz"})
    session.receive(device.say("ERROR", 0, 0, body), 0.0)
    assert session.refusal is not None
    assert session.refusal.text == "rate 100 Hz"


def unknown_type(device: Board, session: Session, kind: int) -> None:
    """Send a command, and refuse it as one that the device does not know."""
    (command,) = FrameDecoder().feed(session._frame(kind, 0, b""))
    body = KINDS["ERROR"][1]({"code": 1, "sequence": command.sequence, "text": "unknown command"})
    session.receive(device.say("ERROR", 0, 0, body), 0.0)


@pytest.mark.parametrize("kind", [200, Kind.STOP])
def test_optional_command_that_is_not_known_is_no_refusal(kind: int) -> None:
    """A device of an older firmware is read without a command it does not know."""
    device = Board()
    session = meet(device)
    unknown_type(device, session, kind)
    assert session.refusal is None
    assert session.unsupported == {kind}


@pytest.mark.parametrize("kind", [Kind.START, Kind.SET_RATE, Kind.PING])
def test_command_that_is_needed_and_not_known_is_a_refusal(kind: Kind) -> None:
    """Without these a device cannot be read."""
    device = Board()
    session = meet(device)
    unknown_type(device, session, kind)
    assert session.refusal is not None
    assert session.unsupported == set()


def test_bodies_that_are_wrong_are_counted() -> None:
    """A sound frame with a body of the wrong length changes nothing but a count; an unknown type not even that."""
    device = Board()
    session = meet(device)
    for kind in ("HELLO", "DATA", "PONG", "STATS", "ERROR"):
        session.receive(device.say(kind, 0, device.run, bytes(3)), 0.0)
    assert session.counts.invalid == 5
    session.receive(frame(message(77, 0, 0, device.sequence, b"later")), 0.0)
    assert (session.counts.invalid, session.counts.lost_frames) == (5, 0)
    assert taken(session) == []


@pytest.mark.parametrize(("baud", "a_second"), [(115_200, 7), (921_600, 20), (10_000_000, 20)])
def test_pings_leave_a_slow_line_alone(baud: int, a_second: int) -> None:
    """Twenty pings a second, or what two percent of the line can answer."""
    device, session = Board(), Session(baud, 0.0)
    session.receive(device.hear(session.due(0.0)), 0.0)
    sent = 0
    for step in range(1000):
        sent += sum(one.kind == Kind.PING for one in FrameDecoder().feed(session.due(step / 100)))
    assert sent / 10 == pytest.approx(a_second, abs=1)


def pong(device: Board, ping: Message, received_s: float, clock: Any) -> bytes:
    """Answer a ping by a clock."""
    ticks = clock(received_s)
    return device.say("PONG", 0, 0, ping.body + 2 * little(ticks, 4))


def test_samples_get_their_time_once_the_clock_is_known() -> None:
    """Samples wait for the clock, then have the time at which the device took them, wrap-around included."""
    device = Board()
    session = meet(device)

    def clock(host_s: float) -> int:
        return round(2**32 - 2e6 + (host_s + 7) * 1e6 * (1 + 150e-6)) % 2**32

    times: list[float] = []
    for step in range(400):
        now_s = step * 0.01
        for ping in FrameDecoder().feed(session.due(now_s)):
            if ping.kind == Kind.PING:
                session.receive(pong(device, ping, now_s + 0.001, clock), now_s + 0.002)
        body = little(1, 1) + little(2, 1) + little(10, 2) + little(clock(now_s - 0.01), 4) + little(device.index, 8)
        device.index += 10
        session.receive(device.say("DATA", 0, device.run, body + bytes(40)), now_s + 0.003)
        if step == 3:
            assert session.take(now_s + 0.003) == []  # four pings are no clock
        times += [samples.time_s - samples.index * 0.001 for samples in session.take(now_s + 0.003)]
    assert len(times) > 300
    assert max(abs(time_s + 0.01) for time_s in times) < 1e-5
    assert session.clock is not None
    assert session.clock.drift_ppm.value == pytest.approx(150, abs=1)
    # the device counts ten samples in ten milliseconds of the host: by its own fast clock its rate is lower
    assert session.deviations[0].value == pytest.approx(0, abs=1)


class PingedBoard(Board):
    """A board with a clock of its own that answers pings, with a millisecond each way, while `answers_pings`."""

    answers_pings = True

    def serve(self, session: Session, now_s: float) -> None:
        """Answer what is due, and send a sample a millisecond old."""
        for ping in FrameDecoder().feed(session.due(now_s)):
            if ping.kind == Kind.PING and self.answers_pings:
                session.receive(pong(self, ping, now_s + 0.001, self.ticks), now_s + 0.002)
        body = little(1, 1) + little(2, 1) + little(10, 2) + little(self.ticks(now_s), 4) + little(self.index, 8)
        self.index += 10
        session.receive(self.say("DATA", 0, self.run, body + bytes(40)), now_s + 0.003)

    @staticmethod
    def ticks(host_s: float) -> int:
        """Ticks of a clock that is 150 ppm fast."""
        return round((host_s + 7) * 1e6 * (1 + 150e-6)) % 2**32


def test_pings_that_are_no_longer_answered_are_noticed() -> None:
    """Ten minutes without an answer: times are extrapolated, and the clock is no longer said to be good."""
    board = PingedBoard()
    session = meet(board)
    step_s, noticed_s, errors = 0.05, None, []
    for step in range(1200):
        board.serve(session, step * step_s)
    assert session.clock is not None
    known_ppm = session.clock.drift_ppm
    assert known_ppm.error < 5
    assert not session.pings_unanswered
    session.take(60.0)
    board.answers_pings = False
    for step in range(1200, 1200 + 12_000):
        now_s = step * step_s
        board.serve(session, now_s)
        noticed_s = now_s if noticed_s is None and session.pings_unanswered else noticed_s
        errors += [samples.time_s - now_s for samples in session.take(now_s + 0.003)]
    assert noticed_s is not None
    assert 5 < noticed_s - 60 < 7
    assert len(errors) == 12_000
    assert max(map(abs, errors)) < 0.02
    assert session.clock is not None
    assert session.clock.drift_ppm.value == pytest.approx(150, abs=5)
    assert session.clock.drift_ppm.error > 1000
    assert session.deviations[0].error > 1000
    board.answers_pings = True
    for step in range(13_200, 13_300):
        board.serve(session, step * step_s)
    assert not session.pings_unanswered
    assert session.clock.drift_ppm.error < 5
