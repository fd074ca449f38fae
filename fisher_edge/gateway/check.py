"""What a configuration means for the store it will run on: checked before the gateway is started. See `findings`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fisher_edge.config import ChannelConfig, Config
from fisher_edge.dsp.blocks import Rate, as_rate, rate_text
from fisher_edge.dsp.grid import grid_of
from fisher_edge.errors import BadInputError, UsageError
from fisher_edge.gateway.wiring import Encoders, Planner, doubt_of
from fisher_edge.names import ChannelKey
from fisher_edge.publish.address import BrokerAddress
from fisher_edge.sources.open import open_source
from fisher_edge.sources.recording import read_recording
from fisher_edge.store.baselines import Baseline, Baselines
from fisher_edge.store.database import DATABASE_NAME, Database

__all__ = ["Findings", "findings"]

# A rate at which every front-end has windows, to check lengths of a channel that nothing is enrolled for.
ANY_RATE_HZ = 16_000


@dataclass(frozen=True)
class Findings:
    """The `model` and the `provider` in use, and in `notes` what would keep channels from being judged, a line each."""

    model: str
    provider: str
    notes: list[str]


def findings(config: Config) -> Findings:
    """Return what a configuration means here; without notes everything fits.

    Raises what the gateway would refuse to start with: UsageError, MissingExtraError, BadArtifactError.
    """
    mqtt = config.mqtt
    if mqtt.url != "embedded":
        BrokerAddress.parse(mqtt.url, password_file=mqtt.password_file, ca_file=mqtt.ca_file)
    model = config.model
    encoders = Encoders(config.gateway.state_dir, model.bundle, model.provider, model.require)
    for channel in config.channel:
        open_source(channel, config.base_dir)
        _check_lengths(config, channel, encoders)
    if not (config.gateway.state_dir / DATABASE_NAME).exists():
        unknown = [f"{channel.key}: nothing is enrolled in {config.gateway.state_dir}" for channel in config.channel]
        return _found(encoders, [*unknown, *_recordings(config, {})])
    with Database(config.gateway.state_dir, set_aside=False, create=False) as database:
        planner = Planner(config, Baselines(database), encoders)
        enrolled = {channel.key: planner.baselines.get(channel.key, None) for channel in config.channel}
        rates = {key: baseline.rate_hz for key, baseline in enrolled.items() if baseline is not None}
        rates |= {each.key: as_rate(each.other_rate_hz) for each in config.channel if each.other_rate_hz is not None}
        states = (note for each in config.channel if (note := _states(each, enrolled[each.key])) is not None)
        notes = [*_unfit(planner), *states, *_unused(planner), *_recordings(config, rates)]
        return _found(encoders, notes)


def _found(encoders: Encoders, notes: list[str]) -> Findings:
    return Findings(encoders.default.name, encoders.default.provider, notes)


def _check_lengths(config: Config, channel: ChannelConfig, encoders: Encoders) -> None:
    """Refuse windows that the model cannot see."""
    try:
        grid_of(encoders.default.bundle.front_end, *config.lengths_of(channel), ANY_RATE_HZ)
    except BadInputError as error:
        raise UsageError(f"channel {channel.key}: {error}") from error


def _unfit(planner: Planner) -> Iterator[str]:
    """Say which channels will not be judged, and why, and which are judged by an earlier model."""
    default = planner.encoders.default
    for channel in planner.config.channel:
        plan = planner.plan(channel)
        reason = plan.reason or getattr(plan.judge, "reason", None)
        encoder = plan.encoder
        if (doubt := doubt_of(plan)) is not None:
            yield f"{channel.key}: {doubt}"
        if reason:
            yield f"{channel.key}: {reason}"
        elif encoder.sha256 != default.sha256:
            yield (
                f"{channel.key}: judged by the model it was enrolled with, {encoder.name} ({encoder.sha256[:8]}), not "
                f"{default.name} ({default.sha256[:8]}); to change that run: fisher-edge baseline reembed "
                f"{channel.asset} {channel.name} --provider {planner.config.model.provider}"
            )


def _states(channel: ChannelConfig, normal: Baseline | None) -> str | None:
    """Say which operating states of a channel are not enrolled."""
    config = channel.operating_state
    if config is None or normal is None:
        return None
    named = {state.name for state in normal.states if state.given}
    if not named:
        return f"{channel.key}: operating_state counts only with states named at enrollment; enroll with --state"
    missing = sorted(({config.name} if config.name else set(config.states)) - named)
    if not missing:
        return None
    return (
        f"{channel.key}: operating state {', '.join(map(repr, missing))} is not enrolled (there are: "
        f"{', '.join(sorted(named))}); it will be said to be unfamiliar"
    )


def _unused(planner: Planner) -> Iterator[str]:
    """Say what is enrolled that no channel uses: a name may be misspelt."""
    used = {channel.key for channel in planner.config.channel}
    for key in planner.baselines.channels():
        if key not in used:
            yield f"{key}: enrolled, but no [[channel]] has this asset and name"


def _recordings(config: Config, rates: Mapping[ChannelKey, Rate]) -> Iterator[str]:
    """Say which recordings are missing, cannot be read, or do not have the rate they are judged at."""
    for channel in config.channel:
        if channel.source.type != "recording":
            continue
        for name in channel.source.options.get("files", ()):
            note = _recording(channel, config.base_dir / Path(name), rates.get(channel.key))
            if note is not None:
                yield f"{channel.key}: {note}"


def _recording(channel: ChannelConfig, path: Path, expected_hz: Rate | None) -> str | None:
    """Say what is wrong with one recording."""
    if not path.is_file():
        return f"no data until there is a file at {path}"
    options = channel.source.options
    try:
        rate_hz = read_recording(
            path, rate_hz=options.get("rate_hz"), channel=options.get("channel"), scale=channel.scale
        ).rate_hz
    except BadInputError as error:
        return f"no data: {error}"
    if expected_hz is None or rate_hz == expected_hz:
        return None
    said = "the baseline was enrolled at" if channel.other_rate_hz is None else "other_rate_hz is"
    return f"{path} has {rate_text(rate_hz)} Hz, {said} {rate_text(expected_hz)} Hz"
