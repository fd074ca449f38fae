"""A sensor of another rate than the enrolled one: judged by the bands that both have, and said so."""

import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import EXAMPLES, machine_signal, sound_file
from plain_source import FakeClock, PlainSource
from scipy import signal

from fisher_edge.config import Config
from fisher_edge.decision.common import common_of
from fisher_edge.decision.judgement import Result, State
from fisher_edge.dsp.blocks import Block, FloatArray, Rate, as_rate
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import grid_of
from fisher_edge.dsp.resample import Downsampler, LoweredStream
from fisher_edge.dsp.stream import Piece
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.windows import read
from fisher_edge.errors import BadInputError, FisherEdgeError
from fisher_edge.gateway.check import findings
from fisher_edge.gateway.other_rate import at_other_rate
from fisher_edge.gateway.reader import Reader
from fisher_edge.gateway.recordings import enroll_recordings, score_recording
from fisher_edge.gateway.status import Counters
from fisher_edge.gateway.windows import windows_of
from fisher_edge.gateway.wiring import Encoders, Planner
from fisher_edge.gateway.work import JudgePiece, WorkQueue
from fisher_edge.names import ChannelKey
from fisher_edge.publish.message import result_fields
from fisher_edge.sources.recording import Recording, read_recording
from fisher_edge.store.baselines import Baselines
from fisher_edge.store.database import Database

KEY = ChannelKey("rig", "vib")
HIGH_HZ, LOW_HZ = 51_200, 16_000
NANO = FrontEnd(band_width=50, top_band="pad", amplitude="standardise", piece_frames=32, piece_rule="grid")
HEALTHY = [f"healthy-{speed}rpm-{part}" for speed in (600, 900, 1200) for part in "ab"]
KEPT_OUT = [f"healthy-{speed}rpm-c" for speed in (600, 900, 1200)]
FAULT = "inner-5-900rpm"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Return an open database."""
    with Database(tmp_path / "state") as opened:
        yield opened


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Encoders:
    """Return the encoders of a gateway."""
    return Encoders(tmp_path_factory.mktemp("encoders"))


def high(names: Sequence[str]) -> list[Recording]:
    """Read examples of a bearing, at 51.2 kHz."""
    return [read_recording(EXAMPLES / "bearing" / f"{name}.flac") for name in names]


def low(folder: Path, names: Sequence[str]) -> list[Recording]:
    """Record the same with a sensor of 16 kHz, whose anti-alias filter is not ours: steep, at 0.8 of half the rate."""
    sections = signal.cheby1(8, 0.05, 0.8 * LOW_HZ / HIGH_HZ, output="sos")
    found = []
    for recording in high(names):
        wave = signal.resample_poly(signal.sosfilt(sections, recording.samples), 5, 16)
        path = sound_file(folder / f"{recording.path.stem}.wav", wave.astype(np.float32), LOW_HZ)
        found.append(read_recording(path))
    return found


def enrolled(database: Database, encoder: Encoder, recordings: list[Recording], *, kept: bool = True) -> None:
    """Enroll the normal state."""
    enroll_recordings(database, encoder, recordings, KEY, window_s=0.48, hop_s=0.1, audio_bytes=(1 << 28) * kept)


def scored(database: Database, encoders: Encoders, recording: Recording) -> list[Result]:
    """Judge a recording of whatever rate."""
    results = list(score_recording(database, encoders, recording, KEY, other_rate=True))
    assert results
    return results


def cut(samples: FloatArray, sizes: Sequence[int], rate_hz: Rate, first: int = 0) -> Iterator[Block]:
    """Yield samples in blocks of these sizes, again and again."""
    done, turn = 0, 0
    while done < len(samples):
        size = sizes[turn % len(sizes)]
        yield Block(samples[done : done + size], rate_hz, first + done, 100.0 + float((first + done) / rate_hz))
        done, turn = done + size, turn + 1


@settings(max_examples=30, deadline=None)
@given(
    rates=st.sampled_from([("48000", "16000"), ("51200", "48000"), ("3906.25", "2000"), ("9765", "4000")]),
    sizes=st.lists(st.integers(1, 2000), min_size=1, max_size=5),
    first=st.integers(0, 10_000),
)
def test_samples_at_a_lower_rate_do_not_depend_on_the_blocks(
    rates: tuple[str, str], sizes: list[int], first: int
) -> None:
    """Any chunking gives the same samples at the same places and times."""
    from_hz, to_hz = (as_rate(rate) for rate in rates)
    samples = np.random.default_rng(0).standard_normal(6000).astype(np.float32)
    (whole,) = cut(samples, [6000], from_hz, first)
    expected = Downsampler(from_hz, to_hz).push(whole)
    lower = Downsampler(from_hz, to_hz)
    parts = [part for block in cut(samples, sizes, from_hz, first) if len((part := lower.push(block)).samples)]
    np.testing.assert_array_equal(np.concatenate([part.samples for part in parts]), expected.samples)
    assert parts[0].index == expected.index
    assert [part.index for part in parts[1:]] == [part.index + len(part.samples) for part in parts[:-1]]
    assert all(part.time_s == pytest.approx(100 + part.index / float(to_hz)) for part in parts)
    lost = len(samples) * float(to_hz) / float(from_hz) - len(expected.samples)
    assert 125 < lost < 131  # the length of the filter


@pytest.mark.parametrize(("from_hz", "to_hz"), [(48_000, 16_000), (51_200, 16_000), (97_656, 48_828), (44_100, 16_000)])
def test_lower_rate_passes_what_it_can_hold_and_nothing_else(from_hz: int, to_hz: int) -> None:
    """A tone below 0.9 of half the lower rate stays what it is to 80 dB; above half of it 90 dB are left out."""
    time_s = np.arange(from_hz // 2) / from_hz
    for share in (0.01, 0.5, 0.9, 1.01, 1.2):
        hz = share * to_hz / 2
        tone = np.sin(2 * np.pi * hz * time_s).astype(np.float32)
        lowered = Downsampler(from_hz, to_hz).push(Block(tone, from_hz, 0, 0.0))
        places = lowered.index + np.arange(len(lowered.samples))
        expected = np.sin(2 * np.pi * hz * places / to_hz) if share < 1 else np.zeros(len(places))
        assert np.abs(lowered.samples - expected).max() < 1e-4


def test_gap_is_not_spanned_by_the_filter() -> None:
    """After a gap the output is that of a stream that begins there."""
    samples = np.random.default_rng(1).standard_normal(9000).astype(np.float32)
    lower = Downsampler(48_000, 16_000)
    before = lower.push(Block(samples[:4000], 48_000, 0, 0.0))
    after = lower.push(Block(samples[5000:], 48_000, 5000, 5000 / 48_000))
    alone = Downsampler(48_000, 16_000).push(Block(samples[5000:], 48_000, 5000, 5000 / 48_000))
    assert after.index == alone.index > before.index + len(before.samples)
    np.testing.assert_array_equal(after.samples, alone.samples)


def test_rates_without_a_simple_ratio_are_refused() -> None:
    """A filter that would take too much memory is a line with advice, and so is a higher rate."""
    with pytest.raises(BadInputError, match="48000 Hz and 47999 Hz have no simple ratio"):
        Downsampler(48_000, 47_999)
    with pytest.raises(BadInputError, match="16000 Hz is above 8000 Hz"):
        Downsampler(8000, 16_000)


def lowered(samples: FloatArray, sizes: Sequence[int]) -> list[Piece]:
    """Cut samples of 48 kHz into pieces at 16 kHz; 1500 samples are lost after 60 000."""
    stream = LoweredStream(NANO, 48_000, 16_000, grid_of(NANO, 0.32, 0.32, 16_000))
    pieces = [piece for block in cut(samples[:60_000], sizes, 48_000) for piece in stream.push(block)]
    pieces += [piece for block in cut(samples[61_500:], sizes, 48_000, 61_500) for piece in stream.push(block)]
    assert stream.gaps == 1
    return pieces


@settings(max_examples=10, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30_000), min_size=1, max_size=4).filter(lambda sizes: sum(sizes) > 200 * len(sizes))
)
def test_pieces_at_a_lower_rate_do_not_depend_on_the_blocks(sizes: list[int]) -> None:
    """Any chunking gives the same pieces, with the samples that they were made of, and the same count."""
    samples = np.random.default_rng(2).standard_normal(120_000).astype(np.float32)
    expected = lowered(samples, [60_000])
    assert len(expected) == 6
    for left, right in zip(lowered(samples, sizes), expected, strict=True):
        np.testing.assert_array_equal(left.bands, right.bands)
        np.testing.assert_array_equal(left.raw, right.raw)
        assert (left.number, left.start) == (right.number, right.start)
        assert left.end_time_s == pytest.approx(right.end_time_s)
    for piece in expected:
        first = piece.start * 3 - 191
        assert piece.raw is not None
        np.testing.assert_array_equal(piece.raw, samples[first : first + len(piece.raw)])
        assert len(piece.raw) == 3 * (len(piece.samples) - 1) + 384


@pytest.mark.parametrize(
    ("spoilt", "fault"),
    [(lambda wave: wave * 0 + 1, "flat line"), (lambda wave: np.clip(wave, -0.1, 0.1), "clipped: ")],
)
def test_checks_of_the_sensor_see_its_own_samples(
    encoder: Encoder, spoilt: Callable[[FloatArray], FloatArray], fault: str
) -> None:
    """A filter makes something else of a flat line or a clipped wave; the checks find them all the same."""
    front_end = encoder.bundle.front_end
    wave = np.repeat(machine_signal(0, 1.5), 3)
    stream = LoweredStream(front_end, 48_000, 16_000, grid_of(front_end, 0.96, 0.96, 16_000))
    pieces = stream.push(Block(spoilt(wave).astype(np.float32), 48_000, 0, 0.0))
    (reading,) = read(encoder, front_end, pieces)
    assert reading.fault is not None
    assert reading.fault.startswith(fault)
    assert reading.rate_hz == 48_000


def test_common_bands_are_whole_and_below_every_anti_alias_filter() -> None:
    """Bands of 2 kHz up to 0.9 of half the lower rate count; where there is none, the rates cannot be compared."""
    common = common_of(NANO, 48_000, 16_000)
    assert (common.rate_hz, common.bands, common.enrolled_bands, common.top_hz) == (16_000, 3, 12, 6000)
    assert common_of(NANO, 16_000, 48_000).bands == 3
    assert common_of(NANO, 16_000, 48_000).enrolled_bands == 4
    assert common_of(NANO, 51_200, 48_000).bands == 10
    assert common_of(NANO, 48_000, 4500).bands == 1
    with pytest.raises(
        BadInputError, match="4400 Hz and a baseline enrolled at 48000 Hz have no whole band of 2000 Hz"
    ):
        common_of(NANO, 48_000, 4400)


@pytest.mark.parametrize("sensor_is_low", [True, False])
def test_replacement_of_another_rate_is_judged_by_the_common_bands(
    tmp_path: Path,
    database: Database,
    encoders: Encoders,
    caplog: pytest.LogCaptureFixture,
    sensor_is_low: bool,
) -> None:
    """Healthy recordings stay normal, a fault is an alarm, and every result says what was compared."""
    encoder = encoders.default
    enrolled(database, encoder, high(HEALTHY) if sensor_is_low else low(tmp_path, HEALTHY))
    asked = low(tmp_path, [*KEPT_OUT, FAULT]) if sensor_is_low else high([*KEPT_OUT, FAULT])
    enrolled_hz, sensor_hz, bands = (HIGH_HZ, LOW_HZ, 13) if sensor_is_low else (LOW_HZ, HIGH_HZ, 4)
    *healthy, faulty = [scored(database, encoders, recording) for recording in asked]
    assert {result.state for results in healthy for result in results} == {State.NORMAL}
    assert faulty[-1].state == State.ALARM
    assert {len(results) for results in healthy} == {13}
    fields = result_fields(faulty[-1])
    assert fields["rate_hz"] == sensor_hz
    assert fields["baseline"] == {"version": 1, "windows": 78} | {
        "rate_hz": enrolled_hz,
        "common_bands": 3,
        "bands": bands,
    }
    assert [band["high_hz"] for band in fields["bands"]] == [2000, 4000, 6000]
    assert caplog.messages[-1] == (
        f"rig/vib: the sensor has {sensor_hz} Hz, the baseline was enrolled at {enrolled_hz} Hz: judged by the lowest "
        f"3 of {bands} bands, up to 6000 Hz"
    )


def test_baseline_at_the_lower_rate_is_that_of_resampled_recordings(
    tmp_path: Path, database: Database, encoders: Encoders
) -> None:
    """Windows, levels, hum, held-out distances and views are those of an enrollment at the lower rate."""
    encoder = encoders.default
    enrolled(database, encoder, high(HEALTHY))
    files = []
    for recording in high(HEALTHY):
        wave = Downsampler(HIGH_HZ, LOW_HZ).push(Block(recording.samples, HIGH_HZ, 0, 0.0)).samples
        files.append(read_recording(sound_file(tmp_path / f"{recording.path.stem}.wav", wave, LOW_HZ)))
    active = Baselines(database).active(KEY)
    heard = at_other_rate(database.state_dir, encoder, encoder.bundle.front_end, active, LOW_HZ)
    with Database(tmp_path / "low") as other:
        enrolled(other, encoder, files)
        (expected,) = Baselines(other).active(KEY)
    (found,) = heard.enrolled
    assert (found.rate_hz, found.grid, found.version) == (LOW_HZ, expected.grid, active[0].version)
    np.testing.assert_array_equal(found.vectors, expected.vectors[:, :3])
    np.testing.assert_allclose(found.level, expected.level)
    np.testing.assert_array_equal(found.take, expected.take)
    assert found.views is not None
    assert expected.views is not None
    np.testing.assert_array_equal(found.views, expected.views)
    assert len(found.states) == len(expected.states) == 1
    state, lower = found.states[0], expected.states[0]
    assert (state.level_mean, state.level_std) == pytest.approx((lower.level_mean, lower.level_std))
    assert 0 < state.hum_share == pytest.approx(lower.hum_share)
    assert state.hum_share != active[0].states[0].hum_share
    assert len(state.held_out) == len(found)
    assert np.median(state.held_out) == pytest.approx(np.median(lower.held_out), rel=0.5)
    for view, same in zip(found.view_calibrations, expected.view_calibrations, strict=True):
        np.testing.assert_allclose(view.held_out, same.held_out)


def test_recording_that_is_too_short_for_the_filter_is_refused(encoder: Encoder) -> None:
    """A window needs what the filter takes at both ends."""
    (recording,) = high(KEPT_OUT[:1])
    grid = grid_of(encoder.bundle.front_end, 0.96, 0.96, LOW_HZ)
    needed = math.ceil((95 * 160 + 400 + 128) * HIGH_HZ / LOW_HZ)
    with pytest.raises(BadInputError, match=f"a window of 0.96 s takes {needed}"):
        next(windows_of(replace(recording, length=needed - 1), encoder, encoder.bundle.front_end, grid, rate_hz=LOW_HZ))


def test_hop_beyond_a_piece_keeps_the_samples_of_the_sensor_in_step() -> None:
    """Samples between pieces are forgotten; those of a piece are still its own."""
    samples = np.random.default_rng(3).standard_normal(150_000).astype(np.float32)
    stream = LoweredStream(NANO, 48_000, 16_000, grid_of(NANO, 0.32, 0.8, 16_000))
    pieces = [piece for block in cut(samples, [700], 48_000) for piece in stream.push(block)]
    assert len(pieces) == 4
    for piece in pieces:
        assert piece.raw is not None
        first = piece.start * 3 - 191
        np.testing.assert_array_equal(piece.raw, samples[first : first + len(piece.raw)])


def test_faults_are_named_at_another_rate(
    tmp_path: Path, database: Database, encoders: Encoders, caplog: pytest.LogCaptureFixture
) -> None:
    """Labelled examples name faults as long as their recordings are kept; else they have no vote."""
    encoder = encoders.default
    enrolled(database, encoder, high(HEALTHY))
    for name, kept in ((FAULT, True), ("outer-5-1200rpm", False)):
        label = name.split("-", maxsplit=1)[0]
        enroll_recordings(
            database, encoder, high([name]), KEY, label=label, window_s=0.48, hop_s=0.1, audio_bytes=(1 << 28) * kept
        )
    results = scored(database, encoders, low(tmp_path, [FAULT])[0])
    named = [result.judgement.fault.label for result in results if result.judgement.fault]
    assert len(named) == len(results)
    assert set(named) == {"inner"}
    assert "the recordings of 'outer' were not kept" in caplog.text


def test_another_rate_is_refused_unless_it_is_meant(tmp_path: Path, database: Database, encoders: Encoders) -> None:
    """A recording may have the wrong rate by mistake; vectors of a higher rate alone are not believed."""
    (asked,) = low(tmp_path, KEPT_OUT[:1])
    enrolled(database, encoders.default, high(HEALTHY), kept=False)
    with pytest.raises(BadInputError, match=r"has 16000 Hz, .* was enrolled at 51200 Hz; .* --other-rate"):
        next(score_recording(database, encoders, asked, KEY))
    with pytest.raises(BadInputError, match=r"version 1 were not kept, .* enroll again from your own files, or"):
        scored(database, encoders, asked)


def config_of(database: Database, **channel: object) -> Config:
    """Return a configuration of the channel."""
    source = {"type": "recording", "files": ["none.wav"]}
    own = {"asset": KEY.asset, "name": KEY.channel, "source": source, "window_s": 0.48, "hop_s": 0.1}
    return Config.model_validate({"gateway": {"state_dir": database.state_dir}, "channel": [own | channel]})


def test_gateway_hears_a_replacement_that_the_configuration_names(
    tmp_path: Path, database: Database, encoders: Encoders, caplog: pytest.LogCaptureFixture
) -> None:
    """`other_rate_hz` is what samples must come at; windows have as many frames as those enrolled."""
    enrolled(database, encoders.default, low(tmp_path, HEALTHY))
    config = config_of(database, other_rate_hz=HIGH_HZ)
    with caplog.at_level(logging.WARNING):
        plan = Planner(config, Baselines(database), encoders).plan(config.channel[0])
    assert plan.reason is None
    assert "channel rig/vib: the sensor has 51200 Hz, the baseline was enrolled at 16000 Hz" in caplog.text
    queue, counters = WorkQueue([KEY]), Counters(0.0)
    samples, _ = soundfile.read(EXAMPLES / "bearing" / f"{FAULT}.flac", dtype="float32")

    def once(stop: threading.Event) -> Iterator[Block]:
        stop.set()
        yield from cut(samples, [len(samples)], HIGH_HZ)

    reader = Reader(KEY, PlainSource(once), plan.cutting, queue, counters, monotonic=FakeClock())
    reader.run()
    work = queue.get()
    assert isinstance(work, JudgePiece), work
    assert (work.piece.rate_hz, work.piece.raw_hz, work.piece.bands.shape) == (LOW_HZ, HIGH_HZ, (4, 48, 50))
    assert work.grid.piece_frames == 48


def test_windows_have_as_many_frames_as_those_enrolled(database: Database, encoders: Encoders) -> None:
    """Where 10 ms are no whole number of samples, a window of as many frames is a little shorter."""
    enrolled(database, encoders.default, high(HEALTHY))
    config = config_of(database, other_rate_hz=22_050)
    plan = Planner(config, Baselines(database), encoders).plan(config.channel[0])
    assert plan.reason is None
    grid = plan.cutting.grid(22_050)
    assert grid.piece_frames == 48
    assert grid.window_s == pytest.approx(48 * 220 / 22_050)


def test_check_compares_recordings_with_the_rate_that_is_named(
    tmp_path: Path, database: Database, encoders: Encoders
) -> None:
    """`config check` is content with a recording of that rate, and names one of another."""
    enrolled(database, encoders.default, high(HEALTHY))
    (asked,) = low(tmp_path, KEPT_OUT[:1])
    source = {"type": "recording", "files": [str(asked.path)]}
    assert findings(config_of(database, other_rate_hz=LOW_HZ, source=source)).notes == []
    (note,) = findings(config_of(database, other_rate_hz=20_000, source=source)).notes
    assert note == f"{KEY}: {asked.path} has 16000 Hz, other_rate_hz is 20000 Hz"


@pytest.mark.parametrize(
    ("other_rate_hz", "rate_hz", "reason"),
    [
        (None, LOW_HZ, "correct the rate, enroll again, or set other_rate_hz = 16000 in its"),
        (LOW_HZ, HIGH_HZ, "samples come at 51200 Hz, the configuration says other_rate_hz = 16000"),
    ],
)
def test_rate_that_nobody_named_is_check_function(
    database: Database, encoders: Encoders, other_rate_hz: int | None, rate_hz: int, reason: str
) -> None:
    """Protected from a rate that is set by mistake: only the one that is named may differ."""
    enrolled(database, encoders.default, high(HEALTHY))
    config = config_of(database, other_rate_hz=other_rate_hz)
    plan = Planner(config, Baselines(database), encoders).plan(config.channel[0])
    with pytest.raises(FisherEdgeError, match=reason):
        plan.cutting.grid(rate_hz)


def test_rate_without_a_common_band_refuses_the_channel(database: Database, encoders: Encoders) -> None:
    """The plan says so, and the channel is not read."""
    enrolled(database, encoders.default, high(HEALTHY))
    config = config_of(database, other_rate_hz=2000)
    plan = Planner(config, Baselines(database), encoders).plan(config.channel[0])
    assert plan.cutting.refused == plan.reason
    assert "have no whole band of 2000 Hz in common" in str(plan.reason)


def test_bursts_of_another_rate_are_refused() -> None:
    """The configuration says so at once."""
    channel = {"asset": "a", "name": "b", "source": {"type": "recording", "files": []}, "bursts": True, "no_data_s": 60}
    with pytest.raises(ValueError, match="bursts of another rate than the enrolled one cannot be judged"):
        Config.model_validate({"channel": [channel | {"other_rate_hz": 8000}]})
