"""The bridge on a real pty, with the device that is built from the firmware's own C library at its other end."""

import contextlib
import io
import logging
import os
import resource
import signal
import threading
import time
import tty
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bridge_reference import KINDS
from compiler import NEEDS_COMPILER
from counting import RAMP, consecutive
from mosquitto import wait_until
from scripted_board import Board

from fisher_bridge.continuity import Samples
from fisher_bridge.emulator import emulated
from fisher_bridge.messages import Format
from fisher_bridge.port import PortSettings, open_port
from fisher_bridge.reader import PortReader, shared_reader
from fisher_bridge.source import open_serial as serial_source
from fisher_edge.dsp.blocks import Block
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import grid_of
from fisher_edge.dsp.stream import PieceStream
from fisher_edge.errors import BadInputError, SensorError, UsageError
from fisher_edge.names import ChannelKey
from fisher_edge.sources.source import SourceContext

pytestmark = NEEDS_COMPILER


def ramp(block: Block) -> Block:
    """Check that a block of the counting device holds consecutive samples."""
    assert consecutive(block.samples)
    return block


class Played:
    """A serial source that is opened whenever its blocks are asked for, and closed behind them, as the gateway does."""

    def __init__(self, scale: float, keys: dict[str, Any]) -> None:
        self.source = serial_source(SourceContext(ChannelKey("pump", "vib"), scale=scale), **keys)

    def blocks(self, stop: threading.Event) -> Iterator[Block]:
        """Yield the blocks of one opening."""
        with self.source:
            yield from self.source.blocks(stop)


def open_serial(*, scale: float = 1.0, **keys: Any) -> Played:
    """Return a source with the keys of a configuration."""
    return Played(scale, keys)


def take(source: Played, stop: threading.Event, seconds: float) -> list[Block]:
    """Take so many seconds of samples of a counting device with one channel."""
    blocks: list[Block] = []
    for block in source.blocks(stop):
        blocks.append(ramp(block))
        if sum(len(one.samples) for one in blocks) >= seconds * block.rate_hz:
            break
    return blocks


@pytest.mark.parametrize("kind", [kind.name.lower() for kind in Format])
def test_samples_arrive_as_they_were_sent(kind: str, stop: threading.Event) -> None:
    """Every format brings the values the device counts, without a gap, at its rate and in its scale."""
    options = [
        "--rate",
        "4000",
        "--channels",
        "3",
        "--format",
        kind,
        "--scale-mantissa",
        "25",
        "--scale-exponent",
        "-2",
    ]
    with emulated(options) as device:
        blocks: list[Block] = []
        for block in open_serial(port=device.port, channel=1, scale=2.0).blocks(stop):
            blocks.append(block)
            if len(blocks) == 6:
                break
        device.stop()
    indices = np.concatenate([block.index + np.arange(len(block.samples)) for block in blocks])
    assert (np.diff(indices) == 1).all()
    bits = {"int16": 16, "int24": 24, "int32": 32, "float32": 16}[kind]
    values = (indices * 3 + 1 + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)
    expected = values / (32_768 if kind == "float32" else 1) * 0.25 * 2
    np.testing.assert_array_equal(np.concatenate([block.samples for block in blocks]), expected.astype(np.float32))
    assert {block.rate_hz for block in blocks} == {4000}


def test_two_channels_share_a_port(stop: threading.Event) -> None:
    """A port is opened once for all its channels, of several streams; it closes with the last one."""
    with emulated(["--rate", "2000", "--channels", "2", "--streams", "2"]) as device:
        first = open_serial(port=device.port, channel=0).blocks(stop)
        second = open_serial(port=device.port, channel=1, stream=1).blocks(stop)
        assert {next(first).rate_hz, next(second).rate_hz} == {2000}
        with pytest.raises(BadInputError, match="another program has it open"):
            open_port(PortSettings(device.port))
        first.close()  # type: ignore[attr-defined]
        assert len(next(second).samples)
        second.close()  # type: ignore[attr-defined]
        open_port(PortSettings(device.port)).close()


def test_several_devices_are_read_at_once(stop: threading.Event) -> None:
    """Each port has its own device, rate and clock; one that goes does not touch the other."""
    with emulated(["--rate", "2000"]) as slow, emulated(["--rate", "5000", "--drift-ppm", "300"]) as fast:
        both = [open_serial(port=device.port).blocks(stop) for device in (slow, fast)]
        assert [next(blocks).rate_hz for blocks in both] == [2000, 5000]
        slow.process.kill()
        with pytest.raises(BadInputError, match="is gone"):
            list(both[0])
        for _ in range(20):
            ramp(next(both[1]))
        fast.stop()


@pytest.mark.parametrize(
    "options", [["--loss", "0.02"], ["--bitflip", "2e-5"], ["--loss", "1e-2", "--bitflip", "1e-5"]]
)
def test_reported_loss_is_the_injected_loss(
    options: list[str], stop: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """Frames lost or damaged on the line are counted to the frame and to the sample, and no block spans a gap."""
    with emulated(["--rate", "100000", "--frame", "200", "--seed", "7", "--count", "300000", *options]) as device:
        with shared_reader(PortSettings(device.port)) as reader, reader.subscribe(0) as subscription:
            pieces: list[tuple[int, int]] = []
            while reader.session.stats is None or reader.session.counts.samples < 200_000:
                for samples in subscription.take(0.2):
                    assert consecutive(samples.raw[:, 0])
                    pieces.append((samples.index, len(samples.raw)))
                    assert int(samples.raw[0, 0]) % RAMP == samples.index % RAMP
            wait_until(lambda: reader.session.counts.samples + reader.session.counts.lost_samples >= 300_000, "all", 10)
            counts = reader.session.counts
        sent = device.stop()
    assert sum("frames lost on the line" in record.message for record in caplog.records) == 1  # one line a minute
    assert sent["frames_lost"] + sent["frames_flipped"] > 5
    assert counts.lost_frames == sent["frames_lost"] + sent["frames_flipped"]
    assert counts.lost_samples == sent["samples_lost"]
    assert counts.dropped_samples == 0
    assert counts.samples + counts.lost_samples == sent["samples"] == 300_000
    assert all(index + count < after for (index, count), (after, _) in pairwise(pieces) if after != index + count)


def test_what_the_device_drops_is_counted_apart(stop: threading.Event) -> None:
    """A host that does not read for a while: the device's buffer overflows, and says how much is missing."""
    with emulated(["--rate", "50000", "--tx-buffer", "8192"]) as device:
        with shared_reader(PortSettings(device.port)) as reader, reader.subscribe(0):
            wait_until(lambda: reader.session.counts.samples > 5000, "samples", 10)
            with reader._lock:  # the reading thread waits for it
                time.sleep(1.0)
            wait_until(lambda: reader.session.counts.dropped_samples > 0, "a gap", 10)
            wait_until(
                lambda: reader.session.stats and reader.session.stats.dropped == reader.session.counts.dropped_samples,
                "STATS that agree",
                10,
            )
            assert reader.session.counts.lost_samples == 0
        device.stop()


def test_boot_text_and_a_start_in_the_middle_are_tolerated(stop: threading.Event) -> None:
    """A device that prints while it boots and streams before it is asked is read from its next frame on."""
    with emulated(["--boot-text", "ESP-ROM:esp32s3-20210327 boot", "--start", "--rate", "8000"]) as device:
        blocks = take(open_serial(port=device.port), stop, 1.0)
        device.stop()
    assert sum(len(block.samples) for block in blocks) >= 8000


def test_clock_of_a_drifting_device_is_learnt(stop: threading.Event) -> None:
    """With 200 ppm of drift and 5 ms of jitter, times are within 2 ms of the true ones from the first sample on.

    The rate is as sure as it says; the full minute of it is in LOG.md.
    """
    errors = []
    with emulated(["--drift-ppm", "200", "--jitter-ms", "5", "--rate", "10000", "--frame", "100"]) as device:
        began_s = time.monotonic()
        with shared_reader(PortSettings(device.port)) as reader, reader.subscribe(0) as subscription:
            while time.monotonic() < began_s + 10:
                taken = subscription.take(0.2)
                errors += [samples.time_s - device.true_s(samples.ticks, 200.0) for samples in taken]
            measured = reader.session.deviations[0]
        device.stop()
    assert len(errors) > 100
    assert max(map(abs, errors)) < 2e-3
    assert measured.error < 60
    assert abs(measured.value - 200) < 4 * measured.error


def test_no_window_spans_a_gap(stop: threading.Event) -> None:
    """On a line that loses frames, every window holds consecutive samples, and there are windows between the gaps."""
    front_end = FrontEnd(band_width=50)
    windows, gaps = 0, 0
    with emulated(["--rate", "16000", "--frame", "80", "--loss", "0.01", "--seed", "4"]) as device:
        stream = PieceStream(front_end, 16_000, grid_of(front_end, 0.2, 0.05, 16_000))
        for block in open_serial(port=device.port).blocks(stop):
            for window in stream.push(block):
                assert consecutive(window.samples)
                windows += 1
            gaps = stream.gaps
            if gaps >= 5 and windows >= 30:
                break
        device.stop()


def test_device_that_is_reset_is_met_anew(stop: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    """A reset at an open port, after any time, is no error: the stream goes on behind a gap, with the new clock."""
    with emulated(["--rate", "8000"]) as device:
        with shared_reader(PortSettings(device.port)) as reader, reader.subscribe(0) as subscription:
            time.sleep(5.5)  # longer than a HELLO is waited for
            before = subscription.take(1.0)
            device.process.send_signal(signal.SIGUSR1)
            wait_until(lambda: reader.session.boots == 2, "the second HELLO", 10)
            after: list[Samples] = []
            while sum(len(samples.raw) for samples in after) < 4000:
                after += subscription.take(0.2)
            assert reader.failure is None
        device.stop()
    pieces = [*before, *after]
    assert all(consecutive(piece.raw[:, 0]) for piece in pieces)
    gaps = [b.index - a.index - len(a.raw) for a, b in pairwise(pieces)]
    assert sum(gap != 0 for gap in gaps) == 1
    assert min(gaps) >= 0
    assert all(abs(b.time_s - a.time_s) < 3 for a, b in pairwise(pieces))


def test_fault_of_the_sensor_is_told_as_one(stop: threading.Event) -> None:
    """An ERROR that says the sensor is at fault makes the channel check_function, not no_data."""
    board = Board()
    master, slave = os.openpty()
    tty.setraw(slave)

    def serve() -> None:
        os.set_blocking(master, False)
        while not stop.wait(0.02):
            with contextlib.suppress(BlockingIOError):
                os.write(master, board.hear(os.read(master, 4096)))
            if board.running:
                body = KINDS["ERROR"][1]({"code": 5, "sequence": 0, "text": "no answer on SPI"})
                os.write(master, board.say("ERROR", 0, 0, body))

    threading.Thread(target=serve, daemon=True).start()
    with pytest.raises(SensorError, match="its sensor is at fault: 'no answer on SPI'"):
        next(open_serial(port=os.ttyname(slave)).blocks(stop))
    stop.set()
    os.close(slave)


def test_rate_that_is_not_what_the_device_says_is_a_sensor_fault(stop: threading.Event) -> None:
    """A device that is one percent too fast is a sensor error, and its windows are not judged."""
    with emulated(["--drift-ppm", "10000", "--rate", "5000"]) as device:
        with pytest.raises(SensorError, match=r"says 5000 Hz and delivers 50\d\d\.\d Hz"):
            take(open_serial(port=device.port), stop, 5.0)
        device.stop()


def test_rate_is_set(stop: threading.Event) -> None:
    """A rate in the configuration becomes the rate of the device."""
    with emulated(["--rate", "5000"]) as device:
        blocks = take(open_serial(port=device.port, rate_hz=3200), stop, 0.5)
        device.stop()
    assert {block.rate_hz for block in blocks} == {3200}
    assert len({block.index for block in blocks}) == len(blocks)


@pytest.mark.parametrize(
    ("keys", "error", "said"),
    [
        ({"stream": 3}, BadInputError, "has no stream 3; it has 0"),
        ({"channel": 4}, UsageError, "has 1 channels, counted from 0; there is no channel 4"),
        ({"rate_hz": 5.0}, BadInputError, "the device says"),
    ],
)
def test_what_a_device_cannot_do_is_one_line(
    keys: dict[str, Any], error: type[Exception], said: str, stop: threading.Event
) -> None:
    """A stream, a channel or a rate that there is not is named with what there is."""
    with emulated([]) as device:
        with pytest.raises(error, match=said) as caught:
            take(open_serial(port=device.port, **keys), stop, 1.0)
        assert "\n" not in str(caught.value)
        device.stop()


def test_a_port_that_is_none_is_one_line(tmp_path: Path, stop: threading.Event) -> None:
    """No file, a file that is no port, and a line on which nothing speaks."""
    with pytest.raises(BadInputError, match=r"no serial port at .*; plug the device in"):
        next(open_serial(port=str(tmp_path / "none")).blocks(stop))
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match=r"cannot be opened: it is no serial port; see: fisher-edge bridge list"):
        next(open_serial(port=str(tmp_path / "file")).blocks(stop))


@pytest.mark.parametrize(("sent", "said"), [(b"", "nothing came in"), (b"hello there\r\n" * 9, "it says 'hello there")])
def test_a_line_without_a_device_is_one_line(
    sent: bytes, said: str, stop: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence and text have an error each, with what to check."""
    monkeypatch.setattr("fisher_bridge.reader.GREETING_S", 0.5)
    master, slave = os.openpty()

    def print_now_and_then() -> None:
        while not stop.wait(0.1):
            os.write(master, sent + b"\0")

    if sent:
        threading.Thread(target=print_now_and_then, daemon=True).start()
    with pytest.raises(BadInputError, match=said):
        next(open_serial(port=os.ttyname(slave)).blocks(stop))
    stop.set()
    os.close(slave)


def test_a_device_that_falls_silent_is_reported(stop: threading.Event) -> None:
    """A board that hangs answers no ping: an error, rather than waiting for ever."""
    with emulated(["--rate", "2000"]) as device:
        source = open_serial(port=device.port)
        blocks = source.blocks(stop)
        next(blocks)
        device.process.send_signal(signal.SIGSTOP)
        with pytest.raises(BadInputError, match="has been silent for 3 s"):
            list(blocks)
        device.process.send_signal(signal.SIGCONT)
        device.stop()


def descriptors() -> int:
    """Open files of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def replug(link: Path, times: int, stop: threading.Event) -> list[int]:
    """Unplug and replug a device so many times while a source reads it; return the samples of each life."""
    source = open_serial(port=str(link))
    lives = []
    for _ in range(times):
        with emulated(["--link", str(link), "--rate", "20000", "--channels", "1"]) as device:
            taken, last = 0, None
            for block in source.blocks(stop):
                ramp(block)
                assert last is None or block.index >= last
                taken, last = taken + len(block.samples), block.index + len(block.samples)
                if taken > 1000:
                    break
            pulled = source.blocks(stop)
            next(pulled)
            device.process.kill()
            device.process.wait()
            with pytest.raises(BadInputError, match="is gone"):
                list(pulled)
        lives.append(taken)
    return lives


def test_unplugging_and_plugging_in_again_always_resumes(tmp_path: Path, stop: threading.Event) -> None:
    """Each life of the device is read, nothing of one is joined to another, and no descriptor stays open."""
    link = tmp_path / "board"
    replug(link, 1, stop)
    before = descriptors()
    assert all(taken > 1000 for taken in replug(link, 5, stop))
    assert descriptors() == before


def test_a_source_waits_for_its_port_to_come_back(tmp_path: Path, stop: threading.Event) -> None:
    """Gone is an error once; then the source waits without one, and goes on when the same path is there again."""
    link = tmp_path / "board"
    source = open_serial(port=str(link))
    with pytest.raises(BadInputError, match="no serial port"):
        next(source.blocks(stop))
    found: list[Block] = []
    thread = threading.Thread(target=lambda: found.append(next(source.blocks(stop))), daemon=True)
    thread.start()
    time.sleep(0.5)
    assert thread.is_alive()
    with emulated(["--link", str(link)]) as device:
        thread.join(10)
        assert len(found) == 1
        device.stop()


def test_port_has_one_baud_rate(stop: threading.Event) -> None:
    """A second channel with another baud rate for the port is refused; the first continues."""
    with emulated(["--rate", "2000"]) as device:
        first = open_serial(port=device.port, baud=115_200).blocks(stop)
        next(first)
        with pytest.raises(UsageError, match="is used with 115200 baud and 9600 baud; give all its channels the same"):
            next(open_serial(port=device.port, baud=9600).blocks(stop))
        ramp(next(first))
        device.stop()


def test_rate_may_be_a_fraction(stop: threading.Event) -> None:
    """A board divides its clock: the rate of its blocks is the exact one."""
    with emulated(["--rate", "3906.25"]) as device:
        (block,) = take(open_serial(port=device.port), stop, 0.01)[:1]
        device.stop()
    assert block.rate_hz == Fraction(15_625, 4)


@contextlib.contextmanager
def pty_reader() -> Iterator[tuple[PortReader, io.FileIO]]:
    """Give a reader of a pty that is not started yet, and the other end of the pty."""
    master, slave = os.openpty()
    tty.setraw(slave)
    with open(master, "r+b", buffering=0) as other_end:  # noqa: PTH123 -- a descriptor
        try:
            yield PortReader(PortSettings(os.ttyname(slave))), other_end
        finally:
            os.close(slave)


def test_port_is_closed_before_anybody_is_told_that_it_failed() -> None:
    """Whoever opens the port again on hearing of a failure finds it free."""
    with pty_reader() as (reader, other_end):
        told: list[bool] = []
        close = reader._port.close

        def close_and_look() -> None:
            told.append(reader.failure is not None or subscription._failure is not None)
            close()

        with reader.subscribe(0) as subscription:
            reader._port.close = close_and_look
            other_end.close()
            reader._run()
            assert told == [False]
            with pytest.raises(BadInputError, match="is gone"):
                subscription.take(0)
        with pytest.raises(BadInputError, match="is gone"), reader.subscribe(0):
            pass  # a reader that has failed has no new consumers who wait for ever


def test_port_is_read_whatever_its_descriptor(stop: threading.Event) -> None:
    """A gateway with more than a thousand open files reads its port as well."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    taken: list[int] = []
    try:
        with emulated(["--rate", "2000"]) as device:
            while not taken or taken[-1] < 1024:
                taken.append(os.dup(0))
            blocks = open_serial(port=device.port).blocks(stop)
            assert len(ramp(next(blocks)).samples)
            blocks.close()  # type: ignore[attr-defined]
            for descriptor in taken:
                os.close(descriptor)
            taken.clear()
            device.stop()
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_a_device_does_otherwise_is_logged_once_for_each_change(caplog: pytest.LogCaptureFixture) -> None:
    """The rate its timer really has, pings it does not answer any more, commands it does not know."""
    caplog.set_level(logging.INFO)
    with pty_reader() as (reader, _):
        session = reader.session
        session.wanted[0], session.achieved[0] = 12_800.0, 12_800.205
        session.unsupported.add(200)
        for unanswered in (False, True, True, False, False):
            session.pings_unanswered = unanswered
            reader._tell()
        reader._port.close()
    said = [record.message.split(": ", 1)[1] for record in caplog.records]
    assert said == [
        "stream 0 runs at 12800.205 Hz, asked for 12800 Hz",
        "the device does not know the optional command 200",
        "the device has stopped answering pings; times are extrapolated and rates not checked",
        "the device answers pings again",
    ]


def test_rate_that_is_never_reached_is_one_error() -> None:
    """After some attempts the rate that was asked for and the one there is are named."""
    board = Board()
    board.timer_error_mhz = 20_000
    with pty_reader() as (reader, _), reader.subscribe(0, 12_800.0):
        began_s = time.monotonic()
        for step in range(120):
            now_s = began_s + step * 0.05
            reader.session.receive(board.hear(reader.session.due(now_s)), now_s)
        said = (
            r"stream 0 was asked 10 times for 12800 Hz and stays at 12820 Hz; set rate_hz to a rate that the device has"
        )
        with pytest.raises(BadInputError, match=said):
            reader._check(time.monotonic())
        reader._port.close()
