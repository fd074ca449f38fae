"""What a counting device sends: values that go up by one, modulo 2^16."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["RAMP", "consecutive"]

RAMP = 1 << 16


def consecutive(values: npt.NDArray[Any]) -> bool:
    """Whether values count on, modulo 2^16."""
    whole = values.astype(np.int64)
    return bool(np.all((whole[1:] - whole[:-1]) % RAMP == 1))
