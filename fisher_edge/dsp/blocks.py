"""The block: a run of consecutive samples of one channel, with its rate and its place in time."""

import re
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from fisher_edge.errors import BadInputError

__all__ = ["Block", "FloatArray", "Rate", "as_rate", "rate_text"]

FloatArray = npt.NDArray[np.float32]
# Samples per second: an int wherever it is whole. Boards divide their clock, so that 3906.25 Hz occur.
Rate = int | Fraction

LARGEST_DENOMINATOR = 1_000_000
LONGEST_TEXT = 40
# Fraction("1e999999999") would take all memory.
HUGE_EXPONENT = re.compile("e[-+]?[0-9]{3}", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive samples of one channel.

    `samples` has shape (n,), float32, in the unit of the channel. `index` is the position of its first
    sample in the stream: a block that does not start where the last one ended marks a gap.
    `time_s` is the time of the first sample, in seconds since 1970-01-01 UTC.
    """

    samples: FloatArray
    rate_hz: Rate
    index: int
    time_s: float


def as_rate(value: float | str | Fraction) -> Rate:
    """Return a rate (Hz) given as a number or as text ("3906.25", "15625/4"): an int where it is whole.

    Raises BadInputError for what is not a positive finite number.
    """
    try:
        rate = _fraction(value)
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise BadInputError(f"rate_hz={value!r:.60} is not a number; give samples per second, e.g. 3906.25") from error
    if rate <= 0:
        raise BadInputError(f"rate_hz={rate_text(rate)} is not above 0; give samples per second, e.g. 3906.25")
    return rate.numerator if rate.denominator == 1 else rate


def rate_text(rate_hz: Rate) -> str:
    """Write a rate as a person does: 48000, 3906.25."""
    return f"{float(rate_hz):.12g}"


def _fraction(value: float | str | Fraction) -> Fraction:
    """Read a number: text and whole numbers exactly, a float as the nearest fraction of a small denominator."""
    if isinstance(value, str):
        if len(value) > LONGEST_TEXT or HUGE_EXPONENT.search(value):
            raise ValueError(value)
        return Fraction(value)
    if isinstance(value, int | Fraction):
        return Fraction(value)
    return Fraction(float(value)).limit_denominator(LARGEST_DENOMINATOR)
