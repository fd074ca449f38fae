"""The commands `fisher-edge bridge`: serial ports, probing a device, recording from it, emulating one."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fisher_edge.cli.options import AsJson, print_json
from fisher_edge.errors import require

if TYPE_CHECKING:
    from fisher_bridge.probe import Probe
    from fisher_bridge.record import Recorded

__all__ = ["register"]

group = typer.Typer(help="Microcontrollers as sensors, on serial ports.", no_args_is_help=True)

Port = Annotated[str, typer.Argument(help="Serial port; names under /dev/serial/by-id/ survive replugging.")]
Baud = Annotated[int, typer.Option("--baud", min=300, max=50_000_000, help="Baud rate; USB devices accept any.")]
RtsCts = Annotated[bool, typer.Option("--rtscts", help="Hardware flow control.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file; called by the entry point."""
    for command in (probe, record, emulate, bench):
        group.command()(command)
    group.command("list")(list_ports)
    app.add_typer(group, name="bridge")


def list_ports(as_json: AsJson = False) -> None:
    """List the serial ports of this computer, each by a name that survives replugging.

    Example: fisher-edge bridge list
    """
    require("bridge", "serial", "cobs")
    from dataclasses import asdict

    from fisher_bridge.port import ports

    found = ports()
    if as_json:
        print_json([asdict(port) for port in found])
        return
    for port in found:
        print(f"{port.path}  ({port.device}, {port.description})")
    if not found:
        print("no serial port found; plug in a device, or emulate one: fisher-edge bridge emulate")


def probe(
    port: Port,
    baud: Baud = 921_600,
    seconds: Annotated[float, typer.Option("--seconds", min=0.5, max=3600, help="Seconds to listen.")] = 10.0,
    rtscts: RtsCts = False,
    as_json: AsJson = False,
) -> None:
    """Identify the device at a port, and measure its rates, its clock and the losses of the line.

    Example: fisher-edge bridge probe /dev/ttyACM0
    """
    require("bridge", "serial", "cobs")
    from fisher_bridge.port import PortSettings
    from fisher_bridge.probe import probe as measure

    with _stopped_by_signals() as stop:
        found = measure(PortSettings(port, baud, rtscts), seconds, stop)
    print_json(found.as_dict()) if as_json else _print_probe(found)


def record(
    port: Port,
    out: Annotated[Path, typer.Argument(help="File to write: .flac, or .wav for 32 bits or more than 8 channels.")],
    baud: Baud = 921_600,
    stream: Annotated[int, typer.Option("--stream", min=0, max=15, help="Number of the stream.")] = 0,
    rate_hz: Annotated[
        float | None, typer.Option("--rate-hz", help="Rate to set on the device (default: leave it).")
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, max=86_400, help="Length in seconds.")] = 60.0,
    rtscts: RtsCts = False,
    as_json: AsJson = False,
) -> None:
    """Record all channels of a stream as they are sent. Missing samples begin a new file.

    Example: fisher-edge bridge record /dev/ttyACM0 healthy.flac --seconds 120
    """
    require("bridge", "serial", "cobs")
    from rich.console import Console
    from rich.progress import Progress

    from fisher_bridge.port import PortSettings
    from fisher_bridge.record import record as pieces

    files: dict[Path, Any] = {}
    screen = Console(stderr=True)
    bar_options: dict[str, Any] = {"console": screen, "transient": True, "disable": not screen.is_terminal}
    with _stopped_by_signals() as stop, Progress(**bar_options) as progress:
        bar = progress.add_task("recording", total=None)
        try:
            for piece in pieces(PortSettings(port, baud, rtscts), out, stream, rate_hz, seconds, stop):
                files[piece.path] = piece
                progress.update(bar, completed=sum(file.samples for file in files.values()), total=piece.wanted)
        finally:
            _print_recorded(list(files.values()), as_json)


def emulate(
    file: Annotated[
        Path | None, typer.Option("--file", help="Recording to replay in a loop (default: a ramp).")
    ] = None,
    link: Annotated[Path | None, typer.Option("--link", help="Symbolic link to create to the port.")] = None,
    rate_hz: Annotated[
        float | None, typer.Option("--rate-hz", help="Rate in Hz (default: that of the file, or 16000).")
    ] = None,
    channels: Annotated[int, typer.Option("--channels", min=1, max=64, help="Number of channels of the ramp.")] = 1,
    loss: Annotated[float, typer.Option("--loss", min=0, max=1, help="Share of frames to lose.")] = 0.0,
    bitflip: Annotated[float, typer.Option("--bitflip", min=0, max=1, help="Share of bits to flip.")] = 0.0,
    drift_ppm: Annotated[
        float, typer.Option("--drift-ppm", help="How much faster the clock of the device runs, in ppm.")
    ] = 0.0,
    jitter_ms: Annotated[float, typer.Option("--jitter-ms", min=0, help="Largest random delay on the line.")] = 0.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of losses, flips and delays.")] = 0,
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="Length in seconds (default: until stopped).")
    ] = None,
) -> None:
    """Emulate a device on a pty with the C library of the firmware. At the end, print what was lost and damaged.

    Example: fisher-edge bridge emulate --file healthy.wav --loss 1e-4 --bitflip 1e-6 --drift-ppm 80
    """
    require("bridge", "serial", "cobs")
    from fisher_bridge.emulator import device_options, emulated

    with device_options(file, rate_hz, channels) as replayed:
        options = [*replayed, "--loss", f"{loss:g}", "--bitflip", f"{bitflip:g}", "--drift-ppm", f"{drift_ppm:g}"]
        options += ["--jitter-ms", f"{jitter_ms:g}", "--seed", str(seed)]
        options += ["--link", str(link)] if link else []
        with _stopped_by_signals() as stop, emulated(options) as device:
            print_json({"port": device.port, "link": str(link) if link else None})
            sys.stdout.flush()
            stop.wait(seconds)
            print_json(device.stop())


def bench(
    seconds: Annotated[float, typer.Option("--seconds", min=1, max=600, help="Seconds of each measurement.")] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Measure the throughput from an emulated device: as fast as a pty goes, and eight channels at 51.2 kHz.

    Example: fisher-edge bridge bench --seconds 60
    """
    require("bridge", "serial", "cobs")
    from fisher_bridge.measure import sustained, throughput

    facts = {"throughput": throughput(seconds), "sustained": sustained(seconds)}
    if as_json:
        print_json(facts)
        return
    for name, values in facts.items():
        print(f"{name}: " + ", ".join(f"{key} {value:g}" for key, value in values.items()))


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_recorded(files: "list[Recorded]", as_json: bool) -> None:
    """Print the files written so far, also when the recording ended early."""
    from fisher_bridge.record import time_text

    for file in files:
        facts = {
            "file": str(file.path),
            "samples": file.samples,
            "rate_hz": file.rate_hz,
            "time": time_text(file.time_s),
        }
        print_json(facts) if as_json else print(f"{file.path}: {file.samples} samples from {facts['time']}", flush=True)


def _print_probe(found: "Probe") -> None:
    hello, counts = found.hello, found.counts
    print(f"{hello.board or 'a device'}, firmware {hello.firmware}, ticks at {hello.tick_hz} Hz")
    for stream in hello.streams:
        rate = found.rates_ppm.get(stream.number)
        real = f", really {rate.value:+.1f} ± {rate.error:.1f} ppm" if rate else ", rate not measured"
        what = f"{stream.channels} x {stream.format.name.lower()} at {stream.rate_hz:g} Hz"
        print(
            f"  stream {stream.number}: {what}{real}; "
            f"1 count = {stream.scale:g} {stream.unit or '(no unit)'}; {stream.sensor or 'no sensor id'}"
        )
    clock = found.clock_ppm
    print(f"  clock: {clock.value:+.1f} ± {clock.error:.1f} ppm; shortest round trip {found.round_trip_ms:.2f} ms")
    share = f" of {found.baud / 10:.0f}" if found.baud else ""
    print(f"  line: {found.bytes_per_s:.0f} bytes/s{share} in {found.seconds:.1f} s")
    print(
        f"  frames: {counts.frames} sound, {counts.lost_frames} lost, {counts.damaged} damaged pieces; "
        f"samples a channel: {counts.lost_samples} lost on the line, {counts.dropped_samples} left out by the device"
    )
    for trouble in found.troubles:
        print(f"TROUBLE: {trouble}")
    if not found.troubles:
        print("OK: the line carries what the device sends")
