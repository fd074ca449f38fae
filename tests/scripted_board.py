"""A board that says what a test wants it to say, written from the document by the slow reference."""

from bridge_reference import KINDS, frame, message, stream_fields

from fisher_bridge.framing import FrameDecoder, Message
from fisher_bridge.messages import Kind

__all__ = ["Board"]


class Board:
    """What a device says, written by the slow reference; `now_s` is the time of the host."""

    def __init__(self, *, sequence: int = 0, boot: int = 1) -> None:
        self.sequence = sequence
        self.boot = boot
        self.run = 0
        self.running = 0
        self.index = 0
        self.rate_mhz = 1_000_000
        self.timer_error_mhz = 0  # of every rate that is set
        self.heard: list[Message] = []
        self._decoder = FrameDecoder()

    def hear(self, data: bytes) -> bytes:
        """Carry out the commands in `data` and return the answers."""
        answers = b""
        for one in self._decoder.feed(data):
            self.heard.append(one)
            if one.kind == Kind.PING:
                continue
            if one.kind == Kind.START and not self.running:
                self.run, self.running, self.index = (self.run + 1) % 256, 1, 0
            if one.kind == Kind.SET_RATE:
                self.rate_mhz = int.from_bytes(one.body, "little") + self.timer_error_mhz
            answers += self.hello()
        return answers

    def say(self, kind: str, stream: int, run: int, body: bytes) -> bytes:
        """Frame one message."""
        sequence, self.sequence = self.sequence, (self.sequence + 1) % 2**32
        return frame(message(KINDS[kind][0], stream, run, sequence, body))

    def hello(self) -> bytes:
        """Say what there is: one stream of two channels."""
        info = stream_fields(0, 1, 2, self.rate_mhz, run=self.run, running=self.running)
        said = {"tick_hz": 1_000_000, "boot": self.boot, "firmware": "00" * 8, "board": "", "max_message": 2048}
        return self.say("HELLO", 0, 0, KINDS["HELLO"][1]({**said, "streams": [info]}))

    def data(self, count: int = 4, *, run: int | None = None) -> bytes:
        """Send the next samples: each has its index, and the negative of it in the other channel."""
        indices = range(self.index, self.index + count)
        values = [value for index in indices for value in (index % 1000, -(index % 1000))]
        fields = {"format": 1, "channels": 2, "count": count, "ticks": self.index * 1000 % 2**32, "index": self.index}
        self.index += count
        return self.say("DATA", 0, self.run if run is None else run, KINDS["DATA"][1]({**fields, "samples": values}))
