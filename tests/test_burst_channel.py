"""A channel of bursts in the gateway: silence between bursts is no gap and no wrong rate, and windows join them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import run_here, troubles
from machine import RATE_HZ, machine_signal, sound_file
from plain_source import FakeClock, PlainSource

from fisher_edge.config import Config
from fisher_edge.decision.judgement import State
from fisher_edge.dsp.blocks import Block
from fisher_edge.gateway import Gateway
from fisher_edge.gateway.reader import Cutting, Reader
from fisher_edge.gateway.status import Counters
from fisher_edge.gateway.wiring import Encoders, Planner
from fisher_edge.gateway.work import JudgePiece, WorkQueue
from fisher_edge.names import ChannelKey
from fisher_edge.store.baselines import Baselines
from fisher_edge.store.bounds import Limits
from fisher_edge.store.database import Database
from fisher_edge.store.records import Records

KEY = ChannelKey("pump-1", "wireless")
PLACE = ("--asset", KEY.asset, "--channel", KEY.channel)
SAMPLES = 1600  # 8 frames
LIMITS = Limits(waiting_bytes=1 << 24, waiting_s=3600, history_bytes=1 << 24, history_s=3600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one channel enrolled from bursts, in `state`, and files of one burst each."""
    made = tmp_path_factory.mktemp("channel")
    for seed in range(3):
        np.save(made / f"{seed}.npy", machine_signal(seed, 15).reshape(30, -1)[:, :SAMPLES])
    signal = np.concatenate([machine_signal(5, 2), machine_signal(6, 4, fault_hz=5000.0)])
    for number, burst in enumerate(signal.reshape(-1, SAMPLES)):
        sound_file(made / f"burst-{number:02d}.wav", burst)
    enrolled = run_here("enroll", "0.npy", "1.npy", "2.npy", *PLACE, "--rate-hz", RATE_HZ, "--bursts",
                        "--burst-interval-s", 60, cwd=made)  # fmt: skip
    assert (enrolled.returncode, troubles(enrolled)) == (0, [])
    return made


def config_of(folder: Path, **channel: Any) -> Config:
    """Return a configuration with one channel, which plays the files of bursts."""
    files = [str(path) for path in sorted(folder.glob("burst-*.wav"))]
    source = {"type": "recording", "files": files, "speed": 0}
    settings = {"bursts": True, "no_data_s": 1800, "source": source} | channel
    return Config.model_validate(
        {
            "gateway": {"state_dir": folder / "state"},
            "mqtt": {"embedded_port": 0},
            "channel": [{"asset": KEY.asset, "name": KEY.channel, **settings}],
        }
    )


def reader_of(config: Config, source: PlainSource) -> Reader:
    """Return a reader with the cutting of the plan, which was not started."""
    with Database(config.gateway.state_dir) as database:
        planner = Planner(config, Baselines(database), Encoders(config.gateway.state_dir))
        plan = planner.plan(config.channel[0])
    assert plan.reason is None
    clock = FakeClock()
    return Reader(KEY, source, plan.cutting, WorkQueue([KEY]), Counters(clock()), monotonic=clock)


def bursts(count: int = 30, interval_s: float = 60.0, late_s: float = 0.0) -> Iterator[Block]:
    """Yield bursts of a machine, half a burst a block; the second half of them comes later."""
    signal = machine_signal(1, count / 10).reshape(count, 2, -1)
    for number in range(count):
        time_s = 1e9 + interval_s * number + (late_s if 2 * number >= count else 0.0)
        for half in range(2):
            start = half * SAMPLES // 2
            yield Block(signal[number, half], RATE_HZ, 50_000 * number + start, time_s + start / RATE_HZ)


def test_silence_between_bursts_is_no_gap_and_no_wrong_rate(folder: Path) -> None:
    """Bursts over half an hour give consecutive pieces to their last burst; nothing distrusts the sensor."""
    reader = reader_of(config_of(folder), PlainSource(lambda _: bursts(), finite=True))
    reader.run()
    found = []
    while not reader._queue.idle():
        work = reader._queue.get()
        assert isinstance(work, JudgePiece)
        found.append(work)
        reader._queue.done()
    assert [work.piece.number for work in found] == list(range(7))
    assert [work.distrust for work in found] == [None] * 7
    assert found[-1].piece.end_time_s == pytest.approx(1e9 + 60 * 29 + 0.1)
    assert (found[0].grid.window_s, found[0].grid.hop_s) == pytest.approx((720, 180))
    assert (reader.counters.gaps, reader.counters.real_rate_hz) == (0, None)


def test_silence_beyond_the_setting_is_a_gap(folder: Path) -> None:
    """With burst_max_gap_s a longer silence is counted, and no piece holds bursts of both sides."""
    reader = reader_of(config_of(folder, burst_max_gap_s=120), PlainSource(lambda _: bursts(late_s=3600), finite=True))
    reader.run()
    assert reader.counters.gaps == 1
    numbers = []
    while not reader._queue.idle():
        work = reader._queue.get()
        assert isinstance(work, JudgePiece)
        numbers.append(work.piece.number)
        reader._queue.done()
    assert numbers == [0, 1, 3, 4]


def test_gateway_judges_bursts(folder: Path) -> None:
    """Files of one burst each, played through the whole gateway: calm on healthy bursts, in alarm on faulty ones."""
    gateway = Gateway(config_of(folder))
    gateway.run()
    with Database(folder / "state") as database:
        results = [row.value for row in Records(database, 1, limits=LIMITS).history(KEY, "result")]
    assert [result.state for result in results[:3]] == [State.NORMAL] * 3
    assert results[-1].state is State.ALARM
    assert len(results) == 17
    assert {result.judgement.window_s for result in results} == {720.0}
    assert gateway.channels[KEY].counters.gaps == 0


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"bursts": True, "no_data_s": None}, "pump-1/wireless: bursts = true needs no_data_s, the longest normal"),
        ({"bursts": False, "burst_max_gap_s": 5}, "burst_max_gap_s is for bursts; add bursts = true or leave it out"),
        ({"hop_s": 2}, "hop_s = 2 is above window_s = 0.96"),
    ],
)
def test_settings_that_cannot_be_are_refused(folder: Path, settings: dict[str, Any], reason: str) -> None:
    """What is missing or contradicts itself is named with its channel."""
    with pytest.raises(ValueError, match="channel pump-1/wireless") as caught:
        config_of(folder, **settings)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"bursts": False}, "enrolled from bursts, the configuration says nothing of them; set bursts = true"),
        ({"name": "wired"}, "says bursts = true, the channel is enrolled from unbroken recordings; enroll with"),
        ({"window_s": 1.92}, "enrolled with windows of 0.96 s, the configuration says 1.92 s; set window_s = 0.96"),
    ],
)
def test_channel_that_differs_from_its_baseline_is_refused(folder: Path, settings: dict[str, Any], reason: str) -> None:
    """A channel is read as it was enrolled, or not at all; the reason says how to go on."""
    if "name" in settings:
        words = ("--asset", KEY.asset, "--channel", "wired", "--window-s", 0.96)
        sound_file(folder / "long.wav", machine_signal(4, 10))
        assert run_here("enroll", "long.wav", *words, cwd=folder).returncode == 0
    config = config_of(folder, **settings)
    with Database(folder / "state") as database:
        plan = Planner(config, Baselines(database), Encoders(folder / "state")).plan(config.channel[0])
    assert plan.reason is not None
    assert reason in plan.reason
    assert plan.cutting.refused == plan.reason


def test_channel_without_a_baseline_is_cut_into_bursts(folder: Path) -> None:
    """Before anything is enrolled the windows of a channel of bursts are one piece long, without views."""
    config = config_of(folder, name="new")
    with Database(folder / "state") as database:
        cutting = Planner(config, Baselines(database), Encoders(folder / "state")).plan(config.channel[0]).cutting
    assert isinstance(cutting, Cutting)
    assert (cutting.bursts, cutting.window_s, cutting.hop_s, cutting.front_end.views) == (True, 0.96, None, ())
