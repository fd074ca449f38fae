"""Rates: whole numbers where they are whole, fractions where a board's clock gives them."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from fisher_edge.dsp.blocks import as_rate, rate_text
from fisher_edge.errors import BadInputError


@pytest.mark.parametrize(
    ("value", "rate"),
    [
        (48_000, 48_000),
        (48_000.0, 48_000),
        ("48000", 48_000),
        ("1e5", 100_000),
        (3906.25, Fraction(15_625, 4)),
        ("3906.25", Fraction(15_625, 4)),
        ("15625/4", Fraction(15_625, 4)),
        ("12/4", 3),
        (Fraction(6, 2), 3),
        (Fraction(200_000, 3), Fraction(200_000, 3)),
        (200_000 / 3, Fraction(200_000, 3)),
        (np.float32(1000.5), Fraction(2001, 2)),
        (np.int64(8000), 8000),
        (0.1, Fraction(1, 10)),
    ],
)
def test_rate_is_whole_where_it_can_be(value: Any, rate: int | Fraction) -> None:
    """Numbers and texts become an int, or the fraction a person means."""
    found = as_rate(value)
    assert found == rate
    assert type(found) is type(rate)


@pytest.mark.parametrize(
    "value",
    [0, -1, "0", "-48000", float("nan"), float("inf"), "nan", "inf", "", "fast", "1/0", "1/2/3", "48 000", "9" * 41],
)
def test_rate_that_is_none_is_refused(value: Any) -> None:
    """What is not a positive finite number is named in one line."""
    with pytest.raises(BadInputError, match=r"rate_hz=.* is not (a number|above 0); give samples per second") as caught:
        as_rate(value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["1e999999999", "1e-999999999", "1E+100", "1/1e9"])
def test_huge_exponent_is_refused_at_once(value: str) -> None:
    """A text of a few letters does not make a number of a billion digits."""
    with pytest.raises(BadInputError, match="is not a number"):
        as_rate(value)


@pytest.mark.parametrize(
    ("rate", "text"),
    [(48_000, "48000"), (1_000_000, "1000000"), (Fraction(15_625, 4), "3906.25"), (1_048_576, "1048576")],
)
def test_rate_is_written_as_people_do(rate: int | Fraction, text: str) -> None:
    """No exponent and no fraction bar."""
    assert rate_text(rate) == text
