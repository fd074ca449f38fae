"""What a sensor of another rate than the enrolled one is judged by. Start at `at_other_rate`."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fisher_edge.decision.common import Common, common_of, relearnt, restricted
from fisher_edge.decision.fusion import Fusion
from fisher_edge.decision.naming import learn, made_alike, normal_of
from fisher_edge.dsp.blocks import Rate, rate_text
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import at_rate
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.errors import BadInputError
from fisher_edge.gateway.windows import read_again, windows_of
from fisher_edge.store.audio import AudioArchive
from fisher_edge.store.baselines import Baseline

__all__ = ["Heard", "at_other_rate"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Heard:
    """Active baselines of a channel, the rate at which its sensor is heard for them, and how faults are named.

    `common` says what counts where the sensor has another rate than the enrolled one.
    """

    enrolled: list[Baseline]
    rate_hz: Rate
    fusion: Fusion | None
    common: Common | None = None


def at_other_rate(
    state_dir: Path, encoder: Encoder, front_end: FrontEnd, enrolled: Sequence[Baseline], sensor_hz: Rate
) -> Heard:
    """Bring the active baselines of a channel, the normal state among them, to the bands in common with a sensor.

    `encoder` and `front_end` are those of the normal state. Where the sensor has the lower rate, the kept recordings
    are embedded again, which takes a moment. Raises BadInputError where no band is common or the recordings of the
    normal state were not kept.
    """
    normal = normal_of(enrolled)
    assert normal is not None, "callers have looked"
    if normal.grid.bursts:
        raise BadInputError(
            f"the baseline of {normal.key} was enrolled from bursts at {rate_text(normal.rate_hz)} Hz, which cannot be "
            f"compared with {rate_text(sensor_hz)} Hz; enroll bursts of this rate"
        )
    common = common_of(front_end, normal.rate_hz, sensor_hz)
    alike = [baseline for baseline in enrolled if baseline is normal or made_alike(baseline, normal)]
    if sensor_hz > normal.rate_hz:
        found = [restricted(baseline, common) for baseline in alike]
    else:
        archive = AudioArchive(state_dir)
        found = [
            moved
            for baseline in alike
            if (moved := _relearnt(archive, encoder, front_end, baseline, common)) is not None
        ]
    return Heard(found, common.rate_hz, learn(found), common)


def _relearnt(
    archive: AudioArchive, encoder: Encoder, front_end: FrontEnd, baseline: Baseline, common: Common
) -> Baseline | None:
    """Embed the kept recordings of a baseline at the lower rate; examples that were not kept have no vote: None."""
    key, label = baseline.key, baseline.label
    files = archive.files(key, label, baseline.version)
    if len(files) != len(baseline.takes):
        if label is None:
            raise BadInputError(
                f"the recordings of {key} version {baseline.version} were not kept, and what is stored of "
                f"{rate_text(common.enrolled_hz)} Hz cannot be compared with {rate_text(common.sensor_hz)} Hz; enroll "
                "again from your own files, or enroll recordings of this sensor"
            )
        log.warning("%s: the recordings of %r were not kept: at another rate its examples have no vote", key, label)
        return None
    grid = at_rate(front_end, baseline.grid, common.rate_hz)
    takes = [
        windows_of(recording, encoder, front_end, grid, rate_hz=common.rate_hz)
        for recording in read_again(files, baseline)
    ]
    return relearnt(baseline, common, front_end, takes)
