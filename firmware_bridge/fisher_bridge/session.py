"""One device at the other end of a byte stream, without the port: bytes in, samples and bytes to send out.

`Session.receive` takes what arrived, `Session.take` returns the samples in it, `Session.due` what to send. A session
lasts from the opening of a port to its closing; a device that boots in between is identified again. All times
are seconds of `time.monotonic`.
"""

from collections import deque
from dataclasses import replace

from fisher_bridge.clock import ClockFit, ClockMap, Measured, TickCounter
from fisher_bridge.continuity import SEQUENCES, Counts, Joiner, Samples, Track
from fisher_bridge.framing import FrameDecoder, Message, encode_frame
from fisher_bridge.messages import (
    DeviceError,
    Hello,
    Kind,
    Stats,
    StreamInfo,
    encode_ping,
    encode_rate,
    parse_data,
    parse_error,
    parse_hello,
    parse_pong,
    parse_stats,
)

__all__ = ["CLOCK_S", "RATE_ATTEMPTS", "Session"]

REPEAT_S = 0.5
"""A question without an answer is asked again after so long."""
PING_S = 0.05
PING_BYTES = 31
PING_SHARE = 0.02
"""Share of a slow link that the answers to pings may take: 115 200 baud has 7 a second."""
FIT_S = 1.0
EARLY_FIT_S = 0.25
EARLY_PINGS = 60
CERTAIN_PPM = 1000.0
CLOCK_S = 10.0
"""Samples wait for a clock known to CERTAIN_PPM, but no longer than this."""
UNANSWERED_S = 5.0
UNANSWERED_PINGS = 10
"""A device that answers no ping for so long, or so many of them on a slow link, has stopped answering."""
RATE_STEP_HZ = 5e-4
"""Half a millihertz, the unit of rates on the wire."""
RATE_PPM = 1000.0
"""A timer divides its clock by a whole number: 16 MHz reaches every rate up to 32 kHz this closely."""
RATE_ATTEMPTS = 10
MOST_LOST = 1 << 20
"""More frames than this are not taken for lost before a HELLO shows that the device has not booted."""
UNKNOWN_TYPE = 1
"""Code of an ERROR: the device does not know this command."""
REQUIRED = frozenset({Kind.WHO, Kind.START, Kind.SET_RATE, Kind.PING})
"""A device that does not know one of these cannot be read; any other command is optional."""
COMMANDS = 256
"""Commands whose kind is remembered, for the ERROR that refuses one of them: ten seconds of pings."""


class Session:
    """Talks to one device; `wanted` maps the streams to run to the rate to set (None: as the device has it)."""

    def __init__(self, baud: int, now_s: float) -> None:
        self.hello: Hello | None = None
        self.stats: Stats | None = None
        self.refusal: DeviceError | None = None
        self.clock: ClockFit | None = None
        self.counts = Counts()
        self.decoder = FrameDecoder()
        self.wanted: dict[int, float | None] = {}
        self.deviations: dict[int, Measured] = {}
        """How far the real rate of a stream is from what its device says, in ppm, where it is known."""
        self.achieved: dict[int, float] = {}
        """Rates that devices gave instead of those asked for, close enough to be accepted."""
        self.missed_rate: StreamInfo | None = None
        """A stream that does not take the rate that is wanted, after RATE_ATTEMPTS."""
        self.pings_unanswered = False
        """Whether the device has stopped answering pings: its clock is extrapolated, and said to be uncertain."""
        self.unsupported: set[int] = set()
        """Optional commands the device does not know."""
        self.boots = 0
        self._ping_s = max(PING_S, PING_BYTES * 10 / (PING_SHARE * baud))
        self._next_question_s = self._next_ping_s = self._next_fit_s = now_s
        self.met_s = now_s
        self.asked_s = now_s
        """Since when a HELLO is waited for, while there is none."""
        self._sequence = 0
        self._sent: deque[tuple[int, int]] = deque(maxlen=COMMANDS)
        self._rate_asked: dict[int, tuple[int, int]] = {}
        self._hellos = 0
        self._ponged_s = now_s
        self._boot: int | None = None
        self._doubtful = 0
        self._expected: int | None = None
        self._unannounced = False
        self._ticks = TickCounter(1)
        self._pings = ClockMap(1)
        self._tracks: dict[int, Track] = {}
        self._joiner = Joiner()
        self._timed: list[Samples] = []

    def want(self, stream: int, rate_hz: float | None, now_s: float) -> None:
        """Run a stream from now on, at a rate or as the device has it."""
        if self.wanted.get(stream) != rate_hz:
            self._forget_rate(stream)
        self.wanted[stream] = rate_hz
        self._next_question_s = now_s

    def due(self, now_s: float) -> bytes:
        """Return the bytes to send now: questions until they are answered, and pings."""
        out = b""
        if now_s >= self._next_question_s:
            self._next_question_s = now_s + REPEAT_S
            out = b"".join(self._frame(*question) for question in self._questions())
        if self.hello is not None and now_s >= self._next_ping_s:
            self._next_ping_s = max(self._next_ping_s + self._ping_s, now_s)
            out += self._frame(Kind.PING, 0, encode_ping(round(now_s * 1e9)))
        return out

    def next_due_s(self) -> float:
        """Return when `due` may have something to say."""
        return self._next_question_s if self.hello is None else min(self._next_question_s, self._next_ping_s)

    def unwant(self, stream: int) -> bytes:
        """Return the bytes that stop a stream that nobody wants any more."""
        del self.wanted[stream]
        self._forget_rate(stream)
        return self._frame(Kind.STOP, stream, b"")

    def take(self, now_s: float) -> list[Samples]:
        """Return the samples received since the last call, joined where they follow one another, with their time.

        They wait until the clock is known well enough; while it is not known at all, nothing is returned.
        """
        early = now_s - self.met_s < CLOCK_S
        if self.clock is not None and not (early and self.clock.drift_ppm.error > CERTAIN_PPM):
            self._time()
        taken, self._timed = self._timed, []
        return taken

    def take_untimed(self) -> list[Samples]:
        """Return the samples received since the last call without waiting for the clock."""
        return self._joiner.finish()

    def receive(self, data: bytes, now_s: float) -> None:
        """Take bytes that arrived at `now_s`; the samples in them wait for `take`."""
        for message in self.decoder.feed(data):
            self._follow(message, now_s)
            if message.kind == Kind.DATA:
                self._take_data(message, now_s)
            elif not self._take_other(message, now_s):
                self.counts.invalid += 1
        self.counts.damaged = self.decoder.damaged
        if now_s >= self._next_fit_s:
            self._next_fit_s = now_s + (EARLY_FIT_S if len(self._pings) < EARLY_PINGS else FIT_S)
            self._fit(now_s)

    def _fit(self, now_s: float) -> None:
        """Learn the clock and the rates from the pings so far; without fresh pings they become less certain."""
        fit = self._pings.fit()
        patience_s = max(UNANSWERED_S, UNANSWERED_PINGS * self._ping_s)
        self.pings_unanswered = fit is not None and now_s - self._ponged_s > patience_s
        self.clock = fit.unconfirmed() if fit is not None and self.pings_unanswered else fit
        if self.clock is not None:
            measured = {number: track.meter.deviation_ppm(self.clock) for number, track in self._tracks.items()}
            self.deviations = {number: value for number, value in measured.items() if value is not None}

    def _time(self) -> None:
        """Give what has arrived its time by the clock as it is known now."""
        assert self.clock is not None
        for samples in self._joiner.finish():
            self._timed.append(replace(samples, time_s=self.clock.host_s(samples.ticks)))

    def _questions(self) -> list[tuple[Kind, int, bytes]]:
        """Return what to ask or command, as long as the last HELLO does not show what is wanted."""
        if self.hello is None or self._unannounced:
            return [(Kind.WHO, 0, b"")]
        asked = []
        for stream in self.hello.streams:
            rate_hz = self.wanted.get(stream.number)
            if rate_hz is not None and self._must_set_rate(stream, rate_hz):
                asked.append((Kind.SET_RATE, stream.number, encode_rate(rate_hz)))
            if stream.number in self.wanted and not stream.running:
                asked.append((Kind.START, stream.number, b""))
        return asked

    def _forget_rate(self, stream: int) -> None:
        """Begin the attempts to set the rate of a stream from the first one."""
        self._rate_asked.pop(stream, None)
        self.achieved.pop(stream, None)
        if self.missed_rate is not None and self.missed_rate.number == stream:
            self.missed_rate = None

    def _must_set_rate(self, stream: StreamInfo, rate_hz: float) -> bool:
        """Whether to send SET_RATE now, and count the attempt: not when the rate is reached or attempts are used up."""
        asked, hellos = self._rate_asked.get(stream.number, (0, 0))
        if abs(stream.rate_hz - rate_hz) <= RATE_STEP_HZ:
            self.achieved.pop(stream.number, None)
            return False
        if asked and self._hellos > hellos and abs(stream.rate_hz / rate_hz - 1) * 1e6 <= RATE_PPM:
            self.achieved[stream.number] = stream.rate_hz
            return False
        if asked >= RATE_ATTEMPTS:
            self.missed_rate = stream
            return False
        self._rate_asked[stream.number] = asked + 1, self._hellos
        return True

    def _frame(self, kind: int, stream: int, body: bytes) -> bytes:
        """Return one frame to send, with the next sequence number."""
        message = Message(kind, stream, 0, self._sequence, body)
        self._sent.append((self._sequence, kind))
        self._sequence = (self._sequence + 1) % SEQUENCES
        return encode_frame(message)

    def _follow(self, message: Message, now_s: float) -> None:
        """Count the frames missing before this one, unless the device has booted.

        The boot number of a HELLO decides. Where a sequence goes back or far ahead without one, the next HELLO is
        waited for.
        """
        ahead = 0 if self._expected is None else (message.sequence - self._expected) % SEQUENCES
        hello = parse_hello(message.body) if message.kind == Kind.HELLO and ahead else None
        self._expected = (message.sequence + 1) % SEQUENCES
        self.counts.frames += 1
        if hello is not None and (ahead > MOST_LOST if self._boot is None else hello.boot != self._boot):
            return
        if ahead >= SEQUENCES // 2:
            self._forget(now_s)
        elif ahead > MOST_LOST and hello is None:
            self._doubtful = ahead
            self._forget(now_s)
        elif ahead:
            self.counts.lost_frames += ahead
            for track in self._tracks.values():
                track.link_lost = True

    def _forget(self, now_s: float) -> None:
        """Drop the HELLO and ask for it again: the device has booted, or its numbers do not continue."""
        if self.hello is not None:
            self.asked_s = now_s
        self.hello = None
        self._next_question_s = now_s

    def _take_data(self, message: Message, now_s: float) -> None:
        """Place the samples of a DATA; a run that no HELLO has announced is left out until one has."""
        data = parse_data(message.body)
        if data is None:
            self.counts.invalid += 1
            return
        track = self._tracks.get(message.stream)
        if self.hello is None or track is None or not track.fits(message.run, data):
            self._unannounced = True
            self.counts.unannounced_samples += data.samples
            return
        if not track.follow(data, self.counts):
            self._forget(now_s)
            return
        ticks = self._ticks.unwrap(data.ticks, now_s)
        track.measure(data, ticks, now_s)
        if message.stream in self.wanted:
            self._joiner.add(message.stream, track, data, ticks)

    def _take_other(self, message: Message, now_s: float) -> bool:
        """Take any other message; False when its body is not what its type says. Types we do not know are ignored."""
        parsed: object = True
        if message.kind == Kind.HELLO:
            parsed = hello = parse_hello(message.body)
            if hello is not None:
                self._meet(hello, now_s)
        elif message.kind == Kind.PONG:
            parsed = pong = parse_pong(message.body)
            if pong is not None and self.hello is not None and self.met_s <= pong.token / 1e9 <= now_s:
                received = self._ticks.unwrap(pong.ticks_received, now_s)
                self._pings.add(pong.token / 1e9, received, self._ticks.unwrap(pong.ticks_sent, now_s), now_s)
                self._ponged_s = now_s
        elif message.kind == Kind.STATS:
            parsed = stats = parse_stats(message.body)
            self.stats = stats or self.stats
        elif message.kind == Kind.ERROR:
            parsed = error = parse_error(message.body)
            if error is not None:
                self._take_error(error)
        return parsed is not None

    def _take_error(self, error: DeviceError) -> None:
        """Keep a refusal; an unknown optional command is not one."""
        command = dict(self._sent).get(error.sequence)
        if error.code != UNKNOWN_TYPE or command in REQUIRED:
            self.refusal = error
        elif command is not None:
            self.unsupported.add(command)

    def _meet(self, hello: Hello, now_s: float) -> None:
        """Compare a HELLO with what was known, and follow the streams it announces."""
        known, self.hello = self.hello, hello
        self._hellos += 1
        if hello.boot == self._boot:
            self.counts.lost_frames += self._doubtful
        self._boot, self._doubtful = hello.boot, 0
        self._unannounced = False
        if known is None or known.boot != hello.boot:
            self._next_question_s = now_s
            self.boots += 1
            if self.clock is not None:
                self._time()
            self._joiner = Joiner()  # what has no time by the old clock never gets one
            self.met_s, self.deviations, self.pings_unanswered = now_s, {}, False
            for number in list(self._rate_asked):
                self._forget_rate(number)
            self._ticks, self._pings, self.clock = TickCounter(hello.tick_hz), ClockMap(hello.tick_hz), None
            self._tracks = {info.number: self._track(info, None) for info in hello.streams}
        else:
            self._tracks = {info.number: self._track(info, known.stream(info.number)) for info in hello.streams}

    def _track(self, info: StreamInfo, known: StreamInfo | None) -> Track:
        """Return the track of a stream: the one there is while its run lasts, else one behind it."""
        track = self._tracks.get(info.number)
        if track is None:
            return Track(info, 0, None)
        if known is not None and (known.run, known.running) == (info.run, info.running):
            return track
        return track.successor(info, from_start=known is not None)
