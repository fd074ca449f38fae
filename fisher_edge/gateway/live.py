"""Takes recorded from a running sensor: what enrolling them would mean, and enrolling them. See `review`, `accept`."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from fisher_edge.decision.assess import Enrolled, EnrolledTake
from fisher_edge.dsp.grid import grid_of
from fisher_edge.errors import BadInputError
from fisher_edge.gateway.recordings import encoder_for, enroll_recordings, review_recordings
from fisher_edge.gateway.windows import Recorded, digest_of, windows_of
from fisher_edge.names import ChannelKey
from fisher_edge.publish.message import rfc3339
from fisher_edge.sources.bursts import read_bursts
from fisher_edge.sources.recording import read_recording
from fisher_edge.store.database import Database
from fisher_edge.store.takes import PendingTake, PendingTakes

__all__ = ["Reviewed", "accept", "review"]


@dataclass(frozen=True)
class Reviewed:
    """The takes of a channel that wait, and what enrolling them would mean (its version is 0).

    `names` are those of the takes in `enrolled`; `unusable` says of takes by number why they cannot be enrolled.
    """

    takes: tuple[PendingTake, ...]
    names: tuple[str, ...]
    unusable: dict[int, str]
    enrolled: Enrolled


def review(database: Database, key: ChannelKey, *, leave_out: Collection[int] = (), extend: bool = False) -> Reviewed:
    """Say what enrolling the takes that wait would mean; nothing is stored.

    Raises BadInputError when none waits, or when they cannot be enrolled.
    """
    waiting = _Waiting(database, key, leave_out, extend=extend)
    enrolled = review_recordings(
        database,
        waiting.encoder,
        waiting.recordings,
        key,
        [_described(take) for take in waiting.usable],
        extend=extend,
        window_s=waiting.facts.window_s,
        hop_s=waiting.facts.hop_s,
    )
    names = tuple(_described(take).name for take in waiting.takes)
    return Reviewed(tuple(waiting.takes), names, waiting.unusable, enrolled)


def accept(
    database: Database,
    key: ChannelKey,
    *,
    leave_out: Collection[int] = (),
    extend: bool = False,
    reason: str = "",
    audio_bytes: int,
) -> Enrolled:
    """Enroll the takes that wait as the normal state, and then delete them: they are kept with the baseline.

    `leave_out` are numbers of takes that are deleted without being enrolled, and so are those that cannot be; what is
    recorded meanwhile stays. Raises BadInputError as `review` does.
    """
    waiting = _Waiting(database, key, leave_out, extend=extend)
    enrolled = enroll_recordings(
        database,
        waiting.encoder,
        waiting.recordings,
        key,
        takes=[_described(take) for take in waiting.usable],
        extend=extend,
        window_s=waiting.facts.window_s,
        hop_s=waiting.facts.hop_s,
        audio_bytes=audio_bytes,
        reason=reason,
    )
    PendingTakes(database.state_dir, key).drop([*leave_out, *(take.number for take in waiting.takes)])
    return enrolled


class _Waiting:
    """The takes that wait but those left out, and the recordings of those of them that can be enrolled."""

    def __init__(self, database: Database, key: ChannelKey, leave_out: Collection[int], *, extend: bool) -> None:
        self.takes = _takes(database.state_dir, key, leave_out)
        self.facts = self.takes[0].facts
        self.encoder = encoder_for(database, self.facts.bundle, key, self.facts.provider, continued=extend)
        self.usable: list[PendingTake] = []
        self.recordings: list[Recorded] = []
        self.unusable: dict[int, str] = {}
        seen: dict[bytes, int] = {}
        for take in self.takes:
            try:
                recording = _opened(take)
                self._check(recording)
                first = seen.setdefault(digest_of(recording), take.number)
                if first != take.number:
                    raise BadInputError(f"it holds the same samples as take {first}")
            except BadInputError as error:
                self.unusable[take.number] = str(error)
                continue
            self.usable.append(take)
            self.recordings.append(recording)
        if not self.usable:
            raise BadInputError(f"no take of {key} can be enrolled: {next(iter(self.unusable.values()))}")

    def _check(self, recording: Recorded) -> None:
        """Embed the first window of a recording; BadInputError when it has none, or is one that no sensor gives."""
        front_end = replace(self.encoder.bundle.front_end, views=())
        grid = grid_of(front_end, self.facts.window_s, self.facts.hop_s, recording.rate_hz)
        next(windows_of(recording, self.encoder, front_end, grid))


def _takes(state_dir: Path, key: ChannelKey, leave_out: Collection[int]) -> list[PendingTake]:
    """Return the takes that wait but those left out; all of them are cut alike."""
    everything = PendingTakes(state_dir, key).all()
    unknown = sorted(set(leave_out) - {take.number for take in everything})
    if unknown:
        raise BadInputError(f"{key} has no take {', '.join(map(str, unknown))}; see: fisher-edge baseline review")
    takes = [take for take in everything if take.number not in leave_out]
    if not takes:
        raise BadInputError(f"no take of {key} waits; run: fisher-edge baseline record {key.asset} {key.channel}")
    ways = {(take.facts.window_s, take.facts.hop_s, take.facts.bundle, take.facts.bursts) for take in takes}
    if len(ways) > 1:
        raise BadInputError(
            f"the configuration of {key} was changed between its takes: windows, model or bursts differ; leave out the "
            "takes from before"
        )
    return takes


def _described(take: PendingTake) -> EnrolledTake:
    """Say of a take what it is called, when it was recorded and in which operating state."""
    facts = take.facts
    name = f"take {take.number} of {rfc3339(facts.recorded_s)}"
    return EnrolledTake(name, (), recorded_s=facts.recorded_s, state=facts.state)


def _opened(take: PendingTake) -> Recorded:
    """Open a take."""
    if take.facts.bursts:
        (recording,) = read_bursts([take.file], rate_hz=take.facts.rate, interval_s=take.facts.interval_s)
        return recording
    rate = take.facts.rate if take.file.suffix == ".npy" else None
    return read_recording(take.file, rate_hz=rate)
