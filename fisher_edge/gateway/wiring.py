"""From the configuration and the store to the parts of a gateway: encoders, plans of channels. Start at `Planner`."""

import ctypes
import logging
from dataclasses import replace
from pathlib import Path

from fisher_edge.config import ChannelConfig, Config
from fisher_edge.decision.alarm import AlarmRule
from fisher_edge.decision.common import Common
from fisher_edge.decision.evidence import Rates
from fisher_edge.decision.fusion import Fusion
from fisher_edge.decision.judge import Judge, Unenrolled
from fisher_edge.decision.judgement import ModelName
from fisher_edge.decision.naming import normal_of
from fisher_edge.dsp.blocks import as_rate, rate_text
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import Grid
from fisher_edge.encoder.bundle import Bundle, load_bundle
from fisher_edge.encoder.faithful import unfaithful_bands
from fisher_edge.encoder.forms import PLAIN, forms_of
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.select import AUTO, open_encoder
from fisher_edge.errors import BadArtifactError, BadInputError, FisherEdgeError, ProviderError
from fisher_edge.gateway.monitored import Plan
from fisher_edge.gateway.other_rate import Heard, at_other_rate
from fisher_edge.gateway.reader import Cutting
from fisher_edge.store import bundles
from fisher_edge.store.baselines import Baseline, Baselines

__all__ = ["Encoders", "Planner", "cache_of", "doubt_of", "front_end_of", "rule_of"]

CACHE = "cache"

log = logging.getLogger(__name__)


class Encoders:
    """The encoders a gateway needs: that of the configuration, and those of baselines made with another model or form.

    Measurements and engines are kept in the state directory, where there is one.
    """

    def __init__(
        self, state_dir: Path, bundle: str = "default", provider: str = AUTO, require: str | None = None
    ) -> None:
        self._state_dir = state_dir
        self._provider = provider
        self._cache_dir = cache_of(state_dir)
        self._others: dict[str, Encoder] = {}
        self.default = open_encoder(load_bundle(bundle), provider, require, self._cache_dir)

    def find(self, sha256: str) -> Encoder | None:
        """Return the encoder with this model in this form; None when its bundle is not kept.

        Raises ProviderError when the form needs a provider that is not here, BadArtifactError when the kept bundle is
        damaged.
        """
        if sha256 == self.default.sha256:
            return self.default
        if sha256 not in self._others:
            bundle = self._bundle_of(sha256)
            if bundle is None:
                return None
            self._others[sha256] = open_encoder(bundle, self._provider, cache_dir=self._cache_dir, sha256=sha256)
        return self._others[sha256]

    def _bundle_of(self, sha256: str) -> Bundle | None:
        """Return the bundle that has a form with this hash: that of the configuration, or a kept one."""
        if sha256 in {form.sha256 for form in forms_of(self.default.bundle).values()}:
            return self.default.bundle
        folder = bundles.find(self._state_dir, sha256)
        return None if folder is None else load_bundle(folder)


class Planner:
    """Plans how each channel of a configuration is cut and judged."""

    def __init__(self, config: Config, baselines: Baselines, encoders: Encoders) -> None:
        self.config = config
        self.baselines = baselines
        self.encoders = encoders

    def plan(self, channel: ChannelConfig) -> Plan:
        """Plan one channel by what is enrolled for it now.

        Where it does not fit its baseline, or the model of that is gone, the plan says so in `reason`.
        """
        try:
            enrolled = self._enrolled(channel)
        except ValueError as error:
            reason = f"what is enrolled is damaged ({error}); activate an earlier version or enroll again"
            return self._unjudged(channel, reason, lost=True)
        normal = normal_of(enrolled)
        if normal is None:
            return self._unjudged(
                channel,
                "nothing is enrolled for this channel; run: fisher-edge enroll FILES "
                f"--asset {channel.asset} --channel {channel.name}",
            )
        try:
            encoder, front_end = self._encoder_of(normal)
        except FisherEdgeError as error:
            return self._unjudged(channel, str(error), lost=True)
        try:
            heard = self._heard(channel, encoder, front_end, normal, enrolled)
            cutting = self._cutting(channel, front_end, normal, common=heard.common)
            _check_bursts(normal, channel)
            grid = cutting.grid(cutting.rate_hz or normal.rate_hz)
            _check_window(normal, grid, cutting.window_s)
        except BadInputError as error:
            return self._refused(channel, str(error))
        alarm = self.config.alarm_of(channel)
        judge = Judge(
            heard.enrolled,
            front_end,
            Rates(alarm.warning_per_day, alarm.alarm_per_day),
            grid.hop_s,
            heard.fusion,
            heard.common,
        )
        _give_back_memory()
        return Plan(encoder, cutting, judge, baseline_version=normal.version)

    def _enrolled(self, channel: ChannelConfig) -> list[Baseline]:
        """Return the active baselines of a channel; ValueError when one of them is damaged."""
        enrolled = self.baselines.active(channel.key)
        for baseline in enrolled:
            baseline.check()
        return enrolled

    def _heard(
        self, channel: ChannelConfig, encoder: Encoder, front_end: FrontEnd, normal: Baseline, enrolled: list[Baseline]
    ) -> Heard:
        """Return what a channel is judged by: its baselines, brought to the rate of its sensor where that is another.

        Raises BadInputError where the two rates have nothing in common.
        """
        sensor_hz = normal.rate_hz if channel.other_rate_hz is None else as_rate(channel.other_rate_hz)
        if sensor_hz != normal.rate_hz:
            heard = at_other_rate(self.baselines.database.state_dir, encoder, front_end, enrolled, sensor_hz)
            log.warning("channel %s: %s", channel.key, heard.common)
            return heard
        weights = self.baselines.fusion(channel.key)
        return Heard(enrolled, normal.rate_hz, Fusion.from_dict(weights) if weights else None)

    def _encoder_of(self, normal: Baseline) -> tuple[Encoder, FrontEnd]:
        """Return the encoder and the front-end a baseline was made with.

        Raises BadArtifactError when one is gone, ProviderError when what runs the encoder is not here.
        """
        name = f"the model {normal.model_name} ({normal.model_sha256[:8]}) the channel was enrolled with"
        advice = f"run: fisher-edge baseline reembed {normal.key.asset} {normal.key.channel}, or enroll again"
        try:
            encoder = self.encoders.find(normal.model_sha256)
        except ProviderError as error:
            raise ProviderError(f"{name} cannot be used ({error}); or {advice}") from error
        if encoder is None:
            raise BadArtifactError(f"{name} is not there any more; {advice}")
        front_end = front_end_of(normal, encoder.bundle.front_end)
        if front_end is None:
            raise BadArtifactError(f"{name} has another front-end now; {advice}")
        return encoder, front_end

    def _cutting(
        self,
        channel: ChannelConfig,
        front_end: FrontEnd,
        normal: Baseline | None = None,
        *,
        refused: str | None = None,
        common: Common | None = None,
    ) -> Cutting:
        """Say how the stream of a channel is cut for a front-end, and for its baseline where it has one."""
        return Cutting(
            replace(front_end, views=()) if channel.bursts else front_end,
            *self.config.lengths_of(channel),
            rate_hz=common.sensor_hz if common else normal.rate_hz if normal else None,
            refused=refused,
            bursts=channel.bursts,
            time_factor=normal.grid.time_factor if normal else 1.0,
            max_gap_s=channel.burst_max_gap_s,
            common=common,
        )

    def _unjudged(self, channel: ChannelConfig, reason: str, *, lost: bool = False) -> Plan:
        """Plan a channel without a baseline: plain measures. `lost`: there was one, which is worth an event."""
        encoder = self.encoders.default
        cutting = self._cutting(channel, encoder.bundle.front_end)
        return Plan(encoder, cutting, Unenrolled(_model(encoder), reason), reason if lost else None)

    def _refused(self, channel: ChannelConfig, reason: str) -> Plan:
        """Plan a channel that cannot be read as it is configured."""
        encoder = self.encoders.default
        cutting = self._cutting(channel, encoder.bundle.front_end, refused=reason)
        return Plan(encoder, cutting, Unenrolled(_model(encoder), reason), reason)


def cache_of(state_dir: Path) -> Path | None:
    """Return the folder for what can be made again; None (the user's own) where there is no state directory yet."""
    return state_dir / CACHE if state_dir.is_dir() else None


def front_end_of(baseline: Baseline, of_bundle: FrontEnd) -> FrontEnd | None:
    """Return the front-end a baseline was made with, its views included; None when it cannot be had any more."""
    if baseline.front_end is None:
        return of_bundle if baseline.has_front_end(of_bundle) else None
    return replace(baseline.front_end, views=tuple(each.view for each in baseline.view_calibrations))


def doubt_of(plan: Plan) -> str | None:
    """Say in which bands the model of a channel rounds too much for what it is to tell apart; None where nowhere."""
    encoder, rate_hz = plan.encoder, plan.cutting.rate_hz
    form = next((form.key for form in forms_of(encoder.bundle).values() if form.sha256 == encoder.sha256), PLAIN)
    bands = [] if rate_hz is None else unfaithful_bands(encoder.bundle.manifest, rate_hz, form)
    if rate_hz is None or not bands:
        return None
    edges = ", ".join(f"{low:g} to {high:g} Hz" for low, high in bands)
    return (
        f"{encoder.name} rounds too much at {rate_text(rate_hz)} Hz ({edges}): recordings that are nearly alike cannot "
        "be told apart; export the model with --fp32 for this channel"
    )


def rule_of(config: Config, channel: ChannelConfig) -> AlarmRule:
    """Return how long a change of state takes."""
    alarm = config.alarm_of(channel)
    return AlarmRule(delay_s=alarm.delay_s, hold_s=alarm.hold_s, latch=alarm.latch)


def _give_back_memory() -> None:
    """Return to the system what calibrating needed for a moment; the C library would keep it, 12 MB a channel."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of the GNU library alone
    if trim is not None:
        trim(0)


def _model(encoder: Encoder) -> ModelName:
    """Name of an encoder."""
    return ModelName(encoder.name, encoder.sha256)


def _check_bursts(normal: Baseline, channel: ChannelConfig) -> None:
    """Refuse an unbroken stream where bursts were enrolled, and the other way round."""
    if normal.grid.bursts and not channel.bursts:
        raise BadInputError(
            "the channel is enrolled from bursts, the configuration says nothing of them; set bursts = true in its "
            "[[channel]] or enroll again"
        )
    if channel.bursts and not normal.grid.bursts:
        raise BadInputError(
            "the configuration says bursts = true, the channel is enrolled from unbroken recordings; enroll with "
            "--bursts or leave bursts out"
        )


def _check_window(normal: Baseline, grid: Grid, window_s: float) -> None:
    """Refuse windows that differ from those enrolled."""
    if (grid.piece_frames, grid.window_pieces) != (normal.grid.piece_frames, normal.grid.window_pieces):
        enrolled_s = normal.grid.signal_window_s
        raise BadInputError(
            f"the channel is enrolled with windows of {enrolled_s:g} s, the configuration says {window_s:g} s; set "
            f"window_s = {enrolled_s:g} in its [[channel]] or enroll again"
        )
