"""The block: a run of consecutive samples of one channel, with its rate and its place in time."""

from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np
import numpy.typing as npt

__all__ = ["Block", "FloatArray", "rfc3339"]

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive samples of one channel.

    `samples` has shape (n,), float32, in the unit of the channel. `index` is the position of its first
    sample in the stream: a block that does not start where the last one ended marks a gap.
    `time_s` is the time of the first sample, in seconds since 1970-01-01 UTC.
    """

    samples: FloatArray
    rate_hz: int
    index: int
    time_s: float


def rfc3339(time_s: float) -> str:
    """Write seconds since 1970 UTC as RFC 3339 with milliseconds: 2026-01-31T09:30:00.250Z."""
    moment = datetime.fromtimestamp(time_s, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
