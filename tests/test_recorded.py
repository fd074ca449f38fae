"""When a recording was made: by its recorder's own word, in every place where recorders write it."""

import json
import struct
import time
from datetime import datetime, timezone
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from machine import EXAMPLES

from fisher_bridge.continuity import Samples
from fisher_bridge.messages import Format, StreamInfo
from fisher_bridge.record import _Writer
from fisher_edge.sources.recording import read_recording

RATE_HZ = 8000
MAY_S = datetime(2024, 5, 17, 10, 20, 30, tzinfo=timezone.utc).timestamp()


@pytest.fixture(autouse=True)
def zone(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let this machine be two hours east of UTC, so that a time without a zone differs from UTC."""
    monkeypatch.setenv("TZ", "EET-2")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def sound(path: Path, **tags: str) -> Path:
    """Write a sound file with tags and return its path."""
    with soundfile.SoundFile(path, "w", RATE_HZ, 1) as file:
        for name, text in tags.items():
            setattr(file, name, text)
        file.write(np.linspace(-0.5, 0.5, 100))
    return path


def with_bext(path: Path, date: str, clock: str, *, before_data: bool = True) -> Path:
    """Add the chunk of a broadcast WAV, as field recorders write it, and return the path."""
    body = struct.pack("<256s32s32s10s8sQH", b"take 3", b"recorder", b"", date.encode(), clock.encode(), 0, 1)
    chunk = struct.pack("<4sI", b"bext", len(body) + 255) + body + bytes(255) + b"\0"
    whole = path.read_bytes()
    chunk = struct.pack("<4sI", b"junk", 3) + bytes(4) + chunk  # a chunk of an odd size is followed by one more byte
    at = whole.index(b"fmt ") if before_data else len(whole)
    whole = whole[:at] + chunk + whole[at:]
    path.write_bytes(whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:])
    return path


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.aiff"])
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2024-05-17T10:20:30Z", MAY_S),
        ("2024-05-17 10:20:30.250 UTC", MAY_S + 0.25),
        ("2024-05-17T12:20:30+02:00", MAY_S),
        ("2024-05-17T07:20:30.123456789-0300", MAY_S + 0.123456),
        ("2024-05-17 12:20:30", MAY_S),
        ("2024:05:17 12:20:30", MAY_S),
        ("2024/5/17 12:20", MAY_S - 30),
        ("2024-05-17", None),
        ("2024", None),
        ("yesterday", None),
        ("2024-13-40T99:99:99", None),
        ("0001-01-01T00:00:00Z", None),
        ("9999-12-31T23:59:59-99:99", None),
    ],
)
def test_date_tag_with_a_time_of_day(tmp_path: Path, name: str, text: str, seconds: float | None) -> None:
    """ICRD of WAV and DATE of FLAC and OGG count when they say the time of day; without a zone it is local."""
    path = sound(tmp_path / name, date=text)
    expected = None if name.endswith("aiff") else seconds
    assert read_recording(path).recorded_s == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("before_data", [True, False])
@pytest.mark.parametrize("clock", ["12:20:30", "12-20-30"])
def test_broadcast_wav(tmp_path: Path, clock: str, *, before_data: bool) -> None:
    """Date and time of the bext chunk count as local time, wherever the chunk stands."""
    path = with_bext(sound(tmp_path / "a.wav"), "2024-05-17", clock, before_data=before_data)
    recording = read_recording(path)
    assert recording.recorded_s == MAY_S
    assert recording.length == 100


def test_broadcast_time_is_preferred_to_the_date_tag(tmp_path: Path) -> None:
    """The tag may be that of an editor; the chunk is the recorder's."""
    path = with_bext(sound(tmp_path / "a.wav", date="2025-01-01T00:00:00Z"), "2024-05-17", "12:20:30")
    assert read_recording(path).recorded_s == MAY_S


def test_chunk_of_nothing_says_nothing(tmp_path: Path) -> None:
    """Recorders without a clock leave the chunk empty."""
    assert read_recording(with_bext(sound(tmp_path / "a.wav"), "", "")).recorded_s is None
    assert read_recording(with_bext(sound(tmp_path / "b.wav"), "0000-00-00", "00:00:00")).recorded_s is None


@pytest.mark.parametrize("name", ["a.flac", "a.wav"])
@pytest.mark.parametrize(("rate_hz", "rate"), [(3906.25, Fraction(15_625, 4)), (8000.0, 8000)])
def test_recording_of_the_bridge(tmp_path: Path, name: str, rate_hz: float, rate: Fraction | int) -> None:
    """`bridge record` writes time, exact rate and scale; they come back."""
    info = StreamInfo(0, 1, Format.INT16, 1, rate_hz, 0.5, running=True, unit="g", sensor="ADXL")
    raw = np.arange(-50, 50, dtype=np.int16)[:, None]
    samples = Samples(info, raw, 0, 0, time.monotonic() - 60.0)
    with _Writer(tmp_path / name, samples) as writer:
        writer.write(samples, 100)
    recording = read_recording(tmp_path / name)
    assert recording.recorded_s == pytest.approx(time.time() - 60.0, abs=10)
    assert recording.recorded_s == pytest.approx(writer.time_s, abs=0.001)
    assert recording.rate_hz == rate
    np.testing.assert_allclose(recording.samples, 0.5 * raw[:, 0])


def test_comment_of_a_file_that_was_resampled(tmp_path: Path) -> None:
    """Programs that resample keep the comment: a rate in it that does not fit the header is not believed."""
    comment = {"fisher-edge": {"full_scale": 2.0, "time": "2024-05-17T10:20:30.500Z", "rate_hz": 3906.25}}
    recording = read_recording(sound(tmp_path / "a.wav", comment=json.dumps(comment)))
    assert (recording.rate_hz, recording.recorded_s, recording.scale) == (RATE_HZ, MAY_S + 0.5, 2.0)


@pytest.mark.parametrize(
    "facts", [{"time": 5}, {"time": "noon"}, {"rate_hz": "fast"}, {"rate_hz": -1}, {"rate_hz": []}]
)
def test_nonsense_in_the_comment_is_no_time_and_no_rate(tmp_path: Path, facts: dict[str, Any]) -> None:
    """Impossible facts in a comment are ignored."""
    comment = json.dumps({"fisher-edge": {"full_scale": 1.0, **facts}})
    recording = read_recording(sound(tmp_path / "a.wav", comment=comment))
    assert (recording.rate_hz, recording.recorded_s) == (RATE_HZ, None)


def test_file_that_says_nothing_has_no_time(tmp_path: Path) -> None:
    """The time of the file system is that of the last copy, and does not count; nor has an array any."""
    assert read_recording(next(EXAMPLES.glob("*/*.flac"))).recorded_s is None
    np.save(tmp_path / "a.npy", np.arange(5.0))
    assert read_recording(tmp_path / "a.npy", rate_hz=1000).recorded_s is None


@pytest.mark.parametrize("junk", [b"", b"\0" * 500, b"bext\x00\x00\x00\x00" * 50, b"abcd\xff\xff\xff\xff" + b"x" * 99])
def test_damaged_chunks_say_nothing(tmp_path: Path, junk: bytes) -> None:
    """Whatever stands behind the samples of a WAV file, the file is read."""
    path = sound(tmp_path / "a.wav")
    path.write_bytes(path.read_bytes() + junk)
    assert read_recording(path).recorded_s is None
