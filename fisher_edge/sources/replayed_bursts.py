"""The source `bursts`: recordings of a sensor that sends bursts, replayed. Start at `open_bursts`."""

import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from fisher_edge.dsp.blocks import Block, as_rate
from fisher_edge.sources.bursts import BurstRecording, read_bursts
from fisher_edge.sources.recording import Replay
from fisher_edge.sources.source import SourceContext

__all__ = ["BurstSource", "open_bursts"]


@dataclass
class BurstSource(Replay):
    """Replays bursts, one every `interval_s`: `speed` 1 as fast as recorded, 10 ten times as fast, 0 without waiting.

    Time stamps start at the clock of the context. From one burst to the next the sample index jumps by one, which marks
    the silence between them.
    """

    interval_s: float = 1.0

    def __enter__(self) -> "BurstSource":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held open."""

    def blocks(self, stop: threading.Event) -> Iterator[Block]:
        """Yield a block for each burst until the recordings end (never, with `loop`) or `stop` is set.

        Raises BadInputError for files that cannot be read.
        """
        recordings = read_bursts(self.files, rate_hz=self.rate_hz, interval_s=self.interval_s)
        return self._play(recordings, stop)

    def _play(self, recordings: list[BurstRecording], stop: threading.Event) -> Generator[Block, None, None]:
        start_s, began_s = self.context.clock(), time.monotonic()
        number, index = 0, 0
        while True:
            for recording in recordings:
                for samples in recording.blocks():
                    passed_s = number * self.interval_s
                    if self.wait(began_s, passed_s, stop):
                        return
                    scaled = samples * np.float32(self.context.scale)
                    yield Block(scaled, recording.rate_hz, index, start_s + passed_s)
                    number, index = number + 1, index + len(samples) + 1
            if not self.loop:
                return


def open_bursts(
    context: SourceContext,
    *,
    files: Annotated[
        tuple[Path, ...],
        Field(
            min_length=1,
            description="Recordings of bursts: a .npy file of two dimensions holds one in each row; any other file is "
            "one, and the files of a folder are one recording.",
        ),
    ],
    interval_s: Annotated[float, Field(gt=0, description="Seconds from the start of a burst to that of the next.")],
    rate_hz: Annotated[float | None, Field(gt=0, description="Sampling rate in Hz; only .npy files need it.")] = None,
    speed: Annotated[
        float, Field(ge=0, description="1 is as fast as recorded, 10 ten times as fast, 0 without waiting.")
    ] = 1.0,
    loop: Annotated[bool, Field(description="Whether the recordings are played again and again.")] = False,
) -> BurstSource:
    """Open the source `{ type = "bursts", files = ["bearing.npy"], rate_hz = 25600, interval_s = 10 }`."""
    paths = tuple(context.base_dir / file for file in files)
    return BurstSource(context, paths, None if rate_hz is None else as_rate(rate_hz), speed, loop, interval_s)
