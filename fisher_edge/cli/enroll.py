"""The commands that enrol recordings and judge them."""

from collections import Counter
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fisher_edge.cli.options import (
    AsJson,
    Asset,
    ChannelName,
    HopS,
    InputChannel,
    Model,
    RateHz,
    StateDir,
    WindowS,
    print_json,
)

if TYPE_CHECKING:
    from fisher_edge.decision.evidence import Fusion

__all__ = ["fusion_in_words", "register"]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(enroll)
    app.command()(score)


def enroll(
    files: Annotated[list[Path], typer.Argument(help="Recordings: WAV, FLAC, OGG or .npy.")],
    asset: Asset,
    channel: ChannelName,
    label: Annotated[str | None, typer.Option("--label", help="Fault these recordings show; none: normal.")] = None,
    specimen: Annotated[
        list[str] | None,
        typer.Option("--specimen", help="What was recorded (a bearing, a pump): once for all files, or once for each."),
    ] = None,
    add: Annotated[
        bool, typer.Option("--add", help="Keep the examples of this fault that are enrolled already.")
    ] = False,
    model: Model = "default",
    state_dir: StateDir = Path("state"),
    window_s: WindowS = 10.24,
    hop_s: HopS = None,
    rate_hz: RateHz = None,
    input_channel: InputChannel = None,
    as_json: AsJson = False,
) -> None:
    """Learn the normal state of a machine, or an example of a fault, from recordings.

    Example: fisher-edge enroll healthy-*.flac --asset pump-1 --channel vib-de
    """
    from fisher_edge.decision import enrol
    from fisher_edge.encoder.bundle import load_bundle
    from fisher_edge.encoder.ort import EncoderSession
    from fisher_edge.sources.recording import read_recording
    from fisher_edge.store import Store

    recordings = [read_recording(file, rate_hz=rate_hz, channel=input_channel) for file in files]
    with Store(state_dir, set_aside=False) as store:
        enrolled = enrol.enroll(
            store,
            EncoderSession(load_bundle(model)),
            recordings,
            asset=asset,
            channel=channel,
            label=label,
            specimens=specimen or (),
            extend=add,
            window_s=window_s,
            hop_s=hop_s,
        )
    print_json(asdict(enrolled)) if as_json else _print_enrolled(enrolled)


def score(
    file: Annotated[Path, typer.Argument(help="Recording: WAV, FLAC, OGG or .npy.")],
    asset: Asset,
    channel: ChannelName,
    model: Model = "default",
    state_dir: StateDir = Path("state"),
    hop_s: HopS = None,
    rate_hz: RateHz = None,
    input_channel: InputChannel = None,
    as_json: AsJson = False,
) -> None:
    """Judge a recording against what is enrolled, window by window.

    Example: fisher-edge score today.flac --asset pump-1 --channel vib-de --json
    """
    from fisher_edge.decision.score import score_recording
    from fisher_edge.encoder.bundle import load_bundle
    from fisher_edge.encoder.ort import EncoderSession
    from fisher_edge.sources.recording import read_recording
    from fisher_edge.store import Store

    recording = read_recording(file, rate_hz=rate_hz, channel=input_channel)
    with Store(state_dir, set_aside=False, create=False) as store:
        session = EncoderSession(load_bundle(model))
        results: list[dict[str, Any]] = []
        for fields in score_recording(store, session, recording, asset=asset, channel=channel, hop_s=hop_s):
            if not (as_json or results):
                print(HEAD)
            print_json(fields) if as_json else print(_line(fields))
            results.append(fields)
    if not as_json:
        print(_summary(results))


def _print_enrolled(enrolled: Any) -> None:
    """Say what was learnt and what it means."""
    what = f"examples of {enrolled.label!r}" if enrolled.label else "normal"
    beside = f" beside the {enrolled.windows_before} there were" if enrolled.windows_before else ""
    print(
        f"{enrolled.asset}/{enrolled.channel}: {enrolled.windows} windows of {enrolled.window_s:g} s enrolled as "
        f"{what}{beside}, version {enrolled.version}"
    )
    if enrolled.thresholds:
        often, seldom = enrolled.thresholds.values()
        print(f"  a normal window is typically {enrolled.spread:.3g} away from the others")
        print(f"  warning above {often:.3g}: about one false window a day; alarm above {seldom:.3g}: one in ten days")
        print(f"  (extrapolated from {enrolled.windows} windows: the longer you enrol, the better this is known)")
    for name in enrolled.alone:
        print(f"  {name} is unlike all other recordings: record that operating state once more, or leave it out")
    if enrolled.fusion:
        print(f"  {fusion_in_words(enrolled.fusion)}")


def fusion_in_words(fusion: "Fusion") -> str:
    """Say by what faults are named, and how often rightly."""
    used = [f" and {view.name} (weight {view.weight:g})" for view in fusion.views if view.weight]
    start = f"faults are named by the signal{''.join(used)}"
    if not fusion.may_learn:
        return (
            f"{start}; {fusion.classes_with_two_units} of {fusion.classes} states come from two specimens or "
            f"recordings, {fusion.classes_needed} are needed to say how well (see enroll --specimen)"
        )
    alone = f", {fusion.accuracy:.0%} by the signal alone" if used else ""
    rest = "; further views add nothing" if fusion.views and not used else ""
    return f"{start}: {fusion.fused_accuracy:.0%} right on a specimen or recording left out{alone}{rest}"


HEAD = "     end  state           shape   level        p  largest share of the distance"


def _line(fields: dict[str, Any]) -> str:
    """One window in one line; shape and level are multiples of their alarm thresholds."""
    end_s = datetime.fromisoformat(fields["time"].replace("Z", "+00:00")).timestamp()
    start = f"{end_s:6.1f} s  {fields['state']:<14}"
    if fields["distance"] is None:
        return f"{start}  {fields['reason']}"
    worst = max(fields["bands"], key=lambda band: float(band["share"]))
    part = worst["share"] / fields["distance"] if fields["distance"] else 0.0
    p_value = f"{fields['p_value']:.1g}" if fields["p_value"] > 1e-9 else "<1e-09"
    louder = "+" if fields["level"]["z"] > 0 else "-"
    fault = fields["fault"]
    resembles = f"  {fault['label']} ({fault['votes']} of {fault['k']})" if fault else ""
    return (
        f"{start} {fields['ratio']:6.2f}  {fields['level']['ratio']:5.2f}{louder}  {p_value:>7}  "
        f"{part:.0%} in {worst['low_hz'] / 1000:.3g}-{worst['high_hz'] / 1000:.3g} kHz{resembles}"
    )


def _summary(results: list[dict[str, Any]]) -> str:
    """The whole recording in one line."""
    states = Counter(fields["state"] for fields in results)
    told = ", ".join(f"{count} {state}" for state, count in states.most_common())
    judged = [fields for fields in results if fields["distance"] is not None]
    if not judged:
        return f"{len(results)} windows: {told}"
    shape = median(fields["ratio"] for fields in judged)
    level = median(fields["level"]["ratio"] for fields in judged)
    cause = "shape" if shape >= level else "level"
    return (
        f"{len(results)} windows: {told}; median {cause} {max(shape, level):.2f} times its alarm threshold "
        "(two of three windows beyond it raise the alarm)"
    )
