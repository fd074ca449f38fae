"""The command `fisher-edge simulate`: record simulated machines and draw their faults."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fisher_edge.cli.options import AsJson, print_json
from fisher_edge.errors import require

if TYPE_CHECKING:
    from fisher_train.simulate.source import SimulatorSource

__all__ = ["register"]

PICTURES = {".png", ".svg", ".pdf"}


def register(app: typer.Typer) -> None:
    """Add the commands of this file; called by the entry point."""
    app.command()(simulate)


def simulate(
    out: Annotated[Path | None, typer.Argument(help="WAV file to write, in float32.")] = None,
    machine: Annotated[str | None, typer.Option("--machine", help="Kind of machine; --list shows all.")] = None,
    fault: Annotated[str, typer.Option("--fault", help="Fault of the machine (default: healthy).")] = "",
    severity: Annotated[
        float, typer.Option("--severity", help="Size of the fault: 0 is the healthy machine, 1 is plain to see.")
    ] = 1.0,
    rate_hz: Annotated[int, typer.Option("--rate-hz", help="Sampling rate in Hz, 1000 to 200000.")] = 20_000,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, max=86_400, help="Length in seconds.")] = 10.0,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Number of the machine: each is another machine of its kind.")
    ] = 0,
    specimen: Annotated[
        int, typer.Option("--specimen", min=0, help="Number of the specimen: each is another individual of the fault.")
    ] = 0,
    modality: Annotated[
        str | None,
        typer.Option("--modality", help="vibration, sound, current or voltage (default: the usual one of the kind)."),
    ] = None,
    speed_hz: Annotated[
        float | None, typer.Option("--speed-hz", help="Speed of the shaft in revolutions per second (default: drawn).")
    ] = None,
    load: Annotated[float, typer.Option("--load", min=0, max=1, help="Share of the rated load.")] = 0.7,
    onset_s: Annotated[float, typer.Option("--onset-s", min=0, help="Seconds before the fault begins.")] = 0.0,
    growth_s: Annotated[
        float, typer.Option("--growth-s", min=0, help="Seconds in which the fault grows to its size.")
    ] = 0.0,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", help="Picture to draw (.pdf, .png, .svg); without --machine a folder for one of every fault."
        ),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the machines and their faults.")] = False,
    as_json: AsJson = False,
) -> None:
    """Record a simulated machine, healthy or with a fault, and draw where theory puts its lines.

    One seed, speed and load give one recording: a fault of any severity is added to it.

    Example: fisher-edge simulate outer.wav --machine bearing --fault outer --plot outer.png
    """
    require("simulate", "scipy")
    if listed:
        _print_list(as_json)
        return
    _check(out, machine, plot)
    if machine is None:
        assert plot is not None
        _draw_page(plot, rate_hz, severity, seed)
        return
    from fisher_edge.names import ChannelKey
    from fisher_edge.sources.source import SourceContext
    from fisher_train.simulate.source import open_simulator

    source = open_simulator(
        SourceContext(ChannelKey(machine, "simulated")),
        machine=machine,
        rate_hz=rate_hz,
        fault=fault,
        severity=severity,
        onset_s=onset_s,
        growth_s=growth_s,
        seed=seed,
        specimen=specimen,
        modality=modality,
        speed_hz=speed_hz,
        load=load,
        speed=0,
    )
    if out is not None:
        _write(out, source, round(seconds * rate_hz))
    if plot is not None:
        from fisher_train.simulate.plot import draw_fault

        draw_fault(plot, source.machine, source.state, source.point, rate_hz, seed)
    facts = (
        {"machine": machine} | _facts(source) | {"file": str(out) if out else None, "plot": str(plot) if plot else None}
    )
    print_json(facts) if as_json else _print_facts(facts)


def _check(out: Path | None, machine: str | None, plot: Path | None) -> None:
    """Refuse wrong arguments before anything is recorded."""
    from fisher_edge.errors import UsageError

    if plot is not None:
        require("simulate", "matplotlib")
    if machine is None and (out is not None or plot is None):
        raise UsageError("--machine is missing; list the machines with: fisher-edge simulate --list")
    if machine is not None and out is None and plot is None:
        raise UsageError("no output is named; give a .wav file, or a picture with --plot")
    if out is not None and out.suffix.lower() != ".wav":
        raise UsageError(f"{out}: only .wav is supported; choose a name that ends in .wav")
    if machine is not None and plot is not None and plot.suffix.lower() not in PICTURES:
        raise UsageError(f"{plot}: only {', '.join(sorted(PICTURES))} are supported; choose one of these endings")
    for path in (out, plot):
        if path is not None and not path.resolve().parent.is_dir():
            raise UsageError(f"{path}: the folder {path.resolve().parent} does not exist; create it first")


def _write(out: Path, source: "SimulatorSource", samples: int) -> None:
    """Write a number of samples block by block, so that memory does not grow with the length."""
    import threading

    import soundfile

    from fisher_edge.errors import UsageError

    try:
        file = soundfile.SoundFile(out, "w", samplerate=source.rate_hz, channels=1, subtype="FLOAT")
    except soundfile.SoundFileError as error:
        raise UsageError(f"{out} cannot be written ({error}); choose another name or folder") from error
    with file:
        for block in source.blocks(threading.Event()):
            file.write(block.samples[: samples - block.index])
            if block.index + len(block.samples) >= samples:
                return


def _draw_page(folder: Path, rate_hz: int, severity: float, seed: int) -> None:
    from rich.progress import track

    from fisher_train.simulate.machine import FAULTS_OF
    from fisher_train.simulate.plot import draw_page

    total = 1 + sum(len(faults) for faults in FAULTS_OF.values())
    for path in track(draw_page(folder, rate_hz, severity, seed), "drawing", total):
        last = path
    print(f"drawn: {last}")


def _print_list(as_json: bool) -> None:
    from fisher_train.simulate.catalogue import FAULTS_TOLD, KINDS
    from fisher_train.simulate.machine import FAULTS_OF

    if as_json:
        print_json(
            {
                kind: {
                    "what": what,
                    "modalities": list(modalities),
                    "faults": dict(zip(FAULTS_OF[kind], FAULTS_TOLD[kind], strict=True)),
                }
                for kind, (what, modalities) in KINDS.items()
            }
        )
        return
    for kind, (what, modalities) in KINDS.items():
        print(f"{kind}: {what}; {', '.join(modalities)}")
        for fault, text in zip(FAULTS_OF[kind], FAULTS_TOLD[kind], strict=True):
            print(f"  {fault:14} {text}")


def _facts(source: "SimulatorSource") -> dict[str, Any]:
    """Facts of the recording, and the lines that theory expects in it."""
    from fisher_train.simulate.lines import lines_of

    machine, state = source.machine, source.state
    return {
        "fault": state.fault or None,
        "severity": state.size,
        "modality": machine.modality,
        "rate_hz": source.rate_hz,
        "speed_hz": round(machine.rotor.speed_hz * source.point.speed, 4),
        "lines": [
            {"name": line.name, "hz": round(line.hz, 3), "seen_in": line.seen_in}
            for line in lines_of(machine, state, source.point)
        ],
    }


def _print_facts(facts: dict[str, Any]) -> None:
    """Print the facts of the recording, one row for each expected line."""
    what = f"{facts['machine']} with {facts['fault']}" if facts["fault"] else f"healthy {facts['machine']}"
    print(f"{what}: {facts['modality']} at {facts['rate_hz']} Hz, shaft at {facts['speed_hz']:g} Hz")
    for line in facts["lines"]:
        print(f"  {line['name']:20} {line['hz']:10.2f} Hz in the {line['seen_in']}")
    for path in (facts["file"], facts["plot"]):
        if path:
            print(f"written: {path}")
