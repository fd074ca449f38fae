"""Takes recorded from a running sensor that wait to be enrolled. Start at `PendingTakes`.

One folder a channel, `takes/<asset>/<channel>`; each take is a file of samples (32-bit float WAV or, where WAV cannot
hold the rate or the bursts, NumPy) and a JSON file of what is known about it, written when the take is complete.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile

from fisher_edge.dsp.blocks import FloatArray, Rate, as_rate
from fisher_edge.errors import BadInputError, StateError
from fisher_edge.names import ChannelKey
from fisher_edge.store.audio import safe_name
from fisher_edge.store.database import make_private

__all__ = ["PendingTake", "PendingTakes", "TakeFacts", "TakeWriter"]

FOLDER = "takes"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TakeFacts:
    """What is known about a take: how it is to be cut (seconds), when it began (s UTC), its operating state.

    `bundle` is the folder of the model, or "default", and `provider` what runs it. `interval_s` is the time from one
    burst to the next; None: no bursts.
    """

    window_s: float
    hop_s: float | None
    bundle: str
    rate: str
    recorded_s: float
    state: str | None = None
    bursts: bool = False
    interval_s: float | None = None
    samples: int = 0
    provider: str = "auto"

    @property
    def rate_hz(self) -> Rate:
        """Samples per second."""
        return as_rate(Fraction(self.rate))

    @property
    def signal_s(self) -> float:
        """Seconds of signal."""
        return float(self.samples / self.rate_hz)


@dataclass(frozen=True)
class PendingTake:
    """A take that waits: its number, its file and what is known about it."""

    number: int
    file: Path
    facts: TakeFacts


class PendingTakes:
    """The takes of one channel that wait to be enrolled."""

    def __init__(self, state_dir: Path, key: ChannelKey) -> None:
        key.check()
        self.key = key
        self.folder = state_dir / FOLDER / safe_name(key.asset) / safe_name(key.channel)

    def all(self) -> list[PendingTake]:
        """Return the complete takes, in the order of recording."""
        return [self._read(path) for path in sorted(self.folder.glob("*.json"))]

    def begin(self, facts: TakeFacts) -> "TakeWriter":
        """Begin another take; what a killed gateway left incomplete is deleted."""
        make_private(self.folder)
        numbers = [int(path.stem) for path in self.folder.glob("*.json")]
        for path in self.folder.iterdir():
            if not path.with_suffix(".json").exists():
                log.warning("%s: a take was not recorded to its end and is deleted: %s", self.key, path.name)
                path.unlink()
        return TakeWriter(self.folder / f"{max(numbers, default=0) + 1:04d}", facts)

    def drop(self, numbers: Sequence[int] | None = None) -> int:
        """Delete takes, by default all, and return how many; BadInputError for a number that no take has."""
        known = {int(path.stem) for path in self.folder.glob("*.json")}
        missing = sorted(set(numbers or ()) - known)
        if missing:
            raise BadInputError(
                f"{self.key} has no take {', '.join(map(str, missing))} that waits; it has: "
                f"{', '.join(map(str, sorted(known))) or 'none'}"
            )
        chosen = known if numbers is None else known & set(numbers)
        for number in chosen:
            for path in sorted(self.folder.glob(f"{number:04d}.*")):  # .json first: without it a take is incomplete
                path.unlink()
        return len(chosen)

    def _read(self, path: Path) -> PendingTake:
        """Read what is known about a take."""
        try:
            facts = TakeFacts(**json.loads(path.read_text()))
            (file,) = (each for each in path.parent.glob(f"{path.stem}.*") if each.suffix != ".json")
        except (OSError, ValueError, TypeError) as error:
            raise StateError(
                f"{path} is damaged ({error}); run: fisher-edge baseline discard {self.key.asset} {self.key.channel}, "
                "or delete the file, and record again"
            ) from error
        return PendingTake(int(path.stem), file, facts)


class TakeWriter:
    """One take under way: `write` samples (n,) in the unit of the channel, then `close`."""

    def __init__(self, path: Path, facts: TakeFacts) -> None:
        self.samples = 0
        self._path = path
        self._facts = facts
        self._starts_s: list[float] = []
        self._blocks: list[FloatArray] = []
        self._file: soundfile.SoundFile | None = None
        if isinstance(facts.rate_hz, int) and not facts.bursts:
            self._file = soundfile.SoundFile(
                path.with_suffix(".wav"), "w", samplerate=facts.rate_hz, channels=1, subtype="FLOAT"
            )

    def write(self, samples: FloatArray, time_s: float) -> None:
        """Append samples whose first one is of this time (s UTC); of a sensor that sends bursts: one burst."""
        self.samples += len(samples)
        if self._file is not None:
            self._file.write(samples)
            return
        self._blocks.append(samples.copy())
        self._starts_s.append(time_s)

    def close(self) -> None:
        """Complete the take."""
        facts = replace(self._facts, samples=self.samples)
        if self._file is not None:
            self._file.close()
        elif facts.bursts:
            shortest = min(map(len, self._blocks))
            np.save(self._path.with_suffix(".npy"), np.stack([block[:shortest] for block in self._blocks]))
            steps_s = np.diff(self._starts_s)
            facts = replace(facts, interval_s=float(np.median(steps_s)) if len(steps_s) else None)
        else:
            np.save(self._path.with_suffix(".npy"), np.concatenate(self._blocks))
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(facts)))
        partial.rename(self._path.with_suffix(".json"))
