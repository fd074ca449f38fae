"""Gateways for tests: enrolled machines, configurations, and a gateway that runs on a thread of this process."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from machine import RATE_HZ, machine_signal, sound_file
from mosquitto import wait_until
from plain_source import PlainSource

from fisher_edge.config import ChannelConfig, Config
from fisher_edge.dsp.blocks import Block, FloatArray
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.gateway import Gateway
from fisher_edge.gateway.recordings import enroll_recordings
from fisher_edge.names import ChannelKey
from fisher_edge.sources.recording import read_recording
from fisher_edge.store.database import Database

__all__ = ["WINDOW_S", "config_of", "endless", "enroll_machine", "running"]

WINDOW_S = 0.32
HOP_S = 0.16


def enroll_machine(folder: Path, encoder: Encoder, key: ChannelKey, seeds: range = range(3), gain: float = 1.0) -> int:
    """Enroll takes of the machine of `machine.py` in the state directory of a folder; return the version."""
    takes = [
        read_recording(sound_file(folder / f"{key.channel}-{seed}-{gain}.wav", machine_signal(seed, 2.0, gain=gain)))
        for seed in seeds
    ]
    with Database(folder / "state") as database:
        return enroll_recordings(database, encoder, takes, key, window_s=WINDOW_S, hop_s=HOP_S).version


def config_of(folder: Path, url: str, keys: list[ChannelKey], **tables: Any) -> Config:
    """Return a configuration whose channels have sources that the test brings."""
    channel = {"window_s": WINDOW_S, "hop_s": HOP_S, "source": {"type": "recording", "files": ["unused.wav"]}}
    return Config.model_validate(
        {
            "gateway": {"name": "line-3", "state_dir": str(folder / "state")},
            "mqtt": {"url": url},
            "channel": [{"asset": key.asset, "name": key.channel, **channel} for key in keys],
            **tables,
        }
    )


def endless(
    *signals: FloatArray, block_s: float = 0.1, time_s: float = 1e9
) -> Callable[[threading.Event], Iterator[Block]]:
    """Return a script that plays signals one after the other, the last one for ever, without waiting."""

    def script(stop: threading.Event) -> Iterator[Block]:
        step, index, number = round(block_s * RATE_HZ), 0, 0
        while not stop.is_set():
            signal = signals[min(number, len(signals) - 1)]
            for first in range(0, len(signal), step):
                part = np.asarray(signal[first : first + step], np.float32)
                yield Block(part, RATE_HZ, index, time_s + index / RATE_HZ)
                index += len(part)
                if stop.is_set():
                    return
            index += 1
            number += 1

    return script


@contextmanager
def running(config: Config, sources: dict[ChannelKey, PlainSource], **clocks: Any) -> Iterator[Gateway]:
    """Run a gateway on a thread for as long as the block lasts; what it raises is raised here in the end."""

    def open_source(channel: ChannelConfig, *_: Any, **__: Any) -> PlainSource:
        return sources[channel.key]

    gateway = Gateway(config, open_source=open_source, **clocks)
    raised: list[BaseException] = []

    def run() -> None:
        try:
            gateway.run()
        except BaseException as error:  # noqa: BLE001 -- raised in the thread of the test
            raised.append(error)

    thread = threading.Thread(target=run, name="gateway")
    thread.start()
    try:
        wait_until(lambda: gateway.status() is not None or raised, "the gateway", 30)
        yield gateway
    finally:
        gateway.stop()
        thread.join(20)
    assert not thread.is_alive()
    if raised:
        raise raised[0]
