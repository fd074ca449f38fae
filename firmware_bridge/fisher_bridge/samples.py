"""From the bytes of DATA messages to arrays: whole runs of frames at once."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fisher_bridge.messages import Format

__all__ = ["raw_samples"]


def raw_samples(payload: bytes, kind: Format, channels: int) -> npt.NDArray[Any]:
    """Return the samples as they were sent, shape (n, channels): int16, int32 (also of int24) or float32."""
    if kind == Format.INT24:
        return _int24(np.frombuffer(payload, np.uint8)).reshape(-1, channels)
    dtype = {Format.INT16: "<i2", Format.INT32: "<i4", Format.FLOAT32: "<f4"}[kind]
    return np.frombuffer(payload, dtype).reshape(-1, channels)


def _int24(octets: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """Widen three bytes to four: into the upper three, then shifted down with the sign."""
    wide = np.zeros((len(octets) // 3, 4), np.uint8)
    wide[:, 1:] = octets.reshape(-1, 3)
    return wide.view("<i4")[:, 0] >> 8
