"""Recordings in place of a sensor: cut like their stream, enrolled with what they need later, judged by window."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from machine import RATE_HZ, machine_signal, sound_file

from fisher_edge.decision.judgement import State
from fisher_edge.dsp.blocks import Block
from fisher_edge.dsp.grid import grid_of
from fisher_edge.dsp.stream import PieceStream
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.windows import WindowJoiner, read
from fisher_edge.errors import BadInputError, UsageError
from fisher_edge.gateway.recordings import enroll_recordings, reembed, score_recording, windows_of
from fisher_edge.gateway.wiring import Encoders
from fisher_edge.names import ChannelKey
from fisher_edge.sources.recording import Recording, read_recording
from fisher_edge.store import bundles
from fisher_edge.store.audio import AudioArchive
from fisher_edge.store.baselines import Baselines
from fisher_edge.store.database import Database

KEY = ChannelKey("pump-1", "vib-de")
# Names of files, their samples and rates.
Files = dict[str, tuple[Any, int]]
NORMAL: Files = {f"take-{seed}.wav": (machine_signal(seed), RATE_HZ) for seed in range(3)}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Return an open database."""
    with Database(tmp_path) as opened:
        yield opened


def recordings(folder: Path, files: Files) -> list[Recording]:
    """Write sound files and read them as recordings."""
    return [
        read_recording(sound_file(folder / name, np.asarray(samples, np.float32), rate_hz))
        for name, (samples, rate_hz) in files.items()
    ]


def test_windows_of_a_recording_are_those_of_its_stream(tmp_path: Path, encoder: Encoder) -> None:
    """Cut a stretch at a time, a recording gives the windows of one push of all its samples."""
    front_end = encoder.bundle.front_end
    grid = grid_of(front_end, 1.28, 0.5, RATE_HZ)
    (opened,) = recordings(tmp_path, {"a.wav": (machine_signal(0, 3.3), RATE_HZ)})
    pieces = PieceStream(front_end, RATE_HZ, grid).push(Block(machine_signal(0, 3.3), RATE_HZ, 0, 0.0))
    joiner = WindowJoiner(grid)
    pushed = [window for reading in read(encoder, front_end, pieces) if (window := joiner.push(reading))]
    assert len(pushed) == 5
    for left, right in zip(windows_of(opened, encoder, front_end, grid), pushed, strict=True):
        assert left.start == right.start
        assert left.end_time_s == pytest.approx(right.end_time_s)
        assert left.measures.rms == pytest.approx(right.measures.rms)
        np.testing.assert_allclose(left.embedding, right.embedding, atol=0.02)


def test_enrollment_keeps_what_it_needs_later(tmp_path: Path, database: Database, encoder: Encoder) -> None:
    """Bundle and recordings are kept with the baseline; names, specimens and times are stored."""
    first, *others = recordings(tmp_path, NORMAL)
    takes = [replace(first, recorded_s=1.7e9), *others]
    result = enroll_recordings(database, encoder, takes, KEY, window_s=0.64, specimens=["6205-a"], reason="new")
    kept = Baselines(database).get(KEY, None)
    assert kept is not None
    assert (result.version, kept.reason) == (1, "new")
    assert [(take.name, take.specimen, take.recorded_s) for take in kept.takes] == [
        ("take-0.wav", "6205-a", 1.7e9),
        ("take-1.wav", "6205-a", None),
        ("take-2.wav", "6205-a", None),
    ]
    assert bundles.find(database.state_dir, encoder.sha256) is not None
    files = AudioArchive(database.state_dir).files(KEY, None, 1)
    for seed, file in enumerate(files):
        samples = np.concatenate(list(read_recording(file).blocks()))
        np.testing.assert_array_equal(samples, machine_signal(seed))
    assert len(files) == 3


def test_kept_recordings_are_embedded_again(tmp_path: Path, database: Database, encoder: Encoder) -> None:
    """The newest version has the same windows, recordings and lengths; without recordings it is refused."""
    taken, other, _ = recordings(tmp_path, NORMAL)
    enroll_recordings(database, encoder, [replace(taken, recorded_s=5.0), other], KEY, window_s=0.64)
    taken.path.unlink()
    assert reembed(database, encoder, KEY).version == 2
    first, second = (Baselines(database).get(KEY, None, version) for version in (1, 2))
    assert first is not None
    assert second is not None
    assert (second.active, second.takes, second.grid) == (True, first.takes, first.grid)
    np.testing.assert_array_equal(second.vectors, first.vectors)
    AudioArchive(database.state_dir).forget(KEY, None)
    with pytest.raises(BadInputError, match="recordings of pump-1/vib-de version 2 were not kept, or not all"):
        reembed(database, encoder, KEY)


def test_scored_recording_has_a_state_for_every_window(tmp_path: Path, database: Database, encoder: Encoder) -> None:
    """A healthy recording stays normal, a faulty one ends in an alarm; times count from its start."""
    normal: Files = {f"{seed}.wav": (machine_signal(seed), RATE_HZ) for seed in range(6)}
    enroll_recordings(database, encoder, recordings(tmp_path, normal), KEY, window_s=0.64, hop_s=0.32)
    new: Files = {f"new-{hz}.wav": (machine_signal(100, 2.0, fault_hz=hz), RATE_HZ) for hz in (0.0, 5000.0)}
    encoders = Encoders(tmp_path)
    healthy, faulty = (list(score_recording(database, encoders, each, KEY)) for each in recordings(tmp_path, new))
    assert [each.state for each in healthy] == [State.NORMAL] * 5
    assert [each.state for each in faulty] == [State.NORMAL, *[State.ALARM] * 4]
    np.testing.assert_allclose([each.judgement.time_s for each in healthy], 0.655 + 0.32 * np.arange(5), atol=2e-3)


REFUSALS: list[tuple[Files, dict[str, Any], type[Exception], str]] = [
    ({}, {}, BadInputError, "no recordings to enroll"),
    ({"odd.wav": (np.ones(80_000), RATE_HZ)}, {}, BadInputError, "odd.wav: flat line: every sample is 1"),
    (
        {"odd.wav": ([0.5], RATE_HZ)},
        {},
        BadInputError,
        "odd.wav has 1 samples at 16000 Hz, a window of 0.64 s takes 10480; record",
    ),
    ({"odd.wav": (machine_signal(0, 0.5), RATE_HZ)}, {}, BadInputError, "use --window-s 0.48 or less"),
    ({"odd.wav": (np.arange(5000) % 7, 50)}, {}, BadInputError, "rate_hz=50 is below 100 Hz"),
    (NORMAL | {"odd.wav": (machine_signal(1), 8000)}, {}, BadInputError, "recordings at 8000, 16000 Hz cannot share"),
    (
        NORMAL | {"odd.wav": (machine_signal(0), RATE_HZ)},
        {},
        BadInputError,
        "odd.wav hold the same samples; leave one of them out",
    ),
    (NORMAL, {"window_s": 0.0}, BadInputError, "window_s=0 is not a time above 0"),
    (NORMAL, {"hop_s": float("nan")}, BadInputError, "hop_s=nan is not a time above 0"),
    (NORMAL, {"specimens": ["A", "B"]}, UsageError, "2 names for the specimen of 3 recordings"),
    (NORMAL, {"specimens": [" "]}, UsageError, "specimen ' ' names nothing"),
    (NORMAL, {"states": ["fast", "slow"]}, UsageError, "2 names for the operating state of 3 recordings"),
    (NORMAL, {"states": [""]}, UsageError, "operating state '' names nothing"),
]


@pytest.mark.parametrize(("files", "options", "kind", "reason"), REFUSALS, ids=[row[-1][:40] for row in REFUSALS])
def test_recordings_that_cannot_be_enrolled_are_refused(
    tmp_path: Path,
    database: Database,
    encoder: Encoder,
    files: Files,
    options: dict[str, Any],
    kind: type[Exception],
    reason: str,
) -> None:
    """Every refusal is one line with the values, and nothing is stored."""
    takes = recordings(tmp_path, files)
    with pytest.raises(kind) as caught:
        enroll_recordings(database, encoder, takes, KEY, **{"window_s": 0.64, **options})
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert Baselines(database).facts() == []
    assert AudioArchive(database.state_dir).files(KEY, None, 1) == []
