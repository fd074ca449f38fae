"""Takes recorded from a running sensor: what enrolling them would mean, and enrolling them. See `review`, `accept`."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from fisher_edge.decision.assess import Enrolled, EnrolledTake
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.select import open_encoder
from fisher_edge.errors import BadInputError
from fisher_edge.gateway.recordings import Recorded, enroll_recordings, review_recordings
from fisher_edge.names import ChannelKey
from fisher_edge.publish.message import rfc3339
from fisher_edge.sources.bursts import read_bursts
from fisher_edge.sources.recording import read_recording
from fisher_edge.store.database import Database
from fisher_edge.store.takes import PendingTake, PendingTakes, TakeFacts

__all__ = ["Reviewed", "accept", "review"]


@dataclass(frozen=True)
class Reviewed:
    """The takes of a channel that wait, by number, and what enrolling them would mean (its version is 0)."""

    takes: tuple[PendingTake, ...]
    names: tuple[str, ...]
    enrolled: Enrolled


def review(database: Database, key: ChannelKey, *, leave_out: Collection[int] = (), extend: bool = False) -> Reviewed:
    """Say what enrolling the takes that wait would mean; nothing is stored.

    Raises BadInputError when none waits, or when they cannot be enrolled.
    """
    waiting, facts = _waiting(database.state_dir, key, leave_out)
    takes = [_described(take) for take in waiting]
    enrolled = review_recordings(
        database,
        _encoder(facts),
        [_opened(take) for take in waiting],
        key,
        takes,
        extend=extend,
        window_s=facts.window_s,
        hop_s=facts.hop_s,
    )
    return Reviewed(tuple(waiting), tuple(take.name for take in takes), enrolled)


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

    `leave_out` are numbers of takes that are deleted without being enrolled. Raises BadInputError as `review` does.
    """
    waiting, facts = _waiting(database.state_dir, key, leave_out)
    enrolled = enroll_recordings(
        database,
        _encoder(facts),
        [_opened(take) for take in waiting],
        key,
        takes=[_described(take) for take in waiting],
        extend=extend,
        window_s=facts.window_s,
        hop_s=facts.hop_s,
        audio_bytes=audio_bytes,
        reason=reason,
    )
    PendingTakes(database.state_dir, key).drop()
    return enrolled


def _waiting(state_dir: Path, key: ChannelKey, leave_out: Collection[int]) -> tuple[list[PendingTake], TakeFacts]:
    """Return the takes that wait but those left out, and how all of them are cut."""
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
    return takes, takes[0].facts


def _encoder(facts: TakeFacts) -> Encoder:
    """Return the encoder of the configuration that the takes were recorded with."""
    return open_encoder(load_bundle(facts.bundle))


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
