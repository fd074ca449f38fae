"""What the export of a bundle measured about its own faithfulness. See `unfaithful_bands`."""

import math
from collections.abc import Mapping
from typing import Any

from fisher_edge.dsp.blocks import Rate

__all__ = ["unfaithful_bands"]

# Rates that differ by less make the same bands, up to a bin or two.
SAME_RATE = 0.1


def unfaithful_bands(manifest: Mapping[str, Any], rate_hz: Rate, form: str) -> list[tuple[float, float]]:
    """Return the sub-bands (Hz) in which a bundle's own rounding is not small against the distances of healthy windows.

    They were measured on recordings of about this rate, when the bundle was exported; none where nothing was measured.
    `form` is the key of the form that runs: a variant, or the model file itself.
    """
    of_form = manifest.get("variants", {}).get(form, manifest)
    groups = of_form.get("parity", {}).get("unfaithful", [])
    return [
        (float(group["low_hz"]), float(group["high_hz"]))
        for group in groups
        if math.isclose(float(group["rate_hz"]), float(rate_hz), rel_tol=SAME_RATE)
    ]
