"""The gateway within this process, its channels fed by plain sources, against a real broker."""

import math
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gateways import HOP_S, WINDOW_S, config_of, endless, enroll_machine, running
from machine import RATE_HZ, machine_signal
from mosquitto import Mosquitto, Subscriber, wait_until
from other_bundle import write_bundle
from plain_source import FakeClock, PlainSource, blocks_of

from fisher_edge.config import Config
from fisher_edge.decision.judge import Judge
from fisher_edge.decision.judgement import Judgement, State
from fisher_edge.dsp.blocks import Block
from fisher_edge.encoder.bundle import Bundle, load_bundle
from fisher_edge.encoder.forms import forms_of
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.windows import EmbeddedWindow
from fisher_edge.errors import StateError, UsageError
from fisher_edge.gateway import Gateway
from fisher_edge.gateway.wiring import Encoders, Planner, rule_of
from fisher_edge.names import ChannelKey
from fisher_edge.store import bundles
from fisher_edge.store.audio import AudioArchive
from fisher_edge.store.baselines import Baselines
from fisher_edge.store.database import Database

A, B = ChannelKey("pump", "a"), ChannelKey("pump", "b")
HEALTHY = machine_signal(100, 2.0)
FAULTY = machine_signal(101, 2.0, fault_hz=5000.0)


@pytest.fixture(autouse=True)
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a gateway take a snapshot and look at the store at every tick."""
    monkeypatch.setattr("fisher_edge.gateway.gateway.LOOK_S", 0.0)
    monkeypatch.setattr("fisher_edge.gateway.gateway.TICK_S", 0.05)


@pytest.fixture
def enrolled(tmp_path: Path, encoder: Encoder) -> Path:
    """Return a folder in whose state directory both channels are enrolled."""
    enroll_machine(tmp_path, encoder, A)
    enroll_machine(tmp_path, encoder, B)
    return tmp_path


def silence(stop: threading.Event) -> Iterator[Block]:
    """Yield nothing until the gateway stops."""
    stop.wait(60)
    yield from ()


def state_of(gateway: Gateway, key: ChannelKey) -> State:
    """State of a channel in the newest snapshot."""
    status = gateway.status()
    assert status is not None
    return next(channel.state for channel in status.channels if channel.key == key)


def results_of(gateway: Gateway, key: ChannelKey) -> int:
    """Results of a channel so far."""
    return gateway.channels[key].counters.results


def test_start_warns_of_a_rate_at_which_the_model_rounds_too_much(
    enrolled: Path, mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    """The log of the start names the channel, the rate and the band that the export found unfaithful."""
    group = {"rate_hz": RATE_HZ, "low_hz": 0.0, "high_hz": 2000.0, "centred_cosine": 0.6, "noise": 10.4}
    bundle = write_bundle(enrolled / "rounded", parity={"unfaithful": [group]})
    config = config_of(enrolled, mosquitto.url, [A])
    config = config.model_copy(update={"model": config.model.model_copy(update={"bundle": str(bundle)})})
    with running(config, {A: PlainSource(endless(HEALTHY))}) as gateway:
        wait_until(lambda: results_of(gateway, A) > 0, "results", 30)
    said = [record.getMessage() for record in caplog.records if "rounds too much" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("channel pump/a: nano-int8 rounds too much at 16000 Hz (0 to 2000 Hz)")


def test_fault_is_an_alarm_and_the_other_channel_stays_normal(enrolled: Path, mosquitto: Mosquitto) -> None:
    """One channel turns faulty; its alarm is an event with what led to it, and only its own."""
    sources = {A: PlainSource(endless(HEALTHY, FAULTY)), B: PlainSource(endless(HEALTHY))}
    with (
        Subscriber(mosquitto.port) as subscriber,
        running(config_of(enrolled, mosquitto.url, [A, B]), sources) as gateway,
    ):
        wait_until(lambda: any(m.fields["after"] == "alarm" for m in subscriber.of("event")), "an alarm", 30)
        wait_until(lambda: results_of(gateway, B) > 5, "results of the other channel", 30)
        assert state_of(gateway, B) is State.NORMAL
    event = next(message.fields for message in subscriber.of("event") if message.fields["after"] == "alarm")
    assert event["channel"] == "a"
    assert event["distance"] > 0
    assert {message.fields["channel"] for message in subscriber.of("result")} == {"a", "b"}


@pytest.mark.parametrize("sample", [5e37, np.finfo(np.float32).max, math.nan, math.inf])
def test_samples_that_no_sensor_gives_stay_with_their_channel(
    sample: float, enrolled: Path, mosquitto: Mosquitto
) -> None:
    """Huge or missing numbers make one channel check_function; the other goes on, and so does the gateway."""
    broken = HEALTHY.copy()
    broken[::50] = sample
    sources = {A: PlainSource(endless(broken)), B: PlainSource(endless(HEALTHY))}
    with running(config_of(enrolled, mosquitto.url, [A, B]), sources) as gateway:
        wait_until(lambda: state_of(gateway, A) is State.CHECK_FUNCTION, "check_function", 30)
        before = results_of(gateway, B)
        wait_until(lambda: results_of(gateway, B) > before + 3, "results of the other channel", 30)
        assert state_of(gateway, B) is State.NORMAL


def test_judge_that_fails_stays_with_its_channel(
    enrolled: Path, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error inside the judgement of one channel is logged once and is check_function there."""
    real = Judge.judge

    def judge(self: Judge, window: EmbeddedWindow, state: str | None) -> Judgement:
        if self.normal.key == A:
            raise ZeroDivisionError("a bug")
        return real(self, window, state)

    monkeypatch.setattr(Judge, "judge", judge)
    sources = {A: PlainSource(endless(HEALTHY)), B: PlainSource(endless(HEALTHY))}
    with (
        Subscriber(mosquitto.port) as subscriber,
        running(config_of(enrolled, mosquitto.url, [A, B]), sources) as gateway,
    ):
        wait_until(lambda: results_of(gateway, A) > 3 and results_of(gateway, B) > 3, "results", 30)
        wait_until(lambda: state_of(gateway, A) is State.CHECK_FUNCTION, "check_function", 30)
        assert state_of(gateway, B) is State.NORMAL
        wait_until(lambda: any(m.fields["channel"] == "a" for m in subscriber.of("result")), "a result of a", 30)
    reason = next(m.fields["reason"] for m in subscriber.of("result") if m.fields["channel"] == "a")
    assert reason == "internal error, ZeroDivisionError: a bug"
    assert sum("could not be judged" in record.getMessage() for record in caplog.records) == 1


def test_result_that_cannot_be_written_is_check_function(
    enrolled: Path, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number without a JSON form never ends the worker; the window says what is wrong instead."""
    real = Judge.judge
    monkeypatch.setattr(Judge, "judge", lambda *given: replace(real(*given), score=math.nan))
    with running(config_of(enrolled, mosquitto.url, [A]), {A: PlainSource(endless(HEALTHY))}) as gateway:
        wait_until(lambda: results_of(gateway, A) > 3, "results", 30)
        wait_until(lambda: state_of(gateway, A) is State.CHECK_FUNCTION, "check_function", 30)
        status = gateway.status()
        assert status is not None
        assert "score" in (status.channels[0].reason or "")


def test_channel_with_too_many_gaps_says_no_data_and_why(enrolled: Path, mosquitto: Mosquitto) -> None:
    """One sample lost in every stretch shorter than a window: no window ever, and the reason counts the gaps."""
    clock = FakeClock()

    def script(stop: threading.Event) -> Iterator[Block]:
        for block in blocks_of(np.tile(HEALTHY, 16), RATE_HZ, block_s=0.05, lose_every_s=0.3):
            clock.advance(0.05)
            yield block
        stop.wait(60)

    config = config_of(enrolled, mosquitto.url, [A, B])
    sources = {A: PlainSource(script), B: PlainSource(endless(HEALTHY))}
    with Subscriber(mosquitto.port) as subscriber, running(config, sources, monotonic=clock) as gateway:
        wait_until(lambda: any(m.fields["channel"] == "a" for m in subscriber.of("event")), "no data", 30)
        assert results_of(gateway, A) == 0
    event = next(message.fields for message in subscriber.of("event") if message.fields["channel"] == "a")
    assert event["after"] == "no_data"
    assert re.fullmatch(r"\d{2,3} gaps in the last minute; a window needs 0.32 s without one", event["reason"])


def test_silent_channel_says_no_data_once_and_recovers(enrolled: Path, mosquitto: Mosquitto) -> None:
    """Without samples for no_data_s a channel says so once; with them it is judged again."""
    clock, go_on = FakeClock(), threading.Event()

    def script(stop: threading.Event) -> Iterator[Block]:
        yield from blocks_of(HEALTHY, RATE_HZ)
        go_on.wait(60)
        yield from (Block(b.samples, RATE_HZ, b.index + 10**6, b.time_s) for b in blocks_of(HEALTHY, RATE_HZ))
        stop.wait(60)

    config = config_of(enrolled, mosquitto.url, [A])
    with (
        Subscriber(mosquitto.port) as subscriber,
        running(config, {A: PlainSource(script)}, monotonic=clock) as gateway,
    ):
        wait_until(lambda: results_of(gateway, A) > 3 and gateway.queue.idle(), "results", 30)
        clock.advance(29)
        gateway.check_silence(A)
        assert gateway.queue.idle()
        clock.advance(2)
        wait_until(lambda: state_of(gateway, A) is State.NO_DATA, "no data", 30)
        clock.advance(100)
        go_on.set()
        wait_until(lambda: state_of(gateway, A) is State.NORMAL, "the judgement", 30)
    events = [(m.fields["before"], m.fields["after"]) for m in subscriber.of("event")]
    assert events == [("normal", "no_data"), ("no_data", "normal")]


def test_live_source_that_ends_is_no_data(enrolled: Path, mosquitto: Mosquitto) -> None:
    """A sensor whose driver stops without an error is reported, while the other channel goes on."""
    sources = {A: PlainSource(lambda _: blocks_of(HEALTHY, RATE_HZ)), B: PlainSource(endless(HEALTHY))}
    with Subscriber(mosquitto.port) as subscriber, running(config_of(enrolled, mosquitto.url, [A, B]), sources):
        wait_until(lambda: any(m.fields["after"] == "no_data" for m in subscriber.of("event")), "no data", 30)
    event = next(message.fields for message in subscriber.of("event") if message.fields["after"] == "no_data")
    assert event["channel"] == "a"
    assert "has ended" in event["reason"]


def test_recordings_shorter_than_a_window_are_no_data_at_their_end(enrolled: Path, mosquitto: Mosquitto) -> None:
    """A finite source that never filled a window says so before the gateway ends by itself."""
    source = PlainSource(lambda _: blocks_of(HEALTHY[:3000], RATE_HZ), finite=True)
    config = config_of(enrolled, mosquitto.url, [A])
    with Subscriber(mosquitto.port) as subscriber, running(config, {A: source}) as gateway:
        wait_until(lambda: subscriber.of("event"), "an event", 30)
        wait_until(lambda: gateway.status() and gateway._stop.is_set(), "the end", 30)
    assert subscriber.of("event")[0].fields["after"] == "no_data"
    assert "before a window of 0.32 s was complete" in subscriber.of("event")[0].fields["reason"]


def test_enrollment_is_used_by_the_running_gateway_and_ends_the_old_alarm(
    enrolled: Path, mosquitto: Mosquitto, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new version is judged by without a restart; what was an alarm is normal when it is what was enrolled."""
    louder = machine_signal(7, 2.0, gain=5.0)
    with running(config_of(enrolled, mosquitto.url, [A]), {A: PlainSource(endless(louder))}) as gateway:
        wait_until(lambda: state_of(gateway, A) is State.ALARM, "the alarm", 30)
        assert enroll_machine(enrolled, encoder, A, gain=5.0) == 2
        wait_until(lambda: state_of(gateway, A) is State.NORMAL, "the new baseline", 30)
        assert gateway.channels[A].plan.baseline_version == 2


def test_alarm_survives_a_restart_but_not_an_enrollment(enrolled: Path, mosquitto: Mosquitto, encoder: Encoder) -> None:
    """A restart goes on in alarm; after an enrollment it does not, though the samples' clock runs far ahead."""
    config = config_of(enrolled, mosquitto.url, [A])
    with running(config, {A: PlainSource(endless(FAULTY, time_s=4e9))}) as gateway:
        wait_until(lambda: state_of(gateway, A) is State.ALARM, "the alarm", 30)
    silent = PlainSource(silence)
    with running(config, {A: silent}) as gateway:
        assert state_of(gateway, A) is State.ALARM
    enroll_machine(enrolled, encoder, A)
    with running(config, {A: silent}) as gateway:
        assert state_of(gateway, A) is State.NORMAL


def test_sources_are_closed_and_threads_ended_when_the_gateway_returns(enrolled: Path, mosquitto: Mosquitto) -> None:
    """Whoever called `run` may open the same devices again at once."""
    before = set(threading.enumerate())
    sources = {A: PlainSource(endless(HEALTHY)), B: PlainSource(endless(HEALTHY))}
    with running(config_of(enrolled, mosquitto.url, [A, B]), sources) as gateway:
        wait_until(lambda: results_of(gateway, A) > 0, "a result", 30)
    assert [(source.opened, source.closed) for source in sources.values()] == [(1, 1), (1, 1)]
    assert set(threading.enumerate()) <= before


def test_channel_whose_model_is_gone_says_so_and_gives_plain_measures(
    enrolled: Path, mosquitto: Mosquitto, encoder: Encoder
) -> None:
    """A baseline of a model nobody has any more: an event and a retained state with the reason, not a log line."""
    with Database(enrolled / "state") as database:
        database.connection.execute("UPDATE baseline SET model_sha256 = ? WHERE channel = 'a'", ("0" * 64,))
    sources = {A: PlainSource(endless(HEALTHY)), B: PlainSource(endless(HEALTHY))}
    with running(config_of(enrolled, mosquitto.url, [A, B]), sources) as gateway:
        wait_until(lambda: results_of(gateway, A) > 2 and results_of(gateway, B) > 2, "results", 30)
        wait_until(lambda: state_of(gateway, A) is State.NO_BASELINE, "no_baseline", 30)
        assert state_of(gateway, B) is State.NORMAL
        with Subscriber(mosquitto.port) as late:
            wait_until(lambda: any(m.fields["channel"] == "a" for m in late.of("state")), "the retained state", 30)
            state = next(message.fields for message in late.of("state") if message.fields["channel"] == "a")
            assert "is not there any more" in state["reason"]
            assert "baseline reembed" in state["reason"]


def test_baseline_is_judged_by_the_kept_bundle_of_its_model(
    enrolled: Path, mosquitto: Mosquitto, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the default model changes, a channel continues with the one kept with its baseline."""
    sha256 = encoder.sha256
    assert bundles.find(enrolled / "state", sha256) is not None
    other = replace(encoder.bundle, sha256="f" * 64)
    monkeypatch.setattr("fisher_edge.gateway.wiring.load_bundle", _loading(other))
    with running(config_of(enrolled, mosquitto.url, [A]), {A: PlainSource(endless(HEALTHY))}) as gateway:
        wait_until(lambda: results_of(gateway, A) > 2, "results", 30)
        assert state_of(gateway, A) is State.NORMAL
        status = gateway.status()
        assert status is not None
        assert status.model_sha256 in {form.sha256 for form in forms_of(other).values()}
        assert status.channels[0].model_sha256 == sha256 != status.model_sha256


def _loading(default: Bundle) -> Callable[..., Bundle]:
    """Return a loader with another default bundle."""
    return lambda path="default": default if str(path) == "default" else load_bundle(path)


def test_channel_that_does_not_fit_is_check_function_and_the_rest_starts(enrolled: Path, mosquitto: Mosquitto) -> None:
    """Windows other than those enrolled stop one channel only."""
    config = config_of(enrolled, mosquitto.url, [A, B])
    wrong = config.channel[0].model_copy(update={"window_s": 0.64})
    config = config.model_copy(update={"channel": (wrong, config.channel[1])})
    sources = {A: PlainSource(endless(HEALTHY)), B: PlainSource(endless(HEALTHY))}
    with Subscriber(mosquitto.port) as subscriber, running(config, sources) as gateway:
        wait_until(lambda: results_of(gateway, B) > 2, "results", 30)
        wait_until(lambda: state_of(gateway, A) is State.CHECK_FUNCTION, "check_function", 30)
        assert state_of(gateway, B) is State.NORMAL
        wait_until(lambda: subscriber.of("event"), "an event", 30)
    assert "set window_s = 0.32" in subscriber.of("event")[0].fields["reason"]


def test_status_is_one_snapshot_of_everything(enrolled: Path, mosquitto: Mosquitto) -> None:
    """Counts, rates, versions, delivery, disk and clock stand in one place."""
    with running(
        config_of(enrolled, mosquitto.url, [A, B]), {key: PlainSource(endless(HEALTHY)) for key in (A, B)}
    ) as gateway:
        wait_until(lambda: results_of(gateway, A) > 2 and results_of(gateway, B) > 2, "results", 30)
        wait_until(
            lambda: (now := gateway.status()) and now.delivery.published and min(c.results for c in now.channels) > 2,
            "delivery",
            30,
        )
        status = gateway.status()
    assert status is not None
    assert status.name == "line-3"
    assert status.boot == 1
    assert status.disk_free_bytes > 0
    assert status.database_bytes > 0
    assert status.provider
    channel = status.channels[0]
    assert channel.results > 2
    assert channel.last is not None
    assert channel.last.distance is not None
    assert (channel.window_s, channel.hop_s, channel.baseline_version) == (WINDOW_S, HOP_S, 1)
    assert channel.latency_ms is not None


def test_overload_of_one_channel_costs_only_its_own_windows(
    enrolled: Path, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A live channel that delivers faster than it can be judged loses windows, and its results say how many."""
    monkeypatch.setattr("fisher_edge.gateway.work.CAPACITY_BYTES", 1 << 20)
    sources = {A: PlainSource(endless(HEALTHY), patient=False), B: PlainSource(endless(HEALTHY))}
    config = config_of(enrolled, mosquitto.url, [A, B])
    with Subscriber(mosquitto.port) as subscriber, running(config, sources) as gateway:
        wait_until(lambda: any(m.fields["skipped"] for m in subscriber.of("result")), "a result after dropped ones", 30)
        wait_until(lambda: results_of(gateway, B) > 20, "results of the other channel", 30)
        assert gateway.queue.dropped(A) > 0
        assert gateway.queue.dropped(B) == 0
        wait_until(lambda: any(m.fields["dropped"] for m in subscriber.of("state")), "the count in the state", 30)
    assert {m.fields["channel"] for m in subscriber.of("result") if m.fields["skipped"]} == {"a"}


def test_deleted_state_directory_ends_the_gateway(enrolled: Path, mosquitto: Mosquitto) -> None:
    """A gateway whose database was deleted ends with one line, so that systemd can start it again."""
    config, source = config_of(enrolled, mosquitto.url, [A]), PlainSource(endless(HEALTHY))

    def run() -> None:
        with running(config, {A: source}) as gateway:
            wait_until(lambda: results_of(gateway, A) > 0, "a result", 30)
            shutil.rmtree(enrolled / "state")
            wait_until(gateway._stop.is_set, "the end", 30)

    with pytest.raises(StateError, match="was deleted while"):
        run()


def test_kept_recordings_are_cut_to_the_configured_size(enrolled: Path, mosquitto: Mosquitto) -> None:
    """At its start a gateway deletes recordings of enrollments beyond the size that its configuration gives them."""
    archive = AudioArchive(enrolled / "state")
    assert len(archive.files(A, None, 1)) == 3
    config = config_of(enrolled, mosquitto.url, [A], audio={"enrollment_mb": 0})
    with running(config, {A: PlainSource(endless(HEALTHY))}):
        assert archive.files(A, None, 1) == []


def test_unknown_provider_is_refused(enrolled: Path, mosquitto: Mosquitto) -> None:
    """A provider that this build does not have ends the start with the ones it has."""
    config = config_of(enrolled, mosquitto.url, [A], model={"provider": "warp-drive"})
    with pytest.raises(UsageError, match="warp-drive"):
        Gateway(config, open_source=lambda *_, **__: PlainSource(endless(HEALTHY))).run()


def planner_of(config: Config, database: Database) -> Planner:
    """Return the planner of a configuration."""
    return Planner(config, Baselines(database), Encoders(config.gateway.state_dir))


def test_alarm_settings_of_the_configuration_are_obeyed(enrolled: Path) -> None:
    """False alarms a day, delay, hold and hop reach the judge and the alarm machine, per channel."""
    alarm = {"warning_per_day": 10.0, "alarm_per_day": 5.0, "delay_s": 4.0, "hold_s": 5.0}
    default, changed = config_of(enrolled, "embedded", [A, B]), config_of(enrolled, "embedded", [A, B], alarm=alarm)
    with Database(enrolled / "state") as database:
        plans = [planner_of(config, database).plan(config.channel[0]) for config in (default, changed)]
        hop = default.channel[0].model_copy(update={"hop_s": 0.08})
        assert planner_of(default, database).plan(hop).cutting.grid(RATE_HZ).hop_s == pytest.approx(0.08)
    assert plans[0].cutting.grid(RATE_HZ).hop_s == pytest.approx(HOP_S)
    judges = [plan.judge for plan in plans]
    usual, often = (judge._tracker._shape for judge in judges if isinstance(judge, Judge))
    assert len(usual) == len(often) > 1
    for limit, lower in zip(usual, often, strict=True):
        assert (lower.alarm < limit.alarm, lower.warning < limit.warning) == (True, True)
    rule = rule_of(changed, changed.channel[0])
    assert (rule.delay_s, rule.hold_s) == (4.0, 5.0)
    own = changed.channel[1].model_copy(update={"alarm": changed.channel[1].alarm.model_copy(update={"delay_s": 2.0})})
    assert rule_of(changed, own).delay_s == 2.0


def test_limits_of_the_configuration_are_obeyed(enrolled: Path) -> None:
    """Outbox and history are as large and as old as configured."""
    config = config_of(enrolled, "embedded", [A], history={"mb": 3, "days": 4})
    config = config.model_copy(update={"mqtt": config.mqtt.model_copy(update={"outbox_mb": 5, "outbox_days": 6})})
    limits = Gateway(config)._limits()
    assert (limits.waiting_bytes, limits.waiting_s) == (5 << 20, 6 * 86_400)
    assert (limits.history_bytes, limits.history_s) == (3 << 20, 4 * 86_400)


@pytest.mark.parametrize(("window_s", "expected"), [(0.32, 30.0), (10.24, 3 * 10.24 + 2.56)])
def test_silence_is_a_few_windows(window_s: float, expected: float, tmp_path: Path) -> None:
    """Without a setting a channel may be quiet for three windows and a hop, at least 30 s."""
    config = config_of(tmp_path, "embedded", [A])
    channel = config.channel[0].model_copy(update={"window_s": window_s, "hop_s": None})
    assert Gateway(config.model_copy(update={"channel": (channel,)})).no_data_s(A) == pytest.approx(expected)
    told = channel.model_copy(update={"no_data_s": 5.0})
    assert Gateway(config.model_copy(update={"channel": (told,)})).no_data_s(A) == 5.0
