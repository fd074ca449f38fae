"""Recordings of bursts, replayed: every burst whole, in its time, with silence between them."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from command import run_here
from machine import RATE_HZ, machine_signal
from plain_source import FakeClock

from fisher_edge.config import Config
from fisher_edge.errors import BadInputError
from fisher_edge.gateway import Gateway
from fisher_edge.names import ChannelKey
from fisher_edge.sources.open import open_source
from fisher_edge.sources.replayed_bursts import BurstSource, open_bursts
from fisher_edge.sources.source import SourceContext
from fisher_edge.store.bounds import Limits
from fisher_edge.store.database import Database
from fisher_edge.store.records import Records

KEY = ChannelKey("pump-1", "wireless")
BURSTS = np.random.default_rng(0).standard_normal((5, 1600)).astype(np.float32)
LIMITS = Limits(waiting_bytes=1 << 24, waiting_s=3600, history_bytes=1 << 24, history_s=3600)


def source_of(folder: Path, **options: object) -> BurstSource:
    """Return a source of two arrays, without waiting unless told so."""
    np.save(folder / "a.npy", BURSTS[:3])
    np.save(folder / "b.npy", BURSTS[3:])
    context = SourceContext(KEY, folder, scale=2.0, clock=FakeClock())
    settings = {"files": (Path("a.npy"), Path("b.npy")), "interval_s": 10.0, "rate_hz": 16_000.0, "speed": 0.0}
    return open_bursts(context, **{**settings, **options})  # type: ignore[arg-type]  # as the configuration has them


def test_every_burst_is_a_block_in_its_time(tmp_path: Path) -> None:
    """Scaled, ten seconds apart over both files, with a jump of the index between bursts."""
    source = source_of(tmp_path)
    assert (source.finite, source.patient) == (True, True)
    with source:
        blocks = list(source.blocks(threading.Event()))
    assert np.array_equal(np.stack([block.samples for block in blocks]), 2 * BURSTS)
    assert [block.time_s for block in blocks] == [1000.0 + 10 * number for number in range(5)]
    assert [block.index for block in blocks] == [1601 * number for number in range(5)]
    assert {block.rate_hz for block in blocks} == {16_000}


def test_loop_never_ends_and_time_goes_on(tmp_path: Path) -> None:
    """After the last burst comes the first one, as long after as any other."""
    source, stop = source_of(tmp_path, loop=True), threading.Event()
    assert not source.finite
    times_s = []
    for block in source.blocks(stop):
        times_s.append(block.time_s)
        if len(times_s) == 12:
            stop.set()
    assert times_s == [1000.0 + 10 * number for number in range(12)]


def test_speed_says_how_fast(tmp_path: Path) -> None:
    """At a hundred times the speed five bursts ten seconds apart take 0.4 s at least."""
    source, began_s = source_of(tmp_path, speed=100.0), time.monotonic()
    assert not source.patient
    assert len(list(source.blocks(threading.Event()))) == 5
    assert time.monotonic() - began_s >= 0.4


def test_bursts_longer_than_their_interval_are_refused(tmp_path: Path) -> None:
    """In one line, when the source is opened."""
    with pytest.raises(BadInputError, match=r"cannot begin every 0\.05 s"):
        source_of(tmp_path, interval_s=0.05).blocks(threading.Event())


def test_replayed_bursts_are_judged(tmp_path: Path) -> None:
    """Enrolled and played as arrays: the healthy ones stay normal, the faulty ones raise an alarm."""
    for seed in range(3):
        np.save(tmp_path / f"{seed}.npy", machine_signal(seed, 15).reshape(30, -1)[:, :1600])
    played = np.concatenate([machine_signal(5, 15), machine_signal(6, 15, fault_hz=5000.0)])
    np.save(tmp_path / "played.npy", played.reshape(60, -1)[:, :1600])
    words = ("--asset", KEY.asset, "--channel", KEY.channel, "--rate-hz", RATE_HZ, "--bursts", "--burst-interval-s", 60)
    assert run_here("enroll", "0.npy", "1.npy", "2.npy", *words, cwd=tmp_path).returncode == 0
    source = {"type": "bursts", "files": ["played.npy"], "rate_hz": RATE_HZ, "interval_s": 60, "speed": 0}
    channel = {"asset": KEY.asset, "name": KEY.channel, "bursts": True, "no_data_s": 1800, "source": source}
    tables = {"gateway": {"state_dir": tmp_path / "state"}, "mqtt": {"embedded_port": 0}, "channel": [channel]}
    config = Config.model_validate(tables, context={"base_dir": tmp_path})
    Gateway(config, open_source=open_source).run()
    with Database(tmp_path / "state") as database:
        records = Records(database, database.new_boot(), limits=LIMITS)
        states = [kept.value.state.value for kept in records.history(KEY, "result")]
    assert set(states[: len(states) // 2 - 2]) == {"normal"}
    assert states[-1] == "alarm"
