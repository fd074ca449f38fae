"""The commands that enroll recordings and judge them: `enroll` and `score`."""

import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fisher_edge.cli.options import (
    AsJson,
    Asset,
    BurstIntervalS,
    ChannelName,
    HopS,
    InputChannel,
    Model,
    Provider,
    RateHz,
    StateDir,
    print_json,
)
from fisher_edge.cli.sensitivity import missed_in_words, sensitivity_lines
from fisher_edge.errors import InsensitiveError, UsageError

if TYPE_CHECKING:
    from fisher_edge.decision.assess import Enrolled
    from fisher_edge.decision.fusion import Fusion
    from fisher_edge.decision.judgement import Result
    from fisher_edge.sources.bursts import BurstRecording
    from fisher_edge.sources.recording import Recording

__all__ = ["fusion_in_words", "print_enrolled", "print_promise", "register"]


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
    states: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            help="Operating state of the machine (a speed, a load, a recipe): once for all files, or once for each. "
            "Default: states are found.",
        ),
    ] = None,
    add: Annotated[
        bool, typer.Option("--add", help="Keep what is enrolled already, of the normal state or of this fault.")
    ] = False,
    reason: Annotated[
        str, typer.Option("--reason", help="Why the recordings are enrolled; stored with the version.")
    ] = "",
    keep_mb: Annotated[
        int,
        typer.Option(
            "--keep-mb",
            min=0,
            help="Megabytes that kept recordings of all channels may take, for `baseline reembed`; 0 keeps none.",
        ),
    ] = 256,
    model: Model = "default",
    provider: Provider = "auto",
    state_dir: StateDir = Path("state"),
    window_s: Annotated[
        float | None,
        typer.Option(
            "--window-s",
            show_default="10.24, with --bursts 0.96",
            help="Length of a window in seconds of signal, rounded to whole pieces of the model (default model: 0.96 "
            "s); a shorter window is one piece of its own length.",
        ),
    ] = None,
    hop_s: HopS = None,
    rate_hz: RateHz = None,
    input_channel: InputChannel = None,
    bursts: Annotated[
        bool,
        typer.Option(
            "--bursts",
            help="The sensor sends bursts, which windows join. A .npy file of two dimensions holds a burst in each "
            "row; any other file is one burst, and the files of a folder are one recording.",
        ),
    ] = False,
    burst_interval_s: BurstIntervalS = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Exit with code 7 when a change of +6 dB in some band would raise no alarm within a day, nor be taken "
            "for an unfamiliar operating state; the baseline is stored all the same.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Enroll recordings of the normal state of a machine, or of a fault.

    It says which changes would raise an alarm within a minute, an hour and a day, and warns of bands in which none
    would.

    Example: fisher-edge enroll healthy-*.flac --asset pump-1 --channel vib-de
    """
    from fisher_edge.config.schema import BURST_WINDOW_S
    from fisher_edge.decision.enroll import DEFAULT_WINDOW_S
    from fisher_edge.gateway.recordings import encoder_for, enroll_recordings
    from fisher_edge.names import ChannelKey
    from fisher_edge.store.database import Database

    if strict and label is not None:
        raise UsageError("--strict is for a normal state: examples of a fault raise no alarm; leave it out")
    recordings = _opened(files, rate_hz, input_channel, burst_interval_s, bursts=bursts)
    if window_s is None:
        window_s = BURST_WINDOW_S if bursts else DEFAULT_WINDOW_S
    key = ChannelKey(asset, channel)
    with Database(state_dir, set_aside=False) as database:
        enrolled = enroll_recordings(
            database,
            encoder_for(database, model, key, provider, continued=add or label is not None),
            recordings,
            key,
            label=label,
            specimens=specimen or (),
            states=states or (),
            extend=add,
            window_s=window_s,
            hop_s=hop_s,
            audio_bytes=keep_mb << 20,
            reason=reason,
        )
    print_json(asdict(enrolled)) if as_json else print_enrolled(enrolled)
    _report_missed(enrolled, strict=strict)


def score(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Recording: WAV, FLAC, OGG or .npy. Of a sensor that sends bursts: one .npy file of two dimensions, "
            "or the files of all bursts.",
        ),
    ],
    asset: Asset,
    channel: ChannelName,
    model: Model = "default",
    state_dir: StateDir = Path("state"),
    hop_s: HopS = None,
    rate_hz: RateHz = None,
    input_channel: InputChannel = None,
    burst_interval_s: BurstIntervalS = None,
    state: Annotated[
        str | None, typer.Option("--state", help="Operating state it shows, one of those given with enroll --state.")
    ] = None,
    other_rate: Annotated[
        bool,
        typer.Option(
            "--other-rate",
            help="Judge a recording of another rate than the enrolled one by the frequency bands that both have.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Judge a recording against the enrolled baseline, window by window.

    Example: fisher-edge score today.flac --asset pump-1 --channel vib-de --json
    """
    from fisher_edge.gateway.recordings import enrolled_normal, score_recording
    from fisher_edge.gateway.wiring import Encoders
    from fisher_edge.names import ChannelKey
    from fisher_edge.publish.message import result_message
    from fisher_edge.store.database import Database

    key = ChannelKey(asset, channel)
    with Database(state_dir, set_aside=False, create=False) as database:
        bursts = enrolled_normal(database, key).grid.bursts
        recordings = _opened(files, rate_hz, input_channel, burst_interval_s, bursts=bursts)
        if len(recordings) > 1:
            raise UsageError(f"{len(recordings)} recordings were given; score one at a time")
        (recording,) = recordings
        encoders = Encoders(database.state_dir, model)
        results: list[Result] = []
        for result in score_recording(
            database, encoders, recording, key, hop_s=hop_s, state=state, other_rate=other_rate
        ):
            results.append(result)
            if as_json:
                print_json(result_message(result, gateway=None, key=key, boot=None, seq=len(results), replay=False))
                continue
            if len(results) == 1:
                print(HEAD)
            print(_line(result))
    if not as_json:
        print(_summary(results))


def _opened(
    files: list[Path], rate_hz: str | None, channel: int | None, interval_s: float | None, *, bursts: bool
) -> "list[Recording] | list[BurstRecording]":
    """Open recordings, of bursts or not."""
    from fisher_edge.sources.bursts import read_bursts
    from fisher_edge.sources.recording import read_recording

    if bursts:
        return read_bursts(files, rate_hz=rate_hz, channel=channel, interval_s=interval_s)
    if interval_s is not None:
        raise UsageError("--burst-interval-s is for a sensor that sends bursts; enroll with --bursts, or leave it out")
    return [read_recording(file, rate_hz=rate_hz, channel=channel) for file in files]


def print_enrolled(enrolled: "Enrolled") -> None:
    """Say what was learnt and what it means."""
    what = f"examples of {enrolled.label!r}" if enrolled.label else "normal"
    added = f", added to {enrolled.windows_before} earlier ones" if enrolled.windows_before else ""
    print(
        f"{enrolled.asset}/{enrolled.channel}: {enrolled.windows} windows of {enrolled.window_s:g} s enrolled as "
        f"{what}{added}, version {enrolled.version}"
    )
    print_promise(enrolled)


def print_promise(enrolled: "Enrolled") -> None:
    """Say what the windows of an enrollment promise, and which recordings stand out."""
    if enrolled.promise:
        print(f"  the median distance of a normal window from the others is {enrolled.spread:.3g}")
        (warning, warnings), (alarm, alarms) = enrolled.promise.items()
        print(f"  false warnings: {warning} a day ({_interval(warnings)})")
        print(f"  false alarms: {alarm} a day ({_interval(alarms)})")
        print(f"  (90 % intervals, from {enrolled.takes} recordings or blocks: more of them make this more certain)")
    if enrolled.coreset < enrolled.windows:
        print(
            f"  windows are compared with {enrolled.coreset} of these, which makes distances "
            f"{enrolled.coreset_loss:.3g} times as long on average"
        )
    if len(enrolled.states) > 1:
        print(f"  {len(enrolled.states)} operating states, each with a level of its own: {_states(enrolled)}")
    for name in enrolled.alone:
        print(f"  {name} is unlike all other recordings: record its operating state a second time, or leave it out")
    for name in enrolled.odd:
        print(f"  {name} is unlike the others of its operating state and says nothing about their spread: listen to it")
    for each in enrolled.set_aside:
        print(f"  {each.name} was set aside: {each.reason}")
    if enrolled.sensitivity:
        print("\n".join(f"  {line}" for line in sensitivity_lines(enrolled.sensitivity)))
    if enrolled.fusion:
        print(f"  {fusion_in_words(enrolled.fusion)}")


def _report_missed(enrolled: "Enrolled", *, strict: bool) -> None:
    """Warn of bands in which large changes would not be noticed; with `strict` that is an error."""
    missed = missed_in_words(enrolled.sensitivity)
    if missed is None:
        return
    place = f"{enrolled.asset}/{enrolled.channel}"
    if strict:
        raise InsensitiveError(
            f"{place}: {missed}; version {enrolled.version} is stored all the same: enroll more recordings of the "
            "normal state, or go without --strict"
        )
    print(f"warning: {place}: {missed}", file=sys.stderr)


def _interval(values: tuple[float, float]) -> str:
    """An interval of rates in words."""
    return f"{values[0]:.1g} to {values[1]:.1g}"


def _states(enrolled: "Enrolled") -> str:
    """Say how many recordings each operating state has."""
    counts = Counter(enrolled.state_of_take)
    return ", ".join(f"{name} ({counts[name]} recording{'s' * (counts[name] > 1)})" for name in enrolled.states)


def fusion_in_words(fusion: "Fusion") -> str:
    """Say what the names of faults are based on, and their accuracy."""
    used = [f" and {view.name} (weight {view.weight:g})" for view in fusion.views if view.weight]
    start = f"faults are named by the signal{''.join(used)}"
    if not fusion.may_learn:
        return (
            f"{start}; {fusion.classes_with_two_units} of {fusion.classes} states come from two specimens or "
            f"recordings, {fusion.classes_needed} are needed to say how well (see enroll --specimen)"
        )
    alone = f", {fusion.accuracy:.0%} by the signal alone" if used else ""
    rest = "; further views add nothing" if fusion.views and not used else ""
    return f"{start}: accuracy on specimens or recordings left out: {fusion.fused_accuracy:.0%}{alone}{rest}"


HEAD = "     end  state           score  evidence of shape, level  most unusual band"


def _line(result: "Result") -> str:
    """One window in one line; evidence is in multiples of the limit of an alarm."""
    judgement = result.judgement
    start = f"{judgement.time_s:6.1f} s  {result.state.value:<14}"
    level = judgement.level
    if judgement.evidence is None or level is None or level.evidence is None:
        return f"{start}  {result.reason}"
    worst = max(judgement.bands, key=lambda band: band.unusual or 0.0)
    louder = "+" if (level.z or 0.0) > 0 else "-"
    fault = judgement.fault
    resembles = f"  {fault.label} ({fault.votes} of {fault.k})" if fault else ""
    unfamiliar = "  unfamiliar operating state" if judgement.unfamiliar else ""
    return (
        f"{start} {judgement.score:6.1f}  {judgement.evidence.alarm:17.2f}  {level.evidence.alarm:5.2f}{louder}  "
        f"{worst.unusual:+.1f} sd in {worst.low_hz / 1000:.3g}-{worst.high_hz / 1000:.3g} kHz{resembles}{unfamiliar}"
    )


def _summary(results: "list[Result]") -> str:
    """The whole recording in one line."""
    counts = Counter(result.state.value for result in results)
    states = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    judged = [result.judgement for result in results if result.judgement.ratio is not None]
    if not judged:
        return f"{len(results)} windows: {states}"
    most = max(judged, key=lambda judgement: judgement.ratio or 0.0)
    assert most.evidence is not None
    assert most.level is not None
    assert most.level.evidence is not None
    shape, level = most.evidence, most.level.evidence
    cause, said = ("shape", shape) if shape.alarm >= level.alarm else ("level", level)
    return f"{len(results)} windows: {states}; most evidence: {cause}, {said.kind}, {said.alarm:.2f} times its limit"
